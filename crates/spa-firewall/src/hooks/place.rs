//! Where in the firewall something was decided, for people.

use core::fmt;

use crate::iptables::{printed, search_path};

/// What stands for a policy instead of a rule.
pub(super) const POLICY: &str = "the policy";

/// Whose table it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Which {
    /// `iptables-legacy`
    LegacyV4,
    /// `ip6tables-legacy`
    LegacyV6,
    /// nf_tables, family ip
    #[default]
    Ip,
    /// nf_tables, family ip6
    Ip6,
    /// nf_tables, both families
    Inet,
    /// nf_tables, before both, on an interface
    Netdev,
}

impl Which {
    /// As the programs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LegacyV4 => "iptables-legacy",
            Self::LegacyV6 => "ip6tables-legacy",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Netdev => "netdev",
        }
    }

    /// Whether it is one of iptables-legacy.
    pub fn is_legacy(self) -> bool {
        matches!(self, Self::LegacyV4 | Self::LegacyV6)
    }
}

/// A rule, or the policy of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose table.
    pub which: Which,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle in nf_tables.
    pub handle: Option<u64>,
    /// The rule as iptables-save has it, or what else is known. Empty for a native rule, which has no text of its own.
    pub text: String,
}

impl Place {
    /// Whether it is the policy of a chain, and not a rule.
    pub fn is_policy(&self) -> bool {
        self.handle.is_none() && self.text == POLICY
    }

    /// As [`fmt::Display`], with the text of a native rule where `nft` is installed to tell it.
    pub fn told(&self) -> String {
        self.asked().unwrap_or_else(|| self.clone()).to_string()
    }

    fn asked(&self) -> Option<Self> {
        let handle = self.handle.filter(|_| self.text.is_empty())?;
        let arguments = ["-a", "list", "chain", self.which.name(), &self.table, &self.chain];
        let listed = printed("nft", &arguments, &search_path()).ok()?;
        let end = format!(" # handle {handle}");
        let rule = listed.lines().find_map(|line| line.strip_suffix(&end))?;
        Some(Self { text: rule.trim().to_owned(), ..self.clone() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text.as_str(), self.handle) {
            ("", Some(handle)) => write!(f, "the rule with handle {handle}")?,
            ("", None) => f.write_str("the whole chain")?,
            (text, _) => f.write_str(text)?,
        }
        write!(f, " (table {} {}, chain {})", self.which.name(), self.table, self.chain)
    }
}

/// What one base chain did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The hook's name.
    pub hook: &'static str,
    /// The base chain, in its table.
    pub chain: Place,
    /// The rule that decided, or the policy.
    pub by: Place,
    /// What was decided: `accept`, `drop`, `reject`, ...
    pub did: &'static str,
}

impl Step {
    /// Whether the base chain let it go on.
    pub fn is_accept(&self) -> bool {
        self.did == "accept"
    }
}
