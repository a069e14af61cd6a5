//! Invites on their way: passphrases, expiry, and what is done with those that are no good.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use spa_proto::{Invite, SealedInvite};
use spa_tests::scene::Scene;
use spa_tests::{Client, Family, Settings, Terminal, Variant, in_namespace, succeeded, write_private};

use super::{refused, said};

const PASSPHRASE: &str = "na\u{ef}ve correct horse";

#[test]
fn a_passphrase_opens_and_another_does_not() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let (server, host) = (&scene.server, scene.address.to_string());
        let (right, wrong) = (server.file("right"), server.file("wrong"));
        write_private(&right, format!("{PASSPHRASE}\n"));
        write_private(&wrong, "naive correct horse\n");
        let file = |path: &std::path::Path| path.display().to_string();
        let add = |name: &'static str| ["client", "add", name, "--allow", "ssh", "--host", &host];
        let invite = server.must(&[&add("bob")[..], &["--passphrase-file", &file(&right)]].concat());
        assert!(invite.starts_with("spae1-") && invite.lines().count() == 1, "{invite}");
        assert!(SealedInvite::parse(&invite).unwrap().open(PASSPHRASE).is_ok());
        let bob = Client::new(&scene.topology.client, "bob");
        let import = ["import", "--name", "bastion"];
        let call = |further: &[&str]| bob.call_with(&[&import, further].concat(), invite.as_bytes());
        refused(
            &call(&["--passphrase-file", &file(&wrong)]),
            65,
            &["not the one of this invite", "capitals"],
        );
        refused(&call(&[]), 64, &["encrypted", "--passphrase-file"]);
        refused(&call(&["--passphrase-file", "/run/nowhere"]), 66, &["/run/nowhere"]);
        fs::set_permissions(&wrong, fs::Permissions::from_mode(0o644)).unwrap();
        refused(&call(&["--passphrase-file", &file(&wrong)]), 77, &["read by others", "chmod 600"]);
        assert!(!bob.config().exists() && !bob.file("bastion.key").exists(), "nothing is written");
        succeeded("import", &call(&["--passphrase-file", &file(&right)]));
        bob.must(&["open", "ssh", "--wait"]);
        // What is no passphrase is refused before anything is written.
        fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
        write_private(&wrong, "short\n");
        refused(
            &server.call(&[&add("carol")[..], &["--passphrase-file", &file(&wrong)]].concat()),
            64,
            &["5 characters"],
        );
        write_private(&wrong, "two lines\nof it\n");
        refused(
            &server.call(&[&add("carol")[..], &["--passphrase-file", &file(&wrong)]].concat()),
            65,
            &["one line"],
        );
        refused(
            &server.call(&[&add("carol")[..], &["--passphrase-file", "/run/nowhere"]].concat()),
            66,
            &["/run/nowhere"],
        );
        assert!(
            !server.file("clients.d/carol.toml").exists() && !server.file("clients.d/carol.psk").exists()
        );
    });
}

#[test]
fn a_passphrase_is_typed_unseen_on_both_sides() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let host = scene.address.to_string();
        let add = ["client", "add", "bob", "--allow", "ssh", "--host", &host, "--passphrase"];
        let mut terminal = Terminal::start(&scene.server.command(&add), 80, 24);
        terminal.answer("Passphrase for the invite: ", PASSPHRASE);
        terminal.answer("The same again: ", "something else");
        terminal.expect("differ; nothing was changed");
        assert_eq!(terminal.wait().code(), Some(64));
        assert!(!scene.server.file("clients.d/bob.toml").exists());
        let mut terminal = Terminal::start(&scene.server.command(&add), 80, 24);
        terminal.answer("Passphrase for the invite: ", PASSPHRASE);
        terminal.answer("The same again: ", PASSPHRASE);
        terminal.expect("enrolled bob");
        assert!(terminal.wait().success());
        let screen = terminal.screen();
        assert!(!screen.contains(PASSPHRASE), "{screen}");
        let invite = screen.lines().find(|line| line.starts_with("spae1-")).unwrap();
        let bob = Client::new(&scene.topology.client, "bob");
        write_private(&bob.file("invite"), invite);
        let path = bob.file("invite").display().to_string();
        let mut terminal = Terminal::start(&bob.command(&["import", "--name", "bastion", &path]), 80, 24);
        terminal.answer("Passphrase of the invite: ", "mistyped");
        terminal.answer("Passphrase of the invite: ", PASSPHRASE);
        terminal.expect("spa-client ssh-config");
        assert!(terminal.wait().success(), "{}", terminal.screen());
        assert!(!terminal.screen().contains("mistyped"), "{}", terminal.screen());
        bob.must(&["open", "ssh", "--wait"]);
        // Without a terminal nothing is asked.
        let output = scene
            .server
            .ns()
            .command("setsid")
            .args(["--wait"])
            .arg(spa_tests::binary("spa-server"))
            .arg("--config")
            .arg(scene.server.config())
            .args(["client", "add", "eve", "--allow", "ssh", "--host", &host, "--passphrase"])
            .output()
            .unwrap();
        refused(&output, 64, &["no terminal", "--passphrase-file"]);
    });
}

#[test]
fn an_expired_invite_is_of_no_use_on_either_side() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let (server, host) = (&scene.server, scene.address.to_string());
        let line = server.enrol("bob", "ssh", &host, &["--invite-expires", "24h"]);
        let invite = Invite::parse(&line).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let expires = invite.expires.unwrap();
        assert!((now + 86_300..=now + 86_400).contains(&expires), "{expires}");
        let carol = Client::new(&scene.topology.client, "carol");
        let late = Invite { expires: Some(now - 7_300), ..invite };
        let output = carol.call_with(&["import", "--name", "bastion"], late.encode().as_bytes());
        refused(&output, 65, &["expired 2 h ago", "spa-server client rotate bob"]);
        for over in ["2020-01-01", "0s"] {
            let output = server.call(&["client", "rotate", "bob", "--invite-expires", over]);
            refused(&output, 64, &["is over", "24h"]);
        }
        // The server holds to it as well: bob was in time, and dave was not.
        let bob = Client::invited(&scene.topology.client, "bob", &line);
        bob.must(&["open", "ssh", "--wait"]);
        let line = server.enrol("dave", "ssh", &host, &["--invite-expires", "24h"]);
        let dave = Client::invited(&scene.topology.client, "dave", &line);
        for name in ["bob", "dave"] {
            let path = server.file(&format!("clients.d/{name}.toml"));
            let text = fs::read_to_string(&path).unwrap();
            let (before, after) = text.split_once("first-knock-by = \"").unwrap();
            let rest = after.split_once('"').unwrap().1;
            write_private(&path, format!("{before}first-knock-by = \"2020-01-01\"{rest}"));
        }
        server.must(&["reload"]);
        dave.open("ssh");
        spa_tests::probe::eventually("dave is refused", spa_tests::probe::PATIENCE, || {
            server.refused("expired-client") == 1
        });
        bob.must(&["open", "ssh", "--wait"]);
        let list = server.must(&["client", "list"]);
        assert!(list.lines().any(|line| line.starts_with("dave ") && line.contains("lapsed")), "{list}");
        assert!(list.lines().any(|line| line.starts_with("bob ") && line.contains("active")), "{list}");
        // The same keys in a new invite would bring the old one back to life.
        refused(&server.call(&["client", "invite", "dave"]), 64, &["was not used", "client rotate dave"]);
        server.must(&["client", "invite", "bob"]);
        let enabled = server.call(&["client", "enable", "dave"]);
        assert!(said(&enabled).contains("enabled dave"));
        dave.must(&["open", "ssh", "--wait"]);
    });
}

#[test]
fn what_was_in_time_counts_after_a_restart() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        scene.alice.must(&["open", "ssh", "--wait"]);
        let path = scene.server.file("clients.d/alice.toml");
        let text = fs::read_to_string(&path).unwrap();
        write_private(&path, format!("{text}first-knock-by = \"2020-01-01\"\n"));
        scene.server.process().kill();
        scene.server.start();
        scene.alice.must(&["open", "ssh", "--wait"]);
    });
}
