//! Dates as the `time` match writes them: `2025-12-22T00:00:00`, UTC, proleptic Gregorian.

const DAY: u64 = 86_400;

/// The date of `seconds` since 1970. Years beyond 9999 do not come up: see [`crate::kernel::LAST_SECOND`].
pub fn format(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / DAY);
    let rest = seconds % DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Seconds since 1970, or `None` if `text` is not exactly what [`format`] gives.
pub fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let mut time = time.split(':').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour.checked_mul(3600)? + minute.checked_mul(60)? + second;
    (format(seconds) == text).then_some(seconds)
}

/// Days since 1970-01-01. Years begin in March, so that the leap day is the last of one.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let in_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + in_year - EPOCH
}

/// 1970-01-01, counted in days from 0000-03-01.
const EPOCH: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;

fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH;
    let (era, of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let in_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * in_year + 2) / 153;
    let day = in_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{format, parse};

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_766_361_600, "2025-12-22T00:00:00"),
            (i32::MAX as u64, "2038-01-19T03:14:07"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(format(seconds), text);
            assert_eq!(parse(text), Some(seconds));
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "2025-12-22",
            "2025-13-01T00:00:00",
            "2025-02-30T00:00:00",
            "2025-2-3T00:00:00",
            "2025-12-22T24:00:00",
            "2025-12-22T00:00:60",
            "2025-12-22T00:00:00Z",
            "2025-12-22T00:00:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(seconds in 0..=4_294_967_295_u64) {
            prop_assert_eq!(parse(&format(seconds)), Some(seconds));
        }
    }
}
