//! The host's own addresses, as the engine judges by them. The kernel announces each change (rtnetlink(7)); the
//! announcements wait unread until a knock comes, so that they wake nobody and a knock finds the list as it is now.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use spa_capture::CaptureError;

use super::links;

/// The multicast groups `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of linux/rtnetlink.h, as bits.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
/// Where changes are not announced, the list is read again when it is older than this.
const AGE: Duration = Duration::from_secs(1);

/// The addresses, and what tells of changes.
pub struct Addresses {
    list: Vec<IpAddr>,
    read: Option<Instant>,
    announced: Option<OwnedFd>,
}

impl Addresses {
    /// None yet; listens from now on.
    pub fn new() -> Self {
        let warn = |error: &std::io::Error| tracing::warn!(%error, "new addresses are not noticed at once");
        Self { list: Vec::new(), read: None, announced: links::listen(ADDRESS_GROUPS).inspect_err(warn).ok() }
    }

    /// Reads the list again if it may have changed; then it is returned.
    ///
    /// # Errors
    /// Where it cannot be read: the one known before goes on counting, and the next call tries again.
    pub fn refresh(&mut self) -> Result<Option<&[IpAddr]>, CaptureError> {
        if !self.is_stale() {
            return Ok(None);
        }
        self.read = None;
        self.list = spa_capture::local_addresses()?;
        self.read = Some(Instant::now());
        Ok(Some(&self.list))
    }

    /// Whether it is one of ours.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.list.contains(address)
    }

    fn is_stale(&self) -> bool {
        let changed = match &self.announced {
            // What cannot be heard may have been anything.
            Some(socket) => !matches!(
                links::drain(socket),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
            ),
            None => false,
        };
        let age = self.read.map(|read| read.elapsed());
        changed || age.is_none_or(|age| self.announced.is_none() && age >= AGE)
    }
}
