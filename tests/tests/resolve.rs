//! `source = "resolve"`: bound mode from behind a real NAT, with the address that a resolver outside sees.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use spa_tests::probe::{PATIENCE, eventually};
use spa_tests::{
    Client, Family, Server, Settings, Topology, Variant, WORK, in_namespace, sh, skip, succeeded,
};

/// What the world sees the client at: a global address, as [`spa_client::is_global`] has it.
const OUTSIDE: &str = "9.9.9.10";
/// An answer of DNS that is not the asker's own address.
type Lie = Arc<Mutex<Option<IpAddr>>>;

/// The client behind NAT, a server that wants bound knocks, and a DNS server that says who asks.
fn behind_nat() -> (Topology, Server, Client, Lie) {
    let topology = Topology::new();
    topology
        .client
        .ns
        .sh(&format!("iptables-nft -t nat -A POSTROUTING -o eth0 -j SNAT --to-source {OUTSIDE}"));
    let inside = topology.client.address(Family::V4);
    for host in [&topology.server, &topology.stranger] {
        host.ns.sh(&format!("ip route add {OUTSIDE} via {inside}"));
    }
    spa_tests::services::tcp_echo(&topology.server.ns, 22);
    let mut server = Server::new(&topology, &Settings::new(Variant::Nft));
    let address = topology.server.address(Family::V4).to_string();
    let invite = server.enrol("alice", "ssh", &address, &["--require-bound"]);
    let alice = Client::invited(&topology.client, "alice", &invite);
    server.start();
    let lie = Lie::default();
    dns(&topology, Arc::clone(&lie));
    (topology, server, alice, lie)
}

/// Answers every question with the address that it came from, in a record of the type asked for.
fn dns(topology: &Topology, lie: Lie) {
    let ns = &topology.stranger.ns;
    ns.sh("sysctl -q -w net.ipv4.ip_unprivileged_port_start=0");
    let socket = ns.enter(|| UdpSocket::bind("0.0.0.0:53").expect("the port is free"));
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let seen = lie.lock().expect("no panic while locked").unwrap_or(from.ip());
            let _ = socket.send_to(&answer(&buffer[..length], seen), from);
        }
    });
}

/// RFC 1035: the question again, and one answer that points to its name.
fn answer(query: &[u8], seen: IpAddr) -> Vec<u8> {
    let kind = query[query.len() - 3]; // the low byte of the type: 1 is A, 16 is TXT, 28 is AAAA
    let data = match (kind, seen) {
        (16, _) => {
            let text = seen.to_string();
            [&[text.len() as u8], text.as_bytes()].concat()
        }
        (_, IpAddr::V4(v4)) => v4.octets().to_vec(),
        (_, IpAddr::V6(v6)) => v6.octets().to_vec(),
    };
    let mut reply = query.to_vec();
    reply[2] |= 0x80; // a response
    reply[7] = 1; // with one answer
    reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, data.len() as u8]);
    reply.extend(data);
    reply
}

/// Puts source and resolver into alice's entry.
fn configure(alice: &Client, resolver: &str) {
    let text = fs::read_to_string(alice.config()).expect("alice's configuration");
    let kept = text.lines().filter(|line| !line.starts_with("source") && !line.starts_with("resolver"));
    let text = kept.collect::<Vec<_>>().join("\n");
    fs::write(alice.config(), format!("{text}\nsource = \"resolve\"\nresolver = \"{resolver}\"\n"))
        .expect("alice's configuration");
}

fn opens(server: &Server, alice: &Client) {
    server.call(&["revoke", "--all"]);
    let said = alice.must(&["open", "ssh", "--wait", "--json"]);
    assert!(said.contains(&format!("bound to {OUTSIDE}")) && said.contains("\"state\":\"open\""), "{said}");
}

#[test]
fn dns_tells_who_asks() {
    in_namespace(|| {
        let (topology, server, alice, lie) = behind_nat();
        let resolver = topology.stranger.address(Family::V4);
        let observed = alice.call(&["open", "ssh", "--wait=1s"]);
        assert_eq!(observed.status.code(), Some(75), "this server wants bound knocks");
        assert!(server.refused("bound-required") >= 1);

        configure(&alice, &format!("dns:my.test@{resolver}"));
        opens(&server, &alice);
        let check = alice.must(&["check"]);
        assert!(
            check.contains(&format!("bound: for {OUTSIDE}")) && check.contains("the resolver named it"),
            "{check}"
        );
        configure(&alice, &format!("dns-txt:o-o.my.test@{resolver}"));
        opens(&server, &alice);

        // Nothing is sent with an address that cannot be right, and nothing falls back by itself.
        let before = server.refused_in_all();
        for (wrong, said) in [("10.1.2.3", "is not a global address"), ("2600::1", "of the other family")] {
            *lie.lock().expect("no panic while locked") = Some(wrong.parse().expect("an address"));
            let output = alice.call(&["open", "ssh"]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(69), "{error}");
            assert!(error.contains(said) && error.contains("dns-txt:o-o.my.test@"), "{error}");
        }
        // One that can, and is not: bound to it, so refused.
        *lie.lock().expect("no panic while locked") = Some("9.9.9.11".parse().expect("an address"));
        alice.must(&["open", "ssh"]);
        eventually("the server refuses it", PATIENCE, || server.refused("bound-source") == 1);
        assert_eq!(server.refused_in_all(), before + 1);
        // Nobody at home.
        configure(&alice, &format!("dns:my.test@{}", topology.server.address(Family::V4)));
        let error = alice.call(&["open", "ssh"]);
        assert_eq!(error.status.code(), Some(69), "{error:?}");
        assert!(alice.call(&["open", "ssh", "--source", "observed"]).status.success(), "as said on the line");
    });
}

/// An HTTPS server that says who asks, with a certificate that curl is told to trust.
const HTTPS: &str = r#"
import http.server, ssl, sys
class Who(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.client_address[0] + "\n").encode() if self.path == "/ip" else b"x" * 100000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer((sys.argv[1], 443), Who)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening", flush=True)
server.serve_forever()
"#;

#[test]
fn https_tells_who_asks() {
    for program in ["curl", "openssl", "python3"] {
        if Command::new(program).arg("--version").output().is_err() {
            return skip("https_tells_who_asks", &format!("{program} is not installed"));
        }
    }
    in_namespace(|| {
        let (topology, server, alice, _) = behind_nat();
        let host = topology.stranger.address(Family::V4);
        let pem = Path::new(WORK).join("https.pem");
        sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=who \
             -addext subjectAltName=IP:{host} -keyout {0} -out {0}.crt 2>/dev/null && cat {0}.crt >>{0}",
            pem.display()
        ));
        let mut command = topology.stranger.ns.command("python3");
        let mut https =
            spa_tests::Process::start("https", command.args(["-c", HTTPS, &host.to_string()]).arg(&pem));
        https.wait_log("listening", 0);
        let trusting = |arguments: &[&str]| {
            let certificate = format!("{}.crt", pem.display());
            alice.command(arguments).env("CURL_CA_BUNDLE", certificate).output().expect("nsenter runs")
        };
        configure(&alice, &format!("https://{host}/ip"));
        let said = succeeded("open", &trusting(&["open", "ssh", "--wait", "--json"]));
        assert!(
            said.contains(&format!("bound to {OUTSIDE}")) && said.contains("\"state\":\"open\""),
            "{said}"
        );
        // Without trust, nothing; and not more is read than an address.
        let error = alice.call(&["open", "ssh"]);
        assert_eq!(error.status.code(), Some(69));
        assert!(String::from_utf8_lossy(&error.stderr).contains("certificate"), "{error:?}");
        configure(&alice, &format!("https://{host}/much"));
        let much = trusting(&["open", "ssh"]);
        assert_eq!(much.status.code(), Some(69), "{much:?}");
        assert_eq!(server.refused_in_all(), 0, "no knock was sent for nothing");
    });
}
