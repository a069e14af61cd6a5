//! What commands ask over the control socket.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Warden;
use super::control_socket::Order;
use super::engine::Command;
use crate::control::{Request, Response, ShutOutView};
use crate::error::{Exit, Failure, Outcome};
use crate::link::FromVerifier;

/// How long `status` waits for the verifier's counts.
const COUNTS_TIMEOUT: Duration = Duration::from_secs(1);

impl Warden {
    /// Carries out an order, and answers it.
    pub(super) async fn follow(&mut self, order: Order) {
        let Order { request, reply } = order;
        let answer = match request {
            Request::Status => self.status().await,
            Request::Grants => self.ask(Command::Grants).await.and_then(|grants| json(&grants?)),
            Request::Revoke { client, source, endpoint, cut } => {
                self.revoke(client, source, endpoint, cut).await
            }
            Request::ShutOut { client, key } => self.shut_out(&client, key.as_deref()).await,
            Request::Reload => self.reload().await.map(|()| serde_json::Value::Null),
            Request::Confirm => self.ask(Command::Confirm).await.and_then(|confirmed| json(&confirmed?)),
        };
        let response = answer.map_or_else(|failure| Response::error(&failure), Response::Ok);
        let _ = reply.send(response); // who asked may have gone
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Outcome<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).then_some(()).ok_or_else(busy)?;
        answer.await.map_err(|_| ending("nothing was changed"))
    }

    async fn revoke(
        &self,
        client: Option<String>,
        source: Option<IpAddr>,
        endpoint: Option<String>,
        cut: bool,
    ) -> Outcome<serde_json::Value> {
        let wrong = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
        let selector = spa_gate::Selector {
            client: client.map(|name| name.parse()).transpose().map_err(|error| wrong(&error))?,
            source: source.map(|source| source.to_canonical()),
            endpoint: endpoint.map(|text| text.parse()).transpose().map_err(|error| wrong(&error))?,
        };
        if cut {
            return json(&self.ask(|reply| Command::Cut(selector, reply)).await??);
        }
        json(&self.ask(|reply| Command::Revoke(selector, reply)).await??)
    }

    /// Lets a client in no more, until a reload that succeeds says otherwise. This reads no file and changes no other
    /// client, so nothing that is wrong elsewhere can keep it from working: what the client sends is not opened any more
    /// from the first line on.
    async fn shut_out(&mut self, client: &str, key: Option<&str>) -> Outcome<serde_json::Value> {
        let wrong = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
        let name = client.parse().map_err(|error| wrong(&error))?;
        let key = key.map(str::parse).transpose().map_err(|error| wrong(&error))?;
        let out = self.settings.shut_out(&name, key.as_ref());
        let clients: Vec<_> = out.iter().map(|(name, _)| name.to_string()).collect();
        self.shut_out.extend_from_slice(&clients);
        // Also where nobody is left to shut out: an earlier order may not have got its rules closed.
        let closed = self.commands.shut_out(out.into_iter().map(|(_, key)| key).collect());
        if !clients.is_empty() {
            self.configure_verifier().await;
        }
        let gone = |_| ending("it lets the client in no more, and what is open for it closes at its time");
        let (closed, trouble) = match closed.await.map_err(gone)? {
            Ok(closed) => (closed.len(), None),
            Err(failure) => (0, Some(failure.to_string())),
        };
        json(&ShutOutView { clients, closed, trouble })
    }

    async fn status(&mut self) -> Outcome<serde_json::Value> {
        let (sender, counted) = oneshot::channel();
        self.counts_wanted.push(sender);
        // The answer comes on the link, which only this task reads.
        let asked = self.verifier.ask_counts().await.is_ok();
        if !asked || tokio::time::timeout(COUNTS_TIMEOUT, self.await_counts(counted)).await.is_err() {
            tracing::error!("the verifier does not answer");
            self.restart_verifier().await?;
        }
        let engine = self.ask(Command::Status).await?;
        let trouble = [engine.trouble, self.deaf.trouble()].concat();
        let mut counts = self.counts_before;
        counts.add(&self.counts);
        let mut refused: serde_json::Map<String, serde_json::Value> = spa_gate::Reason::ALL
            .into_iter()
            .map(|reason| {
                let count = counts.refused(reason)
                    + engine.counters.refused(reason)
                    + self.openers_counters.refused(reason);
                (reason.name().to_owned(), count.into())
            })
            .collect();
        refused.insert("destination".to_owned(), engine.misdirected.into());
        refused.insert("record".to_owned(), engine.unrecorded.into());
        Ok(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime": self.started.elapsed().as_secs(),
            "port": self.settings.config.port,
            "capture": self.captures.methods(),
            "firewall": engine.driver,
            "firewall-chosen": self.choice.as_ref().map(|choice| &choice.why),
            "state": if trouble.is_empty() && engine.refusing.is_none() { "ok" } else { "degraded" },
            "trouble": trouble,
            "refusing": engine.refusing,
            "shut-out": self.shut_out,
            "confirm-within": engine.confirm_within,
            "clients": engine.clients,
            "cloaks": self.settings.cloak_ids.iter().map(|(_, id)| {
                let clients = engine.cloaks.get(id).copied().unwrap_or(0);
                serde_json::json!({ "id": &**id, "clients": clients })
            }).collect::<Vec<_>>(),
            "grants": engine.grants,
            "granted": engine.counters.passed(),
            "refused": refused,
            "dropped": counts.dropped,
            "diffie-hellman": counts.diffie_hellman,
        }))
    }

    async fn await_counts(&mut self, mut counted: oneshot::Receiver<()>) {
        while counted.try_recv().is_err() {
            let Ok(Some(message)) = self.verifier.receive().await else { return };
            if let FromVerifier::Counts(counts) = message {
                self.counted(counts);
            } else if self.heard(message).await.is_err() {
                return;
            }
        }
    }
}

/// The engine has ended, and so does the daemon.
pub(super) fn ending(what_holds: &str) -> Failure {
    Failure::new(Exit::Unavailable, format_args!("the daemon is ending; {what_holds}"))
}

/// The engine does not take more.
pub(super) fn busy() -> Failure {
    Failure::new(Exit::TryAgain, "the daemon is busy; nothing was changed")
}

fn json<T: serde::Serialize>(value: &T) -> Outcome<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Failure::new(Exit::Software, error))
}
