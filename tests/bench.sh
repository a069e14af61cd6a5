#!/usr/bin/env bash
# Runs the bench and writes docs/bench.json and docs/bench.svg; the table goes to standard output.
#
#     tests/bench.sh [--short] [PART...]
#
# Takes some twelve minutes; with --short, which is to see that it works, every part has fewer sizes, turns and samples.
# As root it installs what lacks, the peers among it (fwknopd, knockd), without starting them, and says so; for anybody
# else a peer that lacks is a line of the table. Everything that is measured runs in namespaces that end with it.
# SPA_BIN_DIR: where spa-server and spa-client are; without it they are built.
# SPA_BENCH_SHORT=DIRECTORY: as --short, and the files go there: such figures mean nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
# shellcheck source=tests/lib.sh disable=SC1091
source tests/lib.sh

require_commands <<'COMMANDS'
ip iproute2
iptables iptables
unshare util-linux
COMMANDS
peers=$(missing_packages <<'COMMANDS'
fwknopd fwknop-server
fwknop fwknop-client
knockd knockd
COMMANDS
)
if [ -n "$peers" ] && is_root; then install_packages "$peers"; fi

if [ -z "${SPA_BIN_DIR:-}" ]; then
    cargo build --release -p spa-server -p spa-client
    SPA_BIN_DIR=$(realpath "${CARGO_TARGET_DIR:-target}")/release
fi
export SPA_BIN_DIR
cargo build --release -p spa-tests --bin bench
into=${SPA_BENCH_SHORT:-docs}
exec "$(realpath "${CARGO_TARGET_DIR:-target}")/release/bench" --json "$into/bench.json" --svg "$into/bench.svg" "$@"
