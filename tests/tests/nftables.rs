//! The nftables backend among other programs: a table that nobody else can change while the daemon runs, that stays
//! when it is killed, and that is put right where the kernel lets others at it.

use std::time::Duration;

use spa_firewall::nftables::Nftables;
use spa_firewall::{Enforcer, Protection, Wanted};
use spa_tests::nft::{self, Ruleset};
use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, SPA_PORT, Settings, Variant, in_namespace};

/// Within this, protection and grants are back; on a busy machine within so many runs of `nft`.
const SOON: Duration = Duration::from_secs(1);
const SOON_EXECS: u32 = 30;
/// As the engine's bound is, in a minute.
const REPAIRS: usize = 20;
/// After these it waits 20 s.
const AFTER_THE_PAUSE: Duration = Duration::from_secs(25);

/// With a live grant for ssh in both families.
fn scene() -> Scene {
    let mut scene =
        Scene::new(&Settings { open_for: "120s", ..Settings::new(Variant::Nftables) }, Family::V4);
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    scene.server.process().wait_log("grant client=alice", 0);
    scene
}

fn looks(scene: &Scene) -> Vec<Probe> {
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    scene.looks(&[(client, 22), (stranger, 22), (stranger, 80)])
}

const WELL: [Probe; 3] = [Probe::Open, Probe::Silent, Probe::Silent];

/// Whether the kernel takes the flags owner and persist (Linux 6.9): else there is nothing to look at.
fn is_owned(scene: &Scene) -> bool {
    Ruleset::read(scene.server.ns()).table_flags().contains(&"owner")
}

#[test]
fn a_flush_skips_the_table_and_nobody_else_can_change_it() {
    in_namespace(|| {
        let scene = &mut scene();
        if !is_owned(scene) {
            return spa_tests::skip(
                "a_flush_skips_the_table_and_nobody_else_can_change_it",
                "this kernel has no tables with the flags owner and persist",
            );
        }
        let ns = scene.server.ns().clone();
        ns.sh("nft add table ip theirs && nft flush ruleset");
        let after = Ruleset::read(&ns);
        assert!(!after.foreign().contains("theirs"), "the flush took place: {}", after.foreign());
        assert_eq!(nft::open(&ns, Family::V4).len(), 1, "{}", after.ours());
        for change in [
            "delete table inet spa",
            "flush table inet spa",
            "flush chain inet spa ipv4",
            "insert rule inet spa ipv4 tcp dport 22 accept",
            "flush set inet spa openings4",
            "add element inet spa openings4 { 192.0.2.66 . tcp . 22 }",
        ] {
            let said = ns.sh(&format!("nft '{change}' 2>&1 && echo done || true"));
            assert!(said.contains("Operation not permitted"), "{change}: {said}");
        }
        assert_eq!(looks(scene), WELL);
        assert!(!scene.server.log().contains("put right"), "{}", scene.server.log());
        scene.server.process().stop();
    });
}

/// After SIGKILL the table has no owner, and nothing is open that was not; the next process takes it over as it is.
#[test]
fn the_table_outlives_its_owner_and_is_taken_over() {
    in_namespace(|| {
        let scene = &mut scene();
        let (ns, owned) = (scene.server.ns().clone(), is_owned(scene));
        let before = Ruleset::read(&ns).ours();
        scene.server.process().kill();
        let alone = Ruleset::read(&ns);
        assert!(!alone.table_flags().contains(&"owner"), "{:?}", alone.table_flags());
        assert_eq!(alone.ours(), before);
        assert_eq!(looks(scene), WELL);
        scene.server.start();
        assert_eq!(is_owned(scene), owned, "held again");
        assert_eq!(Ruleset::read(&ns).ours(), before);
        assert_eq!(scene.server.grants().len(), 1, "{}", scene.server.log());
        assert_eq!(looks(scene), WELL);
        // What others do to it meanwhile is put right at the start.
        for change in ["flush ruleset", "flush chain inet spa ipv4", "insert rule inet spa ipv6 accept"] {
            scene.server.process().kill();
            ns.sh(&format!("nft '{change}'"));
            scene.server.start();
            assert_eq!(Ruleset::read(&ns).ours(), before, "after {change}");
            assert_eq!(looks(scene)[1..], WELL[1..], "after {change}");
        }
        scene.server.process().stop();
    });
}

/// With another state directory, so that no lock keeps it away: `unprotect` cannot take the table from the daemon.
#[test]
fn nobody_else_removes_the_table() {
    in_namespace(|| {
        let scene = &mut scene();
        if !is_owned(scene) {
            return spa_tests::skip("nobody_else_removes_the_table", "this kernel has no owned tables");
        }
        let config = std::fs::read_to_string(scene.server.config()).expect("the configuration");
        let other = scene.server.file("other.toml");
        let state = scene.server.file("other-state");
        let moved =
            config.replace(&scene.server.file("state").display().to_string(), &state.display().to_string());
        spa_tests::write_private(&other, moved);
        let mut second = scene.server.ns().command(spa_tests::binary("spa-server"));
        let output = second.arg("--config").arg(&other).arg("unprotect").output().expect("nsenter runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("inet spa"), "{said}");
        assert_eq!(looks(scene), WELL);
        assert!(scene.server.process().is_running());
        scene.server.process().stop();
    });
}

/// As on a kernel without the flags: the table was made without them, and the daemon leaves it so.
fn share(scene: &mut Scene) {
    scene.server.process().stop();
    let services = ["tcp/22", "tcp/80", "tcp/443", "udp/53"].map(|text| text.parse().expect("an endpoint"));
    let protection = Protection {
        spa_port: SPA_PORT,
        protect: true,
        except: Vec::new(),
        services: services.into(),
        provisional_until: None,
    };
    scene.server.ns().enter(|| {
        let driver = Nftables::open_shared().expect("nobody holds the table");
        let mut enforcer = Enforcer::new(Box::new(driver));
        enforcer.remove_all().expect("it is removed");
        let wanted = Wanted { protection: Some(protection), ..Wanted::default() };
        enforcer.enforce(&wanted).expect("it is laid");
    });
    scene.server.start();
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    scene.server.process().wait_log("grant client=alice", 0);
    assert!(!is_owned(scene), "it is left without an owner");
    assert_eq!(looks(scene), WELL);
}

#[test]
fn without_an_owner_changes_are_put_right() {
    in_namespace(|| {
        let scene = &mut scene();
        share(scene);
        let ns = scene.server.ns().clone();
        ns.sh("nft add table ip theirs && nft add chain ip theirs c && nft add rule ip theirs c tcp dport 9 drop");
        let began = std::time::Instant::now();
        let (ours, foreign) = (Ruleset::read(&ns).ours(), Ruleset::read(&ns).foreign());
        let soon = SOON.max(began.elapsed() * SOON_EXECS);
        for change in [
            "flush chain inet spa ipv4",
            "insert rule inet spa ipv4 tcp dport 22 accept",
            "flush set inet spa openings4",
            "add element inet spa openings4 { 192.0.2.66 . tcp . 22 }",
            "delete table inet spa",
        ] {
            let from = scene.server.log().len();
            ns.sh(&format!("nft '{change}'"));
            eventually(format_args!("{change} is put right"), soon, || {
                Ruleset::read(&ns).ours() == ours && nft::open(&ns, Family::V4).len() == 1
            });
            scene.server.process().wait_log("put right", from);
            let log = scene.server.log().split_off(from);
            assert!(log.contains("nft (pid"), "it names nft: {log}");
            assert_eq!(looks(scene), WELL, "after {change}\n{log}");
            assert_eq!(Ruleset::read(&ns).foreign(), foreign, "after {change}");
        }
        assert!(is_owned(scene), "a table that is made anew has the flags");
        assert_eq!(scene.server.status()["state"], "ok");
        scene.server.process().stop();
    });
}

/// A table that is made anew is held from then on; so the fight is fought with a chain inside of it.
#[test]
fn without_an_owner_a_flush_is_put_right() {
    in_namespace(|| {
        let scene = &mut scene();
        share(scene);
        let (ns, from) = (scene.server.ns().clone(), scene.server.log().len());
        ns.sh("nft add table ip theirs && nft flush ruleset");
        eventually("it is put right", SOON * 4, || nft::open(&ns, Family::V4).len() == 1);
        scene.server.process().wait_log("put right", from);
        assert_eq!(looks(scene), WELL);
        scene.server.process().stop();
    });
}

#[test]
fn without_an_owner_a_fight_is_bounded() {
    in_namespace(|| {
        let scene = &mut scene();
        share(scene);
        let ns = scene.server.ns().clone();
        for round in 0..REPAIRS {
            let from = scene.server.log().len();
            ns.sh("nft flush chain inet spa ipv4");
            scene.server.process().wait_log("put right", from);
            assert!(!Ruleset::read(&ns).rules("ipv4").is_empty(), "after repair {round}");
        }
        ns.sh("nft flush chain inet spa ipv4");
        eventually("it is degraded", PATIENCE, || scene.server.status()["state"] == "degraded");
        let trouble = scene.server.status()["trouble"].to_string();
        assert!(trouble.contains("keeps changing"), "{trouble}");
        assert!(Ruleset::read(&ns).rules("ipv4").is_empty(), "it is not put right at once");
        eventually("it is put right after the pause", AFTER_THE_PAUSE, || {
            !Ruleset::read(&ns).rules("ipv4").is_empty()
        });
        eventually("and is well again", PATIENCE, || scene.server.status()["state"] == "ok");
        assert_eq!(looks(scene), WELL);
        scene.server.process().stop();
    });
}

/// `grants` tells what each let in, and the kernel's own counters agree.
#[test]
fn grants_are_counted() {
    in_namespace(|| {
        let scene = &mut scene();
        for _ in 0..3 {
            assert_eq!(scene.look(&scene.topology.client, 22), Probe::Open);
        }
        let element = Ruleset::read(scene.server.ns()).openings(Family::V4).remove(0);
        let grant = scene.server.grants().remove(0);
        assert!(element.packets >= 4, "{element:?}");
        assert_eq!(grant["packets"].as_u64(), Some(element.packets), "{grant}");
        assert!(grant["bytes"].as_u64() >= Some(element.packets * 40), "{grant}");
        let expires = element.expires.expect("it ends");
        let remaining = grant["remaining"].as_u64().expect("seconds");
        assert!(remaining.abs_diff(expires) <= 1, "{remaining} and {expires}");
        scene.server.process().stop();
    });
}
