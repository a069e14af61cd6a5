//! With the firewalls that administrators have already, really installed and enabled: the port opens by a knock and
//! closes again, also across what they do when they are reloaded, disabled and enabled. docs/COEXISTENCE.md says how.

use std::time::Duration;

use spa_tests::documents::run_by;
use spa_tests::foreign::{self, Firewalld, Ufw};
use spa_tests::probe::{PATIENCE, Probe, connect, echoes, eventually};
use spa_tests::scene::Scene;
use spa_tests::services::{tcp_echo, udp_echo};
use spa_tests::{
    Family, Settings, Topology, Variant, for_each_variant_and_family, in_namespace, legacy_or_skip,
    machine_root_or_skip,
};

/// As docs/COEXISTENCE.md has it.
const MARK: &str = "0x10000000";

/// The block of the page that begins so, as it stands.
fn shown(beginning: &str) -> String {
    let steps = run_by("docs/COEXISTENCE.md", file!());
    let mut blocks = steps.into_iter().map(|step| step.text).filter(|text| text.starts_with(beginning));
    let block = blocks.next().unwrap_or_else(|| panic!("no block of the page begins with {beginning}"));
    assert!(blocks.next().is_none(), "two blocks of the page begin with {beginning}");
    block
}

/// iptables by the names that the page has: whichever variant they are here.
fn iptables(family: Family) -> String {
    if family == Family::V6 { "ip6tables" } else { "iptables" }.into()
}

/// What the page says for plain iptables: its line, and the same with ip6tables.
fn accept_the_mark(topology: &Topology) {
    let line = shown("iptables -I INPUT");
    topology.server.ns.sh(&line);
    topology.server.ns.sh(&line.replace("iptables", "ip6tables"));
}

/// Every block that the page leaves to this file is used here.
#[test]
fn every_block_of_the_page_is_run() {
    let used =
        ["iptables -I INPUT", "-A ufw-before-input", "-A ufw6-before-input", "meta mark", "firewall-cmd"];
    used.into_iter().for_each(|beginning| drop(shown(beginning)));
    assert_eq!(run_by("docs/COEXISTENCE.md", file!()).len(), used.len());
}
/// What somebody else breaks is whole again in so long, on a busy machine.
const REPAIRED: Duration = Duration::from_secs(5);

for_each_variant_and_family!(opens_what_a_policy_drops);

fn network() -> Topology {
    let topology = Topology::new();
    for port in [22, 80, 443, 81] {
        tcp_echo(&topology.server.ns, port);
    }
    udp_echo(&topology.server.ns, 53);
    topology
}

/// With iptables nothing is needed; with nftables the mark.
fn settings(variant: Variant) -> Settings {
    let firewall = if variant == Variant::Nftables { format!("mark = \"{MARK}\"\n") } else { String::new() };
    Settings { open_for: "60s", firewall, ..Settings::new(variant) }
}

/// Closed, open for the client alone, open across what `change` does, closed again by revocation and by time.
fn opens_and_closes(scene: &Scene, change: impl Fn(), what: &str) {
    let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
    let closed = [(client, 22), (client, 80), (stranger, 22), (stranger, 80)];
    assert_eq!(scene.looks(&closed), [Probe::Silent; 4], "before {what}");
    scene.alice.open("ssh");
    scene.wait_open(client, 22);
    assert_eq!(scene.looks(&closed[1..]), [Probe::Silent; 3], "granted, before {what}");
    change();
    eventually(format_args!("the grant stands after {what}"), REPAIRED, || {
        scene.look(client, 22) == Probe::Open
    });
    assert_eq!(scene.looks(&closed[1..]), [Probe::Silent; 3], "granted, after {what}");
    assert_eq!(scene.server.status()["state"], "ok", "after {what}");
    scene.server.must(&["revoke", "--all"]);
    eventually("it is revoked", PATIENCE, || scene.look(client, 22) == Probe::Silent);
    change();
    assert_eq!(scene.looks(&closed), [Probe::Silent; 4], "after a second {what}");
    scene.alice.must(&["open", "ssh", "--for", "2s"]);
    scene.wait_open(client, 22);
    scene.wait_closed(PATIENCE);
    assert_eq!(scene.looks(&closed), [Probe::Silent; 4], "after {what} and a grant's end");
}

/// A policy of drop, and no rule of the administrator's for connections that are established.
fn opens_what_a_policy_drops(variant: Variant, family: Family) {
    let topology = network();
    if variant == Variant::Nftables {
        foreign::drop_all(&topology.server.ns, iptables);
        accept_the_mark(&topology);
    } else {
        foreign::drop_all(&topology.server.ns, |family| variant.iptables(family));
    }
    let mut scene = Scene::on(topology, &settings(variant), family);
    let client = &scene.topology.client;
    assert_eq!(scene.look(client, 81), Probe::Silent, "what nobody protects is the policy's");
    scene.alice.must(&["open", "ssh", "--for", "2s"]);
    scene.wait_open(client, 22);
    let mut connection = connect(&client.ns, scene.address, 22).expect("it is open");
    scene.wait_closed(PATIENCE);
    assert!(echoes(&mut connection), "an established connection goes on");
    opens_and_closes(&scene, || {}, "nothing");
    assert_eq!(scene.look(&scene.topology.client, 81), Probe::Silent, "the mark opens nothing else");
    scene.server.process().stop();
}

/// With `protect = false` the ports are closed by the administrator's own rules, and what is granted passes them.
#[test]
fn the_mark_passes_the_rules_of_others() {
    in_namespace(|| {
        let topology = network();
        foreign::drop_all(&topology.server.ns, iptables);
        accept_the_mark(&topology);
        let firewall = format!("protect = false\nmark = \"{MARK}\"\n");
        let settings = Settings { firewall, ..settings(Variant::Nftables) };
        let mut scene = Scene::on(topology, &settings, Family::V4);
        opens_and_closes(&scene, || {}, "nothing");
        scene.server.process().stop();
    });
}

#[test]
fn the_mark_passes_native_rules() {
    in_namespace(|| {
        let topology = network();
        topology.server.ns.sh(&format!(
            "nft 'add table inet filter
                  add chain inet filter input {{ type filter hook input priority 0; policy drop; }}
                  add rule inet filter input iifname lo accept
                  add rule inet filter input meta l4proto {{ icmp, ipv6-icmp }} accept
                  add rule inet filter input {}'",
            shown("meta mark").trim()
        ));
        let mut scene = Scene::on(topology, &settings(Variant::Nftables), Family::V4);
        opens_and_closes(&scene, || {}, "nothing");
        assert_eq!(scene.look(&scene.topology.client, 81), Probe::Silent, "the mark opens nothing else");
        scene.server.process().stop();
    });
}

/// Without the mark a grant opens nothing here: `check` says so beforehand.
#[test]
fn without_a_mark_the_policy_wins_and_check_says_so() {
    in_namespace(|| {
        let topology = network();
        foreign::drop_all(&topology.server.ns, iptables);
        let mut scene = Scene::on(topology, &Settings::new(Variant::Nftables), Family::V4);
        scene.alice.open("ssh");
        scene.server.process().wait_log("grant client=alice", 0);
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
        let said = scene.server.must(&["check"]);
        assert!(said.contains("a grant cannot open what it drops") && said.contains("mark"), "{said}");
        scene.server.process().stop();
    });
}

fn with_ufw(variant: Variant) {
    if variant == Variant::Legacy {
        foreign::alternatives_are_legacy();
    }
    let topology = network();
    let ufw = Ufw::enable(&topology);
    if variant == Variant::Nftables {
        ufw.accept(&shown("-A ufw-before-input"), &shown("-A ufw6-before-input"));
    }
    let mut scene = Scene::on(topology, &settings(variant), Family::V4);
    assert_eq!(scene.look(&scene.topology.client, 81), Probe::Silent, "ufw closes it");
    ufw.run("allow 81/tcp");
    assert_eq!(scene.look(&scene.topology.client, 81), Probe::Open, "ufw opens it");
    for commands in [&["reload"][..], &["disable", "--force enable"]] {
        let change = || commands.iter().for_each(|command| drop(ufw.run(command)));
        opens_and_closes(&scene, change, &format!("ufw {}", commands.join(", ")));
    }
    // Without ufw ours alone close.
    ufw.run("disable");
    opens_and_closes(&scene, || {}, "ufw disable");
    assert_eq!(scene.look(&scene.topology.client, 81), Probe::Open, "nobody closes it");
    scene.server.process().stop();
}

#[test]
fn ufw_with_iptables_nft() {
    if machine_root_or_skip("ufw", "ufw_with_iptables_nft")
        && foreign::installed_or_skip("ufw", "ufw_with_iptables_nft")
    {
        in_namespace(|| with_ufw(Variant::Nft));
    }
}

#[test]
fn ufw_with_iptables_legacy() {
    if legacy_or_skip("ufw_with_iptables_legacy")
        && foreign::installed_or_skip("ufw", "ufw_with_iptables_legacy")
    {
        in_namespace(|| with_ufw(Variant::Legacy));
    }
}

#[test]
fn ufw_with_nftables() {
    if machine_root_or_skip("ufw", "ufw_with_nftables")
        && foreign::installed_or_skip("ufw", "ufw_with_nftables")
    {
        in_namespace(|| with_ufw(Variant::Nftables));
    }
}

/// The zone allows ssh, `inet spa` closes it. `auto` finds that by itself, and `check` refuses iptables.
#[test]
fn firewalld_with_nftables() {
    let test = "firewalld_with_nftables";
    if !machine_root_or_skip("firewalld", test) || !foreign::installed_or_skip("firewalld", test) {
        return;
    }
    in_namespace(|| {
        let topology = network();
        let firewalld = Firewalld::start(&topology);
        let ssh = || spa_tests::probe::tcp(&topology.stranger.ns, topology.server.address(Family::V4), 22);
        // Debian's zone allows it from the beginning.
        firewalld.run("--permanent --remove-service=ssh");
        firewalld.run("--reload");
        assert_eq!(ssh(), Probe::Refused, "the zone does not allow ssh");
        topology.server.ns.sh(&shown("firewall-cmd"));
        assert_eq!(ssh(), Probe::Open, "the zone allows ssh");
        let auto = Settings { firewall: "backend = \"auto\"\n".into(), ..settings(Variant::Nft) };
        let mut scene = Scene::on(topology, &auto, Family::V4);
        let status = scene.server.status();
        assert_eq!(status["firewall"], "nftables", "{status}");
        assert!(status["firewall-chosen"].to_string().contains("firewalld"), "{status}");
        for command in ["--reload", "--complete-reload"] {
            opens_and_closes_ssh(&scene, || drop(firewalld.run(command)), command);
        }
        scene.server.process().stop();
        scene.server.configure(&settings(Variant::Nft));
        let check = scene.server.call(&["check"]);
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(!check.status.success() && said.contains("firewalld runs"), "{said}");
    });
}

/// As [`opens_and_closes`], where web is not in the zone, and firewalld answers with a reject to what it does not know.
fn opens_and_closes_ssh(scene: &Scene, change: impl Fn(), what: &str) {
    opens_and_closes(scene, change, what);
    assert_eq!(scene.look(&scene.topology.client, 81), Probe::Refused, "the zone's own answer, after {what}");
}
