//! What stands in the real firewall, in both families: rules of both iptables variants, and some with nftables too.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::*;
use spa_firewall::iptables::Variant;
use spa_firewall::memory::Memory;
use spa_firewall::{ChainPlan, Enforcer, Family, Wanted};

fn program(variant: Variant) -> &'static str {
    if variant == Variant::Nft { "iptables-nft" } else { "iptables-legacy" }
}

#[test]
fn order_of_the_chain() {
    spa_tests::in_namespace(|| {
        each_variant("order_of_the_chain", |variant, enforcer| {
            let mut protection = protection(&["tcp/22", "udp/51820"]);
            protection.except = ["wg0", "192.0.2.0/24", "2001:db8::/32"]
                .map(|text| text.parse().expect("an exception"))
                .to_vec();
            let grants = [
                (key("alice", "198.51.100.7", "tcp/22"), lasting(600)),
                (key("bob", "2001:db8:1::7", "udp/51820"), lasting(600)),
            ];
            let report = enforcer.enforce(&wanted(protection, &grants)).expect("it is laid");
            assert_eq!(report.attempts, 1);
            let rules = chain(variant, "SPA");
            let shape: Vec<_> = rules
                .iter()
                .map(|rule| rule.split(" -m time").next().unwrap_or_default().split(" until=").next())
                .map(Option::unwrap_or_default)
                .collect();
            let tail = [
                "-p tcp -m tcp --dport 22 -j DROP",
                "-p udp -m udp --dport 51820 -j DROP",
                "-p udp -m udp --dport 62201 -j DROP",
            ];
            let established = [
                "-p tcp -m tcp --dport 22 -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j ACCEPT",
                "-p udp -m udp --dport 51820 -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j ACCEPT",
            ];
            let mut expected = vec!["-i lo -j RETURN", "-i wg0 -j RETURN", "-s 192.0.2.0/24 -j RETURN"];
            expected.extend(established);
            expected.push("-s 198.51.100.7/32 -p tcp -m tcp --dport 22 -m comment --comment \"spa alice");
            expected.extend(tail);
            expected.extend(["-i lo -j RETURN", "-i wg0 -j RETURN", "-s 2001:db8::/32 -j RETURN"]);
            expected.extend(established);
            expected.push("-s 2001:db8:1::7/128 -p udp -m udp --dport 51820 -m comment --comment \"spa bob");
            expected.extend(tail);
            assert_eq!(shape, expected, "{variant:?}");
            assert_eq!(chain(variant, "INPUT"), ["-j SPA", "-j SPA"], "one jump a family");
            enforcer.remove_all().expect("it is removed");
        });
    });
}

#[test]
fn a_second_time_changes_nothing() {
    spa_tests::in_namespace(|| {
        each_driver("a_second_time_changes_nothing", |kind, enforcer| {
            let wanted =
                wanted(protection(&["tcp/22"]), &[(key("alice", "198.51.100.7", "tcp/22"), lasting(600))]);
            enforcer.enforce(&wanted).expect("it is laid");
            let before = kind.saved();
            assert_eq!(enforcer.enforce(&wanted).expect("it stands").attempts, 0);
            enforcer.forget();
            assert_eq!(enforcer.enforce(&wanted).expect("it still stands").attempts, 0);
            assert_eq!(kind.saved(), before);
            enforcer.remove_all().expect("it is removed");
        });
    });
}

/// fwknop: re-knocking adds a second rule.
#[test]
fn renewal_leaves_one_rule() {
    spa_tests::in_namespace(|| {
        each_driver("renewal_leaves_one_rule", |kind, enforcer| {
            for source in ["198.51.100.7", "2001:db8::7"] {
                let key = key("alice", source, "tcp/22");
                for seconds in [30, 60, 60, 30, 3600] {
                    let wanted = wanted(protection(&["tcp/22"]), &[(key.clone(), lasting(seconds))]);
                    let report = enforcer.enforce(&wanted).expect("it is renewed");
                    assert!(report.attempts <= 1, "{report:?}");
                    assert_eq!(kind.names("alice"), 1, "{}", kind.saved());
                }
            }
            enforcer.remove_all().expect("it is removed");
        });
    });
}

#[test]
fn nothing_is_left_and_foreign_rules_stay() {
    spa_tests::in_namespace(|| {
        each_variant("nothing_is_left_and_foreign_rules_stay", |variant, enforcer| {
            let iptables = program(variant);
            spa_tests::sh(&format!(
                "{iptables} -N OTHER && {iptables} -A OTHER -s 203.0.113.0/24 -j DROP
                 {iptables} -A INPUT -p tcp --dport 80 -m comment --comment 'it'\\''s \"SPA\" -j SPA' -j ACCEPT
                 {iptables} -A INPUT -j OTHER && {iptables} -A FORWARD -j DROP && {iptables} -P FORWARD DROP"
            ));
            let before = saved(variant);
            let mut wanted =
                wanted(protection(&["tcp/22"]), &[(key("alice", "198.51.100.7", "tcp/22"), lasting(600))]);
            enforcer.enforce(&wanted).expect("it is laid");
            let foreign = |text: &str| {
                let ours = |line: &&str| {
                    !line.contains("-A SPA") && !line.ends_with("-j SPA") && !line.starts_with(":SPA")
                };
                text.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(foreign(&saved(variant)), foreign(&before));
            wanted.grants.clear();
            enforcer.enforce(&wanted).expect("the grant goes");
            assert_eq!(foreign(&saved(variant)), foreign(&before));
            enforcer.remove_all().expect("it is removed");
            assert_eq!(saved(variant), before, "{variant:?}");
            assert_eq!(enforcer.remove_all().expect("it is gone").attempts, 0);
        });
    });
}

#[test]
fn grants_are_adopted_by_the_next_daemon() {
    spa_tests::in_namespace(|| {
        each_driver("grants_are_adopted_by_the_next_daemon", |kind, enforcer| {
            let grants = [
                (key("alice", "198.51.100.7", "tcp/22"), lasting(600)),
                (key("a.b-c_d", "2001:db8::7", "udp/51820"), lasting(30)),
                (key("bob", "198.51.100.7", "tcp/22"), lasting(60)),
            ];
            let mut wanted = wanted(protection(&["tcp/22", "udp/51820"]), &grants);
            enforcer.enforce(&wanted).expect("it is laid");
            *enforcer = Enforcer::new(Box::new(Memory::new())); // the first daemon is gone
            let mut next = Enforcer::new(kind.open().expect("it opens"));
            let adopted = next.adopt().expect("they are read");
            assert_eq!(adopted.len(), 3);
            for (key, lifetime) in &adopted {
                let given = wanted.grants[key];
                assert!(lifetime.from <= given.from && lifetime.until >= given.until);
                assert!(lifetime.until < given.until + Duration::from_secs(1));
            }
            wanted.grants = adopted.into_iter().collect();
            assert_eq!(next.enforce(&wanted).expect("they stand").attempts, 0);
            next.remove_all().expect("it is removed");
        });
    });
}

/// fwknop: listing buffer of 4 KiB. Also duplicates, and a rule of somebody else in our chain.
#[test]
fn hundreds_of_grants_and_a_meddler() {
    spa_tests::in_namespace(|| {
        each_variant("hundreds_of_grants_and_a_meddler", |variant, enforcer| {
            let iptables = program(variant);
            let many: Vec<_> = (0..700)
                .map(|n| (key("alice", &format!("10.1.{}.{}", n / 250, n % 250), "tcp/22"), lasting(600)))
                .collect();
            let mut wanted = wanted(protection(&["tcp/22"]), &many);
            enforcer.enforce(&wanted).expect("they are laid");
            assert_eq!(enforcer.grants().expect("they are read").len(), 700);
            for (key, _) in &many[..699] {
                wanted.grants.remove(key);
            }
            let report = enforcer.enforce(&wanted).expect("all but one go");
            assert!(matches!(report.plan.v4.chain, ChainPlan::Fill(_)), "a rewrite");
            assert_eq!(enforcer.grants().expect("they are read").len(), 1);
            let stood = saved(variant);

            // Our rule a second time, a foreign one, a second jump, the first jump behind an accept.
            let twin =
                chain(variant, "SPA").into_iter().find(|rule| rule.contains("alice")).expect("the grant");
            spa_tests::sh(&format!("{iptables} -A SPA {twin}"));
            spa_tests::sh(&format!(
                "{iptables} -I SPA 2 -s 203.0.113.5 -j ACCEPT && {iptables} -A INPUT -j SPA"
            ));
            enforcer.forget();
            enforcer.enforce(&wanted).expect("it is put right");
            assert_eq!(saved(variant), stood);
            let twin = format!("{iptables} -I SPA 3 {twin}");
            spa_tests::sh(&twin);
            enforcer.forget();
            let report = enforcer.enforce(&wanted).expect("the twin goes");
            assert!(matches!(report.plan.v4.chain, ChainPlan::Grants { .. }), "{:?}", report.plan);
            assert_eq!(saved(variant), stood);

            // What we believe is stale: the commit is refused, and made again from what stands.
            spa_tests::sh(&format!("{iptables} -F SPA"));
            wanted.grants.clear();
            let report = enforcer.enforce(&wanted).expect("it is put right");
            assert_eq!(report.attempts, 2, "{report:?}");
            assert_eq!(
                chain(variant, "SPA").len(),
                stood.lines().filter(|line| line.starts_with("-A SPA")).count() - 1
            );
            enforcer.remove_all().expect("it is removed");
        });
    });
}

#[test]
fn the_jump_is_kept_first() {
    spa_tests::in_namespace(|| {
        each_variant("the_jump_is_kept_first", |variant, enforcer| {
            let iptables = program(variant);
            let wanted = wanted(protection(&["tcp/22"]), &[]);
            enforcer.enforce(&wanted).expect("it is laid");
            spa_tests::sh(&format!("{iptables} -I INPUT -s 203.0.113.5 -j DROP"));
            enforcer.forget();
            assert_eq!(enforcer.enforce(&wanted).expect("a drop ahead is no harm").attempts, 0);
            spa_tests::sh(&format!("{iptables} -I INPUT -p tcp -j ACCEPT"));
            enforcer.forget();
            enforcer.allow_moving_jump(false);
            let report = enforcer.enforce(&wanted).expect("it stands behind");
            assert!(report.jump_behind && report.attempts == 0);
            enforcer.allow_moving_jump(true);
            let report = enforcer.enforce(&wanted).expect("it is moved");
            assert!(report.jump_moved && !report.jump_behind);
            assert_eq!(
                chain(variant, "INPUT")[..3],
                ["-j SPA", "-p tcp -j ACCEPT", "-s 203.0.113.5/32 -j DROP"]
            );
            spa_tests::sh(&format!("{iptables} -D INPUT -j SPA"));
            enforcer.forget();
            enforcer.allow_moving_jump(false);
            enforcer.enforce(&wanted).expect("a missing one always comes back");
            assert_eq!(chain(variant, "INPUT")[0], "-j SPA");
            spa_tests::sh(&format!("{iptables} -F INPUT"));
            enforcer.remove_all().expect("it is removed");
        });
    });
}

#[test]
fn our_chain_in_use_by_others_is_not_removed() {
    spa_tests::in_namespace(|| {
        each_variant("our_chain_in_use_by_others_is_not_removed", |variant, enforcer| {
            let iptables = program(variant);
            enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("it is laid");
            spa_tests::sh(&format!("{iptables} -A FORWARD -i eth9 -j SPA"));
            let stood = saved(variant);
            let error = enforcer.remove_all().expect_err("it is in use");
            let said = error.to_string();
            assert!(said.contains("IPv4: ") && said.contains("(FORWARD -i eth9 -j SPA)"), "{said}");
            assert!(!said.contains("IPv6"), "{said}");
            let v4 = |saved: &str| saved.split("COMMIT").next().map(str::to_owned);
            assert_eq!(v4(&saved(variant)), v4(&stood), "nothing is half removed");
            let v6 = spa_tests::sh(&format!("ip6{} -S", program(variant).trim_start_matches("ip")));
            assert!(!v6.contains("SPA"), "the other family is not held up: {v6}");
            spa_tests::sh(&format!("{iptables} -D FORWARD -i eth9 -j SPA"));
            enforcer.remove_all().expect("now it is removed");
        });
    });
}

/// A chain of our name that was there before us: told from ours, also from ours with additions.
#[test]
fn a_chain_of_others_is_told_from_ours() {
    spa_tests::in_namespace(|| {
        each_variant("a_chain_of_others_is_told_from_ours", |variant, enforcer| {
            let iptables = program(variant);
            let others = |enforcer: &mut spa_firewall::Enforcer| {
                (enforcer.chains_of_others().expect("read"), enforcer.stands().expect("read"))
            };
            assert_eq!(others(enforcer), (vec![], false), "no chain");
            spa_tests::sh(&format!("{iptables} -N SPA"));
            assert_eq!(others(enforcer), (vec![], false), "an empty chain");
            spa_tests::sh(&format!(
                "{iptables} -A SPA -i lo -j RETURN && {iptables} -A SPA -p icmp -j ACCEPT"
            ));
            assert_eq!(others(enforcer), (vec![Family::V4], false), "somebody's");
            enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("who insists takes it over");
            assert_eq!(others(enforcer), (vec![], true), "ours");
            spa_tests::sh(&format!("{iptables} -A SPA -p icmp -j ACCEPT"));
            assert_eq!(others(enforcer), (vec![], true), "ours, with an addition");
            enforcer.remove_all().expect("it is removed");
            assert_eq!(others(enforcer), (vec![], false), "nothing");
        });
    });
}

/// In one family ours, in the other somebody else's: only ours goes.
#[test]
fn a_chain_of_others_in_one_family_outlives_our_removal() {
    spa_tests::in_namespace(|| {
        each_variant("a_chain_of_others_in_one_family_outlives_our_removal", |variant, enforcer| {
            enforcer.enforce(&wanted(protection(&["tcp/22"]), &[])).expect("it is laid");
            let ip6tables = program(variant).replace("iptables", "ip6tables");
            spa_tests::sh(&format!("{ip6tables} -F SPA && {ip6tables} -A SPA -p tcp --dport 25 -j ACCEPT"));
            enforcer.remove_ours().expect("ours is removed");
            let left = saved(variant);
            assert_eq!(left.matches("-j SPA").count(), 1, "the jump of IPv6: {left}");
            assert!(left.contains("-A SPA -p tcp -m tcp --dport 25 -j ACCEPT"), "{left}");
            spa_tests::sh(&format!("{ip6tables} -F SPA"));
            enforcer.remove_ours().expect("all is removed");
            assert!(!saved(variant).contains("SPA"), "{}", saved(variant));
        });
    });
}

#[test]
fn a_native_nft_table_is_told_from_an_absent_chain() {
    spa_tests::in_namespace(|| {
        if let Err(error) = std::process::Command::new("nft").arg("--version").output() {
            return spa_tests::skip(
                "a_native_nft_table_is_told_from_an_absent_chain",
                &format!("nft: {error}"),
            );
        }
        spa_tests::sh(
            "iptables-nft -A INPUT -s 192.0.2.1 -j ACCEPT && nft insert rule ip filter INPUT ct state established accept",
        );
        let error = spa_firewall::iptables::Iptables::open(Variant::Nft).expect_err("it cannot be read");
        assert!(matches!(error, spa_firewall::Error::Incompatible { .. }), "{error}");
    });
}

#[test]
fn counters_live_through_renewal_and_rewriting() {
    spa_tests::in_namespace(|| {
        each_variant("counters_live_through_renewal_and_rewriting", |variant, enforcer| {
            let key = key("alice", "198.51.100.7", "tcp/22");
            let mut wanted = wanted(protection(&["tcp/22"]), &[(key.clone(), lasting(60))]);
            enforcer.enforce(&wanted).expect("it is laid");
            let iptables = program(variant);
            let rule =
                chain(variant, "SPA").into_iter().find(|rule| rule.contains("alice")).expect("the grant");
            spa_tests::sh(&format!("{iptables} -D SPA {rule} && {iptables} -I SPA 3 {rule} -c 7 420"));
            enforcer.forget();
            wanted.grants.insert(key, lasting(120));
            for services in [&["tcp/22"][..], &["tcp/22", "tcp/80"]] {
                wanted.protection = Some(protection(services));
                assert_eq!(enforcer.enforce(&wanted).expect("it is written").attempts, 1);
                let status = enforcer.grants().expect("they are read");
                assert_eq!((status[0].counters.packets, status[0].counters.bytes), (7, 420));
            }
            enforcer.remove_all().expect("it is removed");
        });
    });
}

#[test]
fn without_protect_only_the_spa_port_is_dropped() {
    spa_tests::in_namespace(|| {
        each_variant("without_protect_only_the_spa_port_is_dropped", |variant, enforcer| {
            let mut protection = protection(&["tcp/22"]);
            protection.protect = false;
            enforcer.enforce(&wanted(protection, &[])).expect("it is laid");
            let drops: BTreeSet<_> =
                chain(variant, "SPA").into_iter().filter(|rule| rule.contains("DROP")).collect();
            assert_eq!(drops.into_iter().collect::<Vec<_>>(), ["-p udp -m udp --dport 62201 -j DROP"]);
            enforcer.enforce(&Wanted::default()).expect("it is removed");
        });
    });
}
