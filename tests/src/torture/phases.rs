//! The phases, and how the daemon is brought into each. What follows is at a random moment, so that the kill comes
//! before, in and after the work.

use std::time::Duration;

use rustix::process::Signal;
use spa_tests::{Family, Variant, sh};

use super::rounds::Torture;

/// Where in its life the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    SetUp,
    Grant,
    Renewal,
    Expiry,
    Reload,
    Revoke,
    Repair,
    Shutdown,
}

impl Phase {
    pub const ALL: [Self; 8] = [
        Self::SetUp,
        Self::Grant,
        Self::Renewal,
        Self::Expiry,
        Self::Reload,
        Self::Revoke,
        Self::Repair,
        Self::Shutdown,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::SetUp => "set-up",
            Self::Grant => "grant",
            Self::Renewal => "renewal",
            Self::Expiry => "expiry",
            Self::Reload => "reload",
            Self::Revoke => "revoke",
            Self::Repair => "repair",
            Self::Shutdown => "shutdown",
        }
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// From the client's end to the open port and a little further.
const GRANTED_WITHIN: Duration = millis(14);
/// As long as a start takes.
const STARTED_WITHIN: Duration = millis(110);
const RELOADED_WITHIN: Duration = millis(40);
const REVOKED_WITHIN: Duration = millis(25);
/// The daemon looks 50 ms after the last foreign change.
const REPAIRED_AFTER: Duration = millis(45);
const REPAIRED_WITHIN: Duration = millis(30);
const STOPPED_WITHIN: Duration = millis(8);

impl Torture {
    /// What takes so long with iptables: over netlink it is done in a quarter of that.
    fn at_most(&self, time: Duration) -> Duration {
        if self.variant() == Variant::Nftables { time / 4 } else { time }
    }

    /// Brings the daemon into a phase; it is to be killed when this returns.
    pub fn provoke(&mut self, phase: Phase) {
        match phase {
            Phase::SetUp => self.set_up(),
            Phase::Grant => {
                for _ in 0..=self.random.below(3) {
                    let seconds = 2 + self.random.below(7);
                    self.knock_some(seconds as u64);
                }
                self.pause(GRANTED_WITHIN);
            }
            Phase::Renewal => self.renewal(),
            Phase::Expiry => self.expiry(),
            Phase::Reload => self.reload(),
            Phase::Revoke => self.revoke(),
            Phase::Repair => self.repair(),
            Phase::Shutdown => {
                self.server.process().signal(Signal::TERM);
                self.pause(STOPPED_WITHIN);
            }
        }
    }

    fn pause(&mut self, most: Duration) {
        let pause = self.random.up_to(self.at_most(most));
        std::thread::sleep(pause);
    }

    /// The kill before the start is not counted; the one into the start is. At times from nothing.
    fn set_up(&mut self) {
        self.end_quietly();
        if self.random.once_in(4) {
            self.shared.unprotected.store(true, std::sync::atomic::Ordering::SeqCst);
            self.server.must(&["unprotect"]);
            self.may_be_bare = true;
            self.model(|model| model.gone(|_| true));
        }
        self.start_without_waiting();
        let pause = self.random.up_to(STARTED_WITHIN);
        std::thread::sleep(pause);
    }

    fn renewal(&mut self) {
        let live = self.model(|model| model.live(0.5));
        let Some((key, until)) = live.get(self.random.below(live.len().max(1))).cloned() else {
            return self.provoke(Phase::Grant); // nothing is left to renew: it is renewed in the next round
        };
        let left = (until as f64 - super::model::now()).max(0.0) as u64;
        let service = self.service_of(&key.endpoint);
        let client = self.index_of(&key.client);
        self.knock(client, &[service], left + 2);
        self.pause(GRANTED_WITHIN);
    }

    /// One second is the shortest that there is.
    fn expiry(&mut self) {
        let client = self.random.below(self.clients.len());
        self.knock(client, &["ssh"], 1);
        std::thread::sleep(millis(990));
        self.pause(millis(40));
    }

    /// To the configuration with one more service, or back.
    fn reload(&mut self) {
        self.configure_other();
        self.server.process().signal(Signal::HUP);
        self.pause(RELOADED_WITHIN);
    }

    fn revoke(&mut self) {
        let name = self.clients[self.random.below(self.clients.len())].name;
        let by_client = self.random.once_in(3);
        self.taking_back = Some(name);
        self.model(|model| model.let_go(|key| key.client == name));
        if by_client {
            let client = self.index_of(name);
            self.clients[client].program.call(&["close"]);
            return self.pause(GRANTED_WITHIN);
        }
        let mut command = self.server.command(&["revoke", name]);
        let quiet = std::process::Stdio::null;
        let child = command.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn().expect("nsenter runs");
        self.revoking = Some((name, child));
        self.pause(REVOKED_WITHIN);
    }

    /// Somebody else changes what is ours. What opens a port by itself excuses the daemon until it is ready again.
    fn repair(&mut self) {
        if self.variant() == Variant::Nftables {
            return self.repair_the_table();
        }
        let family = *self.random.pick(&Family::BOTH);
        let iptables = format!("{} -w", self.server.iptables(family));
        let change = match self.random.below(5) {
            0 => "-I INPUT 1 -j SPA".to_owned(),
            1 => "-A SPA -p tcp --dport 9 -j ACCEPT".to_owned(),
            2 => {
                let source = self.topology.client.address(family);
                self.model(|model| model.let_go(|key| key.source == source));
                format!("-S SPA | grep datestop | head -n 1 | sed s/-A/-D/ | xargs -r {iptables}")
            }
            which => {
                self.shared.unprotected.store(true, std::sync::atomic::Ordering::SeqCst);
                self.may_be_broken = true;
                if which == 3 {
                    "-D INPUT -j SPA".to_owned()
                } else {
                    self.model(|model| model.let_go(|_| true));
                    "-F SPA".to_owned()
                }
            }
        };
        self.may_be_odd = true;
        let ns = self.server.ns().clone();
        ns.enter(|| sh(&format!("{iptables} {change}")));
        if !self.random.once_in(4) {
            std::thread::sleep(REPAIRED_AFTER);
        }
        self.pause(REPAIRED_WITHIN);
    }

    /// While the daemon runs nobody else can change the table, which is tried at times; once it was killed everybody
    /// can. The next start is what puts it right, and is what is killed.
    fn repair_the_table(&mut self) {
        let chain = *self.random.pick(&["ipv4", "ipv6"]);
        let changes = [
            format!("insert rule inet spa {chain} tcp dport 9 accept"),
            "add element inet spa openings4 { 192.0.2.77 . tcp . 22 timeout 1h }".to_owned(),
            "flush set inet spa openings4".to_owned(),
            format!("flush chain inet spa {chain}"),
            "delete table inet spa".to_owned(),
        ];
        let which = self.random.below(changes.len());
        let ns = self.server.ns().clone();
        let change = |change: &str| ns.sh(&format!("nft '{change}' 2>&1 && echo done || true"));
        if self.random.once_in(2) {
            let said = change(&changes[which]);
            if said.contains("done") {
                self.shared.violation(&format!("{} was allowed beside the daemon", changes[which]));
            }
        }
        self.end_quietly();
        self.may_be_odd = true;
        match which {
            2 => {
                let source = self.topology.client.address(Family::V4);
                self.model(|model| model.let_go(|key| key.source == source));
            }
            3 => self.take_protection(),
            4 => {
                self.take_protection();
                self.may_be_bare = true;
                self.model(|model| model.gone(|_| true));
            }
            _ => {}
        }
        let said = change(&changes[which]);
        if !said.contains("done") {
            self.shared.violation(&format!("{} failed with no daemon: {said}", changes[which]));
        }
        self.start_without_waiting();
        let pause = self.random.up_to(STARTED_WITHIN);
        std::thread::sleep(pause);
    }

    /// By the test itself, until the daemon is ready again.
    fn take_protection(&mut self) {
        self.shared.unprotected.store(true, std::sync::atomic::Ordering::SeqCst);
        self.may_be_broken = true;
    }
}
