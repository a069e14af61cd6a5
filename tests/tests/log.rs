//! What the log says: one line for each thing that happened to a grant, none in answer to strangers; and start-up errors
//! that say what to do.

use spa_proto::{Action, Address, Invite, Knock, Randomness, Request, Requests, Sealer};
use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Client, Family, Settings, Variant, in_namespace};

/// An observed knock of an invite's client for a service, made with a clock so many seconds ahead.
fn knock_at(invite: &str, service: &str, ahead: i64) -> Vec<u8> {
    let invite = Invite::parse(invite.trim()).expect("spa-server made it");
    let secret = invite.secret.as_ref().expect("the server made the pair");
    let sealer = Sealer::new(secret, &invite.psk, &invite.cloaks[0], &invite.server).expect("honest keys");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let requests = Requests::new([Request::Service(service.parse().expect("a name"))]).expect("one");
    let knock = Knock {
        action: Action::Open { requests, seconds: 0 },
        address: Address::Observed,
        counter: (now.as_nanos() as u64).saturating_add_signed(ahead * 1_000_000_000),
    };
    let random = Randomness { nonce: rand::random(), ephemeral: rand::random(), size: rand::random() };
    sealer.seal(&knock, &random)
}

/// The lines since `from` that have all of these words.
fn lines(scene: &Scene, from: usize, words: &[&str]) -> usize {
    let log = scene.server.log().split_off(from);
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn one_line_for_each_thing_that_happens() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings { open_for: "4s", ..Settings::new(Variant::Nft) }, Family::V4);
        let client = scene.topology.client.clone();
        let of_alice = ["client=alice", "source=192.0.2.10", "endpoint=tcp/22"];
        let step = |scene: &mut Scene, what: &str, act: &dyn Fn(&Scene)| {
            let from = scene.server.log().len();
            act(scene);
            let words = [&of_alice[..], &[what]].concat();
            eventually(format_args!("the log has \"{what}\""), PATIENCE, || lines(scene, from, &words) > 0);
            assert_eq!(lines(scene, from, &of_alice), 1, "one line for one {what}");
        };
        step(&mut scene, " grant ", &|scene| scene.alice.open("ssh"));
        step(&mut scene, " renewal ", &|scene| scene.alice.open("ssh"));
        step(&mut scene, " expiry ", &|scene| scene.wait_closed(PATIENCE));
        step(&mut scene, " grant ", &|scene| scene.alice.open("ssh"));
        step(&mut scene, " close ", &|scene| drop(scene.alice.must(&["close"])));
        step(&mut scene, " grant ", &|scene| scene.alice.open("ssh"));
        step(&mut scene, " revocation ", &|scene| drop(scene.server.must(&["revoke", "alice"])));
        // An authenticated refusal: a line with its reason.
        let invite = scene.server.enrol("bob", "web", &scene.address.to_string(), &[]);
        scene.server.must(&["reload"]);
        let bob = Client::invited(&client, "bob", &invite);
        let from = scene.server.log().len();
        bob.open("tcp/22");
        eventually("the refusal has its line", PATIENCE, || {
            lines(&scene, from, &["client=\"bob\"", "source=192.0.2.10", "reason=not-allowed"]) == 1
        });
        assert_eq!(scene.look(&client, 22), Probe::Silent);
    });
}

#[test]
fn a_wrong_clock_is_one_line_with_the_skew_and_junk_is_none() {
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let from = scene.server.log().len();
        let socket = scene.socket(&scene.topology.client);
        for _ in 0..50 {
            socket.send(&knock_at(&scene.invite, "ssh", -300)).expect("sent");
        }
        eventually("all are refused", PATIENCE, || scene.server.refused("stale") == 50);
        let skew = |scene: &Scene| lines(scene, from, &["behind this server's clock", "source=192.0.2.10"]);
        eventually("the skew is said", PATIENCE, || skew(&scene) > 0);
        let log = scene.server.log().split_off(from);
        assert!(log.contains("skew_seconds=-300") || log.contains("skew_seconds=-301"), "{log}");
        assert_eq!(skew(&scene), 1, "at most one in ten seconds");
        // Strangers: counted, and no line at all within the first minute.
        let stranger = scene.socket(&scene.topology.stranger);
        for _ in 0..500 {
            stranger.send(&[0x77; 300]).expect("sent");
        }
        eventually("all are refused", PATIENCE, || scene.server.refused("tag") == 500);
        let log = scene.server.log().split_off(from);
        assert!(log.lines().count() <= 2 && !log.contains("192.0.2.66"), "{log}");
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
    });
}

/// Without a capability it says which, and leaves the firewall as it was.
#[test]
fn missing_capabilities_are_named() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        scene.server.process().stop();
        scene.server.must(&["unprotect"]);
        for (capability, name) in [("net_raw", "CAP_NET_RAW"), ("net_admin", "CAP_NET_ADMIN")] {
            let run = scene.server.command(&["run"]);
            let mut command = std::process::Command::new("nsenter");
            let arguments: Vec<_> = run.get_args().map(std::ffi::OsStr::to_owned).collect();
            command.arg(&arguments[0]).arg("setpriv");
            command.args([format!("--inh-caps=-{capability}"), format!("--bounding-set=-{capability}")]);
            let output = command.args(&arguments[1..]).output().expect("nsenter runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(77), "{said}");
            assert!(said.contains(name), "{said}");
            assert_eq!(scene.look(&scene.topology.client, 22), Probe::Open, "nothing was changed");
        }
    });
}

/// A host with both families in its name: each is knocked, from the address that it will be connected from.
#[test]
fn every_address_of_a_name_is_knocked() {
    in_namespace(|| {
        let scene = Scene::new(&Settings { open_for: "20s", ..Settings::new(Variant::Nft) }, Family::V4);
        let both = Family::BOTH.map(|family| scene.topology.server.address(family));
        let hosts = format!("127.0.0.1 localhost\n{} both.example\n{} both.example\n", both[0], both[1]);
        std::fs::write("/run/hosts", hosts).expect("written");
        spa_tests::sh("mount --bind /run/hosts /etc/hosts");
        let text = std::fs::read_to_string(scene.alice.config()).expect("it is there");
        let named = text.replace(&format!("\"{}\"", scene.address), "\"both.example\"");
        assert_ne!(named, text);
        std::fs::write(scene.alice.config(), named).expect("written");
        scene.alice.must(&["open", "ssh", "--wait"]);
        let client = &scene.topology.client;
        for address in both {
            eventually(format_args!("{address} is open"), PATIENCE, || {
                spa_tests::probe::tcp(&client.ns, address, 22) == Probe::Open
            });
            assert_eq!(spa_tests::probe::tcp(&scene.topology.stranger.ns, address, 22), Probe::Silent);
        }
        assert_eq!(scene.server.grants().len(), 2);
    });
}
