//! The verdict on 200 random rule sets is what a real connection meets.

mod generate;
mod ground;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use generate::{Random, Rules};
use ground::{Ground, TCP_PORTS, UDP_PORT};
use spa_firewall::hooks::{Journey, Ruleset, Verdict, Visit};
use spa_firewall::nftables::Nftables;
use spa_firewall::{Enforcer, GrantKey, Lifetime, Protection, Wanted};
use spa_proto::{Endpoint, Protocol};

const SETS: u64 = 200;
/// Namespaces that work side by side: most of the time is spent waiting for silence.
const GROUNDS: usize = 8;
const VISITS: usize = 8;
/// Answers take well under a millisecond; on a busy machine a scheduling delay more.
const PATIENCE: Duration = Duration::from_millis(250);
/// For a second try, where it was silent and should not have been.
const MORE_PATIENCE: Duration = Duration::from_secs(3);

fn feed(ground: &Ground, program: &str, arguments: &[&str], text: &str) {
    let mut command = ground.server.command(program);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}\n{}", numbered(text));
}

fn numbered(text: &str) -> String {
    text.lines().enumerate().map(|(at, line)| format!("{:3} {line}\n", at + 1)).collect()
}

const EMPTY: &str = "*filter\nCOMMIT\n*mangle\nCOMMIT\n*raw\nCOMMIT\n*nat\nCOMMIT\n";

fn load(ground: &Ground, rules: &Rules, with_legacy: bool) {
    feed(ground, "nft", &["-f", "-"], &format!("flush ruleset\n{}", rules.native));
    for (at, base) in ["iptables", "ip6tables"].into_iter().enumerate() {
        if let Some(text) = &rules.nft[at] {
            feed(ground, &format!("{base}-nft-restore"), &[], text);
        }
        if with_legacy {
            // The policies have to be set back as well.
            let reset = EMPTY.replace("*filter\n", "*filter\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n");
            let text = rules.legacy[at].as_deref().unwrap_or("");
            feed(ground, &format!("{base}-legacy-restore"), &[], &format!("{reset}{text}"));
        }
    }
    let Some(host) = rules.openings else { return };
    ground.server.enter(|| {
        let driver = Nftables::open_shared().expect("nf_tables");
        let protection = Protection {
            spa_port: 62201,
            protect: true,
            except: vec!["eb".parse().expect("an interface")],
            services: ["tcp/22".parse().expect("an endpoint")].into(),
            provisional_until: None,
        };
        let from = SystemTime::now();
        let grants = [format!("10.1.0.{host}"), format!("fd01::{host}")].map(|source| {
            let endpoint = "tcp/22".parse().expect("an endpoint");
            let source = source.parse().expect("an address");
            let key = GrantKey::new("alice".parse().expect("a name"), source, endpoint);
            (key, Lifetime { from, until: from + Duration::from_secs(600) })
        });
        let wanted = Wanted { protection: Some(protection), grants: grants.into() };
        Enforcer::new(Box::new(driver)).enforce(&wanted).expect("it is laid");
    });
}

/// Whether this is what the verdict says.
fn agrees(verdict: Verdict, met: Verdict) -> bool {
    match verdict {
        Verdict::Closed => matches!(met, Verdict::Refused | Verdict::Silent),
        Verdict::Elsewhere(..) => met == Verdict::Silent, // nobody forwards here
        verdict => verdict == met,
    }
}

#[derive(Default)]
struct Tally {
    verdicts: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        *self.verdicts.entry(verdict.to_string()).or_default() += 1;
    }
}

fn visits(random: &mut Random, ground: &mut Ground) -> Vec<Visit> {
    let one = |_| {
        let endpoint = match random.below(5) {
            0 => Endpoint::new(Protocol::Udp, UDP_PORT),
            _ => Endpoint::new(Protocol::Tcp, TCP_PORTS[random.below(TCP_PORTS.len())]),
        };
        let host = random.pick(&["2", "3", "130"]);
        ground.visit(random.one_in(3), random.below(2), host, endpoint.expect("no port is 0"))
    };
    (0..VISITS).map(one).collect()
}

fn try_one(seed: u64, ground: &mut Ground, with_legacy: bool, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let rules = Rules::random(&mut random);
    load(ground, &rules, with_legacy);
    let read = ground.server.enter(Ruleset::read).expect("the rules are read");
    assert_eq!(read.unread, [""; 0], "seed {seed}");
    let host = ground.host();
    let visits = visits(&mut random, ground);
    let ground = &*ground;
    let met: Vec<Verdict> = std::thread::scope(|scope| {
        let tries: Vec<_> =
            visits.iter().map(|visit| scope.spawn(|| ground.attempt(visit, PATIENCE))).collect();
        tries.into_iter().map(|one| one.join().expect("a try does not panic")).collect()
    });
    for (visit, mut met) in visits.into_iter().zip(met) {
        let Journey { verdict, steps, unknown, .. } = read.journey(&host, &visit);
        if !agrees(verdict, met) && matches!(met, Verdict::Silent | Verdict::Stalled) {
            met = ground.attempt(&visit, MORE_PATIENCE);
        }
        tally.count(verdict);
        if !agrees(verdict, met) {
            let steps: Vec<_> =
                steps.iter().map(|step| format!("  {}: {} by {}", step.hook, step.did, step.by)).collect();
            tally.wrong.push(format!(
                "seed {seed}: {verdict}, but it met {met}: {visit:?}\n{}\n unknown {unknown:#?}\n{}",
                steps.join("\n"),
                ground.server.sh("nft list ruleset; iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; ip6tables-legacy-save")
            ));
        }
    }
}

#[test]
fn verdicts_are_what_connections_meet() {
    spa_tests::in_namespace(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").expect("procfs");
        let with_legacy = map.split_whitespace().eq(["0", "0", "4294967295"])
            && Command::new("iptables-legacy").arg("--version").output().is_ok();
        if !with_legacy {
            spa_tests::skip(
                "verdicts_are_what_connections_meet (legacy)",
                "iptables-legacy wants the machine's root",
            );
        }
        let grounds: Vec<Ground> = (0..GROUNDS).map(Ground::new).collect();
        let only: Option<u64> = std::env::var("SPA_HOOKS_SEED").ok().and_then(|seed| seed.parse().ok());
        let tallies: Vec<Tally> = std::thread::scope(|scope| {
            let workers: Vec<_> = grounds
                .into_iter()
                .enumerate()
                .map(|(at, mut ground)| {
                    scope.spawn(move || {
                        let mut tally = Tally::default();
                        let mine = (1..=SETS).filter(|seed| *seed as usize % GROUNDS == at);
                        for seed in mine.filter(|seed| only.is_none_or(|only| only == *seed)) {
                            try_one(seed, &mut ground, with_legacy, &mut tally);
                        }
                        tally
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
        });
        let mut all = Tally::default();
        for tally in tallies {
            tally
                .verdicts
                .into_iter()
                .for_each(|(verdict, count)| *all.verdicts.entry(verdict).or_default() += count);
            all.wrong.extend(tally.wrong);
        }
        println!("seeds 1 to {SETS}, {VISITS} visits each: {:?}", all.verdicts);
        assert!(all.wrong.is_empty(), "{} wrong\n{}", all.wrong.len(), all.wrong.join("\n----\n"));
        assert_eq!(all.verdicts.get("unknown"), None, "nothing here is beyond knowing");
    });
}
