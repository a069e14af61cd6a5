#!/usr/bin/env bash
# The programs for musl libc: linked with nothing, and working on a machine without that libc. Builds them, looks that they want no
# interpreter and no library, and shows them with the quickstart.
#
#     tests/static.sh
#
# Exit status: 0, 1, or 69 where the toolchain has no such target (`rustup target add`).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

TRIPLE=$(uname -m)-unknown-linux-musl
PROGRAMS=${CARGO_TARGET_DIR:-$here/../target}/$TRIPLE/release

if ! rustup target list --installed 2>/dev/null | grep -qx "$TRIPLE" && ! rustup target add "$TRIPLE"; then
    echo "The toolchain has no target $TRIPLE, and rustup cannot fetch it" >&2
    exit $EX_UNAVAILABLE
fi
cd "$here/.."
cargo build --release --locked --target "$TRIPLE" -p spa-server -p spa-client
for program in spa-server spa-client; do
    # No INTERP segment: the kernel starts it without ld.so. No NEEDED entry: no library.
    if readelf --wide --program-headers --dynamic "$PROGRAMS/$program" | grep -E 'INTERP|\(NEEDED\)'; then
        echo "$program is not static" >&2
        exit 1
    fi
    echo "$program is static, $(stat -c %s "$PROGRAMS/$program") bytes"
done
SPA_BIN_DIR=$PROGRAMS examples/quickstart.sh
