//! The machine around it: clock, interfaces, routes, conntrack.

use std::path::Path;

use spa_firewall::Family;

use super::finding::{Findings, Severity};
use super::scene::Scene;
use crate::clock;

/// Each of them is there in a container.
const CONTAINER: [&str; 3] = ["/run/systemd/container", "/run/.containerenv", "/.dockerenv"];
/// Above this share of conntrack's table, in percent, new connections are about to be dropped.
const NEARLY_FULL: u64 = 90;

/// Looks at it.
pub fn look(scene: &Scene, findings: &mut Findings) {
    clock_is_right(findings);
    interfaces(scene, findings);
    reverse_path(scene, findings);
    conntrack(findings);
}

fn clock_is_right(findings: &mut Findings) {
    let service = clock::timesyncd();
    if service.or_else(|| spa_capture::clock_is_synchronized().ok()) == Some(true) {
        return;
    }
    if service.is_none() && CONTAINER.iter().any(|path| Path::new(path).exists()) {
        return findings.add(
            Severity::Note,
            "clock",
            "this is a container: its clock is the host's, and whether that is synchronized cannot be told for certain here",
            None,
            "look on the host: \"timedatectl\" or \"chronyc tracking\"",
        );
    }
    findings.add(
        Severity::Warning,
        "clock",
        "the clock is not synchronized: once it is off by more than limits.max-age, every knock is refused as stale",
        None,
        "run a time service: \"apt install systemd-timesyncd\" or chrony; \"timedatectl\" shows the state",
    );
}

/// Those that knocks are taken from.
fn interfaces(scene: &Scene, findings: &mut Findings) {
    for name in scene.config.interfaces.iter().flatten() {
        let place = Some(name.clone());
        match scene.links.iter().find(|link| link.name == *name) {
            None => findings.add(
                Severity::Error,
                "interface-missing",
                format!(
                    "server.interfaces names {name}, and there is no such interface: no knock is seen there"
                ),
                place,
                "\"ip link\" shows the names; correct server.interfaces, or leave it out for all",
            ),
            Some(link) if !link.is_up => findings.add(
                Severity::Error,
                "interface-down",
                format!("the interface {name} is down: no knock is seen there"),
                place,
                format!("ip link set {name} up"),
            ),
            Some(link) if !link.is_running => findings.add(
                Severity::Warning,
                "interface-down",
                format!("the interface {name} is up but has no carrier: no knock can come there"),
                place,
                "look at its cable, or at the other end",
            ),
            Some(_) => {}
        }
    }
}

/// With strict filtering the kernel drops, after our tap has seen it and before any rule, what comes in on another
/// interface than the one that leads back. Knocks are judged all the same; the connection then fails.
fn reverse_path(scene: &Scene, findings: &mut Findings) {
    const STRICT: u8 = 1;
    let setting = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u8>().ok()).unwrap_or(0)
    };
    let all = setting("all");
    for vantage in scene.vantages.iter().filter(|vantage| vantage.family == Family::V4) {
        let name = &vantage.interface.name;
        let named = scene.config.interfaces.iter().flatten().any(|one| one == name);
        let afar_leaves_elsewhere = !super::scene::leads_afar(vantage);
        if named && afar_leaves_elsewhere && all.max(setting(name)) == STRICT {
            findings.add(
                Severity::Warning,
                "reverse-path",
                format!(
                    "knocks are taken from {name}, but the route to the internet does not leave by it, and rp_filter is \
                     strict: what comes from there on {name} is dropped before any rule"
                ),
                Some(format!("net.ipv4.conf.{name}.rp_filter and net.ipv4.conf.all.rp_filter, the greater counts")),
                format!("sysctl net.ipv4.conf.{name}.rp_filter=2 (loose), or a policy route that answers by {name}"),
            );
        }
    }
}

fn conntrack(findings: &mut Findings) {
    let number = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/{name}");
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok())
    };
    let Some((count, limit)) = number("nf_conntrack_count").zip(number("nf_conntrack_max")) else { return };
    if limit > 0 && count * 100 >= limit * NEARLY_FULL {
        findings.add(
            Severity::Warning,
            "conntrack-full",
            format!("conntrack holds {count} of {limit} connections: when it is full, new ones are dropped"),
            Some("net.netfilter.nf_conntrack_max".into()),
            "raise net.netfilter.nf_conntrack_max",
        );
    }
}
