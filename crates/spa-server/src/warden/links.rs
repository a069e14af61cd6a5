//! Notices that a network interface came or went (rtnetlink(7)), where the configuration names interfaces: one that is
//! made anew has another index, and its first knock is to count.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reactor;

/// The multicast group `RTMGRP_LINK` of linux/rtnetlink.h, as a bit.
const LINK_GROUP: u32 = 1;

/// What tells of interfaces.
pub struct LinkWatch(Option<AsyncFd<OwnedFd>>);

impl LinkWatch {
    /// Watches from now on. Where that cannot be, the first datagram of a new interface is lost instead of read.
    pub fn new() -> Self {
        let warn = |error: &std::io::Error| tracing::warn!(%error, "new interfaces are not noticed at once");
        Self(listen(LINK_GROUP).and_then(reactor::register).inspect_err(warn).ok())
    }

    /// Returns after a change, or after several that came together.
    pub async fn changed(&self) {
        let Some(socket) = &self.0 else { return std::future::pending().await };
        if socket.async_io(Interest::READABLE, drain).await.is_err() {
            std::future::pending::<()>().await; // the socket is broken: nothing more will come
        }
    }
}

/// A socket that hears of changes, by the groups' bits, without waiting.
///
/// # Errors
/// As `socket(2)` and `bind(2)`.
pub fn listen(groups: u32) -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // No protocol is protocol 0, NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Reads until nothing is left. What the messages say is of no matter: whatever it is about is looked up anew.
///
/// # Errors
/// `WouldBlock` where there was nothing, and as `recv(2)`.
pub fn drain(socket: &OwnedFd) -> std::io::Result<()> {
    let mut any = false;
    loop {
        match recv(socket, &mut [0; 1024], RecvFlags::TRUNC) {
            // More changes than the queue holds.
            Ok(_) | Err(Errno::NOBUFS) => any = true,
            Err(Errno::WOULDBLOCK) if any => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
