//! How long it takes from a knock to an open port, and what a connection through spa-client costs. Figures are
//! printed; what is asserted is a ratio within the run, since absolutes drift.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use spa_tests::scene::Scene;
use spa_tests::services::tcp_echo;
use spa_tests::sniff::Sniffer;
use spa_tests::{Family, SPA_PORT, Settings, Variant, for_each_variant};

for_each_variant!(knock_to_open, connect_costs);

/// Within the burst of one client's budget.
const KNOCKS: u16 = 12;
/// fwknopd's five execs of iptables and its polling are a hundred times one exec (DESIGN, section 1).
const MOST_EXECS: u32 = 20;

fn knock_to_open(variant: Variant) {
    let mut services = Settings::new(variant).services;
    for number in 0..KNOCKS {
        services += &format!("s{number} = \"tcp/{}\"\n", 9_000 + number);
    }
    let mut scene = Scene::new(&Settings { open_for: "60s", services, ..Settings::new(variant) }, Family::V4);
    let names: Vec<String> = (0..KNOCKS).map(|number| format!("s{number}")).collect();
    let invite = scene.server.enrol("bob", &names.join(","), &scene.address.to_string(), &[]);
    scene.server.must(&["reload"]);
    let bob = spa_tests::Client::invited(&scene.topology.client, "bob", &invite);
    let exec = median((0..5).map(|_| exec_iptables(&scene)).collect());
    let (mut opened, mut commands) = (Vec::new(), Vec::new());
    for number in 0..KNOCKS {
        tcp_echo(&scene.topology.server.ns, 9_000 + number);
        let (knock, command) = knock(&scene, &bob, number);
        opened.push(knock);
        commands.push(command);
    }
    let most = opened.iter().max().copied().unwrap_or_default();
    let (opened, command) = (median(opened), median(commands));
    println!("{variant:?}: knock to open port: median {opened:?}, most {most:?}");
    println!("{variant:?}: the command spa-client open: median {command:?}; one exec of iptables: {exec:?}");
    assert!(opened <= exec * MOST_EXECS, "{opened:?} to open, {exec:?} for one exec of iptables");
    scene.server.process().stop();
}

/// What `spa-client connect` adds to a connection where the round trip takes no time: all of it, to the first echo.
fn connect_costs(variant: Variant) {
    const ROUNDS: usize = 7;
    let mut scene = Scene::new(&Settings { open_for: "60s", ..Settings::new(variant) }, Family::V4);
    let address = scene.address.to_string();
    let (mut starts, mut closed, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        starts.push(time(|| drop(scene.alice.must(&["--version"]))));
        for times in [&mut closed, &mut open] {
            times.push(time(|| {
                let output = scene.alice.call_with(&["connect", &address, "22"], b"echo\n");
                assert_eq!(output.stdout, b"echo\n", "{}", String::from_utf8_lossy(&output.stderr));
            }));
        }
        scene.server.must(&["revoke", "--all"]);
    }
    let (start, closed, open) = (median(starts), median(closed), median(open));
    println!(
        "{variant:?}: spa-client connect to the first echo: median {closed:?}, {open:?} where it is open already"
    );
    println!("{variant:?}: spa-client --version, the start of the program alone: median {start:?}");
    let exec = median((0..5).map(|_| exec_iptables(&scene)).collect());
    assert!(
        closed <= start + exec * MOST_EXECS,
        "{closed:?}, {start:?} for a start, {exec:?} for one exec of iptables"
    );
    scene.server.process().stop();
}

fn time(body: impl FnOnce()) -> Duration {
    let began = Instant::now();
    body();
    began.elapsed()
}

/// From the datagram on the wire to the first connection that is accepted; and the whole command.
fn knock(scene: &Scene, bob: &spa_tests::Client, number: u16) -> (Duration, Duration) {
    let (address, port) = (scene.address, 9_000 + number);
    let sniffer = Sniffer::start(&scene.topology.client.ns);
    let began = Instant::now();
    let mut command = bob.command(&["open", &format!("s{number}")]).spawn().expect("nsenter runs");
    scene.topology.client.ns.enter(|| {
        // A new socket each time: a SYN that was dropped is sent again only after a second.
        let try_once =
            || TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_millis(2)).is_ok();
        let deadline = began + spa_tests::probe::PATIENCE;
        while !try_once() {
            assert!(Instant::now() < deadline, "port {port} did not open");
        }
    });
    let open = Instant::now();
    assert!(command.wait().expect("our child").success());
    let whole = began.elapsed();
    let sent = sniffer.first_to(SPA_PORT).expect("the knock was seen");
    (open.saturating_duration_since(sent), whole)
}

fn exec_iptables(scene: &Scene) -> Duration {
    let iptables = scene.server.iptables(Family::V4);
    let began = Instant::now();
    scene.server.ns().sh(&format!("{iptables} -w -S >/dev/null"));
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Hundreds of valid knocks at once while `status` is asked again and again: all are granted, and neither half of the
/// daemon waits for the other for ever.
#[test]
fn a_burst_of_valid_knocks_is_granted() {
    let json = format!("{}/burst.json", env!("CARGO_TARGET_TMPDIR"));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--json", &json, "authorize"])
        .output()
        .expect("the bench runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("a second and core"), "{said}");
}
