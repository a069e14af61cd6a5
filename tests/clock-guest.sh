#!/usr/bin/env bash
# Steps the wall clock of a real kernel while ports are open. A clock is not namespaced and nobody's machine is to be
# set, so it is that of a guest: qemu, without KVM, with Debian's own kernel, downloaded and unpacked but not installed.
#
#     tests/clock-guest.sh         runs it: some three minutes of one processor
#     tests/clock-guest.sh able    whether this machine can; prints why not, status 69
#
# The guest has no disk and no network but its own namespaces. Its files, all in memory, are the release binaries of
# SPA_BIN_DIR (default target/release), this machine's iptables, nft and ip, and tests/src/bin/clock_steps.rs, which
# does the steps and says what it saw. With `-icount` the guest's time is what it computes: a busy machine makes the
# run longer and nothing in it later, and where the guest waits its time jumps ahead, so waiting costs nothing.
#
# Root installs the Debian packages that lack; an ordinary user is told which. The kernel is kept in
# CARGO_TARGET_DIR/clock-guest. SPA_GUEST_MINUTES bounds the run (default 15).
# Exit status: 0 if all was as it should be; 1 if not, with the guest's console; 69 if something lacks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
. tests/lib.sh

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
PROGRAMS=$(realpath -m "${SPA_BIN_DIR:-$TARGET/release}")
CACHE=$TARGET/clock-guest
PACKAGES='qemu-system-x86_64 qemu-system-x86
cpio cpio
depmod kmod
modprobe kmod
dpkg-deb dpkg
ldd libc-bin
flock util-linux
ip iproute2
iptables-nft iptables
nft nftables
sysctl procps'

cannot() {
    echo "$*"
    exit $EX_UNAVAILABLE
}

able() {
    local missing
    [ "$(uname -m)" = x86_64 ] || cannot "the guest's machine is x86_64, and so has to be this one"
    command -v apt-get >/dev/null || cannot "the guest's kernel is a Debian package, and here is no apt-get"
    missing=$(missing_packages <<<"$PACKAGES")
    [ -z "$missing" ] || is_root || cannot "not installed: $missing"
}

# Prints the directory of the unpacked kernel package; downloads it if it lacks.
kernel() {
    local name directory
    mkdir -p "$CACHE"
    # Two that want it at the same time fetch it once.
    exec 9>"$CACHE/lock"
    flock 9
    name=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -1)
    [ -n "$name" ] || { echo "apt knows no linux-image-amd64; apt-get update?" >&2; exit $EX_UNAVAILABLE; }
    directory=$CACHE/$name
    if [ ! -e "$directory/complete" ]; then
        rm -rf "$directory"
        mkdir "$directory"
        # Without apt's sandbox, whose user may not write here.
        (cd "$directory" && apt-get download -qq -o APT::Sandbox::User=root "$name" >&2) ||
            { echo "apt-get download $name failed; apt-get update?" >&2; exit $EX_UNAVAILABLE; }
        dpkg-deb -x "$directory"/*.deb "$directory"
        rm "$directory"/*.deb
        : >"$directory/complete"
    fi
    echo "$directory"
}

# Copies programs and plug-ins into $ROOT, under their own names, with the libraries that they are linked to.
copy() {
    local file
    # What is no program and has no libraries is not for ldd.
    for file in "$@" $(ldd "$@" 2>/dev/null | grep -o '\s/[^ :]*'); do
        install -D "$file" "$ROOT$(realpath "$(dirname "$file")")/${file##*/}"
    done
}

# The guest's files, as an archive that its kernel unpacks.
make_initramfs() {
    local from=$1/lib/modules to=$ROOT/usr/lib/modules version program
    mkdir -p "$ROOT"/{dev,etc,proc,run,spa,sys,tmp,usr/bin,usr/sbin,usr/lib64}
    for program in bin sbin lib lib64; do ln -s usr/$program "$ROOT/$program"; done
    for program in sh mount unshare nsenter mkdir sysctl modprobe ip nft {ip,ip6}tables-{nft,legacy}{,-save,-restore}; do
        copy "$(command -v "$program")"
    done
    # The extensions that our rules use, and what `-p tcp` and a verdict are to iptables.
    copy "$(dirname "$(find /usr/lib -name libxt_time.so | head -1)")"/libxt_{conntrack,comment,time,tcp,udp,standard}.so
    copy "$PROGRAMS/spa-server" "$PROGRAMS/spa-client" "$TARGET/debug/clock_steps"
    mv "$ROOT$PROGRAMS"/spa-* "$ROOT$TARGET/debug/clock_steps" "$ROOT/spa/"
    version=$(basename "$from"/*)
    mkdir -p "$to/$version/kernel/drivers/net"
    cp "$from/$version"/modules.{builtin,order}* "$to/$version/"
    cp -r "$from/$version"/kernel/{net,lib,crypto} "$to/$version/kernel/"
    cp "$from/$version"/kernel/drivers/net/veth.ko* "$to/$version/kernel/drivers/net/"
    depmod -b "$ROOT/usr" "$version" 2>/dev/null || depmod -b "$ROOT" "$version"
    printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$ROOT/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$ROOT/etc/group"
    install -m 755 tests/clock-guest-init.sh "$ROOT/init"
    (cd "$ROOT" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) >"$WORK/initramfs"
}

# Its machine dies with the script. What it prints goes to $WORK/console.
run_guest() {
    timeout --foreground "${SPA_GUEST_MINUTES:-15}m" qemu-system-x86_64 -accel tcg,tb-size=512 -cpu max -m 1024 -nodefaults \
        -display none -no-reboot -serial "file:$WORK/console" -icount shift=1,sleep=off -rtc clock=vm \
        -kernel "$1"/boot/vmlinuz-* -initrd "$WORK/initramfs" \
        -append "console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=reliable spa.clock_guest" </dev/null
}

run() {
    local kernel
    require_commands <<<"$PACKAGES"
    kernel=$(kernel)
    cargo build --locked --quiet -p spa-tests --bin clock_steps
    for program in spa-server spa-client; do
        [ -x "$PROGRAMS/$program" ] || { echo "there is no $PROGRAMS/$program: cargo build --release" >&2; exit 1; }
    done
    WORK=$(mktemp -d)
    ROOT=$WORK/root
    trap 'rm -rf "$WORK"' EXIT
    trap 'exit 130' INT TERM HUP
    make_initramfs "$kernel"
    SECONDS=0
    run_guest "$kernel" || echo "qemu failed, or the guest did not end in time"
    if tr -d '\r' <"$WORK/console" | grep -qx 'clock: all well'; then
        tr -d '\r' <"$WORK/console" | grep '^clock: '
        echo "in $SECONDS s"
    else
        tr -d '\r' <"$WORK/console"
        echo "FAILED after $SECONDS s; the guest's console is above"
        exit 1
    fi
}

case ${1:-run} in
    able | run) "${1:-run}" ;;
    *)
        echo "usage: tests/clock-guest.sh [able]" >&2
        exit 64
        ;;
esac
