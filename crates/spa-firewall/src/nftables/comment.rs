//! What we write beside rules and elements: text that `nft list` shows as their comment.
//!
//! User data is a row of type, length, value, one byte each of the first two. Type 0 is a comment, which ends with a
//! zero byte: `NFTNL_UDATA_RULE_COMMENT` and `NFTNL_UDATA_SET_ELEM_COMMENT` of `libnftnl/udata.h`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::ClientName;

use crate::kernel::Rule;
use crate::model::Lifetime;

const COMMENT: u8 = 0;
/// Before every comment of ours.
const MARK: &str = "spa ";

/// User data with this comment of at most 254 bytes; ours have less than 100.
pub fn encode(text: &str) -> Vec<u8> {
    let mut data = vec![COMMENT, text.len() as u8 + 1];
    data.extend(text.as_bytes());
    data.push(0);
    data
}

/// The comment in user data, if it begins with one.
pub fn decode(data: &[u8]) -> Option<String> {
    let (&[kind, length], rest) = data.split_first_chunk::<2>()?;
    let text = rest.get(..usize::from(length))?.strip_suffix(&[0])?;
    (kind == COMMENT).then(|| String::from_utf8_lossy(text).into_owned())
}

/// What stands beside a rule; `None` for one that is never written.
pub fn of_rule(rule: &Rule) -> Option<String> {
    let text = match rule {
        Rule::Loopback => "lo".to_owned(),
        Rule::Except(except) => format!("except {except}"),
        Rule::Established(endpoint) => format!("established {endpoint}"),
        Rule::Openings => "openings".to_owned(),
        Rule::Drop(endpoint, None) => format!("drop {endpoint}"),
        Rule::Drop(endpoint, Some(stop)) => format!("drop {endpoint} stop={stop}"),
        Rule::Grant(..) | Rule::Foreign(_) => return None,
    };
    Some(format!("{MARK}{text}"))
}

/// The rule that a comment speaks of.
pub fn rule(comment: &str) -> Option<Rule> {
    let words: Vec<_> = comment.strip_prefix(MARK)?.split(' ').collect();
    Some(match words[..] {
        ["lo"] => Rule::Loopback,
        ["except", except] => Rule::Except(except.parse().ok()?),
        ["established", endpoint] => Rule::Established(endpoint.parse().ok()?),
        ["openings"] => Rule::Openings,
        ["drop", endpoint] => Rule::Drop(endpoint.parse().ok()?, None),
        ["drop", endpoint, stop] => {
            Rule::Drop(endpoint.parse().ok()?, Some(stop.strip_prefix("stop=")?.parse().ok()?))
        }
        _ => return None,
    })
}

/// What stands beside an owner: `spa alice from=1766361570.000000000 until=1766361600.000000000`.
pub fn of_owner(client: &ClientName, lifetime: &Lifetime) -> String {
    format!("{MARK}{client} from={} until={}", time(lifetime.from), time(lifetime.until))
}

/// What stands beside an opening: `spa until=1766361600.000000000`.
pub fn of_opening(until: SystemTime) -> String {
    format!("{MARK}until={}", time(until))
}

/// Reads both: from, if it is said, and until. Whose it is, the key says.
pub fn times(comment: &str) -> Option<(SystemTime, SystemTime)> {
    let words: Vec<_> = comment.strip_prefix(MARK)?.split(' ').collect();
    let (from, until) = match words[..] {
        [_, from, until] => (read_time(from.strip_prefix("from=")?)?, until),
        [until] => (UNIX_EPOCH, until),
        _ => return None,
    };
    Some((from, read_time(until.strip_prefix("until=")?)?))
}

/// Seconds since 1970, to the nanosecond.
fn time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

fn read_time(text: &str) -> Option<SystemTime> {
    let (seconds, nanos) = text.split_once('.').filter(|(_, nanos)| nanos.len() == 9)?;
    let nanos = nanos.parse().ok().filter(|nanos| *nanos < 1_000_000_000)?;
    UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_read_as_they_were_written() {
        for text in
            ["lo", "except wg0", "except 192.0.2.0/24", "established tcp/22", "openings", "drop udp/1 stop=9"]
        {
            let text = format!("spa {text}");
            let rule = rule(&text).expect("one of ours");
            assert_eq!(of_rule(&rule), Some(text.clone()));
            assert_eq!(decode(&encode(&text)), Some(text));
        }
        for text in ["", "lo", "spa", "spa drop", "spa drop tcp/0", "spa drop tcp/22 until=9", "spa lo "] {
            assert_eq!(rule(text), None, "{text}");
        }
        let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        let lifetime = Lifetime { from: at(7), until: at(1_766_361_600_000_000_001) };
        assert_eq!(
            times(&of_owner(&"a".parse().expect("a name"), &lifetime)),
            Some((lifetime.from, lifetime.until))
        );
        assert_eq!(times(&of_opening(lifetime.until)), Some((UNIX_EPOCH, lifetime.until)));
        for text in
            ["", "spa ", "spa until=1", "spa until=1.5", "spa from=1.000000000", "spa until=-1.000000000"]
        {
            assert_eq!(times(text), None, "{text}");
        }
    }

    #[test]
    fn user_data_of_others() {
        for data in [&[][..], &[0], &[0, 1], &[0, 2, b'a', b'b'], &[1, 1, 0], &[0, 9, 0]] {
            assert_eq!(decode(data), None, "{data:?}");
        }
    }
}
