//! systemd's watchdog (`WatchdogSec=`, sd_watchdog_enabled(3)): it hears that the daemon lives only while both halves
//! and the engine answer. Where nobody watches there is no timer, and nothing wakes an idle machine.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::engine::EngineStatus;

/// Questions in the time after which systemd gives the daemon up: one may be late, and another lost.
const QUESTIONS: u32 = 4;

/// What became of the last questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing was asked yet.
    Begins,
    /// Both answered.
    Alive,
    /// The verifier did not answer: it is stopped, or stuck.
    VerifierSilent,
    /// The engine has not answered yet: it waits for a disk or for iptables. Said once.
    EngineBusy,
    /// Still not.
    EngineStillBusy,
}

/// The timer and the open questions.
pub struct Watchdog {
    ticks: Option<Interval>,
    asked: bool,
    verifier_answered: bool,
    engine: Option<oneshot::Receiver<EngineStatus>>,
    engine_told: bool,
}

impl Watchdog {
    /// As the environment says. Wants the runtime's timers.
    pub fn from_environment() -> Self {
        let period = sd_notify::watchdog_enabled().map(|limit| limit / QUESTIONS);
        let ticks = period.filter(|period| *period > Duration::ZERO).map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, asked: false, verifier_answered: false, engine: None, engine_told: false }
    }

    /// Returns when it is time to look at the answers and to ask again; never where nobody watches.
    pub async fn tick(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Whether a question to the verifier is open.
    pub fn awaits_verifier(&self) -> bool {
        self.asked && !self.verifier_answered
    }

    /// The verifier answered.
    pub fn verifier_answered(&mut self) {
        self.verifier_answered = true;
    }

    /// What the answers since the last questions say.
    pub fn pulse(&mut self) -> Pulse {
        if !self.asked {
            return Pulse::Begins;
        }
        if !self.verifier_answered {
            return Pulse::VerifierSilent;
        }
        let engine_answered = self.engine.as_mut().is_some_and(|answer| answer.try_recv().is_ok());
        if engine_answered {
            (self.engine, self.engine_told) = (None, false);
            return Pulse::Alive;
        }
        match std::mem::replace(&mut self.engine_told, true) {
            true => Pulse::EngineStillBusy,
            false => Pulse::EngineBusy,
        }
    }

    /// Questions were asked: of the verifier, and of the engine unless one to it is still open.
    pub fn asked(&mut self, engine: Option<oneshot::Receiver<EngineStatus>>) {
        self.asked = true;
        self.verifier_answered = false;
        if engine.is_some() {
            self.engine = engine;
        }
    }

    /// Whether a question to the engine is open.
    pub fn awaits_engine(&self) -> bool {
        self.engine.is_some()
    }

    /// A new verifier knows nothing of a question to the last.
    pub fn forget_verifier(&mut self) {
        self.asked = false;
    }
}
