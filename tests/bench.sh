#!/usr/bin/env bash
# Runs the bench and writes docs/bench.json and docs/bench.svg; the table goes to standard output.
#
#     tests/bench.sh [--short] [PART...]
#
# Takes some twelve minutes; with --short, which is to see that it works, some parts have fewer sizes and turns.
# As root it installs what lacks, the peers among it (fwknopd, knockd), without starting them, and says so. Everything
# that is measured runs in namespaces that end with it.
# SPA_BIN_DIR: where spa-server and spa-client are; without it they are built.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
# shellcheck source=tests/lib.sh disable=SC1091
source tests/lib.sh

require_commands <<'COMMANDS'
ip iproute2
iptables iptables
unshare util-linux
fwknopd fwknop-server
fwknop fwknop-client
knockd knockd
COMMANDS

if [ -z "${SPA_BIN_DIR:-}" ]; then
    cargo build --release -p spa-server -p spa-client
    SPA_BIN_DIR=$(realpath "${CARGO_TARGET_DIR:-target}")/release
fi
export SPA_BIN_DIR
cargo build --release -p spa-tests --bin bench
exec "$(realpath "${CARGO_TARGET_DIR:-target}")/release/bench" --json docs/bench.json --svg docs/bench.svg "$@"
