//! Sets and maps of nf_tables, with what they hold.

use super::expression::{Code, verdict};
use crate::netlink::{attributes, find};

/// `enum nft_set_flags`
pub const INTERVAL: u32 = 0x4;
/// `enum nft_set_elem_flags`
const INTERVAL_END: u32 = 0x1;
const CATCH_ALL: u32 = 0x2;

/// What a key maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    Nothing,
    Value(Vec<u8>),
    Verdict(Code),
    /// Found, but more is asked of the packet there, as a limit.
    Perhaps,
}

/// An element.
#[derive(Clone, Debug)]
pub struct Element {
    pub key: Vec<u8>,
    /// The last key, where the element has a first and a last one.
    last: Option<Vec<u8>>,
    flags: u32,
    mapped: Mapped,
}

/// A set.
#[derive(Clone, Debug, Default)]
pub struct Set {
    pub is_interval: bool,
    /// Bytes of each field of a key, without padding; empty for one field.
    pub fields: Vec<usize>,
    pub elements: Vec<Element>,
}

impl Element {
    /// One key, that maps to nothing.
    pub fn single(key: Vec<u8>) -> Self {
        Self { key, last: None, flags: 0, mapped: Mapped::Nothing }
    }

    /// From its attributes, `enum nft_set_elem_attributes`.
    pub fn read(element: &[u8]) -> Option<Self> {
        let value = |kind| find(find(element, kind)?, 1).map(<[u8]>::to_vec);
        let flags =
            find(element, 3).map_or(Some(0), |bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)))?;
        let key = if flags & CATCH_ALL == 0 { value(1)? } else { Vec::new() };
        Some(Self { key, last: value(10), flags, mapped: mapped(element)? })
    }

    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

fn mapped(element: &[u8]) -> Option<Mapped> {
    let counts_only = |list: Vec<(u16, &[u8])>| {
        list.iter().all(|(_, one)| matches!(find(one, 1), Some(b"counter\0" | b"last\0")))
    };
    let plain = match (find(element, 7), find(element, 11)) {
        (Some(one), _) => counts_only(vec![(0, one)]),
        (None, Some(list)) => counts_only(attributes(list)?),
        (None, None) => true,
    };
    if !plain {
        return Some(Mapped::Perhaps);
    }
    let Some(data) = find(element, 2) else { return Some(Mapped::Nothing) };
    match find(data, 2) {
        Some(bytes) => verdict(bytes).map(Mapped::Verdict),
        None => find(data, 1).map(|value| Mapped::Value(value.to_vec())),
    }
}

impl Set {
    /// What stands for this key.
    pub fn find(&self, key: &[u8]) -> Option<&Mapped> {
        let found = match (self.is_interval, self.fields.is_empty()) {
            (true, false) => self.elements.iter().find(|element| self.within(element, key)),
            (true, true) => self.interval(key),
            (false, _) => {
                self.elements.iter().find(|element| !element.is(CATCH_ALL) && same(&element.key, key))
            }
        };
        found.or_else(|| self.elements.iter().find(|element| element.is(CATCH_ALL))).map(|one| &one.mapped)
    }

    /// Intervals are listed by their first key, and by the first one after their last, marked as an end. The nearest
    /// at or below the key tells; of two at the same place, the beginning.
    fn interval(&self, key: &[u8]) -> Option<&Element> {
        let below =
            self.elements.iter().filter(|element| !element.is(CATCH_ALL) && order(&element.key, key).is_le());
        let nearest = below.max_by_key(|element| (element.key.clone(), !element.is(INTERVAL_END)))?;
        (!nearest.is(INTERVAL_END)).then_some(nearest)
    }

    /// Each field on its own.
    fn within(&self, element: &Element, key: &[u8]) -> bool {
        let last = element.last.as_ref().unwrap_or(&element.key);
        let mut at = 0;
        !element.is(CATCH_ALL)
            && self.fields.iter().all(|length| {
                let field = |bytes: &[u8]| bytes.get(at..at + length).map(<[u8]>::to_vec);
                let (low, high, value) = (field(&element.key), field(last), field(key));
                at += length.next_multiple_of(4);
                low.is_some() && low <= value && value <= high
            })
    }
}

fn same(held: &[u8], key: &[u8]) -> bool {
    order(held, key).is_eq()
}

/// A key in registers is padded to whole ones.
fn order(held: &[u8], key: &[u8]) -> std::cmp::Ordering {
    held.cmp(key.get(..held.len()).unwrap_or(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: &[u8], flags: u32) -> Element {
        Element { flags, ..Element::single(key.to_vec()) }
    }

    #[test]
    fn intervals_that_touch() {
        let ends = [
            element(&[10], 0),
            element(&[20], INTERVAL_END),
            element(&[20], 0),
            element(&[21], INTERVAL_END),
        ];
        let set = Set { is_interval: true, elements: ends.into(), ..Set::default() };
        let found: Vec<u8> = (0..30).filter(|key| set.find(&[*key, 0, 0, 0]).is_some()).collect();
        assert_eq!(found, (10..21).collect::<Vec<_>>());
    }

    #[test]
    fn fields_are_compared_one_by_one() {
        let mut one = element(&[10, 0, 0, 0, 0, 0, 0, 80], 0);
        one.last = Some(vec![10, 0, 0, 255, 0, 0, 0, 90]);
        one.key[5] = 80;
        one.last = Some(vec![10, 0, 0, 255, 0, 90, 0, 0]);
        let set = Set { is_interval: true, fields: vec![4, 2], elements: vec![one] };
        assert!(set.find(&[10, 0, 0, 7, 0, 85, 0, 0]).is_some());
        assert!(set.find(&[10, 0, 0, 7, 0, 79, 0, 0]).is_none());
        assert!(set.find(&[10, 0, 1, 0, 0, 85, 0, 0]).is_none());
    }

    #[test]
    fn the_rest_is_caught() {
        let set = Set { elements: vec![element(&[], CATCH_ALL), element(&[1], 0)], ..Set::default() };
        assert!(set.find(&[7]).is_some());
    }
}
