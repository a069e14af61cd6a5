//! The rows of DESIGN section 4's table that are the gate's.
#![allow(missing_docs)]

mod common;

use core::time::Duration;

use common::*;
use spa_gate::{JudgeSettings, Reason, VerifierSettings};
use spa_proto::Address;

const HERE: &str = "192.0.2.7";
const THERE: &str = "2001:db8::7";

fn restart(server: &mut Server, clients: &[&Client], names: &[&str]) {
    let policies = clients.iter().zip(names).map(|(client, name)| policy(name, client, &["ssh"])).collect();
    server.restart(verifier_settings(clients), judge_settings(policies));
}

#[test]
fn two_addresses_of_one_knock_out_of_order() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let (first, second) = (client.ssh(START), client.ssh(START + 1));
    assert!(server.deliver(now_at(0.1), from(THERE), &second).is_ok());
    assert!(server.deliver(now_at(0.2), from(HERE), &first).is_ok());
    assert_eq!(server.judge.leases().count(), 2);
}

#[test]
fn client_clock_steps_back() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let ahead = START + 50 * SECOND;
    assert!(server.deliver(now_at(0.0), from(HERE), &client.ssh(ahead)).is_ok());
    assert_eq!(server.refusal(now_at(1.0), from(HERE), &client.ssh(START + SECOND)), Reason::Counter);
    assert!(server.deliver(now_at(1.0), from(HERE), &client.ssh(ahead + 1)).is_ok(), "last + 1");
}

#[test]
fn future_dated_is_not_recorded() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let far = client.ssh(START + 90 * SECOND);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &far), Reason::Stale);
    assert!(server.deliver(now_at(1.0), from(HERE), &client.ssh(START + SECOND)).is_ok());
    assert!(
        server.deliver(now_at(40.0), from(HERE), &far).is_ok(),
        "held back until it was fresh: judged once"
    );
}

#[test]
fn a_restart_forgets_no_accepted_packet() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let (early, packet) = (client.ssh(START - 1), client.ssh(START));
    assert!(server.deliver(now_at(0.0), from(HERE), &packet).is_ok());
    restart(&mut server, &[&client], &["alice"]);
    for packet in [&packet, &early] {
        assert_eq!(server.refusal(now_at(1.0), from(HERE), packet), Reason::Counter);
    }
    assert!(server.deliver(now_at(1.0), from(HERE), &client.ssh(START + 1)).is_ok());
}

#[test]
fn a_crash_before_the_record_grants_nothing() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = client.ssh(START);
    assert!(server.judge(now_at(0.0), from(HERE), &packet).is_ok());
    assert_eq!(server.judge.leases().count(), 0, "nothing is open before the record is durable");
    restart(&mut server, &[&client], &["alice"]);
    assert!(server.deliver(now_at(0.1), from(HERE), &packet).is_ok(), "it is accepted for the first time");
    assert_eq!(server.refusal(now_at(0.2), from(HERE), &packet), Reason::Replay);
}

#[test]
fn a_packet_refused_by_policy_is_used_up() {
    let mut client = Client::new(1);
    let mut server = Server::with(&[&client], judge_settings(vec![policy("alice", &client, &[])]));
    let packet = client.ssh(START);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &packet), Reason::NotAllowed);
    server.judge.reconfigure(now_at(0.1), judge_settings(vec![policy("alice", &client, &["ssh"])]));
    assert_eq!(server.refusal(now_at(0.2), from(HERE), &packet), Reason::Replay, "the verifier");
    let candidate = Server::new(&[&client]).verifier.verify(now_at(0.2), from(HERE), &packet).unwrap();
    let knock = server.openers.open(&candidate).0.unwrap();
    let judged = server.judge.judge(now_at(0.2), &client.key(), ip(HERE), &knock);
    assert_eq!(judged.unwrap_err().reason(), Reason::Counter, "and the judge");
}

#[test]
fn wall_clock_behind_the_newest_record() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let mut server = Server::new(&[&alice, &bob]);
    assert!(server.deliver(now_at(100.0), from(HERE), &alice.ssh(START + 100 * SECOND)).is_ok());
    restart(&mut server, &[&alice, &bob], &["alice", "bob"]);
    let packet = bob.ssh(START + 39 * SECOND);
    assert_eq!(server.refusal(now_at(39.0), from(HERE), &packet), Reason::Clock);
    let packet = bob.ssh(START + 40 * SECOND);
    assert!(server.deliver(now_at(40.0), from(HERE), &packet).is_ok(), "the very edge");
}

/// A client whose clock is far ahead knocks under a long max-age, which is then made shorter: nothing is wrong with
/// the server's clock, so nobody is refused for it, after the reload or after a restart.
#[test]
fn a_shorter_max_age_blames_no_clock() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let clients = |max_age| {
        let alice = policy("alice", &Client::new(1), &["ssh"]);
        let bob = policy("bob", &Client::new(2), &["ssh"]);
        JudgeSettings { max_age: Duration::from_secs(max_age), ..judge_settings(vec![alice, bob]) }
    };
    let verifier = |max_age| VerifierSettings {
        max_age: Duration::from_secs(max_age),
        ..verifier_settings(&[&Client::new(1), &Client::new(2)])
    };
    let mut server = Server::with(&[&alice, &bob], clients(600));
    server.verifier.reconfigure(verifier(600));
    let ahead = alice.ssh(START + 590 * SECOND);
    assert!(server.deliver(now_at(0.0), from(HERE), &ahead).is_ok());
    server.verifier.reconfigure(verifier(5));
    server.judge.reconfigure(now_at(1.0), clients(5));
    assert!(server.deliver(now_at(1.0), from(THERE), &bob.ssh(START + SECOND)).is_ok(), "after a reload");
    server.restart(verifier(5), clients(5));
    assert!(
        server.deliver(now_at(2.0), from(THERE), &bob.ssh(START + 2 * SECOND)).is_ok(),
        "after a restart"
    );
    // The packet from ahead stays dead when its time comes, and a clock that is set back is noticed as before.
    assert_eq!(server.refusal(now_at(590.0), from(HERE), &ahead), Reason::Counter);
    assert!(server.deliver(now_at(591.0), from(HERE), &alice.ssh(START + 591 * SECOND)).is_ok());
    server.restart(verifier(5), clients(5));
    assert_eq!(server.refusal(now_at(585.0), from(HERE), &bob.ssh(START + 585 * SECOND)), Reason::Clock);
}

#[test]
fn recover_shuts_out_what_was_accepted_before() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let latest = client.ssh(START + 60 * SECOND);
    assert!(server.deliver(now_at(0.0), from(HERE), &latest).is_ok());
    server.durable.insert(client.key(), START + 60 * SECOND); // what `recover` writes: now + max-age
    restart(&mut server, &[&client], &["alice"]);
    assert_eq!(server.refusal(now_at(0.0), from(HERE), &latest), Reason::Counter);
    assert!(server.deliver(now_at(60.1), from(HERE), &client.ssh(START + 60 * SECOND + 1)).is_ok());
}

#[test]
fn floors_outlive_removal_and_enrolment_under_another_name() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = client.ssh(START);
    assert!(server.deliver(now_at(0.0), from(HERE), &packet).is_ok());
    for (second, clients) in [(1.0, vec![]), (2.0, vec![policy("again", &client, &["ssh"])])] {
        server.judge.reconfigure(now_at(second), judge_settings(clients));
    }
    server.verifier = spa_gate::Verifier::new(verifier_settings(&[&client]));
    assert_eq!(server.refusal(now_at(3.0), from(HERE), &packet), Reason::Counter);
    restart(&mut server, &[&client], &["again"]);
    assert_eq!(server.refusal(now_at(4.0), from(HERE), &packet), Reason::Counter);
}

#[test]
fn close_kills_held_packets() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let held = client.ssh(START - 1);
    let close = client.seal(&close(START, []));
    assert!(server.deliver(now_at(0.0), from(HERE), &close).is_ok());
    assert_eq!(server.refusal(now_at(1.0), from(THERE), &held), Reason::Counter);
    assert!(server.deliver(now_at(1.0), from(HERE), &client.ssh(START + 1)).is_ok());
}

#[test]
fn a_copy_that_overtakes_a_bound_packet_harms_nobody() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = client.seal(&open(START, Address::Bound(ip(HERE)), [service("ssh")]));
    for n in 0..40 {
        let thief = from(&format!("198.51.100.{n}"));
        let expected = if n == 0 { Reason::BoundSource } else { Reason::Replay };
        assert_eq!(server.refusal(now_at(0.0), thief, &packet), expected);
    }
    assert!(server.deliver(now_at(0.1), from(HERE), &packet).is_ok());
    assert_eq!(server.refusal(now_at(0.2), from(HERE), &packet), Reason::Replay);
    assert_eq!(server.verifier.diffie_hellmans(), 1);
    assert_eq!(server.judge.leases().count(), 1);
}

#[test]
fn a_copy_that_overtakes_harms_nobody_while_the_warden_is_busy_either() {
    let mut client = Client::new(1);
    let mut server = Server::new(&[&client]);
    let packet = client.seal(&open(START, Address::Bound(ip(HERE)), [service("ssh")]));
    let verify =
        |server: &mut Server, address: &str| server.verifier.verify(now_at(0.0), from(address), &packet);
    let copies = [verify(&mut server, "198.51.100.1").unwrap(), verify(&mut server, HERE).unwrap()];
    assert_eq!(verify(&mut server, HERE).unwrap_err().reason(), Reason::Replay, "once for each source");
    let mut reasons = Vec::new();
    for candidate in &copies {
        let (knock, outcome) = server.openers.open(candidate);
        server.verifier.settle(&candidate.tag, outcome);
        let judged = server.judge.judge(now_at(0.0), &client.key(), candidate.source.ip(), &knock.unwrap());
        reasons.push(judged.err().map(|refusal| refusal.reason()));
    }
    assert_eq!(reasons, [Some(Reason::BoundSource), None]);
    assert_eq!(verify(&mut server, HERE).unwrap_err().reason(), Reason::Replay);
    assert_eq!(server.verifier.diffie_hellmans(), 1);
}

#[test]
fn reconfiguring_the_verifier_keeps_memo_and_budget() {
    let (mut alice, mut bob) = (Client::new(1), Client::new(2));
    let mut server = Server::new(&[&alice, &bob]);
    let bound = alice.seal(&open(START, Address::Bound(ip(HERE)), [service("ssh")]));
    assert_eq!(server.refusal(now_at(0.0), from(THERE), &bound), Reason::BoundSource);
    let packets: Vec<_> = (1..16).map(|n| alice.ssh(START + n)).collect();
    assert!(packets.iter().all(|packet| server.deliver(now_at(0.0), from(HERE), packet).is_ok()));
    let of_bob = bob.ssh(START);
    assert!(server.deliver(now_at(0.0), from(HERE), &of_bob).is_ok());

    let carol = Client::new(3);
    server.verifier.reconfigure(verifier_settings(&[&carol, &alice])); // another order, and without bob
    assert_eq!(server.refusal(now_at(0.1), from(HERE), &alice.ssh(START + 20)), Reason::BudgetClient);
    assert!(packets.iter().all(|packet| server.refusal(now_at(0.1), from(THERE), packet) == Reason::Replay));
    assert_eq!(server.refusal(now_at(0.1), from(HERE), &of_bob), Reason::Name);
    assert!(server.deliver(now_at(0.1), from(HERE), &bound).is_ok());
    assert_eq!(server.verifier.diffie_hellmans(), 17);
}
