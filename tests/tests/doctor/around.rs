//! What is wrong around our rules: the real ufw and firewalld, iptables without an extension, a daemon in trouble; and the verdict
//! for one address.

use std::process::Command;

use serde_json::Value;
use spa_tests::foreign::{self, Firewalld, Ufw};
use spa_tests::probe::{PATIENCE, Probe, eventually, tcp};
use spa_tests::scene::Scene;
use spa_tests::services::{tcp_echo, udp_echo};
use spa_tests::{
    Client, Family, Server, Settings, Topology, Variant, for_each_variant, in_namespace,
    machine_root_or_skip, sh,
};

use super::{assert_healthy, clock_is_right, doctor_with, edit, finds, healthy, names, scene};

for_each_variant!(the_verdict_for_an_address);

fn the_verdict_for_an_address(variant: Variant) {
    let scene = healthy(&Settings { open_for: "60s", ..Settings::new(variant) });
    let about = |source: &str| doctor_with(&scene.server, &["--source", source]);
    let ssh = |report: &serde_json::Value, luck: &str| {
        let port = report["ports"].as_array().into_iter().flatten().find(|port| port["endpoint"] == "tcp/22");
        port.unwrap_or_else(|| panic!("no ssh: {report:#}"))[luck]["state"].clone()
    };
    let (code, report) = about("192.0.2.10");
    assert_eq!(
        (code, ssh(&report, "stranger"), ssh(&report, "granted")),
        (0, "closed, listening".into(), "open, listening".into()),
        "{report:#}"
    );
    assert!(
        report["ports"].as_array().into_iter().flatten().all(|port| port["source"] == "192.0.2.10"),
        "{report:#}"
    );
    scene.alice.open("ssh");
    scene.wait_open(&scene.topology.client, 22);
    let (code, report) = about("192.0.2.10");
    assert_eq!((code, ssh(&report, "stranger")), (0, "open, listening".into()), "{report:#}");
    assert!(names(&report).contains(&"source-granted"), "{report:#}");
    let (_, report) = about("::ffff:192.0.2.66");
    assert_eq!(ssh(&report, "stranger"), "closed, listening", "another has no grant: {report:#}");
    let own = scene.server.call(&["doctor", "--source", "192.0.2.1"]);
    let said = String::from_utf8_lossy(&own.stderr).into_owned();
    assert!(own.status.code() == Some(64) && said.contains("an address of this host"), "{said}");
    edit(&scene.server, "[firewall]\n", "[firewall]\nexcept = [\"192.0.2.66/32\"]\n");
    scene.server.must(&["reload"]);
    let (code, report) = about("192.0.2.66");
    assert!(code == 0 && names(&report).contains(&"source-excepted"), "{report:#}");
    assert_eq!(ssh(&report, "stranger"), "open, listening", "{report:#}");
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Open, "and so it is");
}

#[test]
fn ufw_in_the_way_is_found() {
    let test = "ufw_in_the_way_is_found";
    if !machine_root_or_skip("ufw", test) || !foreign::installed_or_skip("ufw", test) {
        return;
    }
    in_namespace(|| {
        // An accept of the table inet spa ends nothing for ufw.
        let scene = healthy(&Settings { open_for: "60s", ..Settings::new(Variant::Nftables) });
        let ufw = Ufw::enable(&scene.topology);
        scene.alice.open("ssh");
        let report = finds(&scene.server, "ufw-blocks", "error", "");
        assert!(names(&report).contains(&"ufw"), "{report:#}");
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent, "and so it is");
        for port in ["22/tcp", "80/tcp", "443/tcp", "53/udp"] {
            ufw.run(&format!("allow {port}"));
        }
        assert_healthy(&scene.server);
        scene.wait_open(&scene.topology.client, 22);
    });
}

#[test]
fn firewalld_in_the_way_is_found() {
    let test = "firewalld_in_the_way_is_found";
    if !machine_root_or_skip("firewalld", test) || !foreign::installed_or_skip("firewalld", test) {
        return;
    }
    in_namespace(|| {
        clock_is_right();
        let topology = Topology::new();
        [22, 80, 443].into_iter().for_each(|port| tcp_echo(&topology.server.ns, port));
        udp_echo(&topology.server.ns, 53);
        let firewalld = Firewalld::start(&topology);
        let scene = Scene::on(topology, &Settings::new(Variant::Nftables), Family::V4);
        // The zone allows ssh, and not web.
        finds(&scene.server, "firewalld-blocks", "error", "firewalld");
        firewalld.run("--add-service=http --add-service=https --add-service=dns");
        let report = assert_healthy(&scene.server);
        assert!(names(&report).contains(&"firewalld"), "{report:#}");
    });
}

#[test]
fn an_extension_that_is_missing_is_found() {
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        // As where iptables comes in parts and one was left out: its extensions are bound over by all but one.
        let bind =
            "from=$(dirname $(find /usr/lib -name libxt_time.so | head -1)) && cp -a $from /run/extensions
             rm /run/extensions/libxt_time.so && mount --bind /run/extensions $from && echo $from";
        let bound = sh(bind);
        let report = finds(&scene.server, "extension-missing", "error", "");
        assert!(report["findings"].to_string().contains("xt_time"), "{report:#}");
        sh(&format!("umount {bound}"));
        assert_healthy(&scene.server);
    });
}

#[test]
fn a_daemon_in_trouble_is_found() {
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        eventually("somebody fights for the first place until the daemon gives way", PATIENCE, || {
            scene.server.ns().sh("iptables-nft -w -I INPUT 1 -p tcp --dport 22 -j ACCEPT");
            std::thread::sleep(PATIENCE / 20);
            scene.server.status()["state"] == "degraded"
        });
        let report = finds(&scene.server, "degraded", "error", "");
        assert!(names(&report).contains(&"accept-ahead"), "{report:#}");
        // Which makes no client of a misspelt name.
        let output = scene.server.call(&["client", "remove", "alcie"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(66), "{said}");
        assert!(said.contains("there is no client alcie"), "{said}");
    });
}

#[test]
fn what_is_not_finished_is_found() {
    in_namespace(|| {
        clock_is_right();
        let topology = Topology::new();
        [22, 80, 443].into_iter().for_each(|port| tcp_echo(&topology.server.ns, port));
        let mut server = Server::new(&topology, &Settings::new(Variant::Nft));
        server.start_with(&["run", "--confirm", "60s"]);
        finds(&server, "no-clients", "note", "clients.d");
        finds(&server, "not-confirmed", "warning", "");
        let invite = server.enrol("alice", "ssh", "192.0.2.1", &[]);
        let alice = Client::invited(&topology.client, "alice", &invite);
        alice.open("ssh");
        eventually("a knock confirms", PATIENCE, || {
            !names(&doctor_with(&server, &[]).1).contains(&"not-confirmed")
        });
        assert_eq!(tcp(&topology.client.ns, topology.server.address(Family::V4), 22), Probe::Open);
        sh(&format!("chmod 644 {}", server.file("server.key").display()));
        finds(&server, "configuration", "error", "");
        sh(&format!("chmod 600 {}", server.file("server.key").display()));
        edit(&server, "ssh = \"tcp/22\"\nweb = [\"tcp/80\", \"tcp/443\"]\ndns = \"udp/53\"\n", "");
        finds(&server, "no-services", "warning", "server.toml");
        server.ns().sh("ip link set eth0 down");
        finds(&server, "no-way-in", "warning", "");
    });
}

#[test]
fn a_full_conntrack_is_found() {
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22); // by a connection that conntrack keeps for a while
        // The true limit is the whole machine's; another number is bound over it here.
        let limit = "/proc/sys/net/netfilter/nf_conntrack_max";
        scene.server.ns().sh(&format!("echo 1 >/run/limit && mount --bind /run/limit {limit}"));
        finds(&scene.server, "conntrack-full", "warning", "nf_conntrack_max");
        scene.server.ns().sh(&format!("umount {limit}"));
        assert_healthy(&scene.server);
    });
}

#[test]
fn rules_that_cannot_be_read_are_told() {
    in_namespace(|| {
        let scene = healthy(&Settings::new(Variant::Nftables));
        // What only iptables itself can put into words, and iptables fails.
        scene.server.ns().sh(
            "iptables-nft -A INPUT -p tcp --dport 22 -m time --timestart 00:00 --timestop 23:59 -j ACCEPT",
        );
        let program = sh("readlink -f $(PATH=$PATH:/usr/sbin command -v iptables-nft-save)");
        sh(&format!("mount --bind /bin/false {}", program.trim()));
        let report = finds(&scene.server, "unread", "warning", "");
        assert!(report["findings"].to_string().contains("iptables-nft-save"), "{report:#}");
        sh(&format!("umount {}", program.trim()));
        assert!(!names(&doctor_with(&scene.server, &[]).1).contains(&"unread"));
    });
}

/// As where the kernel was booted with `ipv6.disable=1`, by what is there to see of that: the directory of the process is
/// covered before the process becomes doctor.
#[test]
fn a_kernel_without_ipv6_is_told() {
    in_namespace(|| {
        let scene = scene(Variant::Nft);
        let without = "mkdir /run/net && cp /proc/net/ip_tables_names /run/net 2>/dev/null
            mount --bind /run/net /proc/$$/net && exec \"$@\"";
        let doctor = scene.server.command(&["doctor", "--json"]);
        let output = Command::new("unshare")
            .args(["-m", "--propagation=private", "sh", "-c", without, "sh"])
            .arg(doctor.get_program())
            .args(doctor.get_args())
            .output()
            .expect("unshare runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert!(names(&report).contains(&"ipv6-off"), "{report:#}");
        assert_eq!(output.status.code(), Some(0), "a note alone: {report:#}");
    });
}
