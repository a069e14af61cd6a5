//! `iptables-save` of either variant, as chains of rules.

use super::model::{Base, Body, Chain, Hook, NAT_DESTINATION, NAT_SOURCE, Rule, Table};
use super::place::{Place, Which};
use super::text::TextRule;

/// Reads all tables. `None`: this is not what the program writes.
pub fn read(saved: &str, which: Which) -> Option<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    for line in saved.lines() {
        let Some(kind) = line.chars().next() else { continue };
        match kind {
            '#' => {}
            '*' => tables.push(Table::new(which, &line[1..])),
            ':' => {
                let table = tables.last_mut()?;
                let (name, rest) = line[1..].split_once(' ')?;
                let base = base(&table.name, name, rest.starts_with("DROP"));
                table.chains.insert(name.to_owned(), Chain { base, rules: Vec::new() });
            }
            _ if line == "COMMIT" => {}
            _ => {
                let (chain, text) = rule(line)?;
                let table = tables.last_mut()?;
                let place = Place { text: text.to_owned(), ..table.place(chain, "") };
                table.chains.get_mut(chain)?.rules.push(Rule { place, body: Body::Opaque });
            }
        }
    }
    for table in &mut tables {
        let names: Vec<String> = table.chains.keys().cloned().collect();
        for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
            let parsed = TextRule::parse(&rule.place.text, |name| names.iter().any(|chain| chain == name));
            rule.body = Body::Text(Box::new(parsed));
        }
    }
    Some(tables)
}

/// `-A CHAIN rest`, with counters in front or not.
fn rule(line: &str) -> Option<(&str, &str)> {
    let rest = match line.strip_prefix('[') {
        Some(counted) => counted.split_once("] ")?.1,
        None => line,
    };
    let rest = rest.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

/// Built-in chains are hooked, `enum nf_ip_hook_priorities` of `linux/netfilter_ipv4.h`.
fn base(table: &str, chain: &str, drops_the_rest: bool) -> Option<Base> {
    let hook = match chain {
        "PREROUTING" => Hook::Prerouting,
        "INPUT" => Hook::Input,
        "OUTPUT" => Hook::Output,
        "POSTROUTING" => Hook::Postrouting,
        _ => return None, // FORWARD is not on the way either
    };
    let priority = match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" if matches!(hook, Hook::Prerouting | Hook::Output) => NAT_DESTINATION,
        "nat" => NAT_SOURCE,
        "filter" => 0,
        "security" => 50,
        _ => return None,
    };
    Some(Base { hook, priority, is_nat: table == "nat", drops_the_rest, devices: Vec::new() })
}
