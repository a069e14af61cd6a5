//! The expressions of a native rule, decoded: `linux/netfilter/nf_tables.h`, whose numbers stand here.

use crate::netlink::{attributes, find};

/// Bytes of the registers: 16 of 4 bytes, after the 16 of the verdict.
pub const REGISTERS: usize = 80;
/// `NFT_REG32_00`
const FIRST_WORD: u32 = 8;

/// What a reject answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Reset,
    Icmp,
}

/// What a rule says in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    Accept,
    Drop,
    Continue,
    Break,
    Return,
    Jump(String),
    Goto(String),
    /// To a program, or whatever else.
    Other,
}

/// What is loaded or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    Meta(u32),
    /// Base, offset, length.
    Payload(u32, u32, u32),
    /// Key, and the direction if one was given.
    Conntrack(u32, Option<u8>),
    /// Result, flags.
    Route(u32, u32),
}

/// One expression. Registers are bytes from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Into the register from there on.
    Load(Load, usize),
    /// Not known, of this length in bytes.
    LoadUnknown(usize, usize),
    /// How (`enum nft_cmp_ops`), with what.
    Compare(usize, u32, Vec<u8>),
    /// Within, or not within.
    Range(usize, bool, Vec<u8>, Vec<u8>),
    /// From, to, mask, then what is flipped.
    Mask(usize, usize, Vec<u8>, Vec<u8>),
    /// From, to, length, size of each number in bytes.
    Swap(usize, usize, usize, usize),
    /// The set, the key's register, that of what it maps to, and whether it must *not* be there.
    Lookup(String, usize, Option<usize>, bool),
    Value(usize, Vec<u8>),
    Verdict(Code),
    SetMark(usize),
    SetConnectionMark(usize),
    NoTrack,
    Reject(Answer),
    /// The address's register, if given; the port's.
    Destination(Option<usize>, Option<usize>),
    /// The port's register.
    Redirect(Option<usize>),
    /// Ends the chain like an accept: what rewrites the source.
    Source,
    /// Counts, logs: goes on in any case.
    Nothing,
    /// May go on or not.
    Perhaps,
    /// Ends in a way that is not understood.
    Strange,
}

/// All expressions of a rule. `None`: one is of iptables (`match`, `target`), so the rule is text elsewhere.
pub fn decode(list: &[u8]) -> Option<Vec<Expression>> {
    let mut found = Vec::new();
    for (_, one) in attributes(list)? {
        let name = find(one, 1)?;
        if matches!(name, b"match\0" | b"target\0") {
            return None;
        }
        let data = Data(find(one, 2).unwrap_or_default());
        // Malformed, or newer than this program.
        found.push(expression(name, data).unwrap_or(Expression::Strange));
    }
    Some(found)
}

/// Attributes of one expression.
#[derive(Clone, Copy)]
struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn number(self, kind: u16) -> Option<u32> {
        find(self.0, kind).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)))
    }

    fn register(self, kind: u16) -> Option<usize> {
        let number = self.number(kind)?;
        let word = if number < FIRST_WORD { number.checked_mul(4)? } else { number - FIRST_WORD + 4 };
        let byte = usize::try_from(word).ok()?.checked_mul(4)?;
        (byte < REGISTERS).then_some(byte)
    }

    fn value(self, kind: u16) -> Option<Vec<u8>> {
        find(find(self.0, kind)?, 1).map(<[u8]>::to_vec)
    }

    fn text(self, kind: u16) -> Option<String> {
        find(self.0, kind).map(zero_ended)
    }

    fn has(self, kind: u16) -> bool {
        find(self.0, kind).is_some()
    }
}

pub fn zero_ended(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// `NFTA_DATA_VERDICT`'s content.
pub fn verdict(bytes: &[u8]) -> Option<Code> {
    let chain = || find(bytes, 2).map(zero_ended);
    Some(match i32::from_be_bytes(find(bytes, 1)?.try_into().ok()?) {
        0 => Code::Drop,
        1 => Code::Accept,
        -1 => Code::Continue,
        -2 => Code::Break,
        -3 => Code::Jump(chain()?),
        -4 => Code::Goto(chain()?),
        -5 => Code::Return,
        _ => Code::Other,
    })
}

fn expression(name: &[u8], data: Data<'_>) -> Option<Expression> {
    Some(match name {
        b"meta\0" => meta(data)?,
        b"payload\0" => payload(data)?,
        b"ct\0" => conntrack(data)?,
        b"fib\0" => Expression::Load(Load::Route(data.number(2)?, data.number(3)?), data.register(1)?),
        b"cmp\0" => Expression::Compare(data.register(1)?, data.number(2)?, data.value(3)?),
        b"range\0" => {
            Expression::Range(data.register(1)?, data.number(2)? == 1, data.value(3)?, data.value(4)?)
        }
        b"bitwise\0" => bitwise(data)?,
        b"byteorder\0" => Expression::Swap(
            data.register(1)?,
            data.register(2)?,
            data.number(4)? as usize,
            data.number(5)? as usize,
        ),
        b"lookup\0" => Expression::Lookup(
            data.text(1)?,
            data.register(2)?,
            data.register(3),
            data.number(5).is_some_and(|flags| flags & 1 != 0),
        ),
        b"immediate\0" => immediate(data)?,
        b"nat\0" => match data.number(1)? {
            0 => Expression::Source,
            _ => Expression::Destination(data.register(3), data.register(5)),
        },
        b"redir\0" => Expression::Redirect(data.register(1)),
        b"masq\0" => Expression::Source,
        b"reject\0" => Expression::Reject(match data.number(1)? {
            1 => Answer::Reset,
            _ => Answer::Icmp,
        }),
        b"notrack\0" => Expression::NoTrack,
        b"counter\0" | b"log\0" | b"last\0" | b"dup\0" => Expression::Nothing,
        // A named counter; a limit or quota otherwise.
        b"objref\0" if data.number(1) == Some(1) => Expression::Nothing,
        b"limit\0" | b"quota\0" | b"connlimit\0" | b"dynset\0" | b"objref\0" | b"osf\0" => {
            Expression::Perhaps
        }
        b"numgen\0" | b"hash\0" | b"rt\0" | b"socket\0" | b"xfrm\0" => {
            Expression::LoadUnknown(data.register(if name == b"hash\0" { 2 } else { 1 })?, 16)
        }
        // Of options, that a packet has or has not; with a source register it writes one.
        b"exthdr\0" if data.has(7) => Expression::Nothing,
        b"exthdr\0" => Expression::LoadUnknown(data.register(1)?, data.number(4)? as usize),
        _ => Expression::Strange,
    })
}

fn meta(data: Data<'_>) -> Option<Expression> {
    const MARK: u32 = 3;
    let key = data.number(2)?;
    Some(match data.register(3) {
        Some(source) if key == MARK => Expression::SetMark(source),
        Some(_) => Expression::Nothing, // priority, trace, packet type: nothing that a verdict hangs on
        None => Expression::Load(Load::Meta(key), data.register(1)?),
    })
}

fn payload(data: Data<'_>) -> Option<Expression> {
    let (base, offset, length) = (data.number(2)?, data.number(3)?, data.number(4)?);
    Some(match data.has(5) {
        false => Expression::Load(Load::Payload(base, offset, length), data.register(1)?),
        // Service class and hop limit may be written without harm; addresses and ports not.
        true if base == 1 && offset + length <= 9 => Expression::Nothing,
        true => Expression::Strange,
    })
}

fn conntrack(data: Data<'_>) -> Option<Expression> {
    const MARK: u32 = 3;
    let key = data.number(2)?;
    Some(match data.register(4) {
        Some(source) if key == MARK => Expression::SetConnectionMark(source),
        Some(_) => Expression::Nothing,
        None => {
            let direction = find(data.0, 3).and_then(|bytes| bytes.first().copied());
            Expression::Load(Load::Conntrack(key, direction), data.register(1)?)
        }
    })
}

fn bitwise(data: Data<'_>) -> Option<Expression> {
    let (from, to, length) = (data.register(1)?, data.register(2)?, data.number(3)? as usize);
    Some(match data.number(6).unwrap_or(0) {
        0 => Expression::Mask(from, to, data.value(4)?, data.value(5)?),
        _ => Expression::LoadUnknown(to, length), // shifts, and operations on two registers
    })
}

fn immediate(data: Data<'_>) -> Option<Expression> {
    let value = find(data.0, 2)?;
    Some(match find(value, 2) {
        Some(bytes) => Expression::Verdict(verdict(bytes)?),
        None => Expression::Value(data.register(1)?, find(value, 1)?.to_vec()),
    })
}
