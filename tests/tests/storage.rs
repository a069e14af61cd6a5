//! The state directory when it fails: a full disk, a record that is taken away. Nothing is granted meanwhile, the log
//! and the status say so, it goes on by itself, and nothing is accepted twice.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::sniff::Sniffer;
use spa_tests::{Family, SPA_PORT, Settings, Variant, WORK, in_namespace, sh};

/// Bytes of a page, the least that a tmpfs gives or refuses.
const PAGE: usize = 4_096;

/// A scene whose state directory is a small disk of its own.
fn on_a_small_disk() -> Scene {
    let state = Path::new(WORK).join("server/state");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).expect("a directory on the tmpfs");
    sh(&format!("mount -t tmpfs -o size=128k,mode=0700 tmpfs {}", state.display()));
    Scene::new(&Settings::new(Variant::Nft), Family::V4)
}

/// Lets the record end just before the end of a page, so that the next frame needs another one. Its last frame, over
/// and over: a record says the same however often.
fn fill_page(record: &Path) {
    let bytes = fs::read(record).expect("the replay record");
    let length =
        |at: usize| 8 + u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let mut last = 16; // the header
    while last + length(last) < bytes.len() {
        last += length(last);
    }
    let mut full = bytes.clone();
    while full.len() + (bytes.len() - last) <= PAGE {
        full.extend(&bytes[last..]);
    }
    fs::write(record, full).expect("there is room still");
}

/// Knocks for ssh, and returns the datagram.
fn knock(scene: &Scene) -> Vec<u8> {
    let sniffer = Sniffer::start(&scene.topology.client.ns);
    scene.alice.open("ssh");
    sniffer.datagrams_to(SPA_PORT).remove(0)
}

/// Knocks until the port opens: a broken record is tried again once a second.
fn goes_on(scene: &Scene) {
    eventually("granting goes on by itself", PATIENCE, || {
        scene.alice.call(&["open", "ssh"]);
        scene.look(&scene.topology.client, 22) == Probe::Open
    });
    assert_eq!(scene.server.status()["state"], "ok");
}

/// Sends a packet again from both machines: nothing opens.
fn stays_dead(scene: &Scene, packet: &[u8], what: &str) {
    let refused =
        || ["replay", "counter", "stale"].map(|reason| scene.server.refused(reason)).iter().sum::<u64>();
    let before = refused();
    for from in [&scene.topology.client, &scene.topology.stranger] {
        scene.send(from, packet);
    }
    eventually(format_args!("{what} is refused twice"), PATIENCE, || refused() == before + 2);
    assert!(scene.server.grants().is_empty(), "{what}");
}

#[test]
fn a_start_on_a_full_disk_says_what_to_do() {
    in_namespace(|| {
        let mut scene = on_a_small_disk();
        scene.server.process().stop();
        let state = scene.server.file("state");
        let full = format!("cd {} && rm replay && ! head -c 1M /dev/zero 2>/dev/null >fill", state.display());
        sh(&full);
        let output = scene.server.call(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(74), "{said}");
        assert!(said.contains("state/replay: No space left") && said.contains("try: make room"), "{said}");
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent, "as it said");
        sh(&format!("rm {}/fill", state.display()));
        scene.server.start();
        scene.server.process().stop();
    });
}

#[test]
fn a_full_disk_grants_nothing_until_there_is_room() {
    in_namespace(|| {
        let mut scene = on_a_small_disk();
        let (client, stranger) = (scene.topology.client.clone(), scene.topology.stranger.clone());
        let granted = scene.captured_knock();
        scene.wait_closed(PATIENCE);
        scene.server.process().stop();
        let record = scene.server.file("state/replay");
        fill_page(&record);
        scene.server.start();
        let fill = scene.server.file("state/fill");
        sh(&format!("dd if=/dev/zero of={} bs=4k 2>/dev/null || true", fill.display()));
        // Nothing opens, and whoever looks is told.
        let refused = knock(&scene);
        scene.server.process().wait_log("nothing is granted until the replay record can be written again", 0);
        assert_eq!(scene.looks(&[(&client, 22), (&stranger, 22)]), [Probe::Silent; 2]);
        assert!(scene.server.grant_rules(Family::V4).is_empty());
        let status = scene.server.status();
        assert_eq!(status["state"], "degraded", "{status}");
        let trouble = status["trouble"].to_string();
        assert!(trouble.contains("nothing is granted") && trouble.contains("No space left"), "{trouble}");
        eventually("further knocks are refused by name", PATIENCE, || {
            scene.alice.call(&["open", "ssh"]);
            scene.server.refused("record") >= 2
        });
        assert_eq!(scene.look(&client, 22), Probe::Silent);
        assert!(scene.server.process().is_running());
        // Room again: it goes on by itself.
        fs::remove_file(&fill).expect("it is there");
        goes_on(&scene);
        assert!(scene.server.log().contains("replay record is good again"));
        scene.server.must(&["revoke", "--all"]);
        stays_dead(&scene, &granted, "what was granted before");
        stays_dead(&scene, &refused, "what the full disk refused");
        // Also after a restart, from what is on the disk.
        scene.server.process().kill();
        scene.server.start();
        scene.server.must(&["revoke", "--all"]);
        stays_dead(&scene, &granted, "what was granted before, after kill -9");
    });
}

#[test]
fn a_record_that_is_taken_away_is_noticed() {
    in_namespace(|| {
        let settings = Settings { open_for: "20s", ..Settings::new(Variant::Nft) };
        let mut scene = Scene::new(&settings, Family::V4);
        let client = scene.topology.client.clone();
        let record = scene.server.file("state/replay");
        let packet = scene.captured_knock();
        let backup = fs::read(&record).expect("the replay record");
        scene.server.must(&["revoke", "--all"]);
        for (what, replacement) in [("removed", None), ("replaced by an older one", Some(&backup))] {
            let from = scene.server.log().len();
            fs::remove_file(&record).expect("it is there");
            if let Some(bytes) = replacement {
                spa_tests::write_private(&record, bytes);
            }
            let lost = knock(&scene);
            scene.server.process().wait_log("somebody removed or replaced the file", from);
            assert_eq!(scene.look(&client, 22), Probe::Silent, "{what}: nothing opens");
            assert_eq!(scene.server.status()["state"], "degraded", "{what}");
            goes_on(&scene);
            scene.server.must(&["revoke", "--all"]);
            scene.server.process().kill();
            scene.server.start();
            for packet in [&packet, &lost] {
                stays_dead(&scene, packet, &format!("{what}, and a packet from before it"));
            }
        }
        // Something that is no record is neither used nor destroyed.
        fs::remove_file(&record).expect("it is there");
        spa_tests::write_private(&record, "precious");
        knock(&scene);
        eventually("it is said", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(200));
            scene.alice.call(&["open", "ssh"]);
            scene.server.status()["trouble"].to_string().contains("not a replay record")
        });
        assert_eq!(scene.look(&client, 22), Probe::Silent);
        assert_eq!(fs::read_to_string(&record).expect("it is there"), "precious");
    });
}
