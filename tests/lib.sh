# shellcheck shell=bash
# Shared by tests/run.sh and examples/quickstart.sh; sourced, not run. Wants bash.

# sbin is not on an ordinary Debian user's path; rustup installs into ~/.cargo/bin.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${HOME:-/root}/.cargo/bin
export PATH

# sysexits(3)
EX_UNAVAILABLE=69

is_root() { [ "$(id -u)" = 0 ]; }

# Prints the Debian packages that lack, given lines "COMMAND PACKAGE" on standard input.
missing_packages() {
    local command package
    while read -r command package; do
        [ -z "$command" ] || command -v "$command" >/dev/null || echo "$package"
    done | sort -u | tr '\n' ' '
}

# Sees to it that every command of the lines "COMMAND PACKAGE" on standard input is there. Root installs what lacks
# and says so; an ordinary user is told the line to run. Ends the script if a command still lacks. The packages of ALSO
# lack and are wanted too: root installs them, an ordinary user is told of them, and goes on if nothing else lacks.
require_commands() {
    local also=${ALSO:-} wanted missing
    wanted=$(cat)
    missing=$(missing_packages <<<"$wanted")
    [ -n "$missing$also" ] || return 0
    if is_root; then
        install_packages "$missing$also"
        missing=$(missing_packages <<<"$wanted")
        [ -z "$missing" ] || { echo "Still missing after the installation: $missing" >&2; exit $EX_UNAVAILABLE; }
    elif [ -n "$missing" ]; then
        printf 'This needs Debian packages that are not installed. As root, run:\n\n' >&2
        printf '    apt-get update; apt-get install --no-install-recommends %s\n\n' "$missing$also" >&2
        # Debian starts a service when it is installed.
        [[ $missing != *openssh-server* ]] ||
            printf '(This starts an ssh server on this machine; to have none:  systemctl disable --now ssh)\n' >&2
        exit $EX_UNAVAILABLE
    else
        printf 'What wants these Debian packages will be skipped:  apt-get install --no-install-recommends %s\n' "$also"
    fi
}

# Installs packages without starting the services that come with them: an ssh server on the machine itself is not
# what somebody wants who runs a demonstration. policy-rc.d is Debian's way to say so.
install_packages() {
    local policy=/usr/sbin/policy-rc.d made_policy="" had_sshd="" had_firewalld="" status=0
    command -v sshd >/dev/null && had_sshd=yes
    command -v firewalld >/dev/null && had_firewalld=yes
    echo "Missing Debian packages; installing them:  apt-get install --no-install-recommends $1"
    if [ ! -e $policy ]; then
        echo "(with a temporary $policy, so that no service is started on this machine)"
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made_policy=yes
    fi
    # A subshell, so that the policy goes away also when it is interrupted.
    (
        trap '[ -z "$made_policy" ] || rm -f $policy' EXIT
        trap 'exit 130' INT TERM HUP
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq || true # an old list is often good enough; the next line decides
        # shellcheck disable=SC2086 # a list of words
        apt-get install -y -qq --no-install-recommends $1 >/dev/null # dpkg's progress; what goes wrong is on stderr
    ) || status=$?
    if [ -z "$had_sshd" ] && command -v sshd >/dev/null && command -v systemctl >/dev/null; then
        echo "openssh-server is new here and stays off: systemctl disable ssh   (undo: systemctl enable --now ssh)"
        systemctl disable --quiet ssh.service ssh.socket 2>/dev/null || true
    fi
    # ufw stays off by itself (ENABLED=no); firewalld would filter this machine from its next boot on.
    if [ -z "$had_firewalld" ] && command -v firewalld >/dev/null && command -v systemctl >/dev/null; then
        echo "firewalld is new here and stays off: systemctl disable firewalld"
        systemctl disable --quiet firewalld.service 2>/dev/null || true
    fi
    [ $status = 0 ] || { echo "apt-get failed (status $status)" >&2; exit $EX_UNAVAILABLE; }
}

# The unshare flags for a fresh network, mount and process namespace; an ordinary user takes a user namespace along.
# The process namespace is what leaves nothing behind: when its first process ends, the kernel ends all the others.
namespace_flags() {
    local flags=(--net --mount --pid --fork --kill-child --mount-proc --propagation private)
    is_root || flags=(--user --map-root-user "${flags[@]}")
    echo "${flags[@]}"
}
