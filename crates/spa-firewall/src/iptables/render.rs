//! A plan as text for `iptables-restore --noflush --counters`.

use std::fmt::Write;

use super::{CHAIN, dates};
use crate::kernel::{Counters, Rule, Span};
use crate::model::GrantKey;
use crate::names::Except;
use crate::plan::{ChainPlan, FamilyPlan};

/// One commit of the filter table with everything in the plan, as it is written and as `--dry-run` may show it.
/// The chain comes before the jump to it and goes after.
pub fn commit(plan: &FamilyPlan) -> String {
    let mut text = String::from("*filter\n");
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = text.write_fmt(arguments);
        text.push('\n');
    };
    match &plan.chain {
        ChainPlan::Keep | ChainPlan::Remove => {}
        ChainPlan::Grants { remove, insert, at } => {
            for (key, span) in remove {
                line(format_args!("-D {CHAIN} {}", grant(key, *span)));
            }
            for (key, span, counters) in insert {
                line(format_args!("{}-I {CHAIN} {at} {}", count(*counters), grant(key, *span)));
            }
        }
        ChainPlan::Fill(rules) => {
            line(format_args!(":{CHAIN} - [0:0]"));
            for counted in rules {
                if let Some(rule) = rule(&counted.rule) {
                    line(format_args!("{}-A {CHAIN} {rule}", count(counted.counters)));
                }
            }
        }
    }
    for _ in 0..plan.jump.remove {
        line(format_args!("-D INPUT -j {CHAIN}"));
    }
    if plan.jump.insert {
        line(format_args!("-I INPUT 1 -j {CHAIN}"));
    }
    if plan.chain == ChainPlan::Remove {
        line(format_args!("-F {CHAIN}"));
        line(format_args!("-X {CHAIN}"));
    }
    text.push_str("COMMIT\n");
    text
}

fn count(counters: Counters) -> String {
    format!("[{}:{}] ", counters.packets, counters.bytes)
}

/// The rule without its chain; `None` for one that is never written here.
pub fn rule(rule: &Rule) -> Option<String> {
    Some(match rule {
        Rule::Loopback => "-i lo -j RETURN".to_owned(),
        Rule::Except(Except::Interface(name)) => format!("-i {name} -j RETURN"),
        Rule::Except(Except::Network(network)) => format!("-s {network} -j RETURN"),
        Rule::Established(endpoint) => format!(
            "-p {} --dport {} -m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -j ACCEPT",
            endpoint.protocol(),
            endpoint.port()
        ),
        Rule::Grant(key, span) => grant(key, *span),
        Rule::Drop(endpoint, until) => {
            let time = until.map(|stop| format!("-m time --datestop {} ", dates::format(stop)));
            let time = time.unwrap_or_default();
            format!("-p {} --dport {} {time}-j DROP", endpoint.protocol(), endpoint.port())
        }
        Rule::Openings | Rule::Foreign(_) => return None,
    })
}

/// `until` in the comment is for people and scripts; the dates are what the kernel goes by. No word needs quoting but
/// for the spaces.
fn grant(key: &GrantKey, span: Span) -> String {
    format!(
        "-s {} -p {} --dport {} -m comment --comment \"{}\" -m time --datestart {} --datestop {} -j ACCEPT",
        key.source,
        key.endpoint.protocol(),
        key.endpoint.port(),
        comment(key, span),
        dates::format(span.start),
        dates::format(span.stop)
    )
}

/// `spa alice until=1766361600`: the first second in which it is closed.
pub fn comment(key: &GrantKey, span: Span) -> String {
    format!("spa {} until={}", key.client, span.stop.saturating_add(1))
}
