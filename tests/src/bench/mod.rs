//! The parts of the bench.

mod authorize;
mod bare;
mod cpu;
mod enrol;
mod flood;
mod floor;
mod footprint;
mod forge;
mod grants;
mod junk;
mod open;
mod peers;
mod quiet;
pub mod report;
mod scale;
mod steps;
mod syn;
mod x25519;

use report::Row;
use spa_tests::short::is_short;

/// One part: runs alone in namespaces of its own, about twenty seconds long.
pub struct Part {
    /// As given on the command line.
    pub name: &'static str,
    /// Measures.
    pub run: fn() -> Vec<Row>,
}

/// In the order they run.
pub const PARTS: [Part; 15] = [
    Part { name: "open-spa", run: open::spa },
    Part { name: "open-nftables", run: open::nftables },
    Part { name: "open-fwknop", run: open::fwknop },
    Part { name: "open-knockd", run: open::knockd },
    Part { name: "junk-spa", run: junk::spa },
    Part { name: "junk-fwknop", run: junk::fwknop },
    Part { name: "cpu", run: cpu::run },
    Part { name: "footprint-spa", run: footprint::spa },
    Part { name: "footprint-nftables", run: footprint::nftables },
    Part { name: "footprint-many", run: footprint::very_many },
    Part { name: "footprint-peers", run: footprint::peers },
    Part { name: "scale", run: scale::run },
    Part { name: "authorize", run: authorize::run },
    Part { name: "grants", run: grants::run },
    Part { name: "steps", run: steps::run },
];

/// Least, median, 99th percentile and maximum. On a busy machine the least is the figure that says most.
pub fn spread(mut values: Vec<f64>) -> Option<[f64; 4]> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    // The nearest rank: with fewer than a hundred values the 99th percentile is the maximum.
    let p99 = (values.len() * 99).div_ceil(100) - 1;
    Some([values[0], values[last / 2], values[p99], values[last]])
}
