//! What systemd hears, through a socket of the test's own in its place: that the daemon is ready, and that it lives
//! only while both halves and the engine answer.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Process, Settings, Variant, WORK, in_namespace, legacy_or_skip, sh};

/// Stands for `WatchdogSec=`.
const LIMIT: Duration = Duration::from_secs(4);

struct Systemd(UnixDatagram);

impl Systemd {
    fn path() -> String {
        format!("{WORK}/notify")
    }

    fn new() -> Self {
        let socket = UnixDatagram::bind(Self::path()).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        Self(socket)
    }

    /// What came within this time, as lines.
    fn hears(&self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        let mut heard = Vec::new();
        while Instant::now() < until {
            let mut bytes = [0; 512];
            if let Ok(length) = self.0.recv(&mut bytes) {
                heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned));
            }
        }
        heard
    }

    /// Waits for a line.
    fn wait(&self, line: &str) {
        eventually(format_args!("systemd hears {line}"), LIMIT + PATIENCE, || {
            self.hears(Duration::from_millis(100)).iter().any(|heard| heard == line)
        });
    }
}

/// A scene whose daemon was started as systemd would, with a watchdog.
fn watched(variant: Variant) -> (Scene, Process, Systemd) {
    let mut scene = Scene::new(&Settings { open_for: "60s", ..Settings::new(variant) }, Family::V4);
    scene.server.process().stop();
    let systemd = Systemd::new();
    let mut command = scene.server.command(&["run"]);
    command.env("NOTIFY_SOCKET", Systemd::path()).env("WATCHDOG_USEC", LIMIT.as_micros().to_string());
    let mut daemon = Process::start("spa-server", &mut command);
    daemon.wait_log("ready", 0);
    (scene, daemon, systemd)
}

fn verifier(daemon: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).ok()?;
    // Beside it: the programs that write for iptables.
    let is_verifier = |pid: &&str| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("verifier"))
    };
    children.split_whitespace().find(is_verifier)?.parse().ok()
}

/// Stopped, not killed: nothing but its silence tells.
#[test]
fn a_stopped_verifier_is_replaced() {
    in_namespace(|| {
        let (scene, mut daemon, systemd) = watched(Variant::Nft);
        systemd.wait("READY=1");
        systemd.wait("WATCHDOG=1");
        systemd.wait("WATCHDOG=1");
        let first = verifier(daemon.pid()).expect("the daemon has a verifier");
        sh(&format!("kill -STOP {first}"));
        eventually("another verifier", LIMIT + PATIENCE, || {
            verifier(daemon.pid()).is_some_and(|pid| pid != first)
        });
        assert!(daemon.log().contains("the verifier does not answer"), "{}", daemon.log());
        systemd.wait("WATCHDOG=1");
        scene.alice.open("ssh");
        scene.wait_open(&scene.topology.client, 22);
        assert!(daemon.stop().success());
        systemd.wait("STOPPING=1");
    });
}

/// A stopped warden says nothing, which is what systemd waits for; and no more does one whose engine hangs.
#[test]
fn a_stopped_warden_says_nothing() {
    in_namespace(|| {
        let (scene, daemon, systemd) = watched(Variant::Nft);
        systemd.wait("WATCHDOG=1");
        sh(&format!("kill -STOP {}", daemon.pid()));
        systemd.hears(Duration::from_millis(200)); // what was under way
        let heard = systemd.hears(LIMIT);
        assert!(!heard.iter().any(|line| line == "WATCHDOG=1"), "{heard:?}");
        assert_eq!(scene.look(&scene.topology.client, 22), Probe::Silent, "and nothing is open");
        sh(&format!("kill -CONT {}", daemon.pid()));
        systemd.wait("WATCHDOG=1");
    });
}

/// Another program holds the lock of iptables, so the engine waits: the daemon does not say that all is well.
#[test]
fn a_waiting_engine_is_not_called_alive() {
    if !legacy_or_skip("a_waiting_engine_is_not_called_alive") {
        return;
    }
    in_namespace(|| {
        let (scene, daemon, systemd) = watched(Variant::Legacy);
        systemd.wait("WATCHDOG=1");
        let mut lock = Process::start(
            "flock",
            std::process::Command::new("flock").args([
                "--no-fork",
                "/run/xtables.lock",
                "sh",
                "-c",
                "echo held; exec sleep 60",
            ]),
        );
        lock.wait_log("held", 0);
        scene.alice.open("ssh");
        eventually("the log says what it waits for", LIMIT + PATIENCE, || {
            daemon.log().contains("the engine has not answered yet")
        });
        assert_eq!(daemon.log().matches("has not answered yet").count(), 1, "once");
        lock.kill();
        systemd.hears(Duration::from_millis(200));
        systemd.wait("WATCHDOG=1");
        scene.wait_open(&scene.topology.client, 22);
    });
}

/// Where nobody watches, nothing is said, and nothing wakes the daemon.
#[test]
fn without_a_watchdog_there_is_none() {
    in_namespace(|| {
        let mut scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let pid = scene.server.process().pid();
        let switches = || {
            let of = |task: &str| {
                let status = std::fs::read_to_string(format!("/proc/{task}/status")).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
                line.and_then(|count| count.trim().parse::<u64>().ok()).expect("procfs has it")
            };
            of(&format!("{pid}/task/{pid}")) + verifier(pid).map_or(0, |pid| of(&pid.to_string()))
        };
        // What the start set off has settled when two looks agree.
        let mut before = switches();
        eventually("it is idle", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(500));
            let last = std::mem::replace(&mut before, switches());
            last == before
        });
        std::thread::sleep(Duration::from_secs(3)); // the time is what is looked at
        assert_eq!(switches(), before, "an idle daemon sleeps");
    });
}
