//! What a stranger and a granted client meet, and who is to blame where it is not what it should be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spa_firewall::Family;
use spa_firewall::hooks::{Journey, Place, Step, Verdict, Visit};
use spa_firewall::network::route_to;
use spa_firewall::{iptables, nftables};
use spa_proto::{Endpoint, Protocol};

use super::finding::{Findings, Severity};
use super::ports::{Port, State, visit};
use super::scene::{Ours, Scene, Vantage};
use super::standing::is_of_ufw;

/// A port that nothing is behind and that nobody protects: tcpmux.
const PLAIN_PORT: u16 = 1;

/// Looks at every port, and at the one that knocks come to.
pub fn look(scene: &Scene, ports: &[Port], findings: &mut Findings) {
    for port in ports {
        stranger(scene, port, findings);
        granted(scene, port, findings);
        listening(scene, ports, port, findings);
    }
    for vantage in &scene.vantages {
        if scene.source.is_none() {
            others(scene, ports, vantage, findings);
        }
        knock_port(scene, vantage, findings);
        stands_out(scene, ports, vantage, findings);
    }
    if scene.vantages.is_empty() {
        findings.add(
            Severity::Warning,
            "no-way-in",
            "no interface that is up has an address that a stranger could come to",
            None,
            "run doctor again when the network is up",
        );
    }
}

fn at(port: &Port) -> String {
    let Vantage { family, interface, stranger, .. } = &port.vantage;
    format!("{} ({}) over {family}, from {stranger} on {}", port.endpoint, port.service, interface.name)
}

fn stranger(scene: &Scene, port: &Port, findings: &mut Findings) {
    let Journey { verdict, steps, .. } = &port.stranger.journey;
    if scene.source.is_some() && is_known(scene, port, findings) {
        return;
    }
    let rewritten = steps.iter().find(|step| matches!(step.did, "rewrite" | "redirect"));
    match (port.stranger.state, rewritten) {
        (State::Forwarded, Some(step)) => forwarded(port, step, *verdict, findings),
        (State::OpenListening | State::OpenAlone | State::Stalls, _) if !scene.config.protect => findings
            .add(
                Severity::Warning,
                "open-to-strangers",
                format!("{} is open to strangers: protect = false, and no rule of yours closes it", at(port)),
                accepted_by(scene, steps).map(Place::told),
                "close it in your own rules, or set protect = true",
            ),
        (State::OpenListening | State::OpenAlone | State::Stalls, Some(step)) => findings.add(
            Severity::Error,
            "redirected",
            format!("{} is rewritten before our rules see it, and let in without a grant", at(port)),
            Some(step.by.told()),
            "remove that rule, or protect the port that it leads to as well",
        ),
        (State::OpenListening | State::OpenAlone | State::Stalls, None) => open(scene, port, findings),
        (State::Unknown, _) => unknown(port, &port.stranger.journey, findings),
        _ if *verdict == Verdict::Refused => findings.add(
            Severity::Warning,
            "answers-strangers",
            format!("{} is refused with an answer, which shows that the host is there", at(port)),
            port.stranger.journey.stopped_by().map(|step| step.by.told()),
            "let that rule drop instead of reject, or stand behind ours",
        ),
        _ => {}
    }
}

/// Whether the source asked about is no stranger at all: excepted, or let in by a grant of its own.
fn is_known(scene: &Scene, port: &Port, findings: &mut Findings) -> bool {
    let Vantage { stranger, interface, .. } = &port.vantage;
    if scene.is_excepted(*stranger, &interface.name) {
        findings.add(
            Severity::Note,
            "source-excepted",
            format!("{stranger} on {} is excepted: for it, your own rules alone decide", interface.name),
            Some("[firewall] except".to_owned()),
            "nothing, if it is meant to come in without a knock",
        );
        return true;
    }
    let is_ours = |place: &&Place| place.chain == iptables::CHAIN || place.table == nftables::TABLE;
    let by = accepted_by(scene, &port.stranger.journey.steps).filter(is_ours);
    if let Some(by) = by.filter(|_| port.stranger.journey.verdict == Verdict::Open) {
        findings.add(
            Severity::Note,
            "source-granted",
            format!("{} is open: {stranger} has a grant", port.endpoint),
            Some(by.told()),
            "nothing; \"spa-server grants\" shows how long it lasts",
        );
        return true;
    }
    false
}

fn forwarded(port: &Port, step: &Step, verdict: Verdict, findings: &mut Findings) {
    let Verdict::Elsewhere(address, to) = verdict else { return };
    let docker = step.by.chain == "DOCKER";
    findings.add(
        Severity::Error,
        if docker { "docker-published" } else { "redirected" },
        format!(
            "{} is handed on to {address} port {to} before our rules see it: not protected{}",
            at(port),
            if docker { ", as every port that Docker publishes" } else { "" }
        ),
        Some(step.by.told()),
        if docker {
            "publish it on an address of this host alone (-p 127.0.0.1:PORT:PORT), or take it out of [services]"
        } else {
            "remove that rule, or take the port out of [services]"
        },
    );
}

/// Who let a packet in where our own rules should have stopped it.
fn accepted_by<'a>(scene: &Scene, steps: &'a [Step]) -> Option<&'a Place> {
    let mut inputs = steps.iter().filter(|step| step.hook == "input");
    let ours = |step: &&Step| match scene.ours {
        Ours::Iptables(_) => {
            step.chain.table == "filter" && step.chain.which == scene.ours.which(family_of(step))
        }
        Ours::Nftables => step.chain.table == nftables::TABLE,
    };
    inputs.find(ours).map(|step| &step.by)
}

fn family_of(step: &Step) -> Family {
    use spa_firewall::hooks::Which;
    match step.chain.which {
        Which::LegacyV6 | Which::Ip6 => Family::V6,
        _ => Family::V4,
    }
}

fn open(scene: &Scene, port: &Port, findings: &mut Findings) {
    match accepted_by(scene, &port.stranger.journey.steps) {
        Some(by) if !by.is_policy() => accept_ahead(&at(port), by, findings),
        by => findings.add(
            Severity::Error,
            "open-to-strangers",
            format!("{} is open to strangers", at(port)),
            by.map(Place::told),
            "spa-server reload, or spa-server protect where the daemon does not run",
        ),
    }
}

fn accept_ahead(who: &str, by: &Place, findings: &mut Findings) {
    findings.add(
        Severity::Error,
        "accept-ahead",
        format!("{who} is let in without a grant by a rule ahead of ours"),
        Some(by.told()),
        "let the program that sets it append it instead; \"spa-server reload\" moves ours back to the front. Who may \
         always come in belongs into [firewall] except",
    );
}

fn granted(scene: &Scene, port: &Port, findings: &mut Findings) {
    let Some(luck) = &port.granted else { return };
    match luck.state {
        State::OpenListening | State::OpenAlone if !luck.journey.tracked => findings.add(
            Severity::Error,
            "not-tracked",
            format!("connections to {} are kept from conntrack: they end with their grant", at(port)),
            None,
            "take the port out of the \"notrack\" rules (tables raw, priority below -200)",
        ),
        State::ClosedListening | State::ClosedAlone => {
            if let Some(step) = luck.journey.stopped_by() {
                void(scene, port, step, findings);
            }
        }
        State::Stalls => findings.add(
            Severity::Error,
            "established-blocked",
            format!("{} opens by a grant, but the packets after the first are stopped: it connects and hangs", at(port)),
            luck.journey.stopped_by().map(|step| step.by.told()),
            "accept established connections before that rule: -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        ),
        State::Unknown => unknown(port, &luck.journey, findings),
        _ => {}
    }
}

/// A grant that opens nothing.
fn void(scene: &Scene, port: &Port, step: &Step, findings: &mut Findings) {
    let legacy = step.by.which.is_legacy();
    let ours_is_legacy = scene.ours == Ours::Iptables(iptables::Backend::Legacy);
    // What ufw does not allow, the policy that it sets stops.
    let is_policy_of_ufw = step.by.is_policy() && is_of_ufw(scene, step.by.which);
    let (name, remedy) = if is_policy_of_ufw || step.by.chain.starts_with("ufw") {
        ("ufw-blocks", "allow the service in ufw (\"ufw allow 22/tcp\"): spa-server closes it".to_owned())
    } else if step.by.table == "firewalld" {
        (
            "firewalld-blocks",
            "allow the service in the zone, with backend = \"nftables\": inet spa closes it".to_owned(),
        )
    } else if matches!(step.hook, "output" | "postrouting") {
        (
            "answers-blocked",
            "accept answers there: -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned(),
        )
    } else if legacy != ours_is_legacy && !matches!(scene.ours, Ours::Nftables) {
        (
            "other-variant-blocks",
            "keep all rules in one variant of iptables: a packet has to pass both".to_owned(),
        )
    } else {
        (
            "grant-void",
            format!("accept {} there: spa-server closes it to those without a grant", port.endpoint),
        )
    };
    findings.add(
        Severity::Error,
        name,
        format!("a grant does not open {}", at(port)),
        Some(step.by.told()),
        remedy,
    );
}

fn unknown(port: &Port, journey: &Journey, findings: &mut Findings) {
    for place in &journey.unknown {
        findings.add(
            Severity::Warning,
            "not-known",
            format!("what becomes of {} depends on a rule that cannot be judged", at(port)),
            Some(place.told()),
            "look at it yourself: may it accept before ours, or drop what a grant opens?",
        );
    }
}

fn listening(scene: &Scene, ports: &[Port], port: &Port, findings: &mut Findings) {
    if ports.iter().any(|other| other.endpoint == port.endpoint && other.listening)
        || port.stranger.state == State::Forwarded
    {
        return;
    }
    let own = scene
        .listeners(port.endpoint.protocol())
        .iter()
        .filter(|one| one.local.port() == port.endpoint.port());
    let own: Vec<String> = own.map(|one| one.local.ip().to_string()).collect();
    let (name, what) = match own.is_empty() {
        true => ("no-listener", format!("nothing listens on {} ({})", port.endpoint, port.service)),
        false => (
            "listens-elsewhere",
            format!("{} ({}) listens only on {}", port.endpoint, port.service, own.join(", ")),
        ),
    };
    findings.add(
        Severity::Warning,
        name,
        format!("{what}: a knock opens it, and the connection is refused"),
        None,
        "start the program, let it listen on the address that clients use, or take it out of [services]",
    );
}

/// Others than the one stranger: everybody whom some rule names.
fn others(scene: &Scene, ports: &[Port], vantage: &Vantage, findings: &mut Findings) {
    if !scene.config.protect {
        return;
    }
    let here =
        |port: &&Port| port.vantage.interface == vantage.interface && port.vantage.family == vantage.family;
    let closed = ports
        .iter()
        .filter(here)
        .filter(|port| matches!(port.stranger.state, State::ClosedListening | State::ClosedAlone));
    let endpoints: BTreeSet<Endpoint> = closed.map(|port| port.endpoint).collect();
    for source in scene.rules.sources(vantage.family) {
        if scene.is_excepted(source, &vantage.interface.name)
            || scene.host.addresses.contains(&source)
            || source.is_loopback()
        {
            continue;
        }
        let symmetric = route_to(source).ok().map(|by| by == Some(vantage.interface.index));
        for endpoint in &endpoints {
            let journey =
                scene.rules.journey(&scene.host, &Visit { symmetric, ..visit(vantage, source, *endpoint) });
            if !matches!(journey.verdict, Verdict::Open | Verdict::Stalled) {
                continue;
            }
            match accepted_by(scene, &journey.steps) {
                // A grant that is open.
                Some(by) if by.chain == iptables::CHAIN || by.table == nftables::TABLE => {}
                Some(by) => accept_ahead(&format!("{source} to {endpoint}"), by, findings),
                None => {}
            }
        }
    }
}

/// Strangers who try it must hear nothing, and nobody may be there to take it.
fn knock_port(scene: &Scene, vantage: &Vantage, findings: &mut Findings) {
    let Some(endpoint) = Endpoint::new(Protocol::Udp, scene.config.port) else { return };
    if let Some(bound) =
        scene.listeners(Protocol::Udp).iter().find(|one| one.takes(vantage.address, endpoint.port()))
    {
        findings.add(
            Severity::Error,
            "knock-port-bound",
            format!("a program has {endpoint}, the port that knocks come to: it is no closed port any more"),
            Some(bound.local.to_string()),
            format!("\"ss -ulpn sport = {}\" names the program; choose another server.port", endpoint.port()),
        );
    }
    let visit = Visit { listening: false, ..visit(vantage, vantage.stranger, endpoint) };
    let journey = scene.rules.journey(&scene.host, &visit);
    if journey.verdict == Verdict::Refused && !scene.is_excepted(vantage.stranger, &vantage.interface.name) {
        findings.add(
            Severity::Error,
            "knock-port-answers",
            format!(
                "{endpoint}, the port that knocks come to, answers strangers with an error over {}",
                vantage.family
            ),
            journey.stopped_by().map(|step| step.by.told()),
            "let a rule ahead of ours drop instead of reject, and protect: spa-server drops it",
        );
    }
}

/// The policy of INPUT gives ours away: everything else answers.
fn stands_out(scene: &Scene, ports: &[Port], vantage: &Vantage, findings: &mut Findings) {
    let Some(plain) = Endpoint::new(Protocol::Tcp, PLAIN_PORT) else { return };
    let is_silent = |port: &Port| {
        port.vantage.family == vantage.family && port.stranger.journey.verdict == Verdict::Silent
    };
    let visit = Visit { listening: false, ..visit(vantage, vantage.stranger, plain) };
    let answers = scene.rules.journey(&scene.host, &visit).verdict == Verdict::Refused;
    if answers && ports.iter().any(is_silent) {
        findings.add(
            Severity::Note,
            "stands-out",
            "ports that are not protected answer \"closed\", so a scanner sees which ones are filtered",
            None,
            "for a host that shows nothing at all, give INPUT a policy of drop",
        );
    }
}

/// For who prints an address with its place.
impl Port {
    /// The address that was looked at.
    pub fn address(&self) -> IpAddr {
        self.vantage.address
    }
}
