//! `packet-v1.json`: valid packets, with the result of every step.

use super::{Keys, Node, hex};
use crate::envelope::epoch;
use crate::packet::tests::{Sealed, seal_payload};
use crate::packet::{NANOS_PER_SECOND, Randomness};
use crate::payload::{Action, Address, Knock, Requests};

/// A time in the middle of an epoch.
const COUNTER: u64 = 1_766_361_600_123_456_789;

/// One vector: the inputs of a packet.
pub(super) struct Vector {
    pub name: &'static str,
    pub keys: Keys,
    pub knock: Knock,
    pub random: Randomness,
    /// Extensions, which no knock of version 1 has; they go between the requests and the padding.
    pub extensions: &'static str,
}

fn requests(texts: &[&str]) -> Requests {
    Requests::new(texts.iter().map(|text| super::request(text))).unwrap()
}

fn open(texts: &[&str], seconds: u32, address: Address) -> Knock {
    Knock { action: Action::Open { requests: requests(texts), seconds }, address, counter: COUNTER }
}

fn close(texts: &[&str]) -> Knock {
    Knock {
        action: Action::Close { requests: requests(texts) },
        address: Address::Observed,
        counter: COUNTER,
    }
}

fn bound(text: &str) -> Address {
    Address::Bound(text.parse().unwrap())
}

fn explicit(text: &str) -> Address {
    Address::Explicit(text.parse().unwrap())
}

/// The first is the worked example of the protocol page.
pub(super) fn vectors() -> Vec<Vector> {
    let long =
        |count: usize| -> Vec<String> { (0..count).map(|i| format!("service-{i}-{:022}", i)).collect() };
    let longest = long(8);
    let longest: Vec<&str> = longest.iter().map(String::as_str).collect();
    let just = ["a-service-with-a-name-of-thirty2", "b-service-with-a-name-of-thirty2"];
    let fits = [just[0], just[1], "c-service-with-a-name-of-thirty2", "twenty-two-characters-"];
    let over = [just[0], just[1], "c-service-with-a-name-of-thirty2", "twenty-three-characters"];
    let observed = Address::Observed;
    let late = Knock { counter: u64::from(u32::MAX) * NANOS_PER_SECOND + 999_999_999, ..close(&[]) };
    let early = Knock { counter: 0, ..open(&["tcp/1"], 1, observed) };
    let knocks = [
        ("open one service, bound to an IPv4 address", open(&["ssh"], 30, bound("192.0.2.7")), 44),
        ("open an endpoint, observed, smallest packet", open(&["tcp/22"], 0, observed), 0),
        (
            "open an endpoint, bound to an IPv6 address, largest packet",
            open(&["udp/51820"], 3600, bound("2001:db8::7")),
            288,
        ),
        (
            "open for an explicit IPv4 address",
            open(&["tcp/443", "web"], 60, explicit("198.51.100.9")),
            u64::MAX,
        ),
        ("open for an explicit IPv6 address", open(&["tcp/80"], u32::MAX, explicit("2001:db8:ffff::1")), 289),
        ("close everything", close(&[]), 17),
        ("close two", Knock { address: bound("2001:db8::7"), ..close(&["ssh", "udp/51820"]) }, 100),
        (
            "order of requests: by their encodings, so short names first",
            open(&["b", "a", "zz", "tcp/65535", "udp/1", "tcp/256", "tcp/1", "a-1"], 5, observed),
            5,
        ),
        ("eight longest requests, smallest packet", open(&longest, 30, bound("192.0.2.7")), 0),
        ("eight longest requests, largest packet", open(&longest, 30, observed), 112),
        ("content of 160 bytes, the most of a short packet", open(&fits, 30, observed), 0),
        ("content of 161 bytes, the least of a long packet", open(&over, 30, observed), 0),
        ("latest time", late, 200),
        ("earliest time", early, 201),
    ];
    let mut vectors: Vec<Vector> = knocks
        .into_iter()
        .enumerate()
        .map(|(index, (name, knock, size))| Vector {
            name,
            keys: if index == 3 { Keys::ascending([0x80, 0xa0, 0xc0, 0xe0]) } else { Keys::usual() },
            knock,
            random: random(index as u8, size),
            extensions: "",
        })
        .collect();
    for (index, (name, extensions)) in [
        ("an extension that may be skipped", "0103abcdef"),
        (
            "extensions that may be skipped, the last without a value",
            "0000012000000000000000000000000000000000000000000000000000000000000000007f00",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let knock = open(&["ssh"], 30, observed);
        let random = random(0x20 + index as u8, 60);
        vectors.push(Vector { name, keys: Keys::usual(), knock, random, extensions });
    }
    vectors
}

fn random(index: u8, size: u64) -> Randomness {
    Randomness {
        nonce: core::array::from_fn(|i| index.wrapping_mul(16).wrapping_add(i as u8)),
        ephemeral: core::array::from_fn(|i| 0xff - index - 3 * i as u8),
        size,
    }
}

impl Vector {
    pub fn sealed(&self) -> Sealed {
        let sealer = self.keys.sealer();
        let mut content = self.knock.encode();
        let extensions = hex::decode(self.extensions).unwrap();
        content[32..34].copy_from_slice(&(extensions.len() as u16).to_be_bytes());
        content.extend(extensions);
        let sealed = seal_payload(&sealer, &content, &self.knock, &self.random);
        if self.extensions.is_empty() {
            assert_eq!(sealer.seal(&self.knock, &self.random), sealed.packet);
        }
        sealed
    }
}

fn knock_node(knock: &Knock) -> Node {
    let (kind, requests, seconds) = match &knock.action {
        Action::Open { requests, seconds } => ("open", requests, *seconds),
        Action::Close { requests } => ("close", requests, 0),
    };
    let (mode, address) = match knock.address {
        Address::Observed => ("observed", String::new()),
        Address::Bound(address) => ("bound", address.to_string()),
        Address::Explicit(address) => ("explicit", address.to_string()),
    };
    let requests = requests.as_slice().iter().map(|request| Node::Text(request.to_string())).collect();
    Node::Object(vec![
        ("kind", kind.into()),
        ("mode", mode.into()),
        ("address", Node::Text(address)),
        ("counter", Node::Text(knock.counter.to_string())),
        ("seconds", u64::from(seconds).into()),
        ("requests", Node::List(requests)),
    ])
}

fn vector_node(vector: &Vector) -> Node {
    let sealed = vector.sealed();
    let noise = sealed.noise.iter().map(|step| {
        Node::Object(vec![
            ("after", step.name.into()),
            ("ck", hex(step.chaining_key)),
            ("h", hex(step.hash)),
            ("k", hex(step.key)),
        ])
    });
    Node::Object(vec![
        ("name", vector.name.into()),
        ("keys", vector.keys.node()),
        ("knock", knock_node(&vector.knock)),
        ("extensions", vector.extensions.into()),
        ("random_nonce", hex(vector.random.nonce)),
        ("random_ephemeral", hex(vector.random.ephemeral)),
        ("random_size", Node::Text(vector.random.size.to_string())),
        ("filter_key", hex(sealed.filter)),
        ("mask_key", hex(sealed.mask)),
        ("hint_key", hex(sealed.hint_key)),
        ("gate_key", hex(sealed.gate)),
        ("noise_psk", hex(sealed.noise_psk)),
        ("hedge_key", hex(sealed.hedge)),
        ("time", u64::from(sealed.time).into()),
        ("epoch", epoch(sealed.time).into()),
        ("hint", hex(sealed.hint)),
        ("ephemeral_private", hex(sealed.ephemeral.expose())),
        ("ephemeral_public", hex(sealed.ephemeral.public_key().as_bytes())),
        ("es", hex(sealed.es.expose())),
        ("ss", hex(sealed.ss.expose())),
        ("prologue", hex(sealed.prologue)),
        ("noise", Node::List(noise.collect())),
        ("length", (sealed.packet.len() as u64).into()),
        ("payload", hex(&sealed.payload)),
        ("ciphertext", hex(&sealed.unmasked[80..])),
        ("gate_tag", hex(&sealed.unmasked[40..48])),
        ("unmasked", hex(&sealed.unmasked)),
        ("mask_start", hex(sealed.mask_start)),
        ("tag", hex(&sealed.packet[12..28])),
        ("packet", hex(&sealed.packet)),
    ])
}

pub(super) fn node() -> Node {
    Node::Object(vec![
        (
            "about",
            "Valid packets of version 1 with the result of every step of docs/PROTOCOL.md. Bytes are hexadecimal. \
             \"unmasked\" is the packet before the mask, with its tag in place. The cipher key is in effect from \
             MixKeyAndHash on; before, k is zero. A packet with extensions is one that a later client may send."
                .into(),
        ),
        ("vectors", Node::List(vectors().iter().map(vector_node).collect())),
    ])
}
