//! `client list`: who is enrolled, in what state, when it last knocked and under which cloak key.

use spa_proto::{NANOS_PER_SECOND, ServiceName};

use crate::cloak_use::{self, LastUsed};
use crate::commands::{print, print_json};
use crate::config::date::Date;
use crate::config::{Client, Config};
use crate::error::{Exit, Failure, Outcome, with_config};
use crate::journal::{Content, Journal};
use crate::log::say;
use crate::{clock, warden};

/// What there is to know of the clients besides their files.
pub struct Known {
    record: Content,
    last_used: LastUsed,
    now: u64,
}

impl Known {
    /// Reads it from the state directory, whether or not the daemon runs.
    ///
    /// # Errors
    /// A damaged replay record.
    pub fn read(config: &Config) -> Outcome<Self> {
        let record = Journal::peek(&config.state_dir.join(warden::RECORD))
            .map_err(|error| Failure::new(Exit::Data, error).hint("spa-server recover"))?;
        let last_used = cloak_use::read(&config.state_dir.join(cloak_use::FILE));
        Ok(Self { record, last_used, now: clock::now().wall / NANOS_PER_SECOND })
    }

    /// When the client's last knock was made, by its own clock.
    pub fn last_knock(&self, client: &Client) -> Option<Date> {
        self.record.newest(client.policy.key.as_bytes()).map(|counter| Date(counter / NANOS_PER_SECOND))
    }

    /// The cloak key that the client last used, by its id.
    pub fn cloak(&self, client: &Client) -> Option<&str> {
        self.last_used.get(&client.policy.key).map(|id| &**id)
    }

    /// `active`, or why it is not let in.
    pub fn state(&self, client: &Client) -> &'static str {
        let over = |date: Option<u64>| date.is_some_and(|date| date <= self.now);
        if client.disabled {
            "disabled"
        } else if over(client.policy.valid_until) {
            "expired"
        } else if over(client.policy.first_knock_by) && self.last_knock(client).is_none() {
            "lapsed"
        } else {
            "active"
        }
    }
}

/// Lists the clients; one whose files are wrong does not hide the others, but is an error at the end.
pub fn list(config: &Config, as_json: bool) -> Outcome {
    let (clients, failures) = config.clients_and_failures()?;
    let known = Known::read(config)?;
    if as_json {
        print_json(&clients.iter().map(|client| json(client, &known)).collect())?;
    } else if !clients.is_empty() || failures.is_empty() {
        table(config, &clients, &known)?;
    }
    let count = failures.len();
    failures.into_iter().next().map_or(Ok(()), |first| {
        let others = if count > 1 { "; and others: spa-server check" } else { "" };
        Err(Failure::new(first.exit, format_args!("not every client can be read: {first}{others}")))
    })
}

fn table(config: &Config, clients: &[Client], known: &Known) -> Outcome {
    if clients.is_empty() {
        let add = "spa-server client add NAME --allow SERVICE --host ADDRESS";
        say!("no clients; {}", with_config(add, &config.path));
        return Ok(());
    }
    print(&format!("{:<20} {:<8} {:<20} {:<8} ALLOW", "CLIENT", "STATE", "LAST KNOCK", "CLOAK"))?;
    for client in clients {
        let last = known.last_knock(client).map_or_else(|| "never".to_owned(), |date| date.to_string());
        let allow = client.policy.allow.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(",");
        let until = match (client.policy.valid_until, client.policy.first_knock_by) {
            (Some(until), _) => format!(" (until {})", Date(until)),
            (None, Some(by)) if last == "never" => format!(" (invite until {})", Date(by)),
            _ => String::new(),
        };
        let (name, state, cloak) =
            (&client.policy.name, known.state(client), known.cloak(client).unwrap_or("-"));
        print(&format!("{name:<20} {state:<8} {last:<20} {cloak:<8} {allow}{until}"))?;
    }
    Ok(())
}

fn json(client: &Client, known: &Known) -> serde_json::Value {
    let policy = &client.policy;
    serde_json::json!({
        "name": policy.name.as_str(),
        "state": known.state(client),
        "public-key": policy.key.to_string(),
        "allow": policy.allow.iter().map(ServiceName::as_str).collect::<Vec<_>>(),
        "require-bound": policy.require_bound,
        "allow-explicit": policy.allow_explicit,
        "sources": policy.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "valid-until": policy.valid_until,
        "first-knock-by": policy.first_knock_by,
        "last-knock": known.last_knock(client).map(|date| date.0),
        "last-cloak": known.cloak(client),
        "invited-cloak": client.invited_cloak,
        "host": client.host,
    })
}
