//! The expressions of a rule. A rule is a row of them over 16 registers of 4 bytes; one that does not match ends it.

use super::abi::{DATA_VALUE, DATA_VERDICT, LIST_ELEMENT, counter, expression, verdict};
use crate::kernel::Counters;
use crate::netlink::{Request, attributes, find};

/// Where something is in a packet: `enum nft_payload_bases`, offset and length in bytes.
pub struct Field(u32, u32, u32);

/// The source address of IPv4 (RFC 791) and IPv6 (RFC 8200).
pub const SOURCE_V4: Field = Field(1, 12, 4);
pub const SOURCE_V6: Field = Field(1, 8, 16);
/// The destination port of TCP and UDP.
pub const DESTINATION_PORT: Field = Field(2, 2, 2);

/// `enum nft_meta_keys`.
#[derive(Clone, Copy)]
pub enum Meta {
    /// The packet mark, in the machine's byte order.
    Mark = 3,
    InterfaceName = 6,
    Family = 15,
    Protocol = 16,
    /// Wall clock in nanoseconds since 1970, in the machine's byte order.
    Time = 30,
}

/// `enum nft_ct_keys`.
#[derive(Clone, Copy)]
pub enum Conntrack {
    State = 0,
    Direction = 1,
}

/// `enum nft_cmp_ops`.
#[derive(Clone, Copy)]
pub enum Comparison {
    Equal = 0,
    Less = 2,
}

/// The number of the 4-byte register at `word`, as the kernel prints it: those that begin a 16-byte one by its number
/// (`NFT_REG_1` is the first), the others as `NFT_REG32_xx`.
fn register(word: u32) -> [u8; 4] {
    (if word.is_multiple_of(4) { 1 + word / 4 } else { 8 + word }).to_be_bytes()
}

/// The expressions under construction.
pub struct Expressions(pub Request);

impl Expressions {
    fn add(self, name: &str, data: impl FnOnce(Request) -> Request) -> Self {
        Self(self.0.nest(LIST_ELEMENT, |element| self::named(element, name, data)))
    }

    /// Loads something about the packet.
    pub fn meta(self, key: Meta, word: u32) -> Self {
        self.add("meta", |data| data.attribute(1, &register(word)).attribute(2, &(key as u32).to_be_bytes()))
    }

    /// Loads a field of the packet.
    pub fn payload(self, field: &Field, word: u32) -> Self {
        self.add("payload", |data| {
            data.attribute(1, &register(word))
                .attribute(2, &field.0.to_be_bytes())
                .attribute(3, &field.1.to_be_bytes())
                .attribute(4, &field.2.to_be_bytes())
        })
    }

    /// Loads something about the connection.
    pub fn conntrack(self, key: Conntrack) -> Self {
        self.add("ct", |data| data.attribute(1, &register(0)).attribute(2, &(key as u32).to_be_bytes()))
    }

    /// Keeps the bits of `mask` in the first registers.
    pub fn mask(self, mask: &[u8]) -> Self {
        let length = mask.len() as u32;
        self.add("bitwise", |data| {
            data.attribute(1, &register(0))
                .attribute(2, &register(0))
                .attribute(3, &length.to_be_bytes())
                .nest(4, |value| value.attribute(DATA_VALUE, mask))
                .nest(5, |value| value.attribute(DATA_VALUE, &vec![0; mask.len()]))
        })
    }

    /// Sets bits of the packet mark, and leaves the others.
    pub fn mark(self, bits: u32) -> Self {
        let loaded = self.meta(Meta::Mark, 0).add("bitwise", |data| {
            data.attribute(1, &register(0))
                .attribute(2, &register(0))
                .attribute(3, &4_u32.to_be_bytes())
                .nest(4, |value| value.attribute(DATA_VALUE, &(!bits).to_ne_bytes()))
                .nest(5, |value| value.attribute(DATA_VALUE, &bits.to_ne_bytes()))
        });
        loaded.add("meta", |data| {
            data.attribute(3, &register(0)).attribute(2, &(Meta::Mark as u32).to_be_bytes())
        })
    }

    /// Turns 8 bytes in the first registers from the machine's byte order: `NFT_BYTEORDER_HTON`.
    pub fn big_endian(self) -> Self {
        self.add("byteorder", |data| {
            data.attribute(1, &register(0))
                .attribute(2, &register(0))
                .attribute(3, &1_u32.to_be_bytes())
                .attribute(4, &8_u32.to_be_bytes())
                .attribute(5, &8_u32.to_be_bytes())
        })
    }

    /// Goes on only if the first registers compare so.
    pub fn compare(self, how: Comparison, value: &[u8]) -> Self {
        self.add("cmp", |data| {
            data.attribute(1, &register(0))
                .attribute(2, &(how as u32).to_be_bytes())
                .nest(3, |data| data.attribute(DATA_VALUE, value))
        })
    }

    /// Goes on only if the set holds what is in the registers from the first.
    pub fn lookup(self, set: &str) -> Self {
        self.add("lookup", |data| data.attribute(1, &zero_ended(set)).attribute(2, &register(0)))
    }

    /// Counts.
    pub fn counter(self, counters: Counters) -> Self {
        self.add("counter", |data| count(data, counters))
    }

    /// Ends with a verdict; a jump goes to a chain.
    pub fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        self.add("immediate", |data| {
            data.attribute(1, &verdict::REGISTER.to_be_bytes()).nest(2, |data| {
                data.nest(DATA_VERDICT, |data| {
                    let data = data.attribute(verdict::CODE, &code.to_be_bytes());
                    match chain {
                        Some(chain) => data.attribute(verdict::CHAIN, &zero_ended(chain)),
                        None => data,
                    }
                })
            })
        })
    }
}

/// Name and data of one expression.
pub fn named(request: Request, name: &str, data: impl FnOnce(Request) -> Request) -> Request {
    request.attribute(expression::NAME, &zero_ended(name)).nest(expression::DATA, data)
}

/// The data of a counter.
pub fn count(data: Request, counters: Counters) -> Request {
    data.attribute(counter::BYTES, &counters.bytes.to_be_bytes())
        .attribute(counter::PACKETS, &counters.packets.to_be_bytes())
}

/// What a counter expression counted; `None` for another expression.
pub fn counted(expression: &[u8]) -> Option<Counters> {
    if find(expression, expression::NAME)? != b"counter\0" {
        return None;
    }
    let data = find(expression, expression::DATA)?;
    let number = |kind| Some(u64::from_be_bytes(find(data, kind)?.try_into().ok()?));
    Some(Counters { packets: number(counter::PACKETS)?, bytes: number(counter::BYTES)? })
}

/// As the kernel keeps names.
pub fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Expressions in a form in which ours and the kernel's are equal if they do the same: without counts, without what is
/// said by default (`NFTA_BITWISE_OP`, `NFTA_LOOKUP_FLAGS`), and without the flags of nested attributes.
#[derive(Debug, PartialEq, Eq)]
pub struct Normal(Vec<(Vec<u8>, Data)>);

/// Attributes by type.
type Data = Vec<(u16, Vec<u8>)>;

impl Normal {
    /// Reads `NFTA_RULE_EXPRESSIONS`, and what they counted.
    pub fn read(list: &[u8]) -> Option<(Self, Counters)> {
        let mut normal = Vec::new();
        let mut counters = Counters::default();
        for (_, one) in attributes(list)? {
            let name = find(one, expression::NAME)?;
            let mut data = Data::new();
            match counted(one) {
                Some(counts) => counters = counts,
                None => {
                    for (kind, value) in attributes(find(one, expression::DATA)?)? {
                        data.extend(plain(name, kind, value)?);
                    }
                }
            }
            data.sort();
            normal.push((name.to_vec(), data));
        }
        Some((Self(normal), counters))
    }
}

/// `None` if malformed, `Some(None)` if it says nothing.
fn plain(name: &[u8], kind: u16, value: &[u8]) -> Option<Option<(u16, Vec<u8>)>> {
    let value = match (name, kind) {
        (b"bitwise\0", 6) | (b"lookup\0", 5) if value == [0; 4] => return Some(None),
        (b"cmp\0", 3) | (b"bitwise\0", 4 | 5) | (b"immediate\0", 2) => {
            unflagged(value, name == b"immediate\0")?
        }
        _ => value.to_vec(),
    };
    Some(Some((kind, value)))
}

/// The attributes one after the other, each as type, length and value.
fn unflagged(bytes: &[u8], nested: bool) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    for (kind, value) in attributes(bytes)? {
        let value = if nested { unflagged(value, false)? } else { value.to_vec() };
        plain.extend(kind.to_be_bytes());
        plain.extend((value.len() as u16).to_be_bytes());
        plain.extend(value);
    }
    Some(plain)
}
