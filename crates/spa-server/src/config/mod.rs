//! The configuration, checked: what every other part of the server is told.

pub mod date;
mod raw;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use spa_firewall::nftables::Mark;
use spa_firewall::{Except, Protection};
use spa_gate::{ClientPolicy, DEFAULT_MAX_GRANTS, DEFAULT_MAX_GRANTS_PER_CLIENT};
use spa_proto::{ClientName, Endpoint, Psk, PublicKey, ServerKeyFile, ServiceName};

use crate::error::{Exit, Failure, Outcome, counted};
use crate::files;

pub use raw::{Backend, Variant};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/spa/server.toml";
/// The port where none is configured: fwknop's, and so known to scanners.
pub const DEFAULT_PORT: u16 = 62201;
/// The copy of the configuration that last worked, in the state directory.
const LAST_GOOD: &str = "last-good.toml";
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);
const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(30);
const DEFAULT_MAX_OPEN_FOR: Duration = Duration::from_secs(3_600);
/// Longest message of the TOML parser that is shown, in characters: it may name a key of the file.
const MAX_MESSAGE: usize = 400;
/// Most clients: what the verifier's tables and the start-up time are meant for.
const MAX_CLIENTS: usize = 100_000;

/// `server.toml`, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Its text, kept as the last good one once it has worked.
    text: String,
    /// The UDP port that knocks come to.
    pub port: u16,
    /// The private key and the cloak keys.
    pub key_file: PathBuf,
    /// Replay record, control socket, last good configuration.
    pub state_dir: PathBuf,
    /// One file a client.
    pub clients_dir: PathBuf,
    /// Interfaces to capture on; `None` for all.
    pub interfaces: Option<Vec<String>>,
    /// The user that the verifier becomes, by name.
    pub user: Option<String>,
    /// How many threads read packets.
    pub capture_threads: u8,
    /// Which firewall.
    pub backend: Backend,
    /// Which iptables.
    pub variant: Variant,
    /// Set on what nftables lets in.
    pub mark: Option<Mark>,
    /// Whether services are closed by us.
    pub protect: bool,
    /// What is never filtered.
    pub except: Vec<Except>,
    /// How old a packet may be, either way.
    pub max_age: Duration,
    /// How long a port is open when the client names no duration.
    pub open_for: Duration,
    /// The longest that a port is open.
    pub max_open_for: Duration,
    /// Most grants at once.
    pub max_grants: u32,
    /// The protected services.
    pub services: BTreeMap<ServiceName, Vec<Endpoint>>,
}

/// An enrolled client: its policy and its psk.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it may do.
    pub policy: ClientPolicy,
    /// What it shares with this server.
    pub psk: Psk,
    /// The file that enrols it.
    pub path: PathBuf,
    /// The file with its psk.
    pub psk_path: PathBuf,
    /// Known, but not let in.
    pub disabled: bool,
    /// What its invites name as this server's address.
    pub host: Option<String>,
    /// The cloak key that its last invite carried, by its id.
    pub invited_cloak: Option<String>,
}

impl Config {
    /// Reads and checks the file; the defaults where the path is the default one and nothing is there.
    ///
    /// # Errors
    /// A file that is missing, unreadable or writable by others; with file, line, column and what would be right for
    /// every error in it.
    pub fn load(path: &Path) -> Outcome<Self> {
        let text = files::read_config(path).map_err(|failure| match failure.exit {
            Exit::NoInput => failure.hint("spa-server init writes it; --config FILE names another"),
            _ => failure,
        })?;
        Self::parse(path, text)
    }

    /// Reads and checks a text that is to be written there.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_text(path: &Path, text: &str) -> Outcome<Self> {
        Self::parse(path, text.to_owned())
    }

    /// The configuration that last worked.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_last_good(state_dir: &Path) -> Outcome<Self> {
        // Its relative paths are those of the file that it is a copy of.
        Self::load(&state_dir.join(LAST_GOOD))
            .map(|config| Self { state_dir: state_dir.to_owned(), ..config })
    }

    /// All defaults, as if the file were there and empty.
    pub fn defaults() -> Outcome<Self> {
        Self::parse(Path::new(DEFAULT_PATH), String::new())
    }

    /// Keeps this configuration as the one that last worked, for `spa-server protect`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep_as_last_good(&self) -> Outcome {
        files::write_atomically(
            &self.state_dir.join(LAST_GOOD),
            self.text.as_bytes(),
            0o600,
            files::Existing::Replace,
        )
    }

    fn parse(path: &Path, text: String) -> Outcome<Self> {
        let raw: raw::ServerFile = from_toml(path, &text)?;
        let relative = |given: Option<PathBuf>, default: &str| {
            files::directory_of(path).join(given.unwrap_or_else(|| PathBuf::from(default)))
        };
        let limits = raw.limits;
        let seconds = |given: Option<raw::Text<raw::OpenFor>>, default| {
            given.map_or(default, |text| text.0.0.duration())
        };
        let config = Self {
            port: raw.server.port.map_or(DEFAULT_PORT, |port| port.0),
            key_file: relative(raw.server.key_file, "/etc/spa/server.key"),
            state_dir: relative(raw.server.state_dir, "/var/lib/spa"),
            clients_dir: relative(raw.server.clients_dir, "/etc/spa/clients.d"),
            interfaces: raw.server.interfaces,
            user: raw.server.user,
            capture_threads: raw.server.capture_threads.map_or(1, |threads| threads.0),
            backend: raw.firewall.backend,
            variant: raw.firewall.iptables,
            mark: raw.firewall.mark.map(|text| text.0),
            protect: raw.firewall.protect.unwrap_or(true),
            except: without_repeats(raw.firewall.except.into_iter().map(|text| text.0)),
            max_age: limits.max_age.map_or(DEFAULT_MAX_AGE, |text| text.0.0.duration()),
            open_for: seconds(limits.open_for, DEFAULT_OPEN_FOR),
            max_open_for: seconds(limits.max_open_for, DEFAULT_MAX_OPEN_FOR),
            max_grants: limits.max_grants.unwrap_or(DEFAULT_MAX_GRANTS),
            services: raw.services.into_iter().map(|(name, endpoints)| (name.0, endpoints.0)).collect(),
            path: path.to_owned(),
            text,
        };
        config.check()?;
        Ok(config)
    }

    /// What no single value shows to be wrong.
    fn check(&self) -> Outcome {
        let wrong =
            |what: String| Failure::new(Exit::Config, format_args!("{}: {what}", self.path.display()));
        if self.open_for > self.max_open_for {
            return Err(wrong("limits.open-for is longer than limits.max-open-for".to_owned()));
        }
        if self.mark.is_some() && self.backend == Backend::Iptables {
            return Err(wrong("firewall.mark is set by nftables alone".to_owned())
                .hint("backend = \"nftables\"; with iptables no other rule needs to know"));
        }
        if let Some(names) = &self.interfaces {
            spa_capture::Interfaces::named(names.iter().map(String::as_str))
                .map_err(|error| wrong(format!("server.interfaces: {error}")))?;
        }
        let spa = Endpoint::new(spa_proto::Protocol::Udp, self.port);
        let owner = self
            .services
            .iter()
            .find(|(_, endpoints)| endpoints.iter().any(|endpoint| Some(*endpoint) == spa));
        if let Some((name, _)) = owner {
            return Err(wrong(format!(
                "service {name} is on udp/{}, the port that knocks come to",
                self.port
            )));
        }
        Ok(())
    }

    /// What stands in the firewall whoever has a grant.
    pub fn protection(&self) -> Protection {
        Protection {
            spa_port: self.port,
            protect: self.protect,
            except: self.except.clone(),
            services: self.endpoints(),
            provisional_until: None,
        }
    }

    /// Every protected endpoint.
    pub fn endpoints(&self) -> BTreeSet<Endpoint> {
        self.services.values().flatten().copied().collect()
    }

    /// The server's keys.
    ///
    /// # Errors
    /// A key file that is missing, malformed, or that others can read.
    pub fn keys(&self) -> Outcome<ServerKeyFile> {
        let text = files::read_secret(&self.key_file).map_err(|failure| match failure.exit {
            Exit::NoInput => failure.hint(self.how_to_get_keys()),
            _ => failure,
        })?;
        ServerKeyFile::parse(&text)
            .map_err(|error| Failure::new(Exit::Data, format_args!("{}: {error}", self.key_file.display())))
    }

    fn how_to_get_keys(&self) -> String {
        match self.client_files().map_or(0, |files| files.len()) {
            0 => "spa-server keygen".to_owned(),
            enrolled => format!(
                "put it back from a backup: a new one (spa-server keygen) shuts out all that were enrolled under the old \
                 one, {}",
                counted(enrolled, "client")
            ),
        }
    }

    /// Every client, sorted by name.
    ///
    /// # Errors
    /// One bad file fails all: a client left out silently would be a client shut out. No directory is no client.
    pub fn clients(&self) -> Outcome<Vec<Client>> {
        let (clients, failures) = self.clients_and_failures()?;
        failures.into_iter().next().map_or(Ok(clients), Err)
    }

    /// The clients whose files are right, sorted by name, and what is wrong with the others.
    ///
    /// # Errors
    /// Where the directory cannot be listed, or holds too many.
    pub fn clients_and_failures(&self) -> Outcome<(Vec<Client>, Vec<Failure>)> {
        let (mut clients, mut failures) = (Vec::new(), Vec::new());
        for path in self.client_files()? {
            match self.client(&path) {
                Ok(client) => clients.push(client),
                Err(failure) => failures.push(failure),
            }
        }
        failures.extend(check_unique(&clients).err());
        Ok((clients, failures))
    }

    fn client_files(&self) -> Outcome<Vec<PathBuf>> {
        let mut paths = Vec::new();
        match std::fs::read_dir(&self.clients_dir) {
            Ok(entries) => {
                for entry in entries {
                    let path =
                        entry.map_err(|error| Failure::io("cannot list", &self.clients_dir, &error))?.path();
                    // What an editor or package manager leaves has another ending, or begins with a dot.
                    let is_hidden =
                        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                    if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") {
                        paths.push(path);
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::io("cannot list", &self.clients_dir, &error)),
        }
        if paths.len() > MAX_CLIENTS {
            return Err(Failure::new(
                Exit::Config,
                format_args!("{}: more than {MAX_CLIENTS} clients", self.clients_dir.display()),
            ));
        }
        paths.sort();
        Ok(paths)
    }

    fn client(&self, path: &Path) -> Outcome<Client> {
        let raw: raw::ClientFile = from_toml(path, &files::read_config(path)?)?;
        let wrong = |what: String| Failure::new(Exit::Config, format_args!("{}: {what}", path.display()));
        let name = raw.name.0;
        if path.file_stem().is_none_or(|stem| stem != name.as_str()) {
            return Err(wrong(format!("client {name} belongs in a file {name}.toml")));
        }
        let allow: Vec<ServiceName> = raw.allow.into_iter().map(|text| text.0).collect();
        if let Some(unknown) = allow.iter().find(|service| !self.services.contains_key(service)) {
            let known = self.services.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("allow: there is no service {unknown} in {}", self.path.display()))
                .hint(format_args!("one of: {known}")));
        }
        let psk_path = files::directory_of(path).join(raw.psk_file);
        let psk = files::read_secret(&psk_path).map_err(|failure| failure.within(path, "psk-file"))?;
        let psk = spa_proto::parse_psk_file(&psk)
            .map_err(|error| Failure::new(Exit::Data, format_args!("{}: {error}", psk_path.display())))?;
        let policy = ClientPolicy {
            name,
            key: raw.public_key.0,
            allow,
            sources: raw.sources.into_iter().map(|text| text.0).collect(),
            require_bound: raw.require_bound,
            allow_explicit: raw.allow_explicit,
            max_open_for: raw.max_open_for.map(|text| text.0.0.duration()),
            max_grants: raw.max_grants.unwrap_or(DEFAULT_MAX_GRANTS_PER_CLIENT),
            valid_until: raw.valid_until.map(|text| text.0.0),
            first_knock_by: raw.first_knock_by.map(|text| text.0.0),
        };
        Ok(Client {
            policy,
            psk,
            path: path.to_owned(),
            psk_path,
            disabled: raw.disabled,
            host: raw.host.map(|text| text.0.0),
            invited_cloak: raw.cloak,
        })
    }

    /// The file that enrols a client of this name.
    pub fn client_path(&self, name: &ClientName) -> PathBuf {
        self.clients_dir.join(format!("{name}.toml"))
    }

    /// One client.
    ///
    /// # Errors
    /// Where there is none of this name, or its files are wrong.
    pub fn client_named(&self, name: &ClientName) -> Outcome<Client> {
        let path = self.client_path(name);
        if !path.exists() {
            let what = format_args!("there is no client {name} in {}", self.clients_dir.display());
            return Err(Failure::new(Exit::NoInput, what).hint("spa-server client list"));
        }
        self.client(&path)
    }
}

/// In their order; what is listed twice is meant once.
fn without_repeats(list: impl Iterator<Item = Except>) -> Vec<Except> {
    let mut seen = BTreeSet::new();
    list.filter(|except| seen.insert(except.clone())).collect()
}

/// Two clients with one key would be one client with two policies.
fn check_unique(clients: &[Client]) -> Outcome {
    let mut keys: BTreeMap<PublicKey, &ClientName> = BTreeMap::new();
    for client in clients {
        if let Some(other) = keys.insert(client.policy.key, &client.policy.name) {
            let what = format_args!("{}: client {other} has the same public key", client.path.display());
            return Err(Failure::new(Exit::Config, what)
                .hint("every client has a key of its own: spa-server client add"));
        }
    }
    Ok(())
}

/// Reads TOML; an error has the file, line, column, and what would be right. It never repeats the line, which may be
/// long, hold control characters, or hold a key that was pasted into the wrong file.
fn from_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Outcome<T> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or(String::new(), |span| {
            let before = &text.as_bytes()[..span.start.min(text.len())];
            let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
            format!(":{line}:{column}")
        });
        let shown = |character: char| if character.is_control() { ' ' } else { character };
        let shown = |text: String| text.chars().map(shown).take(MAX_MESSAGE).collect::<String>();
        let (message, hint) = wording::reword(error.message());
        let failure =
            Failure::new(Exit::Config, format_args!("{}{place}: {}", path.display(), shown(message)));
        match hint {
            Some(hint) => failure.hint(shown(hint)),
            None => failure,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Config> {
        Config::parse(Path::new("/etc/spa/server.toml"), text.to_owned())
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = parse("").unwrap();
        assert_eq!((config.port, config.protect), (DEFAULT_PORT, true));
        assert_eq!(config.key_file, Path::new("/etc/spa/server.key"));
        assert!(config.endpoints().is_empty());
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        assert_eq!(parse("[server]\nkey-file = \"my.key\"").unwrap().key_file, Path::new("/etc/spa/my.key"));
    }

    #[test]
    fn errors_name_the_place_and_what_would_be_right() {
        let unknown = error("[server]\nport = 1\nprot = 2\n");
        assert!(unknown.contains("/etc/spa/server.toml:3:1") && unknown.contains("`port`"), "{unknown}");
        let endpoint = error("[services]\nssh = \"tcp/0\"\n");
        assert!(endpoint.contains("server.toml:2:7") && endpoint.contains("tcp/PORT"), "{endpoint}");
        assert!(error("[server]\nport = 0").contains("1 to 65535"));
        for threads in [0, 17] {
            assert!(error(&format!("[server]\ncapture-threads = {threads}")).contains("1 to 16"));
        }
        assert!(error("[limits]\nmax-age = \"2h\"").contains("5s to 10m"));
        assert!(error("[limits]\nopen-for = \"2h\"").contains("longer than"));
        assert!(error("[services]\nSSH = \"tcp/22\"").contains("service name"));
        assert!(error("[firewall]\nexcept = [\"192.0.2.1/24\"]").contains("192.0.2.0/24"));
        assert!(error("[services]\nspa = \"udp/62201\"").contains("knocks come to"));
        assert!(error("[services]\nweb = []").contains("at least one"));
        assert!(error("[firewall]\nbackend = \"nftables\"\nmark = \"5\"").contains("hexadecimal"));
        assert!(error("[firewall]\nmark = \"0x1\"").contains("nftables alone"));
        assert!(error("[server").contains("server.toml:1:"));
        let hostile = error(&format!("[server]\n\"\\u001b[31m{}\" = 1", "x".repeat(100_000)));
        assert!(hostile.len() < 1_000 && !hostile.contains('\u{1b}'), "{hostile:?}");
    }

    #[test]
    fn the_wrong_kind_of_value_is_told_with_the_right_one() {
        for (text, place, what, remedy) in [
            ("[server]\nport = \"22\"", "2:8", "string \"22\", expected a port", "without quotation marks"),
            ("[server]\nport = 70000", "2:8", "`70000`, expected a port", "1 to 65535"),
            ("[server]\ncapture-threads = 300", "2:19", "a number of threads", "1 to 16"),
            ("[server]\nkey-file = 5", "2:12", "expected a path", "quotation marks"),
            ("[server]\ninterfaces = \"eth0\"", "2:14", "expected a list", "brackets"),
            ("[firewall]\nprotect = \"yes\"", "2:11", "true or false", "without quotation marks"),
            ("[firewall]\nbackend = true", "2:11", "expected text", "quotation marks"),
            ("[limits]\nmax-age = 60", "2:11", "expected text", "\"60s\""),
            ("[limits]\nmax-grants = -5", "2:14", "whole number", "from 0"),
            ("[services]\nssh = tcp/22", "2:7", "not a value", "ssh = \"tcp/22\""),
            ("[services]\nssh = udp/22", "2:7", "not a value", "ssh = \"tcp/22\""),
            ("port = 5", "1:1", "unknown key `port`", "each a section, as in [server]"),
            ("server = 5", "1:10", "a section of keys", "[server]"),
            ("[server", "1:8", "without its end", "[server]"),
            ("[server]\nport: 5", "2:", "without a value", "port = 23117"),
            ("[server]\nport = 5\nport = 6", "3:1", "a second time", "take one"),
        ] {
            let error = error(text);
            let (said, tried) = error.split_once("\n  try: ").unwrap_or((&error, ""));
            assert!(
                said.contains(&format!("server.toml:{place}")) && said.contains(what),
                "{text:?}: {error}"
            );
            assert!(tried.contains(remedy), "{text:?}: {error}");
        }
    }
}
