#!/usr/bin/env bash
# Everything that is checked before a change goes in: formatting, lints, unit, property and end-to-end tests, the
# samples, licences, scripts, units and the quickstart. Goes on after a failure; the last line counts.
#
#     tests/run.sh
#
# Root installs the Debian packages that lack, and says so; an ordinary user is told which, and the status is 69.
# What this machine cannot do is skipped by name. With CI=true or SPA_NO_SKIP=1 nothing is skipped: it fails instead.
# SPA_TEST_MINUTES bounds the tests (default 30). Exit status: 0 if nothing failed, else 1.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. tests/lib.sh

[ "${CI:-}" != true ] || export SPA_NO_SKIP=1
PASSED=0
FAILED=()
SKIPPED=()
LOGS=$(mktemp -d)
trap 'rm -rf "$LOGS"' EXIT
trap 'exit 130' INT TERM HUP

heading() { printf '\n==== %s\n' "$*"; }

# check NAME COMMAND...: runs it, shows its output, notes how it went.
check() {
    local name=$1
    shift
    heading "$name"
    if "$@"; then
        PASSED=$((PASSED + 1))
    else
        FAILED+=("$name")
    fi
}

# skip NAME WHY
skip() {
    if [ -n "${SPA_NO_SKIP:-}" ]; then
        heading "$1: may not be skipped here: $2"
        FAILED+=("$1 ($2)")
    else
        heading "$1: SKIPPED, $2"
        SKIPPED+=("$1: $2")
    fi
}

# check_with COMMAND NAME COMMAND...: as check, skipped where the first command is not installed.
check_with() {
    local tool=$1
    shift
    if command -v "$tool" >/dev/null; then check "$@"; else skip "$1" "$tool is not installed"; fi
}

# check_on_machines NAME COMMAND...: as check, skipped where tests/machine.sh cannot boot one.
check_on_machines() {
    local why
    if why=$(tests/machine.sh able); then check "$@"; else skip "$1" "$why"; fi
}

# What boots a guest of its own: skipped where tests/clock-guest.sh cannot.
check_in_guest() {
    local why
    if why=$(tests/clock-guest.sh able); then check "$@"; else skip "$1" "$why"; fi
}

packages() {
    local wanted
    # Wanted, not needed: an ordinary user goes on without them.
    wanted=$(missing_packages <<'END'
python3 python3
node nodejs
rsync rsync
git git
curl curl
openssl openssl
faketime faketime
zsh zsh
fish fish
groff groff
mandoc mandoc
script bsdutils
shellcheck shellcheck
zbarimg zbar-tools
valgrind valgrind
setpriv util-linux
flock util-linux
qemu-system-x86_64 qemu-system-x86
cpio cpio
depmod kmod
END
    )
    # Of use to root's run alone. (firewalld, moreover, filters a machine as soon as apt-get has installed it, unless
    # it is install_packages that does so.)
    ! is_root || wanted+=$(missing_packages <<'END'
ufw ufw
firewalld firewalld
fwknopd fwknop-server
fwknop fwknop-client
knockd knockd
dbus-daemon dbus-daemon
debootstrap debootstrap
lintian lintian
dpkg-shlibdeps dpkg-dev
END
    )
    ALSO=$wanted require_commands <<'END'
cc gcc libc6-dev
ip iproute2
ss iproute2
iptables iptables
ip6tables iptables
nft nftables
conntrack conntrack
sshd openssh-server
ssh openssh-client
ssh-keygen openssh-client
unshare util-linux
setsid util-linux
mount mount
timeout coreutils
END
}

rust_tools() {
    if ! command -v cargo >/dev/null; then
        echo "There is no cargo here. Install Rust from https://rustup.rs." >&2
        exit $EX_UNAVAILABLE
    fi
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        rustup component add rustfmt clippy || exit $EX_UNAVAILABLE
    fi
    cargo_tool cargo-deny deny
    ! is_root || cargo_tool cargo-deb deb
}

# cargo_tool CRATE COMMAND: compiles it if it is missing, into the target directory and without optimizing: these tools
# run for seconds, and as their authors compile them (cargo-deny: one unit, LTO of all) it takes three times as long.
cargo_tool() {
    ! cargo "$2" --version >/dev/null 2>&1 || return 0
    echo "$1 is missing; compiling it into $TOOLS, some minutes"
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        cargo install --quiet --locked --root "$TOOLS" "$1" || echo "$1 could not be installed" >&2
}

build() {
    cargo build --release --locked -p spa-server -p spa-client
}

# Apart from the tests, so that SPA_TEST_MINUTES bounds what they take and not what the compiler takes.
build_tests() {
    cargo test --workspace --locked --no-run --quiet
}

# Unit, property and end-to-end tests of all crates. The end-to-end tests run what `build` made.
run_tests() {
    local status=0 limit=${SPA_TEST_MINUTES:-30}m
    if cargo nextest --version >/dev/null 2>&1; then
        timeout "$limit" cargo nextest run --workspace --locked --no-fail-fast --hide-progress-bar 2>&1 |
            tee "$LOGS/tests" || status=1
        cargo test --workspace --locked --doc 2>&1 | tee -a "$LOGS/tests" || status=1
    else
        timeout "$limit" cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$LOGS/tests" || status=1
    fi
    [ $status = 0 ] || echo "the tests failed, or took more than $limit"
    return $status
}

# The runner's own counts: of nextest ("Summary [ 1.2s] 9 tests run: 8 passed (1 slow), 1 failed, 0 skipped") and of
# cargo test ("test result: ok. 5 passed; 0 failed; 0 ignored; ...").
count() {
    grep -E '^(test result:| *Summary )' "$LOGS/tests" 2>/dev/null | grep -oE "[0-9]+ $1" |
        awk '{ sum += $1 } END { print sum + 0 }'
}

failed_tests() {
    sed -nE -e 's/^ *(FAIL|SIGABRT|SIGKILL|TIMEOUT) \[[^]]*\] +//p' -e 's/^test (.*) \.\.\. FAILED$/\1/p' "$LOGS/tests" | sort -u
}

count_tests() {
    local test passed skipped=0
    passed=$(count passed)
    # A test that is skipped passes for the runner; it says so in this file, one line each.
    while read -r test; do
        SKIPPED+=("$test")
        skipped=$((skipped + 1))
    done < <([ ! -f "$SPA_SKIP_LOG" ] || sort -u "$SPA_SKIP_LOG")
    PASSED=$((PASSED + passed - skipped))
    while read -r test; do FAILED+=("$test"); done < <(failed_tests)
}

# Whether the client is right for another system, as far as the compiler can tell without its linker and libraries.
check_with_target() {
    if rustup target add "$1" >/dev/null 2>&1; then
        check "Client on $1" cargo check --locked --quiet -p spa-client --target "$1"
        check "Client library on $1" cargo check --locked --quiet -p spa-client --no-default-features --target "$1"
    else
        skip "Client on $1" "rustup cannot add the target"
    fi
}

lint_scripts() {
    shellcheck -x -P tests tests/*.sh examples/*.sh .ci/run
}

verify_units() {
    local unit
    for unit in deploy/*.service; do
        # The program need not be installed for its unit to be right.
        sed 's,/usr/bin/spa-server,/bin/true,' "$unit" >"$LOGS/${unit##*/}"
    done
    # verify prints and succeeds for a directive that it does not know: silence is what is wanted.
    if ! with_own_run systemd-analyze verify --man=no "$LOGS"/*.service >"$LOGS/verify" 2>&1 || [ -s "$LOGS/verify" ]; then
        cat "$LOGS/verify"
        return 1
    fi
    for unit in spa-server spa-protect; do # thresholds are in tenths
        with_own_run systemd-analyze security --offline=true --threshold=25 --no-pager "$LOGS/$unit.service" >"$LOGS/exposure" 2>&1 ||
            { cat "$LOGS/exposure"; return 1; }
        tail -1 "$LOGS/exposure"
    done
}

# systemd-analyze makes files in /run/systemd, which an ordinary user may not where systemd does not run: in a container.
with_own_run() {
    # shellcheck disable=SC2046 # a list of words
    unshare $(namespace_flags) sh -c 'mount -t tmpfs -o mode=0755 tmpfs /run && exec "$@"' sh "$@"
}

static_build() {
    if command -v rustup >/dev/null; then check "Static build" tests/static.sh; else skip "Static build" "rustup is not installed"; fi
}

summary() {
    local line
    heading "Summary"
    for line in ${FAILED[@]+"${FAILED[@]}"}; do echo "FAILED   $line"; done
    for line in ${SKIPPED[@]+"${SKIPPED[@]}"}; do echo "SKIPPED  $line"; done
    echo "${PASSED} passed, ${#FAILED[@]} failed, ${#SKIPPED[@]} skipped"
    [ ${#FAILED[@]} = 0 ]
}

SPA_BIN_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/release")
TOOLS=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
PATH=$PATH:$TOOLS/bin
packages
rust_tools
SPA_SKIP_LOG=$LOGS/skipped
export SPA_BIN_DIR SPA_SKIP_LOG

check "Formatting" cargo fmt --all --check
check_with shellcheck "Shell scripts" lint_scripts
check "Lints" cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
check "Release build" build
check_on_machines "A Debian for the tests of packages and documents" tests/machine.sh root
check "Test build" build_tests
check "Tests" run_tests
count_tests
check_in_guest "Steps of the clock, and Debian's kernel" tests/clock-guest.sh
check_with valgrind "Instructions of the gate's steps" cargo bench --locked --quiet -p spa-gate --bench instructions
check_with_target x86_64-pc-windows-gnu
check_with_target aarch64-apple-darwin
check "Licences, bans, sources" cargo deny --log-level error check bans licenses sources
check_with systemd-analyze "systemd units" verify_units
static_build
check_on_machines "Packages" tests/packages.sh
check "Quickstart" examples/quickstart.sh
summary
