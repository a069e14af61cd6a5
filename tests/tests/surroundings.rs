//! What the machine around us has or lacks: other firewalls, missing programs, chains of our name, a backend that was
//! changed. Each is said, with what to do, before anything is closed or opened by mistake.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use spa_tests::probe::{PATIENCE, Probe, eventually, tcp};
use spa_tests::scene::Scene;
use spa_tests::services::tcp_echo;
use spa_tests::{Family, Server, Settings, Topology, Variant, binary, for_each_iptables, in_namespace, sh};

for_each_iptables!(
    a_chain_of_others_is_not_taken_over,
    unprotect_goes_on_with_the_other_family,
    another_backend_takes_over_without_a_gap,
);

fn fresh(variant: Variant) -> (Topology, Server) {
    let topology = Topology::new();
    tcp_echo(&topology.server.ns, 22);
    let server = Server::new(&topology, &Settings::new(variant));
    (topology, server)
}

/// `spa-server check`: its exit code, and all that it says.
fn check(server: &Server) -> (Option<i32>, String) {
    let output = server.call(&["check"]);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Chains as firewalld 1.3 makes them; it says of itself in no other way that a namespace would show.
#[test]
fn check_refuses_iptables_beside_firewalld() {
    in_namespace(|| {
        let (_topology, mut server) = fresh(Variant::Nft);
        assert_eq!(check(&server).0, Some(0), "{}", check(&server).1);
        server.ns().sh("nft -f - <<'END'
table inet firewalld {
  chain filter_IN_public { reject with icmpx type admin-prohibited
  }
  chain filter_INPUT { type filter hook input priority 10; policy accept;
    ct state { established, related } accept
    iifname \"lo\" accept
    goto filter_IN_public
  }
}
END");
        let (code, said) = check(&server);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("firewalld runs") && said.contains("backend = \"nftables\""), "{said}");
        // The daemon goes on, since it is no less closed, and says the same.
        server.start();
        assert!(server.log().contains("firewalld runs"), "{}", server.log());
        server.process().stop();
        // With the other backend it is a matter of the zone's services.
        let firewall = "backend = \"nftables\"\n".to_owned();
        server.configure(&Settings { firewall, ..Settings::new(Variant::Nft) });
        let (code, said) = check(&server);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("warning: firewalld runs") && said.contains("--add-service"), "{said}");
    });
}

#[test]
fn check_finds_what_makes_protection_void() {
    in_namespace(|| {
        let (_topology, mut server) = fresh(Variant::Nft);
        // As Docker publishes a port.
        server.ns().sh(
            "iptables-nft -t nat -N DOCKER
             iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
             iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80",
        );
        let (code, said) = check(&server);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("tcp/80") && said.contains("published Docker port"), "{said}");
        server.ns().sh("iptables-nft -t nat -F");
        // Between two runs somebody puts an accept first.
        server.start();
        server.process().stop();
        server.ns().sh("iptables-nft -I INPUT 1 -p tcp --dport 22 -j ACCEPT");
        let (code, said) = check(&server);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("--dport 22 -j ACCEPT\" stands ahead of ours"), "{said}");
        // The other firewalls of the machine: a warning.
        server.ns().sh(
            "iptables-nft -D INPUT 1
             nft add table inet strict && nft add chain inet strict in '{ type filter hook input priority 0; policy drop; }'",
        );
        let (code, said) = check(&server);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("warning: the nft chain in in table inet strict"), "{said}");
    });
}

#[test]
fn check_shows_every_broken_client_and_wide_exceptions() {
    in_namespace(|| {
        let (_topology, server) = fresh(Variant::Nft);
        for name in ["alice", "bob", "carol"] {
            server.enrol(name, "ssh", "192.0.2.1", &[]);
        }
        std::fs::remove_file(server.file("clients.d/alice.psk")).expect("it is there");
        spa_tests::write_private(&server.file("clients.d/carol.toml"), "name = \"carol\"\nallow = 7\n");
        let (code, said) = check(&server);
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains("alice.psk") && said.contains("carol.toml:2:9"), "both are named: {said}");
        assert!(!said.contains("bob"), "{said}");
        for name in ["alice", "carol"] {
            let _ = std::fs::remove_file(server.file(&format!("clients.d/{name}.toml")));
        }
        for (except, warned) in [
            ("\"0.0.0.0/1\", \"128.0.0.0/1\"", Some("100 % of all IPv4")),
            ("\"0.0.0.0/1\", \"1.0.0.0/8\"", Some("50 % of all IPv4")),
            ("\"2000::/3\"", Some("12 % of all IPv6")),
            ("\"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fc00::/7\", \"fe80::/10\"", None),
        ] {
            let firewall = format!("except = [{except}]\n");
            server.configure(&Settings { firewall, ..Settings::new(Variant::Nft) });
            let (code, said) = check(&server);
            assert_eq!(code, Some(0), "{said}");
            let words = warned.unwrap_or("out of the protection");
            assert_eq!(said.contains(words), warned.is_some(), "{except}: {said}");
        }
    });
}

/// Without iptables there is nothing to start with: said with the package, and nothing is left half done.
#[test]
fn missing_programs_are_named_with_their_package() {
    in_namespace(|| {
        let (topology, server) = fresh(Variant::Nft);
        sh(
            "mkdir /run/empty && mount --bind /run/empty /usr/sbin && [ -L /sbin ] || mount --bind /run/empty /sbin",
        );
        for command in [&["run"][..], &["protect"], &["check"]] {
            let output = server.call(command);
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(69), "{command:?}: {said}");
            assert!(said.contains("is not installed") && said.contains("apt install iptables"), "{said}");
        }
        let output = server.call(&["doctor"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("error (firewall-unusable)") && said.contains("try: \"apt install iptables\""),
            "{said}"
        );
        assert_eq!(
            tcp(&topology.client.ns, topology.server.address(Family::V4), 22),
            Probe::Open,
            "nothing was changed"
        );
    });
}

fn a_chain_of_others_is_not_taken_over(variant: Variant) {
    let (topology, mut server) = fresh(variant);
    let iptables = server.iptables(Family::V4);
    server.ns().sh(&format!(
        "{iptables} -N SPA && {iptables} -A SPA -p tcp --dport 25 -j ACCEPT && {iptables} -A INPUT -j SPA"
    ));
    let before = server.rules(Family::V4);
    for command in ["run", "protect"] {
        let output = server.call(&[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{command}: {said}");
        assert!(said.contains("chain SPA has rules that spa-server did not lay"), "{said}");
        assert!(said.contains("iptables -E SPA OTHER"), "it says what to do: {said}");
        assert_eq!(server.rules(Family::V4), before, "{command}");
    }
    let output = server.call(&["unprotect"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("left as it is"));
    assert_eq!(server.rules(Family::V4), before);
    // Renamed as it says, both stand.
    server.ns().sh(&format!("{iptables} -E SPA OTHER"));
    server.start();
    let rules = server.rules(Family::V4);
    assert!(rules.contains("-A INPUT -j OTHER") && rules.contains("-A INPUT -j SPA"), "{rules}");
    assert_eq!(tcp(&topology.client.ns, topology.server.address(Family::V4), 22), Probe::Silent);
    // What was ours once is ours, whoever wrote over it.
    server.process().stop();
    server.ns().sh(&format!("{iptables} -F SPA && {iptables} -A SPA -p tcp --dport 25 -j ACCEPT"));
    server.start();
    assert_eq!(tcp(&topology.client.ns, topology.server.address(Family::V4), 22), Probe::Silent);
}

fn unprotect_goes_on_with_the_other_family(variant: Variant) {
    let (_topology, mut server) = fresh(variant);
    server.start();
    server.process().stop();
    let iptables = server.iptables(Family::V4);
    server.ns().sh(&format!("{iptables} -A FORWARD -i eth9 -j SPA"));
    let output = server.call(&["unprotect"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(71), "{said}");
    assert!(said.contains("IPv4: ") && said.contains("FORWARD -i eth9 -j SPA"), "{said}");
    let left = |server: &Server| Family::BOTH.map(|family| server.rules(family).contains("SPA"));
    assert_eq!(left(&server), [true, false], "the other family is not held up");
    let ip6tables = server.iptables(Family::V6);
    server.ns().sh(&format!(
        "{ip6tables} -N SPA; {ip6tables} -A SPA -i lo -j RETURN
        {ip6tables} -A SPA -p udp --dport 62201 -j DROP; {ip6tables} -A FORWARD -i eth9 -j SPA"
    ));
    let said = String::from_utf8_lossy(&server.call(&["unprotect"]).stderr).into_owned();
    assert!(said.contains("IPv4: ") && said.contains("; IPv6: "), "both are told: {said}");
    for program in [iptables, ip6tables] {
        server.ns().sh(&format!("{program} -F FORWARD"));
    }
    server.must(&["unprotect"]);
    assert_eq!(left(&server), [false; 2]);
}

/// From one backend to another and back: closed all the while, and nothing of the old one left.
fn another_backend_takes_over_without_a_gap(variant: Variant) {
    let settings = Settings { open_for: "20s", ..Settings::new(variant) };
    let mut scene = Scene::new(&settings, Family::V4);
    let (client, stranger, address) =
        (scene.topology.client.clone(), scene.topology.stranger.ns.clone(), scene.address);
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let watch = std::thread::spawn(move || {
        let to = std::net::SocketAddr::new(address, 22);
        let try_once = || std::net::TcpStream::connect_timeout(&to, Duration::from_millis(5)).is_ok();
        stranger.enter(|| {
            std::iter::repeat_with(try_once).take_while(|_| !is_done.load(Ordering::Relaxed)).any(|open| open)
        })
    });
    let table = |scene: &Scene| scene.server.ns().sh("nft list tables").contains("inet spa");
    for backend in ["nftables", "iptables"] {
        scene.server.process().stop();
        let firewall = format!("backend = \"{backend}\"\n");
        scene.server.configure(&Settings { firewall, ..settings.clone() });
        scene.server.start();
        assert!(
            scene.server.log().contains("from an earlier configuration are removed"),
            "{}",
            scene.server.log()
        );
        let stands = (table(&scene), Family::BOTH.map(|family| scene.server.rules(family).contains("SPA")));
        assert_eq!(stands, (backend == "nftables", [backend == "iptables"; 2]));
        scene.alice.open("ssh");
        scene.wait_open(&client, 22);
    }
    done.store(true, Ordering::Relaxed);
    assert!(!watch.join().expect("no panic"), "it was never open to the stranger");
    // `unprotect` removes what any of them left.
    scene.server.process().stop();
    let firewall = "backend = \"nftables\"\n".to_owned();
    scene.server.configure(&Settings { firewall, ..settings });
    scene.server.must(&["unprotect"]);
    assert!(!table(&scene) && !scene.server.rules(Family::V4).contains("SPA"));
}

/// A named interface that is deleted and made again is heard again, with no reload, from the first knock on.
#[test]
fn an_interface_made_again_is_heard_again() {
    in_namespace(|| {
        let server = "interfaces = [\"eth0\"]\n".to_owned();
        let settings = Settings { server, open_for: "20s", ..Settings::new(Variant::Nft) };
        let scene = Scene::new(&settings, Family::V4);
        let (client, address) = (&scene.topology.client, scene.address);
        scene.alice.open("ssh");
        scene.wait_open(client, 22);
        let index = || scene.server.ns().sh("ip -o link show eth0 | cut -d: -f1");
        for round in 0..3 {
            scene.server.must(&["revoke", "--all"]);
            let before = index();
            sh(&format!(
                "ip -n server link del eth0
                 ip -n server link add a{round} type veth peer name b{round} # takes the index that is free now
                 ip link add to-server type veth peer name eth0 netns server && ip link set to-server master wire up
                 ip -n server addr add {address}/24 dev eth0 && ip -n server link set eth0 up
                 ip -n client neigh flush dev eth0 && ip -n server neigh flush dev eth0"
            ));
            assert_ne!(index(), before, "it is another interface to the kernel");
            // The bridge takes a moment to forward to a new port.
            eventually("the wire is up", PATIENCE, || {
                let ping = format!("ping -c 1 -W 1 {address} >/dev/null 2>&1 && echo up || true");
                client.ns.sh(&ping).contains("up") || tcp(&client.ns, address, 81) == Probe::Refused
            });
            scene.alice.open("ssh");
            eventually(format_args!("the first knock counts, round {round}"), PATIENCE, || {
                scene.look(client, 22) == Probe::Open
            });
        }
    });
}

/// By its other name the program is the verifier, which is of no use to anybody but the daemon.
#[test]
fn the_verifier_started_by_hand_says_what_it_is() {
    let by_hand = |arguments: &[&str]| {
        let mut command = Command::new(binary("spa-server"));
        let output = command.arg0("spa-verifier").args(arguments).stdin(Stdio::null()).output();
        let output = output.expect("the program is built");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [&[][..], &["run"], &["256"]] {
        let (code, said) = by_hand(arguments);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("spa-server run"), "{said}");
    }
    // Without a link to a warden it ends, confined or not.
    let (code, said) = by_hand(&["1"]);
    assert!(code.is_some_and(|code| code != 0), "{code:?}: {said}");
    assert!(said.starts_with("verifier: "), "{said}");
}
