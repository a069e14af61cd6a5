//! The addresses of this host.

use std::net::IpAddr;

use crate::{CaptureError, sys};

/// The addresses that the host's interfaces have now, sorted, each once.
///
/// The tap also sees packets that are only routed through the host, so the caller compares a datagram's destination
/// with these. Asks over netlink, so the privileged process calls this, and again when addresses change. What is local
/// by a route alone (`ip route add local`, the rest of 127.0.0.0/8) is not listed.
///
/// # Errors
/// [`CaptureError::Lookup`] if the kernel cannot be asked.
pub fn local_addresses() -> Result<Vec<IpAddr>, CaptureError> {
    let mut addresses = sys::interface_addresses().map_err(CaptureError::Lookup)?;
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
