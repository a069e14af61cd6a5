//! `cloak`: changes the key that hides packets from strangers, with an overlap in which the old and the new work.

use spa_proto::{ClientName, CloakKey, KeyFileError, ServerKeyFile};
use zeroize::Zeroizing;

use super::client::Known;
use super::keygen::random;
use super::{print, print_json, reload_if_running};
use crate::clock;
use crate::config::date::Date;
use crate::config::{Client, Config};
use crate::error::{Exit, Failure, Outcome};
use crate::files::{self, Existing};
use crate::log::say;

/// Adds a key as the newest: new invites carry it. The others stay live.
pub fn add(config: &Config) -> Outcome {
    let keys = config.keys()?;
    if keys.cloaks.len() == spa_proto::MAX_CLOAK_KEYS {
        let what = format_args!("{} has {} cloak keys already", config.key_file.display(), keys.cloaks.len());
        return Err(Failure::new(Exit::Usage, what)
            .hint("spa-server cloak list shows which are in use; spa-server cloak retire ID takes one out"));
    }
    let cloak = CloakKey::from_bytes(random()?);
    let id = cloak.id();
    let mut wanted = keys.cloaks.clone();
    wanted.insert(0, cloak.clone());
    rewrite(config, &wanted, |text| {
        let at = text.iter().position(|line| is_cloak_line(line)).unwrap_or(text.len());
        let added = Date(clock::now().wall / spa_proto::NANOS_PER_SECOND);
        text.insert(at, Zeroizing::new(format!("# {id}, added {added}")));
        text.insert(at + 1, Zeroizing::new(format!("cloak = {}", *cloak.to_base64())));
    })?;
    print(&id)?;
    say!(
        "new invites carry cloak key {id}; clients with an older one go on working. For each of them: spa-server client \
         invite NAME, and there: spa-client import --update. Then spa-server cloak retire the old one."
    );
    reload_if_running(config)
}

/// Lists the live keys, newest first, with who last used them.
pub fn list(config: &Config, as_json: bool) -> Outcome {
    let keys = config.keys()?;
    let clients = config.clients()?;
    let known = Known::read(config)?;
    let rows: Vec<_> = keys.cloaks.iter().map(|cloak| Row::of(&cloak.id(), &clients, &known)).collect();
    if as_json {
        return print_json(&rows.iter().map(Row::json).collect());
    }
    print(&format!("{:<8} {:<10} {:<20} LAST USED BY", "CLOAK", "INVITES", "LAST KNOCK"))?;
    for (place, row) in rows.iter().enumerate() {
        let invites = if place == 0 { "new ones" } else { "-" };
        let last = row.last.map_or_else(|| "-".to_owned(), |date| date.to_string());
        print(&format!("{:<8} {invites:<10} {last:<20} {}", row.id, row.people()))?;
    }
    Ok(())
}

/// Takes a key out: packets under it are junk from then on.
pub fn retire(config: &Config, id: &str, force: bool) -> Outcome {
    let keys = config.keys()?;
    let Some(place) = keys.cloaks.iter().position(|cloak| cloak.id() == id) else {
        let known: Vec<_> = keys.cloaks.iter().map(CloakKey::id).collect();
        let what = format_args!("there is no cloak key {id} in {}", config.key_file.display());
        return Err(Failure::new(Exit::Usage, what).hint(format_args!("one of: {}", known.join(", "))));
    };
    if keys.cloaks.len() == 1 {
        return Err(Failure::new(
            Exit::Usage,
            format_args!("{id} is the only cloak key: without one nobody could knock"),
        )
        .hint("spa-server cloak add, then retire this one"));
    }
    let clients = config.clients()?;
    let row = Row::of(id, &clients, &Known::read(config)?);
    let is_needed = !row.using.is_empty() || !row.waiting.is_empty();
    if is_needed && !force {
        let what = format_args!("cloak key {id} is in use: {}", row.people());
        return Err(Failure::new(Exit::Usage, what).hint(
            "spa-server client invite NAME gives a client the newest, client disable or remove shuts it out; \
             --force retires the key and shuts out all of them",
        ));
    }
    let mut wanted = keys.cloaks.clone();
    wanted.remove(place);
    rewrite(config, &wanted, |text| {
        let its = |line: &Zeroizing<String>| cloak_of(line).is_some_and(|cloak| cloak.id() == id);
        if let Some(at) = text.iter().position(its) {
            text.remove(at);
            if at > 0 && text[at - 1].trim_start().starts_with(&format!("# {id},")) {
                text.remove(at - 1); // what `add` said about it
            }
        }
    })?;
    say!("retired cloak key {id}: packets under it are refused as `tag`");
    reload_if_running(config)
}

/// A key and the clients that need it.
struct Row {
    id: String,
    /// Clients that used it last.
    using: Vec<ClientName>,
    /// Clients that never knocked, and were invited under it or nobody knows under which.
    waiting: Vec<ClientName>,
    last: Option<Date>,
}

impl Row {
    fn of(id: &str, clients: &[Client], known: &Known) -> Self {
        let mut row = Self { id: id.to_owned(), using: Vec::new(), waiting: Vec::new(), last: None };
        for client in clients.iter().filter(|client| matches!(known.state(client), "active")) {
            let invited = || client.invited_cloak.as_deref().is_none_or(|cloak| cloak == id);
            match known.cloak(client) {
                Some(used) if used == id => {
                    row.using.push(client.policy.name.clone());
                    row.last = row.last.max(known.last_knock(client));
                }
                None if invited() => row.waiting.push(client.policy.name.clone()),
                _ => {}
            }
        }
        row
    }

    fn people(&self) -> String {
        let list = |names: &[ClientName]| names.iter().map(ClientName::as_str).collect::<Vec<_>>().join(", ");
        match (self.using.is_empty(), self.waiting.is_empty()) {
            (true, true) => "nobody".to_owned(),
            (false, true) => list(&self.using),
            (true, false) => format!("never knocked, may have it: {}", list(&self.waiting)),
            (false, false) => {
                format!("{}; never knocked, may have it: {}", list(&self.using), list(&self.waiting))
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let list = |names: &[ClientName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        serde_json::json!({
            "id": self.id,
            "last-used-by": list(&self.using),
            "never-knocked": list(&self.waiting),
            "last-knock": self.last.map(|date| date.0),
        })
    }
}

fn is_cloak_line(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| name.trim() == "cloak")
}

fn cloak_of(line: &str) -> Option<CloakKey> {
    if !is_cloak_line(line) {
        return None;
    }
    CloakKey::from_base64(line.split_once('=')?.1.trim()).ok()
}

/// Changes lines of the key file. What comes out has to be a key file with the wanted cloak keys, or nothing is
/// written. Comments and the private key stay as they are.
fn rewrite(
    config: &Config,
    wanted: &[CloakKey],
    change: impl FnOnce(&mut Vec<Zeroizing<String>>),
) -> Outcome {
    let old = files::read_secret(&config.key_file)?;
    let mut lines: Vec<_> = old.lines().map(|line| Zeroizing::new(line.to_owned())).collect();
    change(&mut lines);
    let mut text = Zeroizing::new(String::with_capacity(old.len() + 128));
    for line in &lines {
        text.push_str(line);
        text.push('\n');
    }
    let path = config.key_file.display();
    let before = parse(&old);
    let after = parse(&text).map_err(|error| Failure::new(Exit::Data, format_args!("{path}: {error}")))?;
    if after.cloaks != wanted || !before.is_ok_and(|before| before.secret == after.secret) {
        return Err(Failure::new(Exit::Data, format_args!("{path} changed meanwhile; nothing was written"))
            .hint("the same command again"));
    }
    // A link stays one.
    let target = std::fs::canonicalize(&config.key_file).unwrap_or_else(|_| config.key_file.clone());
    files::write_atomically(&target, text.as_bytes(), 0o600, Existing::Replace)
}

fn parse(text: &str) -> Result<ServerKeyFile, KeyFileError> {
    ServerKeyFile::parse(text)
}
