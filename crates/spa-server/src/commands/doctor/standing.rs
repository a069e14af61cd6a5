//! Whether our own rules stand, and who else is at work beside them.

use std::path::Path;

use spa_firewall::hooks::Which;
use spa_firewall::{Family, iptables, nftables};

use super::finding::{Findings, Severity};
use super::scene::{Ours, Scene};

const FIREWALLD_TABLE: &str = "firewalld";
/// Exists while firewalld runs.
const FIREWALLD: &str = "/run/firewalld.pid";
/// Of every rule set that ufw lays, one a family.
const UFW_CHAINS: [&str; 2] = ["ufw-user-input", "ufw6-user-input"];

/// Looks at what stands.
pub fn look(scene: &Scene, findings: &mut Findings) {
    match scene.ours {
        Ours::Iptables(_) => chains(scene, findings),
        Ours::Nftables if !scene.rules.has_table(Which::Inet, nftables::TABLE) => {
            not_protected(findings, "there is no table inet spa".into());
        }
        Ours::Nftables => {}
    }
    left_behind(scene, findings);
    others(scene, findings);
    if let Some(what) = super::too_wide(&scene.config.except) {
        findings.add(
            Severity::Warning,
            "except-too-wide",
            what,
            Some(scene.config.path.display().to_string()),
            "except only networks of your own",
        );
    }
    if !scene.has_v6 {
        findings.add(
            Severity::Note,
            "ipv6-off",
            "this kernel runs without IPv6: nothing comes in there, and nothing is protected there",
            None,
            "run doctor again after IPv6 has been turned on",
        );
    }
}

fn not_protected(findings: &mut Findings, what: String) {
    findings.add(
        Severity::Error,
        "not-protected",
        format!("{what}: the ports are as the other rules have them, and no grant can be made"),
        None,
        "systemctl start spa-server, or spa-server protect",
    );
}

fn families(scene: &Scene) -> impl Iterator<Item = Family> + use<> {
    let has_v6 = scene.has_v6;
    Family::BOTH.into_iter().filter(move |family| has_v6 || *family == Family::V4)
}

fn chains(scene: &Scene, findings: &mut Findings) {
    for family in families(scene) {
        let which = scene.ours.which(family);
        if !scene.rules.has_chain(which, "filter", iptables::CHAIN) {
            not_protected(findings, format!("there is no chain SPA for {family}"));
        } else if !scene.rules.jumps(which, "filter", "INPUT", iptables::CHAIN) {
            findings.add(
                Severity::Error,
                "jump-missing",
                format!("INPUT of {family} does not jump to the chain SPA: protection is void"),
                None,
                "spa-server reload, or spa-server protect where the daemon does not run",
            );
        }
    }
}

/// Of another `backend` or `iptables` in the configuration.
fn left_behind(scene: &Scene, findings: &mut Findings) {
    for which in [Which::LegacyV4, Which::LegacyV6, Which::Ip, Which::Ip6] {
        let family = if matches!(which, Which::LegacyV4 | Which::Ip) { Family::V4 } else { Family::V6 };
        if scene.ours.which(family) == which || !scene.rules.has_chain(which, "filter", iptables::CHAIN) {
            continue;
        }
        let program = match which {
            Which::LegacyV4 => "iptables-legacy",
            Which::LegacyV6 => "ip6tables-legacy",
            Which::Ip6 => "ip6tables-nft",
            _ => "iptables-nft",
        };
        findings.add(
            Severity::Error,
            "left-behind",
            format!("{program} still has a chain SPA of an earlier configuration: its drops stand, and no grant opens them"),
            Some(format!("table filter of {program}, chain SPA")),
            "restart spa-server: it removes them once it protects",
        );
    }
    if matches!(scene.ours, Ours::Iptables(_)) && scene.rules.has_table(Which::Inet, nftables::TABLE) {
        findings.add(
            Severity::Error,
            "left-behind",
            "the table inet spa of backend = \"nftables\" still stands: its drops hold, and no grant opens them",
            Some("table inet spa".into()),
            "restart spa-server: it removes the table once it protects",
        );
    }
}

/// Whether ufw laid its rules there.
pub fn is_of_ufw(scene: &Scene, which: Which) -> bool {
    UFW_CHAINS.into_iter().any(|chain| scene.rules.has_chain(which, "filter", chain))
}

fn others(scene: &Scene, findings: &mut Findings) {
    let legacy = [Which::LegacyV4, Which::LegacyV6].into_iter().any(|which| scene.rules.is_in_use(which));
    let nft = [Which::Ip, Which::Ip6].into_iter().any(|which| scene.rules.is_in_use(which));
    if legacy && nft {
        findings.add(
            Severity::Warning,
            "two-variants",
            "iptables-legacy and iptables-nft both hold rules: a packet has to pass both, and each program shows its own alone",
            None,
            "keep all rules in one: \"iptables-legacy-save\" and \"iptables-nft-save\" show who has which; \
             \"update-alternatives --config iptables\" chooses",
        );
    }
    let firewalld = scene.rules.has_table(Which::Inet, FIREWALLD_TABLE) || Path::new(FIREWALLD).exists();
    match scene.ours {
        Ours::Iptables(_) if firewalld => findings.add(
            Severity::Error,
            "firewalld",
            "firewalld runs: its zone rejects what an iptables grant accepts, and its reload deletes the chain SPA",
            None,
            "use backend = \"nftables\" and allow the services in the zone, or stop firewalld",
        ),
        Ours::Nftables if firewalld => findings.add(
            Severity::Note,
            "firewalld",
            "firewalld runs: a grant opens only what its zone allows",
            None,
            "allow each protected service in the zone, as in \"firewall-cmd --permanent --add-service=ssh\"",
        ),
        _ => {}
    }
    let tables = [Which::Ip, Which::LegacyV4, Which::Ip6, Which::LegacyV6];
    if tables.into_iter().any(|which| is_of_ufw(scene, which)) {
        findings.add(
            Severity::Note,
            "ufw",
            "ufw is at work: it may allow more than it did before a \"ufw reload\", and its rules stand behind the chain SPA",
            None,
            "nothing, as long as no error is shown for a grant",
        );
    }
}
