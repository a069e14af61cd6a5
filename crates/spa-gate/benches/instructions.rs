//! Instructions of each step of the gate, counted by callgrind and compared with the committed baseline.
//!
//!     cargo bench -p spa-gate --bench instructions              # compare; status 1 where a step became dearer
//!     cargo bench -p spa-gate --bench instructions -- --write   # make the baseline anew, with the change that explains it
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
/// How much dearer than the baseline a step may be, in parts of 100: with the baseline's compiler; with another.
/// (The hash tables' random seeds move a count by less than 1 %.)
const TOLERANCE: (u64, u64) = (10, 25);

/// Environment variables with these beginnings change what the compiler makes, and so every count.
const BUILD_VARIABLES: [&str; 3] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_"];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--step", step, run] => return step_under_callgrind(step, run == "run"),
        [] => compare(),
        ["--write"] => write(),
        _ => Err("usage: [--write]".into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}

/// What callgrind counts: the preparation, and with `run` the step as well.
fn step_under_callgrind(step: &str, run: bool) -> ExitCode {
    let Some(step) = step.parse().ok().and_then(|n: usize| Step::ALL.get(n)) else {
        return ExitCode::FAILURE;
    };
    let mut round = Round::new(*step, &mut Population::new(CLIENTS, CLIENTS), 0);
    if run {
        round.run();
    }
    // Unused otherwise, so that its end is not part of the difference.
    println!("{}", round.len());
    ExitCode::SUCCESS
}

/// Instructions of the program up to its end, and the number that it printed.
fn callgrind(step: usize, run: bool) -> Result<(u64, u64), Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--step", &step.to_string(), if run { "run" } else { "prepare" }])
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
        let ((prepared, _), (run, packets)) = (callgrind(number, false)?, callgrind(number, true)?);
        counts.insert(step.name(), run.saturating_sub(prepared) / packets.max(1));
    }
    Ok(counts)
}

fn baseline_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.baseline")
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
    let mut text = format!("# {}\n", compiler()?);
    for (name, count) in measure()? {
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
    let baseline: BTreeMap<&str, u64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(count, name)| Some((name, count.parse().ok()?)))
        .collect();
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
