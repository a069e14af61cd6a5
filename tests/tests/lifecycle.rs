//! The daemon's commands: first start with a way back, protection without the daemon, reload, revoke, close.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use spa_tests::probe::{PATIENCE, Probe, connect, echoes, eventually};
use spa_tests::scene::Scene;
use spa_tests::services::tcp_echo;
use spa_tests::{
    Client, Family, Process, Server, Settings, Topology, Variant, for_each_iptables, for_each_variant,
    in_namespace,
};

for_each_variant!(
    unconfirmed_goes_back,
    unconfirmed_and_killed_goes_back,
    unconfirmed_and_stopped_goes_back,
    unconfirmed_change_goes_back_to_protection,
    confirmed_stays,
    protect_and_unprotect_leave_no_trace,
    own_rules_are_left_alone,
    revoked_and_closed_at_once,
);
// Nobody can change the table of nftables; tests/nftables.rs has what others can do to it.
for_each_iptables!(foreign_changes_are_put_right, foreign_changes_are_noticed);

/// A server that has not run yet, with ssh open to all.
fn fresh(variant: Variant) -> (Topology, Server, Client) {
    let topology = Topology::new();
    for port in [22, 8080] {
        tcp_echo(&topology.server.ns, port);
    }
    let server = Server::new(&topology, &Settings { open_for: "20s", ..Settings::new(variant) });
    let address = topology.server.address(Family::V4).to_string();
    let alice = Client::invited(&topology.client, "alice", &server.enrol("alice", "ssh", &address, &[]));
    (topology, server, alice)
}

fn look(topology: &Topology, port: u16) -> Probe {
    spa_tests::probe::tcp(&topology.client.ns, topology.server.address(Family::V4), port)
}

fn all_rules(server: &Server) -> String {
    Family::BOTH.map(|family| server.rules(family)).join("--\n")
}

fn unconfirmed_goes_back(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    let before = all_rules(&server);
    server.start_with(&["run", "--confirm", "3s"]);
    assert_eq!(look(&topology, 22), Probe::Silent);
    let status = server.process().wait();
    assert_eq!(status.code(), Some(75), "{}", server.log());
    assert_eq!(look(&topology, 22), Probe::Open, "as it was");
    assert_eq!(all_rules(&server), before);
}

fn unconfirmed_and_killed_goes_back(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    server.start_with(&["run", "--confirm", "3s"]);
    assert_eq!(look(&topology, 22), Probe::Silent);
    server.process().kill();
    eventually("the kernel lifts what was not confirmed", Duration::from_secs(6), || {
        look(&topology, 22) == Probe::Open
    });
}

fn unconfirmed_and_stopped_goes_back(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    let before = all_rules(&server);
    for signal in [Signal::TERM, Signal::INT] {
        server.start_with(&["run", "--confirm", "60s"]);
        assert_eq!(look(&topology, 22), Probe::Silent);
        server.process().signal(signal);
        let status = server.process().wait();
        assert_eq!(look(&topology, 22), Probe::Open, "as it was, {signal:?}: {status}\n{}", server.log());
        assert_eq!(status.code(), Some(75), "{}", server.log());
        assert_eq!(all_rules(&server), before, "{signal:?}");
    }
}

/// However it ends, what was closed before the attempt stays closed.
fn unconfirmed_change_goes_back_to_protection(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    let settings = Settings { open_for: "20s", ..Settings::new(variant) };
    server.start();
    server.process().stop();
    let before = all_rules(&server);
    let services = format!("{}more = \"tcp/8080\"\n", settings.services);
    server.configure(&Settings { services, ..settings });
    for (within, by_signal) in [("60s", true), ("2s", false)] {
        server.start_with(&["run", "--confirm", within]);
        assert_eq!([look(&topology, 22), look(&topology, 8080)], [Probe::Silent; 2]);
        if by_signal {
            server.process().signal(Signal::TERM);
        }
        let status = server.process().wait();
        let looks = [look(&topology, 22), look(&topology, 8080)];
        assert_eq!(looks, [Probe::Silent, Probe::Open], "{status}\n{}", server.log());
        assert_eq!(all_rules(&server), before);
    }
}

fn confirmed_stays(variant: Variant) {
    const WITHIN: Duration = Duration::from_secs(3);
    let (topology, mut server, alice) = fresh(variant);
    for by_knock in [true, false] {
        server.start_with(&["run", "--confirm", "3s"]);
        if by_knock {
            alice.open("ssh");
        } else {
            server.must(&["confirm"]);
        }
        // The time passes, and nothing else can tell that it did.
        std::thread::sleep(WITHIN + Duration::from_millis(500));
        assert!(server.process().is_running(), "{}", server.log());
        assert_eq!(
            spa_tests::probe::tcp(&topology.stranger.ns, topology.server.address(Family::V4), 22),
            Probe::Silent
        );
        server.process().stop();
        server.must(&["unprotect"]);
        assert_eq!(look(&topology, 22), Probe::Open);
    }
}

fn protect_and_unprotect_leave_no_trace(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    let before = all_rules(&server);
    server.start();
    server.process().stop();
    assert_eq!(look(&topology, 22), Probe::Silent, "a stop keeps the protection");
    server.must(&["unprotect"]);
    assert_eq!(all_rules(&server), before);
    assert_eq!(look(&topology, 22), Probe::Open);
    // As at boot: without keys, and, where the configuration is broken, from the last good one. That is looked for in
    // the default state directory, which is this one in this mount namespace.
    fs::remove_file(server.file("server.key")).expect("it is there");
    let state = server.file("state");
    spa_tests::sh(&format!(
        "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/spa && mount --bind {} /var/lib/spa",
        state.display()
    ));
    fs::write(server.config(), "port = oops").expect("written");
    server.must(&["protect"]);
    assert_eq!([look(&topology, 22), look(&topology, 8080)], [Probe::Silent, Probe::Open]);
    server.must(&["protect"]);
    server.configure(&Settings::new(variant));
    server.must(&["unprotect"]);
    assert_eq!(all_rules(&server), before, "twice is as good as once");
    server.must(&["unprotect"]);
}

fn own_rules_are_left_alone(variant: Variant) {
    let (topology, mut server, alice) = fresh(variant);
    for family in Family::BOTH {
        let iptables = server.iptables(family);
        server.ns().sh(&format!(
            "{iptables} -N MINE && {iptables} -A MINE -p tcp --dport 9 -j DROP && {iptables} -A INPUT -j MINE
             {iptables} -A INPUT -p tcp --dport 8080 -m comment --comment 'not \"ours\"' -j ACCEPT"
        ));
    }
    let (before, theirs) = (all_rules(&server), server.foreign_rules());
    assert!(theirs.contains("MINE"), "{theirs}");
    server.start();
    alice.open("ssh");
    eventually("it opens", PATIENCE, || look(&topology, 22) == Probe::Open);
    server.process().stop();
    assert_eq!(server.foreign_rules(), theirs);
    server.must(&["unprotect"]);
    assert_eq!((all_rules(&server), server.foreign_rules()), (before, theirs));
}

fn foreign_changes_are_put_right(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    server.start();
    let iptables = server.iptables(Family::V4);
    for change in ["-D INPUT 1", "-F SPA", "-F"] {
        server.ns().sh(&format!("{iptables} -w {change}"));
        server.must(&["reload"]);
        assert_eq!(look(&topology, 22), Probe::Silent, "a reload puts {change} right");
    }
    assert!(server.process().is_running());
}

/// Not by the daemon's next own change: at once.
fn foreign_changes_are_noticed(variant: Variant) {
    let (topology, mut server, _) = fresh(variant);
    server.start();
    let iptables = server.iptables(Family::V4);
    for change in ["-D INPUT 1", "-F SPA", "-F"] {
        server.ns().sh(&format!("{iptables} -w {change}"));
        eventually(format_args!("{change} is noticed"), PATIENCE, || look(&topology, 22) == Probe::Silent);
    }
    assert!(server.process().is_running());
}

fn revoked_and_closed_at_once(variant: Variant) {
    let scene = Scene::new(&Settings { open_for: "60s", ..Settings::new(variant) }, Family::V4);
    let client = &scene.topology.client;
    let closed = || {
        eventually("it closes at once", Duration::from_secs(2), || scene.look(client, 22) == Probe::Silent);
        assert!(scene.server.grants().is_empty());
        assert!(scene.server.grant_rules(Family::V4).is_empty());
    };
    for revoke in [&["revoke", "alice"][..], &["revoke", "--source", "192.0.2.10"], &["revoke", "--all"]] {
        scene.alice.open("ssh");
        scene.wait_open(client, 22);
        scene.server.must(revoke);
        closed();
    }
    scene.alice.open("ssh");
    scene.wait_open(client, 22);
    scene.alice.must(&["close"]);
    closed();
    scene.alice.must(&["open", "ssh", "web"]);
    scene.wait_open(client, 80);
    scene.alice.must(&["close", "web"]);
    eventually("web closes", Duration::from_secs(2), || scene.look(client, 80) == Probe::Silent);
    assert_eq!(scene.look(client, 22), Probe::Open, "ssh was not meant");
}

/// A reload takes all of a configuration or nothing of it, and what goes on goes on.
#[test]
fn reload_is_all_or_nothing() {
    in_namespace(|| {
        let settings = Settings { open_for: "60s", ..Settings::new(Variant::Nft) };
        let mut scene = Scene::new(&settings, Family::V4);
        let (client, stranger) = (&scene.topology.client, &scene.topology.stranger);
        tcp_echo(&scene.topology.server.ns, 8080);
        scene.alice.open("ssh");
        scene.wait_open(client, 22);
        let mut connection = connect(&client.ns, scene.address, 22).expect("it is open");
        let more = format!("{}more = \"tcp/8080\"\n", settings.services);
        assert_eq!(scene.look(stranger, 8080), Probe::Open);
        // One line is wrong: nothing of the rest is taken.
        scene
            .server
            .configure(&Settings { services: format!("{more}wrong = \"tcp/0\"\n"), ..settings.clone() });
        let output = scene.server.call(&["reload"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("server.toml:19:9") && said.contains("1 to 65535"), "{said}");
        assert_eq!(scene.look(stranger, 8080), Probe::Open);
        // What is asked of the daemon does not wait for the mistake to be mended; and nobody takes it for gone.
        assert_eq!(scene.server.status()["state"], "ok");
        assert!(scene.server.must(&["grants"]).contains("alice"));
        assert_eq!(scene.server.call(&["unprotect"]).status.code(), Some(69));
        scene.server.configure(&Settings { services: more, ..settings });
        scene.server.must(&["reload"]);
        assert_eq!(scene.looks(&[(stranger, 8080), (stranger, 22)]), [Probe::Silent; 2]);
        assert_eq!(scene.look(client, 22), Probe::Open, "the grant goes on");
        assert!(echoes(&mut connection));
        // A client that is no longer enrolled loses its grants.
        scene.server.must(&["client", "remove", "alice"]);
        scene.server.process().signal(Signal::HUP);
        eventually("its grant ends", PATIENCE, || scene.look(client, 22) == Probe::Silent);
        scene.alice.call(&["open", "ssh"]);
        eventually("its knock is refused", PATIENCE, || scene.server.refused("name") > 0);
        assert_eq!(scene.look(client, 22), Probe::Silent);
        scene.server.process().stop();
    });
}

/// As with both units enabled at once. What `protect` leaves is no sign of a replay record that was lost.
#[test]
fn a_first_start_after_protect_takes_knocks_at_once() {
    in_namespace(|| {
        let (topology, mut server, alice) = fresh(Variant::Nft);
        server.must(&["protect"]);
        server.start();
        alice.must(&["open", "ssh", "--wait"]);
        assert_eq!(look(&topology, 22), Probe::Open);
        server.process().stop();
        // And where it *was* lost, that is seen.
        fs::remove_file(server.file("state/replay")).expect("a replay record");
        server.must(&["protect"]);
        server.start();
        assert!(server.log().contains("the replay record is gone"), "{}", server.log());
    });
}

/// `--dry-run` says what it would do.
#[test]
fn a_dry_run_changes_nothing() {
    in_namespace(|| {
        let (topology, mut server, alice) = fresh(Variant::Nft);
        let before = all_rules(&server);
        server.start_with(&["run", "--dry-run"]);
        alice.open("ssh");
        eventually("the knock is logged", PATIENCE, || server.log().contains("alice"));
        assert_eq!(all_rules(&server), before);
        assert_eq!(look(&topology, 22), Probe::Open);
        server.process().stop();
        assert!(!server.file("state/replay").exists(), "nor the replay record");
    });
}

/// A daemon in the foreground outlives its terminal, and whatever it has to say then.
#[test]
fn a_lost_standard_error_ends_nothing() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings { open_for: "60s", ..Settings::new(Variant::Nft) }, Family::V4);
        scene.server.process().hang_up();
        for _ in 0..3 {
            scene.server.must(&["reload"]);
        }
        let invite = scene.server.enrol("bob", "web", &scene.address.to_string(), &[]);
        scene.server.process().signal(Signal::HUP);
        eventually("the hang-up is a reload", PATIENCE, || scene.server.status()["clients"] == 2);
        assert!(scene.server.process().is_running());
        let client = &scene.topology.client;
        Client::invited(client, "bob", &invite).open("web");
        scene.wait_open(client, 80);
        scene.alice.open("ssh");
        scene.wait_open(client, 22);
        let status = scene.server.process().stop();
        assert!(status.success(), "{status}");
    });
}

/// Rules that were on their way when the daemon was killed are not laid behind the back of whoever comes next.
#[test]
fn what_a_killed_daemon_wrote_comes_before_what_the_next_does() {
    in_namespace(|| {
        if !spa_tests::legacy_or_skip("what_a_killed_daemon_wrote_comes_before_what_the_next_does") {
            return;
        }
        let scene = &mut Scene::new(&Settings::new(Variant::Legacy), Family::V4);
        let lock = fs::File::options().read(true).open("/run/xtables.lock").expect("the daemon has made it");
        lock.lock().expect("it is ours");
        let writers = |pids: &[u32]| -> Vec<u32> {
            let waits = |pid: &&u32| {
                fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("lock"))
            };
            pids.iter().filter(waits).copied().collect()
        };
        let pids = scene.server.process().pids();
        scene.alice.open("ssh");
        eventually("a rule waits for the lock", PATIENCE, || !writers(&pids).is_empty());
        scene.server.process().signal(Signal::KILL);
        scene.server.process().wait();
        // Whoever comes next waits, and gives up, as long as that rule may still be laid.
        let refused = scene.server.call(&["unprotect"]);
        assert_eq!(refused.status.code(), Some(69), "{refused:?}");
        lock.unlock().expect("it is given back");
        scene.server.must(&["unprotect"]);
        for family in Family::BOTH {
            assert!(!scene.server.rules(family).contains("SPA"), "{}", scene.server.rules(family));
        }
    });
}

/// Nor does what a killed daemon was removing of a former backend.
#[test]
fn what_a_killed_daemon_was_retiring_comes_first_too() {
    in_namespace(|| {
        if !spa_tests::legacy_or_skip("what_a_killed_daemon_was_retiring_comes_first_too") {
            return;
        }
        let scene = &mut Scene::new(&Settings::new(Variant::Legacy), Family::V4);
        scene.server.process().stop();
        let firewall = "backend = \"nftables\"\n".to_owned();
        scene.server.configure(&Settings { firewall, ..Settings::new(Variant::Nft) });
        let lock = fs::File::options().read(true).open("/run/xtables.lock").expect("the daemon has made it");
        lock.lock().expect("it is ours");
        let mut daemon = Process::start("spa-server", &mut scene.server.command(&["run"]));
        let waits =
            |pid: u32| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("lock"));
        eventually("the removal waits for the lock", PATIENCE, || daemon.pids().into_iter().any(waits));
        daemon.signal(Signal::KILL);
        daemon.wait();
        let refused = scene.server.call(&["unprotect"]);
        assert_eq!(refused.status.code(), Some(69), "{refused:?}");
        lock.unlock().expect("it is given back");
        scene.server.must(&["unprotect"]);
    });
}

/// Whoever removes a client while the daemon starts, and has read that client already, waits for the daemon, and so does
/// `protect`: neither takes it that none runs, or that it protects.
#[test]
fn who_asks_while_the_daemon_starts_waits() {
    in_namespace(|| {
        if !spa_tests::legacy_or_skip("who_asks_while_the_daemon_starts_waits") {
            return;
        }
        let (_topology, server, _alice) = fresh(Variant::Legacy);
        let path = "/run/xtables.lock";
        let lock = fs::File::options().write(true).create(true).truncate(false).open(path).expect("a file");
        lock.lock().expect("it is ours");
        let mut daemon = Process::start("spa-server", &mut server.command(&["run"]));
        let waits =
            |pid: u32| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("lock"));
        eventually("its first rule waits for the lock", PATIENCE, || daemon.pids().into_iter().any(waits));
        let mut remove = Process::start("remove", &mut server.command(&["client", "remove", "alice"]));
        let mut protect = Process::start("protect", &mut server.command(&["protect"]));
        // The listener, and who is not served yet: a look whether one runs, and two requests.
        let sockets = || server.ns().sh("cat /proc/net/unix").matches("control.sock").count();
        eventually("both wait", PATIENCE, || sockets() >= 4);
        assert!(remove.is_running() && protect.is_running());
        assert!(server.file("clients.d/alice.toml").exists(), "first the daemon");
        lock.unlock().expect("it is given back");
        assert!(remove.wait().success(), "{}", remove.log());
        assert!(remove.log().contains("lets alice in no more"), "{}", remove.log());
        assert!(protect.wait().success(), "{}", protect.log());
        assert!(protect.log().contains("protects already"), "{}", protect.log());
        daemon.wait_log("ready port=", 0);
        assert_eq!(server.status()["clients"], 0);
        daemon.stop();
    });
}

/// Both halves: whichever dies, the other does not go on alone, and nothing opens.
#[test]
fn the_verifier_is_replaced_when_killed() {
    in_namespace(|| {
        let scene = &mut Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let daemon = scene.server.process().pid();
        let verifier = || scene_verifier(daemon);
        let first = verifier().expect("the daemon has a verifier");
        // The stranger tries all the time: a connection that is once let in is seen.
        let (stranger, address) = (scene.topology.stranger.ns.clone(), scene.address);
        let until = Instant::now() + Duration::from_secs(3);
        let tries = std::thread::spawn(move || {
            let to = std::net::SocketAddr::new(address, 22);
            let step = Duration::from_millis(5);
            let let_in = || std::net::TcpStream::connect_timeout(&to, step).is_ok();
            stranger.enter(|| {
                std::iter::repeat_with(let_in).take_while(|_| Instant::now() < until).any(|in_| in_)
            })
        });
        spa_tests::sh(&format!("kill -9 {first}"));
        eventually("another verifier", PATIENCE, || verifier().is_some_and(|pid| pid != first));
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent);
        eventually("knocks are taken again", PATIENCE, || {
            scene.alice.call(&["open", "ssh"]);
            scene.look(&scene.topology.client, 22) == Probe::Open
        });
        assert!(!tries.join().expect("no panic"), "the port never opened to the stranger");
        // The verifier holds no capability, whoever it runs as.
        let pid = verifier().expect("it runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("procfs");
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let line = status.lines().find(|line| line.starts_with(set)).expect("procfs has it");
            assert!(line.ends_with("\t0000000000000000"), "{line}");
        }
        assert!(status.contains("Seccomp:\t2"), "a filter is in force");
        assert!(status.contains("NoNewPrivs:\t1"));
        scene.server.process().kill();
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "it ends with the warden");
    });
}

/// A verifier that keeps dying is not started for ever: the daemon says so and ends, and protection stays.
#[test]
fn a_verifier_that_keeps_dying_ends_the_daemon_closed() {
    in_namespace(|| {
        let scene = &mut Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let daemon = scene.server.process().pid();
        let mut last = None;
        // It takes no signal for anything but its end.
        for signal in ["INT", "TERM", "KILL"].into_iter().cycle().take(20) {
            eventually("the next verifier, or the end", PATIENCE, || {
                !scene.server.process().is_running()
                    || scene_verifier(daemon).is_some_and(|pid| Some(pid) != last)
            });
            let Some(verifier) = scene_verifier(daemon) else { break };
            last = Some(verifier);
            spa_tests::sh(&format!("kill -{signal} {verifier} 2>/dev/null || true"));
        }
        let status = scene.server.process().wait();
        assert_eq!(status.code(), Some(70), "{}", scene.server.log());
        assert_eq!(
            scene.looks(&[(&scene.topology.client, 22), (&scene.topology.stranger, 22)]),
            [Probe::Silent; 2]
        );
    });
}

fn scene_verifier(daemon: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?;
    let is_verifier = |pid: &&str| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"spa-verifier"))
    };
    children.split_whitespace().find(is_verifier)?.parse().ok()
}
