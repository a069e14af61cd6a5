//! The ground that the tests stand on: fresh namespaces for a test, and nothing left behind.
//!
//! [`in_namespace`] runs the calling test again, alone, under `unshare` in a network and a mount namespace of its
//! own (and a user namespace where the caller is not root), with an empty `/run`. Everything that the test makes in
//! there (interfaces, named namespaces, firewall rules, sockets) ends with that process.

use std::process::Command;

const INSIDE: &str = "SPA_TEST_NAMESPACE";
/// Set by `tests/run.sh` in CI: whatever would be skipped fails instead.
const NO_SKIP: &str = "SPA_NO_SKIP";

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
    let status = Command::new("unshare")
        .args(unshare_flags())
        .args(["sh", "-c", SETUP, "sh"])
        .arg(binary)
        .args([test.as_str(), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &witness)
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{test} failed inside its namespaces ({status}); its output is above");
    std::fs::remove_file(&witness)
        .unwrap_or_else(|_| panic!("no test named {test} ran inside the namespaces"));
}

const SETUP: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up && exec \"$@\"";

/// Reports a test as skipped, by name; in CI that is a failure.
///
/// # Panics
/// If `SPA_NO_SKIP` is set.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os(NO_SKIP).is_none(), "{test} may not be skipped here: {why}");
    println!("SKIPPED {test}: {why}");
}

/// The `unshare` flags for fresh network and mount namespaces: with a user namespace for an ordinary user.
pub fn unshare_flags() -> &'static [&'static str] {
    if is_root() { &["-nm", "--propagation", "private"] } else { &["-Urnm", "--propagation", "private"] }
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
