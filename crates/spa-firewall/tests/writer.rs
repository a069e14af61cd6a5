//! The program that waits for the next change: killed from outside, overtaken by others, cut off before the end.

mod common;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::*;
use rustix::fs::{FlockOperation, flock};
use spa_firewall::Enforcer;
use spa_firewall::iptables::{Iptables, Variant};

/// The programs that this process has started for a variant and that wait.
fn writers(variant: Variant) -> Vec<String> {
    let name = if variant == Variant::Nft { "-nft-restore" } else { "-legacy-restore" };
    let own = std::process::id();
    let children = spa_tests::sh(&format!("cat /proc/{own}/task/*/children"));
    let is_writer = |pid: &&str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(name)
    };
    children.split_whitespace().filter(is_writer).map(str::to_owned).collect()
}

#[test]
fn one_that_is_killed_is_replaced() {
    spa_tests::in_namespace(|| {
        each_variant("one_that_is_killed_is_replaced", |variant, enforcer| {
            let mut wanted = wanted(protection(&["tcp/22"]), &[]);
            enforcer.enforce(&wanted).expect("it is laid");
            let first = writers(variant);
            assert_eq!(first.len(), 2, "one a family: {first:?}");
            for (number, prepared) in [(1, false), (2, true)] {
                spa_tests::sh(&format!("kill -9 {}", writers(variant).join(" ")));
                if prepared {
                    enforcer.prepare();
                }
                wanted.grants.extend([(key("alice", &format!("192.0.2.{number}"), "tcp/22"), lasting(60))]);
                let report = enforcer.enforce(&wanted).expect("another one writes");
                // Twice where the signal came only in the middle of the change.
                assert!((1..=2).contains(&report.attempts) && report.put_right.is_none(), "{report:?}");
                assert_eq!(
                    chain(variant, "SPA").iter().filter(|rule| rule.contains("spa alice")).count(),
                    number
                );
            }
            enforcer.remove_all().expect("it is removed");
            *enforcer = Enforcer::new(Box::new(spa_firewall::memory::Memory::new()));
            assert_eq!(writers(variant), [""; 0], "none outlives the driver");
        });
    });
}

#[test]
fn what_others_change_while_it_waits_stays() {
    spa_tests::in_namespace(|| {
        each_variant("what_others_change_while_it_waits_stays", |variant, enforcer| {
            let mut wanted = wanted(protection(&["tcp/22"]), &[]);
            enforcer.enforce(&wanted).expect("it is laid");
            enforcer.prepare();
            let iptables = if variant == Variant::Nft { "iptables-nft" } else { "iptables-legacy" };
            spa_tests::sh(&format!("{iptables} -w -A INPUT -s 203.0.113.9 -j DROP; {iptables} -w -N THEIRS"));
            wanted.grants.extend([(key("alice", "192.0.2.1", "tcp/22"), lasting(60))]);
            let report = enforcer.enforce(&wanted).expect("it is granted");
            assert_eq!((report.attempts, report.put_right), (1, None), "what is theirs is no matter");
            assert_eq!(chain(variant, "INPUT"), ["-j SPA", "-s 203.0.113.9/32 -j DROP", "-j SPA"]);
            // Ours gone, it is refused, or finds more to do: told, and put right.
            for change in ["-F SPA", "-D INPUT -j SPA"] {
                spa_tests::sh(&format!("{iptables} -w {change}"));
                let address = format!("192.0.2.{}", wanted.grants.len() + 1);
                wanted.grants.extend([(key("alice", &address, "tcp/22"), lasting(60))]);
                let report = enforcer.enforce(&wanted).expect("it is put right");
                assert!(report.put_right.is_some(), "{change}: {report:?}");
                assert!(enforcer.plan(&wanted).expect("it is read").is_empty());
            }
            enforcer.remove_all().expect("it is removed");
            spa_tests::sh(&format!("{iptables} -w -X THEIRS; {iptables} -w -F INPUT"));
        });
    });
}

/// What makes it safe that a daemon is killed at any moment: without its last line a change is none.
#[test]
fn a_change_cut_off_before_its_end_is_none() {
    spa_tests::in_namespace(|| {
        each_variant("a_change_cut_off_before_its_end_is_none", |variant, enforcer| {
            enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("it is laid");
            let before = saved(variant);
            let suffix = if variant == Variant::Nft { "nft" } else { "legacy" };
            for program in ["iptables", "ip6tables"] {
                let mut child = Command::new(format!("{program}-{suffix}-restore"))
                    .args(["-w", "5", "-v", "-c", "--noflush"])
                    .stdin(Stdio::piped())
                    .stderr(Stdio::null())
                    .process_group(0)
                    .spawn()
                    .expect("it is installed");
                let mut input = child.stdin.take().expect("a pipe");
                input
                    .write_all(b"*filter\n-F SPA\n[0:0] -I SPA 1 -j ACCEPT\n-D INPUT -j SPA\n")
                    .expect("it reads");
                drop(input);
                assert!(!child.wait().expect("our child").success(), "it says that something is missing");
            }
            assert_eq!(saved(variant), before);
            enforcer.remove_all().expect("it is removed");
        });
    });
}

/// Whoever may still write holds the lock, whatever became of its parent.
#[test]
fn it_holds_the_lock_until_it_has_ended() {
    spa_tests::in_namespace(|| {
        for variant in VARIANTS {
            let Ok(driver) = Iptables::open(variant) else {
                spa_tests::skip("it_holds_the_lock_until_it_has_ended", "the variant does not work here");
                continue;
            };
            let directory = tempfile::tempdir().expect("a directory");
            let open = || std::fs::File::create(directory.path().join("lock")).expect("it is made");
            let is_free = || flock(open(), FlockOperation::NonBlockingLockExclusive).is_ok();
            let lock = open();
            lock.lock().expect("it is ours");
            let mut enforcer = Enforcer::new(Box::new(driver.holding(lock.into())));
            enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("it is laid");
            // Killed, this process would give up its own copy, and leave those of the programs.
            for pid in writers(variant) {
                let held = spa_tests::sh(&format!("readlink /proc/{pid}/fd/*"));
                assert_eq!(held.matches("/lock").count(), 1, "{held}");
            }
            assert!(!is_free());
            enforcer.remove_all().expect("it is removed");
            drop(enforcer);
            assert!(is_free(), "with the driver all have ended");
        }
    });
}
