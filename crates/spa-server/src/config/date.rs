//! A moment in UTC, as `valid-until` has it: `2027-01-31` or `2027-01-31T12:00:00Z` (RFC 3339).

use std::fmt;
use std::str::FromStr;

/// Seconds of the Unix epoch; a date alone means its end, so that it is valid on that day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub u64);

const SECONDS_PER_DAY: u64 = 86_400;

/// The text is not a date from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateError;

impl fmt::Display for DateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a date in UTC, as in \"2027-01-31\" or \"2027-01-31T12:00:00Z\"")
    }
}

impl std::error::Error for DateError {}

impl FromStr for Date {
    type Err = DateError;

    fn from_str(text: &str) -> Result<Self, DateError> {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time.strip_suffix('Z').ok_or(DateError)?)),
            None => (text, None),
        };
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let days = days_since_epoch(year, month, day).ok_or(DateError)?;
        let seconds = match time {
            None => SECONDS_PER_DAY,
            Some(time) => match numbers(time, ':', [2, 2, 2])? {
                [hour @ 0..=23, minute @ 0..=59, second @ 0..=59] => hour * 3_600 + minute * 60 + second,
                _ => return Err(DateError),
            },
        };
        Ok(Self(days * SECONDS_PER_DAY + seconds))
    }
}

impl fmt::Display for Date {
    /// As [`FromStr`] reads it, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / SECONDS_PER_DAY, self.0 % SECONDS_PER_DAY);
        let of = |year, month, day| days_since_epoch(year, month, day).is_some_and(|first| first <= days);
        let year = (1970..).take_while(|year| of(*year, 1, 1)).last().unwrap_or(1970);
        let month = (1..=12).take_while(|month| of(year, *month, 1)).last().unwrap_or(1);
        let day = (1..=31).take_while(|day| of(year, month, *day)).last().unwrap_or(1);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Three decimal numbers of fixed width.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Result<[u64; 3], DateError> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (number, width) in out.iter_mut().zip(widths) {
        let part = parts.next().ok_or(DateError)?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DateError);
        }
        *number = part.parse().map_err(|_| DateError)?;
    }
    if parts.next().is_some() { Err(DateError) } else { Ok(out) }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; `None` for a day that is not in it.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || !(1..=*lengths.get(month)?).contains(&day) {
        return None;
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(years + lengths[..month].iter().sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_date_of_coreutils() {
        for text in
            ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-11-22T12:00:01Z", "2100-03-01T00:00:00Z"]
        {
            let output = std::process::Command::new("date").args(["-u", "+%s", "-d", text]).output().unwrap();
            let expected: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
            assert_eq!(text.parse(), Ok(Date(expected)), "{text}");
            assert_eq!(Date(expected).to_string(), text);
        }
        assert_eq!("2026-11-22".parse::<Date>(), "2026-11-23T00:00:00Z".parse());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "26-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
            "2026-1-1",
        ] {
            assert_eq!(text.parse::<Date>(), Err(DateError), "{text}");
        }
    }
}
