//! A new cloak key: both work for as long as both are there, and who needs the old one is known.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use spa_tests::probe::{PATIENCE, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Client, Family, Settings, Variant, in_namespace, succeeded, write_private};

use super::refused;

fn ids(scene: &Scene) -> Vec<String> {
    let list: serde_json::Value =
        serde_json::from_str(&scene.server.must(&["cloak", "list", "--json"])).unwrap();
    list.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn both_keys_work_until_the_old_one_is_retired() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let host = scene.address.to_string();
        let key_file = scene.server.file("server.key");
        let text = fs::read_to_string(&key_file).unwrap();
        write_private(&key_file, text.replace("cloak = ", "# the first one\ncloak = "));
        let thief = Client::invited(&scene.topology.client, "thief", &scene.invite);
        scene.alice.must(&["open", "ssh", "--wait"]);
        let old = ids(&scene).remove(0);
        let new = scene.server.must(&["cloak", "add"]).trim().to_owned();
        assert_eq!(ids(&scene), [new.clone(), old.clone()], "newest first");
        assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&key_file).unwrap().contains("# the first one\n"), "comments stay");
        // The overlap: alice with the old one, bob with the new.
        let invite = scene.server.enrol("bob", "ssh", &host, &[]);
        let cloaks = spa_proto::Invite::parse(&invite).unwrap().cloaks;
        assert_eq!((cloaks.len(), cloaks[0].id()), (1, new.clone()), "new invites carry the newest alone");
        refused(&scene.server.call(&["cloak", "retire", &new]), 64, &["in use", "bob"]);
        let bob = Client::invited(&scene.topology.client, "bob", &invite);
        for client in [&scene.alice, &bob] {
            client.must(&["open", "ssh", "--wait"]);
        }
        // Who needs what is known, also after a restart, and to status.
        for restarted in [false, true] {
            if restarted {
                scene.server.process().kill();
                scene.server.start();
            }
            // It is written off the path of the knock, so a moment after.
            eventually("the use of the keys is on disk", PATIENCE, || {
                let list = scene.server.must(&["client", "list", "--json"]);
                let list: serde_json::Value = serde_json::from_str(&list).unwrap();
                let last = |name: &str| {
                    list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["last-cloak"]
                        .clone()
                };
                (last("alice"), last("bob")) == (old.as_str().into(), new.as_str().into())
            });
            let cloaks = scene.server.status()["cloaks"].clone();
            let wanted = serde_json::json!([{ "id": new, "clients": 1 }, { "id": old, "clients": 1 }]);
            assert_eq!(cloaks, wanted, "restarted: {restarted}");
        }
        let output = scene.server.call(&["cloak", "retire", &old]);
        refused(&output, 64, &["in use: alice", "client invite NAME", "--force"]);
        // Alice gets the new one, and keeps her keys.
        let invite = scene.server.must(&["client", "invite", "alice"]);
        succeeded("import --update", &scene.alice.call_with(&["import", "--update"], invite.as_bytes()));
        scene.alice.must(&["open", "ssh", "--wait"]);
        eventually("nobody uses the old one any more", PATIENCE, || {
            scene.server.call(&["cloak", "retire", &old]).status.success()
        });
        assert_eq!(ids(&scene), [new.as_str()]);
        assert!(fs::read_to_string(&key_file).unwrap().contains("# the first one\n"), "comments stay");
        let before = scene.server.refused("tag");
        thief.open("ssh"); // alice's keys of before, under the old cloak key
        eventually("the old key is junk now", PATIENCE, || scene.server.refused("tag") == before + 1);
        for client in [&scene.alice, &bob] {
            client.must(&["open", "ssh", "--wait"]);
        }
    });
}

#[test]
fn cloak_keys_have_their_limits() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let first = ids(&scene).remove(0);
        refused(&scene.server.call(&["cloak", "retire", &first]), 64, &["only cloak key", "cloak add"]);
        for _ in 0..3 {
            scene.server.must(&["cloak", "add"]);
        }
        assert_eq!(ids(&scene).len(), 4);
        refused(&scene.server.call(&["cloak", "add"]), 64, &["4 cloak keys already", "cloak retire ID"]);
        refused(&scene.server.call(&["cloak", "retire", "00000000"]), 64, &["no cloak key 00000000", &first]);
        // Never knocked, and invited under it.
        refused(&scene.server.call(&["cloak", "retire", &first]), 64, &["never knocked", "alice"]);
        let text = scene.server.must(&["cloak", "list"]);
        assert!(text.lines().last().unwrap().contains("never knocked, may have it: alice"), "{text}");
        scene.server.must(&["cloak", "retire", &first, "--force"]);
        scene.alice.open("ssh");
        eventually("alice is shut out", PATIENCE, || scene.server.refused("tag") == 1);
        // One that nobody uses goes without a word.
        let last = ids(&scene).pop().unwrap();
        scene.server.must(&["cloak", "retire", &last]);
        assert_eq!(ids(&scene).len(), 2);
        scene.server.must(&["check"]);
    });
}
