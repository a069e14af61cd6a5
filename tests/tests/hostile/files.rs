//! Files that are not what they should be: an error that names the file and says what to do, nothing changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use spa_tests::probe::Probe;
use spa_tests::scene::Scene;
use spa_tests::{Client, Family, Settings, Variant, in_namespace, write_private};

fn scene() -> Scene {
    Scene::new(&Settings { open_for: "20s", ..Settings::new(Variant::Nft) }, Family::V4)
}

/// Ways to spoil a file.
fn spoiled(good: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("zeros".into(), vec![0; 4_096]),
        ("not UTF-8".into(), vec![0xff; 300]),
        ("one long line".into(), vec![b'a'; 1 << 20]),
        ("deeply nested".into(), [vec![b'['; 100_000], vec![b']'; 100_000]].concat()),
    ];
    for cut in (1..good.len()).step_by(good.len() / 16 + 1) {
        all.push((format!("cut to {cut} bytes"), good[..cut].to_vec()));
        let mut flipped = good.to_vec();
        flipped[cut] ^= 0x11;
        all.push((format!("byte {cut} changed"), flipped));
    }
    all
}

/// How often a spoiled file was not answered as it should be, all of it said at the end.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn check(&mut self, right: bool, complaint: impl FnOnce() -> String) {
        if !right {
            self.0.push(complaint());
        }
    }

    /// A refusal has an exit code of sysexits(3) (not a signal, not a panic's 101) and words, not too many and all
    /// printable, that name the file or one that it names.
    fn said_well(&mut self, what: &str, path: &Path, output: &Output) {
        let said = said(output);
        // "alic": a changed byte may name another file beside it.
        let name: String = path.display().to_string();
        let name = &name[..name.len() - 6];
        let brief: String = said.chars().take(300).collect();
        match output.status.code() {
            Some(0) => {} // cut or changed where it does not matter
            Some(64..=78) => {
                self.check(said.contains(name), || format!("{what}: {name} is not named: {brief}"));
                self.check(said.len() < 4_000, || format!("{what}: {} bytes of error", said.len()));
                let control = |c: char| c.is_control() && c != '\n';
                self.check(!said.contains(control), || format!("{what}: control characters: {brief:?}"));
            }
            code => self.0.push(format!("{what}: exit code {code:?}: {brief}")),
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{} complaints:\n{}", self.0.len(), self.0.join("\n"));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Whether any word of the secret file shows up in what was said.
fn tells_no_secret(what: &str, secret: &[u8], output: &Output) {
    let said = said(output);
    let secrets = String::from_utf8_lossy(secret).into_owned();
    // Base64 of 32 bytes; fragments of it would be as bad.
    for word in secrets.split_whitespace().filter(|word| word.len() >= 40) {
        assert!(!said.contains(&word[..20]), "{what}: a secret is printed: {said}");
    }
}

/// check, reload and run refuse it, and the running daemon goes on with what it had.
fn spoil_server_file(scene: &mut Scene, name: &str, is_secret: bool, complaints: &mut Complaints) {
    let path = scene.server.file(name);
    let good = fs::read(&path).expect("it is there");
    for (how, bytes) in spoiled(&good) {
        write_private(&path, &bytes);
        let what = format!("{name} {how}");
        let check = scene.server.call(&["check"]);
        complaints.said_well(&what, &path, &check);
        if is_secret {
            tells_no_secret(&what, &good, &check);
        }
        // What `check` lets pass may well be another good configuration: only what it refuses must leave all as it was.
        if !check.status.success() {
            let reload = scene.server.call(&["reload"]);
            complaints.check(!reload.status.success(), || format!("{what}: reload took what check refuses"));
        }
        assert!(scene.server.process().is_running(), "{what}: the daemon ended");
    }
    write_private(&path, &good);
    scene.server.must(&["reload"]);
}

#[test]
fn server_files() {
    in_namespace(|| {
        let mut scene = scene();
        let mut complaints = Complaints::default();
        for (name, is_secret) in [
            ("server.toml", false),
            ("server.key", true),
            ("clients.d/alice.toml", false),
            ("clients.d/alice.psk", true),
        ] {
            spoil_server_file(&mut scene, name, is_secret, &mut complaints);
        }
        complaints.none();
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    });
}

#[test]
fn client_files() {
    in_namespace(|| {
        let scene = scene();
        let mut complaints = Complaints::default();
        for (name, is_secret) in [("client.toml", false), ("bastion.key", true)] {
            let path = scene.alice.file(name);
            let good = fs::read(&path).expect("it is there");
            for (how, bytes) in spoiled(&good) {
                write_private(&path, &bytes);
                let output = scene.alice.call(&["check"]);
                complaints.said_well(&format!("{name} {how}"), &path, &output);
                if is_secret {
                    tells_no_secret(&format!("{name} {how}"), &good, &output);
                }
            }
            write_private(&path, &good);
        }
        complaints.none();
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
    });
}

/// An invite is wholly right or not taken.
#[test]
fn invites() {
    in_namespace(|| {
        let scene = scene();
        let other = Client::new(&scene.topology.stranger, "other");
        for (how, bytes) in spoiled(scene.invite.trim_end().as_bytes()) {
            let output = other.call_with(&["import", "--name", "bastion"], &bytes);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(output.status.code(), Some(64..=78)), "{how}: {:?} {said}", output.status);
            assert!(said.contains("invite"), "{how}: {said}");
            tells_no_secret(&how, scene.invite.as_bytes(), &output);
            assert!(!other.file("client.toml").exists() && !other.file("bastion.key").exists(), "{how}");
        }
        other.import("bastion", &scene.invite);
    });
}

/// A replay record that cannot be what we wrote is never taken for an empty one.
#[test]
fn replay_record() {
    in_namespace(|| {
        let mut scene = scene();
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        scene.server.process().stop();
        let path = scene.server.file("state/replay");
        let good = fs::read(&path).expect("the replay record");
        let mut complaints = Complaints::default();
        for (how, bytes) in spoiled(&good) {
            if how.starts_with("cut") || how == "empty" {
                continue; // a torn end is normal, see replay.rs
            }
            write_private(&path, &bytes);
            let what = format!("replay record, {how}");
            let check = scene.server.call(&["check"]);
            complaints.said_well(&what, &path, &check);
        }
        complaints.none();
        write_private(&path, &good);
        scene.server.start();
    });
}

/// Secrets that others can read, or whose directory others can write, are refused.
#[test]
fn open_secrets() {
    in_namespace(|| {
        let scene = scene();
        let server = scene.server.file("");
        for (path, mode) in [
            (scene.server.file("server.key"), 0o644),
            (scene.server.file("server.key"), 0o640),
            (scene.server.file("clients.d/alice.psk"), 0o604),
            (server.clone(), 0o777),
            (server, 0o770),
            (scene.server.file("clients.d"), 0o733),
            (scene.server.config(), 0o666),
        ] {
            let good = fs::metadata(&path).expect("it is there").permissions();
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
            let output = scene.server.call(&["check"]);
            let said = said(&output);
            fs::set_permissions(&path, good).expect("it is ours");
            let what = format!("{} {mode:o}", path.display());
            assert!(matches!(output.status.code(), Some(64..=78)), "{what}: {:?} {said}", output.status);
            assert!(said.contains("chmod"), "{what}: the error says what to do: {said}");
        }
        let key = scene.alice.file("bastion.key");
        fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("it is ours");
        let output = scene.alice.call(&["open", "ssh"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("chmod"), "{said}");
    });
}
