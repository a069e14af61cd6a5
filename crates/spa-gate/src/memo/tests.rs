use spa_proto::{GateKeys, SecretKey};

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, n).into()
}

fn clients(count: u8) -> Clients {
    let client = |n| (SecretKey::from_bytes([n; 32]).public_key(), GateKeys::from_bytes(&[n; 32]));
    Clients::new((1..=count).map(client).collect())
}

fn tag(n: u32) -> Tag {
    let mut tag = [0; 16];
    tag[..4].copy_from_slice(&n.to_be_bytes());
    tag
}

fn pending(clients: &mut Clients) -> Memo {
    let mut memo = Memo::new();
    memo.remember_pending(clients, 0, tag(1), 100, SharedSecret::from_bytes([5; 32]), HERE);
    memo
}

/// Whether a copy from this source goes on.
fn passes(memo: &mut Memo, source: IpAddr) -> bool {
    match memo.recall(&tag(1), source) {
        Recall::New => panic!("forgotten"),
        Recall::Replay => false,
        Recall::Copy(entry) => memo.pass(entry, source).is_some(),
    }
}

#[test]
fn while_pending_a_copy_passes_once_for_each_of_16_sources() {
    let mut memo = pending(&mut clients(1));
    assert!(!passes(&mut memo, HERE));
    for n in 1..MEMO_SOURCES as u8 {
        assert!(passes(&mut memo, address(n)));
        assert!(!passes(&mut memo, address(n)));
    }
    assert!(!passes(&mut memo, address(200)));
}

#[test]
fn spent_is_final() {
    let mut memo = pending(&mut clients(1));
    memo.settle(&tag(1), Outcome::Spent);
    memo.settle(&tag(1), Outcome::BoundTo(address(1)));
    assert!(!passes(&mut memo, address(1)));
}

#[test]
fn bound_is_open_for_its_source_once() {
    let mut memo = pending(&mut clients(1));
    assert!(passes(&mut memo, address(1)));
    memo.settle(&tag(1), Outcome::BoundTo(address(9)));
    memo.settle(&tag(1), Outcome::BoundTo(address(9))); // the answer to the second copy
    assert!(!passes(&mut memo, address(2)));
    assert!(passes(&mut memo, address(9)));
    assert!(!passes(&mut memo, address(9)));
    memo.settle(&tag(1), Outcome::BoundTo(address(9)));
    assert!(!passes(&mut memo, address(9)));
}

#[test]
fn bound_to_a_source_that_it_came_from_is_spent() {
    let mut memo = pending(&mut clients(1));
    memo.settle(&tag(1), Outcome::BoundTo(HERE));
    assert!(!passes(&mut memo, HERE));
    assert!(!passes(&mut memo, address(1)));
}

/// Against a list that is searched from its old end.
#[test]
fn the_oldest_is_forgotten_of_a_client_and_of_all() {
    let count = 200_u8;
    let (mut clients, mut memo) = (clients(count), Memo::new());
    let mut model: Vec<(u32, u32)> = Vec::new();
    let mut last_forgotten = vec![0; usize::from(count)];
    for n in 1..20_000_u32 {
        // Some clients send much, most of them a little.
        let client = n.wrapping_mul(2_654_435_761) >> 16;
        let client = if client % 4 == 0 { client % 5 } else { client % u32::from(count) };
        let per_client = usize::from(MEMO_ENTRIES_PER_CLIENT);
        let forgotten = if model.iter().filter(|(_, other)| *other == client).count() == per_client {
            model.iter().position(|(_, other)| *other == client)
        } else {
            (model.len() == MEMO_ENTRIES).then_some(0)
        };
        if let Some(place) = forgotten {
            let (old, of) = model.remove(place);
            last_forgotten[of as usize] = old;
            assert!(matches!(memo.recall(&tag(old), HERE), Recall::Replay));
        }
        memo.remember_spent(&mut clients, client, tag(n), n);
        model.push((n, client));
        if let Some((old, _)) = forgotten.and(model.first()) {
            assert!(matches!(memo.recall(&tag(*old), HERE), Recall::Replay));
        }
    }
    assert_eq!(
        (model.len(), memo.by_tag.len(), memo.slots.len()),
        (MEMO_ENTRIES, MEMO_ENTRIES, MEMO_ENTRIES)
    );
    check(&memo, &model, &mut clients, &last_forgotten);

    // Without every third client, and in another order.
    let moved: Vec<_> =
        (0..u32::from(count)).map(|n| (n % 3 != 0).then_some(u32::from(count) - 1 - n)).collect();
    let mut others = self::clients(count);
    let memo = memo.for_clients(&moved, &mut others);
    let kept: Vec<_> =
        model.into_iter().filter_map(|(n, client)| Some((n, moved[client as usize]?))).collect();
    check(&memo, &kept, &mut others, &vec![0; usize::from(count)]);
}

fn check(memo: &Memo, model: &[(u32, u32)], clients: &mut Clients, forgotten: &[u32]) {
    assert_eq!(memo.by_tag.len(), model.len());
    let mut next = memo.oldest;
    for (n, client) in model {
        let slot = &memo.slots[usize::from(next)];
        assert_eq!((slot.tag, slot.client), (tag(*n), *client));
        next = slot.newer;
    }
    assert_eq!(next, NONE);
    for (client, forgotten) in (0..).zip(forgotten) {
        let own = clients.get_mut(client).remembered;
        let mut next = own.oldest;
        for (n, _) in model.iter().filter(|(_, of)| *of == client) {
            assert_eq!(memo.slots[usize::from(next)].tag, tag(*n));
            next = memo.slots[usize::from(next)].next_of_client;
        }
        assert_eq!(next, NONE);
        assert!(own.may_have_forgotten(*forgotten) && !own.may_have_forgotten(forgotten + 1));
    }
}
