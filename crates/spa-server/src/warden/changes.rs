//! Notices that somebody changed the firewall. nf_tables announces each change on netlink, with the process that made
//! it (`nft_genmsg` of linux/netfilter/nf_tables.h); iptables-legacy announces nothing, but takes its lock for each.
//!
//! Our own changes are noticed as well, and looked at like any other: one reading too many is cheap, and a rule by
//! which changes are ours could be wrong.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reactor;

/// Changes that come together are looked at together, after this time.
const SETTLE: Duration = Duration::from_millis(50);
/// The lock of iptables-legacy.
const XTABLES_LOCK: &str = "/run/xtables.lock";
/// The multicast group `NFNLGRP_NFTABLES`, as a bit.
const NFTABLES_GROUP: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`: a transaction is complete.
const NEW_GENERATION: u16 = 10 << 8 | 15;
const GENERATION_PID: u16 = 2;
const GENERATION_PROGRAM: u16 = 3;
/// Bytes of `struct nlmsghdr`, and of `struct nfgenmsg` behind it.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// Who changed something, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    program: Option<String>,
    pid: Option<u32>,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.program, self.pid) {
            // A process names itself, so the name is no more to be trusted than any other text.
            (Some(program), Some(pid)) => write!(f, "{} (pid {pid})", program.escape_debug()),
            _ => f.write_str("a program that is not known"),
        }
    }
}

/// What tells of changes.
pub struct Watch {
    netlink: Option<AsyncFd<OwnedFd>>,
    lock: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    /// Watches from now on whatever there is to watch.
    pub fn new() -> Self {
        let warn =
            |what: &str, error: std::io::Error| tracing::warn!(%error, "changes of {what} are not noticed");
        Self {
            netlink: netlink().map_err(|error| warn("nf_tables", error)).ok(),
            lock: Path::new(XTABLES_LOCK)
                .exists()
                .then(|| lock().map_err(|error| warn("iptables-legacy", error)).ok())
                .flatten(),
        }
    }

    /// Returns after a change, when no other has followed for a moment, with whoever made the last.
    pub async fn changed(&self) -> Author {
        let mut author = self.next().await;
        let settled = tokio::time::sleep(SETTLE);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                next = self.next() => author = next,
                () = &mut settled => return author,
            }
        }
    }

    async fn next(&self) -> Author {
        tokio::select! {
            author = next_generation(self.netlink.as_ref()) => author,
            () = next_locking(self.lock.as_ref()) => Author::default(),
        }
    }
}

fn netlink() -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    bind(&socket, &SocketAddrNetlink::new(0, NFTABLES_GROUP))?;
    reactor::register(socket)
}

fn lock() -> std::io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(
        &watch,
        XTABLES_LOCK,
        inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::CLOSE_NOWRITE,
    )?;
    reactor::register(watch)
}

/// The author of the next transaction.
async fn next_generation(socket: Option<&AsyncFd<OwnedFd>>) -> Author {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        let author = socket
            .async_io(Interest::READABLE, |socket| {
                let mut buffer = [0; 8192];
                match recv(socket, &mut buffer, RecvFlags::empty()) {
                    Ok((bytes, _)) => Ok(author_of(&buffer[..bytes])),
                    // More changes than the queue holds: something changed, whoever it was.
                    Err(Errno::NOBUFS) => Ok(Some(Author::default())),
                    Err(error) => Err(error.into()),
                }
            })
            .await;
        match author {
            Ok(Some(author)) => return author,
            Ok(None) => {}
            Err(_) => return std::future::pending().await, // the socket is broken: nothing more will come
        }
    }
}

async fn next_locking(watch: Option<&AsyncFd<OwnedFd>>) {
    let Some(watch) = watch else { return std::future::pending().await };
    let read = watch
        .async_io(Interest::READABLE, |watch| {
            let mut buffer = [MaybeUninit::uninit(); 1024];
            inotify::Reader::new(watch, &mut buffer).next().map(|_| ()).map_err(Into::into)
        })
        .await;
    if read.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The author of a datagram's transaction, if it completes one.
fn author_of(mut bytes: &[u8]) -> Option<Author> {
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let message = bytes.get(HEADER..length)?;
        if kind == NEW_GENERATION {
            return Some(read_generation(message.get(FAMILY_HEADER..).unwrap_or_default()));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn read_generation(mut attributes: &[u8]) -> Author {
    let mut author = Author::default();
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let Some(value) = attributes.get(4..length) else { break };
        match kind {
            GENERATION_PID => author.pid = value.try_into().ok().map(u32::from_be_bytes),
            GENERATION_PROGRAM => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                author.program = Some(String::from_utf8_lossy(name).into_owned());
            }
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    author
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + FAMILY_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER + FAMILY_HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_transaction_names_its_author() {
        let body =
            [attribute(1, &[0, 0, 0, 9]), attribute(2, &7u32.to_be_bytes()), attribute(3, b"nft\0")].concat();
        let datagram = [message(10 << 8, b""), message(NEW_GENERATION, &body)].concat();
        let author = author_of(&datagram).unwrap();
        assert_eq!(author.to_string(), "nft (pid 7)");
        assert_eq!(author_of(&message(10 << 8, b"")), None);
    }

    #[test]
    fn a_datagram_cut_short_is_no_harm() {
        let body = [attribute(2, &7u32.to_be_bytes()), attribute(3, b"nft\0")].concat();
        let datagram = message(NEW_GENERATION, &body);
        for length in 0..datagram.len() {
            let _ = author_of(&datagram[..length]);
        }
    }
}
