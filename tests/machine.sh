#!/usr/bin/env bash
# A whole Debian machine for the tests of packages and documents: systemd as its process 1, in namespaces of its own, on
# a root directory of its own. Nothing of the machine that it runs on is changed, but for a cache directory and, while
# it runs, one control group.
#
#     tests/machine.sh able                       whether this machine can; prints why not, status 69
#     tests/machine.sh root                       prints the root directory; makes it, a minute or three, if it lacks
#     tests/machine.sh boot NAME                  boots a copy of it, in the named network namespace NAME; ends with it
#     tests/machine.sh pid NAME                   its process 1, as seen from here
#     tests/machine.sh run NAME COMMAND...        runs a command in it
#
# The copy is an overlay on a tmpfs: what a machine writes is gone with it. `boot` stays in the foreground, and ends its
# machine when it is ended. Call it in a mount namespace whose /run is a tmpfs (unshare_flags in tests/src/lib.rs).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

# What a server and a client of the documents have: systemd, ssh, a firewall; and what is migrated from.
PACKAGES=systemd,systemd-sysv,init-system-helpers,iptables,nftables,iproute2,iputils-ping,procps,openssh-server,openssh-client,wireguard-go,wireguard-tools,knockd,fwknop-server,fwknop-client
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-$here/../target}")
ROOTS=$TARGET/test-roots
STATE=/run/spa-machines

cannot() {
    echo "$*"
    exit $EX_UNAVAILABLE
}

cgroup2() { awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts; }

able() {
    is_root || cannot "a Debian of its own wants root"
    command -v debootstrap >/dev/null || cannot "debootstrap is not installed"
    [ -w "$(cgroup2)/cgroup.procs" ] || cannot "there is no cgroup2 to write to, which systemd wants"
    # shellcheck disable=SC2046 # a list of words
    unshare $(namespace_flags) true 2>/dev/null || cannot "unshare of namespaces is not permitted here"
}

codename() { (. /etc/os-release && echo "${VERSION_CODENAME:-stable}"); }

# The packages are in the name, so that another list makes another root.
root_directory() { echo "$ROOTS/$(codename)-$(cksum <<<"$PACKAGES" | cut -d' ' -f1)"; }

# The mirror that this machine's own apt uses.
mirror() {
    # shellcheck disable=SC2016 # apt's own variable
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -1
}

make_root() {
    local root
    root=$(root_directory)
    mkdir -p "$ROOTS"
    # Two that want it at the same time make it once.
    exec 9>"$ROOTS/lock"
    flock 9
    if [ ! -e "$root/complete" ]; then
        rm -rf "$root"
        mkdir "$root"
        # In a mount namespace, since debootstrap mounts; without its signatures checked nothing is unpacked.
        unshare --mount --propagation private debootstrap --variant=minbase --include="$PACKAGES" \
            "$(codename)" "$root/root" "$(mirror)" >"$root/log" 2>&1 9>&- ||
            { tail -5 "$root/log" >&2; echo "debootstrap failed; $root/log has the rest" >&2; exit $EX_UNAVAILABLE; }
        : >"$root/complete"
    fi
    echo "$root/root"
}

# Boots NAME. The part before unshare stays, to take the control group away in the end.
boot() {
    local name=$1 group
    # What a boot left behind that was killed with SIGKILL; not what another is just making.
    find "$(cgroup2)"/spa-test-* -depth -type d -mmin +10 -exec rmdir {} + 2>/dev/null || true
    group=$(cgroup2)/spa-test-$$-$name
    mkdir -p "$STATE" "$group"
    # shellcheck disable=SC2064 # these, now
    trap "remove_group $group" EXIT
    trap 'exit 130' INT TERM HUP
    (
        echo $BASHPID >"$group/cgroup.procs"
        exec nsenter --net="/run/netns/$name" unshare --cgroup --mount --pid --uts --ipc --fork --kill-child \
            --propagation private bash "${BASH_SOURCE[0]}" inside "$name" "$(make_root)"
    ) &
    echo $! >"$STATE/$name"
    wait $!
}

remove_group() {
    local _
    # What ran in it is being killed; the directory goes when the last is gone.
    for _ in $(seq 100); do
        find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
        [ -e "$1" ] || return 0
        sleep 0.05
    done
}

# Process 1 of the new namespaces: mounts, then becomes systemd.
inside() {
    local name=$1 lower=$2 disk=$STATE/$1.disk root=$STATE/$1.disk/root device
    mkdir -p "$disk"
    mount -t tmpfs -o mode=0755 tmpfs "$disk"
    mkdir "$disk/upper" "$disk/work" "$root"
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work" "$root"
    mount -t proc proc "$root/proc"
    # The kernel's settings are the whole machine's; those of the network namespace alone may be changed.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=0755 tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
    for device in null zero full random urandom tty net/tun; do
        [ -e "/dev/$device" ] || continue
        mkdir -p "$(dirname "$root/dev/$device")"
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    prepare "$name" "$root"
    mkdir -p "$root/mnt/outside"
    cd "$root"
    pivot_root . mnt/outside
    umount -l /mnt/outside
    exec env -i container=spa-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --show-status=false </dev/null
}

# What is of the host alone, and what would reach out of the namespaces, is not for this machine.
prepare() {
    local name=$1 root=$2 unit
    : >"$root/etc/machine-id"
    echo "$name" >"$root/etc/hostname"
    for unit in sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
        dev-mqueue.mount systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service \
        systemd-timesyncd.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    # To install from, read-only.
    offer "$here/.." "$root/mnt/checkout"
    offer "${SPA_BIN_DIR:-$TARGET/release}" "$root/mnt/programs"
    offer "$TARGET/packages" "$root/mnt/packages"
    # Root logs in with a key, as on a rented server: Debian locks the account.
    sed -i 's/^root:[!*]*:/root:*:/' "$root/etc/shadow"
}

offer() {
    [ -d "$1" ] || return 0
    mkdir -p "$2"
    mount --bind "$1" "$2"
    mount -o remount,bind,ro "$2"
}

# unshare is the process that boot wrote down; systemd is its only child.
pid() {
    local outer
    outer=$(cat "$STATE/$1")
    cat "/proc/$outer/task/$outer/children"
}

run() {
    local first
    first=$(pid "$1")
    shift
    exec nsenter --target "${first// /}" --mount --net --pid --uts --ipc --cgroup --root \
        env -i -C /root HOME=/root USER=root LOGNAME=root SHELL=/bin/bash PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
    root) make_root ;;
    able | boot | inside | pid | run) "$command" "$@" ;;
    *)
        echo "usage: tests/machine.sh able | root | boot NAME | pid NAME | run NAME COMMAND..." >&2
        exit 64
        ;;
esac
