//! `invalid-v1.json`: packets that a server refuses, each right in everything up to the step that refuses it.

use super::{Keys, Node, hex};
use crate::envelope::{
    AEAD_TAG_LENGTH, EPHEMERAL, GATE_TAG, HEADER_LENGTH, HINT, MAX_PACKET, MIN_PACKET, TIME,
};
use crate::keys::{CloakKey, Psk};
use crate::packet::tests::{reseal, seal_raw};
use crate::packet::{NANOS_PER_SECOND, Randomness, Sealer};

const TIME_NOW: u32 = 1_766_361_600;
const COUNTER: u64 = TIME_NOW as u64 * NANOS_PER_SECOND + 123_456_789;
const SSH: [u8; 6] = [1, 6, 0, 22, 0, 22];

/// A payload field by field, to be broken. As it is it asks for `tcp/22`.
struct Raw {
    version: u8,
    kind: u8,
    mode: u8,
    count: Option<u8>,
    counter: u64,
    seconds: u32,
    address: [u8; 16],
    extensions_length: Option<u16>,
    requests: Vec<Vec<u8>>,
    extensions: Vec<u8>,
    padding: Vec<u8>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            version: 1,
            kind: 1,
            mode: 0,
            count: None,
            counter: COUNTER,
            seconds: 30,
            address: [0; 16],
            extensions_length: None,
            requests: vec![SSH.to_vec()],
            extensions: vec![],
            padding: vec![],
        }
    }
}

impl Raw {
    /// With zeros to `length` bytes; what is longer is cut off.
    fn payload(&self, length: usize) -> Vec<u8> {
        let count = self.count.unwrap_or(self.requests.len() as u8);
        let extensions_length = self.extensions_length.unwrap_or(self.extensions.len() as u16);
        let mut out = vec![self.version, self.kind, self.mode, count];
        out.extend(self.counter.to_be_bytes());
        out.extend(self.seconds.to_be_bytes());
        out.extend(self.address);
        out.extend(extensions_length.to_be_bytes());
        out.extend(self.requests.concat());
        out.extend(&self.extensions);
        out.extend(&self.padding);
        out.resize(length, 0);
        out
    }
}

fn service(name: &str) -> Vec<u8> {
    [&[2, name.len() as u8], name.as_bytes()].concat()
}

fn endpoint(protocol: u8, low: u16, high: u16) -> Vec<u8> {
    let (low, high) = (low.to_be_bytes(), high.to_be_bytes());
    vec![1, protocol, low[0], low[1], high[0], high[1]]
}

fn with(requests: impl IntoIterator<Item = Vec<u8>>) -> Raw {
    Raw { requests: requests.into_iter().collect(), ..Raw::default() }
}

fn extended(extensions: &str) -> Raw {
    Raw { extensions: hex::decode(extensions).unwrap(), ..Raw::default() }
}

const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Authentic payloads that break one rule each, with the reason for their refusal.
fn payloads() -> Vec<(&'static str, &'static str, Raw)> {
    let raw = Raw::default;
    let names = |count: usize| (0..count).map(|i| service(&format!("s{i}")));
    let long_name = "n".repeat(33);
    vec![
        ("Version", "version 0", Raw { version: 0, ..raw() }),
        ("Version", "version 2", Raw { version: 2, ..raw() }),
        ("Kind", "kind 0", Raw { kind: 0, ..raw() }),
        ("Kind", "kind 3", Raw { kind: 3, ..raw() }),
        ("Kind", "seconds in a close", Raw { kind: 2, seconds: 1, ..raw() }),
        ("Address", "address mode 3", Raw { mode: 3, address: LOOPBACK, ..raw() }),
        ("Address", "observed with an address", Raw { address: LOOPBACK, ..raw() }),
        ("Address", "bound without an address", Raw { mode: 1, ..raw() }),
        ("Address", "explicit without an address", Raw { mode: 2, ..raw() }),
        ("Request", "open without a request", with([])),
        ("Request", "9 requests", with(names(9))),
        ("Request", "255 requests", Raw { count: Some(255), ..raw() }),
        ("Request", "fewer requests than their number says", Raw { count: Some(2), ..raw() }),
        ("Padding", "more requests than their number says", Raw { count: Some(1), ..with(names(2)) }),
        ("Request", "the same request twice", with([SSH.to_vec(), SSH.to_vec()])),
        ("Request", "requests in descending order", with([service("ssh"), SSH.to_vec()])),
        (
            "Request",
            "services in the order of their names, not of their encodings",
            with([service("aa"), service("b")]),
        ),
        ("Request", "request type 0", with([vec![0, 6, 0, 22, 0, 22]])),
        ("Request", "request type 3", with([vec![3, 1, 97]])),
        ("Request", "protocol 1", with([endpoint(1, 22, 22)])),
        ("Request", "protocol 0", with([endpoint(0, 22, 22)])),
        ("Request", "protocol 255", with([endpoint(255, 22, 22)])),
        ("Request", "port 0", with([endpoint(6, 0, 0)])),
        ("Request", "a range of ports", with([endpoint(6, 22, 23)])),
        ("Request", "low port above the high", with([endpoint(6, 23, 22)])),
        ("Request", "empty name", with([service("")])),
        ("Request", "name of 33 bytes", with([service(&long_name)])),
        ("Request", "name beginning with a digit", with([service("1ssh")])),
        ("Request", "name beginning with a hyphen", with([service("-ssh")])),
        ("Request", "name in upper case", with([service("Ssh")])),
        ("Request", "name with an underscore", with([service("s_h")])),
        ("Request", "name with a NUL", with([service("ssh\0")])),
        ("Request", "name that is not UTF-8", with([vec![2, 2, b's', 0xff]])),
        ("Request", "name with a letter beyond ASCII", with([service("s\u{df}h")])),
        (
            "Truncated",
            "requests that go on past the end",
            with((0..8).map(|i| service(&format!("{i:s>32}")))),
        ),
        ("Truncated", "extensions that go on past the end", Raw { extensions_length: Some(0xffff), ..raw() }),
        ("Truncated", "extensions one byte past the end", Raw { extensions_length: Some(121), ..raw() }),
        ("Extension", "an extension without a length", extended("01")),
        ("Extension", "an extension past the extensions' end", extended("010500000000")),
        ("Extension", "the same extension twice", extended("01000100")),
        ("Extension", "extensions in descending order", extended("02000100")),
        ("UnknownCritical", "an unknown critical extension", extended("8000")),
        ("UnknownCritical", "an unknown critical extension after one to skip", extended("0100ff020102")),
        ("Padding", "first byte of the padding not zero", Raw { padding: vec![1], ..raw() }),
        (
            "Padding",
            "last byte of the padding not zero",
            Raw { padding: [vec![0; 119], vec![0x80]].concat(), ..raw() },
        ),
        (
            "Padding",
            "extensions shorter than their content",
            Raw { extensions_length: Some(2), ..extended("01000200") },
        ),
        ("TimeMismatch", "counter of the second after", Raw { counter: COUNTER + NANOS_PER_SECOND, ..raw() }),
        (
            "TimeMismatch",
            "counter of the second before",
            Raw { counter: COUNTER - NANOS_PER_SECOND, ..raw() },
        ),
        (
            "TimeMismatch",
            "counter 2^32 seconds on",
            Raw { counter: COUNTER + (NANOS_PER_SECOND << 32), ..raw() },
        ),
        ("TimeMismatch", "counter 0", Raw { counter: 0, ..raw() }),
    ]
}

const SHORTEST_PAYLOAD: usize = MIN_PACKET - HEADER_LENGTH - AEAD_TAG_LENGTH;

fn random() -> Randomness {
    Randomness { nonce: core::array::from_fn(|i| 0x50 + i as u8), ephemeral: [0x33; 32], size: 0 }
}

fn valid(sealer: &Sealer, length: usize) -> Vec<u8> {
    let payload = Raw::default().payload(length - HEADER_LENGTH - AEAD_TAG_LENGTH);
    seal_raw(sealer, &payload, TIME_NOW, &random())
}

/// Public values that X25519 maps to zero: all of https://cr.yp.to/ecdh.html#validate below 2^255, and one with
/// the top bit set, which X25519 ignores.
const LOW_ORDER: [&str; 8] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
];

type Case = (String, &'static str, Vec<u8>);

fn lengths_and_flips(sealer: &Sealer, cases: &mut Vec<Case>) {
    let packet = valid(sealer, 300);
    for length in [0, 1, 12, 28, 80, 96, MIN_PACKET - 1, MAX_PACKET + 1, 1200] {
        let sealed = if length <= 130 { packet[..length].to_vec() } else { valid(sealer, length) };
        cases.push((format!("{length} bytes"), "length", sealed));
    }
    for (field, byte, bit) in [
        ("N", 0, 0),
        ("N", 11, 7),
        ("T", 12, 0),
        ("T", 27, 7),
        ("time", 28, 7),
        ("time", 31, 0),
        ("hint", 32, 0),
        ("M", 47, 7),
        ("e", 48, 0),
        ("e, the bit that X25519 ignores", 79, 7),
        ("ciphertext", 80, 0),
        ("AEAD tag", 299, 7),
    ] {
        let mut flipped = packet.clone();
        flipped[byte] ^= 1 << bit;
        cases.push((format!("bit {bit} of byte {byte} flipped, in {field}"), "tag", flipped));
    }
    cases.push(("last byte cut off".into(), "tag", packet[..299].to_vec()));
    cases.push(("a zero byte added".into(), "tag", [&packet[..], &[0]].concat()));
    cases.push(("all zero".into(), "tag", vec![0; 300]));
    let keys = Keys::usual();
    let server = keys.server_public();
    let cloak = CloakKey::from_bytes([9; 32]);
    let other = Sealer::new(&keys.client, &keys.psk, &cloak, &server).unwrap();
    cases.push(("under another cloak key".into(), "tag", valid(&other, 300)));
    let psk = Psk::from_bytes([9; 32]);
    let other = Sealer::new(&keys.client, &psk, &keys.cloak, &server).unwrap();
    cases.push(("by a client with another psk".into(), "hint", valid(&other, 300)));
}

/// What a holder of the cloak key alone can make, and a holder of the hint and gate keys.
fn resealed(sealer: &Sealer, cases: &mut Vec<Case>) {
    let packet = valid(sealer, 300);
    let flip = |byte: usize, bit: u8| move |packet: &mut [u8]| packet[byte] ^= 1 << bit;
    for (what, reason, byte, bit) in [
        ("time in its epoch", "gate", TIME.end - 1, 0),
        ("time to another epoch", "hint", TIME.end - 1, 6),
        ("hint", "hint", HINT.start, 0),
        ("M", "gate", GATE_TAG.end - 1, 7),
        ("e", "gate", EPHEMERAL.start, 0),
        ("ciphertext", "gate", 80, 0),
        ("AEAD tag", "gate", 299, 7),
    ] {
        let name = format!("{what} altered and T made anew");
        cases.push((name, reason, reseal(sealer, &packet, false, flip(byte, bit))));
    }
    for (what, byte, bit) in [
        ("time in its epoch", TIME.end - 1, 0),
        ("e", EPHEMERAL.start, 3),
        ("e, the bit that X25519 ignores,", EPHEMERAL.end - 1, 7),
        ("ciphertext", 80, 0),
        ("AEAD tag", 299, 7),
    ] {
        let name = format!("{what} altered and T and M made anew");
        cases.push((name, "authentic", reseal(sealer, &packet, true, flip(byte, bit))));
    }
    for point in LOW_ORDER {
        let point = hex::decode(point).unwrap();
        let packet = reseal(sealer, &packet, true, |packet| packet[EPHEMERAL].copy_from_slice(&point));
        cases.push((
            format!("e of low order, beginning {:02x}, ending {:02x}", point[0], point[31]),
            "low-order",
            packet,
        ));
    }
}

pub(super) fn node() -> Node {
    let keys = Keys::usual();
    let sealer = keys.sealer();
    let mut cases = Vec::new();
    lengths_and_flips(&sealer, &mut cases);
    resealed(&sealer, &mut cases);
    for (reason, name, raw) in payloads() {
        let payload = raw.payload(SHORTEST_PAYLOAD);
        cases.push((name.to_owned(), reason, seal_raw(&sealer, &payload, TIME_NOW, &random())));
    }
    let vectors = cases.into_iter().map(|(name, reason, packet)| {
        Node::Object(vec![("name", Node::Text(name)), ("refused", reason.into()), ("packet", hex(packet))])
    });
    Node::Object(vec![
        (
            "about",
            "Packets that a server must refuse. Each is right in everything before the step that \"refused\" names: \
             length, tag (T), hint (of no client of the keys below), gate (M), low-order (es is zero), authentic (the \
             AEAD), and the rules of the payload, of which a server need not tell one from another: Truncated, \
             Version, Kind, Address, Request, Extension, UnknownCritical, Padding, TimeMismatch. Freshness and replay \
             are not considered."
                .into(),
        ),
        ("keys", keys.node()),
        ("vectors", Node::List(vectors.collect())),
    ])
}
