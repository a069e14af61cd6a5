//! `capture-threads`: several threads read packets, and to those who knock, to those who attack and to the warden it is
//! as with one.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Client, Family, Settings, Variant, in_namespace};

const THREADS: usize = 4;
/// Packets that a ring holds (docs/ARCHITECTURE.md, "What is bounded").
const RING: u64 = 2_560;

fn settings(threads: usize) -> Settings {
    let server = format!("capture-threads = {threads}\n");
    Settings { server, open_for: "30s", ..Settings::new(Variant::Nftables) }
}

fn scene(family: Family) -> Scene {
    let scene = Scene::new(&settings(THREADS), family);
    assert_eq!(scene.server.status()["capture"], format!("IPv4 ring, IPv6 ring, {THREADS} threads"));
    scene
}

fn verifier(scene: &mut Scene) -> Option<u32> {
    let daemon = scene.server.process().pid();
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?;
    let is_verifier = |pid: &&str| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"spa-verifier"))
    };
    children.split_whitespace().find(is_verifier)?.parse().ok()
}

/// What procfs says of each thread of a process, by the thread's name.
fn threads(pid: u32) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let status = tasks.map(|task| {
        let status =
            fs::read_to_string(task.expect("procfs").path().join("status")).expect("the thread runs");
        (field(&status, "Name").to_owned(), status)
    });
    status.collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find(|line| line.split(':').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).split_once(':').expect("a field").1.trim()
}

/// How often each thread went to sleep.
fn switches(pid: u32) -> BTreeMap<String, u64> {
    let count = |(name, status): (String, String)| {
        let count = field(&status, "voluntary_ctxt_switches").parse().expect("a number");
        (name, count)
    };
    threads(pid).into_iter().map(count).collect()
}

fn knocks_come_through_every_thread(family: Family) {
    let scene = &mut scene(family);
    let pid = verifier(scene).expect("it runs");
    let before = switches(pid);
    assert_eq!(before.len(), THREADS, "{before:?}");
    // Each packet comes to one thread, whichever.
    for round in 0..32 {
        scene.alice.must(&["open", "ssh", "--wait"]);
        if round % 8 == 0 {
            assert_eq!(scene.look(&scene.topology.client, 22), Probe::Open);
            assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
        }
        scene.server.must(&["revoke", "--all"]);
    }
    let socket = scene.socket(&scene.topology.stranger);
    (0..100).for_each(|_| {
        socket.send(&[7; 300]).expect("the network is up");
    });
    eventually("junk is counted once", PATIENCE, || scene.server.refused("tag") == 100);
    let after = switches(pid);
    assert!(after.iter().all(|(name, count)| *count > before[name]), "{before:?} {after:?}");
    let status = scene.server.status();
    assert_eq!((&status["granted"], &status["dropped"]), (&32.into(), &0.into()), "{status}");
    assert_eq!(verifier(scene), Some(pid), "none was replaced: {}", scene.server.log());
}

#[test]
fn ipv4_knocks_come_through_every_thread() {
    in_namespace(|| knocks_come_through_every_thread(Family::V4));
}

#[test]
fn ipv6_knocks_come_through_every_thread() {
    in_namespace(|| knocks_come_through_every_thread(Family::V6));
}

/// The memo is one for all threads: what came through one of them is a copy in all others.
#[test]
fn copies_in_other_threads_open_nothing_and_cost_nothing() {
    in_namespace(|| {
        let scene = scene(Family::V4);
        let packet = scene.captured_knock();
        let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
        for from in [client, stranger] {
            let socket = scene.socket(from);
            (0..100).for_each(|_| {
                socket.send(&packet).expect("the network is up");
            });
        }
        eventually("all copies are refused", PATIENCE, || scene.server.refused("replay") == 200);
        assert_eq!((scene.server.diffie_hellmans(), scene.server.grants().len()), (1, 1));
        assert_eq!(scene.look(stranger, 22), Probe::Silent);
    });
}

/// One flow of junk at 100,000 packets a second or what the machine can send of it, half of it with the cloak key: as far
/// as a stranger's packets come.
#[test]
fn knocks_are_honoured_during_a_flood() {
    in_namespace(|| {
        let mut scene = scene(Family::V4);
        let pid = verifier(&mut scene);
        let enveloped = scene.captured_knock();
        scene.server.must(&["revoke", "--all"]);
        let mut junk = enveloped.clone();
        junk[20] ^= 1;
        let done = Arc::new(AtomicBool::new(false));
        let (is_done, socket) = (Arc::clone(&done), scene.socket(&scene.topology.stranger));
        let flood = std::thread::spawn(move || {
            let mut sent = 0_u64;
            while !is_done.load(Ordering::Relaxed) {
                for datagram in std::iter::repeat_n([&junk, &enveloped], 50).flatten() {
                    sent += u64::from(socket.send(datagram).is_ok());
                }
                std::thread::sleep(Duration::from_millis(1)); // the rate is what is wanted
            }
            sent
        });
        for _ in 0..8 {
            // More threads than processors, and other tests beside: packets may be dropped, as in any flood.
            eventually("a knock is honoured", PATIENCE, || {
                scene.alice.call(&["open", "ssh", "--wait"]);
                scene.look(&scene.topology.client, 22) == Probe::Open
            });
            assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
            scene.server.must(&["revoke", "--all"]);
        }
        done.store(true, Ordering::Relaxed);
        let sent = flood.join().expect("no panic");
        let (tag, replay) = (scene.server.refused("tag"), scene.server.refused("replay"));
        println!("{sent} packets: {tag} tag, {replay} replay, {} dropped", scene.server.status()["dropped"]);
        // Some of the rest is lost where the kernel's own queues were full.
        assert!(
            tag > sent / 10 && replay > sent / 10 && tag + replay <= sent,
            "{tag} and {replay} of {sent}"
        );
        assert_eq!(verifier(&mut scene), pid, "none was replaced: {}", scene.server.log());
    });
}

/// All threads go by the new keys, and after that by none but these.
#[test]
fn a_reload_changes_the_cloak_keys_of_all_threads() {
    in_namespace(|| {
        let scene = &mut scene(Family::V4);
        let pid = verifier(scene);
        let old = scene.server.status()["cloaks"][0]["id"].as_str().expect("an id").to_owned();
        scene.server.must(&["cloak", "add"]);
        let invite = scene.server.enrol("bob", "ssh", &scene.address.to_string(), &[]);
        let bob = Client::invited(&scene.topology.client, "bob", &invite);
        for _ in 0..12 {
            for client in [&scene.alice, &bob] {
                client.must(&["open", "ssh", "--wait"]);
                scene.server.must(&["revoke", "--all"]);
            }
        }
        scene.server.must(&["cloak", "retire", &old, "--force"]);
        // The order is on its way to the threads when the command ends.
        let refused = || scene.server.refused("tag");
        eventually("the old key is refused", PATIENCE, || {
            let before = refused();
            scene.alice.open("ssh");
            eventually("it is judged", PATIENCE, || {
                scene.server.must(&["revoke", "--all"]);
                refused() > before || scene.server.status()["granted"].as_u64() > Some(24)
            });
            refused() > before
        });
        let before = refused();
        (0..24).for_each(|_| scene.alice.open("ssh"));
        eventually("by every thread", PATIENCE, || refused() == before + 24);
        bob.must(&["open", "ssh", "--wait"]);
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Open);
        assert_eq!(verifier(scene), pid, "none was replaced: {}", scene.server.log());
    });
}

#[test]
fn every_thread_is_confined_and_ends_with_the_others() {
    in_namespace(|| {
        let scene = &mut scene(Family::V4);
        let first = verifier(scene).expect("it runs");
        for (name, status) in threads(first) {
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, set), "0000000000000000", "{name}: {set}");
            }
            assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"), "{name}");
            let filters = status.lines().filter(|line| line.starts_with("Seccomp_filters"));
            assert!(filters.clone().all(|line| line.ends_with('1')), "{name}: {status}");
            let uids: Vec<&str> = field(&status, "Uid").split_whitespace().collect();
            let groups: Vec<&str> = field(&status, "Gid").split_whitespace().collect();
            if scene.server.log().contains("other_user=true") {
                assert!(uids.iter().chain(&groups).all(|id| *id != "0"), "{name}: {uids:?} {groups:?}");
            }
        }
        let names: Vec<String> = threads(first).into_keys().collect();
        assert_eq!(&names[1..], ["sieve-1", "sieve-2", "sieve-3"], "{names:?}");
        // What the kernel does where one thread makes a system call that it must not.
        spa_tests::sh(&format!("kill -SYS {first}"));
        eventually("another verifier", PATIENCE, || verifier(scene).is_some_and(|pid| pid != first));
        for _ in 0..12 {
            scene.alice.must(&["open", "ssh", "--wait"]);
            scene.server.must(&["revoke", "--all"]);
        }
        let second = verifier(scene).expect("it runs");
        assert_eq!(threads(second).len(), THREADS);
        scene.server.process().kill();
        eventually("all threads end with the warden", PATIENCE, || {
            !std::path::Path::new(&format!("/proc/{second}/exe")).exists()
        });
    });
}

/// Whose ring was full does not matter: `status` has the sum.
#[test]
fn drops_of_all_rings_are_counted() {
    in_namespace(|| {
        let scene = &mut scene(Family::V4);
        let pid = verifier(scene).expect("it runs");
        spa_tests::sh(&format!("kill -STOP {pid}"));
        let (sent, socket) = (2 * RING * THREADS as u64, scene.socket(&scene.topology.stranger));
        (0..sent).for_each(|number| {
            socket.send(&[7; 300]).expect("the network is up");
            // The queue between sender and receiver holds 1,000.
            if number % 256 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        spa_tests::sh(&format!("kill -CONT {pid}"));
        let counted = || {
            let dropped = scene.server.status()["dropped"].as_u64().expect("a number");
            (dropped, dropped + scene.server.refused("tag"))
        };
        eventually("each is judged or counted as dropped", PATIENCE, || counted().1 == sent);
        // On a busy machine some still come when the rings are read again; one ring alone drops RING of its share.
        assert!(counted().0 > RING * (THREADS as u64 - 1), "{:?}", counted());
    });
}

#[test]
fn threads_that_have_nothing_to_do_sleep() {
    in_namespace(|| {
        let scene = &mut scene(Family::V4);
        let pid = verifier(scene).expect("it runs");
        for _ in 0..8 {
            scene.alice.must(&["open", "ssh", "--wait"]);
        }
        let mut before = switches(pid);
        eventually("it is idle", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(500));
            let last = std::mem::replace(&mut before, switches(pid));
            last == before
        });
        std::thread::sleep(Duration::from_secs(3)); // the time is what is looked at
        assert_eq!(switches(pid), before);
    });
}

#[test]
fn a_reload_changes_the_number_of_threads() {
    in_namespace(|| {
        let scene = &mut scene(Family::V4);
        for (number, capture) in [
            (1, "IPv4 ring, IPv6 ring"),
            (16, "IPv4 ring, IPv6 ring, 16 threads"),
            (2, "IPv4 ring, IPv6 ring, 2 threads"),
        ] {
            scene.server.configure(&settings(number));
            scene.server.must(&["reload"]);
            assert_eq!(scene.server.status()["capture"], capture);
            let pid = verifier(scene).expect("it runs");
            assert_eq!(threads(pid).len(), number);
            for _ in 0..number.min(8) {
                scene.alice.must(&["open", "ssh", "--wait"]);
                scene.server.must(&["revoke", "--all"]);
            }
        }
        scene.server.configure(&settings(17));
        let output = scene.server.call(&["reload"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("capture-threads is 1 to 16"), "{said}");
    });
}
