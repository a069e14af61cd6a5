//! No refusal of the verifier allocates, but for the hint table of a new epoch.
#![allow(missing_docs)]

mod common;
#[path = "../../spa-capture/tests/counting/mod.rs"]
mod counting;

use common::forge::{self, forge};
use common::*;
use counting::allocations;
use spa_gate::Reason;
use spa_proto::CloakKey;

#[test]
fn refusals_do_not_allocate() {
    let here = from("192.0.2.7");
    let now = now_at(0.0);
    let (mut alice, mut stranger) = (Client::new(1), Client::new(2));
    let mut server = Server::new(&[&alice]);
    let gate = alice.gate();
    let taken = alice.ssh(START);
    let edited = |n: u64, gate| {
        forge(&taken, gate, |packet| packet[forge::CIPHERTEXT..][..8].copy_from_slice(&n.to_be_bytes()))
    };
    let low_order = forge(&taken, Some(&gate), |packet| packet[forge::EPHEMERAL].fill(0));
    let flood: Vec<_> = (0..20).map(|n| edited(n, Some(&gate))).collect();
    let mut cases = vec![
        (Reason::Length, vec![0; 10]),
        (Reason::Tag, vec![0; 300]),
        (Reason::Tag, Client::under(1, &CloakKey::from_bytes([9; 32])).ssh(START)),
        (Reason::Stale, alice.ssh(START - 100 * SECOND)),
        (Reason::Replay, taken.clone()),
        (Reason::Name, stranger.ssh(START)),
        (Reason::Gate, edited(0, None)),
        (Reason::LowOrder, low_order),
    ];
    cases.push((Reason::BudgetClient, flood[19].clone()));
    assert!(server.verifier.verify(now, here, &taken).is_ok()); // builds the epoch's hint table

    let mut flooded = flood.iter().take(14);
    for (expected, packet) in &cases {
        if *expected == Reason::BudgetClient {
            assert!(flooded.all(|packet| server.verifier.verify(now, here, packet).is_ok()));
        }
        let before = allocations();
        let result = server.verifier.verify(now, here, packet);
        let allocated = allocations() - before;
        assert_eq!(result.unwrap_err().reason(), *expected);
        assert_eq!(allocated, 0, "{expected}");
    }
    let before = allocations();
    assert!(server.verifier.verify(now_at(5.0), here, &flood[19]).is_ok());
    assert_eq!(allocations() - before, 0, "a candidate does not allocate either");
}
