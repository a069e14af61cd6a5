//! `client rotate`, `invite`, `disable`, `enable`, `remove`.

use std::fs;

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Client, Family, Settings, Variant, in_namespace, succeeded, write_private};

use super::{refused, said};

fn scene() -> Scene {
    Scene::new(&Settings { open_for: "20s", ..Settings::new(Variant::Nft) }, Family::V4)
}

fn json(scene: &Scene, name: &str) -> serde_json::Value {
    let list: serde_json::Value =
        serde_json::from_str(&scene.server.must(&["client", "list", "--json"])).unwrap();
    list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
}

/// What is in clients.d, by name: `.psk` and `.psk-2` come before `.toml`.
fn files(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(scene.server.file("clients.d")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn rotated_keys_replace_the_old_ones_at_once() {
    in_namespace(|| {
        let scene = scene();
        let (server, client) = (&scene.server, &scene.topology.client);
        let path = server.file("clients.d/alice.toml");
        let text = fs::read_to_string(&path).unwrap();
        write_private(&path, format!("# alice's laptop\n{text}max-grants = 8 # enough\n"));
        let thief = Client::invited(&scene.topology.client, "thief", &scene.invite);
        scene.alice.must(&["open", "ssh", "--wait"]);
        for (turn, psk) in [(1, "alice.psk-2"), (2, "alice.psk")] {
            let output = server.call(&["client", "rotate", "alice"]);
            let invite = succeeded("client rotate", &output);
            assert_eq!(invite.lines().count(), 1);
            assert!(said(&output).contains("import --update"), "{}", said(&output));
            assert_eq!(files(&scene), [psk, "alice.toml"].map(str::to_owned), "no old psk is left");
            assert_eq!(scene.look(client, 22), Probe::Silent, "what the old keys opened is closed");
            thief.open("ssh");
            eventually("the old keys are refused", PATIENCE, || server.refused("name") == turn);
            let update = scene.alice.call_with(&["import", "--update"], invite.as_bytes());
            succeeded("import --update", &update);
            scene.alice.must(&["open", "ssh", "--wait"]);
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# alice's laptop\n") && text.contains("max-grants = 8 # enough"), "{text}");
        assert!(scene.alice.file("bastion.key.old").exists(), "the key before is kept");
        // Errors: before anything is written.
        refused(&server.call(&["client", "rotate", "bob"]), 66, &["no client bob", "client list"]);
        refused(&server.call(&["client", "rotate", "alice", "--host", "a b"]), 64, &["host name or address"]);
        write_private(&path, fs::read_to_string(&path).unwrap().replace("host = ", "# host = "));
        refused(&server.call(&["client", "rotate", "alice"]), 64, &["alice.toml", "--host ADDRESS"]);
        scene.alice.must(&["open", "ssh", "--wait"]);
        server.must(&["client", "remove", "alice"]);
        assert!(files(&scene).is_empty());
    });
}

#[test]
fn a_client_with_its_own_key_can_rotate_too() {
    in_namespace(|| {
        let scene = scene();
        let bob = Client::new(&scene.topology.client, "bob");
        let host = scene.address.to_string();
        let key = bob.must(&["keygen", "--name", "bastion"]);
        let invite = scene.server.enrol("bob", "ssh", &host, &["--public-key", key.trim()]);
        assert_eq!(spa_proto::Invite::parse(&invite).unwrap().secret, None);
        bob.import("bastion", &invite);
        bob.must(&["open", "ssh", "--wait"]);
        // The psk alone is new, and the key the same.
        let invite = scene.server.must(&["client", "rotate", "bob", "--public-key", key.trim()]);
        succeeded("import --update", &bob.call_with(&["import", "--update"], invite.as_bytes()));
        bob.must(&["open", "ssh", "--wait"]);
        let taken = scene.server.call(&["client", "rotate", "alice", "--public-key", key.trim()]);
        refused(&taken, 64, &["client bob has this public key"]);
    });
}

#[test]
fn a_disabled_client_is_shut_out_until_it_is_enabled() {
    in_namespace(|| {
        let scene = scene();
        let (server, client) = (&scene.server, &scene.topology.client);
        scene.alice.must(&["open", "ssh", "--wait"]);
        assert_eq!(json(&scene, "alice")["state"], "active");
        assert!(json(&scene, "alice")["last-knock"].is_u64());
        server.must(&["client", "disable", "alice"]);
        assert_eq!(scene.look(client, 22), Probe::Silent, "its grants end at once");
        assert!(server.grants().is_empty());
        scene.alice.open("ssh");
        eventually("it is refused", PATIENCE, || server.refused("name") == 1);
        assert_eq!(json(&scene, "alice")["state"], "disabled");
        let again = server.call(&["client", "disable", "alice"]);
        assert!(again.status.success() && said(&again).contains("disabled already"));
        server.must(&["check"]);
        server.must(&["client", "enable", "alice"]);
        scene.alice.must(&["open", "ssh", "--wait"]);
        assert!(!fs::read_to_string(server.file("clients.d/alice.toml")).unwrap().contains("disabled"));
        assert!(said(&server.call(&["client", "enable", "alice"])).contains("is not disabled"));
        refused(&server.call(&["client", "disable", "bob"]), 66, &["no client bob"]);
        refused(&server.call(&["client", "enable", "bob"]), 66, &["no client bob"]);
    });
}

/// To take a right away needs nothing else to be right: not another client's file, not server.toml, and no reload.
#[test]
fn a_client_is_shut_out_though_the_reload_is_refused() {
    in_namespace(|| {
        let scene = scene();
        let host = scene.address.to_string();
        let client = scene.topology.client.clone();
        let good = fs::read_to_string(scene.server.config()).unwrap();
        let bob = scene.server.file("clients.d/bob.toml");
        scene.server.enrol("bob", "ssh", &host, &[]);
        let good_bob = fs::read_to_string(&bob).unwrap();
        let path = scene.server.file("clients.d/alice.toml");
        let alices = fs::read_to_string(&path).unwrap();
        type Breaking<'a> = (&'a str, &'a dyn Fn());
        let breakings: [Breaking<'_>; 4] = [
            ("another client's file", &|| write_private(&bob, "name = \"bob\"\nallow = 7\n")),
            ("the backend edited", &|| {
                let edited = good.replace("[firewall]\n", "[firewall]\nmark = \"0x40000000\"\n");
                write_private(
                    &scene.server.config(),
                    edited.replace("iptables = \"nft\"", "backend = \"nftables\""),
                );
            }),
            ("server.toml broken", &|| write_private(&scene.server.config(), format!("{good}\nnonsense\n"))),
            ("its own file broken", &|| write_private(&path, "name = \"alice\"\nallow = 7\n")),
        ];
        for (what, breaks) in breakings {
            scene.alice.must(&["open", "ssh", "--wait"]);
            breaks();
            let before = scene.server.refused("name");
            // What is disabled cannot be written where the file is broken; what is removed is gone.
            let command = if what == "its own file broken" { "remove" } else { "disable" };
            let output = scene.server.call(&["client", command, "alice"]);
            let said = said(&output);
            assert!(output.status.success(), "{what}: {said}");
            assert!(said.contains("lets alice in no more (1 grant closed)"), "{what}: {said}");
            assert_eq!(scene.look(&client, 22), Probe::Silent, "{what}: its grant ends at once");
            scene.alice.open("ssh");
            eventually(format_args!("{what}: it is refused"), PATIENCE, || {
                scene.server.refused("name") == before + 1
            });
            if command == "disable" {
                assert!(said.contains("stays shut out all the same"), "{what}: {said}");
                assert_eq!(scene.server.status()["shut-out"], serde_json::json!(["alice"]), "{what}");
                assert!(scene.server.must(&["status"]).contains("shut out   alice, until"));
                refused(&scene.server.call(&["reload"]), 78, &[]);
                assert!(scene.server.grants().is_empty(), "{what}: a refused reload lets nobody in");
            }
            write_private(&scene.server.config(), &good);
            write_private(&bob, &good_bob);
            write_private(&path, &alices);
            if command == "remove" {
                return;
            }
            scene.server.must(&["reload"]);
            assert_eq!(scene.server.status()["shut-out"], serde_json::json!([]));
        }
    });
}

/// With no daemon to close it, what is open stays so for a while: that is said, and the next start ends it.
#[test]
fn a_client_that_is_removed_without_a_daemon_is_closed_at_the_start() {
    in_namespace(|| {
        let mut scene = scene();
        let client = scene.topology.client.clone();
        scene.alice.must(&["open", "ssh", "--wait"]);
        scene.server.process().stop();
        let output = scene.server.call(&["client", "remove", "alice"]);
        assert!(output.status.success(), "{}", said(&output));
        let said = said(&output);
        assert!(said.contains("removed alice") && said.contains("no daemon runs"), "{said}");
        assert!(said.contains("closes at its time, or as soon as the daemon starts"), "{said}");
        assert_eq!(scene.look(&client, 22), Probe::Open, "as it said");
        scene.server.start();
        assert_eq!(scene.look(&client, 22), Probe::Silent, "the start closes it");
        assert!(scene.server.grants().is_empty());
        scene.server.process().stop();
    });
}

#[test]
fn an_update_is_for_the_entry_of_its_server() {
    in_namespace(|| {
        let scene = scene();
        let (alice, server) = (&scene.alice, &scene.server);
        let host = scene.address.to_string();
        let before = fs::read_to_string(alice.config()).unwrap();
        let edited = before.replace("source = \"auto\"", "source = \"observed\" # behind NAT");
        write_private(&alice.config(), &edited);
        // The same client again: no private key in it, and the entry's own settings stay.
        let invite = server.must(&["client", "invite", "alice", "--host", "bastion.example.org"]);
        assert_eq!(spa_proto::Invite::parse(&invite).unwrap().secret, None);
        let output = alice.call_with(&["import", "--update"], invite.as_bytes());
        assert!(said(&output).contains("keeps"), "{}", said(&output));
        assert_eq!(fs::read_to_string(alice.config()).unwrap(), edited);
        alice.must(&["open", "ssh", "--wait"]);
        // Which entry, and is there one?
        let bob = Client::new(&scene.topology.client, "bob");
        let import = |client: &Client, further: &[&str]| {
            client.call_with(&[&["import", "--update"], further].concat(), invite.as_bytes())
        };
        refused(&import(&bob, &[]), 64, &["no entry", "--name NAME"]);
        refused(&import(alice, &["--name", "basti0n"]), 64, &["bastion"]);
        let plain = alice.call_with(&["import", "--name", "bastion"], scene.invite.as_bytes());
        refused(&plain, 64, &["already", "--update"]);
        let no_key = bob.call_with(&["import", "--name", "bastion"], invite.as_bytes());
        refused(&no_key, 66, &["bastion.key.pending", "--update"]);
        alice.import("second", &server.enrol("carol", "ssh", &host, &[]));
        refused(&import(alice, &[]), 64, &["bastion, second", "--name"]);
        succeeded("import", &import(alice, &["--name", "bastion"]));
    });
}
