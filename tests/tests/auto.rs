//! `backend = "auto"`: each branch of the choice on a host of its kind, and that a host stays with what was chosen.
//! With firewalld itself: tests/coexistence.rs.

use spa_tests::nft::Ruleset;
use spa_tests::probe::Probe;
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Topology, Variant, in_namespace, services, sh};

fn settings() -> Settings {
    let firewall = "backend = \"auto\"\n".into();
    Settings { firewall, open_for: "60s", ..Settings::new(Variant::Nft) }
}

/// A network whose machine starts no firewalld at boot, whatever this machine does.
fn network() -> Topology {
    sh("mount -t tmpfs tmpfs /etc/systemd/system");
    let topology = Topology::new();
    for port in [22, 80, 443] {
        services::tcp_echo(&topology.server.ns, port);
    }
    topology
}

/// Starts the daemon, looks which driver it took and what it says, and that the driver works.
fn chooses(topology: Topology, settings: &Settings, driver: &str, why: &str) -> Scene {
    let scene = Scene::on(topology, settings, Family::V4);
    is_chosen(&scene, driver, why);
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    scene
}

fn is_chosen(scene: &Scene, driver: &str, why: &str) {
    let status = scene.server.status();
    assert!(status["firewall"].as_str().is_some_and(|name| name.starts_with(driver)), "{status}");
    assert!(status["firewall-chosen"].as_str().is_some_and(|text| text.contains(why)), "{why}: {status}");
    let log = scene.server.log();
    assert!(log.contains(&format!("backend auto: {driver}")), "{log}");
    let check = String::from_utf8_lossy(&scene.server.call(&["check"]).stdout).into_owned();
    assert!(check.contains(&format!("backend \"auto\": {driver}, because")), "{check}");
    assert_eq!(Ruleset::read(scene.server.ns()).has_table(), driver == "nftables");
}

#[test]
fn iptables_is_the_default() {
    in_namespace(|| {
        chooses(network(), &settings(), "iptables", "default").server.process().stop();
    });
}

#[test]
fn iptables_where_its_rules_filter() {
    in_namespace(|| {
        let topology = network();
        // Both filter: what iptables drops nft could not open without a mark.
        topology.server.ns.sh("iptables-nft -A INPUT -p tcp --dport 22 -j DROP
             nft 'add table inet f2b; add chain inet f2b input { type filter hook input priority -1; }'");
        chooses(topology, &settings(), "iptables", "INPUT").server.process().stop();
    });
}

#[test]
fn nftables_where_native_rules_filter() {
    in_namespace(|| {
        let topology = network();
        topology.server.ns.sh(
            "nft 'add table inet filter; add chain inet filter input { type filter hook input priority 0; }'",
        );
        chooses(topology, &settings(), "nftables", "inet filter input").server.process().stop();
    });
}

#[test]
fn nftables_where_iptables_cannot_read() {
    in_namespace(|| {
        let topology = network();
        // What iptables has no words for, in its own table.
        topology.server.ns.sh(
            "iptables-nft -A INPUT -s 203.0.113.9 -j DROP && nft insert rule ip filter INPUT ct state established accept",
        );
        chooses(topology, &settings(), "nftables", "iptables cannot be used").server.process().stop();
    });
}

#[test]
fn nftables_where_iptables_is_not_installed() {
    in_namespace(|| {
        let topology = network();
        sh("echo >/run/nothing && mount --bind /run/nothing \"$(readlink -f /usr/sbin/iptables-nft-save)\"");
        chooses(topology, &settings(), "nftables", "not installed").server.process().stop();
    });
}

#[test]
fn nftables_for_a_mark() {
    in_namespace(|| {
        let firewall = "backend = \"auto\"\nmark = \"0x10000000\"\n".into();
        let settings = Settings { firewall, ..settings() };
        chooses(network(), &settings, "nftables", "mark").server.process().stop();
    });
}

#[test]
fn nftables_where_firewalld_will_start() {
    in_namespace(|| {
        let topology = network();
        sh(
            "ln -s /lib/systemd/system/firewalld.service /etc/systemd/system/dbus-org.fedoraproject.FirewallD1.service",
        );
        chooses(topology, &settings(), "nftables", "firewalld").server.process().stop();
    });
}

/// What changes around it later moves nothing: not while it stands, and not when a reboot has taken all rules.
#[test]
fn a_choice_is_kept() {
    in_namespace(|| {
        let scene = &mut chooses(network(), &settings(), "iptables", "default");
        let ns = scene.server.ns().clone();
        ns.sh(
            "nft 'add table inet filter; add chain inet filter input { type filter hook input priority 0; }'",
        );
        scene.server.must(&["reload"]);
        scene.server.process().kill();
        scene.server.start();
        is_chosen(scene, "iptables", "stands already");
        assert_eq!(scene.server.grants().len(), 1, "adopted");
        // As after a reboot: no rules of ours, and others were first.
        scene.server.process().kill();
        ns.sh("for program in iptables-nft ip6tables-nft; do
                   $program -D INPUT -j SPA && $program -F SPA && $program -X SPA || exit 1
               done");
        scene.server.start();
        is_chosen(scene, "iptables", "chosen before");
        // Taken back by hand, it is chosen anew, and kept as well.
        scene.server.process().stop();
        scene.server.must(&["unprotect"]);
        let said = scene.server.call(&["protect"]);
        assert!(String::from_utf8_lossy(&said.stderr).contains("nftables"), "{said:?}");
        scene.server.start();
        is_chosen(scene, "nftables", "stands already");
        scene.server.process().stop();
        ns.sh("nft delete table inet filter; nft delete table inet spa");
        scene.server.start();
        is_chosen(scene, "nftables", "chosen before");
        scene.server.process().stop();
    });
}
