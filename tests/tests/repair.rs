//! What somebody else does to the firewall while grants are open is put right in a second, is said, and is otherwise
//! left alone; who does it again and again is not fought for ever. For nftables see tests/nftables.rs.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use spa_tests::probe::{Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, for_each_iptables, in_namespace, legacy_or_skip};

for_each_iptables!(
    a_flush_is_put_right,
    a_flush_beside_a_knock_is_told,
    a_foreign_set_is_put_right_and_stays,
    a_rule_ahead_of_ours_is_passed,
    a_fight_is_bounded,
    a_race_for_the_first_place_is_bounded,
);

/// Within this, protection and grants are back; on a machine that is busy with other things, within so many execs of
/// iptables.
const SOON: Duration = Duration::from_secs(1);
const SOON_EXECS: u32 = 30;
/// As the engine's bounds are, in a minute.
const REPAIRS: usize = 20;
const JUMP_MOVES: usize = 3;
/// After these it waits 20 s.
const AFTER_THE_PAUSE: Duration = Duration::from_secs(25);

/// With a live grant for ssh.
fn scene(variant: Variant) -> Scene {
    let mut scene = Scene::new(&Settings { open_for: "120s", ..Settings::new(variant) }, Family::V4);
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    // Written and read back: a change before that would be put right with the grant, without a word.
    scene.server.process().wait_log("grant client=alice", 0);
    scene
}

fn soon(scene: &Scene) -> Duration {
    let began = Instant::now();
    scene.server.rules(Family::V4);
    SOON.max(began.elapsed() * SOON_EXECS)
}

/// Whether our jump comes first and the grant's rule is there.
fn is_whole(scene: &Scene) -> bool {
    let rules = scene.server.rules(Family::V4);
    let first = rules.lines().find(|rule| rule.starts_with("-A INPUT"));
    first.is_some_and(|rule| rule.ends_with("-j SPA")) && scene.server.grant_rules(Family::V4).len() == 1
}

/// Runs a command line, waits until its effect is put right, and looks from outside.
fn put_right_after(scene: &mut Scene, change: &str, author: &str) {
    let from = scene.server.log().len();
    let soon = soon(scene);
    let began = Instant::now();
    scene.server.ns().sh(change);
    eventually(format_args!("{change} is put right"), soon, || is_whole(scene));
    println!("{change}: put right in {:?}", began.elapsed());
    scene.server.process().wait_log("put right", from);
    let log = scene.server.log().split_off(from);
    let line = log.lines().find(|line| line.contains("put right")).expect("just seen");
    assert!(line.contains(author), "it names {author}: {line}");
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    let looks = scene.looks(&[(client, 22), (stranger, 22), (stranger, 80)]);
    assert_eq!(looks, [Probe::Open, Probe::Silent, Probe::Silent], "after {change}\n{log}");
    assert_eq!(scene.server.status()["state"], "ok");
}

/// What the log calls the author: nf_tables tells, iptables-legacy does not.
fn author(variant: Variant, program: &'static str) -> &'static str {
    match variant {
        Variant::Nft => program,
        Variant::Legacy => "a program that is not known",
        Variant::Nftables => unreachable!("these tests are for iptables"),
    }
}

fn a_flush_is_put_right(variant: Variant) {
    let scene = &mut scene(variant);
    let iptables = scene.server.iptables(Family::V4);
    put_right_after(scene, &format!("{iptables} -w -F"), author(variant, "iptables"));
    put_right_after(scene, &format!("{iptables} -w -D INPUT 1"), author(variant, "iptables"));
    put_right_after(scene, &format!("{iptables} -w -F SPA"), author(variant, "iptables"));
    if variant == Variant::Nft {
        put_right_after(scene, "nft flush ruleset", "nft (pid");
        let v6 = scene.server.rules(Family::V6);
        assert!(v6.contains("-A INPUT -j SPA"), "IPv6 as well: {v6}");
    }
    scene.server.process().stop();
}

/// The knock's own change finds the rules gone and puts them right, before anybody looks: it is told all the same, and
/// not laid at our own door.
fn a_flush_beside_a_knock_is_told(variant: Variant) {
    let scene = &mut scene(variant);
    let iptables = scene.server.iptables(Family::V4);
    for (round, service) in ["web", "ssh", "web"].into_iter().enumerate() {
        let from = scene.server.log().len();
        scene.server.ns().sh(&format!("{iptables} -w -F SPA"));
        scene.alice.open(service);
        scene.server.process().wait_log("put right", from);
        scene.server.process().wait_log("client=alice", from);
        let log = scene.server.log().split_off(from);
        let lines: Vec<_> = log.lines().filter(|line| line.contains("put right")).collect();
        assert_eq!(lines.len(), 1, "round {round}: {log}");
        assert!(lines[0].contains(author(variant, "iptables")), "{log}");
        assert!(!lines[0].contains("restor") && !lines[0].contains("-re "), "not our own: {log}");
    }
    scene.server.process().stop();
}

fn a_foreign_set_is_put_right_and_stays(variant: Variant) {
    let scene = &mut scene(variant);
    let foreign = ["-A INPUT -p tcp -m tcp --dport 9 -j DROP", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"];
    let file = format!("{}/foreign.rules", spa_tests::WORK);
    let set = format!("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n{}\nCOMMIT\n", foreign.join("\n"));
    std::fs::write(&file, set).expect("written");
    let program = format!("iptables-{}-restore", variant.name());
    put_right_after(scene, &format!("{program} <{file}"), author(variant, "iptables"));
    let rules = scene.server.rules(Family::V4);
    let theirs: Vec<_> = rules.lines().filter(|rule| !rule.contains("SPA")).collect();
    let expected = ["-P INPUT ACCEPT", "-P FORWARD DROP", "-P OUTPUT ACCEPT", foreign[0], foreign[1]];
    assert_eq!(theirs, expected, "the foreign set stays, in its order\n{rules}");
    scene.server.process().stop();
}

fn a_rule_ahead_of_ours_is_passed(variant: Variant) {
    let scene = &mut scene(variant);
    let iptables = scene.server.iptables(Family::V4);
    // What cannot accept a protected port may stand there.
    let harmless = "-s 203.0.113.9/32 -j DROP";
    let from = scene.server.log().len();
    scene.server.ns().sh(&format!("{iptables} -w -I INPUT 1 {harmless}"));
    let looks = [(&scene.topology.client, 22), (&scene.topology.stranger, 22)];
    assert_eq!(scene.looks(&looks), [Probe::Open, Probe::Silent]);
    let first = |scene: &Scene| {
        let rules = scene.server.rules(Family::V4);
        rules.lines().find(|rule| rule.starts_with("-A INPUT")).map(str::to_owned)
    };
    assert_eq!(first(scene), Some(format!("-A INPUT {harmless}")), "it is not moved past");
    assert!(!scene.server.log()[from..].contains("put right"), "{}", &scene.server.log()[from..]);
    scene.server.ns().sh(&format!("{iptables} -w -D INPUT 1"));
    let accept = "-p tcp --dport 22 -j ACCEPT";
    put_right_after(scene, &format!("{iptables} -w -I INPUT 1 {accept}"), author(variant, "iptables"));
    let rules = scene.server.rules(Family::V4);
    assert!(rules.contains("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"), "it stays, behind ours: {rules}");
    assert!(scene.server.log()[from..].contains("ours is first again"), "{}", &scene.server.log()[from..]);
    scene.server.process().stop();
}

fn a_fight_is_bounded(variant: Variant) {
    let scene = &mut scene(variant);
    let (iptables, soon) = (scene.server.iptables(Family::V4), soon(scene));
    for round in 0..REPAIRS {
        let from = scene.server.log().len();
        scene.server.ns().sh(&format!("{iptables} -w -F SPA"));
        // Each repair has ended before the next change: one that it meets half-way it puts right as well, uncounted.
        scene.server.process().wait_log("put right", from);
        assert!(is_whole(scene), "after repair {round}");
    }
    let from = scene.server.log().len();
    scene.server.ns().sh(&format!("{iptables} -w -F SPA"));
    eventually("it is degraded", soon, || scene.server.status()["state"] == "degraded");
    let trouble = scene.server.status()["trouble"].to_string();
    assert!(trouble.contains("keeps changing"), "{trouble}");
    scene.server.process().wait_log("keeps changing", from);
    assert!(!is_whole(scene), "it is not put right at once");
    // A knock writes, and so puts it right; the next change is not forgotten for that.
    scene.alice.open("ssh");
    eventually("a knock puts it right", soon, || is_whole(scene));
    scene.server.ns().sh(&format!("{iptables} -w -F SPA"));
    eventually("it is degraded again", soon, || scene.server.status()["state"] == "degraded");
    // Whoever else works on the firewall meanwhile, as fail2ban would, does not put it off.
    eventually("it is put right after the pause", AFTER_THE_PAUSE, || {
        scene.server.ns().sh(&format!("{iptables} -w -N OTHER; {iptables} -w -X OTHER"));
        is_whole(scene)
    });
    let lines = scene.server.log()[from..].matches("keeps changing").count();
    assert!(lines <= 3, "{lines} lines for one pause");
    eventually("and is well again", soon, || scene.server.status()["state"] == "ok");
    let looks = [(&scene.topology.client, 22), (&scene.topology.stranger, 22)];
    assert_eq!(scene.looks(&looks), [Probe::Open, Probe::Silent]);
    scene.server.process().stop();
}

fn a_race_for_the_first_place_is_bounded(variant: Variant) {
    let scene = &mut scene(variant);
    let (iptables, soon) = (scene.server.iptables(Family::V4), soon(scene));
    let accept = format!("{iptables} -w -I INPUT 1 -p tcp --dport 22 -j ACCEPT");
    for round in 0..JUMP_MOVES {
        let from = scene.server.log().len();
        scene.server.ns().sh(&accept);
        scene.server.process().wait_log("put right", from);
        assert!(is_whole(scene), "after move {round}");
    }
    scene.server.ns().sh(&accept);
    eventually("it is degraded", soon, || scene.server.status()["state"] == "degraded");
    let trouble = scene.server.status()["trouble"].to_string();
    assert!(trouble.contains("stands before ours"), "{trouble}");
    // Grants are written all the same.
    scene.alice.open("web");
    scene.wait_open(&scene.topology.client, 80);
    assert_eq!(scene.look(&scene.topology.stranger, 80), Probe::Silent, "that rule lets in to port 22 alone");
    // With the rule gone nothing is wrong any more.
    scene.server.ns().sh(&format!("{iptables} -w -D INPUT 1"));
    eventually("it is well again", AFTER_THE_PAUSE, || scene.server.status()["state"] == "ok");
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    scene.server.process().stop();
}

/// Many changes at once are one repair, and the daemon keeps its pace.
#[test]
fn a_storm_of_foreign_changes_is_taken_together() {
    in_namespace(|| {
        let scene = &mut scene(Variant::Nft);
        scene
            .server
            .ns()
            .sh("for i in $(seq 100); do nft add table ip storm; nft delete table ip storm; done");
        assert!(is_whole(scene));
        assert_eq!(scene.server.status()["state"], "ok", "foreign tables are not ours to fight");
        scene.alice.open("web");
        scene.wait_open(&scene.topology.client, 80);
        let lines = scene.server.log().lines().count();
        assert!(lines < 50, "no line for what is not ours: {}", scene.server.log());
        scene.server.process().stop();
    });
}

/// More notices than their socket holds, while the daemon looks elsewhere: that some are lost means that all is to be
/// looked at.
#[test]
fn notices_that_are_lost_lose_no_change() {
    in_namespace(|| {
        let scene = &mut scene(Variant::Nft);
        let from = scene.server.log().len();
        scene.server.process().signal(Signal::STOP);
        // Some 100 bytes each, several to a change, for a socket of 208 KiB by default.
        scene.server.ns().sh(
            "iptables-nft -w -F SPA
             for i in $(seq 4000); do echo \"add table ip storm$i\"; echo \"delete table ip storm$i\"; done | nft -f -
             for i in $(seq 400); do nft \"add table ip storm; add chain ip storm a; delete table ip storm\"; done",
        );
        assert!(!is_whole(scene));
        scene.server.process().signal(Signal::CONT);
        let soon = soon(scene);
        eventually("it is put right", soon, || is_whole(scene));
        scene.server.process().wait_log("put right", from);
        // And the next change is heard as ever.
        put_right_after(scene, "iptables-nft -w -F SPA", author(Variant::Nft, "iptables"));
        scene.server.process().stop();
    });
}

/// The lock of iptables-legacy, which alone tells of its changes, may be made only when somebody takes it, or anew.
#[test]
fn a_lock_that_is_made_later_is_watched_too() {
    if !legacy_or_skip("a_lock_that_is_made_later_is_watched_too") {
        return;
    }
    in_namespace(|| {
        let scene = &mut scene(Variant::Legacy);
        let iptables = scene.server.iptables(Family::V4);
        scene.server.process().stop();
        std::fs::remove_file("/run/xtables.lock").expect("iptables has made it");
        scene.server.start();
        assert!(!std::path::Path::new("/run/xtables.lock").exists(), "all stood, so nobody took it");
        put_right_after(scene, &format!("{iptables} -w -F SPA"), author(Variant::Legacy, ""));
        std::fs::remove_file("/run/xtables.lock").expect("iptables has made it again");
        put_right_after(scene, &format!("{iptables} -w -F SPA"), author(Variant::Legacy, ""));
        scene.server.process().stop();
    });
}
