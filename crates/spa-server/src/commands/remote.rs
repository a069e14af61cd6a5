//! The commands that ask the daemon: `grants`, `revoke`, `status`, `reload`, `confirm`.

use super::{print, print_json};
use crate::cli::Revoke;
use crate::config::Config;
use crate::control::{CutView, GrantView, Refusing, Request, ask};
use crate::error::{Exit, Failure, Outcome, counted};
use crate::log::say;

fn read<T: for<'a> serde::Deserialize<'a>>(value: &serde_json::Value) -> Outcome<T> {
    T::deserialize(value).map_err(|error: serde_json::Error| {
        Failure::new(Exit::Software, format_args!("the daemon's answer: {error}"))
    })
}

fn print_views(views: &[GrantView]) -> Outcome {
    table(views).iter().try_for_each(|line| print(line))
}

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Between two columns.
const GAP: &str = "  ";
/// So many columns say what is open to whom for how long; those behind them count what came.
const NEEDED: usize = 4;

/// A heading and a line for each, as wide as they have to be. Where that is more than a terminal has, the last columns are
/// left out: `--json` has all. Where a long name stands beside a long address, each has a line of its own for the name.
fn table(views: &[GrantView]) -> Vec<String> {
    let heading = ["CLIENT", "SOURCE", "SERVICE", "SECONDS", "PACKETS", "BYTES"].map(str::to_owned);
    let row = |view: &GrantView| {
        let GrantView { client, source, endpoint, remaining, packets, bytes } = view;
        let numbers = [remaining, packets, bytes].map(ToString::to_string);
        let [remaining, packets, bytes] = numbers;
        [client.clone(), source.to_string(), endpoint.clone(), remaining, packets, bytes]
    };
    let rows: Vec<_> = std::iter::once(heading).chain(views.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..6).map(width).collect();
    let fits = |widths: &[usize], shown: usize| {
        widths[..shown].iter().sum::<usize>() + GAP.len() * (shown - 1) <= WIDTH
    };
    let is_split = !fits(&widths, NEEDED);
    if is_split {
        widths[0] = 0; // the name has a line of its own, and a gap stands in for it
    }
    let shown = (NEEDED..=widths.len()).rev().find(|shown| fits(&widths, *shown)).unwrap_or(NEEDED);
    let rows = if views.is_empty() { &[] } else { rows.as_slice() };
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        match column {
            0 if is_split => format!("{text}\n"),
            0..3 => format!("{text:<width$}"),
            _ => format!("{text:>width$}"),
        }
    };
    let line = |row: &[String; 6]| row.iter().take(shown).enumerate().map(cell).collect::<Vec<_>>().join(GAP);
    rows.iter().map(line).collect()
}

/// Shows the open grants.
pub fn grants(config: &Config, as_json: bool) -> Outcome {
    let answer = ask(&config.state_dir, &Request::Grants)?;
    if as_json {
        return print_json(&answer);
    }
    let views: Vec<GrantView> = read(&answer)?;
    if views.is_empty() {
        say!("nothing is open");
    }
    print_views(&views)
}

/// Closes grants.
pub fn revoke(config: &Config, options: &Revoke) -> Outcome {
    let request = Request::Revoke {
        client: options.client.as_ref().map(ToString::to_string),
        source: options.source,
        endpoint: options.endpoint.map(|endpoint| endpoint.to_string()),
        cut: options.cut,
    };
    let answer = ask(&config.state_dir, &request)?;
    if options.cut {
        return report_cut(options, &answer);
    }
    if options.json {
        return print_json(&answer);
    }
    let views: Vec<GrantView> = read(&answer)?;
    say!(
        "{} closed; connections that are established go on (--cut ends them)",
        counted(views.len(), "grant")
    );
    print_views(&views)
}

/// Says what was ended. What could not be is a failure: whoever cuts somebody off has to know.
fn report_cut(options: &Revoke, answer: &serde_json::Value) -> Outcome {
    let CutView { closed, connections, sockets, spared, refused } = read(answer)?;
    if options.json {
        print_json(answer)?;
    } else {
        say!(
            "{} closed; {} ended, {} destroyed",
            counted(closed.len(), "grant"),
            counted(connections, "connection"),
            counted(sockets, "socket")
        );
        for opening in &spared {
            say!("not cut: another client's grant covers {opening}");
        }
        if closed.is_empty() && options.source.is_none() {
            say!("no grant was open; --source ADDRESS --cut ends what is left of one that is over");
        }
        print_views(&closed)?;
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::System, format_args!("not all was cut: {}", refused.join("; "))))
}

/// Shows what the daemon does.
pub fn status(config: &Config, as_json: bool) -> Outcome {
    let answer = ask(&config.state_dir, &Request::Status)?;
    if as_json {
        return print_json(&answer);
    }
    let text = |key: &str| match &answer[key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    print(&format!("spa-server {}, pid {}, up {} s", text("version"), text("pid"), text("uptime")))?;
    print(&format!("state      {}", text("state")))?;
    for trouble in answer["trouble"].as_array().into_iter().flatten() {
        print(&format!("trouble    {}", trouble.as_str().unwrap_or_default()))?;
    }
    if let Some(refusing) = read::<Option<Refusing>>(&answer["refusing"])? {
        print(&format!("trouble    {refusing}"))?;
    }
    match answer["firewall-chosen"].as_str() {
        Some(why) => print(&format!("firewall   {} (auto: {why})", text("firewall")))?,
        None => print(&format!("firewall   {}", text("firewall")))?,
    }
    print(&format!("capture    {}", text("capture")))?;
    if !answer["confirm-within"].is_null() {
        print(&format!(
            "waiting for `spa-server confirm` or a valid knock: {} s left",
            text("confirm-within")
        ))?;
    }
    print(&format!("clients    {}", text("clients")))?;
    let shut_out: Vec<String> = read(&answer["shut-out"]).unwrap_or_default(); // a daemon from before an upgrade
    if !shut_out.is_empty() {
        print(&format!("shut out   {}, until the next reload that succeeds, or start", shut_out.join(", ")))?;
    }
    let cloaks = answer["cloaks"].as_array().into_iter().flatten();
    let cloaks = cloaks.map(|cloak| {
        format!("{} last used by {}", cloak["id"].as_str().unwrap_or_default(), cloak["clients"])
    });
    print(&format!("cloak keys {}", cloaks.collect::<Vec<_>>().join(", ")))?;
    print(&format!("grants     {} open, {} knocks granted", text("grants"), text("granted")))?;
    let refused = answer["refused"].as_object().map(|refused| {
        let list = refused.iter().filter(|(_, count)| count.as_u64() != Some(0));
        list.map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
    });
    let refused = refused.filter(|list| !list.is_empty()).unwrap_or_else(|| "nothing".to_owned());
    print(&format!("refused    {refused}"))?;
    print(&format!("dropped    {} by the kernel, its ring or receive buffer being full", text("dropped")))
}

/// Has the daemon read everything anew.
pub fn reload(config: &Config) -> Outcome {
    ask(&config.state_dir, &Request::Reload)?;
    say!("reloaded");
    Ok(())
}

/// Keeps what `run --confirm` laid.
pub fn confirm(config: &Config) -> Outcome {
    let was_waiting = ask(&config.state_dir, &Request::Confirm)?;
    say!(
        "{}",
        if was_waiting == true { "confirmed: protection stays" } else { "there was nothing to confirm" }
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(client: &str, source: &str, packets: u64) -> GrantView {
        GrantView {
            client: client.to_owned(),
            source: source.parse().unwrap(),
            endpoint: "tcp/65535".to_owned(),
            remaining: 604_800,
            packets,
            bytes: packets * 60,
        }
    }

    #[test]
    fn grants_fit_a_terminal() {
        let lines = table(&[view("alice", "192.0.2.7", 3), view("ci-deploy", "2001:db8::1", 12)]);
        assert_eq!(lines[0], "CLIENT     SOURCE       SERVICE    SECONDS  PACKETS  BYTES");
        assert_eq!(lines[1], "alice      192.0.2.7    tcp/65535   604800        3    180");
        let longest = "2001:db8:1234:5678:9abc:def0:1234:5678";
        for (client, packets, last) in
            [("alice", 1, "PACKETS"), ("ci-deploy-production", u64::MAX / 60, "SECONDS")]
        {
            let lines = table(&[view(client, longest, packets)]);
            assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:#?}");
            assert!(lines[0].ends_with(last), "{lines:#?}");
        }
        // The longest of both.
        let lines =
            table(&[view("a.name-of-thirty-two-characters.", longest, 1), view("alice", "192.0.2.7", 3)]);
        assert!(lines.iter().flat_map(|line| line.lines()).all(|line| line.len() <= WIDTH), "{lines:#?}");
        assert_eq!(
            lines[0],
            "CLIENT\n  SOURCE                                  SERVICE    SECONDS  PACKETS  BYTES"
        );
        assert!(
            lines[1].starts_with(&format!("a.name-of-thirty-two-characters.\n  {longest}  tcp/65535")),
            "{lines:#?}"
        );
        assert!(table(&[]).is_empty());
    }
}
