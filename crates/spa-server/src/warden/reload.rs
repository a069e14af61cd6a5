//! A new configuration in place of the one that runs: whole, or not at all.

use tokio::sync::oneshot;

use super::Warden;
use super::engine::{Command, EngineSettings};
use super::orders::{busy, ending};
use super::settings::Settings;
use super::verifier_process::{Captures, VerifierProcess};
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome};
use crate::link::Counts;

impl Warden {
    /// Swaps the whole configuration, or nothing.
    pub(super) async fn reload(&mut self) -> Outcome {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]); // only systemd cares
        let result = self.try_reload().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        result
    }

    async fn try_reload(&mut self) -> Outcome {
        let settings = Settings::load(Config::load(&self.settings.config.path)?)?;
        let old = &self.settings.config;
        let new = &settings.config;
        let fixed = [
            ("server.state-dir", old.state_dir != new.state_dir),
            ("firewall.backend", old.backend != new.backend),
            ("firewall.iptables", old.variant != new.variant),
            ("firewall.mark", old.mark != new.mark),
        ];
        let changed: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(key, _)| *key).collect();
        if !changed.is_empty() {
            let what = format_args!(
                "{}: a change of {} takes effect at a restart; nothing was reloaded",
                new.path.display(),
                changed.join(" and ")
            );
            return Err(Failure::new(Exit::Config, what)
                .hint("restart the daemon: protection and grants stay meanwhile"));
        }
        let of_capture = |config: &Config| {
            (config.port, config.interfaces.clone(), config.user.clone(), config.capture_threads)
        };
        let same_capture = of_capture(old) == of_capture(new);
        // What can fail comes first, beside what works; the engine swaps last, and it swaps back if it must.
        let fresh = if same_capture {
            None
        } else {
            let captures = Captures::open(new)?;
            let verifier = VerifierProcess::start(new, &settings.verifier, &captures).await?;
            Some((captures, verifier))
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Reload(Box::new(EngineSettings::of(&settings)), reply);
        self.commands.send(command).then_some(()).ok_or_else(busy)?;
        answer.await.unwrap_or_else(|_| Err(ending("nothing was reloaded")))?;
        // The engine goes by them: from here on nothing may fail.
        match fresh {
            Some((captures, verifier)) => {
                self.counts_before.add(&std::mem::take(&mut self.counts));
                self.counts_reported = Counts::default();
                self.watchdog.forget_verifier();
                self.captures = captures;
                self.verifier = verifier;
                self.settings = settings;
                self.shut_out.clear();
            }
            None => {
                self.settings = settings;
                self.shut_out.clear();
                self.inform_verifier().await;
            }
        }
        tracing::info!(clients = self.settings.verifier.clients.len(), "reloaded");
        Ok(())
    }

    /// Gives the verifier the settings and the interfaces of now.
    async fn inform_verifier(&mut self) {
        self.configure_verifier().await;
        // An interface may have been renamed.
        if self.verifier.resolve_interfaces(&self.captures).await.is_err() {
            self.verifier.end(); // as below
        }
    }

    /// Gives the verifier the settings of now. One that does not take them is ended: the loop sees that and starts
    /// another with them, or ends the daemon where it cannot.
    pub(super) async fn configure_verifier(&mut self) {
        if self.verifier.configure(&self.settings.verifier).await.is_err() {
            self.verifier.end();
        }
    }
}
