//! The mark by which a packet that was let in here is known to the rules of others.

use core::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Bits of the packet mark, at least one. They are set, and no other bit is changed, on what [`super::Nftables`] lets
/// in to a protected service: established connections and grants. A mark never leaves the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(NonZeroU32);

impl Mark {
    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0.get()
    }
}

/// Not a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkError;

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a mark is 1 to 32 bits in hexadecimal, \"0x1\" to \"0xffffffff\", such as \"0x10000000\"",
        )
    }
}

impl std::error::Error for MarkError {}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+')).ok_or(MarkError)?;
        let bits = u32::from_str_radix(digits, 16).map_err(|_| MarkError)?;
        NonZeroU32::new(bits).map(Self).ok_or(MarkError)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_hexadecimal_and_not_nothing() {
        for text in ["0x1", "0x10000000", "0xffffffff"] {
            assert_eq!(text.parse::<Mark>().map(|mark| mark.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "1", "0x", "0x0", "0x100000000", "0x+1", "-0x1", "0xg", "mark"] {
            assert_eq!(text.parse::<Mark>(), Err(MarkError), "{text}");
        }
    }
}
