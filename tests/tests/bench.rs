//! How long it takes from a knock to an open port, and what a connection through spa-client costs. Figures are
//! printed; what is asserted is a ratio within the run, since absolutes drift. And the commands of docs/BENCHMARKS.md.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use spa_tests::documents::{checkout, run_by};
use spa_tests::scene::Scene;
use spa_tests::services::tcp_echo;
use spa_tests::sniff::Sniffer;
use spa_tests::{Family, SPA_PORT, Settings, Variant, for_each_variant, machine_root_or_skip, skip};

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

/// What docs/BENCHMARKS.md shows, as it stands but for `SPA_BENCH_SHORT`; what it said, and where its files are. `None`
/// where this machine cannot, which is reported.
fn shown(command: &str, test: &str) -> Option<(String, PathBuf)> {
    let steps = run_by("docs/BENCHMARKS.md", file!());
    let lines: Vec<String> = steps.iter().flat_map(|step| step.commands()).collect();
    assert!(
        lines.iter().any(|line| line == command),
        "docs/BENCHMARKS.md does not show {command}: {lines:#?}"
    );
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&into).expect("a directory for its files");
    let programs = spa_tests::binary("spa-server");
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(checkout(""))
        .env("SPA_BENCH_SHORT", &into)
        .env("SPA_BIN_DIR", programs.parent().expect("it is in a directory"))
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.code() == Some(69) || said.lines().any(|line| line.starts_with("unshare:")) {
        skip(test, said.trim());
        return None;
    }
    assert!(output.status.success(), "{command}: {}\n{said}", output.status);
    println!("{command}\n{said}");
    Some((said, into))
}

/// Each part of the bench comes to its figures; the peers' too, where they are installed. Among it hundreds of valid knocks
/// at once while `status` is asked again and again: all are granted, and neither half of the daemon waits for the other
/// for ever.
#[test]
fn the_whole_bench() {
    let Some((said, into)) = shown("tests/bench.sh", "the_whole_bench") else { return };
    for part in
        ["knock to open port, warm | spa |", "under junk | spa", "CPU per junk packet | spa", "start-up time"]
    {
        assert!(said.contains(part), "no {part} in\n{said}");
    }
    assert!(said.contains("a second and core") && said.contains("one more grant"), "{said}");
    let json = std::fs::read_to_string(into.join("bench.json")).expect("bench.json");
    assert!(json.contains("figures mean nothing"), "{json}");
    assert!(into.join("bench.svg").exists());
    if said.contains("not installed") {
        skip("the_whole_bench: its peers", "fwknopd, fwknop or knockd is not installed");
    }
}

#[test]
fn one_part_of_the_bench() {
    let Some((said, into)) = shown("tests/bench.sh cpu", "one_part_of_the_bench") else { return };
    assert!(said.contains("CPU per junk packet | spa |") && !said.contains("knock to open port"), "{said}");
    assert!(into.join("bench.json").exists());
    let (said, _) = shown("tests/bench.sh --short scale", "one_part_of_the_bench").expect("the first ran");
    assert!(
        said.contains("cost by clients | spa, nftables") && said.contains("cost by remembered"),
        "{said}"
    );
}

#[test]
fn ways_to_receive() {
    let test = "ways_to_receive";
    if !machine_root_or_skip("a packet socket without a user namespace", test) {
        return;
    }
    let Some((said, _)) = shown("cargo run --release -p spa-capture --example receive", test) else { return };
    for way in ["no socket", "recvmmsg(64), paced", "TPACKET_V2, paced", "TPACKET_V3, 1 ms"] {
        // In each of five floods, and by itself if it receives.
        let times = said.lines().filter(|line| line.starts_with(&format!("{way} "))).count();
        assert_eq!(times, if way == "no socket" { 5 } else { 6 }, "{way}\n{said}");
    }
    let some = shown("cargo run --release -p spa-capture --example receive V2 V3", test);
    let (said, _) = some.expect("the first ran");
    assert!(said.contains("TPACKET_V2, paced") && !said.contains("recvmmsg"), "{said}");
    let table = shown("cargo run --release -p spa-capture --example receive -- --table", test);
    let (said, _) = table.expect("the first ran");
    assert_eq!(
        said.lines().filter(|line| line.starts_with("| ")).count(),
        1 + 7,
        "a heading and each way\n{said}"
    );
}

/// Nothing that the page shows is left out above.
#[test]
fn the_page_shows_what_is_run() {
    let steps = run_by("docs/BENCHMARKS.md", file!());
    assert_eq!(steps.iter().map(|step| step.commands().len()).sum::<usize>(), 6, "{steps:#?}");
}
