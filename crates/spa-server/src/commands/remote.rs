//! The commands that ask the daemon: `grants`, `revoke`, `status`, `reload`, `confirm`.

use super::{print, print_json};
use crate::cli::Revoke;
use crate::config::Config;
use crate::control::{CutView, GrantView, Refusing, Request, ask};
use crate::error::{Exit, Failure, Outcome};
use crate::log::say;

fn read<T: for<'a> serde::Deserialize<'a>>(value: &serde_json::Value) -> Outcome<T> {
    T::deserialize(value).map_err(|error: serde_json::Error| {
        Failure::new(Exit::Software, format_args!("the daemon's answer: {error}"))
    })
}

fn print_views(views: &[GrantView]) -> Outcome {
    if views.is_empty() {
        return Ok(());
    }
    print(&format!(
        "{:<20} {:<39} {:<10} {:>9} {:>8} {:>10}",
        "CLIENT", "SOURCE", "SERVICE", "SECONDS", "PACKETS", "BYTES"
    ))?;
    for GrantView { client, source, endpoint, remaining, packets, bytes } in views {
        print(&format!("{client:<20} {source:<39} {endpoint:<10} {remaining:>9} {packets:>8} {bytes:>10}"))?;
    }
    Ok(())
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
    say!("{} closed; connections that are established go on (--cut ends them)", views.len());
    print_views(&views)
}

/// Says what was ended. What could not be is a failure: whoever cuts somebody off has to know.
fn report_cut(options: &Revoke, answer: &serde_json::Value) -> Outcome {
    let CutView { closed, connections, sockets, spared, refused } = read(answer)?;
    if options.json {
        print_json(answer)?;
    } else {
        say!("{} closed; {connections} connections ended, {sockets} sockets destroyed", closed.len());
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
        print(&format!("shut out   {}, until the next reload that succeeds", shut_out.join(", ")))?;
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
