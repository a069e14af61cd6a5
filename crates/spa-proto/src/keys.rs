//! Key material in newtypes: redacted when printed, wiped when dropped, compared in constant time.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::x25519;

/// Bytes in every key of version 1.
pub const KEY_LENGTH: usize = 32;

/// Why bytes or text are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not standard base64 (RFC 4648 section 4, with padding) of exactly 32 bytes.
    Encoding,
    /// A public key that X25519 maps to zero whatever the other key is (RFC 7748 section 6.1).
    LowOrder,
    /// A public key that is not the canonical encoding of its coordinate, so it would name one key twice.
    NotCanonical,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "a key is 44 characters of base64 (32 bytes)",
            Self::LowOrder => "this public key is a low-order point and gives no security",
            Self::NotCanonical => "this public key is not in canonical form",
        })
    }
}

impl core::error::Error for KeyError {}

/// Decodes exactly one key from standard base64.
fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LENGTH]>, KeyError> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::Encoding)?);
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    if bytes.len() != KEY_LENGTH {
        return Err(KeyError::Encoding);
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// An X25519 public key (RFC 7748): canonical and not of low order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LENGTH]);

impl PublicKey {
    /// Checks and wraps the u-coordinate `bytes` (little-endian, as RFC 7748 has it).
    ///
    /// # Errors
    /// [`KeyError::LowOrder`] and [`KeyError::NotCanonical`].
    pub fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Result<Self, KeyError> {
        if !is_canonical(&bytes) {
            return Err(KeyError::NotCanonical);
        }
        if LOW_ORDER.contains(&bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes of the u-coordinate, little-endian.
    pub const fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }
}

/// Every canonical u-coordinate of a point of low order, on the curve or its twist: 0, 1 and p - 1, and the two of
/// order 8. The orders of the two groups are 8 and 4 times a prime (RFC 7748, section 4.1; Bernstein, "Curve25519", 2006),
/// so there is no other. Listed and not computed: a public key comes with each knock, and to try it in X25519 would
/// cost as much as the knock.
pub(crate) const LOW_ORDER: [[u8; KEY_LENGTH]; 5] = [
    [0; KEY_LENGTH],
    {
        let mut one = [0; KEY_LENGTH];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; KEY_LENGTH];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        minus_one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
];

/// Whether the little-endian number is below 2^255 - 19.
fn is_canonical(bytes: &[u8; KEY_LENGTH]) -> bool {
    let middle_is_full = bytes[1..31].iter().all(|byte| *byte == 0xff);
    bytes[31] < 0x7f || (bytes[31] == 0x7f && !(middle_is_full && bytes[0] >= 0xed))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(*decode(text)?)
    }
}

/// Defines a 32-byte secret: redacted Debug, wiped on drop, constant-time equality, base64 in and out.
macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_LENGTH]);

        impl $name {
            /// Wraps 32 secret bytes, which the caller drew from the system's random source.
            pub const fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
                Self(bytes)
            }

            /// The secret bytes.
            pub const fn expose(&self) -> &[u8; KEY_LENGTH] {
                &self.0
            }

            /// The secret in standard base64, for a key file; wiped on drop.
            pub fn to_base64(&self) -> Zeroizing<String> {
                Zeroizing::new(STANDARD.encode(self.0))
            }

            /// Reads standard base64.
            ///
            /// # Errors
            /// [`KeyError::Encoding`], which never repeats the text.
            pub fn from_base64(text: &str) -> Result<Self, KeyError> {
                decode(text).map(|bytes| Self(*bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}
    };
}

secret! {
    /// An X25519 private key (RFC 7748).
    SecretKey
}
secret! {
    /// A cloak key: shared by a server and the clients enrolled under it; makes packets look random to all others.
    CloakKey
}
secret! {
    /// The pre-shared key of one client and the server.
    Psk
}
secret! {
    /// The result of an X25519 operation, never all zero.
    SharedSecret
}

impl SecretKey {
    /// The public key that belongs to this private key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::base_point_times(&self.0))
    }

    /// X25519 with a peer's public value as it came in a packet, unchecked. `None` where the result is all zero.
    pub fn diffie_hellman(&self, peer: &[u8; KEY_LENGTH]) -> Option<SharedSecret> {
        let shared = x25519::x25519(&self.0, peer);
        if bool::from(shared.ct_eq(&[0; KEY_LENGTH])) { None } else { Some(SharedSecret(*shared)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The low-order points of Curve25519 in canonical form, from https://cr.yp.to/ecdh.html#validate.
    const LOW_ORDER: [&str; 5] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    #[test]
    fn low_order_public_keys_are_refused() {
        for point in LOW_ORDER {
            assert_eq!(PublicKey::from_bytes(bytes(point)), Err(KeyError::LowOrder), "{point}");
            assert!(SecretKey::from_bytes([7; 32]).diffie_hellman(&bytes(point)).is_none(), "{point}");
        }
    }

    #[test]
    fn what_x25519_maps_to_zero_is_refused_and_nothing_else() {
        for point in LOW_ORDER.map(bytes) {
            for (place, change) in [(0, 0), (0, 1), (0, 0xff), (15, 1), (30, 0x80)] {
                let mut near = point;
                near[place] = point[place].wrapping_add(change);
                let vanishes = x25519_dalek::x25519([0x40; KEY_LENGTH], near) == [0; KEY_LENGTH];
                assert_eq!(
                    PublicKey::from_bytes(near).is_err(),
                    vanishes || !is_canonical(&near),
                    "{near:?}"
                );
            }
        }
    }

    #[test]
    fn a_key_has_one_encoding() {
        for other in [
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "0900000000000000000000000000000000000000000000000000000000000080",
        ] {
            assert_eq!(PublicKey::from_bytes(bytes(other)), Err(KeyError::NotCanonical), "{other}");
        }
        assert!(PublicKey::from_bytes(SecretKey::from_bytes([1; 32]).public_key().0).is_ok());
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Psk::from_bytes([3; 32])), "Psk(secret)");
        assert!(!format!("{:?}", SecretKey::from_base64("secret")).contains("\"secret\""));
    }
}
