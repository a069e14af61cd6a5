//! Instructions of each step of the gate, counted by callgrind and compared with the committed baseline.
//!
//!     cargo bench -p spa-gate --bench instructions              # compare; status 1 where a step became dearer
//!     cargo bench -p spa-gate --bench instructions -- --write   # make the baseline anew, with the change that explains it
//!     cargo bench -p spa-gate --bench instructions -- --scale   # by clients and by remembered keys; status 1 where a cost grows
//!
//! A count does not depend on what else the machine does. It does depend on the compiler, whose version stands in the
//! baseline: with another one the tolerance is wider.
#![allow(missing_docs)]

mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use workload::{Population, Round, Step};

/// Clients, all of whom knock.
const CLIENTS: usize = 4;
/// How many there are.
#[derive(Clone, Copy)]
struct Scale {
    clients: usize,
    /// Further public keys whose newest counter is known.
    remembered: usize,
}
const SMALL: Scale = Scale { clients: CLIENTS, remembered: 0 };
/// What a packet costs may not grow with these; and how much more than the first still counts as the same, in parts of 100.
const BY_CLIENTS: [usize; 4] = [1, 100, 10_000, 100_000];
const BY_REMEMBERED: [usize; 4] = [1, 1_000, 100_000, 1_000_000];
const FLAT: u64 = 10;
/// How much dearer than the baseline a step may be, in parts of 100: with the baseline's compiler; with another.
/// (The hash tables' random seeds move a count by less than 1 %.)
const TOLERANCE: (u64, u64) = (10, 25);

/// Environment variables with these beginnings change what the compiler makes, and so every count.
const BUILD_VARIABLES: [&str; 3] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_"];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--step", step, run, clients, remembered] => {
            return step_under_callgrind(step, run == "run", clients, remembered);
        }
        [] => compare(),
        ["--write"] => write(),
        ["--scale"] => scale(),
        _ => Err("usage: [--write | --scale]".into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}

/// What callgrind counts: the preparation, and with `run` the step as well.
fn step_under_callgrind(step: &str, run: bool, clients: &str, remembered: &str) -> ExitCode {
    let step = step.parse().ok().and_then(|n: usize| Step::ALL.get(n));
    let (Some(step), Ok(clients), Ok(remembered)) = (step, clients.parse(), remembered.parse()) else {
        return ExitCode::FAILURE;
    };
    let mut round = Round::new(*step, &mut Population::new(clients, CLIENTS), remembered);
    if run {
        round.run();
    }
    // Unused otherwise, so that its end is not part of the difference.
    println!("{}", round.len());
    ExitCode::SUCCESS
}

/// Instructions of the program up to its end, and the number that it printed.
fn callgrind(step: usize, run: bool, scale: Scale) -> Result<(u64, u64), Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--step", &step.to_string(), if run { "run" } else { "prepare" }])
        .args([scale.clients.to_string(), scale.remembered.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error} (Debian's package valgrind)"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : "));
    match collected {
        Some((_, count)) if output.status.success() => {
            Ok((count.trim().parse()?, String::from_utf8(output.stdout)?.trim().parse()?))
        }
        _ => Err(format!("valgrind failed:\n{stderr}").into()),
    }
}

/// Instructions a packet, by step.
fn measure() -> Result<BTreeMap<&'static str, u64>, Failure> {
    let mut counts = BTreeMap::new();
    for (number, step) in Step::ALL.iter().enumerate() {
        counts.insert(step.name(), a_packet(number, SMALL)?);
    }
    Ok(counts)
}

fn a_packet(step: usize, scale: Scale) -> Result<u64, Failure> {
    let ((prepared, _), (run, packets)) = (callgrind(step, false, scale)?, callgrind(step, true, scale)?);
    Ok(run.saturating_sub(prepared) / packets.max(1))
}

/// Each step by the number of clients, and the warden's last by that of remembered keys.
fn scale() -> Result<ExitCode, Failure> {
    let mut grows = false;
    // A valid packet goes through three steps, and what one of them adds is held against the dearest.
    let valid = [Step::Verify, Step::Open, Step::Judge];
    let x25519 = Step::ALL.iter().position(|one| *one == Step::Verify).unwrap_or_default();
    let valid_packet = a_packet(x25519, SMALL)?;
    let mut row = |step: usize, what: &str, scales: [Scale; 4]| -> Result<(), Failure> {
        let mut counts = Vec::new();
        for scale in scales {
            counts.push(a_packet(step, scale)?);
        }
        // The hints of an epoch are one for each client, every 64 s.
        let parts = scales.map(|scale| if Step::ALL[step] == Step::Epoch { scale.clients as u64 } else { 1 });
        let packet = if valid.contains(&Step::ALL[step]) { valid_packet } else { counts[0] };
        let mut most = parts.map(|parts| (counts[0] + packet * FLAT / 100) * parts).into_iter();
        let bad = counts.iter().any(|count| most.next().is_none_or(|most| *count > most));
        grows |= bad;
        let columns: String = counts.iter().map(|count| format!("{count:>10}")).collect();
        println!("{:<42} {what:<15}{columns}{}", Step::ALL[step].name(), if bad { "  GROWS" } else { "" });
        Ok(())
    };
    println!("instructions a packet; {FLAT} % of a packet more than in the first column are allowed");
    println!("{:<58}{BY_CLIENTS:?} clients", "");
    for step in 0..Step::ALL.len() {
        row(step, "clients", BY_CLIENTS.map(|clients| Scale { clients, remembered: 0 }))?;
    }
    println!("{:<58}{BY_REMEMBERED:?} remembered keys", "");
    for step in [Step::Open, Step::Judge] {
        let number = Step::ALL.iter().position(|one| *one == step).unwrap_or_default();
        row(number, "remembered", BY_REMEMBERED.map(|remembered| Scale { remembered, ..SMALL }))?;
    }
    Ok(if grows { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn baseline_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.baseline")
}

fn baseline(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(count, name)| Some((name, count.parse().ok()?)))
        .collect()
}

fn compiler() -> Result<String, Failure> {
    let output =
        Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())).arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn changes_the_build(variable: &str) -> bool {
    BUILD_VARIABLES.iter().any(|start| variable.starts_with(start))
}

/// One line a step, `count TAB name`, after a line that names the compiler.
fn write() -> Result<ExitCode, Failure> {
    if let Some((name, _)) = std::env::vars_os().find(|(name, _)| changes_the_build(&name.to_string_lossy()))
    {
        return Err(format!(
            "{} is set: a baseline of a build that nobody else makes is no baseline; unset it",
            name.to_string_lossy()
        )
        .into());
    }
    let old = fs::read_to_string(baseline_file())?;
    // What only another processor counts stays.
    let mut counts = baseline(&old);
    counts.extend(measure()?);
    let mut text = format!("# {}\n", compiler()?);
    for (name, count) in counts {
        text.push_str(&format!("{count}\t{name}\n"));
    }
    fs::write(baseline_file(), &text)?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn compare() -> Result<ExitCode, Failure> {
    let text = fs::read_to_string(baseline_file())?;
    let same = text.lines().next() == Some(&format!("# {}", compiler()?));
    let tolerance = if same { TOLERANCE.0 } else { TOLERANCE.1 };
    let baseline = baseline(&text);
    println!("instructions a packet; at most {tolerance} % above the baseline are allowed");
    let mut dearer = false;
    for (name, count) in measure()? {
        let before = *baseline.get(name).ok_or_else(|| format!("the baseline lacks: {name}"))?;
        let bad = count * 100 > before * (100 + tolerance);
        dearer |= bad;
        println!("{name:<42} {count:>9}  baseline {before:>9}{}", if bad { "  DEARER" } else { "" });
    }
    Ok(if dearer { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
