use zeroize::Zeroizing;

use super::*;
use crate::derive::SipKey;

/// The authors' tables; their source is in the file.
const SIPHASH: &str = include_str!("../../../../tests/vectors/published/siphash-2-4.txt");

const KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The 64-bit and the 128-bit output over the bytes 0, 1, .. `index` - 1, in hexadecimal.
fn vectors() -> Vec<(&'static str, &'static str)> {
    let lines = SIPHASH.lines().filter(|line| !line.starts_with('#'));
    let vectors: Vec<_> = lines.map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(vectors.len(), 64);
    vectors
}

#[test]
fn siphash_gives_the_published_output() {
    let bytes: Vec<u8> = (0..64).collect();
    for (length, (short, long)) in vectors().into_iter().enumerate() {
        let mut hasher = sip::SipHasher24::new_with_key(&KEY);
        hasher.write(&bytes[..length]);
        assert_eq!(hex::encode(hasher.finish().to_le_bytes()), short, "{length} bytes");
        let mut hasher = sip128::SipHasher24::new_with_key(&KEY);
        hasher.write(&bytes[..length]);
        assert_eq!(hex::encode(sip128::Hasher128::finish128(&hasher).as_bytes()), long, "{length} bytes");
    }
}

/// The bytes that `T` covers, put around it so that they are 0, 1, 2 ..
#[test]
fn the_tag_is_siphash_2_4_128_of_the_authors() {
    let cloak = Cloak { filter: SipKey(KEY), mask: Zeroizing::new([0; 32]) };
    for (length, (_, long)) in vectors().into_iter().enumerate().skip(12) {
        let bytes: Vec<u8> = (0..length as u8).collect();
        let packet = [&bytes[..12], &[0xee; 16], &bytes[12..]].concat();
        assert_eq!(hex::encode(cloak.tag(&packet)), long);
    }
}

#[test]
fn the_hint_and_the_gate_tag_are_siphash_2_4_of_the_authors() {
    let keys = GateKeys { hint: SipKey(KEY), gate: SipKey(KEY) };
    assert_eq!(hex::encode(keys.hint(0x0001_0203_0405_0607)), vectors()[8].0);
    let bytes: Vec<u8> = (0..63).collect();
    let packet = [&bytes[..12], &[0xee; 16], &bytes[12..24], &[0xee; 8], &bytes[24..]].concat();
    assert_eq!(hex::encode(keys.gate_tag(&packet)), vectors()[63].0);
}

#[test]
fn a_length_that_is_not_version_1_is_never_right() {
    let cloak = Cloak { filter: SipKey(KEY), mask: Zeroizing::new([0; 32]) };
    for length in 0..600 {
        let mut packet = vec![0; length];
        if length >= 28 {
            cloak.seal(&mut packet);
        }
        let right = (MIN_PACKET..=MAX_PACKET).contains(&length);
        assert_eq!(cloak.admits(&packet), right, "{length}");
        assert_eq!(cloak.open(&packet).is_some(), right, "{length}");
    }
}

#[test]
fn an_epoch_has_64_seconds() {
    assert_eq!((epoch(63), epoch(64), epoch(u32::MAX)), (0, 1, (1 << 26) - 1));
}
