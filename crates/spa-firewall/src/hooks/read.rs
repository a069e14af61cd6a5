//! All rules of this network namespace.

use std::path::PathBuf;

use super::model::{Body, Ruleset, Table};
use super::place::Which;
use super::{legacy, native};
use crate::error::Error;
use crate::iptables::{printed, search_path};

/// The tables of iptables-legacy that the kernel holds, in the network namespace of this thread. Reading these makes
/// none; asking iptables-legacy would.
const LEGACY_TABLES: [(&str, Which); 2] = [
    ("/proc/thread-self/net/ip_tables_names", Which::LegacyV4),
    ("/proc/thread-self/net/ip6_tables_names", Which::LegacyV6),
];

impl Ruleset {
    /// Reads everything. Nothing is changed, and no table of iptables-legacy is made by looking.
    ///
    /// # Errors
    /// If nf_tables cannot be listed: it needs CAP_NET_ADMIN. What else cannot be read is in [`Ruleset::unread`].
    pub fn read() -> Result<Self, Error> {
        let tables = native::read().map_err(|source| match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                Error::NotPermitted { command: "listing nf_tables".into(), needs: "CAP_NET_ADMIN" }
            }
            _ => Error::Io { doing: "listing nf_tables", source },
        })?;
        let mut rules = Self { tables, unread: Vec::new() };
        let path = search_path();
        for which in [Which::Ip, Which::Ip6] {
            rules.add_texts(which, &path);
        }
        for (names, which) in LEGACY_TABLES {
            rules.add_legacy(names, which, &path);
        }
        Ok(rules)
    }

    /// The rules that iptables-nft wrote have text, and some mean something to it alone.
    fn add_texts(&mut self, which: Which, path: &[PathBuf]) {
        let is_its_own = |table: &&mut Table| {
            table.which == which
                && matches!(table.name.as_str(), "filter" | "nat" | "mangle" | "raw" | "security")
                && table.chains.values().any(|chain| !chain.rules.is_empty())
        };
        let mut tables: Vec<_> = self.tables.iter_mut().filter(is_its_own).collect();
        if tables.is_empty() {
            return;
        }
        let program = if which == Which::Ip { "iptables-nft-save" } else { "ip6tables-nft-save" };
        let said = match printed(program, &[], path) {
            Ok(text) => legacy::read(&text, which),
            Err(error) => {
                let needed = |rule: &super::model::Rule| matches!(rule.body, Body::Opaque);
                if tables
                    .iter()
                    .flat_map(|table| table.chains.values())
                    .flat_map(|chain| &chain.rules)
                    .any(needed)
                {
                    self.unread.push(format!(
                        "rules of iptables in the {} tables of nf_tables: {error}",
                        which.name()
                    ));
                }
                return;
            }
        };
        for table in &mut tables {
            let Some(said) = said.iter().flatten().find(|said| said.name == table.name) else { continue };
            for (name, chain) in &mut table.chains {
                let Some(texts) = said.chains.get(name).filter(|said| said.rules.len() == chain.rules.len())
                else {
                    continue;
                };
                for (rule, said) in chain.rules.iter_mut().zip(&texts.rules) {
                    rule.place.text.clone_from(&said.place.text);
                    if matches!(rule.body, Body::Opaque) {
                        rule.body = said.body.clone();
                    }
                }
            }
        }
    }

    fn add_legacy(&mut self, names: &str, which: Which, path: &[PathBuf]) {
        let in_use = match std::fs::read_to_string(names) {
            Ok(names) => !names.trim().is_empty(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                // In a user namespace nobody may look, and iptables-legacy may not be used either.
                if error.kind() != std::io::ErrorKind::PermissionDenied {
                    self.unread.push(format!("{names}: {error}"));
                }
                false
            }
        };
        if !in_use {
            return;
        }
        let program = format!("{}-save", which.name());
        match printed(&program, &[], path).map(|text| legacy::read(&text, which)) {
            Ok(Some(tables)) => self.tables.extend(tables),
            Ok(None) => self.unread.push(format!("what {program} printed")),
            Err(error) => self.unread.push(format!("the tables of {}: {error}", which.name())),
        }
    }
}
