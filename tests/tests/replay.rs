//! A packet opens once: not again from the same source, not from another, not after any restart.

use std::fs;
use std::io::Write;

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, for_each_variant_and_family, in_namespace};

for_each_variant_and_family!(a_captured_packet_opens_nothing);

/// All refusals that a packet sent again can meet.
const REASONS: [&str; 3] = ["replay", "counter", "stale"];

/// Sends a packet again from both machines, waits until both copies are refused, and looks that nothing opened.
fn resend(scene: &Scene, packet: &[u8], when: &str) {
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    let refused = || REASONS.iter().map(|reason| scene.server.refused(reason)).sum::<u64>();
    let before = refused();
    for from in [client, stranger] {
        scene.send(from, packet);
    }
    eventually(format_args!("both copies are refused {when}"), PATIENCE, || refused() == before + 2);
    assert_eq!(scene.looks(&[(client, 22), (stranger, 22)]), [Probe::Silent; 2], "{when}");
    assert!(scene.server.grant_rules(scene.family).is_empty(), "{when}");
}

fn a_captured_packet_opens_nothing(variant: Variant, family: Family) {
    let mut scene = Scene::new(&Settings::new(variant), family);
    let packet = scene.captured_knock();
    let stranger = &scene.topology.stranger;
    scene.send(stranger, &packet);
    assert_eq!(scene.look(stranger, 22), Probe::Silent, "while the grant is live");
    scene.wait_closed(PATIENCE);
    resend(&scene, &packet, "after the expiry");
    scene.server.process().stop();
    scene.server.start();
    resend(&scene, &packet, "after a restart");
    scene.server.process().kill();
    scene.server.start();
    resend(&scene, &packet, "after kill -9");
    assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
}

/// A frame that was being written when the power went.
#[test]
fn a_torn_frame_behind_the_last_brings_nothing_back() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let packet = scene.captured_knock();
        scene.wait_closed(PATIENCE);
        scene.server.process().kill();
        let record = scene.server.file("state/replay");
        let mut file = fs::OpenOptions::new().append(true).open(&record).expect("the replay record");
        file.write_all(&[0, 0, 0, 40, 1, 2, 3, 4, 5]).expect("appended");
        scene.server.start();
        let torn = "the last entry of the replay record was torn";
        assert_eq!(scene.server.log().matches(torn).count(), 1, "{}", scene.server.log());
        assert!(scene.server.status()["refusing"].is_null(), "the floor is now, so nobody has to wait");
        resend(&scene, &packet, "after a torn frame");
        scene.server.process().kill();
        scene.server.start();
        assert!(!scene.server.log().contains(torn), "once");
    });
}

/// Worse than a power cut can be on a disk that keeps its word: the very frame of this packet is torn.
#[test]
fn the_last_frame_torn_brings_nothing_back() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let first = scene.captured_knock();
        scene.wait_closed(PATIENCE);
        let last = scene.captured_knock();
        scene.wait_closed(PATIENCE);
        scene.server.process().kill();
        let record = scene.server.file("state/replay");
        let length = fs::metadata(&record).expect("the replay record").len();
        let file = fs::OpenOptions::new().write(true).open(&record).expect("the replay record");
        file.set_len(length - 5).expect("cut");
        scene.server.start();
        resend(&scene, &first, "after its record's last frame was torn");
        resend(&scene, &last, "after its own frame was torn");
    });
}

/// Damage before good frames is no power cut: the daemon says so, names the file and the way out, and opens nothing.
#[test]
fn a_damaged_record_is_named_and_recovered() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings { max_age: "5s", ..Settings::new(Variant::Nft) }, Family::V4);
        let packet = scene.captured_knock();
        scene.captured_knock();
        scene.wait_closed(PATIENCE);
        scene.server.process().kill();
        let record = scene.server.file("state/replay");
        let mut bytes = fs::read(&record).expect("the replay record");
        bytes[16 + 8 + 3] ^= 1; // in the body of the first frame
        fs::write(&record, bytes).expect("written");
        let output = scene.server.call(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{said}");
        assert!(
            said.contains(&record.display().to_string()) && said.contains("server.toml recover: "),
            "{said}"
        );
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent, "protection stays meanwhile");
        scene.server.must(&["recover"]);
        scene.server.start();
        scene.send(&scene.topology.client, &packet);
        let refused = |scene: &Scene| REASONS.iter().map(|reason| scene.server.refused(reason)).sum::<u64>();
        eventually("the old packet is refused", PATIENCE, || refused(&scene) > 0);
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
        // Every floor is now + max-age: that long nobody is let in, then all are.
        eventually("knocks are taken again", PATIENCE, || {
            scene.alice.call(&["open", "ssh"]);
            scene.look(&scene.topology.client, 22) == Probe::Open
        });
    });
}

/// While every knock is refused for what became of the record, whoever looks is told until when.
#[test]
fn how_long_all_is_refused_is_told() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        assert!(scene.server.status()["refusing"].is_null());
        let record = scene.server.file("state/replay");
        for lost in [false, true] {
            scene.server.process().stop();
            if lost {
                fs::remove_file(&record).expect("it is there");
            } else {
                scene.server.must(&["recover"]);
            }
            scene.server.start();
            let status = scene.server.status();
            let refusing = &status["refusing"];
            let (until, why) = (refusing["until"].as_str(), refusing["why"].as_str());
            assert!(until.is_some_and(|until| until.starts_with("20") && until.ends_with('Z')), "{status}");
            assert!(why.is_some_and(|why| why.contains("replay record was lost or recovered")), "{status}");
            assert_eq!(status["state"], "degraded");
            let words = format!("packets are refused until {}", until.unwrap_or_default());
            assert!(scene.server.must(&["status"]).contains(&words));
            assert!(scene.server.log().contains(&words), "{}", scene.server.log());
            let doctor = scene.server.call(&["doctor"]);
            let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
            assert!(said.contains(&words), "{said}");
            scene.alice.open("ssh");
            eventually("it is so", PATIENCE, || scene.server.refused("counter") > 0);
        }
    });
}
