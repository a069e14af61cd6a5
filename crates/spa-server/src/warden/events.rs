//! What the log says. One line an event; nothing in direct answer to a packet that is not authentic.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use spa_firewall::conntrack::Adopted;
use spa_firewall::survey::{Finding, Severity};
use spa_firewall::{Choice, Cut, Opening, Plan, Report};
use spa_gate::{Change, End, Ended, Lease, LeaseKey, Now, Reason, Refusal};
use spa_proto::ClientName;
use tracing::{error, info, warn};

use super::changes::Culprits;
use crate::control::Refusing;
use crate::error::{Exit, Failure};
use crate::link::{Confinement, Counts};

/// A grant, a renewal, or what a client closed.
pub fn changed(change: &Change, took: Duration, degraded: Option<&str>) {
    let took_us = took.as_micros() as u64;
    match change {
        Change::Opened(key, lease) => opened("grant", key, lease, took_us, degraded),
        Change::Renewed(key, lease) | Change::Kept(key, lease) => {
            opened("renewal", key, lease, took_us, degraded)
        }
        Change::Closed(end) => ended(std::slice::from_ref(end), degraded),
    }
}

fn opened(what: &str, key: &LeaseKey, lease: &Lease, took_us: u64, degraded: Option<&str>) {
    let seconds = lease.until.saturating_sub(crate::clock::boot()).as_secs_f64().round();
    let LeaseKey { client, source, endpoint } = key;
    match degraded {
        None => info!(%client, %source, %endpoint, seconds, took_us, "{what}"),
        Some(why) => error!(%client, %source, %endpoint, "{what} is not known to be in the firewall: {why}"),
    }
}

/// Leases that ended.
pub fn ended(list: &[Ended], degraded: Option<&str>) {
    for Ended { key: LeaseKey { client, source, endpoint }, why, .. } in list {
        let what = match why {
            End::Expired => "expiry",
            End::Closed => "close",
            End::Revoked => "revocation",
            End::Policy => "end by a new configuration",
        };
        match degraded {
            None => info!(%client, %source, %endpoint, "{what}"),
            Some(reason) => {
                error!(%client, %source, %endpoint, "{what}, but its rule may still stand: {reason}")
            }
        }
    }
}

/// Connections that were ended by command.
pub fn cut(done: &Cut, spared: &BTreeSet<Opening>) {
    info!(connections = done.connections, sockets = done.sockets, "cut");
    for opening in spared {
        info!(source = %opening.source, endpoint = %opening.endpoint, "not cut: another client's grant covers it");
    }
    for refused in &done.refused {
        warn!("not cut: {refused}");
    }
}

/// An authentic packet that was refused.
pub fn refused(client: &str, source: IpAddr, refusal: Refusal) {
    let reason = refusal.reason();
    match reason {
        // The message is not authentic: whoever made it, not that client. Its psk was needed, so it is worth a line.
        Reason::NotAuthentic => {
            warn!(client, %source, %reason, "refused: {refusal} Somebody has its pre-shared key.")
        }
        _ => info!(client, %source, %reason, "refused: {refusal}"),
    }
}

/// A packet that went to an address that is not this host's.
pub fn not_ours(client: &str, source: IpAddr, destination: IpAddr) {
    info!(client, %source, %destination, reason = "destination", "refused: that is no address of this host");
}

/// A knock that found the record broken.
pub fn record_broken(client: &str, source: IpAddr) {
    warn!(client, %source, reason = "record", "refused: the replay record cannot be written");
}

/// The record could not be written.
pub fn record_failed(error: &dyn Display) {
    error!(%error, "nothing is granted until the replay record can be written again");
}

/// A right tag with a wrong clock.
pub fn skew(source: SocketAddr, seconds: i64) {
    let side = if seconds < 0 { "behind" } else { "ahead of" };
    let by = seconds.unsigned_abs();
    warn!(source = %source.ip(), skew_seconds = seconds, reason = %Reason::Stale,
        "refused: a packet with a right tag was made {by} s {side} this server's clock; check both clocks (this line \
         comes at most every 10 s)");
}

/// What strangers sent since the last summary.
pub fn junk(before: &Counts, now: &Counts) {
    let since = |reason| now.refused(reason).saturating_sub(before.refused(reason));
    let list: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|reason| since(*reason) > 0)
        .map(|reason| format!("{reason}={}", since(reason)))
        .collect();
    let dropped = now.dropped.saturating_sub(before.dropped);
    if !list.is_empty() || dropped > 0 {
        info!(
            refused = list.join(" "),
            dropped, "packets refused since the last summary (at most one a minute)"
        );
    }
}

/// A grant that was found in the kernel and goes on.
pub fn adopted(key: &LeaseKey, lease: &Lease, now: Now) {
    let seconds = lease.until.saturating_sub(now.boot).as_secs();
    info!(client = %key.client, source = %key.source, endpoint = %key.endpoint, seconds, "adopted");
}

/// A grant that was found in the kernel and is removed.
pub fn not_adopted(key: &LeaseKey, refusal: Refusal) {
    info!(client = %key.client, source = %key.source, endpoint = %key.endpoint, reason = %refusal.reason(), "removed");
}

/// Somebody goes on putting rules before ours.
pub const JUMP_BEHIND: &str = "a rule that can accept a protected port stands before ours, and comes back as often as \
                               ours is moved: protection may be void; see `iptables -S INPUT`";

/// What the firewall's report has that a person should know.
pub fn written(report: &Report, degraded: Option<&str>) {
    if report.jump_moved {
        warn!("a rule that could accept a protected port stood before ours; ours is first again");
    }
    if report.jump_behind && degraded != Some(JUMP_BEHIND) {
        error!("{JUMP_BEHIND}");
    }
    for key in &report.unreachable {
        warn!(%key, "this kernel has no IPv6, so nothing was opened");
    }
}

/// The firewall is not as wanted.
pub fn degraded(error: &spa_firewall::Error) {
    error!(%error, "the firewall is not as it should be; trying again every second");
}

/// It is again.
pub fn restored() {
    info!("the firewall is as it should be again");
}

/// Connections from before protection.
pub fn kept_connections(adopted: &Adopted) {
    let kept = adopted.inserted + adopted.known + adopted.turned;
    if kept > 0 {
        info!(kept, "established connections to the protected services go on");
    }
    for (connection, error) in &adopted.failed {
        warn!(?connection, %error, "this connection will be cut");
    }
}

/// What on this machine works against us.
pub fn finding(finding: &Finding) {
    match finding.severity {
        Severity::Error => error!("{}; {}", finding.what, finding.remedy),
        Severity::Warning => warn!("{}; {}", finding.what, finding.remedy),
    }
}

/// What `backend = "auto"` came to.
pub fn chosen(choice: &Choice) {
    info!(backend = choice.driver.name(), "backend auto: {choice}");
}

/// What somebody changed was put right.
pub fn repaired(author: &Culprits, plan: &Plan) {
    warn!(%author, "the firewall was changed, and put right: {plan}");
}

/// Somebody changes it again and again.
pub fn fighting(why: &str) {
    error!("{why}; waiting before the next attempt");
}

/// Somebody set the clock.
pub fn clock_set() {
    warn!("the wall clock was set; the kernel's expiry times are written anew");
}

/// Where the clocks stand could not be kept for the next start, after the clock was set forward.
pub fn clock_not_noted(failure: &Failure) {
    error!(
        "{failure}; until it can be written nothing is granted, and what is open ends by the clock of now: sooner"
    );
}

/// The same, after it was set back.
pub fn clock_note_kept(failure: &Failure) {
    warn!("{failure}; what is open now would end sooner, should the daemon start anew");
}

/// What an earlier daemon noted of the clocks is lost.
pub fn clock_note_unknown(path: &Path, why: &dyn Display) {
    warn!(path = %path.display(), "cannot read where the clocks stood: {why}; had the clock been set back while no daemon \
        ran, grants that are taken over would end later by that");
}

/// `run --confirm` was confirmed.
pub fn confirmed(by: &str) {
    info!(by, "confirmed: protection stays");
}

/// It was not.
pub fn unconfirmed() {
    error!("not confirmed: the firewall is as it was before");
}

/// The interface addresses cannot be read.
pub fn addresses_unknown(error: &dyn Display) {
    warn!(%error, "cannot look up this host's addresses");
}

/// The copy for `spa-server protect` was not written.
pub fn last_good_not_kept(failure: &Failure) {
    warn!("the configuration is not kept for the next boot: {failure}");
}

/// The capture socket of a family has no ring.
pub fn no_ring(family: spa_capture::Family, error: &std::io::Error) {
    warn!(%family, %error, "the kernel refuses the capture ring: packets come by recvmmsg, at about twice the cost");
}

/// The verifier works.
pub fn verifier_ready(confinement: Confinement) {
    let Confinement { other_user, landlock, seccomp } = confinement;
    info!(other_user, landlock, seccomp, "verifier confined");
    if !other_user {
        warn!("no other user is mapped here: the verifier keeps its user, without capabilities");
    }
}

/// The verifier ended.
pub fn verifier_ended(how: &str) {
    error!(how, "the verifier ended; starting another");
}

/// A firewall error as a failure of a command.
pub fn firewall_failure(error: spa_firewall::Error) -> Failure {
    let exit = error_exit(&error);
    Failure::new(exit, format_args!("firewall: {error}"))
}

fn error_exit(error: &spa_firewall::Error) -> Exit {
    match error {
        spa_firewall::Error::NotInstalled { .. } => Exit::Unavailable,
        spa_firewall::Error::NotPermitted { .. } => Exit::NotPermitted,
        _ => Exit::System,
    }
}

/// Whoever removed or disabled a client said so.
pub fn shut_out(client: &ClientName) {
    info!(%client, "shut out: it is let in no more");
}

/// Nobody can open anything for a while.
pub fn refusing(refusing: &Refusing) {
    warn!("{refusing}");
}

/// A revocation that did not reach the firewall.
pub fn not_closed(why: &str) -> Failure {
    Failure::new(
        Exit::System,
        format_args!("the rules could not be removed, and it is tried again every second: {why}"),
    )
}

/// Nothing was open for whom it was asked, but the firewall is not as wanted: what ended before may stand.
pub fn not_known_closed(why: &str) -> Failure {
    Failure::new(
        Exit::System,
        format_args!(
            "the firewall is not as it should be, so what was closed before may still stand; it is tried again every \
             second: {why}"
        ),
    )
}

/// A revocation after which no connection could be ended.
pub fn not_cut(error: &dyn Display) -> Failure {
    Failure::new(
        Exit::System,
        format_args!(
            "the grants are closed, but no connection was ended: this host's addresses are unknown: {error}"
        ),
    )
}
