//! Which interfaces count.
//!
//! The rule: the administrator names interfaces; the kernel stamps packets with indexes. An index stays with its
//! interface for life, through renames, and a new interface gets an index not used before (unless root picks one by
//! hand). So a set of indexes is a *snapshot* of names, true until an interface is made, deleted or renamed:
//!
//! 1. [`Interfaces::resolve`] takes the snapshot. It makes system calls (a socket, ioctl) that a sandboxed receiver
//!    may not, so the privileged process calls it and hands the set over. A name that does not exist now is left out
//!    and is no error.
//! 2. [`crate::Capture::set_interfaces`] takes the set into use, whole.
//! 3. A datagram from an index outside of the set is refused. The first from each such index since the last set is
//!    reported as [`crate::Received::stale`]: time to resolve again. An interface deleted and made again is thus found by
//!    its first datagram, which is lost; the client's next one is taken.
//! 4. That sign cannot show a rename, nor a reused index: the owner also resolves anew every few seconds, or when
//!    rtnetlink tells of a change. Until then the old verdict of an index stands.

use std::io;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::CaptureError;

/// Most interfaces that can be named.
pub const MAX_INTERFACES: usize = 64;
/// Longest name, in bytes: the kernel's `IFNAMSIZ` less the closing zero.
const MAX_NAME: usize = libc::IFNAMSIZ - 1;
/// Most refused indexes remembered; more are refused all the same, without [`crate::Received::stale`].
const MAX_REFUSED: usize = 64;

/// The interfaces that the administrator wants captured: all, or some by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interfaces(Option<Vec<String>>);

impl Interfaces {
    /// Every interface, `lo` as well.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// Those with the given names, whether or not they exist now.
    ///
    /// # Errors
    /// [`CaptureError::InterfaceName`] for what cannot be a name, [`CaptureError::InterfaceCount`] for none or too many.
    pub fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, CaptureError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.is_empty() || names.len() > MAX_INTERFACES {
            return Err(CaptureError::InterfaceCount(names.len()));
        }
        match names.iter().find(|name| !is_name(name)) {
            Some(bad) => Err(CaptureError::InterfaceName(bad.clone())),
            None => Ok(Self(Some(names))),
        }
    }

    /// The indexes that the names stand for now; `None` means every interface.
    ///
    /// # Errors
    /// [`CaptureError::Lookup`] if the kernel cannot be asked at all.
    pub fn resolve(&self) -> Result<Option<Vec<u32>>, CaptureError> {
        let Some(names) = &self.0 else { return Ok(None) };
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(|error| CaptureError::Lookup(error.into()))?;
        let mut indexes = Vec::with_capacity(names.len());
        for name in names {
            match rustix::net::netdevice::name_to_index(&socket, name) {
                Ok(index) => indexes.push(index),
                Err(rustix::io::Errno::NODEV) => {}
                Err(error) => return Err(CaptureError::Lookup(io::Error::from(error))),
            }
        }
        Ok(Some(indexes))
    }
}

/// The kernel's `dev_valid_name`.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
}

/// A snapshot in use, and the indexes refused under it.
#[derive(Debug)]
pub(crate) struct Selection {
    wanted: Option<Vec<u32>>,
    refused: Vec<u32>,
}

/// What a [`Selection`] says of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Wanted,
    Refused,
    /// Refused, for the first time since the snapshot was taken into use.
    RefusedFirst,
}

impl Selection {
    pub(crate) fn new(wanted: Option<Vec<u32>>) -> Self {
        Self { wanted, refused: Vec::with_capacity(MAX_REFUSED) }
    }

    pub(crate) fn judge(&mut self, index: u32) -> Verdict {
        match &self.wanted {
            None => Verdict::Wanted,
            Some(wanted) if wanted.contains(&index) => Verdict::Wanted,
            Some(_) if self.refused.len() == MAX_REFUSED || self.refused.contains(&index) => Verdict::Refused,
            Some(_) => {
                self.refused.push(index);
                Verdict::RefusedFirst
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_name_is_taken() {
        for good in ["lo", "eth0", "enp3s0.5", "a23456789012345", "wg-home"] {
            assert!(Interfaces::named([good]).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "a\0", "a234567890123456"] {
            assert!(matches!(Interfaces::named([bad]), Err(CaptureError::InterfaceName(_))), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_or_endless_list_is_refused() {
        assert!(matches!(Interfaces::named([""; 0]), Err(CaptureError::InterfaceCount(0))));
        assert!(Interfaces::named(["lo"; MAX_INTERFACES]).is_ok());
        assert!(matches!(
            Interfaces::named(["lo"; MAX_INTERFACES + 1]),
            Err(CaptureError::InterfaceCount(_))
        ));
    }

    #[test]
    fn the_first_of_each_refused_index_is_told_apart() {
        let mut selection = Selection::new(Some(vec![2, 7]));
        let verdicts = [7, 3, 3, 2, 4].map(|index| selection.judge(index));
        use Verdict::{Refused, RefusedFirst, Wanted};
        assert_eq!(verdicts, [Wanted, RefusedFirst, Refused, Wanted, RefusedFirst]);
    }

    #[test]
    fn the_memory_of_refused_indexes_is_bounded() {
        let mut selection = Selection::new(Some(vec![]));
        let room = selection.refused.capacity();
        let first = (1..1000).filter(|&index| selection.judge(index) == Verdict::RefusedFirst).count();
        assert_eq!((first, selection.refused.capacity()), (MAX_REFUSED, room));
    }
}
