#!/usr/bin/env bash
# Single-packet authorization, shown on a network of its own: a real sshd behind a real iptables, opened for one
# address by one encrypted datagram. As root or as an ordinary user; nothing is left behind and this machine's own
# firewall, addresses and services are not touched.
#
#     examples/quickstart.sh              builds the release binaries and shows them
#     SPA_BIN_DIR=DIR quickstart.sh       shows the binaries that are in DIR
#
# Exit status: 0 if every observation was as it should be, 1 if one was not, 69 if something needed is missing.
#
#      +-- client ------------+      +-- the switch --+      +-- server -------------+
#      | 192.0.2.10           |------|                |------| 192.0.2.1             |
#      | 2001:db8::10         |      |  bridge        |      | 2001:db8::1           |
#      | spa-client, ssh      |      |  "wire"        |      | spa-server, iptables, |
#      +----------------------+      |                |      | sshd on port 22       |
#      +-- stranger ----------+      |                |      +-----------------------+
#      | 192.0.2.66           |------|                |
#      | 2001:db8::66         |      +----------------+
#      +----------------------+
#
# Each box is a network namespace inside one unshare(1), with its files on a tmpfs of that unshare.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tests/lib.sh"

prepare() {
    local compiler=""
    if [ -z "${SPA_BIN_DIR:-}" ]; then
        if ! command -v cargo >/dev/null; then
            echo "There is no cargo here. Install Rust from https://rustup.rs, or set SPA_BIN_DIR." >&2
            exit $EX_UNAVAILABLE
        fi
        compiler="cc gcc libc6-dev"
    fi
    require_commands <<END
$compiler
ip iproute2
iptables iptables
ip6tables iptables
sshd openssh-server
ssh openssh-client
ssh-keygen openssh-client
unshare util-linux
mount mount
timeout coreutils
END
    # shellcheck disable=SC2046 # a list of words
    if ! unshare $(namespace_flags) true 2>/dev/null; then
        echo "This machine does not let $(id -un) make namespaces (unshare $(namespace_flags))." >&2
        echo "Try it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1" >&2
        exit $EX_UNAVAILABLE
    fi
    if [ -z "${SPA_BIN_DIR:-}" ]; then
        build
    fi
    for binary in spa-server spa-client; do
        [ -x "$SPA_BIN_DIR/$binary" ] || { echo "There is no $SPA_BIN_DIR/$binary" >&2; exit $EX_UNAVAILABLE; }
    done
    SPA_BIN_DIR=$(cd "$SPA_BIN_DIR" && pwd)
}

build() {
    echo "Building, some minutes the first time: cargo build --release -p spa-server -p spa-client"
    (cd "$root" && cargo build --quiet --release --locked -p spa-server -p spa-client)
    SPA_BIN_DIR=${CARGO_TARGET_DIR:-$root/target}/release
}

# Outside: prepares, then runs this script again inside. Whatever ends this part, also kill -9, ends all of that one.
outside() {
    local inside status=0
    prepare
    export SPA_BIN_DIR
    export QUICKSTART_UID QUICKSTART_GID QUICKSTART_USER QUICKSTART_NETWORK
    QUICKSTART_UID=$(id -u) QUICKSTART_GID=$(id -g) QUICKSTART_USER=$(id -un)
    QUICKSTART_NETWORK=$(readlink /proc/self/ns/net)
    # shellcheck disable=SC2046 # a list of words
    setpriv --pdeathsig KILL unshare $(namespace_flags) bash "${BASH_SOURCE[0]}" &
    inside=$!
    # shellcheck disable=SC2064 # this process id, now
    trap "kill -KILL $inside 2>/dev/null || true" EXIT
    trap 'exit 130' INT TERM HUP
    wait $inside || status=$?
    exit $status
}

# ---- What follows runs inside. ----

W=/run/quickstart # on a tmpfs that only these processes see
V4=192.0.2.1
V6=2001:db8::1
OPEN_FOR=5
# shellcheck disable=SC2016 # for the shell at the other end
GREETING='echo "logged in as $(id -un) from $SSH_CONNECTION"'
FAILED=0

step() { printf '\n== %s\n' "$*"; }
say() { printf '   %s\n' "$*"; }
pass() { printf '   PASS  %s\n' "$*"; }
fail() { printf '   FAIL  %s\n' "$*"; FAILED=$((FAILED + 1)); }
quote() { sed 's/^/      | /'; }

# in_ns NAME COMMAND...
in_ns() {
    local name=$1
    shift
    nsenter --net="/run/netns/$name" "$@"
}

# Shows a command as a reader would type it on that machine, runs it there, and shows what it printed.
on() {
    local name=$1 status=0
    shift
    printf '   %s# %s\n' "$name" "$*"
    in_ns "$name" "$@" >$W/out 2>&1 || status=$?
    quote <$W/out
    return $status
}

# Prints how a TCP port looks from a namespace: open, refused, or silent (no answer at all within half a second).
look() {
    local status=0
    in_ns "$1" timeout 0.5 bash -c "exec 3<>/dev/tcp/$2/22" 2>/dev/null || status=$?
    case $status in
        0) echo open ;;
        124) echo silent ;;
        *) echo refused ;;
    esac
}

# expect LOOK NAME: port 22 looks so from there, over IPv4 and IPv6. What is to be open may take its moment: a knock
# is on its way when its command ends, and a first packet that is dropped is not sent again within half a second.
expect() {
    local address seen
    for address in $V4 $V6; do
        [ "$1" != open ] || wait_until 3 looks open "$2" "$address" || true
        seen=$(look "$2" "$address")
        if [ "$seen" = "$1" ]; then
            pass "from $2, [$address]:22 is $seen"
        else
            fail "from $2, [$address]:22 is $seen, and should be $1"
        fi
    done
}

# Waits at most $1 seconds until a command succeeds.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

looks() { [ "$(look "$2" "$3")" = "$1" ]; }
is_ready() { grep -qw ready $W/server.log; }

rules() {
    in_ns server iptables -S
    in_ns server ip6tables -S
}

# The namespaces of the drawing above.
network() {
    local host
    ip link set lo up
    ip link add wire type bridge
    ip link set wire up
    for host in server:1 client:10 stranger:66; do
        local name=${host%:*} number=${host#*:}
        ip netns add "$name"
        ip link add "to-$name" type veth peer name eth0 netns "$name"
        ip link set "to-$name" master wire up
        ip -n "$name" link set lo up
        ip -n "$name" addr add "192.0.2.$number/24" dev eth0
        ip -n "$name" addr add "2001:db8::$number/64" dev eth0 nodad
        ip -n "$name" link set eth0 up
    done
    # A name with both addresses, for these processes alone.
    printf '127.0.0.1 localhost\n%s bastion.example\n%s bastion.example\n' $V4 $V6 >$W/hosts
    mount --bind $W/hosts /etc/hosts
}

# The machine's own sshd, with keys and a configuration of its own. Root logs in as root, others as themselves.
start_sshd() {
    ssh-keygen -q -t ed25519 -N '' -C server -f $W/host-key
    ssh-keygen -q -t ed25519 -N '' -C client -f $W/user-key
    printf 'bastion.example %s\n' "$(cat $W/host-key.pub)" >$W/known-hosts
    cat >$W/sshd.conf <<END
ListenAddress 0.0.0.0
ListenAddress ::
HostKey $W/host-key
AuthorizedKeysFile $W/user-key.pub
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
END
    mkdir -p /run/sshd # sshd's empty directory
    local as_user=()
    if [ "$QUICKSTART_UID" = 0 ]; then
        # A locked root account (Debian without a root password) may not log in even with a key: for these
        # processes alone it is not locked.
        sed 's/^root:!/root:*!/' /etc/shadow >$W/shadow
        chmod 600 $W/shadow
        mount --bind $W/shadow /etc/shadow
    else
        # sshd without root serves its own user; in a further user namespace it is that user again.
        in_ns server sysctl -q -w net.ipv4.ip_unprivileged_port_start=0
        as_user=(unshare --user "--map-user=$QUICKSTART_UID" "--map-group=$QUICKSTART_GID")
    fi
    in_ns server ${as_user[@]+"${as_user[@]}"} "$(command -v sshd)" -D -e -f $W/sshd.conf 2>$W/sshd.log &
    wait_until 10 looks open client $V4 || { quote <$W/sshd.log; fail "sshd does not answer"; exit 1; }
}

# ssh as the reader would have it in ~/.ssh/config.
configure_ssh() {
    cat >$W/ssh.conf <<END
Host bastion.example
  User $QUICKSTART_USER
  IdentityFile $W/user-key
  UserKnownHostsFile $W/known-hosts
  GlobalKnownHostsFile none
  BatchMode yes
  ConnectTimeout 3
END
    sed "s,^Host .*,&\n  ProxyCommand $SPA_BIN_DIR/spa-client --config $W/client/client.toml connect %h %p," \
        $W/ssh.conf >$W/ssh-proxy.conf
}

start_server() {
    # Not in_ns: a function runs in a shell of its own, and $! would be that shell.
    nsenter --net=/run/netns/server spa-server --config $W/server/server.toml run >>$W/server.log 2>&1 &
    SERVER=$!
    if ! wait_until 10 is_ready; then
        quote <$W/server.log
        fail "spa-server did not get ready"
        exit 1
    fi
    quote <$W/server.log
}

stop_server() {
    kill -TERM "$SERVER"
    wait "$SERVER" || say "(its exit status was $?)"
}

enrol() {
    mkdir -m 700 $W/server $W/client $W/server/clients.d
    cat >$W/server/server.toml <<END
[server]
port = 38117
key-file = "$W/server/server.key"
state-dir = "$W/server/state"
clients-dir = "$W/server/clients.d"

[limits]
open-for = "${OPEN_FOR}s"

[services]
ssh = "tcp/22"
END
    quote <$W/server/server.toml
    on server spa-server --config $W/server/server.toml keygen
    say "The invite for alice holds secrets: it goes from the one command to the other, not to the screen."
    say "server# spa-server client add alice --allow ssh --host bastion.example"
    in_ns server spa-server --config $W/server/server.toml client add alice --allow ssh --host bastion.example \
        >$W/invite 2>$W/out
    quote <$W/out
    on client sh -c "spa-client --config $W/client/client.toml --verbose import --name bastion <$W/invite"
    rm $W/invite
}

demonstrate() {
    local before config=$W/client/client.toml

    step "A network of its own, with a real sshd"
    network
    start_sshd
    say "server 192.0.2.1 2001:db8::1, client 192.0.2.10 2001:db8::10, stranger 192.0.2.66 2001:db8::66"
    if [ "$(readlink /proc/self/ns/net)" != "$QUICKSTART_NETWORK" ]; then
        pass "apart from this machine's own network and firewall"
    else
        fail "this is the machine's own network"
        exit 1
    fi
    before=$(rules)

    step "Before: everybody sees the ssh server"
    expect open client
    expect open stranger

    step "Keys: one pair for the server, one client enrolled"
    enrol
    configure_ssh

    step "spa-server starts: the port is closed to everybody"
    say "server# spa-server --config server.toml run"
    start_server
    expect silent client
    expect silent stranger

    step "One datagram opens it, for the address that it came from"
    on client spa-client --config $config open ssh || fail "spa-client open ssh"
    expect open client
    on server spa-server --config $W/server/server.toml grants || fail "spa-server grants"
    on server iptables -S SPA || fail "iptables -S SPA"
    if grep -q -- '-s 192.0.2.10/32 .*--dport 22 .*-j ACCEPT' $W/out; then
        pass "the rule names the client's address and the port"
    else
        fail "there is no rule for 192.0.2.10 and port 22"
    fi
    say "From the same network, another address stays shut out:"
    expect silent stranger

    step "A real ssh login"
    if on client ssh -F $W/ssh.conf bastion.example "$GREETING" &&
        grep -q 'logged in as' $W/out; then
        pass "logged in"
    else
        fail "could not log in"
    fi
    # Another session, which echoes what it is sent and outlives the grant.
    mkfifo $W/typed
    in_ns client ssh -F $W/ssh.conf bastion.example cat <$W/typed >$W/session 2>&1 &
    exec 3>$W/typed
    trap '' PIPE # a session that did not begin is reported below, and does not end this script
    echo before >&3
    wait_until 5 grep -q before $W/session || fail "a second session did not begin"

    step "${OPEN_FOR} seconds later: closed again"
    wait_until $((OPEN_FOR + 3)) looks silent client $V4 || true
    expect silent client
    echo after >&3 2>/dev/null || true
    if wait_until 5 grep -q after $W/session; then
        pass "an ssh session from before lives on"
    else
        fail "the ssh session from before is cut: $(cat $W/session)"
    fi
    exec 3>&-
    trap - PIPE

    step "Without a thought: spa-client as ssh's ProxyCommand"
    grep ProxyCommand $W/ssh-proxy.conf | quote
    if on client ssh -F $W/ssh-proxy.conf bastion.example "$GREETING" &&
        grep -q 'logged in as' $W/out; then
        pass "ssh bastion.example, from a closed port to a login"
    else
        fail "could not log in"
    fi
    expect silent stranger

    step "Stopped, the server stays protected; unprotect takes everything away"
    stop_server
    expect silent stranger
    wait_until $((OPEN_FOR + 3)) looks silent client $V4 || true
    say "The kernel closes the grant in time, with no spa-server running:"
    expect silent client
    on server spa-server --config $W/server/server.toml unprotect || fail "spa-server unprotect"
    expect open stranger
    if [ "$(rules)" = "$before" ]; then
        pass "iptables -S and ip6tables -S are as they were before"
    else
        fail "rules are left:"
        diff <(echo "$before") <(rules) | quote || true
    fi
}

inside() {
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir -p /run/netns
    mkdir -m 700 $W
    PATH=$SPA_BIN_DIR:$PATH
    export XDG_STATE_HOME=$W/state # the client's counters: not in the user's own home
    trap 'verdict $?' EXIT
    demonstrate
}

verdict() {
    if [ $FAILED = 0 ] && [ "$1" = 0 ]; then
        printf '\nAll as it should be.\n'
        exit 0
    fi
    printf '\nNOT as it should be: %s observation(s) failed' "$FAILED"
    [ "$1" = 0 ] || printf ', and the script ended early with status %s' "$1"
    printf '.\n'
    [ ! -s $W/server.log ] || { echo "The end of the server's log:"; tail -n 20 $W/server.log | quote; }
    exit 1
}

if [ -n "${QUICKSTART_NETWORK:-}" ]; then inside; else outside; fi
