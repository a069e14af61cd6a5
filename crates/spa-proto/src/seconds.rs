//! Lengths of time as people write them, on the command lines and in the files of both sides: `90s`, `5m`, `1h`, `2d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time in whole seconds, as a packet carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The same as a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, seconds) in UNITS.iter().rev() {
            if self.0 != 0 && self.0.is_multiple_of(*seconds) {
                return write!(f, "{}{unit}", self.0 / seconds);
            }
        }
        write!(f, "{}s", self.0)
    }
}

const UNITS: [(char, u32); 4] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];

/// The text is not a number and a unit, or is more than a `u32` of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondsError;

impl fmt::Display for SecondsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a length of time, as in \"30s\", \"5m\", \"1h\" or \"2d\"")
    }
}

impl std::error::Error for SecondsError {}

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(text: &str) -> Result<Self, SecondsError> {
        let unit = text.chars().next_back().ok_or(SecondsError)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(SecondsError)?;
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SecondsError);
        }
        let number: u32 = digits.parse().map_err(|_| SecondsError)?;
        number.checked_mul(*seconds).map(Self).ok_or(SecondsError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("5m", 300), ("1h", 3_600), ("2d", 172_800)] {
            assert_eq!(text.parse(), Ok(Seconds(seconds)));
            assert_eq!(Seconds(seconds).to_string(), text);
        }
        for text in ["", "s", "30", "-1s", "+1s", "1.5h", "1 h", "5M", "1w", "49711d", "99999999999s"] {
            assert_eq!(text.parse::<Seconds>(), Err(SecondsError), "{text}");
        }
    }
}
