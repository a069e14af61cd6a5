//! What is said where something goes wrong: what, where, and what to try, for this configuration and this daemon.

use std::fs::{self, File};
use std::process::Output;

use spa_tests::scene::Scene;
use spa_tests::{
    Family, Server, Settings, Terminal, Topology, Variant, in_namespace, succeeded, write_private,
};

use super::{refused, said};

/// A command whose standard output is a disk that is full.
fn onto_full_disk(server: &Server, arguments: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    server.command(arguments).stdout(full).output().unwrap()
}

#[test]
fn an_invite_that_cannot_be_written_enrols_nobody() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let server = &scene.server;
        let (host, file) = (scene.address.to_string(), server.file("clients.d/bob.toml"));
        let add = ["client", "add", "bob", "--allow", "ssh", "--host", &host];
        refused(&onto_full_disk(server, &add), 74, &["No space", "was not enrolled", "run it again"]);
        assert!(!file.exists() && !server.file("clients.d/bob.psk").exists());
        server.must(&add);
        // The old keys are gone then: that is said, and held to.
        let output = onto_full_disk(server, &["client", "rotate", "alice"]);
        refused(&output, 74, &["new keys that nobody has seen", "client rotate alice again", "has reloaded"]);
        scene.alice.open("ssh");
        let invite = server.must(&["client", "rotate", "alice"]);
        succeeded("import", &scene.alice.call_with(&["import", "--update"], invite.as_bytes()));
        scene.alice.must(&["open", "ssh", "--wait"]);
        refused(&onto_full_disk(server, &["client", "invite", "alice"]), 74, &["client invite alice again"]);
        scene.alice.must(&["open", "web", "--wait"]);
        for arguments in [&["grants"][..], &["status"], &["client", "list"], &["check"], &["man"]] {
            assert_eq!(onto_full_disk(server, arguments).status.code(), Some(74), "{arguments:?}");
        }
    });
}

#[test]
fn clients_that_are_not_let_in_are_no_surprise() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let (server, host) = (&scene.server, scene.address.to_string());
        let add = ["client", "add", "bob", "--allow", "ssh", "--host", &host];
        for date in ["2001-01-31", "2024-12-31T12:00:00Z"] {
            let output = server.call(&[&add[..], &["--valid-until", date]].concat());
            refused(&output, 64, &["--valid-until", "is over", "to come"]);
        }
        assert!(!server.file("clients.d/bob.toml").exists());
        server.must(&add);
        server.must(&["client", "disable", "bob"]);
        for command in ["rotate", "invite"] {
            let output = server.call(&["client", command, "bob"]);
            succeeded(command, &output);
            let said = said(&output);
            let enable = format!("spa-server --config {} client enable bob", server.config().display());
            assert!(said.contains("bob is disabled") && said.contains(&enable), "{command}: {said}");
        }
        // One broken client does not hide the others.
        let psk = fs::read_dir(server.file("clients.d")).unwrap().flatten().map(|entry| entry.path());
        let psk = psk.into_iter().find(|path| path.to_string_lossy().contains("bob.psk")).unwrap();
        fs::remove_file(&psk).unwrap();
        for arguments in [&["client", "list"][..], &["client", "list", "--json"]] {
            let output = server.call(arguments);
            assert_eq!(output.status.code(), Some(66), "{output:?}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("alice"), "{output:?}");
            assert!(said(&output).contains(&psk.display().to_string()), "{output:?}");
        }
    });
}

#[test]
fn a_remedy_is_for_this_configuration_and_this_daemon() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let config = scene.server.config().display().to_string();
        let pid = scene.server.process().pid();
        let server = &scene.server;
        // It is not systemd's: systemctl would stop nothing.
        let kill = format!("kill {pid}");
        let unprotect = format!("spa-server --config {config} unprotect");
        for (arguments, words) in [
            (&["unprotect"][..], &[&*kill, &unprotect][..]),
            (&["recover"], &[&kill, "another spa-server runs"]),
            (&["run"], &[&kill, "another spa-server runs"]),
        ] {
            let output = server.call(arguments);
            refused(&output, 69, words);
            assert!(!said(&output).contains("systemctl"), "{}", said(&output));
        }
        // Which key it was.
        let mark = "mark = \"0x1\"\n".to_owned();
        server.configure(&Settings { firewall: mark, ..Settings::new(Variant::Nftables) });
        let output = server.call(&["reload"]);
        refused(
            &output,
            78,
            &[&config, "firewall.backend", "firewall.mark", "at a restart; nothing was reloaded"],
        );
        server.configure(&Settings::new(Variant::Nft));
        // Whoever makes a new key shuts out those who are enrolled.
        let key = server.file("server.key");
        fs::rename(&key, server.file("lost")).unwrap();
        let keygen = format!("spa-server --config {config} keygen");
        for arguments in [&["check"][..], &["client", "invite", "alice"]] {
            let output = server.call(arguments);
            assert_eq!(output.status.code(), Some(66), "{output:?}");
            let all = said(&output) + &String::from_utf8_lossy(&output.stdout);
            for word in ["backup", "shuts out", "1 client", &keygen] {
                assert!(all.contains(word), "{arguments:?}: no {word} in: {all}");
            }
        }
        fs::rename(server.file("lost"), &key).unwrap();
        let good = server.must(&["check"]);
        assert!(good.contains("good (3 services, 1 client)"), "{good}");
        let help = server.must(&["--help"]);
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for code in [64, 65, 66, 69, 70, 71, 73, 74, 75, 77, 78] {
            assert!(help.contains(&format!(" {code} ")), "no exit code {code} in: {help}");
        }
        scene.server.process().stop();
    });
}

/// A daemon keeps the state directory that it was started with; whoever edits the file must not believe that none runs.
#[test]
fn a_state_dir_that_was_edited_is_told() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let pid = scene.server.process().pid();
        let server = &scene.server;
        scene.alice.must(&["open", "ssh", "--wait"]);
        let good = fs::read_to_string(server.config()).unwrap();
        let old = server.file("state").display().to_string();
        assert!(good.contains(&old), "{good}");
        write_private(&server.config(), good.replace(&old, &server.file("elsewhere").display().to_string()));
        let kill = format!("kill {pid}");
        let words = [
            "elsewhere/control.sock",
            "a daemon runs",
            "started with another state-dir",
            &kill,
            "set server.state-dir back",
        ];
        for command in [&["status"][..], &["grants"], &["revoke", "--all"], &["reload"], &["confirm"]] {
            refused(&server.call(command), 69, &words);
        }
        let doctor = String::from_utf8_lossy(&server.call(&["doctor"]).stdout).into_owned();
        assert!(
            doctor.split_whitespace().collect::<Vec<_>>().join(" ").contains("another state-dir"),
            "{doctor}"
        );
        refused(
            &server.call(&["client", "disable", "alice"]),
            69,
            &["until then alice is let in", "another state-dir"],
        );
        write_private(&server.config(), &good);
        server.must(&["client", "disable", "alice"]);
        assert!(server.grants().is_empty());
        scene.server.process().stop();
    });
}

#[test]
fn a_code_that_does_not_fit_is_not_drawn() {
    in_namespace(|| {
        let topology = Topology::new();
        let server = Server::new(&topology, &Settings::new(Variant::Nft));
        let add = server.command(&["client", "add", "bob", "--allow", "ssh", "--host", "192.0.2.1", "--qr"]);
        let mut terminal = Terminal::start(&add, 40, 60);
        terminal.expect("this terminal has 40; nothing was changed");
        assert_eq!(terminal.wait().code(), Some(64));
        let screen = terminal.screen();
        assert!(
            !screen.contains(['\u{2580}', '\u{2584}', '\u{2588}']) && screen.contains("wider"),
            "{screen}"
        );
        assert!(!server.file("clients.d/bob.toml").exists());
    });
}
