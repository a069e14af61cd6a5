//! Durations as people write them: `30s`, `5m`, `1h`, `1d`.

use core::fmt;
use core::time::Duration;

/// Longest duration that is understood: what the packet's 32 bits of seconds hold.
pub const MAX: Duration = Duration::from_secs(u32::MAX as u64);

/// Unit letters and their seconds, largest first.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The text is not a whole number above 0 with one of the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationError;

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a time with its unit, as in \"30s\", \"5m\", \"1h\" or \"1d\"")
    }
}

impl core::error::Error for DurationError {}

/// Reads `30s`, `5m`, `1h` or `1d`: digits and one unit, above 0 and at most [`MAX`].
///
/// # Errors
/// [`DurationError`]; also for a bare number, since its unit would be a guess.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let unit = text.chars().next_back().ok_or(DurationError)?;
    let (_, scale) = UNITS.into_iter().find(|(letter, _)| *letter == unit).ok_or(DurationError)?;
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DurationError); // "+30" parses as an integer
    }
    let number: u64 = digits.parse().map_err(|_| DurationError)?;
    let duration = number.checked_mul(scale).map(Duration::from_secs).ok_or(DurationError)?;
    if duration.is_zero() || duration > MAX { Err(DurationError) } else { Ok(duration) }
}

/// Prints whole seconds in the largest unit that divides them, so that [`parse`] reads it back.
pub fn display(duration: Duration) -> impl fmt::Display {
    let seconds = duration.as_secs();
    let (letter, scale) = UNITS
        .into_iter()
        .find(|(_, scale)| seconds != 0 && seconds.is_multiple_of(*scale))
        .unwrap_or(('s', 1));
    format!("{}{letter}", seconds / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("5m", 300), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("4294967295s"), Ok(MAX));
        for text in
            ["", "s", "30", "0s", "+1s", "-1s", "1.5m", "1 m", "4294967296s", "99999999999999999999d", "1µ"]
        {
            assert_eq!(parse(text), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["1s", "90s", "5m", "25h", "1h", "2d"] {
            assert_eq!(display(parse(text).unwrap()).to_string(), text);
        }
    }
}
