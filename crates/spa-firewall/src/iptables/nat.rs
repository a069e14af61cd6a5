//! Ports that the nat table sends elsewhere before INPUT sees them.

use std::collections::BTreeSet;

use spa_proto::Endpoint;

use crate::words;

/// The services that a DNAT or REDIRECT rule in `iptables-save -t nat` names by port, as Docker's do:
/// `-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80`.
pub fn published_ports(saved: &str, services: &BTreeSet<Endpoint>) -> Vec<Endpoint> {
    let mut published = BTreeSet::new();
    for line in saved.lines().filter(|line| line.contains("-A ")) {
        let Some(words) = words::split(line) else { continue };
        let after = |option: &str| {
            let at = words.iter().position(|word| word == option)?;
            words.get(at + 1).map(AsRef::as_ref)
        };
        if !matches!(after("-j"), Some("DNAT" | "REDIRECT")) {
            continue;
        }
        let (Some(protocol), Some(port)) = (after("-p"), after("--dport")) else { continue };
        let named: Option<Endpoint> = format!("{protocol}/{port}").parse().ok();
        published.extend(named.filter(|endpoint| services.contains(endpoint)));
    }
    published.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::published_ports;

    #[test]
    fn dockers_rules() {
        let saved = "*nat\n:DOCKER - [0:0]\n\
            [0:0] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
            [0:0] -A DOCKER -i docker0 -j RETURN\n\
            [0:0] -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\n\
            [0:0] -A DOCKER ! -i docker0 -p udp -m udp --dport 22 -j DNAT --to-destination 172.17.0.2:22\n\
            [0:0] -A POSTROUTING -p tcp -m tcp --dport 22 -j MASQUERADE\nCOMMIT\n";
        let services = ["tcp/22", "tcp/8080"].map(|text| text.parse().expect("an endpoint")).into();
        assert_eq!(published_ports(saved, &services), ["tcp/8080".parse().expect("an endpoint")]);
    }
}
