//! One round: some grants, a phase, SIGKILL, a look, a restart, a look.

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use spa_tests::services::{tcp_echo, udp_echo};
use spa_tests::{Client, Family, Process, Server, Settings, Topology, Variant};

use super::faults::{self, Fault, Lasting};
use super::kernel::{self, Key, Snapshot};
use super::model::{Model, now};
use super::options::Options;
use super::phases::Phase;
use super::random::Random;
use super::report::Report;
use super::watch::{Shared, Watchers, wait_protected};

/// What the services of every round are, and their endpoints.
const SERVICES: [(&str, &[&str]); 3] =
    [("ssh", &["tcp/22"]), ("web", &["tcp/80", "tcp/443"]), ("dns", &["udp/53"])];
/// The service that reloads add and remove.
const MORE: (&str, &str) = ("more = \"tcp/8080\"\n", "tcp/8080");
/// A knock has opened by then, on a busy machine.
const OPENS_WITHIN: Duration = Duration::from_secs(2);
/// A daemon that started while a program of its predecessor still ran has put right by then what that one did.
const ORPHAN_SETTLES: Duration = Duration::from_secs(2);
/// What the programs of a killed daemon take to end, at the most; iptables waits 5 seconds for its lock.
const ORPHAN_ENDS: Duration = Duration::from_secs(10);
/// What a knock waits for its turn behind a firewall that hangs, in seconds, at the most.
const KNOCK_WAITS: f64 = 10.0;

/// Somebody enrolled.
pub struct Enrolled {
    pub name: &'static str,
    pub family: Family,
    pub program: Client,
}

/// See the module.
pub struct Torture {
    pub topology: Topology,
    pub server: Server,
    pub clients: Vec<Enrolled>,
    pub random: Random,
    pub shared: Arc<Shared>,
    /// A `revoke` that was running at the kill.
    pub revoking: Option<(&'static str, Child)>,
    /// Whose grants this round takes back.
    pub taking_back: Option<&'static str>,
    /// What this round did to the firewall itself, until the daemon is ready again: foreign rules in our chain,
    /// protection taken away, everything of ours taken away.
    pub may_be_odd: bool,
    pub may_be_broken: bool,
    pub may_be_bare: bool,
    faults: bool,
    /// One of the faults holds now.
    fails: bool,
    settings: Settings,
    /// A daemon that was started and never waited for.
    starting: Option<Process>,
    has_more: bool,
    foreign: String,
    killed_log: String,
    report: Report,
}

/// Runs all rounds in the namespaces of this process.
///
/// # Panics
/// If the ground for it cannot be laid. What spa-server does wrong is in the report.
pub fn run(options: &Options) -> Report {
    let mut torture = Torture::new(options);
    let watchers = {
        wait_protected(&torture.topology);
        Watchers::start(&torture.topology, &torture.shared)
    };
    let mut phases = Vec::new();
    while torture.report.total() < options.kills {
        if phases.is_empty() {
            phases = Phase::ALL.to_vec();
            torture.random.shuffle(&mut phases);
        }
        if let Some(phase) = phases.pop() {
            torture.round(phase);
        }
    }
    drop(watchers);
    let Torture { mut report, shared, .. } = torture;
    report.stranger_tries = shared.stranger_tries.load(Ordering::Relaxed);
    report.client_tries = shared.client_tries.load(Ordering::Relaxed);
    report.held_up = shared.held_up.load(Ordering::Relaxed);
    report.overflowed = shared.overflowed.load(Ordering::Relaxed);
    report.most_behind = shared.most_behind.load(Ordering::Relaxed);
    report.violations = std::mem::take(&mut shared.violations.lock().expect("no panic while locked"));
    report
}

impl Torture {
    fn new(options: &Options) -> Self {
        let topology = Topology::new();
        for port in [22, 80, 443, 8080] {
            tcp_echo(&topology.server.ns, port);
        }
        udp_echo(&topology.server.ns, 53);
        let settings = Settings { open_for: "5s", ..Settings::new(options.variant) };
        let mut server = Server::new(&topology, &settings);
        if options.faults {
            faults::prepare(options.variant, &server.file("state"));
            server.look_first_in(faults::STUBS);
        }
        let clients =
            [("alice", Family::V4), ("bob", Family::V6), ("carol", Family::V4), ("dave", Family::V6)];
        let clients = clients.map(|(name, family)| {
            let address = topology.server.address(family).to_string();
            let invite = server.enrol(name, "ssh,web,dns", &address, &[]);
            Enrolled { name, family, program: Client::invited(&topology.client, name, &invite) }
        });
        lay_foreign_rules(&server);
        let foreign = kernel::read(server.ns(), options.variant, &[]).foreign;
        server.start();
        Self {
            topology,
            server,
            clients: clients.into(),
            random: Random::new(options.seed),
            shared: Arc::default(),
            revoking: None,
            taking_back: None,
            may_be_odd: false,
            may_be_broken: false,
            may_be_bare: false,
            faults: options.faults,
            fails: false,
            settings,
            starting: None,
            has_more: false,
            foreign,
            killed_log: String::new(),
            report: Report {
                seed: options.seed,
                kills: Phase::ALL.map(|phase| (phase, 0)).into(),
                missed: 0,
                orphaned: 0,
                faulty: 0,
                knocks: 0,
                looks: 0,
                restarts: 0,
                slowest_restart: Duration::ZERO,
                stranger_tries: 0,
                client_tries: 0,
                held_up: 0,
                overflowed: 0,
                most_behind: 0,
                began: Instant::now(),
                violations: Vec::new(),
            },
        }
    }

    pub fn model<T>(&self, body: impl FnOnce(&mut Model) -> T) -> T {
        body(&mut self.shared.model.lock().expect("no panic while locked"))
    }

    fn round(&mut self, phase: Phase) {
        let said = self.violations();
        *self.shared.phase.lock().expect("no panic while locked") =
            format!("kill {} ({})", self.report.total() + 1, phase.name());
        for _ in 0..self.random.below(3) {
            let seconds = 2 + self.random.below(7);
            let keys = self.knock_some(seconds as u64);
            self.wait_granted(&keys);
        }
        let other_services = self.has_more;
        let fault = self.pick_fault(phase);
        let lasting = fault.map(|fault| Lasting::begin(fault, self.server.ns(), &self.server.file("state")));
        self.fails = fault.is_some();
        self.provoke(phase);
        self.fails = false;
        let orphans_may_run = self.random.once_in(2) && !fault.is_some_and(Fault::lingers);
        if let Some(fault) = fault {
            self.shared.phase.lock().expect("no panic while locked").push_str(&format!(" {fault:?}"));
            self.report.faulty += 1;
        }
        // A lock that is held would keep a program of the killed daemon until after its end.
        let lasting = lasting.filter(|_| fault != Some(Fault::Locked));
        self.kill(phase, orphans_may_run);
        drop(lasting);
        self.settle_revoke();
        // Before the restart either configuration may stand.
        let allowed: Vec<_> = [other_services, self.has_more].map(endpoints).into();
        let snapshot = kernel::read(self.server.ns(), self.settings.variant, &allowed);
        self.judge("killed", snapshot, false);
        if let Some(name) = self.taking_back.take() {
            // A program that outlived the daemon may take the rules away after this look.
            self.model(|model| model.let_go(|key| key.client == name));
        }
        if self.random.once_in(8) {
            // Long enough for something to end with no daemon there.
            let alone = self.random.up_to(Duration::from_secs(2));
            std::thread::sleep(alone);
        }
        self.restart();
        self.may_be_odd = false;
        self.may_be_broken = false;
        self.may_be_bare = false;
        self.look_again(if orphans_may_run { ORPHAN_SETTLES } else { Duration::ZERO });
        if !orphans_may_run {
            self.model(Model::settled);
        }
        self.shared.unprotected.store(false, Ordering::SeqCst);
        if self.violations() > said {
            eprintln!(
                "log of the daemon that was killed:\n{}log of the next:\n{}",
                self.killed_log,
                self.server.log()
            );
        }
    }

    /// In every second round that may have one. At the start and at a repair the test itself uses iptables.
    fn pick_fault(&mut self, phase: Phase) -> Option<Fault> {
        let may = self.faults && !matches!(phase, Phase::SetUp | Phase::Repair) && self.random.once_in(2);
        may.then(|| Fault::pick(self.settings.variant, &mut self.random))
    }

    fn violations(&self) -> usize {
        self.shared.violations.lock().expect("no panic while locked").len()
    }

    /// Looks at the restarted daemon's work; what is wrong may be put right within a time.
    fn look_again(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let snapshot = kernel::read(self.server.ns(), self.settings.variant, &[endpoints(self.has_more)]);
            if Instant::now() >= deadline || snapshot.faults.is_empty() {
                return self.judge("restarted", snapshot, true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn judge(&mut self, when: &str, mut snapshot: Snapshot, daemon_runs: bool) {
        self.report.looks += 1;
        if self.may_be_odd || (self.may_be_bare && snapshot.bare > 0) {
            snapshot.faults.clear();
        }
        if !self.may_be_bare && !self.may_be_broken && snapshot.bare > 0 {
            snapshot.faults.push(format!("{} families are without protection", snapshot.bare));
        }
        let mut faults = self.model(|model| model.compare(&snapshot, daemon_runs));
        if snapshot.foreign != self.foreign {
            faults.push(format!("foreign rules are now:\n{}before:\n{}", snapshot.foreign, self.foreign));
        }
        for fault in &faults {
            self.shared.violation(&format!("{when}: {fault}"));
        }
        if !faults.is_empty() {
            eprintln!("{}", snapshot.text);
        }
    }

    /// Any client asks for one or more services.
    pub fn knock_some(&mut self, seconds: u64) -> Vec<(Key, u64)> {
        let client = self.random.below(self.clients.len());
        let mut services = SERVICES.map(|(name, _)| name);
        self.random.shuffle(&mut services);
        let count = 1 + self.random.below(services.len());
        self.knock(client, &services[..count], seconds)
    }

    /// Returns the keys that it asks for and the least end that each may get.
    pub fn knock(&mut self, client: usize, services: &[&str], seconds: u64) -> Vec<(Key, u64)> {
        let Enrolled { name, family, program } = &self.clients[client];
        let source = self.topology.client.address(*family);
        let asked = SERVICES.iter().filter(|(service, _)| services.contains(service));
        let keys: Vec<_> = asked
            .flat_map(|(_, endpoints)| *endpoints)
            .map(|endpoint| Key { client: (*name).into(), source, endpoint: (*endpoint).into() })
            .collect();
        let before = self.model(|model| {
            let before: Vec<_> = keys.iter().map(|key| model.may(key)).collect();
            keys.iter().for_each(|key| model.knocking(key));
            before
        });
        let least = (now() + seconds as f64) as u64;
        let waits = if self.fails { KNOCK_WAITS } else { 0.0 };
        let time = format!("{seconds}s");
        let output = program.call(&[&["open", "--for", &time], services].concat());
        self.model(|model| {
            keys.iter().zip(before).for_each(|(key, before)| model.knocked(key, before, seconds, waits))
        });
        self.report.knocks += 1;
        if !output.status.success() {
            self.shared.violation(&format!("spa-client: {}", String::from_utf8_lossy(&output.stderr)));
        }
        keys.into_iter().map(|key| (key, least)).collect()
    }

    /// A knock to a running daemon opens; what was seen to be open is known to the model.
    fn wait_granted(&mut self, keys: &[(Key, u64)]) {
        let deadline = Instant::now() + OPENS_WITHIN;
        let allowed = [endpoints(self.has_more)];
        loop {
            let snapshot = kernel::read(self.server.ns(), self.settings.variant, &allowed);
            let stands = |(key, least): &(Key, u64)| {
                snapshot.grants.iter().any(|grant| grant.key == *key && grant.until >= *least)
            };
            let missing = keys.iter().find(|key| !stands(key));
            let late = Instant::now() > deadline;
            if let (Some((key, least)), true) = (missing, late) {
                self.shared
                    .violation(&format!("{key} was not granted until {least}:\n{}", self.server.log()));
            }
            if missing.is_none() || late {
                return self.judge("running", snapshot, true);
            }
        }
    }

    pub fn variant(&self) -> Variant {
        self.settings.variant
    }

    pub fn index_of(&self, name: &str) -> usize {
        self.clients.iter().position(|client| client.name == name).expect("a client's name")
    }

    pub fn service_of(&self, endpoint: &str) -> &'static str {
        let has = |(_, endpoints): &&(&str, &[&str])| endpoints.contains(&endpoint);
        SERVICES.iter().find(has).expect("an endpoint of a service").0
    }

    pub fn configure_other(&mut self) {
        self.has_more = !self.has_more;
        let mut settings = self.settings.clone();
        if self.has_more {
            settings.services += MORE.0;
        }
        self.server.configure(&settings);
    }

    /// Kills the running daemon; no phase counts it.
    pub fn end_quietly(&mut self) {
        self.server.process().kill();
    }

    pub fn start_without_waiting(&mut self) {
        self.starting = Some(Process::start("spa-server", &mut self.server.command(&["run"])));
    }

    /// SIGKILL to the warden; the verifier has to end with it, and what it had started may be waited for.
    fn kill(&mut self, phase: Phase, orphans_may_run: bool) {
        let mut starting = self.starting.take();
        let process = starting.as_mut().unwrap_or_else(|| self.server.process());
        let pids = process.pids();
        if process.is_running() {
            process.signal(Signal::KILL);
        }
        let status = process.wait();
        self.killed_log = process.log();
        if status.signal() == Some(Signal::KILL.as_raw()) {
            let count = self.report.kills.iter_mut().find(|(counted, _)| *counted == phase);
            count.expect("all phases are there").1 += 1;
        } else {
            self.report.missed += 1;
            if !status.success() {
                self.shared.violation(&format!("the daemon ended by itself, {status}:\n{}", self.killed_log));
            }
        }
        if orphans_may_run {
            self.report.orphaned += 1;
        }
        let deadline = Instant::now() + ORPHAN_ENDS;
        // The verifier never outlives the warden, whatever is waited for.
        let left = |pid: &&u32| is_left(**pid, !orphans_may_run);
        while let Some(pid) = pids.iter().find(left) {
            if Instant::now() > deadline {
                return self.shared.violation(&format!("process {pid} outlives the daemon"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn settle_revoke(&mut self) {
        let Some((name, mut child)) = self.revoking.take() else { return };
        // It ends at the latest when its socket does.
        if child.wait().is_ok_and(|status| status.success()) {
            self.model(|model| model.gone(|key| key.client == name));
        }
    }

    fn restart(&mut self) {
        let began = Instant::now();
        while catch_unwind(AssertUnwindSafe(|| self.server.start())).is_err() {
            self.shared.violation("the daemon does not start; its output is above");
            assert!(began.elapsed() < Duration::from_secs(60), "it never starts again");
        }
        self.report.restarts += 1;
        self.report.slowest_restart = self.report.slowest_restart.max(began.elapsed());
    }
}

/// Whether a process of the killed daemon still runs: its verifier, or (if they count) the iptables that it ran.
fn is_left(pid: u32, count_programs: bool) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((name, rest)) = stat.rsplit_once(") ") else { return false };
    !rest.starts_with(['Z', 'X']) && (count_programs || name.contains("(spa-server"))
}

fn endpoints(has_more: bool) -> Vec<String> {
    let all = SERVICES.iter().flat_map(|(_, endpoints)| *endpoints).copied();
    let mut all: Vec<_> = all.chain(has_more.then_some(MORE.1)).map(str::to_owned).collect();
    all.sort();
    all
}

/// Rules of an administrator, of kinds that are easily harmed: a chain, quotes, counters, a policy, another table.
fn lay_foreign_rules(server: &Server) {
    for family in Family::BOTH {
        let iptables = server.iptables(family);
        server.ns().sh(&format!(
            "{iptables} -N MINE && {iptables} -A MINE -p tcp --dport 9 -j DROP && {iptables} -A INPUT -j MINE
             {iptables} -A INPUT -p tcp --dport 8080 -m comment --comment 'not \"ours\"' -j ACCEPT
             {iptables} -P FORWARD DROP && {iptables} -t nat -A PREROUTING -p tcp --dport 7 -j REDIRECT --to-ports 9"
        ));
    }
}
