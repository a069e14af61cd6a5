//! `[firewall] except` that excepts nearly everybody.

use spa_firewall::{Except, Family};
use spa_proto::Network;

/// From this share of all addresses on it is no longer somebody's own network: 2000::/3, all global IPv6 addresses, is
/// an eighth.
const TOO_MUCH: f64 = 1.0 / 8.0;

/// What is wrong with the exceptions: together, networks of one family that cover much of the internet.
pub fn too_wide(except: &[Except]) -> Option<String> {
    let share = |family| {
        let networks: Vec<&Network> = except
            .iter()
            .filter_map(|one| match one {
                Except::Network(network) if Family::of(network.address()) == family => Some(network),
                _ => None,
            })
            .collect();
        let covered_by_another = |at: usize| {
            networks.iter().enumerate().any(|(other, network)| {
                other != at && network.covers(networks[at]) && (!networks[at].covers(network) || other < at)
            })
        };
        let own = networks.iter().enumerate().filter(|(at, _)| !covered_by_another(*at));
        own.map(|(_, network)| 0.5_f64.powi(i32::from(network.prefix()))).sum::<f64>()
    };
    Family::BOTH.into_iter().find(|family| share(*family) >= TOO_MUCH).map(|family| {
        let percent = share(family) * 100.0;
        format!("firewall.except leaves {percent:.0} % of all {family} addresses unfiltered")
    })
}

#[cfg(test)]
mod tests {
    use super::too_wide;

    fn is_too_wide(texts: &[&str]) -> bool {
        let except: Vec<_> = texts.iter().map(|text| text.parse().expect("an exception")).collect();
        too_wide(&except).is_some()
    }

    #[test]
    fn halves_make_a_whole() {
        assert!(is_too_wide(&["0.0.0.0/1", "128.0.0.0/1"]));
        assert!(is_too_wide(&["2000::/3"]));
        assert!(is_too_wide(&["::/1"]));
    }

    #[test]
    fn networks_of_ones_own_are_not() {
        assert!(!is_too_wide(&[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "fd00::/8",
            "fe80::/10",
            "wg0"
        ]));
        assert!(!is_too_wide(&["16.0.0.0/4", "16.0.0.0/5", "16.0.0.0/4"]), "what is in another counts once");
    }
}
