#!/usr/bin/env bash
# Steps the wall clock while grants are open: in a guest of its own, since a clock is not namespaced and nobody's
# machine is to be set. A grant ends by boot time wherever the clock goes, and one that has ended never comes back.
#
#     tests/clock-guest.sh [DIRECTORY]    with the release binaries in DIRECTORY (default target/release)
#
# The guest is Debian's own kernel package, downloaded and unpacked, not installed, with an initramfs of busybox, the
# machine's iptables and ip, and the binaries under test; qemu runs it, without KVM, which may be there and not work. It has no
# disk and no network but a pair of veths inside. SPA_GUEST_KERNEL names a directory with an unpacked package already.
# Exit status: 0 if all was as it should be, 1 if not, 69 if something needed is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/lib.sh

bin=$(realpath "${1:-${SPA_BIN_DIR:-target/release}}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
# Seconds; most of it is waiting inside of the guest.
readonly LIMIT=170

need() {
    local command
    for command in qemu-system-x86_64 busybox cpio gzip depmod dpkg-deb ldd ip iptables-nft; do
        command -v "$command" >/dev/null || { echo "$command is not installed" >&2; exit $EX_UNAVAILABLE; }
    done
    [ "$(uname -m)" = x86_64 ] || { echo "the guest is for x86_64" >&2; exit $EX_UNAVAILABLE; }
    for command in spa-server spa-client; do
        [ -x "$bin/$command" ] || { echo "there is no $bin/$command" >&2; exit $EX_UNAVAILABLE; }
    done
}

# Puts the kernel package's content into $kernel.
fetch_kernel() {
    local name
    kernel=${SPA_GUEST_KERNEL:-$work/kernel}
    [ -z "${SPA_GUEST_KERNEL:-}" ] || return 0
    name=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -1)
    [ -n "$name" ] || { echo "apt knows no linux-image-amd64" >&2; exit $EX_UNAVAILABLE; }
    mkdir "$work/package"
    (cd "$work/package" && apt-get download -qq "$name" >/dev/null 2>&1) ||
        { echo "apt-get download $name failed" >&2; exit $EX_UNAVAILABLE; }
    dpkg-deb -x "$work"/package/*.deb "$kernel"
}

# Copies programs with the libraries that they are linked to.
install_programs() {
    local file
    for file; do
        cp -L --parents "$file" "$root"
        ldd "$file" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do cp -Ln --parents "$library" "$root"; done
    done
}

make_root() {
    local version plugins name
    root=$work/root
    mkdir -p "$root"/{bin,sbin,usr/sbin,usr/bin,proc,sys,dev,run,tmp,etc,var/run,var/lib,root}
    cp "$(command -v busybox)" "$root/bin/busybox"
    ldd "$root/bin/busybox" >/dev/null 2>&1 && install_programs "$(command -v busybox)"
    version=$(basename "$kernel"/lib/modules/*)
    mkdir -p "$root/lib/modules/$version/kernel/drivers/net"
    cp -r "$kernel/lib/modules/$version/kernel/net" "$kernel/lib/modules/$version/kernel/lib" \
        "$kernel/lib/modules/$version/kernel/crypto" "$root/lib/modules/$version/kernel/"
    cp "$kernel/lib/modules/$version/kernel/drivers/net/veth.ko"* "$root/lib/modules/$version/kernel/drivers/net/"
    cp "$kernel/lib/modules/$version"/modules.{builtin,order}* "$root/lib/modules/$version/"
    depmod -b "$root" "$version"
    install_programs "$(command -v ip)" "$bin/spa-server" "$bin/spa-client" "$(realpath /usr/sbin/iptables-nft)"
    cp -L "$(command -v ip)" "$root/usr/sbin/ip" # first on the path there, before that of busybox
    mv "$root$bin/spa-server" "$root$bin/spa-client" "$root/usr/bin/"
    for name in iptables ip6tables; do
        for plugins in "" -save -restore; do
            ln -sf "$(realpath /usr/sbin/iptables-nft)" "$root/usr/sbin/$name-nft$plugins"
        done
    done
    plugins=$(dirname "$(find /usr/lib -name libxt_time.so | head -1)")
    for name in "$plugins"/libxt_{conntrack,comment,time,tcp,udp,standard}.so; do install_programs "$name"; done
    printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
    cp tests/clock-guest-init.sh "$root/init"
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"
}

run_guest() {
    timeout "$LIMIT" qemu-system-x86_64 -accel tcg -m 512 -nographic -no-reboot -nodefaults -serial stdio \
        -kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initramfs" -append "console=ttyS0 loglevel=${SPA_GUEST_LOGLEVEL:-3} panic=-1" \
        </dev/null | tr -d '\r' | tee "$work/log"
}

need
fetch_kernel
make_root
run_guest || echo "the guest did not end within $LIMIT s, or qemu failed"
grep -q '^clock-guest: all well$' "$work/log"
