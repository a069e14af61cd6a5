//! What live grants cost: each packet that passes our rules, and the next grant. No daemon: the drivers as the daemon
//! uses them, and a flood of datagrams that nobody granted, which all grants are held against before they are dropped.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use spa_firewall::iptables::{Iptables, Variant};
use spa_firewall::nftables::Nftables;
use spa_firewall::{Enforcer, Error, Firewall, GrantKey, Lifetime, Protection, Wanted};
use spa_tests::short::full_or;
use spa_tests::{Family, SPA_PORT, Topology};

use super::flood;
use super::report::Row;

const PACKET: &str = "CPU per packet among grants";
const GRANT: &str = "one more grant";
/// Live grants; all are compared with the first.
const GRANTS: [u32; 4] = [1, 1_000, 10_000, 50_000];
/// Each flood.
const LENGTH: Duration = Duration::from_millis(400);
/// A second; what is lost on the way costs nothing, so no more than the receiver takes.
const RATE: u64 = 100_000;
const TURNS: usize = 5;
/// Grants that are added and taken back, and after this long no more of them.
const SAMPLES: usize = 51;
const PATIENCE: Duration = Duration::from_secs(4);

/// Both drivers, in one run.
pub fn run() -> Vec<Row> {
    let topology = Topology::new();
    let mut rows = of("nftables", &topology, || Box::new(Nftables::open().expect("nf_tables")));
    rows.extend(of("iptables-nft", &topology, || Box::new(Iptables::open(Variant::Nft).expect("iptables"))));
    rows
}

fn of(subject: &str, topology: &Topology, open: impl Fn() -> Box<dyn Firewall> + Sync) -> Vec<Row> {
    let mut rows = Vec::new();
    let measure = |count| topology.server.ns.enter(|| among(count, topology, Enforcer::new(open())));
    let sizes = &GRANTS[..full_or(GRANTS.len(), 2)];
    let figures: Vec<_> = sizes.iter().map(|count| (*count, measure(*count))).collect();
    // Twice, before and after all others: a machine that becomes slower meanwhile is not what grants cost.
    let (Ok(before), Ok(after)) = (&figures[0].1, &measure(GRANTS[0])) else {
        return vec![Row::absent(GRANT, subject, "failed with a single grant")];
    };
    let (cpu_of_one, grant_of_one) = (f64::midpoint(before.0, after.0), f64::midpoint(before.1, after.1));
    let of_one = "1 live, mean of before and after the others";
    rows.push(Row::new(PACKET, subject, of_one, cpu_of_one, "ns"));
    rows.push(Row::new(GRANT, subject, of_one, grant_of_one, "ms"));
    for (count, figures) in figures {
        let (cpu, grant) = match figures {
            Ok(figures) => figures,
            // Tens of thousands of rules may take iptables longer than the driver waits for it.
            Err(error) => {
                rows.push(Row::absent(GRANT, subject, &format!("{count} live: {error}")));
                continue;
            }
        };
        let name = |measure: &str| format!("{measure}, {count} live");
        rows.extend([
            Row::new(PACKET, subject, &name("median of 5"), cpu, "ns"),
            Row::new(PACKET, subject, &name("against 1"), cpu / cpu_of_one, "times"),
            Row::new(GRANT, subject, &name("written and read back, median"), grant, "ms"),
            Row::new(GRANT, subject, &name("against 1"), grant / grant_of_one, "times"),
        ]);
    }
    rows
}

/// Nanoseconds a packet, and milliseconds a grant.
fn among(count: u32, topology: &Topology, mut enforcer: Enforcer) -> Result<(f64, f64), Error> {
    let from = SystemTime::now();
    let lifetime = |seconds| Lifetime { from, until: from + Duration::from_secs(seconds) };
    let mut wanted = Wanted {
        protection: Some(Protection {
            spa_port: SPA_PORT,
            protect: true,
            except: Vec::new(),
            services: ["tcp/22".parse().expect("an endpoint")].into(),
            provisional_until: None,
        }),
        // From 10.0.0.0 on: nobody of the network.
        grants: (0..count).map(|n| (key(Ipv4Addr::from(0x0a00_0000 + n)), lifetime(3_600))).collect(),
    };
    enforcer.enforce(&wanted)?;
    let turns = full_or(TURNS, 1);
    let mut cpu: Vec<f64> = (0..turns).map(|_| packet(topology)).collect();
    cpu.sort_unstable_by(f64::total_cmp);
    let (more, began) = (key(Ipv4Addr::new(198, 51, 100, 7)), Instant::now());
    let mut times = Vec::new();
    while times.len() < full_or(SAMPLES, 3) && (began.elapsed() < PATIENCE || times.len() < 3) {
        wanted.grants.insert(more.clone(), lifetime(60));
        let began = Instant::now();
        enforcer.enforce_grants(&wanted, std::slice::from_ref(&more))?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        wanted.grants.remove(&more);
        enforcer.enforce_grants(&wanted, std::slice::from_ref(&more))?;
    }
    enforcer.remove_all()?;
    Ok((cpu[turns / 2], super::spread(times).expect("some samples")[1]))
}

fn key(source: Ipv4Addr) -> GrantKey {
    let endpoint = "tcp/22".parse().expect("an endpoint");
    GrantKey::new("alice".parse().expect("a name"), source.into(), endpoint)
}

/// CPU of the sender, on whose account a veth pair delivers, and of the kernel's threads.
fn packet(topology: &Topology) -> f64 {
    let before = flood::softirq_cpu();
    let junk = [vec![0; 300]];
    let wait = || std::thread::sleep(full_or(LENGTH, LENGTH / 4));
    let server = topology.server.address(Family::V4);
    let ((), sent) = flood::during(&topology.stranger, server, &junk, (Some(RATE), 1), wait);
    let all = sent.cpu + flood::softirq_cpu().saturating_sub(before);
    all.as_nanos() as f64 / sent.datagrams.max(1) as f64
}
