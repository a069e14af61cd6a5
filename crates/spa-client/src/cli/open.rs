//! `open` and `close`.

use std::time::Duration;

use serde_json::{Value, json};
use spa_proto::{Endpoint, Protocol, Requests};

use super::args::{CloseArgs, OpenArgs};
use super::failure::{COULD_NOT_TELL, Failure};
use super::say::{Say, mode, print};
use crate::config::{Config, Host};
use crate::error::Error;
use crate::knocker::{Knocker, Report};
use crate::wait::Answer;

pub(super) async fn open(args: OpenArgs, config: &Config, say: Say) -> Result<(), Failure> {
    let host = config.host(args.host.as_deref())?;
    let requests = host.requests(&args.services)?;
    let endpoints = endpoints(host, &requests);
    let mut knocker = Knocker::new(host.clone(), args.path.options())?;
    let report = knock(&mut knocker, &requests, args.time, say).await?;
    say.report(&report);
    let Some(timeout) = args.wait else {
        say.progress("whether it opened cannot be seen from here (use --wait)");
        if args.json {
            print(&json(host, &report, "unknown", &[]))?;
        }
        return Ok(());
    };
    let waited = if endpoints.iter().any(|endpoint| endpoint.protocol() == Protocol::Tcp) {
        wait(&mut knocker, &endpoints, timeout, say)
            .await
            .map_err(|error| (state(&error), Failure::from(error)))
    } else {
        let what = args.services.join(", ");
        let message = format!("could not tell whether {what} opened: only TCP ports can be waited for");
        Err(("unknown", Failure::new(COULD_NOT_TELL, message)))
    };
    let answers = waited.as_deref().unwrap_or(&[]);
    for Answer { endpoint, address, after } in answers {
        say.progress(&format!("{endpoint} is open at {} after {} ms", address.ip(), after.as_millis()));
    }
    if args.json {
        print(&json(host, &report, waited.as_ref().map_or_else(|(state, _)| *state, |_| "open"), answers))?;
    }
    waited.map(drop).map_err(|(_, failure)| failure)
}

pub(super) async fn close(args: CloseArgs, config: &Config, say: Say) -> Result<(), Failure> {
    let host = config.host(args.host.as_deref())?;
    let requests = host.requests(&args.services)?;
    let mut knocker = Knocker::new(host.clone(), args.path.options())?;
    let report = knocker.close(requests).await?;
    say.report(&report);
    say.progress("whether it closed cannot be seen from here");
    if args.json {
        print(&json(host, &report, "unknown", &[]))?;
    }
    Ok(())
}

/// Knocks, and shows the look-up while it lasts.
pub(super) async fn knock(
    knocker: &mut Knocker,
    requests: &Requests,
    time: Option<Duration>,
    say: Say,
) -> Result<Report, Error> {
    let address = knocker.host().address.clone();
    let knocking = knocker.open(requests.clone(), time);
    say.meanwhile(knocking, |_| format!("looking up {address}")).await
}

/// Waits for the ports, and shows for how long already.
pub(super) async fn wait(
    knocker: &mut Knocker,
    endpoints: &[Endpoint],
    timeout: Duration,
    say: Say,
) -> Result<Vec<Answer>, Error> {
    let names: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    let waiting = knocker.wait(endpoints, timeout);
    say.meanwhile(waiting, |so_far| {
        format!("waiting for {names}: {:.1} of {:.0} s", so_far.as_secs_f32(), timeout.as_secs_f32())
    })
    .await
}

/// Every endpoint of the requests, as far as the host's entry names them.
pub(super) fn endpoints(host: &Host, requests: &Requests) -> Vec<Endpoint> {
    requests.as_slice().iter().flat_map(|request| host.endpoints(request)).copied().collect()
}

fn state(error: &Error) -> &'static str {
    match error {
        Error::Refused { .. } => "refused",
        _ => "unknown",
    }
}

fn json(host: &Host, report: &Report, state: &str, answers: &[Answer]) -> String {
    let sent: Vec<Value> = report
        .sent
        .iter()
        .map(|sent| {
            json!({
                "to": sent.to.to_string(),
                "from": sent.from.to_string(),
                "mode": mode(sent),
                "reason": sent.reason,
                "bytes": sent.length,
                "counter": sent.counter,
            })
        })
        .collect();
    let failed: Vec<Value> = report
        .failed
        .iter()
        .map(|(to, error)| json!({ "to": to.to_string(), "error": error.to_string() }))
        .collect();
    let answers: Vec<Value> = answers
        .iter()
        .map(|Answer { endpoint, address, after }| {
            json!({
                "endpoint": endpoint.to_string(),
                "address": address.ip().to_string(),
                "milliseconds": after.as_millis() as u64,
            })
        })
        .collect();
    json!({ "host": host.name, "state": state, "sent": sent, "failed": failed, "answers": answers })
        .to_string()
}
