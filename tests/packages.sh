#!/usr/bin/env bash
# The Debian packages: built, linted, and lived with on two Debian machines with systemd (tests/machine.sh).
#
#     tests/packages.sh build [VERSION]    builds both, from what `cargo build --release` made, into target/packages
#     tests/packages.sh                    builds them in two versions, lints, installs, starts, upgrades, removes, purges
#
# At every step the ports are looked at from another machine. Root; exit status 0, 1, or 69 if something lacks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"
TARGET=$(realpath -m "${CARGO_TARGET_DIR:-$here/../target}")
DEBS=$TARGET/packages
# The second version, which nobody is to install but the test of an upgrade.
UPGRADE=$TARGET/packages/upgrade
export CARGO_TARGET_DIR=$TARGET
VERSION=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../Cargo.toml" | head -1)
SERVER=192.0.2.1

# ---- Building ----

# generate PACKAGE VERSION: what is in the package and not in the repository.
generate() {
    local name=$1 version=$2 usr=$TARGET/release/package/$1/usr program=$TARGET/release/$1
    local share=$usr/share page overrides
    rm -rf "$usr"
    mkdir -p "$share/doc/$name" "$share/man/all" "$share/bash-completion/completions" \
        "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
    "$program" man --dir "$share/man/all"
    cp "$here/../docs/man/$name.toml.5" "$share/man/all/"
    for page in "$share"/man/all/*; do
        mkdir -p "$share/man/man${page##*.}"
        gzip -9n <"$page" >"$share/man/man${page##*.}/${page##*/}.gz"
    done
    rm -r "$share/man/all"
    "$program" completions bash >"$share/bash-completion/completions/$name"
    "$program" completions zsh >"$share/zsh/vendor-completions/_$name"
    "$program" completions fish >"$share/fish/vendor_completions.d/$name.fish"
    sed -e "s/@PACKAGE@/$name/; s/@VERSION@/$version/; s/@DATE@/$(date -Ru)/" "$here/../deploy/debian/changelog.in" |
        gzip -9n >"$share/doc/$name/changelog.Debian.gz"
    gzip -9n <"$here/../CHANGELOG.md" >"$share/doc/$name/changelog.gz"
    overrides=$here/../deploy/debian/$name.lintian-overrides
    if [ -e "$overrides" ]; then
        mkdir -p "$share/lintian/overrides"
        cp "$overrides" "$share/lintian/overrides/$name"
    fi
}

# build [VERSION [DIRECTORY]]
build() {
    local version=${1:-$VERSION-1} into=${2:-$DEBS} name
    mkdir -p "$into"
    for name in spa-server spa-client; do
        generate $name "$version"
        # With --output, or it removes what it built before.
        (cd "$here/.." && cargo deb --quiet --no-build --locked -p $name --deb-version "$version" --output "$into/")
    done
}

# ---- Two machines ----

FAILED=0
step() { printf '\n== %s\n' "$*"; }
pass() { printf '   PASS  %s\n' "$*"; }
fail() { printf '   FAIL  %s\n' "$*"; FAILED=$((FAILED + 1)); }

# must WHAT COMMAND...: it succeeds; its output is shown where it does not.
must() {
    local what=$1 status=0
    shift
    "$@" >/run/output 2>&1 || status=$?
    if [ $status = 0 ]; then pass "$what"; else fail "$what: status $status"; sed 's/^/      | /' /run/output; fi
}

on() { "$here/machine.sh" run "$@"; }
server() { on server sh -ec "$*"; }
client() { on client sh -ec "$*"; }

# How ssh's port looks from a network namespace: open, refused or silent.
look() {
    local status=0
    nsenter --net="/run/netns/${1:-client}" timeout 1 bash -c "exec 3<>/dev/tcp/$SERVER/22" 2>/dev/null || status=$?
    case $status in
        0) echo open ;;
        124) echo silent ;;
        *) echo refused ;;
    esac
}

# looks AS WHEN: waits until it does, ten seconds at most.
looks() {
    local end=$((SECONDS + 10)) seen
    until seen=$(look) && [ "$seen" = "$1" ]; do
        [ $SECONDS -lt $end ] || { fail "from outside tcp/22 is $seen $2, and should be $1"; return; }
    done
    pass "from outside tcp/22 is $1 $2"
}

# waits SECONDS COMMAND...: until it succeeds.
waits() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

network() {
    local host
    ip link set lo up
    ip link add wire type bridge
    ip link set wire up
    for host in server:$SERVER client:192.0.2.10 stranger:192.0.2.66; do
        ip netns add "${host%:*}"
        ip link add "to-${host%:*}" type veth peer name eth0 netns "${host%:*}"
        ip link set "to-${host%:*}" master wire up
        ip -n "${host%:*}" link set lo up
        ip -n "${host%:*}" addr add "${host#*:}/24" dev eth0
        ip -n "${host%:*}" link set eth0 up
    done
}

boot() {
    local name
    for name in server client; do
        "$here/machine.sh" boot $name >"/run/$name.log" 2>&1 &
    done
    for name in server client; do
        waits 90 on $name systemctl is-system-running || { fail "$name boots"; cat "/run/$name.log"; exit 1; }
        pass "$name boots, with systemd"
    done
}

# install_deb MACHINE FILE: what it depends on is there, so that nothing is fetched.
install_deb() { on "$1" sh -ec "cat >/tmp/${2##*/}; dpkg -i /tmp/${2##*/}" <"$2"; }

# What is there of ours, on the server: files, user, firewall. For comparison with before.
traces() {
    server 'find / -xdev \( -path /proc -o -path /sys -o -path /mnt -o -path /tmp -o -path /run/systemd -o -path /var/lib/dpkg \
                -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd/deb-systemd-helper-enabled \) -prune -o \
            \( -name "spa*" -o -name "_spa*" \) -print
            getent passwd spa || true; getent group spa || true; id -u spa 2>/dev/null || true
            iptables-save | grep -i spa || true; ip6tables-save | grep -i spa || true; nft list tables | grep spa || true
            systemctl list-unit-files "spa-*" --no-legend || true
            systemctl list-units --all "spa-*" --no-legend --plain || true'
}

configure() {
    server 'cat >/etc/spa/server.toml <<END
[server]
port = 23117
[services]
ssh = "tcp/22"
END
spa-server keygen'
    server "spa-server client add alice --allow ssh --host $SERVER" >/run/invite
    on client spa-client import --name bastion </run/invite
}

knock_opens() {
    must "a knock opens it $1" client 'spa-client open ssh --wait=15s'
    client 'spa-client close' || true
    looks silent "once it is closed again"
}

life() {
    local first=$VERSION-1 second=$VERSION-2 arch before
    arch=$(dpkg --print-architecture)
    network
    step "Two machines"
    boot
    looks open "before anything is installed"
    before=$(traces)

    step "Install"
    must "spa-server installs" install_deb server "$DEBS/spa-server_${first}_$arch.deb"
    must "spa-client installs" install_deb client "$DEBS/spa-client_${first}_$arch.deb"
    must "no unit is enabled or runs" server '! systemctl is-enabled spa-server spa-protect && ! systemctl is-active spa-server spa-protect'
    must "the user and the directories are there" server 'id spa && test -d /etc/spa/clients.d && test -d /var/lib/spa'
    must "the manual pages and completions are there" server \
        'test -e /usr/share/man/man8/spa-server.8.gz && test -e /usr/share/bash-completion/completions/spa-server'
    looks open "after the installation: it closes nothing by itself"

    step "Configure and start"
    must "it is configured, alice has her invite" configure
    must "the units start" server 'systemctl enable --now spa-protect.service spa-server.service'
    must "no unit failed" server 'systemctl is-active spa-protect spa-server'
    looks silent "from then on"
    knock_opens "after the start"

    step "Upgrade, with a grant open and a session in it"
    must "a knock with five minutes" client 'spa-client open ssh --for 5m --wait=15s'
    session &
    local pid session=$!
    waits 10 test -e /run/session || fail "the session begins"
    pid=$(server 'systemctl show -P MainPID spa-server')
    # Looked at all the time while dpkg works, from an address that nobody opened anything for.
    watch_closed &
    local watcher=$!
    must "the second version installs over the first" install_deb server "$UPGRADE/spa-server_${second}_$arch.deb"
    kill $watcher 2>/dev/null || true
    wait $watcher 2>/dev/null || true
    must "a new process runs" server "systemctl is-active spa-server && test \"\$(systemctl show -P MainPID spa-server)\" != $pid"
    must "it is still enabled" server 'systemctl is-enabled spa-server spa-protect'
    if grep -qv silent /run/watched; then
        fail "the port was open to a stranger during the upgrade"
    else
        pass "to a stranger the port was silent at each of $(wc -l </run/watched) looks during the upgrade"
    fi
    looks open "for alice: her grant was adopted"
    : >/run/upgraded
    must "a session from before goes on" wait $session
    must "the grant is in the list" server 'spa-server grants | grep -q alice'
    client 'spa-client close' || true
    looks silent "once she closed it"
    knock_opens "after the upgrade"

    step "Remove"
    must "spa-server is removed" server 'dpkg -r spa-server'
    looks open "after the removal: nobody is locked out"
    must "nothing of it is in the firewall" server '! iptables-save | grep -q SPA && ! ip6tables-save | grep -q SPA'
    must "configuration and keys are kept" server 'test -e /etc/spa/server.toml && test -e /etc/spa/server.key'

    step "Install again"
    must "spa-server installs" install_deb server "$UPGRADE/spa-server_${second}_$arch.deb"
    must "the units start" server 'systemctl enable --now spa-protect.service spa-server.service'
    looks silent "again"
    knock_opens "with the old invite"

    step "Remove with a broken configuration"
    server 'echo broken >>/etc/spa/server.toml'
    must "spa-server is removed" server 'dpkg -r spa-server'
    looks open "after that"

    step "Purge, from running"
    server 'sed -i "/^broken/d" /etc/spa/server.toml'
    must "spa-server installs" install_deb server "$UPGRADE/spa-server_${second}_$arch.deb"
    must "the units start" server 'systemctl enable --now spa-protect.service spa-server.service'
    looks silent "before"
    must "spa-server is purged" server 'dpkg -P spa-server'
    looks open "after the purge"
    server 'systemctl reset-failed "spa-*" 2>/dev/null || true'
    if [ "$(traces)" = "$before" ]; then
        pass "no file, user, rule or unit is left"
    else
        fail "something is left"
        diff <(echo "$before") <(traces) | sed 's/^/      | /'
    fi
    must "spa-client is purged" client 'dpkg -P spa-client && ! command -v spa-client && test -e /root/.config/spa/client.toml'
}

# A connection to sshd that says nothing until the upgrade is over; then it has to be answered.
session() {
    # shellcheck disable=SC2016 # for the bash inside
    nsenter --net=/run/netns/client bash -c 'exec 3<>/dev/tcp/$0/22
        read -r -u 3 _ && touch /run/session
        until [ -e /run/upgraded ]; do sleep 0.1; done
        printf "SSH-2.0-test\r\n" >&3
        test "$(timeout 10 head -c 16 <&3 | wc -c)" = 16' $SERVER
}

# Looks again and again from an address without a grant, and notes how it was.
watch_closed() {
    while :; do look stranger >>/run/watched; done
}

lint() {
    step "lintian"
    must "lintian has nothing to say" lintian --fail-on error,warning --profile debian --tag-display-limit 0 --allow-root "$@"
    sed 's/^/      | /' /run/output
}

main() {
    require_commands <<'END'
lintian lintian
debootstrap debootstrap
dpkg-shlibdeps dpkg-dev
iptables iptables
ip iproute2
unshare util-linux
END
    "$here/machine.sh" able
    cargo deb --version >/dev/null 2>&1 || { echo "cargo-deb is missing:  cargo install cargo-deb --locked" >&2; exit $EX_UNAVAILABLE; }
    [ -x "$TARGET/release/spa-server" ] || { echo "There is no $TARGET/release/spa-server: cargo build --release" >&2; exit $EX_UNAVAILABLE; }
    build "$VERSION-2" "$UPGRADE"
    build
    "$here/machine.sh" root >/dev/null
    export SPA_BIN_DIR=$TARGET/release
    # shellcheck disable=SC2046 # a list of words
    exec unshare $(namespace_flags) bash "${BASH_SOURCE[0]}" inside
}

inside() {
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir -p /run/netns
    lint "$DEBS"/spa-{server,client}_"$VERSION"-1_*.deb
    life
    step "Summary"
    echo "$FAILED failed"
    [ $FAILED = 0 ]
}

case ${1:-} in
    "") main ;;
    build) build "${2:-}" ;;
    inside) inside ;;
    *) echo "usage: tests/packages.sh [build [VERSION]]" >&2; exit 64 ;;
esac
