//! The rules as they would be with one more grant.

use std::net::IpAddr;

use spa_proto::Endpoint;

use super::model::{Body, Rule, Ruleset, octets};
use super::place::Which;
use super::sets::Element;
use super::text::{Match, TextRule};
use crate::iptables::CHAIN;
use crate::model::Family;
use crate::nftables::TABLE;

impl Ruleset {
    /// With a grant in the chain of the iptables driver, in tables of this kind. `false` if there is no such chain.
    pub fn grant_in_chain(&mut self, which: Which, source: IpAddr, endpoint: Endpoint) -> bool {
        let table = self.tables.iter_mut().find(|table| table.which == which && table.name == "filter");
        let Some(table) = table else { return false };
        let place = table.place(CHAIN, "a grant");
        let Some(chain) = table.chains.get_mut(CHAIN) else { return false };
        let address = octets(source);
        let mask = vec![0xff; address.len()];
        let grant = TextRule::accept(vec![
            Match::Source(address, mask),
            Match::Protocol(endpoint.protocol().number()),
            Match::DestinationPorts(vec![(endpoint.port(), endpoint.port())]),
        ]);
        // As the driver does: before the drops.
        let at = chain.rules.iter().position(|rule| rule.place.text.ends_with("-j DROP"));
        let at = at.unwrap_or(chain.rules.len());
        chain.rules.insert(at, Rule { place, body: Body::Text(Box::new(grant)) });
        true
    }

    /// With a grant in the sets of the nftables driver. `false` if there is no such set.
    pub fn grant_in_set(&mut self, source: IpAddr, endpoint: Endpoint) -> bool {
        let table = self.tables.iter_mut().find(|table| table.which == Which::Inet && table.name == TABLE);
        let Some(table) = table else { return false };
        let name = match Family::of(source) {
            Family::V4 => "openings4",
            Family::V6 => "openings6",
        };
        let Some(set) = table.sets.get_mut(name) else { return false };
        let mut key = octets(source);
        key.extend([endpoint.protocol().number(), 0, 0, 0]);
        key.extend(endpoint.port().to_be_bytes());
        key.extend([0, 0]);
        set.elements.push(Element::single(key));
        true
    }
}
