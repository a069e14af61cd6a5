//! Keeping the verifier at work: its counts, its interfaces, another where it ends or does not answer; and telling
//! systemd that all is well, if it is.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::engine::Command;
use super::verifier_process::VerifierProcess;
use super::watchdog::Pulse;
use super::{Warden, events};
use crate::error::{Exit, Failure, Outcome};
use crate::link::Counts;

/// A verifier that ends is started again, but not more often than this many times in [`RESTART_WINDOW`].
const MAX_RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

impl Warden {
    /// Tells the verifier the indexes that the configured interfaces have now.
    pub(super) async fn look_up_interfaces(&mut self) -> Outcome {
        if let Err(error) = self.verifier.resolve_interfaces(&self.captures).await {
            tracing::warn!(%error, "the verifier was not told of the interfaces");
            self.restart_verifier().await?;
        }
        Ok(())
    }

    /// Takes what the verifier counted.
    pub(super) fn counted(&mut self, counts: Counts) {
        if self.watchdog.awaits_verifier() {
            self.watchdog.verifier_answered();
        } else if self.counts_wanted.is_empty() {
            events::junk(&self.counts_reported, &counts);
            self.counts_reported = counts;
        }
        self.counts = counts;
        for waiting in self.counts_wanted.drain(..) {
            let _ = waiting.send(()); // who asked may have gone
        }
    }

    /// Tells systemd that all is well if it is, and asks both halves again.
    pub(super) async fn beat(&mut self) -> Outcome {
        match self.watchdog.pulse() {
            Pulse::Begins | Pulse::EngineStillBusy => {}
            Pulse::Alive => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]); // only systemd cares
            }
            Pulse::VerifierSilent => {
                tracing::error!("the verifier does not answer");
                self.restart_verifier().await?;
            }
            Pulse::EngineBusy => {
                tracing::warn!("the engine has not answered yet: it waits for the disk or for the firewall")
            }
        }
        // A verifier that is gone, or does not read, has not answered at the next tick.
        let _ = self.verifier.ask_counts().await;
        let engine = if self.watchdog.awaits_engine() {
            None
        } else {
            let (reply, answer) = oneshot::channel();
            self.commands.send(Command::Status(reply)).then_some(answer)
        };
        self.watchdog.asked(engine);
        Ok(())
    }

    /// Starts another verifier on the same sockets.
    pub(super) async fn restart_verifier(&mut self) -> Outcome {
        self.watchdog.forget_verifier();
        self.counts_reported = Counts::default();
        let how = self.verifier.end();
        events::verifier_ended(&how);
        self.restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        if self.restarts.len() == MAX_RESTARTS {
            let what = format_args!(
                "the verifier ended again after {MAX_RESTARTS} restarts in a minute, with {how}; protection stays"
            );
            return Err(Failure::new(Exit::Software, what));
        }
        self.restarts.push(Instant::now());
        self.counts_before.add(&std::mem::take(&mut self.counts));
        self.verifier =
            VerifierProcess::start(&self.settings.config, &self.settings.verifier, &self.captures).await?;
        Ok(())
    }
}
