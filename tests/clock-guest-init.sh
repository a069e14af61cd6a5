#!/bin/sh
# Process 1 of the guest that tests/clock-guest.sh boots. Each kind of firewall gets fresh namespaces, as all tests do.
export PATH=/usr/sbin:/usr/bin HOME=/run SPA_BIN_DIR=/spa SPA_NO_SKIP=1 RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
exec </dev/null >/dev/console 2>&1
read -r kernel </proc/sys/kernel/osrelease
echo "clock: Linux $kernel"
# As deploy/spa-server.service asks for: the daemon may load no module, and these are not loaded by themselves.
modprobe -a ip_tables ip6_tables
failed=0
for variant in nft legacy nftables; do
    # shellcheck disable=SC2016 # for the shell inside
    unshare -nm --pid --fork --kill-child --mount-proc --propagation private sh -c '
        mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/netns && ip link set lo up && exec /spa/clock_steps "$1"
    ' sh "$variant" || { echo "clock: FAILED with $variant"; failed=1; }
done
[ $failed = 1 ] || echo "clock: all well"
# With -no-reboot this is the end of qemu.
echo b >/proc/sysrq-trigger
