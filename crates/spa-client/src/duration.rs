//! Durations as people write them: `30s`, `5m`, `1h`, `1d`.

use core::fmt;
use core::time::Duration;

use spa_proto::{Seconds, SecondsError};

/// Longest duration that is understood: what the packet's 32 bits of seconds hold.
pub const MAX: Duration = Seconds(u32::MAX).duration();

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
    let seconds: Seconds = text.parse().map_err(|_: SecondsError| DurationError)?;
    if seconds == Seconds(0) { Err(DurationError) } else { Ok(seconds.duration()) }
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
}
