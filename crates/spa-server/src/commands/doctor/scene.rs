//! The machine as it is now: what all checks look at.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use spa_firewall::Family;
use spa_firewall::hooks::{Host, Interface, Ruleset, Which};
use spa_firewall::network::{Link, Listener, links, listeners, route_to};
use spa_firewall::{Driver, Except, iptables};
use spa_proto::Protocol;

use super::finding::{Findings, Severity};
use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome};

/// From where packets of the internet come: addresses of documentation, RFC 5737 and RFC 3849.
const AFAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77)),
];
/// Exists if and only if the kernel runs with IPv6.
const IPV6_WITNESS: &str = "/proc/net/if_inet6";

/// A place to come in, and somebody who does.
#[derive(Clone, Debug)]
pub struct Vantage {
    /// Of both addresses.
    pub family: Family,
    /// Where they come in.
    pub interface: Interface,
    /// The host's address there.
    pub address: IpAddr,
    /// A stranger's.
    pub stranger: IpAddr,
    /// Whether the way back to the stranger leaves by the same interface.
    pub symmetric: Option<bool>,
}

/// Where our own rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// The iptables driver's, of this variant.
    Iptables(iptables::Backend),
    /// The nftables driver's.
    Nftables,
}

impl Ours {
    /// The tables of iptables that hold our chain.
    pub fn which(self, family: Family) -> Which {
        match (self, family) {
            (Self::Iptables(iptables::Backend::Legacy), Family::V4) => Which::LegacyV4,
            (Self::Iptables(iptables::Backend::Legacy), Family::V6) => Which::LegacyV6,
            (Self::Iptables(iptables::Backend::Nft), Family::V4) => Which::Ip,
            (Self::Iptables(iptables::Backend::Nft), Family::V6) => Which::Ip6,
            (Self::Nftables, _) => Which::Inet,
        }
    }
}

/// Everything that the checks look at.
pub struct Scene {
    /// The configuration.
    pub config: Config,
    /// Where our rules are.
    pub ours: Ours,
    /// All rules.
    pub rules: Ruleset,
    /// What rules can ask of the host.
    pub host: Host,
    /// All interfaces.
    pub links: Vec<Link>,
    /// Where strangers come in, the likeliest first; those of a family at most one an interface.
    pub vantages: Vec<Vantage>,
    tcp: Vec<Listener>,
    udp: Vec<Listener>,
    /// Whether this kernel has IPv6.
    pub has_v6: bool,
    /// Who was asked about, in the stranger's place.
    pub source: Option<IpAddr>,
}

impl Scene {
    /// Looks.
    ///
    /// # Errors
    /// Where rules, interfaces or sockets may not be read, and where the source asked about is this host's own.
    pub fn look(config: Config, source: Option<IpAddr>, findings: &mut Findings) -> Outcome<Self> {
        let ours = ours(&config, findings);
        let rules = Ruleset::read().map_err(crate::warden::events::firewall_failure)?;
        for unread in &rules.unread {
            findings.add(
                Severity::Warning,
                "unread",
                format!("could not be read, so verdicts leave it out: {unread}"),
                None,
                "install the program that reads it, or remove those rules",
            );
        }
        let failed = |what: &str, error: &std::io::Error| {
            Failure::new(Exit::System, format_args!("cannot list {what}: {error}"))
        };
        let links = links().map_err(|error| failed("interfaces", &error))?;
        let sockets = |protocol| listeners(protocol).map_err(|error| failed("sockets", &error));
        let addresses: BTreeSet<IpAddr> =
            links.iter().flat_map(|link| &link.addresses).map(|(address, _)| *address).collect();
        let vantages = match source {
            Some(source) if source.is_loopback() || addresses.contains(&source) => {
                let what =
                    format_args!("{source} is an address of this host, for which nothing is ever closed");
                return Err(Failure::new(Exit::Usage, what).hint("name the address that a client comes from"));
            }
            Some(source) => vantages_of(source, &links),
            None => vantages(&config, &links, &addresses),
        };
        Ok(Self {
            ours,
            rules,
            host: Host { addresses, now: clock::now().wall },
            vantages,
            links,
            tcp: sockets(Protocol::Tcp)?,
            udp: sockets(Protocol::Udp)?,
            has_v6: Path::new(IPV6_WITNESS).exists(),
            config,
            source,
        })
    }

    /// Who listens, in a protocol.
    pub fn listeners(&self, protocol: Protocol) -> &[Listener] {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }

    /// Whether the administrator excepted packets of this source and interface.
    pub fn is_excepted(&self, source: IpAddr, interface: &str) -> bool {
        is_excepted(&self.config, source, interface)
    }
}

fn is_excepted(config: &Config, source: IpAddr, interface: &str) -> bool {
    config.except.iter().any(|except| match except {
        Except::Interface(name) => name.as_str() == interface,
        Except::Network(network) => network.contains(source),
    })
}

fn ours(config: &Config, findings: &mut Findings) -> Ours {
    let unusable = |failure: Failure, findings: &mut Findings| {
        // The firewall's errors end with what to do.
        let (whole, hint) = failure.parts();
        let (what, remedy) = whole.split_once("; ").unwrap_or((whole, hint.unwrap_or("spa-server check")));
        let what = format!("{what}: no port can be closed, and none opened");
        let remedy = remedy.strip_prefix("try ").unwrap_or(remedy);
        findings.add(Severity::Error, "firewall-unusable", what, None, remedy);
        Ours::Iptables(iptables::Backend::Nft)
    };
    match crate::firewall::settle(config) {
        Ok((Driver::Nftables, _)) => Ours::Nftables,
        Ok((Driver::Iptables, _)) => match crate::firewall::iptables(config) {
            Ok(driver) => {
                extensions(config, findings);
                Ours::Iptables(driver.backend())
            }
            Err(failure) => unusable(failure, findings),
        },
        Err(failure) => unusable(failure, findings),
    }
}

/// Whether all that our rules need is there: without it the daemon does not start, or grants nothing.
fn extensions(config: &Config, findings: &mut Findings) {
    if let Err(error @ spa_firewall::Error::MissingModule { .. }) = crate::firewall::rehearse(config) {
        findings.add(
            Severity::Error,
            "extension-missing",
            error.to_string(),
            None,
            "after an upgrade of the kernel: reboot. On a small kernel: its package of further modules \
             (linux-modules-extra-... on Ubuntu). Else: apt-get install --reinstall iptables",
        );
    }
}

/// The address of an interface, and its prefix, that others can reach it by.
fn reached_by(link: &Link, family: Family) -> Option<(IpAddr, u8)> {
    let reachable = |address: IpAddr| match address {
        IpAddr::V4(v4) => family == Family::V4 && !v4.is_link_local(),
        IpAddr::V6(v6) => family == Family::V6 && !v6.is_unicast_link_local(),
    };
    link.addresses.iter().find(|(address, _)| reachable(*address)).copied()
}

fn leads_to(link: &Link, to: IpAddr) -> bool {
    route_to(to).ok().flatten() == Some(link.index)
}

/// Where this source comes in: by the interface that leads back to it; where none does, by any.
fn vantages_of(source: IpAddr, links: &[Link]) -> Vec<Vantage> {
    let family = Family::of(source);
    let mut found = Vec::new();
    for link in links.iter().filter(|link| link.is_up && !link.is_loopback) {
        if let Some((address, _)) = reached_by(link, family) {
            let interface = Interface { name: link.name.clone(), index: link.index };
            let symmetric = Some(leads_to(link, source));
            found.push(Vantage { family, interface, address, stranger: source, symmetric });
        }
    }
    if found.iter().any(|vantage| vantage.symmetric == Some(true)) {
        found.retain(|vantage| vantage.symmetric == Some(true));
    }
    found
}

/// One for each interface and family that has an address that others can reach.
fn vantages(config: &Config, links: &[Link], own: &BTreeSet<IpAddr>) -> Vec<Vantage> {
    let mut found = Vec::new();
    for link in links.iter().filter(|link| link.is_up && !link.is_loopback) {
        for (family, afar) in Family::BOTH.into_iter().zip(AFAR) {
            let Some((address, prefix)) = reached_by(link, family) else { continue };
            let leads_here = |to: IpAddr| leads_to(link, to);
            let near = neighbour(address, prefix, own);
            // Who is excepted is no stranger.
            let candidates = [Some(afar).filter(|afar| leads_here(*afar)), near, Some(afar)];
            let mut candidates = candidates.into_iter().flatten();
            let Some(stranger) = candidates.find(|source| !is_excepted(config, *source, &link.name)) else {
                continue;
            };
            found.push((
                stranger != afar || !leads_here(afar),
                Vantage {
                    family,
                    interface: Interface { name: link.name.clone(), index: link.index },
                    address,
                    stranger,
                    symmetric: Some(leads_here(stranger)),
                },
            ));
        }
    }
    found.sort_by_key(|(is_local, vantage)| (vantage.family, *is_local));
    found.into_iter().map(|(_, vantage)| vantage).collect()
}

/// Whether packets to the internet leave by the interface.
pub fn leads_afar(vantage: &Vantage) -> bool {
    let afar = if vantage.family == Family::V4 { AFAR[0] } else { AFAR[1] };
    route_to(afar).ok().flatten() == Some(vantage.interface.index)
}

/// The last address of the network but one, which is rarely anybody's.
fn neighbour(address: IpAddr, prefix: u8, own: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let found = match address {
        IpAddr::V4(v4) if prefix < 31 => {
            IpAddr::V4((v4.to_bits() | (u32::MAX >> prefix)).wrapping_sub(1).into())
        }
        IpAddr::V6(v6) if prefix < 127 => {
            IpAddr::V6((v6.to_bits() | (u128::MAX >> prefix)).wrapping_sub(1).into())
        }
        _ => return None,
    };
    (!own.contains(&found)).then_some(found)
}
