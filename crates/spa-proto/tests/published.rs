//! The primitives give the outputs that their specifications publish.
#![allow(clippy::unwrap_used)] // helpers of tests

use blake2::digest::{KeyInit as _, Mac as _};
use blake2::{Blake2s256, Blake2sMac256, Digest as _};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead as _, Payload};
use spa_proto::SecretKey;

/// The BLAKE2 authors' table; its source is in the file.
const BLAKE2S_KEYED: &str = include_str!("../../../tests/vectors/published/blake2s-keyed.txt");

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.replace(' ', "")).unwrap()
}

fn key(hex: &str) -> [u8; 32] {
    bytes(hex).try_into().unwrap()
}

fn x25519(scalar: &[u8; 32], point: &[u8; 32]) -> [u8; 32] {
    *SecretKey::from_bytes(*scalar).diffie_hellman(point).unwrap().expose()
}

/// RFC 7748 section 5.2: the two single vectors, and the iterated one after 1 and 1,000 rounds.
#[test]
fn x25519_of_rfc_7748() {
    for (scalar, point, output) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        assert_eq!(x25519(&key(scalar), &key(point)), key(output));
    }
    let mut scalar = key("0900000000000000000000000000000000000000000000000000000000000000");
    let mut point = scalar;
    for round in 1..=1000 {
        (scalar, point) = (x25519(&scalar, &point), scalar);
        if round == 1 {
            assert_eq!(scalar, key("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        }
    }
    assert_eq!(scalar, key("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

/// RFC 7748 section 6.1.
#[test]
fn x25519_key_pairs_of_rfc_7748() {
    let alice =
        SecretKey::from_bytes(key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let bob = SecretKey::from_bytes(key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    let alice_public = key("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob_public = key("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let shared = key("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(alice.public_key().as_bytes(), &alice_public);
    assert_eq!(bob.public_key().as_bytes(), &bob_public);
    assert_eq!(alice.diffie_hellman(&bob_public).unwrap().expose(), &shared);
    assert_eq!(bob.diffie_hellman(&alice_public).unwrap().expose(), &shared);
}

const SUNSCREEN: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";

/// RFC 8439 section 2.4.2 (from block 1) and appendix A.1, test vector 1 (block 0, where our mask begins).
#[test]
fn chacha20_of_rfc_8439() {
    let ascending: [u8; 32] = core::array::from_fn(|i| i as u8);
    let nonce: [u8; 12] = bytes("000000000000004a00000000").try_into().unwrap();
    let mut stream = vec![0; 64 + SUNSCREEN.len()];
    stream[64..].copy_from_slice(SUNSCREEN);
    ChaCha20::new(&ascending.into(), &nonce.into()).apply_keystream(&mut stream);
    let wanted = "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b\
        f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8\
        07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736\
        5af90bbf74a35be6b40b8eedf2785e42874d";
    assert_eq!(stream[64..], bytes(wanted));

    let mut block = [0; 64];
    ChaCha20::new(&[0; 32].into(), &[0; 12].into()).apply_keystream(&mut block);
    let wanted = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7\
        da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586";
    assert_eq!(block[..], bytes(wanted));
}

/// RFC 8439 section 2.8.2.
#[test]
fn chacha20_poly1305_of_rfc_8439() {
    let key: [u8; 32] = core::array::from_fn(|i| 0x80 + i as u8);
    let nonce: [u8; 12] = bytes("070000004041424344454647").try_into().unwrap();
    let aad = bytes("50515253c0c1c2c3c4c5c6c7");
    let wanted = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6\
        3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36\
        92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
        3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
    let cipher = ChaCha20Poly1305::new(&key.into());
    let sealed = cipher.encrypt(&nonce.into(), Payload { msg: SUNSCREEN, aad: &aad }).unwrap();
    assert_eq!(sealed, bytes(wanted));
}

/// RFC 7693 appendix B.
#[test]
fn blake2s_of_rfc_7693() {
    let wanted = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
    assert_eq!(Blake2s256::digest(b"abc")[..], bytes(wanted));
}

#[test]
fn keyed_blake2s_of_its_authors() {
    let ascending: Vec<u8> = (0..=255).collect();
    let digests: Vec<_> = BLAKE2S_KEYED.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(digests.len(), 256);
    for (length, digest) in digests.into_iter().enumerate() {
        let mut mac = Blake2sMac256::new_from_slice(&ascending[..32]).unwrap();
        mac.update(&ascending[..length]);
        assert_eq!(mac.finalize().into_bytes()[..], bytes(digest), "{length} bytes");
    }
}
