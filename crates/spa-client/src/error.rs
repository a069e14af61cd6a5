//! What can go wrong in the library: what happened and where; [`Error::hint`] says what to try.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spa_proto::{KeyFileError, MAX_REQUESTS};

use crate::config_error::ConfigError;
use crate::secret_file::Exposure;
use crate::suggest::nearest;

/// Why a knock was not sent, or a connection not made. It never holds any part of a secret.
#[derive(Debug)]
pub enum Error {
    /// The configuration does not parse, or a value in it is wrong.
    Config(Box<ConfigError>),
    /// A file could not be read or written.
    File {
        /// What was tried, as in "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that holds secrets can be read or replaced by others.
    Exposed(Exposure),
    /// The key file is not one.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        source: KeyFileError,
    },
    /// The configuration has no such host.
    UnknownHost {
        /// What was asked for.
        name: String,
        /// The hosts that it has.
        known: Vec<String>,
    },
    /// No host was named, and the configuration has not exactly one.
    WhichHost {
        /// The hosts that it has.
        known: Vec<String>,
    },
    /// Several hosts have this address, and the port does not tell which is meant.
    AmbiguousAddress {
        /// What was asked for.
        address: String,
        /// The hosts that have it.
        hosts: Vec<String>,
    },
    /// The host has no such service, and it is no endpoint either.
    UnknownService {
        /// The host.
        host: String,
        /// What was asked for.
        name: String,
        /// The services that it has.
        known: Vec<String>,
    },
    /// None or too many services in one knock.
    RequestCount,
    /// The two static keys have no shared secret.
    UselessKeys {
        /// The host.
        host: String,
    },
    /// The source is `resolve`, and the host has no resolver.
    NoResolver {
        /// The host.
        host: String,
    },
    /// The host's address did not resolve.
    Resolve {
        /// The name that was looked up.
        address: String,
        /// Why not; `None` where it has no address of the wanted family.
        source: Option<io::Error>,
    },
    /// No packet could be sent to any of the addresses.
    NotSent {
        /// Each address and why not.
        failed: Vec<(SocketAddr, io::Error)>,
    },
    /// The clock shows a time before 1970.
    Clock,
    /// The operating system gave no random bytes.
    Random(io::Error),
    /// Nothing answered at the port in time. Whether it opened cannot be told from here.
    NoAnswer {
        /// The host and port, for people.
        target: String,
        /// How long was tried.
        waited: Duration,
        /// An ICMP error came back from the SPA port: nobody protects it.
        unprotected: bool,
        /// Every packet asked for the address that the server sees.
        observed: bool,
    },
    /// The port answered that nobody listens (or a firewall said so in its place), until the time was over.
    Refused {
        /// The host and port, for people.
        target: String,
        /// How long was tried.
        waited: Duration,
    },
}

impl Error {
    /// What to try, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint().map(str::to_owned),
            Self::Exposed(exposure) => Some(exposure.hint()),
            Self::UnknownHost { name, known } => Some(choice(name, known, "hosts", "spa-client import adds one")),
            Self::WhichHost { known } if known.is_empty() => {
                Some("spa-client import --name NAME takes the invite of a server's administrator".to_owned())
            }
            Self::WhichHost { known } => Some(format!("name one with --host: {}", known.join(", "))),
            Self::AmbiguousAddress { hosts, .. } => Some(format!("use the name instead: {}", hosts.join(", "))),
            Self::UnknownService { name, .. } if name.contains('/') => {
                Some("an endpoint is tcp/PORT or udp/PORT, with a port from 1 to 65535".to_owned())
            }
            Self::UnknownService { name, known, .. } => {
                Some(choice(name, known, "services", "an endpoint such as tcp/22 works without an entry"))
            }
            Self::KeyFile { .. } | Self::UselessKeys { .. } => Some(NEW_INVITE.to_owned()),
            Self::File { path, source, .. } if source.kind() == io::ErrorKind::NotFound && is_key_file(path) => {
                Some(NEW_INVITE.to_owned())
            }
            Self::Resolve { .. } => {
                Some("is the name right (spa-client hosts), and does name resolution work here?".to_owned())
            }
            Self::NoAnswer { unprotected: true, .. } => Some(
                "the host answered that its SPA port is closed, which a running server never lets it do: \
                 is the server running there, is the port right?"
                    .to_owned(),
            ),
            Self::NoAnswer { observed, .. } => {
                let address = if *observed {
                    ""
                } else {
                    "the server saw another address than the one asked for (try --source observed); "
                };
                Some(format!(
                    "likely reasons: this clock or the server's is wrong by a minute or more; {address}its policy does \
                     not allow this; the keys here were replaced or retired on the server (its administrator makes a new \
                     invite, spa-client import --update takes it); spa-server does not run there; or the packet was lost \
                     or blocked on the path (spa-client check). On the server, spa-server status and its log tell which"
                ))
            }
            Self::Refused { .. } => Some(
                "the port opened and nothing listens there; or a firewall rejects in its place; or no spa-server protects \
                 it there: is this the right host and port, does the server run?"
                    .to_owned(),
            ),
            Self::NotSent { .. } => {
                Some("spa-client check shows the addresses, and by which of its own this machine reaches them".to_owned())
            }
            Self::Clock => Some("set this machine's clock".to_owned()),
            Self::NoResolver { .. } => Some(
                "put resolver = \"https://...\" or \"dns:NAME@SERVER\" into its entry, or choose another source"
                    .to_owned(),
            ),
            Self::File { .. } | Self::RequestCount | Self::Random(_) => None,
        }
    }
}

/// What to do without the keys.
const NEW_INVITE: &str = "import the invite again, or ask the server's administrator for a new one";

/// By its name, as import writes it.
fn is_key_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "key")
}

fn choice(word: &str, known: &[String], what: &str, otherwise: &str) -> String {
    match nearest(word, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None if known.is_empty() => otherwise.to_owned(),
        None => format!("the {what} are {}; {otherwise}", known.join(", ")),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::File { action, path, source } => write!(f, "cannot {action} {}: {source}", path.display()),
            Self::Exposed(exposure) => exposure.fmt(f),
            Self::KeyFile { path, source } => write!(f, "{}: {source}", path.display()),
            Self::UnknownHost { name, .. } => write!(f, "no host \"{name}\" in the configuration"),
            Self::WhichHost { known } if known.is_empty() => f.write_str("the configuration has no host"),
            Self::WhichHost { .. } => f.write_str("the configuration has several hosts"),
            Self::AmbiguousAddress { address, .. } => write!(f, "several hosts have the address {address}"),
            Self::UnknownService { host, name, .. } => write!(f, "host \"{host}\" has no service \"{name}\""),
            Self::RequestCount => write!(f, "a knock asks for 1 to {MAX_REQUESTS} services"),
            Self::UselessKeys { host } => write!(f, "the keys of host \"{host}\" are useless"),
            Self::Resolve { address, source: Some(source) } => {
                write!(f, "cannot resolve {address}: {source}")
            }
            Self::Resolve { address, source: None } => {
                write!(f, "{address} has no address of the wanted family")
            }
            Self::NotSent { failed } => {
                f.write_str("the knock could not be sent")?;
                let mut before = " to";
                failed.iter().try_for_each(|(address, error)| {
                    write!(f, "{before} {address}: {error}")?;
                    before = "; to";
                    Ok(())
                })
            }
            Self::NoResolver { host } => {
                write!(f, "host \"{host}\" has no resolver to ask for the external address")
            }
            Self::Random(source) => write!(f, "the system gave no random bytes: {source}"),
            Self::Clock => f.write_str("the clock shows a time before 1970"),
            Self::NoAnswer { target, waited, .. } => write!(
                f,
                "could not tell whether {target} opened: no answer in {} s",
                waited.as_secs_f32().round()
            ),
            Self::Refused { target, waited } => {
                write!(f, "{target} refused every connection for {} s", waited.as_secs_f32().round())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::Resolve { source: Some(source), .. } | Self::Random(source) => {
                Some(source)
            }
            Self::KeyFile { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_what_may_be_so_and_nothing_else() {
        let (target, waited) = (String::from("tcp/22 of bastion"), Duration::from_secs(5));
        let unanswered =
            |unprotected, observed| Error::NoAnswer { target: target.clone(), waited, unprotected, observed };
        for (error, with, without) in [
            (
                unanswered(false, false),
                &["--source observed", "replaced or retired", "import --update", "clock", "policy"][..],
                "closed",
            ),
            (
                unanswered(false, true),
                &["replaced or retired", "clock", "lost", "does not run", "status"],
                "--source",
            ),
            (unanswered(true, false), &["is the server running"], "--source"),
            (
                Error::Refused { target: target.clone(), waited },
                &["nothing listens there", "a firewall rejects", "no spa-server protects it there"],
                "--source",
            ),
        ] {
            let hint = error.hint().unwrap_or_default();
            for word in with {
                assert!(hint.contains(word), "{error:?}: no \"{word}\" in: {hint}");
            }
            assert!(!hint.contains(without), "{error:?}: {without} in: {hint}");
        }
    }
}
