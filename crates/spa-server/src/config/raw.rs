//! The files as serde reads them. Every value is checked here by its type, so that an error points at its place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use spa_firewall::Except;
use spa_firewall::nftables::Mark;
use spa_proto::{ClientName, Endpoint, Network, PublicKey, Seconds, ServiceName};

use super::date::Date;

/// A value that is written as text and read by its `FromStr`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<T>(pub T);

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// `/etc/spa/server.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerFile {
    #[serde(default)]
    pub server: Server,
    #[serde(default)]
    pub firewall: Firewall,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub services: BTreeMap<Text<ServiceName>, Endpoints>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Server {
    pub port: Option<Port>,
    pub key_file: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    pub clients_dir: Option<PathBuf>,
    pub interfaces: Option<Vec<String>>,
    pub user: Option<String>,
    pub capture_threads: Option<CaptureThreads>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Firewall {
    #[serde(default)]
    pub backend: Backend,
    #[serde(default)]
    pub iptables: Variant,
    pub mark: Option<Text<Mark>>,
    pub protect: Option<bool>,
    #[serde(default)]
    pub except: Vec<Text<Except>>,
}

/// Which firewall holds the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// iptables and ip6tables.
    #[default]
    Iptables,
    /// The table `inet spa`.
    Nftables,
    /// Whichever suits the host.
    Auto,
}

/// Which of the two iptables is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Whatever `iptables` is on this machine.
    #[default]
    System,
    /// `iptables-nft`.
    Nft,
    /// `iptables-legacy`.
    Legacy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    pub max_age: Option<Text<MaxAge>>,
    pub open_for: Option<Text<OpenFor>>,
    pub max_open_for: Option<Text<OpenFor>>,
    pub max_grants: Option<u32>,
}

/// A client's file in `clients.d`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientFile {
    pub name: Text<ClientName>,
    pub public_key: Text<PublicKey>,
    pub psk_file: PathBuf,
    pub allow: Vec<Text<ServiceName>>,
    #[serde(default)]
    pub sources: Vec<Text<Network>>,
    #[serde(default)]
    pub require_bound: bool,
    #[serde(default)]
    pub allow_explicit: bool,
    pub max_open_for: Option<Text<OpenFor>>,
    pub max_grants: Option<u32>,
    pub valid_until: Option<Text<Date>>,
    pub first_knock_by: Option<Text<Date>>,
    #[serde(default)]
    pub disabled: bool,
    pub host: Option<Text<HostName>>,
    pub cloak: Option<String>,
}

/// A host name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(pub String);

impl FromStr for HostName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let right = spa_proto::is_host(text).then(|| Self(text.to_owned()));
        right.ok_or("expected a host name or an address, without port and brackets")
    }
}

/// A UDP port, not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(pub u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            0 => Err(de::Error::custom("a port is 1 to 65535")),
            port => Ok(Self(port)),
        }
    }
}

/// Most threads that read packets. Each has a ring a family, 4 MiB in all.
const MAX_CAPTURE_THREADS: u8 = 16;

/// How many threads read packets: 1 to [`MAX_CAPTURE_THREADS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureThreads(pub u8);

impl<'de> Deserialize<'de> for CaptureThreads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            threads @ 1..=MAX_CAPTURE_THREADS => Ok(Self(threads)),
            _ => Err(de::Error::custom(format_args!("capture-threads is 1 to {MAX_CAPTURE_THREADS}"))),
        }
    }
}

/// One endpoint or a list of them.
#[derive(Debug)]
pub struct Endpoints(pub Vec<Endpoint>);

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> de::Visitor<'de> for OneOrMany {
            type Value = Endpoints;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an endpoint such as \"tcp/22\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Endpoints, E> {
                text.parse().map(|endpoint| Endpoints(vec![endpoint])).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Endpoints, A::Error> {
                let mut endpoints = Vec::new();
                while let Some(Text(endpoint)) = list.next_element()? {
                    if !endpoints.contains(&endpoint) {
                        endpoints.push(endpoint);
                    }
                }
                match endpoints.len() {
                    0 => Err(de::Error::custom("a service has at least one endpoint")),
                    1..=MAX_ENDPOINTS => Ok(Endpoints(endpoints)),
                    _ => Err(de::Error::custom("a service has at most 64 endpoints")),
                }
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// Most endpoints of one service; an invite names them all.
const MAX_ENDPOINTS: usize = 64;

const fn seconds(duration: std::time::Duration) -> u32 {
    duration.as_secs() as u32 // minutes, not centuries
}

/// Defines a length of time with bounds, in seconds.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $range:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub Seconds);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let seconds: Seconds = text.parse().map_err(|error: spa_proto::SecondsError| error.to_string())?;
                if ($range).contains(&seconds.0) { Ok(Self(seconds)) } else { Err($rule.to_owned()) }
            }
        }
    };
}

bounded!(
    /// How old a packet may be: 5 s to 10 min, either way.
    MaxAge,
    seconds(spa_gate::MIN_MAX_AGE)..=seconds(spa_gate::MAX_MAX_AGE),
    "max-age is 5s to 10m"
);
bounded!(
    /// How long a port stays open: 1 s to 7 days.
    OpenFor,
    1..=7 * 86_400,
    "a port is open for 1s to 7d"
);
