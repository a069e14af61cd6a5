//! Properties of `reconcile` and the enforcer, on the firewall in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use spa_firewall::memory::{Fault, Memory};
use spa_firewall::{
    Counted, Counters, Enforcer, Error, Except, Family, FamilyState, Firewall, GrantKey, Kernel, Lifetime,
    Protection, Rule, Span, Wanted, reconcile,
};
use spa_proto::Endpoint;

/// What counts as ended among set elements: nothing here.
const NEVER: SystemTime = UNIX_EPOCH;

/// Few values each, so that they meet.
fn endpoints() -> impl Strategy<Value = Endpoint> {
    prop::sample::select(vec!["tcp/22", "tcp/80", "udp/51820", "udp/62201"])
        .prop_map(|text| text.parse().expect("an endpoint"))
}

fn keys() -> impl Strategy<Value = GrantKey> {
    let names = prop::sample::select(vec!["alice", "bob"]);
    let sources = prop::sample::select(vec!["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    (names, sources, endpoints()).prop_map(|(name, source, endpoint)| {
        GrantKey::new(name.parse().expect("a name"), source.parse().expect("an address"), endpoint)
    })
}

fn times() -> impl Strategy<Value = SystemTime> {
    (0..20_u64, prop::sample::select(vec![0_u32, 1, 999_999_999]))
        .prop_map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(1_766_361_600 + seconds, nanos))
}

fn lifetimes() -> impl Strategy<Value = Lifetime> {
    (times(), times()).prop_map(|(from, until)| Lifetime { from, until })
}

fn excepts() -> impl Strategy<Value = Except> {
    prop::sample::select(vec!["wg0", "eth1", "192.0.2.0/24", "2001:db8::/32"])
        .prop_map(|text| text.parse().expect("an exception"))
}

fn protections() -> impl Strategy<Value = Protection> {
    (
        any::<bool>(),
        prop::collection::vec(excepts(), 0..3),
        prop::collection::btree_set(endpoints(), 0..4),
        prop::option::of(times()),
    )
        .prop_map(|(protect, except, services, provisional_until)| Protection {
            spa_port: 62201,
            protect,
            except,
            services,
            provisional_until,
        })
}

fn wanteds() -> impl Strategy<Value = Wanted> {
    let grants = prop::collection::btree_map(keys(), lifetimes(), 0..5);
    (prop::option::weighted(0.9, protections()), grants)
        .prop_map(|(protection, grants)| Wanted { protection, grants })
}

fn rules() -> impl Strategy<Value = Rule> {
    let foreign = prop::sample::select(vec!["-j ACCEPT", "-s 203.0.113.5/32 -j DROP"]);
    prop_oneof![
        Just(Rule::Loopback),
        excepts().prop_map(Rule::Except),
        endpoints().prop_map(Rule::Established),
        (keys(), lifetimes()).prop_map(|(key, lifetime)| Rule::Grant(key, Span::of(&lifetime))),
        endpoints().prop_map(|endpoint| Rule::Drop(endpoint, None)),
        foreign.prop_map(|text| Rule::Foreign(text.to_owned())),
    ]
}

/// Any state at all, most of them such as we never leave behind.
fn states() -> impl Strategy<Value = FamilyState> {
    let counted = (rules(), 0..100_u64)
        .prop_map(|(rule, packets)| Counted { rule, counters: Counters { packets, bytes: packets * 60 } });
    let host =
        prop::sample::select(vec!["-i lo -j ACCEPT", "-j DROP", "-p tcp -j ACCEPT", "-j ufw-before-input"]);
    (
        any::<bool>(),
        prop::collection::vec(counted, 0..12),
        prop::collection::btree_set(1..6_usize, 0..3),
        prop::collection::vec(host.prop_map(str::to_owned), 5),
    )
        .prop_map(|(present, rules, jumps, mut ahead)| {
            // A jump needs a chain, and as many rules are ahead as its position says.
            let jumps: Vec<_> = if present { jumps.into_iter().collect() } else { Vec::new() };
            ahead.truncate(jumps.first().map_or(5, |first| first - 1));
            let rules = if present { rules } else { Vec::new() };
            FamilyState { present, rules, jumps, ahead, ..FamilyState::default() }
        })
}

fn kernels() -> impl Strategy<Value = Kernel> {
    (states(), states()).prop_map(|(v4, v6)| Kernel { v4, v6 })
}

/// A kernel that we left behind for another wish, with a little meddling.
fn near() -> impl Strategy<Value = (Wanted, Kernel)> {
    (wanteds(), wanteds(), any::<prop::sample::Index>(), rules(), 0..3).prop_map(
        |(old, new, at, rule, how)| {
            let mut memory = Memory::new();
            memory.apply(&reconcile(&old, &Kernel::default(), NEVER)).expect("an empty kernel takes it");
            let rules = &mut memory.kernel.v4.rules;
            if !rules.is_empty() && how > 0 {
                let at = at.index(rules.len());
                match how {
                    1 => rules.insert(at, Counted { rule, counters: Counters::default() }),
                    _ => drop(rules.remove(at)),
                }
            }
            let new =
                if new.protection.is_some() { Wanted { protection: old.protection, ..new } } else { new };
            (new, memory.kernel)
        },
    )
}

/// What should stand, worked out anew and more simply than `reconcile` does.
fn stands(wanted: &Wanted, kernel: &Kernel) -> Result<(), TestCaseError> {
    for family in Family::BOTH {
        let state = kernel.family(family);
        let Some(protection) = &wanted.protection else {
            prop_assert!(!state.present && state.jumps.is_empty() && state.rules.is_empty());
            continue;
        };
        prop_assert!(state.present);
        prop_assert_eq!(state.jumps.len(), 1);
        let rules: Vec<_> = state.rules.iter().map(|counted| &counted.rule).collect();
        let kind = |rule: &&Rule| match rule {
            Rule::Loopback => 0,
            Rule::Except(_) => 1,
            Rule::Established(_) => 2,
            Rule::Grant(..) | Rule::Openings => 3,
            Rule::Drop(..) => 4,
            Rule::Foreign(_) => 5,
        };
        prop_assert!(rules.is_sorted_by_key(kind), "{:?}", rules);
        prop_assert!(!rules.iter().any(|rule| matches!(rule, Rule::Foreign(_))));
        let standing: Vec<_> = kernel.grants().filter(|(key, ..)| key.family() == family).collect();
        let own: BTreeMap<_, _> = wanted.grants.iter().filter(|(key, _)| key.family() == family).collect();
        prop_assert_eq!(standing.len(), own.len());
        for (key, lifetime, _) in standing {
            prop_assert_eq!(Some(Span::of(&lifetime)), own.get(key).map(|lifetime| Span::of(lifetime)));
        }
        let dropped = |endpoint: &Endpoint| {
            rules.iter().any(|rule| matches!(rule, Rule::Drop(own, _) if own == endpoint))
        };
        prop_assert!(dropped(&"udp/62201".parse().expect("an endpoint")));
        for service in &protection.services {
            prop_assert!(dropped(service) == protection.protect || service.port() == 62201);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_kernel_is_brought_to_what_is_wanted(wanted in wanteds(), kernel in kernels()) {
        let mut memory = Memory { kernel, ..Memory::default() };
        memory.apply(&reconcile(&wanted, &memory.kernel, NEVER)).expect("the plan fits the kernel");
        stands(&wanted, &memory.kernel)?;
        prop_assert!(reconcile(&wanted, &memory.kernel, NEVER).is_empty(), "a second time there is nothing to do");
    }

    #[test]
    fn so_is_one_that_is_near_it((wanted, kernel) in near()) {
        let mut memory = Memory { kernel, ..Memory::default() };
        memory.apply(&reconcile(&wanted, &memory.kernel, NEVER)).expect("the plan fits the kernel");
        stands(&wanted, &memory.kernel)?;
        prop_assert!(reconcile(&wanted, &memory.kernel, NEVER).is_empty());
    }

    #[test]
    fn it_only_ever_touches_our_jump_among_the_hosts_rules(wanted in wanteds(), kernel in kernels()) {
        let before = kernel.clone();
        let mut memory = Memory { kernel, ..Memory::default() };
        let plan = reconcile(&wanted, &memory.kernel, NEVER);
        memory.apply(&plan).expect("the plan fits the kernel");
        for family in Family::BOTH {
            if plan.family(family).jump == Default::default() {
                prop_assert_eq!(&memory.kernel.family(family).ahead, &before.family(family).ahead);
                prop_assert_eq!(&memory.kernel.family(family).jumps, &before.family(family).jumps);
            }
        }
    }

    #[test]
    fn the_enforcer_gets_there_in_spite_of_faults(
        wishes in prop::collection::vec(wanteds(), 1..4),
        faults in prop::collection::vec(prop::option::of(prop::sample::select(
            vec![Fault::Refuse, Fault::Lie, Fault::Stutter])), 0..2),
    ) {
        let mut enforcer = Enforcer::new(Box::new(Memory { faults: faults.into(), ..Memory::default() }));
        for wanted in &wishes {
            enforcer.enforce(wanted).expect("fewer faults than tries");
            let plan = enforcer.plan(wanted).expect("it is read");
            prop_assert!(plan.is_empty(), "{}", plan);
        }
    }

    #[test]
    fn with_sets_only_what_changed_need_be_named(
        wishes in prop::collection::vec((wanteds(), any::<bool>()), 1..6),
        faults in prop::collection::vec(prop::option::of(prop::sample::select(
            vec![Fault::Refuse, Fault::Lie, Fault::Stutter])), 0..2),
    ) {
        let memory = Arc::new(Mutex::new(Memory { faults: faults.into(), ..Memory::with_sets() }));
        let mut enforcer = Enforcer::new(Box::new(memory.clone()));
        let mut before = BTreeMap::new();
        for (mut wanted, look) in wishes {
            for lifetime in wanted.grants.values_mut() {
                lifetime.until += Duration::from_secs(1 << 31); // nothing has ended
            }
            let changed: BTreeSet<_> = before.keys().chain(wanted.grants.keys()).cloned().collect();
            let changed: Vec<_> =
                changed.into_iter().filter(|key| before.get(key) != wanted.grants.get(key)).collect();
            enforcer.enforce_grants(&wanted, &changed).expect("fewer faults than tries");
            let kernel = memory.lock().expect("not poisoned").kernel.clone();
            prop_assert!(reconcile(&wanted, &kernel, SystemTime::now()).is_empty());
            let standing: BTreeMap<_, _> =
                kernel.grants().map(|(key, lifetime, _)| (key.clone(), lifetime)).collect();
            prop_assert_eq!(standing, if wanted.protection.is_some() { wanted.grants.clone() } else { BTreeMap::new() });
            for elements in [&kernel.v4, &kernel.v6].map(|state| state.elements.as_ref().expect("sets")) {
                for (opening, open) in &elements.openings {
                    let owners = elements.owners.iter().filter(|(key, _)| key.opening() == *opening);
                    prop_assert_eq!(owners.map(|(_, lifetime)| lifetime.until).max(), Some(open.until));
                }
            }
            if look {
                enforcer.grants().expect("they are read");
            }
            before = wanted.grants;
        }
    }

    #[test]
    fn a_span_never_closes_early_and_less_than_a_second_late(lifetime in lifetimes()) {
        let span = Span::of(&lifetime);
        let closes = UNIX_EPOCH + Duration::from_secs(span.stop + 1);
        prop_assert!(closes >= lifetime.until && closes < lifetime.until + Duration::from_secs(1));
        prop_assert!(UNIX_EPOCH + Duration::from_secs(span.start) <= lifetime.from);
        prop_assert_eq!(Span::of(&span.lifetime()), span);
    }
}

fn simple() -> Wanted {
    Wanted {
        protection: Some(Protection {
            spa_port: 62201,
            protect: true,
            except: Vec::new(),
            services: BTreeSet::from(["tcp/22".parse().expect("an endpoint")]),
            provisional_until: None,
        }),
        grants: BTreeMap::new(),
    }
}

#[test]
fn faults_without_end_are_an_error() {
    for (fault, unsettled) in [(Fault::Refuse, false), (Fault::Lie, true)] {
        let memory = Memory { faults: vec![Some(fault); 9].into(), ..Memory::default() };
        let error = Enforcer::new(Box::new(memory)).enforce(&simple()).expect_err("nothing was written");
        assert_eq!(matches!(error, Error::Unsettled { .. }), unsettled, "{error}");
    }
}

#[test]
fn a_missing_family_is_left_alone_and_its_grants_are_told() {
    let missing = FamilyState { missing: true, ..FamilyState::default() };
    let memory = Memory { kernel: Kernel { v6: missing, ..Kernel::default() }, ..Memory::default() };
    let mut wanted = simple();
    let key = GrantKey::new(
        "alice".parse().expect("a name"),
        "2001:db8::1".parse().expect("an address"),
        "tcp/22".parse().expect("an endpoint"),
    );
    let lifetime = Lifetime { from: SystemTime::now(), until: SystemTime::now() };
    wanted.grants.insert(key.clone(), lifetime);
    let report = Enforcer::new(Box::new(memory)).enforce(&wanted).expect("IPv4 is enough");
    assert_eq!(report.unreachable, [key]);
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_is() {
    let mut enforcer = Enforcer::new(Box::new(Memory::new()));
    let mut wanted = simple();
    if let Some(protection) = &mut wanted.protection {
        protection.spa_port = 0;
    }
    assert!(matches!(enforcer.enforce(&wanted), Err(Error::NoPort)));
    let mut wanted = simple();
    let late = UNIX_EPOCH + Duration::from_secs(1 << 31);
    let key = GrantKey::new(
        "alice".parse().expect("a name"),
        "192.0.2.1".parse().expect("an address"),
        "tcp/22".parse().expect("an endpoint"),
    );
    wanted.grants.insert(key, Lifetime { from: late, until: late });
    assert!(matches!(enforcer.enforce(&wanted), Err(Error::TooLate { .. })));
}

#[test]
fn a_renewal_keeps_the_count_since_the_last_reading() {
    let memory = Arc::new(Mutex::new(Memory::new()));
    let mut enforcer = Enforcer::new(Box::new(memory.clone()));
    let mut wanted = simple();
    let key = GrantKey::new(
        "alice".parse().expect("a name"),
        "192.0.2.1".parse().expect("an address"),
        "tcp/22".parse().expect("an endpoint"),
    );
    let from = SystemTime::now();
    for seconds in [30, 60] {
        wanted.grants.insert(key.clone(), Lifetime { from, until: from + Duration::from_secs(seconds) });
        enforcer.enforce(&wanted).expect("it is granted");
        for counted in &mut memory.lock().expect("not poisoned").kernel.v4.rules {
            counted.counters.packets += 7;
        }
    }
    assert_eq!(enforcer.grants().expect("they are read")[0].counters.packets, 14);
}

fn granted(source: &str) -> (GrantKey, Lifetime) {
    let (client, endpoint) = ("alice".parse().expect("a name"), "tcp/22".parse().expect("an endpoint"));
    let from = SystemTime::now();
    let key = GrantKey::new(client, source.parse().expect("an address"), endpoint);
    (key, Lifetime { from, until: from + Duration::from_secs(60) })
}

/// What is asked first is written first, and nothing that is written waits for a reading.
#[test]
fn a_grant_waits_for_no_reading_back_of_a_removal() {
    let memory = Arc::new(Mutex::new(Memory::new()));
    let seen = || {
        let memory = memory.lock().expect("not poisoned");
        (memory.applied, memory.reads)
    };
    let mut enforcer = Enforcer::new(Box::new(memory.clone()));
    let mut wanted = simple();
    wanted.grants.extend(["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(granted));
    assert!(!enforcer.write_ahead(&wanted), "nothing is known yet");
    enforcer.enforce(&wanted).expect("it is laid");
    let (applied, reads) = seen();
    for (round, source) in ["192.0.2.1", "192.0.2.2"].into_iter().enumerate() {
        wanted.grants.remove(&granted(source).0);
        assert!(enforcer.write_ahead(&wanted));
        wanted.grants.extend([granted(&format!("192.0.2.{}", 100 + round))]);
        assert!(enforcer.write_ahead(&wanted));
    }
    assert_eq!(seen(), (applied + 4, reads), "all is written, and nothing was read");
    assert!(enforcer.is_ahead());
    let report = enforcer.enforce(&wanted).expect("it is read back");
    assert_eq!(seen(), (applied + 4, reads + 1), "one family was written, so one is read");
    assert_eq!((report.attempts, report.put_right), (0, None));
    assert!(!enforcer.is_ahead());
}

/// What was written ahead and does not stand is found, and put right.
#[test]
fn what_was_written_ahead_is_not_believed() {
    let memory = Arc::new(Mutex::new(Memory::new()));
    let mut enforcer = Enforcer::new(Box::new(memory.clone()));
    let mut wanted = simple();
    enforcer.enforce(&wanted).expect("it is laid");
    for (fault, refused) in [(Some(Fault::Lie), false), (Some(Fault::Refuse), true), (None, false)] {
        memory.lock().expect("not poisoned").faults = [fault].into();
        let source = format!("192.0.2.{}", wanted.grants.len() + 1);
        wanted.grants.extend([granted(&source)]);
        assert_eq!(enforcer.write_ahead(&wanted), !refused, "{fault:?}");
        if fault.is_none() {
            memory.lock().expect("not poisoned").kernel.v4.rules.remove(0);
        }
        let report = enforcer.enforce(&wanted).expect("the fault is over");
        assert_eq!(report.put_right.is_some(), !refused, "{fault:?}: {report:?}");
        let kernel = memory.lock().expect("not poisoned").kernel.clone();
        assert!(reconcile(&wanted, &kernel, SystemTime::now()).is_empty(), "{fault:?}");
    }
}

/// A firewall whose program hung when one more grant was written ahead.
fn hung_ahead() -> (Arc<Mutex<Memory>>, Enforcer, Wanted) {
    let memory = Arc::new(Mutex::new(Memory::new()));
    let mut enforcer = Enforcer::new(Box::new(memory.clone()));
    let mut wanted = simple();
    enforcer.enforce(&wanted).expect("it is laid");
    memory.lock().expect("not poisoned").faults = [Some(Fault::Hang)].into();
    wanted.grants.extend([granted("192.0.2.1")]);
    assert!(!enforcer.write_ahead(&wanted));
    (memory, enforcer, wanted)
}

/// Whoever waits for a change that hung does not wait for a second one.
#[test]
fn what_hung_when_it_was_written_ahead_is_not_tried_again_at_once() {
    let (memory, mut enforcer, wanted) = hung_ahead();
    let applied = memory.lock().expect("not poisoned").applied;
    let error = enforcer.enforce(&wanted).expect_err("it hung");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert_eq!(memory.lock().expect("not poisoned").applied, applied);
    assert_eq!(enforcer.enforce(&wanted).expect("the next is another").attempts, 1);
}

/// Who has the firewall looked at anew is not told of a hang from before.
#[test]
fn what_is_forgotten_hung_no_more() {
    let (_, mut enforcer, wanted) = hung_ahead();
    enforcer.forget();
    assert_eq!(enforcer.enforce(&wanted).expect("it is read, and written").attempts, 1);
}

/// A change of somebody else that our own next change meets is told, and ours alone are not.
#[test]
fn what_others_changed_in_between_is_told() {
    let memory = Arc::new(Mutex::new(Memory::new()));
    let mut enforcer = Enforcer::new(Box::new(memory.clone()));
    let mut wanted = simple();
    let report = enforcer.enforce(&wanted).expect("it is laid");
    assert_eq!((report.attempts, report.put_right), (1, None));
    for disturbed in [false, true, false] {
        let number = wanted.grants.len();
        wanted.grants.extend([granted(&format!("192.0.2.{}", number + 1))]);
        // A renewal besides: its counters are read first.
        for lifetime in wanted.grants.values_mut() {
            lifetime.until += Duration::from_secs(5);
        }
        if disturbed {
            memory.lock().expect("not poisoned").kernel.v4.jumps.clear();
        }
        let report = enforcer.enforce(&wanted).expect("it stands");
        assert_eq!(report.put_right.is_some_and(|plan| plan.v4.jump.insert), disturbed);
    }
}
