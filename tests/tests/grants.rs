//! What a knock opens: the asked ports, for the knocking source, for a time; and nothing else.

use std::time::Duration;

use spa_tests::probe::{self, PATIENCE, Probe, connect, echoes, eventually};
use spa_tests::scene::{CLOSES_WITHIN, Scene};
use spa_tests::services::tcp_echo;
use spa_tests::{
    Client, Family, Settings, Topology, Variant, for_each_iptables, for_each_variant,
    for_each_variant_and_family, in_namespace,
};

for_each_variant_and_family!(
    opens_for_one_source_and_port,
    opens_what_is_asked_for,
    connections_outlive_the_grant,
    connections_outlive_the_first_start,
    renewing_keeps_one_rule,
    caps_are_kept_and_told,
);
for_each_variant!(what_is_excepted_is_left_alone);
// With nftables a drop of the administrator's would win; tests/coexistence.rs has the way around.
for_each_iptables!(protect_false_only_grants);

fn opens_for_one_source_and_port(variant: Variant, family: Family) {
    const OPEN_FOR: Duration = Duration::from_secs(4);
    let settings = Settings { open_for: "4s", ..Settings::new(variant) };
    let scene = Scene::new(&settings, family);
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    let everywhere =
        [(client, 22), (client, 80), (client, 443), (stranger, 22), (stranger, 80), (stranger, 443)];
    assert_eq!(scene.looks(&everywhere), [Probe::Silent; 6], "before any knock");
    scene.alice.open("ssh");
    scene.wait_open(client, 22);
    assert_eq!(scene.server.grant_rules(family).len(), 1, "{}", scene.server.rules(family));
    assert_eq!(scene.looks(&everywhere[1..]), [Probe::Silent; 5], "while port 22 is open for the client");
    assert_eq!(probe::udp(&client.ns, scene.address, 53), Probe::Silent);
    assert_eq!(scene.look(client, 22), Probe::Open, "the grant was live through all of that");
    scene.wait_closed(OPEN_FOR + CLOSES_WITHIN);
    eventually("the rule goes too", PATIENCE, || scene.server.grant_rules(family).is_empty());
    assert_eq!(scene.looks(&everywhere), [Probe::Silent; 6], "after the expiry");
}

fn opens_what_is_asked_for(variant: Variant, family: Family) {
    let scene = Scene::new(&Settings { open_for: "10s", ..Settings::new(variant) }, family);
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    scene.alice.must(&["open", "web", "dns"]);
    for port in [80, 443] {
        scene.wait_open(client, port);
    }
    eventually("udp/53 opens", PATIENCE, || probe::udp(&client.ns, scene.address, 53) == Probe::Open);
    assert_eq!(scene.looks(&[(client, 22), (stranger, 80), (stranger, 443)]), [Probe::Silent; 3]);
    assert_eq!(probe::udp(&stranger.ns, scene.address, 53), Probe::Silent);
    assert_eq!(scene.server.grants().len(), 3);
}

fn connections_outlive_the_grant(variant: Variant, family: Family) {
    let scene = Scene::new(&Settings::new(variant), family);
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    let mut connection = connect(&scene.topology.client.ns, scene.address, 22).expect("it is open");
    scene.wait_closed(PATIENCE);
    assert!(echoes(&mut connection), "a connection from the time of the grant goes on");
}

/// Conntrack knows nothing of a connection from before its first rule.
fn connections_outlive_the_first_start(variant: Variant, family: Family) {
    let topology = Topology::new();
    tcp_echo(&topology.server.ns, 22);
    let mut connection =
        connect(&topology.client.ns, topology.server.address(family), 22).expect("nothing is closed yet");
    let scene = Scene::on(topology, &Settings::new(variant), family);
    assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
    assert!(echoes(&mut connection), "an idle connection from before the first start goes on");
}

fn renewing_keeps_one_rule(variant: Variant, family: Family) {
    let scene = Scene::new(&Settings { open_for: "10s", ..Settings::new(variant) }, family);
    for _ in 0..5 {
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
    }
    eventually("one rule for one grant", PATIENCE, || scene.server.grant_rules(family).len() == 1);
    assert_eq!(scene.server.grants().len(), 1);
}

/// A client's cap and everybody's: each refuses by its own name, renewals go on, and a place that is free is given.
fn caps_are_kept_and_told(variant: Variant, family: Family) {
    let limits = "max-grants = 3\n".to_owned();
    let settings = Settings { open_for: "60s", limits, ..Settings::new(variant) };
    let mut scene = Scene::new(&settings, family);
    let address = scene.address.to_string();
    let (client, stranger) = (scene.topology.client.clone(), scene.topology.stranger.clone());
    let bob = Client::invited(&stranger, "bob", &scene.server.enrol("bob", "ssh,web", &address, &[]));
    let policy = scene.server.file("clients.d/bob.toml");
    let text = std::fs::read_to_string(&policy).expect("just enrolled");
    spa_tests::write_private(&policy, format!("max-grants = 1\n{text}"));
    scene.server.must(&["reload"]);
    bob.open("ssh");
    scene.wait_open(&stranger, 22);
    bob.call(&["open", "web"]);
    eventually("the client's cap holds", PATIENCE, || scene.server.refused("too-many-grants") == 1);
    assert!(scene.server.log().contains("too-many-grants"), "{}", scene.server.log());
    assert_eq!(scene.look(&stranger, 80), Probe::Silent);
    scene.alice.open("web");
    scene.wait_open(&client, 80);
    scene.alice.call(&["open", "ssh"]);
    eventually("everybody's cap holds", PATIENCE, || scene.server.refused("full") == 1);
    assert_eq!(scene.look(&client, 22), Probe::Silent);
    assert_eq!(scene.server.grants().len(), 3);
    scene.alice.open("web");
    eventually("a renewal is granted", PATIENCE, || scene.server.status()["granted"] == 3);
    // What is shown: each grant with its client, source, endpoint, time and counts.
    let table = scene.server.must(&["grants"]);
    assert!(table.lines().next().is_some_and(|head| head.contains("PACKETS") && head.contains("SECONDS")));
    let line = table.lines().find(|line| line.starts_with("bob")).expect("bob's grant");
    assert!(line.contains(&stranger.address(family).to_string()) && line.contains("tcp/22"), "{table}");
    let counted =
        |grant: &serde_json::Value| grant["packets"].as_u64() > Some(0) && grant["bytes"].as_u64() > Some(0);
    let grants = scene.server.grants();
    let bobs = grants.iter().find(|grant| grant["client"] == "bob").expect("bob's grant");
    assert!(
        counted(bobs) && bobs["remaining"].as_u64().is_some_and(|left| (1..=60).contains(&left)),
        "{bobs}"
    );
    scene.server.must(&["revoke", "bob"]);
    scene.alice.open("ssh");
    scene.wait_open(&client, 22);
    scene.server.process().stop();
}

fn what_is_excepted_is_left_alone(variant: Variant) {
    let firewall = "except = [\"192.0.2.66/32\", \"2001:db8::66/128\"]\n".to_owned();
    let scene = Scene::new(&Settings { firewall, ..Settings::new(variant) }, Family::V4);
    for family in Family::BOTH {
        let address = scene.topology.server.address(family);
        let look = |from: &spa_tests::ns::Namespace, to| probe::tcp(from, to, 22);
        assert_eq!(look(&scene.topology.stranger.ns, address), Probe::Open, "excepted network, {family}");
        assert_eq!(look(&scene.topology.client.ns, address), Probe::Silent, "everybody else, {family}");
        let server = &scene.topology.server.ns;
        assert_eq!(look(server, address), Probe::Open, "the host to its own address, {family}");
        let loopback = if family == Family::V4 { "127.0.0.1" } else { "::1" };
        assert_eq!(look(server, loopback.parse().expect("an address")), Probe::Open, "loopback, {family}");
    }
}

/// With `protect = false` the ports are the administrator's; the SPA port is silent all the same.
fn protect_false_only_grants(variant: Variant) {
    let firewall = "protect = false\n".to_owned();
    let scene = Scene::new(&Settings { firewall, ..Settings::new(variant) }, Family::V4);
    let client = &scene.topology.client;
    assert_eq!(scene.look(client, 22), Probe::Open, "nothing of ours closes it");
    assert_eq!(probe::udp(&client.ns, scene.address, spa_tests::SPA_PORT), Probe::Silent);
    let iptables = scene.server.iptables(Family::V4);
    scene.server.ns().sh(&format!("{iptables} -A INPUT -p tcp --dport 22 -j DROP"));
    assert_eq!(scene.look(client, 22), Probe::Silent, "the administrator's own rule closes it");
    scene.alice.open("ssh");
    scene.wait_open(client, 22);
}

/// A client that names another address is refused unless its policy allows that.
#[test]
fn a_named_address_wants_the_policy() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings { open_for: "10s", ..Settings::new(Variant::Nft) }, Family::V4);
        let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
        let named = stranger.address(Family::V4).to_string();
        scene.alice.call(&["open", "ssh", "--source", &named]);
        eventually("it is refused", PATIENCE, || scene.server.refused("explicit") == 1);
        assert_eq!(scene.looks(&[(client, 22), (stranger, 22)]), [Probe::Silent; 2]);
        let invite = scene.server.enrol("bob", "ssh", &scene.address.to_string(), &["--allow-explicit"]);
        scene.server.must(&["reload"]);
        let bob = Client::invited(client, "bob", &invite);
        bob.must(&["open", "ssh", "--source", &named]);
        scene.wait_open(stranger, 22);
        assert_eq!(scene.look(client, 22), Probe::Silent, "the knocking machine is not what was named");
        scene.server.process().stop();
    });
}
