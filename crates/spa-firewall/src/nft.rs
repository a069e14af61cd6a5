//! What nf_tables holds beside us: only the names of tables and the chains hooked at input, over netlink, so that no
//! `nft` need be installed.

use std::io;

use rustix::net::netlink;

use crate::netlink::{DUMP, Request, Socket, find};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`, `linux/netfilter/nf_tables.h`.
const GET_CHAIN: u16 = 10 << 8 | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
/// `NFTA_CHAIN_USE`: how many rules it has, for nothing can jump to a chain with a hook.
const CHAIN_USE: u16 = 6;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_LOCAL_IN`, `linux/netfilter.h`.
const LOCAL_IN: u32 = 1;
const NF_ACCEPT: u32 = 1;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

/// A chain that sees the packets that come in to this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputChain {
    /// `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub name: String,
    /// It has no rules and accepts: it does nothing to any packet. iptables-nft leaves such chains behind.
    pub is_inert: bool,
}

impl InputChain {
    /// Whether iptables-nft itself makes and reads this one.
    pub fn is_of_iptables(&self) -> bool {
        self.family != "inet"
            && matches!(self.table.as_str(), "filter" | "mangle" | "nat" | "security")
            && self.name == "INPUT"
    }
}

/// All of them. Needs CAP_NET_ADMIN. A kernel without nf_tables has none.
pub fn input_chains() -> io::Result<Vec<InputChain>> {
    let mut found = Vec::new();
    let mut socket = Socket::open(netlink::NETFILTER)?;
    let answer = socket.request(Request::new(GET_CHAIN, DUMP).fixed(&[0, 0, 0, 0]), |payload| {
        found.extend(parse(payload));
    });
    match answer {
        // No such subsystem.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Vec::new()),
        other => other.map(|()| found),
    }
}

fn parse(payload: &[u8]) -> Option<InputChain> {
    let family = match *payload.first()? {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        _ => return None, // bridge, arp, netdev: they have other hooks
    };
    let attributes = payload.get(4..)?;
    let hook = find(find(attributes, CHAIN_HOOK)?, HOOK_NUMBER)?;
    if u32::from_be_bytes(hook.try_into().ok()?) != LOCAL_IN {
        return None;
    }
    let number = |kind| Some(u32::from_be_bytes(find(attributes, kind)?.try_into().ok()?));
    let is_inert = (number(CHAIN_POLICY), number(CHAIN_USE)) == (Some(NF_ACCEPT), Some(0));
    let text =
        |kind| Some(String::from_utf8_lossy(find(attributes, kind)?).trim_end_matches('\0').to_owned());
    Some(InputChain { family, table: text(CHAIN_TABLE)?, name: text(CHAIN_NAME)?, is_inert })
}
