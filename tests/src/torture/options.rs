//! The command line.

use std::time::SystemTime;

use spa_tests::Variant;

/// What is said by `--help`.
pub const USAGE: &str = "\
Kills spa-server with SIGKILL in every phase, and compares the kernel with a model.

Usage: torture [--kills N] [--backend iptables|nftables] [--variant nft|legacy] [--faults] [--seed N]

  --kills N     all phases together, 1000 if not given
  --backend B   the driver, iptables if not given
  --variant V   which iptables, nft if not given
  --faults      in every second round something else fails too: iptables, its lock, the disk, netlink's queue
  --seed N      repeats the choices of a run; each run prints its own

The release binaries are taken from $SPA_BIN_DIR, else from target/release.
Exit status: 0 without a violation, 1 with one, 64 for a wrong command line, 69 where it cannot run.";

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub kills: usize,
    pub variant: Variant,
    pub faults: bool,
    pub seed: u64,
}

impl Options {
    /// # Errors
    /// What is wrong with it, or nothing where help was asked for.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Option<String>> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = since.as_nanos() as u64;
        let mut options = Self { kills: 1_000, variant: Variant::Nft, faults: false, seed };
        let mut is_nftables = false;
        while let Some(word) = words.next() {
            if matches!(word.as_str(), "-h" | "--help") {
                return Err(None);
            }
            if word == "--faults" {
                options.faults = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} wants a value"))?;
            let wrong = || Some(format!("{word} {value}: not understood"));
            match (word.as_str(), value.as_str()) {
                ("--kills", _) => options.kills = value.parse().map_err(|_| wrong())?,
                ("--seed", _) => options.seed = value.parse().map_err(|_| wrong())?,
                ("--variant", "nft") => options.variant = Variant::Nft,
                ("--variant", "legacy") => options.variant = Variant::Legacy,
                ("--backend", "iptables") => is_nftables = false,
                ("--backend", "nftables") => is_nftables = true,
                _ => return Err(wrong()),
            }
        }
        if is_nftables {
            options.variant = Variant::Nftables;
        }
        Ok(options)
    }
}
