//! Whether a host rule ahead of our jump could accept a packet that our chain would drop.

use spa_proto::{Endpoint, Network, Protocol};

use crate::model::Protection;
use crate::names::Except;
use crate::words;

/// Targets that never accept. Any other (RETURN too: from INPUT it means the policy) might.
const NEVER_ACCEPT: [&str; 5] = ["DROP", "REJECT", "LOG", "NFLOG", "ULOG"];

/// Whether `rule`, in `iptables-save` form, might accept a packet to a port that `protection` drops. Decided on the
/// safe side: what is not understood might. A rule that matches only what is excepted anyway cannot.
pub fn can_accept(rule: &str, protection: &Protection) -> bool {
    let Some(words) = words::split(rule) else { return true };
    let mut dropped: Vec<Endpoint> = Endpoint::new(Protocol::Udp, protection.spa_port).into_iter().collect();
    if protection.protect {
        dropped.extend(&protection.services);
    }
    let mut target = None;
    let mut negated = false;
    let mut at = words.iter();
    while let Some(word) = at.next() {
        let value = || at.as_slice().first().map(AsRef::as_ref).unwrap_or_default();
        match word.as_ref() {
            "!" => {
                negated = true;
                continue;
            }
            "-j" | "-g" => target = Some(value()),
            // Free text, which may look like an option.
            "--comment" | "--string" | "--hex-string" | "--log-prefix" | "--nflog-prefix" => {}
            _ if negated => {}
            "-i" if is_excepted_interface(value(), protection) => return false,
            "-s" if is_excepted_network(value(), protection) => return false,
            "-p" => dropped.retain(|endpoint| is_protocol(value(), endpoint.protocol())),
            "--dport" | "--dports" => dropped.retain(|endpoint| names_port(value(), endpoint.port())),
            _ => continue,
        }
        negated = false;
        at.next();
    }
    target.is_some_and(|target| !NEVER_ACCEPT.contains(&target)) && !dropped.is_empty()
}

fn is_excepted_interface(name: &str, protection: &Protection) -> bool {
    let listed = |except: &Except| matches!(except, Except::Interface(own) if own.as_str() == name);
    name == "lo" || protection.except.iter().any(listed)
}

fn is_excepted_network(text: &str, protection: &Protection) -> bool {
    let Ok(network) = text.parse::<Network>() else { return false };
    protection.except.iter().any(|except| matches!(except, Except::Network(own) if own.covers(&network)))
}

/// A protocol that is not understood counts as any.
fn is_protocol(text: &str, protocol: Protocol) -> bool {
    const OTHERS: [&str; 10] =
        ["icmp", "icmpv6", "ipv6-icmp", "igmp", "gre", "esp", "ah", "sctp", "ospf", "vrrp"];
    match text {
        "tcp" | "udp" => text == protocol.name(),
        other => match other.parse::<u8>() {
            Ok(number) => number == 0 || number == protocol.number(),
            Err(_) => !OTHERS.contains(&other),
        },
    }
}

/// `22`, `22:25`, `:25`, `22:`, and lists of them with commas.
fn names_port(list: &str, port: u16) -> bool {
    list.split(',').any(|range| {
        let (low, high) = range.split_once(':').unwrap_or((range, range));
        let low = if low.is_empty() { Ok(0) } else { low.parse() };
        let high = if high.is_empty() { Ok(u16::MAX) } else { high.parse() };
        match (low, high) {
            (Ok(low), Ok(high)) => (low..=high).contains(&port),
            _ => true, // not understood
        }
    })
}

#[cfg(test)]
mod tests {
    use super::can_accept;
    use crate::model::Protection;

    fn protection(protect: bool) -> Protection {
        Protection {
            spa_port: 62201,
            protect,
            except: ["wg0", "192.0.2.0/24"].map(|text| text.parse().expect("an exception")).to_vec(),
            services: ["tcp/22", "udp/51820"].map(|text| text.parse().expect("an endpoint")).into(),
            provisional_until: None,
        }
    }

    #[test]
    fn rules_that_might_accept() {
        for rule in [
            "-j ACCEPT",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-j ufw-before-input",
            "-g elsewhere",
            "-j RETURN",
            "-p tcp -j ACCEPT",
            "-p tcp -m tcp --dport 22 -j ACCEPT",
            "-p tcp -m tcp --dport 20:25 -j ACCEPT",
            "-p tcp -m multiport --dports 80,22 -j ACCEPT",
            "-p tcp -m tcp ! --dport 80 -j ACCEPT",
            "-p udp -m udp --dport 62000: -j ACCEPT",
            "! -p icmp -j ACCEPT",
            "-p tcp -m comment --comment -p -j ACCEPT",
            "-m comment --comment \"-i lo\" -j ACCEPT",
            "-m comment --comment -s -j ACCEPT",
            "! -i lo -j ACCEPT",
            "! -i wg0 -j ACCEPT",
            "-i wg+ -j ACCEPT",
            "-s 192.0.0.0/16 -j ACCEPT",
            "! -s 192.0.2.0/24 -j ACCEPT",
            "-p 0 -j ACCEPT",
            "-p somewhat -j ACCEPT",
            "-j TPROXY",
            r#"-m comment --comment "unclosed -j DROP"#,
        ] {
            assert!(can_accept(rule, &protection(true)), "{rule}");
        }
    }

    #[test]
    fn rules_that_cannot() {
        for rule in [
            "-i lo -j ACCEPT",
            "-i wg0 -j ACCEPT",
            "-s 192.0.2.7/32 -j ACCEPT",
            "-s 192.0.2.0/25 -p tcp -j ACCEPT",
            "-p icmp -j ACCEPT",
            "-p 47 -j ACCEPT",
            "-p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT",
            "-p tcp -m tcp --dport 80 -j ACCEPT",
            "-p udp -m udp --dport 22 -j ACCEPT",
            "-p tcp -m multiport --dports 80,443,8000:9000 -j ACCEPT",
            "-m conntrack --ctstate INVALID -j DROP",
            "-j DROP",
            "-p tcp -j REJECT --reject-with tcp-reset",
            "-j LOG --log-prefix \"-j ACCEPT \"",
            "-s 203.0.113.9/32",
            "",
        ] {
            assert!(!can_accept(rule, &protection(true)), "{rule}");
        }
    }

    #[test]
    fn without_protect_only_the_spa_port_matters() {
        assert!(!can_accept("-p tcp -m tcp --dport 22 -j ACCEPT", &protection(false)));
        assert!(can_accept("-p udp -j ACCEPT", &protection(false)));
    }
}
