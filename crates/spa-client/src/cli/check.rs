//! `check`: what could keep a knock from working, as far as it can be seen from here.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use spa_proto::Address;

use super::clock::is_synchronized;
use super::failure::{Failure, UNAVAILABLE};
use super::say::print;
use crate::config::{Config, Host};
use crate::error::Error;
use crate::knocker::{Knocker, Options, local_address};
use crate::resolve::{Family, resolve};

/// The clock is this far off before a server with the default `max-age` refuses.
const CLOCK_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Worth knowing, or not to be known.
    Note,
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Bad => "BAD",
        }
    }
}

/// The findings so far, and the exit code of the first bad one.
#[derive(Default)]
struct Findings {
    list: Vec<(Option<String>, &'static str, Verdict, String)>,
    code: Option<u8>,
}

impl Findings {
    fn add(&mut self, host: Option<&Host>, what: &'static str, verdict: Verdict, detail: impl Into<String>) {
        self.list.push((host.map(|host| host.name.clone()), what, verdict, detail.into()));
    }

    fn bad(&mut self, host: Option<&Host>, what: &'static str, error: Error) {
        let Failure { code, message, hint } = error.into();
        self.code.get_or_insert(code);
        let hint = hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        self.add(host, what, Verdict::Bad, message + &hint);
    }

    fn print(&self, as_json: bool) -> Result<(), Failure> {
        if as_json {
            let entry = |(host, what, verdict, detail): &(Option<String>, &str, Verdict, String)| json!({ "host": host, "check": what, "result": verdict.word().to_lowercase(), "detail": detail });
            return print(&Value::from_iter(self.list.iter().map(entry)).to_string());
        }
        let mut last = &None;
        for (host, what, verdict, detail) in &self.list {
            if let Some(name) = host.as_ref().filter(|_| host != last) {
                print(&format!("host {name}"))?;
            }
            last = host;
            print(&format!("  {:4}  {what}: {detail}", verdict.word()))?;
        }
        Ok(())
    }
}

pub(super) async fn run(
    config: &Config,
    path: &Path,
    name: Option<&str>,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let hosts = match name {
        Some(_) => std::slice::from_ref(config.host(name)?),
        None => config.hosts(),
    };
    let mut findings = Findings::default();
    findings.add(None, "configuration", Verdict::Good, path.display().to_string());
    check_clock(&mut findings);
    for host in hosts {
        check_keys(host, &mut findings);
        check_addresses(host, &mut findings).await;
    }
    findings.print(as_json)?;
    Ok(findings.code.map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn check_keys(host: &Host, findings: &mut Findings) {
    let knocker = match Knocker::new(host.clone(), Options::default()) {
        Ok(knocker) => knocker,
        Err(error) => return findings.bad(Some(host), "keys", error),
    };
    findings.add(Some(host), "keys", Verdict::Good, host.key_file.display().to_string());
    if let Some(behind) = knocker.clock_behind().filter(|behind| *behind > CLOCK_LIMIT) {
        let seconds = behind.as_secs();
        let detail = format!("{seconds} s behind the last packet: it was set back, or was wrong before");
        findings.add(Some(host), "clock", Verdict::Note, detail);
    }
}

async fn check_addresses(host: &Host, findings: &mut Findings) {
    let addresses = match resolve(&host.address, host.port, Family::Both).await {
        Ok(addresses) => addresses,
        Err(error) => return findings.bad(Some(host), "address", error),
    };
    let mut reachable = false;
    for to in addresses {
        match local_address(to) {
            Ok(from) => {
                reachable = true;
                let (verdict, mode) = mode(host, from).await;
                if verdict == Verdict::Bad {
                    findings.code.get_or_insert(UNAVAILABLE);
                }
                findings.add(Some(host), "address", verdict, format!("{to} from {from}, {mode}"));
            }
            Err(error) => findings.add(Some(host), "address", Verdict::Note, format!("{to}: {error}")),
        }
    }
    if !reachable {
        findings.code.get_or_insert(UNAVAILABLE);
        findings.add(Some(host), "route", Verdict::Bad, "none to any of its addresses");
    }
}

/// Whose access a knock from this local address would ask for, and why.
async fn mode(host: &Host, from: IpAddr) -> (Verdict, String) {
    let address = match (host.source.address(from), &host.resolver) {
        (Some(address), _) => address,
        (None, Some(resolver)) => match resolver.ask(from).await {
            Ok(address) => Address::Bound(address),
            Err(error) => return (Verdict::Bad, format!("nothing to bind to: {error}")),
        },
        (None, None) => return (Verdict::Bad, "nothing to bind to: the entry has no resolver".to_owned()),
    };
    let mode = match address {
        Address::Observed => "observed: for the address that the server sees".to_owned(),
        Address::Bound(address) => format!("bound: for {address}, which the server must see"),
        Address::Explicit(address) => format!("explicit: for {address}, if the server's policy allows"),
    };
    (Verdict::Good, format!("{mode} ({})", host.source.reason(from)))
}

fn check_clock(findings: &mut Findings) {
    let (verdict, detail) = match is_synchronized() {
        Some(true) => (Verdict::Good, "synchronized, as this system says"),
        Some(false) => {
            (Verdict::Note, "not synchronized, as this system says; it must be right within a minute")
        }
        None => (Verdict::Note, "unknown here whether it is synchronized; it must be right within a minute"),
    };
    findings.add(None, "clock", verdict, detail);
}
