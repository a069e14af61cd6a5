//! The elements of our sets as the kernel holds them.
//!
//! The key of an opening is `ipv4_addr . inet_proto . inet_service`, or `ipv6_addr . …`; that of an owner has the
//! client's name behind that, as `ipv6_addr . ipv6_addr`: twice 16 bytes, of which any can be listed and loaded again,
//! as an administrator may do with the whole ruleset. For people it stands in the comment. Each part fills whole
//! registers of 4 bytes.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::{ClientName, Endpoint, Protocol};

use super::abi::{DATA_VALUE, LIST_ELEMENT, element as attribute};
use super::comment;
use super::expressions::{count, counted, named};
use crate::kernel::Open;
use crate::model::{Family, GrantKey, Lifetime, Opening};
use crate::netlink::{Request, find};

/// Space for the longest client name.
const NAME: usize = ClientName::MAX_LENGTH;
/// Protocol and port, each in a register.
const SERVICE: usize = 8;
/// Added to every time-out, because the kernel rounds to its ticks of at most 10 ms: an element never ends early.
const TICK: Duration = Duration::from_millis(10);
/// The kernel counts on while the wall clock is moved. What its count and the comment say of the end may differ by so
/// much and count as the same: adjustments by NTP, the time that reading takes.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The types of an opening's and an owner's key for `nft list`: 6 bits each, `enum datatypes` of nftables'
/// `datatype.h`; ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13.
pub fn key_types(family: Family) -> (u32, u32) {
    let address = match family {
        Family::V4 => 7,
        Family::V6 => 8,
    };
    let opening = (address << 6 | 12) << 6 | 13;
    (opening, (opening << 6 | 8) << 6 | 8)
}

/// The lengths of these keys in bytes.
pub fn key_lengths(family: Family) -> (usize, usize) {
    let opening = usize::from(family.bits() / 8) + SERVICE;
    (opening, opening + NAME)
}

/// The key of an opening.
pub fn opening_key(opening: &Opening) -> Vec<u8> {
    let mut key = match opening.source {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    key.extend([opening.endpoint.protocol().number(), 0, 0, 0]);
    key.extend(opening.endpoint.port().to_be_bytes());
    key.extend([0, 0]);
    key
}

/// The key of an owner.
pub fn owner_key(key: &GrantKey) -> Vec<u8> {
    let mut bytes = opening_key(&key.opening());
    let whole = bytes.len() + NAME;
    bytes.extend(key.client.as_str().as_bytes());
    bytes.resize(whole, 0);
    bytes
}

fn read_opening(key: &[u8], family: Family) -> Option<Opening> {
    let (address, service) = key.split_at_checked(usize::from(family.bits() / 8))?;
    let source = match family {
        Family::V4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        Family::V6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    let [protocol, 0, 0, 0, high, low, 0, 0] = *service else { return None };
    let endpoint = Endpoint::new(Protocol::from_number(protocol)?, u16::from_be_bytes([high, low]))?;
    Some(Opening { source, endpoint })
}

fn read_owner(key: &[u8], family: Family) -> Option<GrantKey> {
    let (opening, name) = key.split_at_checked(key_lengths(family).0)?;
    let opening = read_opening(opening, family)?;
    let text = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    Some(GrantKey { source: opening.source, endpoint: opening.endpoint, client: text.parse().ok()? })
}

/// Appends one element of a list: the key alone.
pub fn bare(list: Request, key: &[u8]) -> Request {
    list.nest(LIST_ELEMENT, |element| keyed(element, key))
}

/// The key, and an end too near to matter.
pub fn fleeting(list: Request, key: &[u8]) -> Request {
    list.nest(LIST_ELEMENT, |element| timed(keyed(element, key), TICK))
}

/// An opening; with `counting`, its counter goes on from what it has.
pub fn opening(list: Request, opening: &Opening, open: &Open, counting: bool, now: SystemTime) -> Request {
    list.nest(LIST_ELEMENT, |element| {
        let element = timed(keyed(element, &opening_key(opening)), left(open.until, now))
            .attribute(attribute::USERDATA, &comment::encode(&comment::of_opening(open.until)));
        match counting {
            true => element.nest(attribute::EXPRESSION, |expression| {
                named(expression, "counter", |data| count(data, open.counters))
            }),
            false => element,
        }
    })
}

/// An owner.
pub fn owner(list: Request, key: &GrantKey, lifetime: &Lifetime, now: SystemTime) -> Request {
    list.nest(LIST_ELEMENT, |element| {
        timed(keyed(element, &owner_key(key)), left(lifetime.until, now))
            .attribute(attribute::USERDATA, &comment::encode(&comment::of_owner(&key.client, lifetime)))
    })
}

/// What is left until then; never 0, which would be for ever.
fn left(until: SystemTime, now: SystemTime) -> Duration {
    until.duration_since(now).unwrap_or_default() + TICK
}

fn keyed(element: Request, key: &[u8]) -> Request {
    element.nest(attribute::KEY, |data| data.attribute(DATA_VALUE, key))
}

fn timed(element: Request, left: Duration) -> Request {
    let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    element.attribute(attribute::TIMEOUT, &milliseconds.to_be_bytes())
}

/// Reads an element of the openings.
pub fn read_open(element: &[u8], family: Family, now: SystemTime) -> Option<(Opening, Open)> {
    let counters = find(element, attribute::EXPRESSION).and_then(counted).unwrap_or_default();
    // Where the two differ, what the kernel will do is what stands.
    let until =
        ends(element, now).map_or(UNIX_EPOCH, |ends| if ends.agree() { ends.said } else { ends.counted });
    Some((read_opening(key(element)?, family)?, Open { until, counters }))
}

/// Reads an element of the owners.
pub fn read_own(element: &[u8], family: Family, now: SystemTime) -> Option<(GrantKey, Lifetime)> {
    // Where the two differ, the clock was set while nobody looked: the earlier is the safe one.
    let lifetime =
        ends(element, now).map_or(Lifetime { from: UNIX_EPOCH, until: UNIX_EPOCH }, |ends| Lifetime {
            from: ends.from,
            until: if ends.agree() { ends.said } else { ends.said.min(ends.counted) },
        });
    Some((read_owner(key(element)?, family)?, lifetime))
}

fn key(element: &[u8]) -> Option<&[u8]> {
    find(find(element, attribute::KEY)?, DATA_VALUE)
}

/// When an element began and ends.
struct Ends {
    from: SystemTime,
    /// As we wrote beside it.
    said: SystemTime,
    /// As the kernel counts.
    counted: SystemTime,
}

impl Ends {
    fn agree(&self) -> bool {
        let apart = self.said.duration_since(self.counted).unwrap_or_else(|error| error.duration());
        apart <= TOLERANCE
    }
}

/// `None` for what has no comment of ours, or no end: it was not written by us and counts as ended, so it goes.
fn ends(element: &[u8], now: SystemTime) -> Option<Ends> {
    let comment = comment::decode(find(element, attribute::USERDATA)?)?;
    let (from, said) = comment::times(&comment)?;
    let left = u64::from_be_bytes(find(element, attribute::EXPIRATION)?.try_into().ok()?);
    Some(Ends { from, said, counted: now.checked_add(Duration::from_millis(left))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_they_were_written() {
        for (family, source) in [(Family::V4, "192.0.2.7"), (Family::V6, "2001:db8::7")] {
            for name in ["a", "alice", &"x".repeat(NAME)] {
                let key = GrantKey::new(
                    name.parse().expect("a name"),
                    source.parse().expect("an address"),
                    "udp/51820".parse().expect("an endpoint"),
                );
                let (opening, owner) = (opening_key(&key.opening()), owner_key(&key));
                assert_eq!((opening.len(), owner.len()), key_lengths(family));
                assert_eq!(read_opening(&opening, family), Some(key.opening()));
                assert_eq!(read_owner(&owner, family), Some(key));
                assert_eq!(read_opening(&owner, family), None);
                assert_eq!(read_owner(&opening, family), None);
            }
        }
    }

    #[test]
    fn the_end_is_what_is_said_unless_the_kernel_counts_otherwise() {
        let now = UNIX_EPOCH + Duration::from_secs(1_766_361_600);
        let said = now + Duration::from_secs(30);
        let key = GrantKey::new(
            "alice".parse().expect("a name"),
            [192, 0, 2, 7].into(),
            "tcp/22".parse().expect("an endpoint"),
        );
        let element = |key: &[u8], left: u64, comment: &str| {
            keyed(Request::new(0, 0), key)
                .attribute(attribute::EXPIRATION, &left.to_be_bytes())
                .attribute(attribute::USERDATA, &comment::encode(comment))
        };
        let good = comment::of_owner(&key.client, &Lifetime { from: now, until: said });
        let after = |seconds| now + Duration::from_secs(seconds);
        for (left, comment, owner, open) in [
            (30_010, good.as_str(), said, said),
            (29_400, &good, said, said),
            (3_600_000, &good, said, after(3_600)),
            (10_000, &good, after(10), after(10)),
            (30_000, "made by hand", UNIX_EPOCH, UNIX_EPOCH),
        ] {
            let read = read_own(element(&owner_key(&key), left, comment).payload(), Family::V4, now);
            assert_eq!(read.map(|(_, lifetime)| lifetime.until), Some(owner), "{left} {comment}");
            let read =
                read_open(element(&opening_key(&key.opening()), left, comment).payload(), Family::V4, now);
            assert_eq!(read.map(|(_, open)| open.until), Some(open), "{left} {comment}");
        }
    }
}
