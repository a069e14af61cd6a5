//! `spa-server doctor` calls a healthy set-up healthy, and finds each planted fault by its name, with its remedy.

mod around;

use serde_json::Value;
use spa_tests::scene::Scene;
use spa_tests::services::{tcp_echo, udp_echo};
use spa_tests::{
    Family, SPA_PORT, Server, Settings, Topology, Variant, for_each_iptables, for_each_variant, in_namespace,
    legacy_or_skip, sh,
};

for_each_variant!(a_healthy_machine_is_healthy, a_rule_that_a_grant_cannot_pass);
// With nftables an accept of another table ends nothing of ours.
for_each_iptables!(an_accept_ahead_of_ours);

/// As systemd-timesyncd leaves it on a machine whose clock is right. The kernel's own clock is not namespaced.
fn clock_is_right() {
    sh("mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized");
}

fn healthy(settings: &Settings) -> Scene {
    clock_is_right();
    Scene::new(settings, Family::V4)
}

fn scene(variant: Variant) -> Scene {
    healthy(&Settings::new(variant))
}

/// Changes the configuration.
fn edit(server: &Server, from: &str, to: &str) {
    let text = std::fs::read_to_string(server.config()).expect("it is there");
    assert!(text.contains(from), "{text}");
    std::fs::write(server.config(), text.replacen(from, to, 1)).expect("it is written");
}

/// The exit code and what `doctor --json` printed.
fn doctor(server: &Server) -> (i32, Value) {
    doctor_with(server, &[])
}

/// The same, with further options.
fn doctor_with(server: &Server, options: &[&str]) -> (i32, Value) {
    let output = server.call(&[&["doctor", "--json"], options].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    let json =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("doctor --json: {error}\n{text}{said}"));
    (output.status.code().expect("it ends by itself"), json)
}

fn names(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().map(|finding| finding["name"].as_str().expect("a name")).collect()
}

/// Finds it, says where if something is to be said, and what to do; and exits with that severity.
fn finds(server: &Server, name: &str, severity: &str, place: &str) -> Value {
    let (code, report) = doctor(server);
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name} is not found: {report:#}"));
    assert_eq!(found["severity"], severity, "{found:#}");
    assert!(found["where"].as_str().unwrap_or_default().contains(place), "{place}: {found:#}");
    assert!(found["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{found:#}");
    let has = |severity| findings.iter().any(|finding| finding["severity"] == severity);
    let expected = if has("error") { 2 } else { i32::from(has("warning")) };
    assert_eq!((code, &report["healthy"]), (expected, &Value::Bool(expected == 0)), "{report:#}");
    report
}

fn assert_healthy(server: &Server) -> Value {
    let (code, report) = doctor(server);
    assert_eq!((code, &report["healthy"]), (0, &Value::Bool(true)), "{report:#}");
    for port in report["ports"].as_array().expect("a list") {
        assert_eq!(port["stranger"]["state"], "closed, listening", "{port:#}");
        assert_eq!(port["granted"]["state"], "open, listening", "{port:#}");
    }
    report
}

fn a_healthy_machine_is_healthy(variant: Variant) {
    let scene = scene(variant);
    let report = assert_healthy(&scene.server);
    // Four ports, two families.
    assert_eq!(report["ports"].as_array().map(Vec::len), Some(8), "{report:#}");
    assert_eq!(names(&report), ["stands-out"], "the policy of a fresh namespace is accept");
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    assert_healthy(&scene.server);
    let text = scene.server.must(&["doctor"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "it fits a terminal\n{text}");
    assert!(text.contains("closed, listening") && text.trim_end().ends_with("healthy"), "{text}");
}

#[test]
fn a_healthy_machine_with_nftables_is_healthy() {
    in_namespace(|| {
        let firewall = "backend = \"nftables\"\n".into();
        let scene = healthy(&Settings { firewall, ..Settings::new(Variant::Nft) });
        assert_healthy(&scene.server);
    });
}

#[test]
fn a_policy_of_drop_hides_the_whole_host() {
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        scene.server.ns().sh("for f in iptables-nft ip6tables-nft; do $f -A INPUT -i lo -j ACCEPT
             $f -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; $f -P INPUT DROP; done");
        let report = assert_healthy(&scene.server);
        assert_eq!(names(&report), [""; 0]);
    });
}

fn an_accept_ahead_of_ours(variant: Variant) {
    let mut scene = scene(variant);
    scene.server.process().kill(); // else it puts its jump back to the front
    let iptables = scene.server.iptables(Family::V4);
    // For somebody else than the stranger of the table.
    scene.server.ns().sh(&format!("{iptables} -I INPUT -s 198.51.100.0/24 -p tcp --dport 20:25 -j ACCEPT"));
    finds(&scene.server, "accept-ahead", "error", "-s 198.51.100.0/24 -p tcp -m tcp --dport 20:25 -j ACCEPT");
    scene.server.ns().sh(&format!("{iptables} -R INPUT 1 -p tcp -j ACCEPT"));
    let report = finds(&scene.server, "accept-ahead", "error", "-p tcp -j ACCEPT");
    let ssh = report["ports"].as_array().into_iter().flatten();
    let mut ssh = ssh.filter(|port| port["endpoint"] == "tcp/22" && port["family"] == "IPv4");
    assert!(ssh.all(|port| port["stranger"]["state"] == "open, listening"), "{report:#}");
}

fn a_rule_that_a_grant_cannot_pass(variant: Variant) {
    let scene = scene(variant);
    let iptables = scene.server.iptables(Family::V4);
    scene
        .server
        .ns()
        .sh(&format!("{iptables} -t mangle -A INPUT -p tcp -m multiport --dports 80,443 -j DROP"));
    let report = finds(&scene.server, "grant-void", "error", "--dports 80,443 -j DROP");
    let closed = report["ports"].as_array().into_iter().flatten();
    assert_eq!(
        closed.filter(|port| port["granted"]["state"] == "closed, listening").count(),
        2,
        "{report:#}"
    );
}

/// Plants faults one after the other on one healthy machine: each is found, and undone.
fn planted(scene: &Scene, faults: &[(&str, &str, &str, &str, &str)]) {
    for (plant, name, severity, place, undo) in faults {
        println!("{name}: {plant}");
        scene.server.ns().sh(plant);
        finds(&scene.server, name, severity, place);
        scene.server.ns().sh(undo);
    }
    assert_healthy(&scene.server);
}

#[test]
fn rules_of_others_are_found() {
    in_namespace(|| {
        planted(
            &scene(Variant::Nft),
            &[
                (
                    "iptables-nft -t nat -N DOCKER; iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
                     iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80",
                    "docker-published",
                    "error",
                    "172.17.0.2:80",
                    "iptables-nft -t nat -F; iptables-nft -t nat -X",
                ),
                (
                    "iptables-nft -t nat -A PREROUTING -p tcp --dport 22 -j REDIRECT --to-ports 2222",
                    "redirected",
                    "error",
                    "--to-ports 2222",
                    "iptables-nft -t nat -F",
                ),
                (
                    "nft add table inet strict; nft 'add chain inet strict in { type filter hook input priority 5; }'
                     nft add rule inet strict in tcp dport 22 ct state new drop",
                    "grant-void",
                    "error",
                    "tcp dport 22 ct state new drop (table inet strict, chain in)",
                    "nft delete table inet strict",
                ),
                (
                    "nft add table inet odd; nft 'add chain inet odd in { type filter hook input priority 5; }'
                     nft add rule inet odd in tcp dport 22 limit rate 5/minute drop",
                    "not-known",
                    "warning",
                    "limit rate 5/minute",
                    "nft delete table inet odd",
                ),
                (
                    "iptables-nft -A OUTPUT -p tcp --sport 22 -j DROP",
                    "answers-blocked",
                    "error",
                    "--sport 22 -j DROP",
                    "iptables-nft -F OUTPUT",
                ),
                (
                    "iptables-nft -t mangle -A INPUT -p tcp -m conntrack --ctstate ESTABLISHED -j DROP",
                    "established-blocked",
                    "error",
                    "--ctstate ESTABLISHED -j DROP",
                    "iptables-nft -t mangle -F",
                ),
                (
                    "iptables-nft -t raw -A PREROUTING -p tcp --dport 22 -j CT --notrack",
                    "not-tracked",
                    "error",
                    "",
                    "iptables-nft -t raw -F",
                ),
                (
                    "nft add table inet eager; nft 'add chain inet eager in { type filter hook input priority -200; }'
                     nft add rule inet eager in tcp dport 443 reject",
                    "answers-strangers",
                    "warning",
                    "tcp dport 443 reject",
                    "nft delete table inet eager",
                ),
                (
                    "nft add table inet eager; nft 'add chain inet eager in { type filter hook input priority -200; }'
                     nft add rule inet eager in meta l4proto udp reject",
                    "knock-port-answers",
                    "error",
                    "meta l4proto udp reject",
                    "nft delete table inet eager",
                ),
                (
                    "iptables-nft -N ufw-user-input; iptables-nft -A INPUT -j ufw-user-input",
                    "ufw",
                    "note",
                    "",
                    "iptables-nft -D INPUT -j ufw-user-input; iptables-nft -X ufw-user-input",
                ),
                (
                    "nft add table inet firewalld",
                    "firewalld",
                    "error",
                    "",
                    "nft delete table inet firewalld",
                ),
            ],
        );
    });
}

#[test]
fn the_other_variant_is_found() {
    if !legacy_or_skip("the_other_variant_is_found") {
        return;
    }
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        let legacy = |line: &str| scene.server.ns().sh(line);
        legacy("iptables-legacy -A INPUT -p tcp --dport 22 -j DROP");
        finds(&scene.server, "other-variant-blocks", "error", "table iptables-legacy filter");
        finds(&scene.server, "two-variants", "warning", "");
        legacy("iptables-legacy -F; iptables-legacy -N SPA; iptables-legacy -A INPUT -j SPA");
        finds(&scene.server, "left-behind", "error", "iptables-legacy");
        legacy("iptables-legacy -F; iptables-legacy -X SPA");
        assert_healthy(&scene.server);
    });
}

#[test]
fn what_is_wrong_with_the_machine_is_found() {
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        sh("rm /run/systemd/timesync/synchronized");
        finds(&scene.server, "clock", "warning", "");
        clock_is_right();
        let bound =
            scene.server.ns().enter(|| std::net::UdpSocket::bind(("0.0.0.0", SPA_PORT)).expect("it is free"));
        finds(&scene.server, "knock-port-bound", "error", "0.0.0.0:62201");
        drop(bound);
        assert_healthy(&scene.server);
    });
}

#[test]
fn interfaces_and_routes_are_looked_at() {
    in_namespace(|| {
        let mut scene = scene(Variant::Nft);
        scene.server.process().stop();
        let ns = scene.server.ns().clone();
        ns.sh("ip link add cap0 type veth peer name cap1 && ip link set cap1 up && ip addr add 198.51.100.1/24 dev cap0");
        edit(&scene.server, "[server]\n", "[server]\ninterfaces = [\"cap0\", \"gone0\"]\n");
        finds(&scene.server, "interface-missing", "error", "gone0");
        finds(&scene.server, "interface-down", "error", "cap0");
        ns.sh("ip link set cap0 up && ip route add default via 192.0.2.66 dev eth0");
        ns.sh("sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.cap0.rp_filter=1");
        let (_, report) = doctor(&scene.server);
        assert!(names(&report).contains(&"reverse-path"), "{report:#}");
        assert!(names(&report).contains(&"daemon"), "it does not run: {report:#}");
        ns.sh("sysctl -q -w net.ipv4.conf.all.rp_filter=2");
        assert!(!names(&doctor(&scene.server).1).contains(&"reverse-path"));
    });
}

#[test]
fn what_does_not_stand_is_found() {
    in_namespace(|| {
        let mut scene = scene(Variant::Nft);
        scene.server.process().kill();
        let report = finds(&scene.server, "daemon", "error", "");
        assert_eq!(
            report["ports"][0]["stranger"]["state"], "closed, listening",
            "protection outlives it: {report:#}"
        );
        scene.server.ns().sh("iptables-nft -D INPUT -j SPA");
        finds(&scene.server, "jump-missing", "error", "");
        scene.server.must(&["unprotect"]);
        let report = finds(&scene.server, "not-protected", "error", "");
        assert!(report["ports"][0]["granted"].is_null(), "{report:#}");
        scene.server.must(&["protect"]);
        edit(
            &scene.server,
            "iptables = \"nft\"",
            "iptables = \"nft\"\nexcept = [\"0.0.0.0/1\", \"128.0.0.0/1\"]",
        );
        finds(&scene.server, "except-too-wide", "warning", "server.toml");
    });
}

#[test]
fn ports_without_a_listener_are_told_apart() {
    in_namespace(|| {
        clock_is_right();
        let topology = Topology::new();
        tcp_echo(&topology.server.ns, 22);
        udp_echo(&topology.server.ns, 53);
        let inside =
            topology.server.ns.enter(|| std::net::TcpListener::bind("127.0.0.1:80").expect("it is free"));
        let scene = Scene::on(topology, &Settings::new(Variant::Nft), Family::V4);
        let report = finds(&scene.server, "no-listener", "warning", "");
        assert!(names(&report).contains(&"listens-elsewhere"), "port 80 is for loopback alone: {report:#}");
        let states: Vec<_> =
            report["ports"].as_array().into_iter().flatten().map(|port| &port["granted"]["state"]).collect();
        assert!(states.iter().any(|state| *state == "open, no listener"), "{report:#}");
        drop(inside);
    });
}
