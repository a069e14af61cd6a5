//! Whether this kernel and this iptables have every extension that our rules need: tried, and nothing written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use spa_proto::{ClientName, Endpoint, Protocol};

use super::programs::{self, Programs};
use super::{CHAIN, IPV6_WITNESS, LOCK_WAIT, TIME_LIMIT, Variant, failure, render, run};
use crate::error::Error;
use crate::kernel::{Rule, Span};
use crate::model::{Family, GrantKey};

/// What only looks, but does not fail, says of an extension that the kernel lacks.
const LACKS: &str = "missing kernel module";

/// Has `iptables-restore --test` read one rule of each kind, for each family that this kernel has. No rule is written,
/// but the kernel may load modules.
///
/// # Errors
/// [`Error::MissingModule`] names what lacks. Others, where the programs cannot be run.
pub fn rehearse(variant: Variant) -> Result<(), Error> {
    let path = programs::search_path();
    let wait = LOCK_WAIT.to_string();
    let arguments = arguments(&wait);
    for family in Family::BOTH {
        if family == Family::V6 && !Path::new(IPV6_WITNESS).exists() {
            continue;
        }
        let program = Programs::find(variant, family, &path)?.restore;
        let output = run::run(&program, &arguments, Some(&text(family)), TIME_LIMIT)?;
        if !output.success || output.stderr.contains(LACKS) {
            return Err(failure::classify(run::describe(&program, &arguments), &output, family));
        }
    }
    Ok(())
}

/// It reads the rules and asks the kernel about their extensions, and leaves out the commit. The legacy variant takes its
/// lock for that as well, and others hold it now and then.
fn arguments(wait: &str) -> [&str; 4] {
    ["-w", wait, "--noflush", "--test"]
}

fn text(family: Family) -> String {
    let source: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let span = Span { start: 0, stop: 1 };
    let mut rules = vec![Rule::Loopback];
    for endpoint in
        [Protocol::Tcp, Protocol::Udp].into_iter().filter_map(|protocol| Endpoint::new(protocol, 1))
    {
        let client = "rehearsal".parse::<ClientName>().ok();
        rules.push(Rule::Established(endpoint));
        rules.extend(client.map(|client| Rule::Grant(GrantKey::new(client, source, endpoint), span)));
        rules.push(Rule::Drop(endpoint, Some(span.stop)));
    }
    let rules = rules.iter().filter_map(render::rule).map(|rule| format!("-A {CHAIN} {rule}\n"));
    format!("*filter\n:{CHAIN} - [0:0]\n{}COMMIT\n", rules.collect::<String>())
}
