//! Leases: granted, renewed, closed, expired, revoked, adopted.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use core::time::Duration;

use common::*;
use spa_gate::{Change, End, LeaseKey, Now, Reason, Selector};
use spa_proto::{Action, Address, Knock, Request};

const HERE: &str = "192.0.2.7";
const THERE: &str = "192.0.2.8";

fn key(client: &str, source: &str, port: u16) -> LeaseKey {
    LeaseKey { client: client.parse().unwrap(), source: ip(source), endpoint: tcp(port) }
}

fn keys(server: &Server) -> Vec<LeaseKey> {
    server.judge.leases().map(|(key, _)| key.clone()).collect()
}

/// Seconds for which the client's ssh stays open from `now` on.
fn left(server: &Server, now: Now, client: &str) -> f64 {
    let wanted = key(client, HERE, 22);
    let (_, lease) = server.judge.leases().find(|(key, _)| **key == wanted).unwrap();
    (lease.until - now.boot).as_secs_f64()
}

fn for_seconds(mut knock: Knock, wanted: u32) -> Knock {
    if let Action::Open { seconds, .. } = &mut knock.action {
        *seconds = wanted;
    }
    knock
}

#[test]
fn renewing_extends_and_never_shortens() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let mut knock = |server: &mut Server, second: f64, wanted| {
        let now = now_at(second);
        let knock = for_seconds(open(now.wall, Address::Observed, [service("ssh")]), wanted);
        server.deliver(now, from(HERE), &client.seal(&knock)).unwrap().remove(0)
    };
    assert!(matches!(knock(&mut server, 0.0, 0), Change::Opened(..)));
    assert_eq!(left(&server, now_at(0.0), "c0"), 30.0);
    assert!(matches!(knock(&mut server, 10.0, 60), Change::Renewed(..)));
    assert_eq!(left(&server, now_at(10.0), "c0"), 60.0);
    assert!(matches!(knock(&mut server, 11.0, 5), Change::Kept(..)));
    assert_eq!(left(&server, now_at(11.0), "c0"), 59.0);
    assert!(matches!(knock(&mut server, 12.0, u32::MAX), Change::Renewed(..)));
    assert_eq!(left(&server, now_at(12.0), "c0"), 3600.0, "clamped");
    assert_eq!(server.judge.leases().count(), 1);
}

#[test]
fn a_lease_ends_by_the_boot_clock_whatever_the_wall_clock_does() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(START)).is_ok());
    assert_eq!(server.judge.next_expiry(), Some(now_at(30.0).boot));
    for step in [-86_400_i64, 86_400] {
        let now = now_at(20.0);
        let stepped = Now { wall: now.wall.saturating_add_signed(step * SECOND as i64), ..now };
        assert!(server.judge.expire(stepped).is_empty());
        let (_, lease) = server.judge.leases().next().unwrap();
        assert_eq!(lease.wall_until(stepped), stepped.wall + 10 * SECOND);
        assert_eq!(lease.wall_since(stepped), stepped.wall - 20 * SECOND);
    }
    assert!(server.judge.expire(now_at(29.999_999)).is_empty());
    let ended = server.judge.expire(now_at(30.0));
    assert_eq!((ended.len(), ended[0].why, server.judge.next_expiry()), (1, End::Expired, None));
}

#[test]
fn an_enrolment_that_ends_by_a_clock_step_ends_its_leases() {
    let mut client = Client::new(1);
    let mut settings = judge_settings(vec![policy("alice", &client, &["ssh"])]);
    settings.clients[0].valid_until = Some(START / SECOND + 3600);
    let mut server = Server::with(&[&client], settings);
    assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(START)).is_ok());
    let now = now_at(1.0);
    assert!(server.judge.expire(now).is_empty());
    assert_eq!(server.judge.clock_set(Now { wall: now.wall + 3600 * SECOND, ..now }).len(), 1);
}

/// Nothing that a knock or an expiry does looks at the leases of all.
#[test]
fn the_leases_of_others_cost_nothing() {
    let client = Client::new(1);
    let judge = |others: u32| {
        let mut alice = policy("alice", &client, &["ssh"]);
        alice.valid_until = Some(START / SECOND + 3600);
        alice.max_grants = u32::MAX;
        let mut settings = judge_settings(vec![alice]);
        settings.max_grants = u32::MAX;
        let mut judge = spa_gate::Judge::new(settings);
        for n in 0..=others {
            let source = core::net::Ipv4Addr::from(0xc633_0000 + n);
            let key = LeaseKey { source: source.into(), ..key("alice", HERE, 22) };
            judge.adopt(now_at(1.0), key, START, START + 60 * SECOND).unwrap();
        }
        judge
    };
    let quickest = |judge: &mut spa_gate::Judge| {
        let once = |_| {
            let began = std::time::Instant::now();
            assert!(judge.expire(now_at(2.0)).is_empty());
            assert!(judge.next_expiry().is_some());
            began.elapsed()
        };
        (0..200).map(once).min().unwrap()
    };
    let (few, many) = (quickest(&mut judge(1)), quickest(&mut judge(3_000)));
    assert!(many < few.max(Duration::from_micros(1)) * 100, "{few:?} with 2, {many:?} with 3,001");
}

#[test]
fn a_client_closes_its_own_on_any_source_and_nobody_elses() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let mut server = Server::new(&[&alice, &bob]);
    let both = |counter| open(counter, Address::Observed, [service("ssh"), service("web")]);
    for (source, n) in [(HERE, 0), (THERE, 1)] {
        assert!(server.deliver(now_at(0.0), from(source), &alice.seal(&both(START + n))).is_ok());
    }
    assert!(server.deliver(now_at(0.0), from(HERE), &bob.ssh(START)).is_ok());
    assert_eq!(server.judge.leases().count(), 7);
    let partly = alice.seal(&close(START + 2, [service("web"), service("nosuch")]));
    let changes = server.deliver(now_at(1.0), from("203.0.113.1"), &partly).unwrap();
    assert_eq!(changes.len(), 4);
    assert_eq!(keys(&server), [key("c0", HERE, 22), key("c0", THERE, 22), key("c1", HERE, 22)]);
    let all = alice.seal(&close(START + 3, []));
    assert_eq!(server.deliver(now_at(1.0), from(HERE), &all).unwrap().len(), 2);
    assert_eq!(keys(&server), [key("c1", HERE, 22)]);
}

/// Somebody on the path holds a close back, or the network delivers it late.
#[test]
fn a_close_ends_nothing_that_was_asked_for_after_it() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let close = Knock {
        action: Action::Close { requests: Default::default() },
        address: Address::Observed,
        counter: now_at(1.0).wall,
    };
    let held = client.seal(&close);
    let opened = client.seal(&open(now_at(2.0).wall, Address::Observed, [service("ssh")]));
    assert!(matches!(server.deliver(now_at(2.0), from(HERE), &opened).unwrap()[..], [Change::Opened(..)]));
    assert_eq!(server.deliver(now_at(3.0), from(HERE), &held).unwrap(), []);
    assert_eq!(keys(&server), [key("c0", HERE, 22)]);
    let later = client.seal(&Knock { counter: now_at(4.0).wall, ..close });
    assert!(matches!(server.deliver(now_at(4.0), from(HERE), &later).unwrap()[..], [Change::Closed(..)]));
}

#[test]
fn closing_needs_no_policy() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(START)).is_ok());
    let mut settings = judge_settings(vec![policy("c0", &client, &["ssh"])]);
    settings.clients[0].max_grants = 0;
    settings.clients[0].valid_until = Some(START / SECOND + 5);
    assert!(server.judge.reconfigure(now_at(0.1), settings).is_empty(), "lower caps end nothing");
    let again = client.ssh(START + 1);
    assert!(server.deliver(now_at(0.2), from(HERE), &again).is_ok(), "and a renewal adds none");
    let close = client.seal(&close(START + SECOND, []));
    assert_eq!(server.deliver(now_at(1.0), from("127.0.0.1"), &close).unwrap().len(), 1);
}

#[test]
fn a_new_configuration_revokes() {
    let (mut alice, mut bob, mallory) = (Client::new(1), Client::new(2), Client::new(3));
    let clients =
        || vec![policy("alice", &Client::new(1), &["ssh", "web"]), policy("bob", &Client::new(2), &["ssh"])];
    let refill = |alice: &mut Client, bob: &mut Client| {
        let mut server = Server::with(&[alice, bob], judge_settings(clients()));
        let both = open(START, Address::Observed, [service("ssh"), Request::Endpoint(tcp(80))]);
        assert!(server.deliver(now_at(0.0), from(HERE), &alice.seal(&both)).is_ok());
        assert!(server.deliver(now_at(0.0), from(HERE), &bob.ssh(START)).is_ok());
        server
    };
    type Edit = fn(&mut spa_gate::JudgeSettings, &Client);
    let cases: [(&str, Edit, usize); 9] = [
        ("the same", |_, _| (), 0),
        ("client removed", |settings, _| settings.clients.truncate(1), 1),
        ("another key under the name", |settings, other| settings.clients[1].key = other.key(), 1),
        ("service withdrawn", |settings, _| settings.clients[0].allow.truncate(1), 1),
        ("endpoint withdrawn", |settings, _| drop(settings.services.remove(&"ssh".parse().unwrap())), 2),
        ("source withdrawn", |s, _| s.clients[0].sources = vec!["10.0.0.0/8".parse().unwrap()], 2),
        ("bound required", |settings, _| settings.clients[0].require_bound = true, 2),
        ("enrolment ended", |settings, _| settings.clients[1].valid_until = Some(START / SECOND), 1),
        ("everything", |settings, _| settings.clients.clear(), 3),
    ];
    for (name, edit, ended) in cases {
        let mut server = refill(&mut alice, &mut bob);
        let mut settings = judge_settings(clients());
        edit(&mut settings, &mallory);
        let gone = server.judge.reconfigure(now_at(1.0), settings);
        assert_eq!(gone.len(), ended, "{name}");
        assert!(gone.iter().all(|ended| ended.why == End::Policy));
        assert_eq!(server.judge.leases().count(), 3 - ended, "{name}");
    }
    let mut server = refill(&mut alice, &mut bob);
    let mut settings = judge_settings(clients());
    settings.max_open_for = Duration::from_secs(10);
    assert!(server.judge.reconfigure(now_at(1.0), settings).is_empty());
    assert_eq!(server.judge.expire(now_at(11.0)).len(), 3, "a shorter limit shortens");
}

#[test]
fn a_configuration_between_judgement_and_grant_counts() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let accepted = server.judge(now_at(0.0), from(HERE), &client.ssh(START)).unwrap();
    server.judge.reconfigure(now_at(0.1), judge_settings(vec![policy("c0", &client, &["web"])]));
    let refusal = server.judge.grant(now_at(0.2), accepted).unwrap_err();
    assert_eq!((refusal.reason(), server.judge.leases().count()), (Reason::NotAllowed, 0));
}

/// Also by what was judged already; the others are not touched, and the next configuration decides anew.
#[test]
fn who_is_shut_out_gets_nothing_more() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let clients = vec![policy("alice", &alice, &["ssh"]), policy("bob", &bob, &["ssh"])];
    let mut server = Server::with(&[&alice, &bob], judge_settings(clients.clone()));
    for client in [&mut alice, &mut bob] {
        assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(START)).is_ok());
    }
    let judged = server.judge(now_at(0.1), from(THERE), &alice.ssh(START + 1)).unwrap();
    let ended = server.judge.shut_out(&[alice.key()]);
    assert_eq!(ended.iter().map(|ended| ended.key.client.as_str()).collect::<Vec<_>>(), ["alice"]);
    assert_eq!(server.judge.grant(now_at(0.2), judged).unwrap_err().reason(), Reason::UnknownClient);
    let knock = alice.ssh(START + 2);
    assert_eq!(server.refusal(now_at(0.2), from(HERE), &knock), Reason::UnknownClient);
    assert!(server.deliver(now_at(0.2), from(THERE), &bob.ssh(START + 1)).is_ok());
    assert!(server.judge.shut_out(&[alice.key()]).is_empty(), "twice is once");
    server.judge.reconfigure(now_at(0.3), judge_settings(clients));
    assert!(server.deliver(now_at(0.4), from(HERE), &alice.ssh(START + 3)).is_ok());
}

#[test]
fn knocks_judged_together_stay_within_the_cap() {
    let mut client = Client::new(1);
    let mut settings = judge_settings(vec![policy("c0", &client, &["ssh"])]);
    settings.clients[0].max_grants = 1;
    let mut server = Server::with(&[&client], settings);
    let one = server.judge(now_at(0.0), from(HERE), &client.ssh(START)).unwrap();
    let other = server.judge(now_at(0.0), from(THERE), &client.ssh(START + 1)).unwrap();
    assert!(server.judge.grant(now_at(0.0), one).is_ok());
    assert_eq!(server.judge.grant(now_at(0.0), other).unwrap_err().reason(), Reason::TooManyGrants);
}

#[test]
fn revoke_picks_by_all_that_is_named() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let mut fill = || {
        let mut server = Server::new(&[&alice, &bob]);
        let web = open(START, Address::Observed, [service("web"), service("ssh")]);
        assert!(server.deliver(now_at(0.0), from(HERE), &alice.seal(&web)).is_ok());
        assert!(server.deliver(now_at(0.0), from(THERE), &alice.ssh(START + 1)).is_ok());
        assert!(server.deliver(now_at(0.0), from(HERE), &bob.ssh(START)).is_ok());
        server
    };
    let (client, source, endpoint) =
        (Some("c0".parse().unwrap()), Some(ip("::ffff:192.0.2.7")), Some(tcp(22)));
    for (selector, count) in [
        (Selector::default(), 5),
        (Selector { client: client.clone(), ..Selector::default() }, 4),
        (Selector { source, ..Selector::default() }, 4),
        (Selector { endpoint, ..Selector::default() }, 3),
        (Selector { client: client.clone(), source, endpoint }, 1),
        (Selector { endpoint: Some(tcp(23)), ..Selector::default() }, 0),
    ] {
        let mut server = fill();
        let ended = server.judge.revoke(&selector);
        assert_eq!((ended.len(), server.judge.leases().count()), (count, 5 - count), "{selector:?}");
        assert_eq!(server.judge.next_expiry().is_none(), count == 5);
    }
}

#[test]
fn adopting_asks_policy() {
    let client = Client::new(1);
    let adopt = |key: LeaseKey, granted: u64, until: u64| {
        let mut server = Server::new(&[&client]);
        server.judge.restore_clock(START + 60 * SECOND);
        let result = server.judge.adopt(now_at(100.0), key, granted, until);
        result.map(|_| left(&server, now_at(100.0), "c0")).map_err(|refusal| refusal.reason())
    };
    let wall = now_at(100.0).wall;
    let (before, soon) = (wall - 20 * SECOND, wall + 10 * SECOND);
    assert_eq!(adopt(key("c0", HERE, 22), before, soon), Ok(10.0));
    assert_eq!(adopt(key("c0", "::ffff:192.0.2.7", 22), before, soon), Ok(10.0));
    assert_eq!(adopt(key("c0", HERE, 22), before, wall - 1), Err(Reason::Stale), "it is over");
    assert_eq!(adopt(key("c0", HERE, 22), before, u64::MAX), Ok(3600.0), "no longer than policy");
    assert_eq!(adopt(key("mallory", HERE, 22), before, soon), Err(Reason::UnknownClient));
    assert_eq!(adopt(key("c0", HERE, 23), before, soon), Err(Reason::NotAllowed));
    assert_eq!(adopt(key("c0", "127.0.0.1", 22), before, soon), Err(Reason::Martian));
    assert_eq!(adopt(key("c0", HERE, 22), wall + 1, soon), Err(Reason::Clock), "the clock was set back");
    let mut server = Server::new(&[&client]);
    server.judge.restore_clock(wall + 61 * SECOND);
    let refusal = server.judge.adopt(now_at(100.0), key("c0", HERE, 22), before, soon).unwrap_err();
    assert_eq!(refusal.reason(), Reason::Clock);
}
