//! The ground that the tests stand on: fresh namespaces for a test, and nothing left behind.
//!
//! [`in_namespace`] runs the calling test again, alone, under `unshare` in a network and a mount namespace of its
//! own (and a user namespace where the caller is not root), with an empty `/run`. Everything that the test makes in
//! there (interfaces, named namespaces, firewall rules, sockets) ends with that process.
//!
//! For the end-to-end tests, inside of that: [`Topology`] is the network; [`Server`], [`Client`] and [`Sshd`] run the
//! real programs on it; [`probe`] and [`sniff`] are how a test looks at it from outside.

use std::path::{Path, PathBuf};
use std::process::Command;

mod client;
pub mod documents;
pub mod foreign;
pub mod machine;
pub mod manual;
pub mod nft;
pub mod ns;
pub mod probe;
mod process;
pub mod scene;
mod server;
pub mod services;
pub mod short;
pub mod sniff;
mod terminal;
mod topology;

pub use client::Client;
pub use process::Process;
pub use scene::Scene;
pub use server::{SPA_PORT, Server, Settings, Variant, succeeded, write_private};
pub use services::Sshd;
pub use terminal::Terminal;
pub use topology::{Family, Host, Topology};

const INSIDE: &str = "SPA_TEST_NAMESPACE";
/// Set by `tests/run.sh` in CI: whatever would be skipped fails instead.
const NO_SKIP: &str = "SPA_NO_SKIP";
/// Set by `tests/run.sh`: the file that takes a line for each test that is skipped.
const SKIP_LOG: &str = "SPA_SKIP_LOG";
/// Set by `tests/run.sh`: where the release binaries are. By default, `target/release` of this checkout.
const BIN_DIR: &str = "SPA_BIN_DIR";
/// Where a test keeps its files: on the tmpfs of its namespace, so they end with it.
pub const WORK: &str = "/run/spa-e2e";

/// Runs `body` in fresh namespaces, by running the calling test alone again with the closure's own path as its name.
///
/// # Panics
/// If the test fails inside, or if the machine lacks `unshare` rights and `SPA_NO_SKIP` is set.
pub fn in_namespace<F: FnOnce()>(body: F) {
    if let Some(witness) = std::env::var_os(INSIDE) {
        body();
        return std::fs::write(witness, "ran").expect("the witness file is writable");
    }
    let path = std::any::type_name::<F>();
    let test =
        path.split("::").skip(1).take_while(|part| *part != "{{closure}}").collect::<Vec<_>>().join("::");
    if !can_unshare() {
        return skip(&test, "unshare of user, network and mount namespaces is not permitted here");
    }
    let witness = std::env::temp_dir().join(format!("spa-test-{}-{test}", std::process::id()));
    let binary = std::env::current_exe().expect("the test binary has a path");
    let output = Command::new("unshare")
        .args(unshare_flags())
        .args(["sh", "-c", SETUP, "sh"])
        .arg(binary)
        .args([test.as_str(), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &witness)
        .output()
        .expect("unshare runs");
    // Marked as not this runner's own, so that nothing is counted twice.
    for line in [output.stdout, output.stderr].iter().flat_map(|text| text.split(|byte| *byte == b'\n')) {
        println!("| {}", String::from_utf8_lossy(line));
    }
    let status = output.status;
    assert!(status.success(), "{test} failed inside its namespaces ({status}); its output is above");
    std::fs::remove_file(&witness)
        .unwrap_or_else(|_| panic!("no test named {test} ran inside the namespaces"));
}

/// The shell stays, as process 1 of its process namespace: it takes the signals and the orphans.
const SETUP: &str = "PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/netns && ip link set lo up && \"$@\"
exit $?";

/// Reports a test as skipped, by name; in CI that is a failure.
///
/// # Panics
/// If `SPA_NO_SKIP` is set.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os(NO_SKIP).is_none(), "{test} may not be skipped here: {why}");
    println!("SKIPPED {test}: {why}");
    if let Some(path) = std::env::var_os(SKIP_LOG) {
        use std::io::Write;
        let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
        log.and_then(|mut log| writeln!(log, "{test}: {why}"))
            .expect("the list of skipped tests is writable");
    }
}

/// A release binary of this workspace.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let target = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    let path = std::env::var_os(BIN_DIR).map_or_else(target, PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing: cargo build --release, or set {BIN_DIR}", path.display());
    path
}

/// Runs a test for each kind of firewall and each family: `for_each_variant_and_family!(opens_and_closes);` makes
/// `opens_and_closes::nft_ipv4` and so on, which call `opens_and_closes(variant, family)` in namespaces of their own.
#[macro_export]
macro_rules! for_each_variant_and_family {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            use $crate::{Family, Variant, in_namespace, legacy_or_skip};

            #[test]
            fn nft_ipv4() {
                in_namespace(|| super::$test(Variant::Nft, Family::V4));
            }

            #[test]
            fn nft_ipv6() {
                in_namespace(|| super::$test(Variant::Nft, Family::V6));
            }

            #[test]
            fn legacy_ipv4() {
                if legacy_or_skip(concat!(stringify!($test), "::legacy_ipv4")) {
                    in_namespace(|| super::$test(Variant::Legacy, Family::V4));
                }
            }

            #[test]
            fn legacy_ipv6() {
                if legacy_or_skip(concat!(stringify!($test), "::legacy_ipv6")) {
                    in_namespace(|| super::$test(Variant::Legacy, Family::V6));
                }
            }

            #[test]
            fn nftables_ipv4() {
                in_namespace(|| super::$test(Variant::Nftables, Family::V4));
            }

            #[test]
            fn nftables_ipv6() {
                in_namespace(|| super::$test(Variant::Nftables, Family::V6));
            }
        }
    )+ };
}

/// Runs a test for each kind of firewall, as [`for_each_variant_and_family`] does.
#[macro_export]
macro_rules! for_each_variant {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            use $crate::{Variant, in_namespace, legacy_or_skip};

            #[test]
            fn nft() {
                in_namespace(|| super::$test(Variant::Nft));
            }

            #[test]
            fn legacy() {
                if legacy_or_skip(concat!(stringify!($test), "::legacy")) {
                    in_namespace(|| super::$test(Variant::Legacy));
                }
            }

            #[test]
            fn nftables() {
                in_namespace(|| super::$test(Variant::Nftables));
            }
        }
    )+ };
}

/// Runs a test for both variants of iptables, where nftables has nothing of the kind.
#[macro_export]
macro_rules! for_each_iptables {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            use $crate::{Variant, in_namespace, legacy_or_skip};

            #[test]
            fn nft() {
                in_namespace(|| super::$test(Variant::Nft));
            }

            #[test]
            fn legacy() {
                if legacy_or_skip(concat!(stringify!($test), "::legacy")) {
                    in_namespace(|| super::$test(Variant::Legacy));
                }
            }
        }
    )+ };
}

/// Whether this is root of the machine itself, which some programs want. Reports the test as skipped otherwise.
pub fn machine_root_or_skip(what: &str, test: &str) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let everyone = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if !is_root() || !everyone {
        skip(test, &format!("{what} wants the machine's root"));
        return false;
    }
    true
}

/// Whether iptables-legacy can work here. Reports the test as skipped otherwise.
pub fn legacy_or_skip(test: &str) -> bool {
    if !machine_root_or_skip("iptables-legacy", test) {
        return false;
    }
    if Command::new("iptables-legacy").arg("--version").output().is_err() {
        skip(test, "iptables-legacy is not installed");
        return false;
    }
    true
}

/// The `unshare` flags for fresh network, mount and process namespaces: with a user namespace for an ordinary user.
/// When the first process of the process namespace ends, the kernel ends all others, whatever became of the test.
pub fn unshare_flags() -> &'static [&'static str] {
    const FLAGS: [&str; 6] =
        ["-Urnm", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"];
    const AS_ROOT: [&str; 6] =
        ["-nm", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"];
    if is_root() { &AS_ROOT } else { &FLAGS }
}

fn can_unshare() -> bool {
    Command::new("unshare")
        .args(unshare_flags())
        .args(["sh", "-c", SETUP, "sh", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Whether the effective user is root (of whatever user namespace this is).
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// Runs a command line in a shell and returns its standard output.
///
/// # Panics
/// If it fails; the message has the command, its status and its standard error.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(
        output.status.success(),
        "{line}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn fresh_namespace_has_only_lo() {
        super::in_namespace(|| {
            let links = super::sh("ip -o link show");
            assert_eq!(links.lines().count(), 1, "{links}");
        });
    }
}
