//! Flaws of earlier software that no other test shows to be absent; see docs/PAST-FLAWS.md.

use std::process::Command;
use std::time::{Duration, Instant};

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::{CLOSES_WITHIN, Scene};
use spa_tests::services::tcp_echo;
use spa_tests::sniff::{Sniffer, protocol};
use spa_tests::{
    Client, Family, Settings, Variant, WORK, for_each_variant, in_namespace, legacy_or_skip, sh, skip,
};

for_each_variant!(short_grants_end_among_many);

/// fwknop's listing buffer: with more rules than fit 4 KiB the short ones outlived their time by 25 s.
fn short_grants_end_among_many(variant: Variant) {
    const LONG: u16 = 60;
    const OPEN_FOR: Duration = Duration::from_secs(3);
    let mut services = Settings::new(variant).services;
    for number in 0..LONG {
        services += &format!("s{number} = \"tcp/{}\"\n", 9_000 + number);
    }
    let scene = Scene::new(&Settings { open_for: "3s", services, ..Settings::new(variant) }, Family::V4);
    let names: Vec<String> = (0..LONG).map(|number| format!("s{number}")).collect();
    let invite = scene.server.enrol("bob", &names.join(","), &scene.address.to_string(), &[]);
    scene.server.must(&["reload"]);
    let bob = Client::invited(&scene.topology.client, "bob", &invite);
    for group in names.chunks(8) {
        let words: Vec<&str> = group.iter().map(String::as_str).collect();
        bob.must(&[&["open", "--for", "120s"][..], &words].concat());
    }
    eventually("all are open", PATIENCE, || scene.server.grants().len() == usize::from(LONG));
    let listing = scene.server.rules(Family::V4).len();
    assert!(listing > 4_096, "{listing} bytes of rules");
    for _ in 0..3 {
        scene.alice.open("ssh");
        let opened = Instant::now();
        scene.wait_open(&scene.topology.client, 22);
        scene.wait_closed((OPEN_FOR + CLOSES_WITHIN).saturating_sub(opened.elapsed()));
        eventually("its rule goes too", PATIENCE, || {
            scene.server.grant_rules(Family::V4).len() == usize::from(LONG)
        });
    }
}

/// fwknop's duplicate OPEN_PORTS entries: here what is said twice in a list is said once.
#[test]
fn duplicates_in_lists_change_nothing() {
    in_namespace(|| {
        let services = "ssh = [\"tcp/22\", \"tcp/22\"]\nweb = [\"tcp/80\", \"tcp/443\", \"tcp/80\"]\n\
                        shell = \"tcp/22\"\ndns = \"udp/53\"\n";
        let firewall = "except = [\"198.51.100.0/24\", \"198.51.100.0/24\", \"198.51.100.7\"]\n".to_owned();
        let settings =
            Settings { open_for: "20s", services: services.into(), firewall, ..Settings::new(Variant::Nft) };
        let scene = Scene::new(&settings, Family::V4);
        let file = scene.server.file("clients.d/alice.toml");
        let text = std::fs::read_to_string(&file).expect("it is there");
        let doubled = text.replace("allow = [", "allow = [\"web\", \"ssh\", \"ssh\", ");
        assert_ne!(doubled, text);
        std::fs::write(&file, doubled).expect("written");
        scene.server.must(&["check"]);
        scene.server.must(&["reload"]);
        let count = |what: &str| scene.server.rules(Family::V4).matches(what).count();
        assert_eq!((count("--dport 22 -j DROP"), count("--dport 80 -j DROP")), (1, 1));
        assert_eq!(count("-s 198.51.100.0/24 -j RETURN"), 1, "{}", scene.server.rules(Family::V4));
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        assert_eq!(scene.server.grants().len(), 1, "one endpoint, one grant");
        assert_eq!(scene.server.grant_rules(Family::V4).len(), 1);
        let client = &scene.topology.client;
        assert_eq!(scene.looks(&[(client, 80), (&scene.topology.stranger, 22)]), [Probe::Silent; 2]);
        scene.server.must(&["revoke", "alice"]);
        assert_eq!(scene.look(client, 22), Probe::Silent);
    });
}

/// fwknop's external commands: a program that hangs holds knocks up until it is killed, and no longer; and nothing is
/// lost that was granted meanwhile.
#[test]
fn knocks_are_taken_up_again_after_a_program_hung() {
    if !legacy_or_skip("knocks_are_taken_up_again_after_a_program_hung") {
        return; // another program in the place of iptables wants the machine's root as well
    }
    in_namespace(|| {
        const KILLED_AFTER: Duration = Duration::from_secs(10);
        let wrapper = format!("{WORK}/wrapper");
        std::fs::create_dir_all(WORK).expect("a directory on the tmpfs");
        std::fs::write(
            &wrapper,
            format!(
                "#!/bin/sh\n[ ! -e {WORK}/hang ] || exec /bin/sleep 600\n\
                 exec {WORK}/real \"${{0##*/}}\" \"$@\"\n"
            ),
        )
        .expect("written");
        sh(&format!(
            "cp /usr/sbin/xtables-nft-multi {WORK}/real && chmod 755 {wrapper} && chmod go-w {WORK} \
             && mount --bind {wrapper} /usr/sbin/xtables-nft-multi"
        ));
        let settings = Settings { open_for: "60s", ..Settings::new(Variant::Nft) };
        let mut scene = Scene::new(&settings, Family::V4);
        let client = scene.topology.client.clone();
        std::fs::write(format!("{WORK}/hang"), "").expect("written");
        scene.alice.open("ssh");
        let began = Instant::now();
        // More knocks come while it hangs.
        scene.alice.open("web");
        // Perhaps after one that looked at the firewall just then.
        eventually("it is killed, and that is said", KILLED_AFTER * 4, || {
            scene.server.log().contains("was killed")
        });
        println!("a hanging iptables held knocks up for {:?}", began.elapsed());
        // An order waits for the attempt that runs, and makes no second one.
        let began = Instant::now();
        let revoked = scene.server.call(&["revoke", "--source", "192.0.2.99"]);
        assert!(began.elapsed() < KILLED_AFTER * 3 / 2, "revoke took {:?}: {revoked:?}", began.elapsed());
        std::fs::remove_file(format!("{WORK}/hang")).expect("it is there");
        // Both, without another knock. (What writes was running before and may have opened them already; what hung then is
        // the reading back.)
        for port in [22, 80] {
            eventually(format_args!("port {port} opens"), KILLED_AFTER * 4, || {
                scene.look(&client, port) == Probe::Open
            });
        }
        eventually("all is well", PATIENCE, || scene.server.status()["state"] == "ok");
        scene.server.process().stop();
    });
}

/// spale's filter let pass what was dressed up. A SYN that is fragmented, or carries options or extension headers, is
/// dropped at a protected port as a plain one is; the same to a port that nobody protects is answered.
#[test]
fn dressed_up_packets_are_dropped_too() {
    in_namespace(|| {
        if Command::new("python3").arg("--version").output().is_err() {
            return skip("dressed_up_packets_are_dropped_too", "python3 is not installed");
        }
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let stranger = &scene.topology.stranger;
        tcp_echo(&scene.topology.server.ns, 8080);
        let script = format!("{WORK}/dress.py");
        std::fs::write(&script, DRESS).expect("written");
        let sniffer = Sniffer::start(&stranger.ns);
        let link = scene.server.ns().sh("ip -o link show eth0");
        let mac = link
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .expect("a MAC")
            .to_owned();
        // An answer is a SYN-ACK or a reset from the port.
        let answers = |port: u16, family: Family| {
            let server = scene.topology.server.address(family);
            let from = |packet: &&spa_tests::sniff::Packet| {
                packet.source == server && packet.protocol == protocol::TCP && packet.source_port() == port
            };
            sniffer.packets().iter().filter(from).count()
        };
        for family in Family::BOTH {
            let (own, server) = (stranger.address(family), scene.topology.server.address(family));
            // Neighbours are known before, so that answers can be sent.
            let _ = spa_tests::probe::tcp(&stranger.ns, server, 81);
            let send = |port: u16| {
                let mut python = stranger.ns.command("python3");
                python.args([&script, &mac, &own.to_string(), &server.to_string(), &port.to_string()]);
                spa_tests::succeeded("dress.py", &python.output().expect("nsenter runs"))
            };
            let sent = send(22).lines().count();
            assert!(sent >= 3, "{sent} kinds");
            let kinds = send(8080);
            eventually(
                format_args!("{family}: each kind is answered where nothing protects:\n{kinds}"),
                PATIENCE,
                || answers(8080, family) >= sent,
            );
            assert_eq!(answers(22, family), 0, "{family}: none is answered by the protected port");
        }
        assert!(scene.server.grants().is_empty());
    });
}

/// Sends one SYN of each kind, from a port of its own, and prints the kinds.
const DRESS: &str = r#"
import ipaddress, socket, struct, sys
mac, own, server, port = sys.argv[1:]
port = int(port)
source, target = ipaddress.ip_address(own), ipaddress.ip_address(server)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("eth0", 0))
ours = wire.getsockname()[4]
theirs = bytes.fromhex(mac.replace(":", ""))

def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff

def syn(number):
    segment = struct.pack("!HHIIBBHHH", 40000 + number, port, 1000, 0, 5 << 4, 2, 8192, 0, 0) + b"x" * 12
    if target.version == 4:
        pseudo = source.packed + target.packed + struct.pack("!BBH", 0, 6, len(segment))
    else:
        pseudo = source.packed + target.packed + struct.pack("!IHBB", len(segment), 0, 0, 6)
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]

# A first fragment holds all headers, or an IPv6 host refuses it by itself (RFC 7112).

def send(kind, packet):
    kind = struct.pack("!H", kind)
    wire.send(theirs + ours + kind + packet)

def v4(body, identity, fragment=0, options=b""):
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, words * 4 + len(body), identity, fragment, 64, 6, 0)
    head += source.packed + target.packed + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body

def v6(following, body):
    return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + source.packed + target.packed + body

if target.version == 4:
    send(0x0800, v4(syn(1), 1)); print("plain")
    send(0x0800, v4(syn(2), 2, options=b"\x01\x01\x01\x00")); print("options")
    segment = syn(3)
    send(0x0800, v4(segment[:8], 3, fragment=0x2000))
    send(0x0800, v4(segment[8:], 3, fragment=1)); print("fragments")
    segment = syn(4)
    send(0x0800, v4(segment[16:], 4, fragment=2))
    send(0x0800, v4(segment[:16], 4, fragment=0x2000)); print("fragments in the wrong order")
else:
    padding = lambda following: struct.pack("!BBBB4s", following, 0, 1, 4, b"\0" * 4)
    send(0x86dd, v6(6, syn(1))); print("plain")
    send(0x86dd, v6(60, padding(6) + syn(2))); print("destination options")
    send(0x86dd, v6(0, padding(60) + padding(6) + syn(3))); print("hop-by-hop and destination options")
    segment = syn(4)
    part = lambda offset, more, number: struct.pack("!BBHI", 6, 0, offset | more, number)
    send(0x86dd, v6(44, part(0, 1, 4) + segment[:24]))
    send(0x86dd, v6(44, part(24, 0, 4) + segment[24:])); print("fragments")
    send(0x86dd, v6(44, part(0, 0, 5) + syn(5))); print("an atomic fragment")
"#;

/// sparoid's file in /tmp: ours need no directory that everybody can write. With all of them read-only everything works.
#[test]
fn nothing_is_written_where_everybody_can_write() {
    in_namespace(|| {
        let open = ["/tmp", "/var/tmp", "/dev/shm"];
        // The binaries and the checkout may be below; what is there stays readable.
        for directory in open {
            sh(&format!("mount --bind {directory} {directory} && mount -o remount,ro,bind {directory}"));
        }
        assert!(std::fs::write("/tmp/spa-test-ro", "").is_err(), "it is read-only");
        let mut scene = Scene::new(&Settings { open_for: "20s", ..Settings::new(Variant::Nft) }, Family::V4);
        let client = scene.topology.client.clone();
        scene.alice.must(&["open", "ssh", "--wait"]);
        assert_eq!(scene.look(&client, 22), Probe::Open);
        let address = scene.address.to_string();
        assert_eq!(scene.alice.call_with(&["connect", &address, "22"], b"echo\n").stdout, b"echo\n");
        scene.alice.must(&["exec", "web", "--", "true"]);
        let invite = scene.server.enrol("bob", "web", &address, &[]);
        Client::invited(&client, "bob", &invite);
        scene.server.must(&["client", "remove", "bob"]);
        scene.server.must(&["reload"]);
        scene.server.must(&["revoke", "--all", "--cut"]);
        scene.server.process().kill();
        for command in [&["recover"][..], &["protect"], &["check"]] {
            scene.server.must(command);
        }
        scene.server.start();
        scene.server.process().stop();
        scene.server.must(&["unprotect"]);
        for directory in open {
            sh(&format!("umount -l {directory}")); // what says that the test ran goes there
        }
    });
}
