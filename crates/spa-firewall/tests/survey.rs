//! What the survey finds on a real firewall.

mod common;

use common::*;
use spa_firewall::iptables::{Iptables, Variant};
use spa_firewall::survey::{Severity, look, look_for_nftables};

fn found(variant: Variant) -> Vec<String> {
    let mut driver = Iptables::open(variant).expect("it opens");
    let findings = look(&protection(&["tcp/22", "tcp/8080"]), &mut driver).expect("it looks");
    assert!(findings.is_sorted_by_key(|finding| finding.severity == Severity::Warning));
    findings.into_iter().map(|finding| finding.to_string()).collect()
}

#[test]
fn a_bare_host_gives_nothing() {
    spa_tests::in_namespace(|| {
        assert_eq!(found(Variant::Nft), [""; 0]);
        let before = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        assert_eq!(before, "", "looking makes no legacy table");
    });
}

#[test]
fn what_works_against_us_is_found() {
    spa_tests::in_namespace(|| {
        each_variant("what_works_against_us_is_found", |_, enforcer| {
            enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("it is laid");
            enforcer.remove_all().expect("it is removed");
        });
        // Empty base chains that iptables-nft and the legacy tables leave behind harm nobody.
        assert_eq!(found(Variant::Nft), [""; 0]);
        let driver = look_for_nftables().expect("it looks");
        assert_eq!(driver, [], "nor the nftables driver");
        std::fs::create_dir("/run/firewalld").expect("a directory");
        spa_tests::sh(
            "nft add table inet strict && nft add chain inet strict in '{ type filter hook input priority 0; policy drop; }'
             iptables-nft -t nat -N DOCKER
             iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
             iptables-nft -A INPUT -j ACCEPT && iptables-nft -N SPA && iptables-nft -A INPUT -j SPA",
        );
        let found = found(Variant::Nft);
        for words in ["firewalld runs", "inet strict", "tcp/8080", "\"-A INPUT -j ACCEPT\""] {
            assert!(found.iter().any(|finding| finding.contains(words)), "{words}: {found:#?}");
        }
        assert!(!found.iter().any(|finding| finding.contains("iptables-legacy")), "{found:#?}");
        // Made by the legacy variant above, where that works and where the list may be read.
        let tables = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            for change in
                ["-A INPUT -p tcp --dport 22 -j DROP", "-F INPUT", "-P INPUT DROP", "-P INPUT ACCEPT"]
            {
                spa_tests::sh(&format!("iptables-legacy {change}"));
                let found = self::found(Variant::Nft);
                let told = found.iter().any(|finding| finding.contains("iptables-legacy"));
                assert_eq!(told, change.ends_with("DROP"), "{change}: {found:#?}");
            }
        }
    });
}

#[test]
fn what_works_against_nftables_is_found() {
    spa_tests::in_namespace(|| {
        let found = || {
            let findings = look_for_nftables().expect("it looks");
            findings.into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>()
        };
        let mut enforcer = spa_firewall::Enforcer::new(Kind::Nftables.open().expect("it opens"));
        enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("it is laid");
        assert_eq!(found(), [""; 0], "our own table is none of it, though a daemon holds it");
        spa_tests::sh(
            "nft add table inet strict && nft add chain inet strict in '{ type filter hook input priority 0; policy drop; }'
             ip6tables-nft -A INPUT -j ACCEPT && ip6tables-nft -F INPUT && iptables-nft -A INPUT -j DROP",
        );
        for words in ["inet strict", "ip filter"] {
            assert!(found().iter().any(|finding| finding.contains(words)), "{words}: {:#?}", found());
        }
        assert!(!found().iter().any(|finding| finding.contains("ip6 filter")), "empty: {:#?}", found());
    });
}
