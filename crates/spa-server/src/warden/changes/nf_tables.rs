//! What nf_tables announces on netlink: each change, with the process that made it (`nft_genmsg` of
//! linux/netfilter/nf_tables.h).

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::culprits::Author;
use crate::reactor;

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

/// A socket that hears the announcements.
pub struct Announcements {
    socket: AsyncFd<OwnedFd>,
    transaction: Transaction,
}

impl Announcements {
    /// Hears them from now on.
    ///
    /// # Errors
    /// As `socket(2)` and `bind(2)`.
    pub fn open() -> std::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, NFTABLES_GROUP))?;
        Ok(Self { socket: reactor::register(socket)?, transaction: Transaction::default() })
    }

    /// The author of the next transaction that may be about us.
    ///
    /// # Errors
    /// As `recv(2)`: this socket tells no more. Not where only some announcements did not fit: then something changed,
    /// and nobody knows who did it.
    pub async fn next(&mut self) -> std::io::Result<Author> {
        let Self { socket, transaction } = self;
        loop {
            let author = socket
                .async_io(Interest::READABLE, |socket| {
                    let mut buffer = [0; 8192];
                    match recv(socket, &mut buffer, RecvFlags::empty()) {
                        Ok((bytes, _)) => Ok(transaction.take(&buffer[..bytes])),
                        Err(Errno::NOBUFS) => {
                            transaction.missed_some();
                            Ok(Some(Author::default()))
                        }
                        Err(error) => Err(error.into()),
                    }
                })
                .await?;
            if let Some(author) = author {
                return Ok(author);
            }
        }
    }
}

/// What is known of a transaction before its end is announced.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Something of it was announced; it was about a table that may be ours.
    seen: bool,
    ours: bool,
}

impl Transaction {
    /// What was announced is lost: it may have been anything.
    pub fn missed_some(&mut self) {
        self.ours = true;
    }

    /// Takes a datagram. The author, if it completes a transaction that may be about us; a datagram holds no more than
    /// one.
    pub fn take(&mut self, mut bytes: &[u8]) -> Option<Author> {
        while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let Some(message) = bytes.get(HEADER..length) else {
                self.missed_some(); // cut short
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
}
