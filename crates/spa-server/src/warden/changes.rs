//! Notices that somebody changed the firewall. nf_tables announces each change on netlink, with the process that made
//! it (`nft_genmsg` of linux/netfilter/nf_tables.h); iptables-legacy announces nothing, but takes its lock for each.
//!
//! Our own changes are announced as well. Of nf_tables' announcements those are left out that name one of our processes
//! or came through a netlink socket of our own, and those that are about other tables than we use. Of the lock it is not known who took it (and in a container no
//! process is known by its number), so what comes while we write may be ours: it counts as well, but is looked after
//! later, and then a run of knocks does not wait for a look at each.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use spa_firewall::{Authors, Notice, Whose};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::reactor;

/// Changes that come together are looked at together, after this time.
const SETTLE: Duration = Duration::from_millis(50);
/// And after this time where it may have been us alone. With the repair it is to be less than a second.
const SETTLE_OURS: Duration = Duration::from_millis(400);
/// So many authors of changes are named; of more it is said that there were others.
const MAX_NAMED: usize = 3;
/// The lock of iptables-legacy.
const XTABLES_LOCK: &str = "/run/xtables.lock";
/// The multicast group `NFNLGRP_NFTABLES`, as a bit.
const NFTABLES_GROUP: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const NFTABLES: u16 = 10;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`: a transaction is complete.
const NEW_GENERATION: u16 = NFTABLES << 8 | 15;
/// `NFTA_TABLE_NAME`, and in the messages of chains, rules, sets and elements `NFTA_..._TABLE`: all are 1.
const TABLE: u16 = 1;
/// The tables that may be ours, whichever driver runs: of `NFPROTO_IPV4`, `NFPROTO_IPV6` and `NFPROTO_INET`.
const OUR_TABLES: [(u8, &[u8]); 3] = [(2, b"filter\0"), (10, b"filter\0"), (1, b"spa\0")];
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
    /// What the kernel knows the socket by that the change came through.
    port: Option<u32>,
}

impl Author {
    fn notice(&self) -> Notice<'_> {
        Notice { port: self.port, id: self.pid, name: self.program.as_deref() }
    }
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

/// Whoever changed something in the same moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Culprits {
    named: Vec<Author>,
    others: bool,
}

impl Culprits {
    fn add(&mut self, author: Author) {
        if author == Author::default() || self.named.contains(&author) {
            return;
        }
        if self.named.len() < MAX_NAMED {
            self.named.push(author);
        } else {
            self.others = true;
        }
    }
}

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, more)) = self.named.split_first() else { return Author::default().fmt(f) };
        first.fmt(f)?;
        more.iter().try_for_each(|author| write!(f, ", {author}"))?;
        if self.others { f.write_str(" and others") } else { Ok(()) }
    }
}

/// What tells of changes.
pub struct Watch {
    netlink: Option<AsyncFd<OwnedFd>>,
    lock: Option<AsyncFd<OwnedFd>>,
    transaction: Transaction,
    own: Authors,
}

/// What is known of a transaction before its end is announced.
#[derive(Debug, Default)]
struct Transaction {
    /// Something of it was announced; it was about a table that may be ours.
    seen: bool,
    ours: bool,
}

impl Watch {
    /// Watches from now on whatever there is to watch. `own` are the authors that are not told of.
    pub fn new(own: Authors) -> Self {
        let warn =
            |what: &str, error: std::io::Error| tracing::warn!(%error, "changes of {what} are not noticed");
        Self {
            netlink: netlink().map_err(|error| warn("nf_tables", error)).ok(),
            lock: Path::new(XTABLES_LOCK)
                .exists()
                .then(|| lock().map_err(|error| warn("iptables-legacy", error)).ok())
                .flatten(),
            transaction: Transaction::default(),
            own,
        }
    }

    /// Returns some time after a change that may be somebody else's, with whoever made one until then.
    pub async fn changed(&mut self) -> Culprits {
        let mut culprits = Culprits::default();
        let mut due: Option<Instant> = None;
        loop {
            let settled = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let author = tokio::select! {
                author = next_generation(self.netlink.as_ref(), &mut self.transaction) => author,
                () = next_locking(self.lock.as_ref()) => Author::default(),
                () = settled => return culprits,
            };
            let settle = match self.own.whose(author.notice()) {
                Whose::Ours => continue,
                Whose::PerhapsOurs => SETTLE_OURS,
                Whose::Others => {
                    culprits.add(Author { port: None, ..author }); // the same program by another socket is the same
                    SETTLE
                }
            };
            let at = Instant::now() + settle;
            due = Some(due.map_or(at, |due| due.min(at)));
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

/// The author of the next transaction that may be about us.
async fn next_generation(socket: Option<&AsyncFd<OwnedFd>>, transaction: &mut Transaction) -> Author {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        let author = socket
            .async_io(Interest::READABLE, |socket| {
                let mut buffer = [0; 8192];
                match recv(socket, &mut buffer, RecvFlags::empty()) {
                    Ok((bytes, _)) => Ok(transaction.take(&buffer[..bytes])),
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

impl Transaction {
    /// Takes a datagram. The author, if it completes a transaction that may be about us; a datagram holds no more than
    /// one.
    fn take(&mut self, mut bytes: &[u8]) -> Option<Author> {
        while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let Some(message) = bytes.get(HEADER..length) else {
                self.ours = true; // cut short: it may have been anything
                return None;
            };
            if kind == NEW_GENERATION {
                let of_others = self.seen && !self.ours;
                *self = Self::default();
                let port = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
                let author = read_generation(message.get(FAMILY_HEADER..).unwrap_or_default());
                return (!of_others).then_some(Author { port: Some(port), ..author });
            }
            self.seen = true;
            self.ours |= kind >> 8 != NFTABLES || may_be_ours(message);
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }
}

/// Whether the message is about one of our tables, or does not say.
fn may_be_ours(message: &[u8]) -> bool {
    let family = message.first();
    let attributes = message.get(FAMILY_HEADER..).unwrap_or_default();
    match (family, find(attributes, TABLE)) {
        (Some(family), Some(table)) => OUR_TABLES.contains(&(*family, table)),
        _ => true,
    }
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([header[2], header[3]]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Who made the transaction, as its end names it.
fn read_generation(attributes: &[u8]) -> Author {
    let name = |value: &[u8]| {
        let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    };
    Author {
        program: find(attributes, GENERATION_PROGRAM).map(name),
        pid: find(attributes, GENERATION_PID).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes),
        port: None,
    }
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

    fn message(kind: u16, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + FAMILY_HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER + FAMILY_HEADER, 0);
        bytes[HEADER] = family;
        bytes.extend(body);
        bytes
    }

    fn generation() -> Vec<u8> {
        let body =
            [attribute(1, &[0, 0, 0, 9]), attribute(2, &7u32.to_be_bytes()), attribute(3, b"nft\0")].concat();
        message(NEW_GENERATION, 0, &body)
    }

    const NEW_RULE: u16 = NFTABLES << 8 | 6;

    #[test]
    fn a_transaction_names_its_author() {
        let rule = message(NEW_RULE, 2, &attribute(TABLE, b"filter\0"));
        let datagram = [rule.clone(), generation()].concat();
        let author = Transaction::default().take(&datagram).expect("it is complete");
        assert_eq!(author.to_string(), "nft (pid 7)");
        // In datagrams of their own, too.
        let mut transaction = Transaction::default();
        assert_eq!(transaction.take(&rule), None);
        assert_eq!(transaction.take(&generation()), Some(author));
    }

    #[test]
    fn other_tables_do_not_matter() {
        for (family, table) in [(2, &b"nat\0"[..]), (1, b"filter\0"), (10, b"spa\0"), (2, b"filter2\0")] {
            let mut transaction = Transaction::default();
            assert_eq!(transaction.take(&message(NEW_RULE, family, &attribute(TABLE, table))), None);
            assert_eq!(transaction.take(&generation()), None, "{family} {table:?}");
            // One that touches ours as well does; and what cannot be read may be about anything.
            for body in [attribute(TABLE, b"filter\0"), Vec::new()] {
                transaction.take(&message(NEW_RULE, family, &attribute(TABLE, table)));
                transaction.take(&message(NEW_RULE, 2, &body));
                assert!(transaction.take(&generation()).is_some());
            }
        }
        assert!(Transaction::default().take(&generation()).is_some(), "nothing is known of it");
    }

    #[test]
    fn a_datagram_cut_short_is_no_harm() {
        let datagram = generation();
        for length in 0..datagram.len() {
            let mut transaction = Transaction::default();
            let _ = transaction.take(&datagram[..length]);
            assert!(length < HEADER || transaction.take(&generation()).is_some());
        }
    }

    #[test]
    fn few_authors_are_named() {
        let mut culprits = Culprits::default();
        assert_eq!(culprits.to_string(), "a program that is not known");
        for pid in [1, 2, 2, 3, 4, 5] {
            culprits.add(Author { program: Some("nft".into()), pid: Some(pid), port: None });
        }
        assert_eq!(culprits.to_string(), "nft (pid 1), nft (pid 2), nft (pid 3) and others");
    }
}
