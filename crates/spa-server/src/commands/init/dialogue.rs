//! The questions of `init`, each with a proposal. Also what its options say: both end in the same words.

use std::collections::BTreeMap;
use std::path::Path;

use spa_firewall::Except;
use spa_proto::{Endpoint, Network, ServiceName};

use super::listening::{Found, usual};
use super::whereabouts::Session;
use crate::error::Outcome;
use crate::log::say;
use crate::terminal::{ask, ask_until};
use spa_proto::Seconds;

/// Services as the configuration has them.
pub type Services = BTreeMap<ServiceName, Vec<Endpoint>>;

/// What to protect.
///
/// # Errors
/// Where the input ends.
pub fn services(found: &[Found]) -> Outcome<Services> {
    if found.is_empty() {
        say!("Nothing listens here to others. Name what will, as ssh=tcp/22.");
    } else {
        say!("These listen on this machine:");
        for (number, Found { name, endpoint, program }) in (1..).zip(found) {
            let program = program.as_deref().unwrap_or("-");
            say!("  {number:>2}  {name:<16} {endpoint:<10} {program}", endpoint = endpoint.to_string());
        }
    }
    let default = found.first().map(|one| one.name.to_string()).unwrap_or_default();
    say!("Which shall be open only to those who knock? (numbers, names, NAME=tcp/PORT)");
    let question = "Protect";
    ask_until(question, &default, |answer| chosen(answer, found))
}

/// Numbers, names and `NAME=ENDPOINT`, between spaces or commas.
fn chosen(answer: &str, found: &[Found]) -> Result<Services, String> {
    let mut services = Services::new();
    let mut last: Option<ServiceName> = None;
    for word in answer.split([' ', ',']).filter(|word| !word.is_empty()) {
        // "web=tcp/80,tcp/443": a bare endpoint belongs to the name before.
        if let (Ok(endpoint), Some(name)) = (word.parse(), &last) {
            services.entry(name.clone()).or_default().push(endpoint);
            continue;
        }
        let by_number = word.parse::<usize>().ok().map(|number| {
            let one = number.checked_sub(1).and_then(|index| found.get(index));
            one.map(|one| one.name.to_string()).ok_or(format!("there is no number {number}"))
        });
        let (name, endpoints) = service(&by_number.unwrap_or_else(|| Ok(word.to_owned()))?, found)?;
        last = word.contains('=').then(|| name.clone());
        services.insert(name, endpoints);
    }
    if services.is_empty() { Err("name at least one".to_owned()) } else { Ok(services) }
}

/// One `--service`: `NAME=ENDPOINT,ENDPOINT`, or the name of something that listens or is usual.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn service(text: &str, found: &[Found]) -> Result<(ServiceName, Vec<Endpoint>), String> {
    let (name, list) = text.split_once('=').map_or((text, None), |(name, list)| (name, Some(list)));
    let parsed: ServiceName = name.parse().map_err(|error| format!("{text:?}: {error}"))?;
    if let Some(list) = list {
        let mut endpoints = Vec::new();
        for word in list.split(',') {
            let endpoint = word.parse().map_err(|error| format!("{text:?}: {error}"))?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        return Ok((parsed, endpoints));
    }
    let listening: Vec<Endpoint> =
        found.iter().filter(|one| one.name == parsed).map(|one| one.endpoint).collect();
    if !listening.is_empty() {
        return Ok((parsed, listening));
    }
    match usual(name) {
        Some(endpoint) => Ok((parsed, vec![endpoint])),
        None => Err(format!("{name}: nothing of that name listens here; say where, as in {name}=tcp/PORT")),
    }
}

/// The port that knocks come to.
///
/// # Errors
/// Where the input ends.
pub fn port(proposal: u16, taken: &[Endpoint]) -> Outcome<u16> {
    say!("\nKnocks come to a UDP port at which nothing listens: any high one.");
    ask_until("UDP port", &proposal.to_string(), |answer| {
        let port: u16 = answer.parse().ok().filter(|port| *port != 0).ok_or("a port is 1 to 65535")?;
        match Endpoint::new(spa_proto::Protocol::Udp, port).filter(|endpoint| taken.contains(endpoint)) {
            Some(endpoint) => Err(format!("{endpoint} is a service")),
            None => Ok(port),
        }
    })
}

/// What is never filtered.
///
/// # Errors
/// Where the input ends.
pub fn except(session: Option<Session>) -> Outcome<Vec<Except>> {
    say!("\nFrom what is named here everything stays as it is now, knock or not: a way back");
    say!("in, and a way in for whoever else has such an address. The network that you");
    say!("administer from, say, or a VPN's interface.");
    let mut question = "Never filter (as 198.51.100.0/24 or wg0, or none)".to_owned();
    if let Some(Session { from, .. }) = session {
        say!("You are connected from {from}.");
        question = format!("Never filter (as {}, or none)", Network::single(from));
    }
    ask_until(&question, "none", |answer| {
        if ["none", "no", "n"].contains(&answer.to_ascii_lowercase().as_str()) {
            return Ok(Vec::new());
        }
        let words = answer.split([' ', ',']).filter(|word| !word.is_empty());
        words
            .map(|word| match word.parse().map_err(|error| format!("{word:?}: {error}"))? {
                // In the file it may name one that comes later; said here it is more likely a slip.
                Except::Interface(name) if !Path::new("/sys/class/net").join(name.as_str()).exists() => {
                    Err(format!("{word:?} is no network, and there is no such interface"))
                }
                except => Ok(except),
            })
            .collect()
    })
}

/// Whether to start now, and for how long unconfirmed.
///
/// # Errors
/// Where the input ends.
pub fn start(default: Seconds) -> Outcome<Option<Seconds>> {
    say!("\nProtection can be laid now, on trial: unless a valid knock or");
    say!("`spa-server confirm` comes in this time, all is as it was before. Sessions that");
    say!("are open now go on, and new ones want a knock: have a second one open by now to");
    say!("enrol a client from, or say no, enrol it, and start with `spa-server run`.");
    let default = default.to_string();
    ask_until("Start now, on trial for (as 120s or 10m, or no)", &default, |answer| match answer {
        "no" | "n" => Ok(None),
        _ => answer.parse().map(Some).map_err(|error: spa_proto::SecondsError| error.to_string()),
    })
}

/// The last question before anything is written.
///
/// # Errors
/// Where the input ends.
pub fn agreed() -> Outcome<bool> {
    let answer = ask("Write these?", "yes")?.to_ascii_lowercase();
    Ok(matches!(answer.as_str(), "yes" | "y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<Found> {
        let one = |name: &str, endpoint: &str| Found {
            name: name.parse().unwrap(),
            endpoint: endpoint.parse().unwrap(),
            program: None,
        };
        vec![one("ssh", "tcp/2222"), one("http", "tcp/80")]
    }

    fn shown(answer: &str) -> Result<String, String> {
        chosen(answer, &found()).map(|services| format!("{services:?}"))
    }

    #[test]
    fn answers_are_numbers_names_or_endpoints() {
        let both = shown("ssh http").unwrap();
        for same in ["1 2", "1,2", "2, ssh", "ssh=tcp/2222,http=tcp/80"] {
            assert_eq!(shown(same).as_deref(), Ok(&*both), "{same}");
        }
        let web = chosen("web=tcp/80,tcp/443 1", &found()).unwrap();
        assert_eq!(web[&"web".parse().unwrap()].len(), 2);
        assert!(chosen("postgresql", &found()).is_ok(), "a usual one need not listen yet");
        for (wrong, why) in [
            ("", "at least one"),
            ("3", "no number 3"),
            ("0", "no number 0"),
            ("quake", "quake=tcp/PORT"),
            ("SSH", "service name"),
            ("ssh=22", "tcp/PORT"),
            ("1 tcp/80", "service name"),
            ("ssh=", "tcp/PORT"),
        ] {
            let error = shown(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
