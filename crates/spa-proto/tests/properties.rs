//! Properties of the packet and of the texts, over many inputs.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Generator, Pair};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use spa_proto::{
    Action, Address, ClientKeyFile, Cloak, CloakKey, Endpoint, Invite, Knock, MAX_CLOAK_KEYS, MAX_PACKET,
    MIN_PACKET, Protocol, Psk, Request, Requests, SecretKey, ServerKeyFile, ServiceName, parse_psk_file,
    psk_file_text,
};

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (select(vec![Protocol::Tcp, Protocol::Udp]), 1u16..)
        .prop_map(|(protocol, port)| Endpoint::new(protocol, port).unwrap())
}

fn service() -> impl Strategy<Value = ServiceName> {
    "[a-z][a-z0-9-]{0,31}".prop_map(|name| name.parse().unwrap())
}

fn requests(least: usize) -> impl Strategy<Value = Requests> {
    let request = prop_oneof![endpoint().prop_map(Request::Endpoint), service().prop_map(Request::Service)];
    vec(request, least..=8).prop_map(|requests| Requests::new(requests).unwrap())
}

fn address() -> impl Strategy<Value = Address> {
    // Not the unspecified IPv6 address, which no packet can carry.
    let any = (any::<core::net::IpAddr>())
        .prop_map(|address| address.to_canonical())
        .prop_filter("the unspecified IPv6 address", |address| *address != core::net::Ipv6Addr::UNSPECIFIED);
    prop_oneof![
        Just(Address::Observed),
        any.clone().prop_map(Address::Bound),
        any.prop_map(Address::Explicit)
    ]
}

fn knock() -> impl Strategy<Value = Knock> {
    let open = (requests(1), any::<u32>()).prop_map(|(requests, seconds)| Action::Open { requests, seconds });
    let close = requests(0).prop_map(|requests| Action::Close { requests });
    let counter = 0..(1u64 << 32) * spa_proto::NANOS_PER_SECOND;
    (prop_oneof![open, close], address(), counter).prop_map(|(action, address, counter)| Knock {
        action,
        address,
        counter,
    })
}

fn key<T>(new: fn([u8; 32]) -> T) -> impl Strategy<Value = T>
where
    T: core::fmt::Debug,
{
    any::<[u8; 32]>().prop_map(new)
}

fn cloaks() -> impl Strategy<Value = Vec<CloakKey>> {
    btree_set(any::<[u8; 32]>(), 1..=MAX_CLOAK_KEYS)
        .prop_map(|keys| keys.into_iter().map(CloakKey::from_bytes).collect())
}

fn invite() -> impl Strategy<Value = Invite> {
    let names = ("[a-z0-9][a-z0-9._-]{0,31}", "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\\.[a-z]{2,8}");
    let endpoints = btree_set(endpoint(), 1..8).prop_map(|set| set.into_iter().collect());
    let services = btree_map(service(), endpoints, 0..8).prop_map(|map| map.into_iter().collect());
    let keys = (key(SecretKey::from_bytes), cloaks(), key(Psk::from_bytes));
    let rest = (proptest::option::of(key(SecretKey::from_bytes)), services, any::<Option<u64>>());
    (names, 1u16.., keys, rest).prop_map(|((client, address), port, (server, cloaks, psk), rest)| {
        let (secret, services, expires) = rest;
        let (client, server) = (client.parse().unwrap(), server.public_key());
        Invite { client, address, port, server, cloaks, psk, secret, services, expires }
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_with_any_padding(knock in knock(), padding in 0usize..200) {
        let mut payload = knock.encode();
        prop_assert!((34..=306).contains(&payload.len()));
        payload.resize(payload.len() + padding, 0);
        prop_assert_eq!(Knock::decode(&payload), Ok(knock));
    }

    /// Of two payloads that differ in more than zero padding at most one is the encoding of a knock.
    #[test]
    fn an_altered_payload_is_refused_or_another_knock(knock in knock(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let mut payload = knock.encode();
        payload.resize(payload.len() + 40, 0);
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        if let Ok(other) = Knock::decode(&payload) {
            // (Zeros that become extensions may still be skipped.)
            prop_assert!(other != knock || (32..34).contains(&at));
            assert_canonical(&payload, &other);
        }
    }

    #[test]
    fn a_truncated_payload_is_refused(knock in knock(), at in any::<prop::sample::Index>()) {
        let payload = knock.encode();
        prop_assert!(Knock::decode(&payload[..at.index(payload.len())]).is_err());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(payload in vec(any::<u8>(), 0..600)) {
        if let Ok(knock) = Knock::decode(&payload) {
            assert_canonical(&payload, &knock);
        }
    }

    /// Bytes that come close: a right head, few values each.
    #[test]
    fn likely_bytes_decode_or_are_refused(
        head in (0u8..3, 0u8..4, 0u8..4, 0u8..10),
        zeros in any::<bool>(),
        extensions in 0u16..4,
        tail in vec(select(vec![0u8, 1, 2, 3, 6, 17, b'a', b'-', 0x80]), 0..80),
    ) {
        let mut payload = vec![head.0, head.1, head.2, head.3];
        payload.extend([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
        payload.extend([!zeros as u8; 16]);
        payload.extend(extensions.to_be_bytes());
        payload.extend(tail);
        if let Ok(knock) = Knock::decode(&payload) {
            assert_canonical(&payload, &knock);
        }
    }

    #[test]
    fn any_packet_is_refused(packet in vec(any::<u8>(), 0..700)) {
        prop_assert!(Cloak::new(&CloakKey::from_bytes([1; 32]), &SecretKey::from_bytes([2; 32]).public_key()).open(&packet).is_none());
    }

    #[test]
    fn what_is_sealed_is_served(knock in knock(), seed in any::<u64>()) {
        let pair = Pair::new(seed);
        let packet = pair.sealer.seal(&knock, &Generator(!seed).randomness());
        prop_assert!((MIN_PACKET..=MAX_PACKET).contains(&packet.len()));
        prop_assert_eq!(pair.serve(&packet), Some(knock));
        prop_assert_eq!(Pair::new(seed ^ 1).serve(&packet), None);
    }

    #[test]
    fn any_text_is_a_key_file_or_is_refused(text in any::<String>(), magic in 0..4) {
        let magic = ["", "spa-server-key-v1\n", "spa-client-key-v1\n", "spa-psk-v1\n"][magic as usize];
        let text = format!("{magic}{text}");
        let _ = (ServerKeyFile::parse(&text), ClientKeyFile::parse(&text), parse_psk_file(&text));
    }

    #[test]
    fn key_files_come_back(secret in key(SecretKey::from_bytes), psk in key(Psk::from_bytes), cloaks in cloaks()) {
        let server = ServerKeyFile { secret: secret.clone(), cloaks: cloaks.clone() };
        prop_assert_eq!(ServerKeyFile::parse(&server.to_text()), Ok(server));
        prop_assert_eq!(parse_psk_file(&psk_file_text(&psk)), Ok(psk.clone()));
        let client = ClientKeyFile { secret, psk, cloaks };
        prop_assert_eq!(ClientKeyFile::parse(&client.to_text()), Ok(client));
    }

    #[test]
    fn any_text_is_an_invite_or_is_refused(text in any::<String>(), body in "[A-Za-z0-9_-]{0,200}") {
        let _ = Invite::parse(&text);
        let _ = Invite::parse(&format!("spa1-{text}"));
        let line = format!("spa1-{body}");
        prop_assert!(Invite::parse(&line).is_err());
    }

    #[test]
    fn invites_come_back(invite in invite()) {
        let line = invite.encode();
        prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(invite.check(), Ok(()));
        prop_assert_eq!(Invite::parse(&line), Ok(invite));
    }

    #[test]
    fn an_altered_invite_is_refused(invite in invite(), at in any::<prop::sample::Index>(), other in "[A-Za-z0-9_-]") {
        let line = invite.encode();
        let at = at.index(line.len());
        let mut altered = line.to_string();
        altered.replace_range(at..=at, &other);
        if altered != *line {
            prop_assert!(Invite::parse(&altered).is_err());
        }
    }
}

/// A payload that decodes is the encoding of what it decodes to, but for extensions, and zeros follow.
fn assert_canonical(payload: &[u8], knock: &Knock) {
    let encoded = knock.encode();
    let extensions = usize::from(u16::from_be_bytes([payload[32], payload[33]]));
    assert_eq!(payload[..32], encoded[..32]);
    assert_eq!(payload[34..encoded.len()], encoded[34..]);
    assert!(payload[encoded.len() + extensions..].iter().all(|byte| *byte == 0));
}

fn example() -> Knock {
    Knock {
        action: Action::Open {
            requests: Requests::new(["ssh", "web"].map(|name| Request::Service(name.parse().unwrap())))
                .unwrap(),
            seconds: 30,
        },
        address: Address::Bound("192.0.2.7".parse().unwrap()),
        counter: 1_766_361_600_123_456_789,
    }
}

/// Every bit of a packet, every shorter length, and longer ones.
#[test]
fn a_packet_altered_anywhere_is_refused() {
    let pair = Pair::new(7);
    let mut generator = Generator(8);
    for size in [0, 44, 288] {
        let mut random = generator.randomness();
        random.size = size;
        let packet = pair.sealer.seal(&example(), &random);
        assert_eq!(pair.serve(&packet), Some(example()));
        for bit in 0..packet.len() * 8 {
            let mut altered = packet.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(pair.serve(&altered), None, "bit {bit}");
        }
        for length in 0..packet.len() {
            assert_eq!(pair.serve(&packet[..length]), None, "{length} bytes");
            assert_eq!(pair.serve(&packet[length + 1..]), None, "{length} bytes off the front");
        }
        for extra in 1..=MAX_PACKET - MIN_PACKET + 40 {
            assert_eq!(pair.serve(&[&packet[..], &vec![0; extra]].concat()), None, "{extra} bytes more");
        }
    }
}

/// A random source that repeats itself repeats no ephemeral key while the counter moves on.
#[test]
fn a_stuck_random_source_repeats_no_ephemeral_key() {
    let pair = Pair::new(9);
    let random = Generator(10).randomness();
    let mut seen = std::collections::BTreeSet::new();
    for step in 0..100 {
        let knock = Knock { counter: example().counter + step, ..example() };
        let envelope = pair.cloak.open(&pair.sealer.seal(&knock, &random)).unwrap();
        assert!(seen.insert(envelope.ephemeral()));
    }
}
