//! Every reason is reached by a real packet.
#![allow(missing_docs)]

mod common;

use core::time::Duration;

use common::forge::{self, forge};
use common::*;
use spa_gate::Reason;
use spa_proto::{Address, CloakKey, Request};

const HERE: &str = "192.0.2.7";

#[test]
fn length() {
    let mut server = Server::new(&[&Client::new(1)]);
    for length in [0, 1, 255, 545, 65_507] {
        assert_eq!(server.refusal(now_at(0.0), from(HERE), &vec![0; length]), Reason::Length, "{length}");
    }
}

#[test]
fn tag() {
    let mut client = Client::under(1, &CloakKey::from_bytes([9; 32]));
    let mut server = Server::new(&[&client]);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &client.ssh(START)), Reason::Tag);
    let mut packet = Client::new(1).ssh(START);
    for place in [0, 12, 28, 100, packet.len() - 1] {
        packet[place] ^= 1;
        assert_eq!(server.refusal(now_at(0.0), from(HERE), &packet), Reason::Tag, "{place}");
        packet[place] ^= 1;
    }
    assert!(server.deliver(now_at(0.0), from(HERE), &packet).is_ok());
}

#[test]
fn stale_at_the_edges_of_the_window() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let mut skew = |counter| {
        let packet = client.ssh(counter);
        match server.deliver(now_at(0.0), from(HERE), &packet) {
            Ok(_) => None,
            Err(refusal) => Some((refusal.reason(), refusal.skew())),
        }
    };
    assert_eq!(skew(START - 61 * SECOND), Some((Reason::Stale, Some(-61))));
    assert_eq!(skew(START - 60 * SECOND - 1), Some((Reason::Stale, Some(-60))), "the judge is exact");
    assert_eq!(skew(START - 60 * SECOND), None);
    assert_eq!(skew(START + 61 * SECOND), Some((Reason::Stale, Some(61))));
    assert_eq!(skew(START + 60 * SECOND + 1), Some((Reason::Stale, Some(60))));
    assert_eq!(skew(START + 60 * SECOND), None, "what was refused as future-dated was not recorded");
}

#[test]
fn replay() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = client.ssh(START);
    assert!(server.deliver(now_at(0.0), from(HERE), &packet).is_ok());
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &packet), Reason::Replay);
    assert_eq!(server.refusal(now_at(1.0), from("192.0.2.8"), &packet), Reason::Replay);
    assert_eq!(server.verifier.diffie_hellmans(), 1);
}

#[test]
fn name_and_gate() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = client.ssh(START);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &Client::new(2).ssh(START)), Reason::Name);
    let edited = forge(&packet, None, |packet| packet[forge::CIPHERTEXT] ^= 1);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &edited), Reason::Gate);
    assert_eq!(server.verifier.diffie_hellmans(), 0);
    assert!(server.deliver(now_at(0.0), from(HERE), &packet).is_ok());
}

#[test]
fn budgets() {
    let mut clients: Vec<Client> = (1..=126).map(Client::new).collect();
    let mut server = Server::new(&clients.iter().collect::<Vec<_>>());
    let mut reasons = Vec::new();
    for client in &mut clients {
        for n in 0..16 {
            let result = server.verifier.verify(now_at(0.0), from(HERE), &client.ssh(START + n));
            reasons.extend(result.err().map(|refusal| refusal.reason()));
        }
    }
    assert_eq!(reasons, vec![Reason::BudgetGlobal; 126 * 16 - spa_gate::GLOBAL_BURST as usize]);
    let packet = clients[0].ssh(START + 99);
    assert_eq!(server.refusal(now_at(0.1), from(HERE), &packet), Reason::BudgetClient);
    assert!(server.deliver(now_at(0.3), from(HERE), &packet).is_ok(), "a refusal by budget spends nothing");
}

#[test]
fn low_order() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = forge(&client.ssh(START), Some(&client.gate()), |packet| packet[forge::EPHEMERAL].fill(0));
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &packet), Reason::LowOrder);
    assert_eq!(server.refusal(now_at(0.0), from("192.0.2.8"), &packet), Reason::Replay);
    assert_eq!(server.verifier.diffie_hellmans(), 1);
}

#[test]
fn unknown_client_not_authentic_payload_time_mismatch() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let edited = forge(&client.ssh(START), Some(&client.gate()), |packet| packet[forge::CIPHERTEXT] ^= 1);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &edited), Reason::NotAuthentic);
    let nothing_asked = client.seal(&open(START, Address::Observed, []));
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &nothing_asked), Reason::Payload);
    // The envelope's time is cut to 32 bits, the counter is not.
    let wrong_time = client.ssh(START + (SECOND << 32));
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &wrong_time), Reason::TimeMismatch);

    server.judge.reconfigure(now_at(0.0), judge_settings(vec![]));
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &client.ssh(START)), Reason::UnknownClient);
    server.openers = openers(&[]);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &client.ssh(START)), Reason::UnknownClient);
}

#[test]
fn clock_and_counter() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    server.judge.restore_clock(START + 60 * SECOND);
    assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(START)).is_ok());
    let (one, other) = (client.ssh(START), client.ssh(START + 1));
    assert_eq!(
        server.refusal(now_at(0.0), from(HERE), &one),
        Reason::Counter,
        "another packet, same counter"
    );
    assert_eq!(server.judge.clock_wrong_until(now_at(0.0)), None);
    server.judge.restore_clock(START + 60 * SECOND + 1);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &other), Reason::Clock);
    assert_eq!(server.judge.clock_wrong_until(now_at(0.0)), Some(START + 1));
}

#[test]
fn addresses() {
    let mut client = Client::new(1);
    let mut settings = judge_settings(vec![policy("alice", &client, &["ssh"])]);
    let mut server = Server::with(&[&client], settings.clone());
    server.judge.set_own_addresses([ip("::ffff:198.51.100.1")]);
    let mut counter = START;
    let mut reason = |server: &mut Server, source: &str, address| {
        counter += SECOND;
        let packet = client.seal(&open(counter, address, [service("ssh")]));
        let now = now_at((counter - START) as f64 / SECOND as f64);
        server.deliver(now, from(source), &packet).err().map(|refusal| refusal.reason())
    };
    let (bound, explicit) = (Address::Bound(ip(HERE)), Address::Explicit(ip("203.0.113.5")));
    assert_eq!(reason(&mut server, "192.0.2.8", bound), Some(Reason::BoundSource));
    assert_eq!(reason(&mut server, "::ffff:192.0.2.7", bound), None);
    assert_eq!(reason(&mut server, HERE, explicit), Some(Reason::Explicit));
    assert_eq!(reason(&mut server, "127.0.0.1", Address::Observed), Some(Reason::Martian));
    assert_eq!(reason(&mut server, "fe80::1", Address::Observed), Some(Reason::Martian));
    assert_eq!(reason(&mut server, "198.51.100.1", Address::Observed), Some(Reason::OwnAddress));

    settings.clients[0].allow_explicit = true;
    settings.clients[0].sources = vec!["203.0.113.0/24".parse().unwrap()];
    server.judge.reconfigure(now_at(0.0), settings.clone());
    assert_eq!(reason(&mut server, HERE, explicit), None, "the address to open for counts, not the origin");
    assert_eq!(reason(&mut server, HERE, Address::Observed), Some(Reason::Source));
    let martian = Address::Explicit(ip("224.0.0.1"));
    assert_eq!(reason(&mut server, HERE, martian), Some(Reason::Martian));

    settings.clients[0].require_bound = true;
    server.judge.reconfigure(now_at(0.0), settings);
    assert_eq!(reason(&mut server, "203.0.113.5", Address::Observed), Some(Reason::BoundRequired));
    assert_eq!(reason(&mut server, HERE, explicit), Some(Reason::BoundRequired));
    assert_eq!(reason(&mut server, "203.0.113.5", Address::Bound(ip("203.0.113.5"))), None);
}

#[test]
fn services() {
    let mut client = Client::new(1);
    let mut settings = judge_settings(vec![policy("alice", &client, &["ssh", "none", "absent"])]);
    let mut server = Server::with(&[&client], settings.clone());
    let mut counter = START;
    let mut reason = |server: &mut Server, request: Request, other: Request| {
        counter += SECOND;
        let packet = client.seal(&open(counter, Address::Observed, [request, other]));
        let now = now_at((counter - START) as f64 / SECOND as f64);
        server.deliver(now, from(HERE), &packet).err().map(|refusal| refusal.reason())
    };
    let (ssh, endpoint) = (service("ssh"), |port| Request::Endpoint(tcp(port)));
    assert_eq!(reason(&mut server, ssh.clone(), service("nosuch")), Some(Reason::Service));
    assert_eq!(reason(&mut server, ssh.clone(), service("absent")), Some(Reason::Service));
    assert_eq!(reason(&mut server, ssh.clone(), service("web")), Some(Reason::NotAllowed));
    assert_eq!(reason(&mut server, ssh.clone(), service("none")), Some(Reason::NotAllowed));
    assert_eq!(reason(&mut server, ssh.clone(), endpoint(80)), Some(Reason::NotAllowed));
    assert_eq!(server.judge.leases().count(), 0, "all or none");
    assert_eq!(reason(&mut server, ssh.clone(), endpoint(22)), None);
    assert_eq!(server.judge.leases().count(), 1, "the service and its endpoint are one");

    settings.clients[0].allow.clear();
    server.judge.reconfigure(now_at(0.0), settings);
    assert_eq!(
        reason(&mut server, ssh.clone(), ssh),
        Some(Reason::NotAllowed),
        "an empty list grants nothing"
    );
}

#[test]
fn expired_client() {
    let mut client = Client::new(1);
    let mut settings = judge_settings(vec![policy("alice", &client, &["ssh"])]);
    settings.clients[0].valid_until = Some(START / SECOND + 10);
    let mut server = Server::with(&[&client], settings);
    assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(START)).is_ok());
    let end = server.judge.next_expiry().unwrap() - now_at(0.0).boot;
    assert_eq!(end, Duration::from_nanos(10 * SECOND - START % SECOND), "ends with the enrolment");
    let packet = client.ssh(START + 10 * SECOND);
    assert_eq!(server.refusal(now_at(10.0), from(HERE), &packet), Reason::ExpiredClient);
}

/// An invite that was not used in time: the first knock comes too late, and so does a close, whose record would count as
/// one. Who has knocked before is not concerned.
#[test]
fn lapsed_invite() {
    let (mut prompt, mut late) = (Client::new(1), Client::new(2));
    let mut settings =
        judge_settings(vec![policy("prompt", &prompt, &["ssh"]), policy("late", &late, &["ssh"])]);
    for client in &mut settings.clients {
        client.first_knock_by = Some(START / SECOND + 10);
    }
    let mut server = Server::with(&[&prompt, &late], settings.clone());
    assert!(server.deliver(now_at(0.0), from(HERE), &prompt.ssh(START)).is_ok());
    assert_eq!(server.judge.next_expiry(), Some(now_at(30.0).boot), "the grant is not cut at the deadline");
    let now = now_at(10.0);
    assert!(server.deliver(now, from(HERE), &prompt.ssh(now.wall)).is_ok());
    assert_eq!(server.refusal(now, from(HERE), &late.ssh(now.wall)), Reason::ExpiredClient);
    let close = late.seal(&close(now.wall + 1, []));
    assert_eq!(server.refusal(now, from(HERE), &close), Reason::ExpiredClient);
    // After a restart the durable record tells who was in time.
    server.judge = spa_gate::Judge::new(settings);
    server.judge.set_proven([prompt.key()]);
    assert!(server.deliver(now, from(HERE), &prompt.ssh(now.wall + 1)).is_ok());
    assert_eq!(server.refusal(now, from(HERE), &late.ssh(now.wall + 2)), Reason::ExpiredClient);
}

#[test]
fn too_many_grants_and_full() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let both = vec![policy("alice", &alice, &["ssh", "web"]), policy("bob", &bob, &["ssh", "web"])];
    let mut settings = judge_settings(both);
    settings.max_grants = 3;
    settings.clients[0].max_grants = 2;
    let mut server = Server::with(&[&alice, &bob], settings);
    assert!(server.deliver(now_at(0.0), from(HERE), &alice.ssh(START)).is_ok());
    let web = alice.seal(&open(START + 1, Address::Observed, [service("web")]));
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &web), Reason::TooManyGrants, "all or none");
    assert!(server.deliver(now_at(0.0), from(HERE), &alice.ssh(START + 2)).is_ok(), "a renewal adds none");
    assert!(server.deliver(now_at(0.0), from("192.0.2.8"), &alice.ssh(START + 3)).is_ok());
    assert!(server.deliver(now_at(0.0), from(HERE), &bob.ssh(START)).is_ok());
    let web = bob.seal(&open(START + 1, Address::Observed, [service("web")]));
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &web), Reason::Full);
    assert!(server.deliver(now_at(0.0), from(HERE), &alice.seal(&close(START + 4, []))).is_ok());
    let web = bob.seal(&open(START + 2, Address::Observed, [service("web")]));
    assert!(server.deliver(now_at(0.0), from(HERE), &web).is_ok(), "closing makes room");
}

#[test]
fn names_are_stable_and_sentences_plain() {
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    for (place, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, place);
        assert!(reason.explain().ends_with('.'));
        assert!(reason.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}
