//! The client's configuration: its hosts. It holds no secrets; those are in each host's key file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use spa_proto::{Endpoint, PublicKey, Request, Requests, ServiceName, is_host};

use crate::address::Source;
use crate::config_error::ConfigError;
use crate::error::Error;
use crate::external::Resolver;

/// Longest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;
/// Longest name of a host entry, in bytes.
const MAX_HOST_NAME: usize = 64;

/// The hosts of a `client.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    hosts: Vec<Host>,
}

/// One server, as `[hosts.NAME]` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The entry's name, for people and for `ssh`.
    pub name: String,
    /// Host name or IP address.
    pub address: String,
    /// The SPA port, not 0.
    pub port: u16,
    /// The server's public key.
    pub server_key: PublicKey,
    /// The file with the private key, the psk and the cloak keys.
    pub key_file: PathBuf,
    /// Whose access to ask for.
    pub source: Source,
    /// Who is asked for the external address, where `source` is [`Source::Resolve`].
    pub resolver: Option<Resolver>,
    /// What the server calls its services, each with its endpoints.
    pub services: BTreeMap<ServiceName, Vec<Endpoint>>,
}

impl Config {
    /// Reads a configuration; relative key files are relative to its directory.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be read, [`Error::Config`] where it is wrong.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::File { action: "read", path: path.to_owned(), source };
        if path.metadata().map_err(error)?.len() > MAX_CONFIG {
            return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, "it is over 1 MiB")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(error)?, path)
    }

    /// Reads the text of the configuration that is, or will be, at `path`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let raw: RawConfig = toml::from_str(text)
            .map_err(|error| Error::Config(Box::new(ConfigError::new(path, text, &error))))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            hosts: raw.hosts.into_iter().map(|(name, host)| host.validated(name.0, directory)).collect(),
        })
    }

    /// The hosts, by name.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    fn names(&self) -> Vec<String> {
        self.hosts.iter().map(|host| host.name.clone()).collect()
    }

    /// The host with this name; without a name the only one.
    ///
    /// # Errors
    /// [`Error::UnknownHost`], [`Error::WhichHost`].
    pub fn host(&self, name: Option<&str>) -> Result<&Host, Error> {
        match (name, self.hosts.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => Err(Error::WhichHost { known: self.names() }),
            (Some(name), hosts) => hosts
                .iter()
                .find(|host| host.name == name)
                .ok_or_else(|| Error::UnknownHost { name: name.to_owned(), known: self.names() }),
        }
    }

    /// The host that ssh's `%n` or `%h` means: by name, else by address, and of several with one address the one
    /// that has a service on the port.
    ///
    /// # Errors
    /// [`Error::UnknownHost`], [`Error::AmbiguousAddress`].
    pub fn host_for(&self, name: &str, endpoint: Endpoint) -> Result<&Host, Error> {
        let same = |text: &str| text.eq_ignore_ascii_case(name.trim_end_matches('.'));
        if let Some(host) = self.hosts.iter().find(|host| host.name == name) {
            return Ok(host);
        }
        let mut found: Vec<&Host> =
            self.hosts.iter().filter(|host| same(&host.name) || same(&host.address)).collect();
        if found.len() > 1 && found.iter().any(|host| host.service_at(endpoint).is_some()) {
            found.retain(|host| host.service_at(endpoint).is_some());
        }
        match found.as_slice() {
            [host] => Ok(host),
            [] => {
                let addresses = self.hosts.iter().map(|host| host.address.clone());
                let known = self.names().into_iter().chain(addresses).collect();
                Err(Error::UnknownHost { name: name.to_owned(), known })
            }
            several => Err(Error::AmbiguousAddress {
                address: name.to_owned(),
                hosts: several.iter().map(|host| host.name.clone()).collect(),
            }),
        }
    }
}

impl Host {
    /// What a word of a command line asks for: a service of this host, or an endpoint such as `tcp/22`.
    ///
    /// # Errors
    /// [`Error::UnknownService`].
    pub fn request(&self, word: &str) -> Result<Request, Error> {
        if let Ok(endpoint) = word.parse() {
            return Ok(Request::Endpoint(endpoint));
        }
        match word.parse() {
            Ok(name) if self.services.contains_key(&name) => Ok(Request::Service(name)),
            _ => Err(Error::UnknownService {
                host: self.name.clone(),
                name: word.to_owned(),
                known: self.services.keys().map(ToString::to_string).collect(),
            }),
        }
    }

    /// The requests of several words, for one packet.
    ///
    /// # Errors
    /// [`Error::UnknownService`], and [`Error::RequestCount`] where they are more than 8.
    pub fn requests<S: AsRef<str>>(&self, words: &[S]) -> Result<Requests, Error> {
        let requests: Vec<Request> =
            words.iter().map(|word| self.request(word.as_ref())).collect::<Result<_, _>>()?;
        Requests::new(requests).ok_or(Error::RequestCount)
    }

    /// The request for a port: the service that has it, else the endpoint itself.
    pub fn request_for(&self, endpoint: Endpoint) -> Request {
        self.service_at(endpoint).map_or(Request::Endpoint(endpoint), |name| Request::Service(name.clone()))
    }

    /// The endpoints that a request stands for, as far as this entry knows.
    pub fn endpoints<'a>(&'a self, request: &'a Request) -> &'a [Endpoint] {
        match request {
            Request::Endpoint(endpoint) => std::slice::from_ref(endpoint),
            Request::Service(name) => self.services.get(name).map_or(&[], Vec::as_slice),
        }
    }

    fn service_at(&self, endpoint: Endpoint) -> Option<&ServiceName> {
        self.services.iter().find(|(_, endpoints)| endpoints.contains(&endpoint)).map(|(name, _)| name)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    hosts: BTreeMap<HostName, RawHost>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawHost {
    address: Address,
    port: Port,
    #[serde(deserialize_with = "from_str")]
    server_key: PublicKey,
    key_file: PathBuf,
    #[serde(default, deserialize_with = "from_str")]
    source: Source,
    #[serde(default, deserialize_with = "some_from_str")]
    resolver: Option<Resolver>,
    #[serde(default)]
    services: BTreeMap<Service, Endpoints>,
}

impl RawHost {
    fn validated(self, name: String, directory: &Path) -> Host {
        Host {
            name,
            address: self.address.0,
            port: self.port.0,
            server_key: self.server_key,
            key_file: directory.join(self.key_file),
            source: self.source,
            resolver: self.resolver,
            services: self.services.into_iter().map(|(name, list)| (name.0, list.0)).collect(),
        }
    }
}

fn from_str<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn some_from_str<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    from_str(deserializer).map(Some)
}

/// A name that an entry, and a key file after it, can have.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct HostName(String);

/// Whether a text can name a host entry: 1 to 64 of letters, digits, `.`, `_`, `-`, beginning with a letter or digit.
pub fn is_host_name(text: &str) -> bool {
    text.len() <= MAX_HOST_NAME
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_host_name(&text) {
            Ok(Self(text))
        } else {
            Err(de::Error::custom("a host's name is 1 to 64 of letters, digits, '.', '_' and '-'"))
        }
    }
}

struct Address(String);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_host(&text) {
            Ok(Self(text))
        } else {
            Err(de::Error::custom("expected a host name or an IP address, without port and brackets"))
        }
    }
}

struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::try_from(i64::deserialize(deserializer)?) {
            Ok(port) if port != 0 => Ok(Self(port)),
            _ => Err(de::Error::custom("a port is from 1 to 65535")),
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Service(ServiceName);

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_str(deserializer).map(Self)
    }
}

/// One endpoint, or a list of them.
struct Endpoints(Vec<Endpoint>);

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> de::Visitor<'de> for OneOrMore {
            type Value = Vec<Endpoint>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an endpoint such as \"tcp/22\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map(|endpoint| vec![endpoint]).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut endpoints = Vec::new();
                while let Some(Item(endpoint)) = items.next_element()? {
                    endpoints.push(endpoint);
                }
                if endpoints.is_empty() {
                    Err(de::Error::custom("a service has an endpoint"))
                } else {
                    Ok(endpoints)
                }
            }
        }

        deserializer.deserialize_any(OneOrMore).map(Self)
    }
}

struct Item(Endpoint);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_str(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests;
