#!/bin/busybox sh
# The first process of the guest that tests/clock-guest.sh runs. Not for any other machine: it sets the clock.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs tmpfs /tmp
ln -sf /bin/modprobe /sbin/modprobe

failures=0
say() { echo "clock-guest: $*"; }
fail() { say "FAILED: $*"; failures=$((failures + 1)); }
uptime_s() { cut -d. -f1 /proc/uptime; }
# Waits until so many seconds of boot time have passed since the boot second $1.
until_boot() { while [ $(($(uptime_s) - $1)) -lt "$2" ]; do sleep 0.2; done; }
# Steps the clock by so many seconds.
step() { date -s "@$(($(date +%s) + $1))" >/dev/null; say "clock stepped by $1 s: $(date)"; }

port() {
    if [ "$(echo echo | timeout 2 ip netns exec client nc -w 1 192.0.2.1 22 2>/dev/null)" = echo ]; then
        echo open
    else
        echo closed
    fi
}
# expect open|closed WHEN
expect() { [ "$(port)" = "$1" ] && say "$1, $2" || fail "not $1: $2"; }
# Waits for the port, some seconds at most.
wait_port() {
    for _ in $(seq 20); do
        [ "$(port)" != "$1" ] || return 0
        sleep 0.2
    done
    fail "the port is not $1: $2"
}

knock() {
    ip netns exec client spa-client --config /root/client/client.toml open ssh || fail "spa-client open"
    opened=$(uptime_s)
}
server() { spa-server --config /run/spa/server.toml "$@"; }
start() {
    : >/run/log
    server run 2>>/run/log &
    daemon=$!
    for _ in $(seq 100); do
        grep -q ' ready ' /run/log && return 0
        sleep 0.1
    done
    fail "the daemon did not start"
    cat /run/log
}
kill_hard() { kill -9 "$daemon"; wait "$daemon" 2>/dev/null; }
refused() { server status --json | sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" | head -1; }

network() {
    for module in veth nf_tables nft_compat nft_counter nft_ct nf_conntrack nf_conntrack_netlink xt_conntrack \
        xt_comment xt_time xt_tcpudp inet_diag tcp_diag udp_diag; do
        modprobe "$module" 2>/dev/null
    done
    ip link set lo up
    mkdir -p /run/netns
    ip netns add client
    ip link add eth0 type veth peer name eth0 netns client
    ip addr add 192.0.2.1/24 dev eth0
    ip link set eth0 up
    ip -n client addr add 192.0.2.10/24 dev eth0
    ip -n client link set lo up
    ip -n client link set eth0 up
    nc -ll -p 22 -e cat &
    service=$!
}

# configure BACKEND: a server with a client, and a port that is open for 8 s.
configure() {
    rm -rf /run/spa /root/client
    mkdir -p -m 700 /run/spa/clients.d /run/spa/state /root/client
    cat >/run/spa/server.toml <<END
[server]
port = 62201
key-file = "/run/spa/server.key"
state-dir = "/run/spa/state"
clients-dir = "/run/spa/clients.d"
[firewall]
backend = "$1"
iptables = "nft"
[limits]
open-for = "8s"
[services]
ssh = "tcp/22"
END
    chmod 600 /run/spa/server.toml
    server keygen >/dev/null || fail keygen
    server client add alice --allow ssh --host 192.0.2.1 >/run/invite || fail "client add"
    spa-client --config /root/client/client.toml import --name bastion </run/invite || fail import
}

# The daemon runs: it follows the clock, and each grant ends by boot time.
with_the_daemon() {
    start
    expect closed "before any knock"
    for by in 3600 -3600; do
        knock
        wait_port open "after the knock"
        granted=$(date +%s)
        sleep 1
        step "$by"
        wait_port open "after a step of $by s"
        until_boot "$opened" 5
        expect open "5 s of boot time after the knock, stepped by $by s"
        until_boot "$opened" 10
        expect closed "10 s of boot time after the knock, stepped by $by s"
        # Back into the time of the grant: it does not come back.
        date -s "@$((granted + 2))" >/dev/null
        expect closed "with the clock in the time of the ended grant"
        sleep 1
    done
    # A clock that is behind the record: everything is refused, by name, until it is right again.
    step -1000
    knock
    for _ in $(seq 20); do
        [ "$(refused clock)" -gt 0 ] && break
        sleep 0.2
    done
    [ "$(refused clock)" -gt 0 ] && say "refused, the clock is behind the record" || fail "no refusal by the clock"
    expect closed "while the clock is behind the record"
    step 1000
    knock
    wait_port open "with the right clock again"
}

# Killed with a grant open: the kernel alone, then what a boot does.
without_the_daemon() {
    granted=$(date +%s)
    kill_hard
    expect open "the grant outlives the daemon"
    if [ "$1" = iptables ]; then
        step -3600
        expect closed "the clock is before the grant, so its rule is not open yet"
        step 3600
    else
        step -3600
        expect open "an element's time-out is not of the wall clock"
        step 3600
    fi
    until_boot "$opened" 10
    expect closed "the kernel ended the grant"
    server protect || fail protect
    date -s "@$((granted + 2))" >/dev/null
    expect closed "with the clock in the time of the ended grant, after protect"
    start
    expect closed "and after a start"
    kill "$daemon"
    wait "$daemon"
    server unprotect || fail unprotect
    expect open "unprotected: the service was there all along"
}

say "Linux $(uname -r), $(date)"
network
for backend in iptables nftables; do
    say "---- $backend"
    configure "$backend"
    with_the_daemon
    without_the_daemon "$backend"
done
kill "$service"
[ "$failures" = 0 ] && say "all well" || { cat /run/log; say "$failures failures"; }
poweroff -f
