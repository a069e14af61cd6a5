//! What is printed: a table of the ports, then the findings, the worst first.

use serde_json::json;

use super::finding::{Finding, Severity};
use super::ports::{Luck, Port};
use super::scene::Scene;
use crate::commands::print_json;
use crate::error::Outcome;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// Prints everything.
///
/// # Errors
/// Where nobody reads it.
pub fn print(scene: &Scene, ports: &[Port], findings: &[Finding], as_json: bool) -> Outcome {
    if as_json {
        return print_json(&json!({
            "healthy": findings.iter().all(|finding| finding.severity == Severity::Note),
            "config": scene.config.path,
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
            "findings": findings,
        }));
    }
    table(ports, if scene.source.is_some() { "NOW" } else { "STRANGER" })?;
    for finding in findings {
        crate::commands::print("")?;
        let head = format!("{} ({}): ", finding.severity.name(), finding.name);
        paragraph(&format!("{head}{}", finding.what), "  ")?;
        if let Some(place) = &finding.place {
            paragraph(&format!("  where: {place}"), "    ")?;
        }
        paragraph(&format!("  try: {}", finding.remedy), "    ")?;
    }
    if findings.iter().all(|finding| finding.severity == Severity::Note) {
        crate::commands::print("\nhealthy")?;
    }
    Ok(())
}

fn port(port: &Port) -> serde_json::Value {
    let luck = |luck: &Luck| {
        json!({
            "state": luck.state,
            "verdict": luck.journey.verdict.to_string(),
            "stopped-by": luck.journey.stopped_by().map(|step| step.by.to_string()),
        })
    };
    json!({
        "service": port.service.as_str(),
        "endpoint": port.endpoint.to_string(),
        "family": port.vantage.family.to_string(),
        "interface": port.vantage.interface.name,
        "address": port.address(),
        "source": port.vantage.stranger,
        "listening": port.listening,
        "stranger": luck(&port.stranger),
        "granted": port.granted.as_ref().map(luck),
    })
}

/// One line for each port and family; where interfaces differ, one for each.
fn table(ports: &[Port], now: &str) -> Outcome {
    if ports.is_empty() {
        return Ok(());
    }
    let row = |cells: [&str; 5]| {
        let [service, port, family, stranger, granted] = cells;
        crate::commands::print(
            format!("{service:<16} {port:<9} {family:<11} {stranger:<20} {granted}").trim_end(),
        )
    };
    row(["SERVICE", "PORT", "IP", now, "GRANTED"])?;
    let mut printed: Vec<[String; 5]> = Vec::new();
    for port in ports {
        let cells = |with: &str| {
            let granted = port.granted.as_ref().map_or("no grant possible", |luck| luck.state.name());
            [
                shortened(port.service.as_str()),
                port.endpoint.to_string(),
                format!("{}{with}", port.vantage.family),
                port.stranger.state.name().to_owned(),
                granted.to_owned(),
            ]
        };
        let plain = cells("");
        if printed.contains(&plain) {
            continue;
        }
        let differs = printed.iter().any(|one| one[..3] == plain[..3]);
        let shown = if differs { cells(&format!(" {}", port.vantage.interface.name)) } else { plain.clone() };
        row([&shown[0], &shown[1], &shown[2], &shown[3], &shown[4]])?;
        printed.push(plain);
    }
    Ok(())
}

fn shortened(name: &str) -> String {
    const MOST: usize = 16;
    if name.len() > MOST { format!("{}~", &name[..MOST - 1]) } else { name.to_owned() }
}

/// Words over lines that fit, the later ones indented.
fn paragraph(text: &str, indent: &str) -> Outcome {
    let mut line = String::new();
    let start = text.len() - text.trim_start().len();
    line.push_str(&text[..start]);
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            crate::commands::print(&line)?;
            line = indent.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    crate::commands::print(&line)
}
