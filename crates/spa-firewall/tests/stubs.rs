//! Programs that fail, hang or lie, and a lock that others hold: each is detected, none is taken for success.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use spa_firewall::conntrack::adopt_established;
use spa_firewall::iptables::{Iptables, Variant};
use spa_firewall::{Enforcer, Error};

/// A listing with nothing of ours in it.
const EMPTY: &str = "printf '# Generated\\n*filter\\n:INPUT ACCEPT [0:0]\\nCOMMIT\\n'";
const SHORT: Duration = Duration::from_millis(300);

/// All four programs as scripts in a directory of their own.
fn stubs(save: &str, restore: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for program in ["iptables", "ip6tables"] {
        write(directory.path(), &format!("{program}-save"), save);
        write(directory.path(), &format!("{program}-restore"), restore);
    }
    directory
}

fn write(directory: &Path, name: &str, script: &str) {
    let file = directory.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("the script is written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its mode is set");
}

fn open(directory: &tempfile::TempDir) -> Result<Enforcer, Error> {
    let driver = Iptables::open_in(Variant::System, vec![directory.path().to_owned()], SHORT)?;
    Ok(Enforcer::new(Box::new(driver)))
}

fn enforce(save: &str, restore: &str) -> Error {
    let directory = stubs(save, restore);
    let mut enforcer = open(&directory).expect("the listing is in order");
    enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect_err("it must not be taken for success")
}

#[test]
fn success_without_effect_is_a_lie() {
    let error = enforce(EMPTY, "exit 0");
    assert!(matches!(&error, Error::Unsettled { attempts: 3, .. }), "{error}");
    assert!(error.to_string().contains("chain written anew"), "{error}");
}

#[test]
fn failure_is_told_with_its_words() {
    let error = enforce(EMPTY, "echo 'iptables-restore: line 2 failed' >&2; exit 1");
    assert!(
        matches!(&error, Error::Refused { command, status, stderr }
            if command.starts_with("iptables-restore -w") && status == "exit status: 1" && stderr == "iptables-restore: line 2 failed"),
        "{error:?}"
    );
}

#[test]
fn a_hanging_program_is_killed() {
    let begun = Instant::now();
    let error = enforce(EMPTY, "sleep 1000");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Programs that each end, but late, have one time limit together: whoever waits for a change waits no longer.
#[test]
fn a_change_of_many_slow_programs_is_ended_in_time() {
    let limit = Duration::from_secs(2);
    let slow = tempfile::tempdir().expect("a directory");
    let wait = format!("[ ! -e {0} ] || sleep 0.9", slow.path().join("slow").display());
    let directory = stubs(&format!("{wait}; {EMPTY}"), &format!("cat >/dev/null; {wait}"));
    let path = vec![directory.path().to_owned()];
    let mut enforcer =
        Enforcer::new(Box::new(Iptables::open_in(Variant::System, path, limit).expect("it opens")));
    std::fs::write(slow.path().join("slow"), "").expect("written");
    let begun = Instant::now();
    let error = enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect_err("it takes too long");
    assert!(matches!(error, Error::TimedOut { after, .. } if after == limit), "{error}");
    assert!(begun.elapsed() < limit * 2, "{:?}: one limit, not one for each program", begun.elapsed());
}

#[test]
fn a_program_killed_by_a_signal_is_a_failure() {
    let error = enforce(EMPTY, "kill -9 $$");
    assert!(matches!(&error, Error::Refused { status, .. } if status.contains("signal: 9")), "{error:?}");
}

#[test]
fn listings_that_are_none_are_refused() {
    for save in
        ["exit 0", "echo '*filter'", "echo nonsense", "printf '*filter\\nCOMMIT\\n'; exit 3", "sleep 1000"]
    {
        let Err(error) = open(&stubs(save, "exit 0")) else { panic!("{save} was taken for a listing") };
        let fits = match &error {
            Error::Unreadable { .. } => save != "sleep 1000",
            // What iptables-legacy-save does for a user who may not look.
            Error::NotPermitted { .. } => save == "exit 0" && !spa_tests::is_root(),
            Error::Refused { .. } => save.ends_with("exit 3"),
            Error::TimedOut { .. } => save == "sleep 1000",
            _ => false,
        };
        assert!(fits, "{save}: {error}");
    }
}

/// A failed removal must never be taken for "already gone".
#[test]
fn removal_that_fails_is_not_gone() {
    let present = "printf '*filter\\n:INPUT ACCEPT [0:0]\\n:SPA - [0:0]\\n[0:0] -A INPUT -j SPA\\nCOMMIT\\n'";
    for restore in ["exit 0", "echo 'No chain/target/match by that name' >&2; exit 1"] {
        let directory = stubs(present, restore);
        open(&directory).expect("the listing is in order").remove_all().expect_err("it still stands");
    }
}

#[test]
fn ipv6_that_cannot_be_filtered_is_a_hole() {
    let directory = stubs(EMPTY, "exit 0");
    write(directory.path(), "ip6tables-save", "echo 'Table does not exist' >&2; exit 3");
    let Err(error) = open(&directory) else { panic!("IPv6 would stay open") };
    assert!(matches!(error, Error::NoFamily { .. }), "{error}");
    std::fs::remove_file(directory.path().join("ip6tables-save")).expect("it is removed");
    let Err(error) = open(&directory) else { panic!("IPv6 would stay open") };
    assert!(matches!(error, Error::NoFamily { .. }), "{error}");
}

#[test]
fn what_is_not_installed_is_told_with_the_remedy() {
    let nothing = tempfile::tempdir().expect("a directory");
    let Err(error) = open(&nothing) else { panic!("there is nothing") };
    assert!(error.to_string().contains("apt install iptables"), "{error}");
}

#[test]
fn a_busy_lock_is_waited_for_and_told() {
    spa_tests::in_namespace(|| {
        let Ok(driver) = Iptables::open(Variant::Legacy) else {
            return spa_tests::skip(
                "a_busy_lock_is_waited_for_and_told",
                "iptables-legacy does not work here",
            );
        };
        let mut enforcer = Enforcer::new(Box::new(driver));
        let wanted = wanted(protection(&["tcp/22"]), &[]);
        let lock = std::fs::File::create("/run/xtables.lock").expect("the lock file");
        lock.lock().expect("it is ours");
        let error = enforcer.enforce(&wanted).expect_err("the lock is held");
        assert!(matches!(error, Error::LockBusy { .. }), "{error}");
        lock.unlock().expect("it is given back");
        enforcer.enforce(&wanted).expect("now it is laid");
        enforcer.remove_all().expect("it is removed");
    });
}

#[test]
fn without_rights_the_error_says_so() {
    spa_tests::in_namespace(|| {
        for variant in VARIANTS {
            let drop = std::thread::spawn(move || {
                let none = rustix::thread::CapabilitySet::empty();
                let none =
                    rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
                // exec of a root-owned program as uid 0 would bring them back, but for the bounding set.
                for capability in
                    [rustix::thread::CapabilitySet::NET_ADMIN, rustix::thread::CapabilitySet::NET_RAW]
                {
                    rustix::thread::remove_capability_from_bounding_set(capability).expect("prctl");
                }
                rustix::thread::set_capabilities(None, none).expect("capset");
                let adopted = adopt_established(&protection(&["tcp/22"]).services).map(|_| ());
                [adopted, Iptables::open(variant).map(|_| ())]
            });
            for result in drop.join().expect("the thread") {
                let error = result.expect_err("it may not look");
                assert!(matches!(&error, Error::NotPermitted { .. }), "{variant:?}: {error}");
            }
        }
    });
}
