//! The steps of the clock, each with what must come of it.

use std::time::Duration;

use serde_json::Value;
use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::{Client, Family, Scene, Settings, Variant};

use super::clocks::{HOUR, WallClock};
use super::open::Opened;

/// `[limits] max-age` of [`Settings::new`]
const MAX_AGE: Duration = Duration::from_secs(60);

/// A scene whose clock moves.
struct Steps {
    variant: Variant,
    scene: Scene,
    clock: WallClock,
}

/// All steps, with one kind of firewall.
///
/// # Panics
/// If anything is not as it must be.
pub fn run(variant: Variant) {
    let settings = Settings { open_for: "15s", ..Settings::new(variant) };
    let scene = Scene::new(&settings, Family::V4);
    let mut steps = Steps { variant, scene, clock: WallClock::default() };
    steps.must_be(Probe::Silent, "before any knock");
    steps.table_flags();
    steps.daemon_runs(HOUR);
    steps.daemon_runs(-HOUR);
    steps.behind_the_record();
    steps.daemon_killed();
    steps.forward_and_back();
}

impl Steps {
    /// The daemon follows the clock: a grant ends by boot time wherever it is set, and its knock is good for nothing more.
    fn daemon_runs(&mut self, by: i64) {
        let opened = Opened::by_knock(&self.scene);
        self.step(by);
        // The rules are written anew just after the daemon has noticed.
        self.scene.wait_open(&self.scene.topology.client, 22);
        let late = opened.ends_in_time(&self.scene);
        self.say(&format!("daemon runs, stepped by {by} s: open to its end, closed {late:.1?} after it"));
        let reason = self.resend(&opened.datagram);
        self.say(&format!("its datagram again, stepped by {by} s: refused, {reason}"));
        self.clock.put_right();
        let reason = self.resend(&opened.datagram);
        self.say(&format!("and when the clock is right again: refused, {reason}"));
        self.clock.back_to(opened.seen);
        self.must_be(Probe::Silent, "with the clock in the time of a grant that has ended");
        self.clock.put_right();
    }

    /// A clock that is behind what is on record: no knock counts, until it is right.
    fn behind_the_record(&mut self) {
        let opened = Opened::by_knock(&self.scene);
        self.step(-HOUR);
        let before = self.scene.server.refused("clock");
        self.scene.alice.open("ssh");
        self.refused_by_clock(before);
        opened.ends_in_time(&self.scene);
        let before = self.scene.server.refused("clock");
        self.scene.alice.open("ssh");
        self.refused_by_clock(before);
        self.must_be(Probe::Silent, "after a knock an hour behind the record");
        self.clock.put_right();
        let opened = Opened::by_knock(&self.scene);
        self.say("an hour behind the record: knocks are refused, clock; honoured when it is right again");
        opened.ends_in_time(&self.scene);
    }

    /// Knocks before and after a step forward, a daemon that forgot all but its record, and the step back.
    fn forward_and_back(&mut self) {
        let now = Opened::by_knock(&self.scene);
        self.clock.step(HOUR);
        let ahead = Opened::by_knock(&self.scene);
        ahead.ends_in_time(&self.scene);
        self.scene.server.process().kill();
        self.scene.server.start();
        let mut reasons = vec![self.resend(&now.datagram), self.resend(&ahead.datagram)];
        self.clock.put_right();
        reasons.extend([self.resend(&now.datagram), self.resend(&ahead.datagram)]);
        let before = self.scene.server.refused("clock");
        self.scene.alice.open("ssh");
        self.refused_by_clock(before);
        self.must_be(Probe::Silent, "after a step forward and back");
        self.say(&format!("forward, daemon anew, back: held datagrams refused, {}", reasons.join(", ")));
        self.recover(&[now, ahead]);
    }

    /// Once the clock is right for certain, `recover` lets clients in again, and no old datagram. Who knocked while it was
    /// ahead has a floor there, which is never lowered.
    fn recover(&mut self, held: &[Opened]) {
        self.scene.server.process().kill();
        self.scene.server.must(&["recover"]);
        let invite = self.scene.server.enrol("bob", "ssh", &self.scene.address.to_string(), &[]);
        let bob = Client::invited(&self.scene.topology.client, "bob", &invite);
        self.scene.server.start();
        for opened in held {
            self.resend(&opened.datagram);
        }
        self.scene.alice.open("ssh");
        eventually("alice is refused", PATIENCE, || self.scene.server.refused("counter") > 0);
        self.must_be(Probe::Silent, "after a knock of who knocked while the clock was ahead");
        eventually("a knock counts max-age after recover", 2 * MAX_AGE, || {
            std::thread::sleep(MAX_AGE / 10);
            bob.open("ssh");
            self.scene.look(&self.scene.topology.client, 22) == Probe::Open
        });
        self.say("after recover: held datagrams refused, and who knocked ahead; another's knock opens");
    }

    /// SIGKILL while a port is open: the kernel ends it, and the clock is stepped without anybody to follow it.
    fn daemon_killed(&mut self) {
        let opened = Opened::by_knock(&self.scene);
        self.scene.server.process().kill();
        self.must_be(Probe::Open, "the daemon is dead");
        self.clock.step(-HOUR);
        // A set's time-out is not of the wall clock; a rule's dates are, and lie ahead now.
        let before_its_dates = if self.variant == Variant::Nftables { Probe::Open } else { Probe::Silent };
        self.must_be(before_its_dates, "no daemon, an hour back");
        self.clock.put_right();
        assert!(opened.is_in_its_time(), "the guest was too slow for its steps");
        let late = opened.ends_in_time(&self.scene);
        self.say(&format!("daemon killed, an hour back and again right: closed {late:.1?} after its end"));
        self.clock.back_to(opened.seen);
        let found = self.scene.look(&self.scene.topology.client, 22);
        self.say(&format!("no daemon, the clock in the time of the ended grant: {found}"));
        // What the kernel cannot know, the next start does.
        self.scene.server.start();
        self.must_be(Probe::Silent, "a started daemon does not take up an ended grant");
        self.clock.put_right();
        self.taken_over();
    }

    /// A daemon that is started after a step back takes a grant over to its right end.
    fn taken_over(&mut self) {
        let opened = Opened::by_knock(&self.scene);
        self.scene.server.process().kill();
        self.clock.step(-5);
        self.scene.server.start();
        self.must_be(Probe::Open, "taken over");
        let late = opened.ends_in_time(&self.scene);
        self.say(&format!(
            "daemon killed, 5 s back, daemon anew: taken over, closed {late:.1?} after its end"
        ));
        self.clock.put_right();
    }

    /// Kernels before 6.9 have no flag `persist`; then neither is asked for, and all else is the same.
    fn table_flags(&self) {
        if self.variant != Variant::Nftables {
            return;
        }
        let tables = self.scene.server.ns().sh("nft -j list tables inet");
        let tables: Value = serde_json::from_str(&tables).expect("nft prints JSON");
        let ours =
            tables["nftables"].as_array().into_iter().flatten().find(|item| item["table"]["name"] == "spa");
        let flags = ours.expect("the table inet spa")["table"]["flags"].to_string();
        self.say(&format!("flags of the table inet spa: {flags}"));
    }

    /// Steps the clock, and waits until the daemon has noticed.
    fn step(&mut self, by: i64) {
        let from = self.scene.server.log().len();
        self.clock.step(by);
        self.scene.server.process().wait_log("the wall clock was set", from);
    }

    /// Sends a datagram a second time; returns the reason of its refusal.
    fn resend(&self, datagram: &[u8]) -> String {
        let before = self.refusals();
        self.scene.send(&self.scene.topology.client, datagram);
        let mut reason = String::new();
        eventually("the datagram is refused", PATIENCE, || {
            let more = self.refusals().into_iter().find(|refusal| !before.contains(refusal));
            more.map(|(name, _)| reason = name).is_some()
        });
        self.must_be(Probe::Silent, "after a datagram that was used");
        reason
    }

    fn refusals(&self) -> Vec<(String, Value)> {
        let status = self.scene.server.status();
        let refused = status["refused"].as_object().expect("counts by reason");
        refused.iter().map(|(reason, count)| (reason.clone(), count.clone())).collect()
    }

    fn refused_by_clock(&self, before: u64) {
        eventually("refused, clock", PATIENCE, || self.scene.server.refused("clock") > before);
    }

    fn must_be(&self, wanted: Probe, when: &str) {
        let found = self.scene.look(&self.scene.topology.client, 22);
        assert_eq!(found, wanted, "{when} ({:?})", self.clock);
    }

    fn say(&self, what: &str) {
        println!("clock: {}: {what}", self.variant.name());
    }
}
