//! Each step of the gate alone, in time: criterion's bench of `spa-gate`, as rows. It is built and run by cargo, in its
//! ordinary release build; what criterion writes stays in the namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use spa_tests::WORK;

use super::report::Row;

const BENCH: &str = "step of the gate";
const SUBJECT: &str = "spa";

/// Runs it, and reads the medians.
pub fn run() -> Vec<Row> {
    let home = Path::new(WORK).join("criterion");
    let mut command = Command::new("cargo");
    command.args(["bench", "--offline", "--locked", "-p", "spa-gate", "--bench", "steps", "--"]);
    if super::is_short() {
        // With one client, or one remembered; and in a fraction of criterion's usual time.
        command.args(["--warm-up-time", "0.1", "--measurement-time", "0.1", "--sample-size", "10", "/1$"]);
    }
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("CRITERION_HOME", &home);
    // Standard output is the table's.
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    match status {
        Ok(status) if status.success() => rows(&home),
        Ok(status) => panic!("cargo bench: {status}; its output is above"),
        Err(error) => vec![Row::absent(BENCH, SUBJECT, &format!("cargo: {error}"))],
    }
}

/// Of each step the figures by the number of clients, and of some by that of remembered keys.
fn rows(home: &Path) -> Vec<Row> {
    let mut all: Vec<(String, u64, f64)> =
        results(home).iter().filter_map(|result| estimate(result)).collect();
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all.into_iter()
        .map(|(what, count, median)| {
            Row::new(BENCH, SUBJECT, &format!("{what}: {count}, median"), median, "ns")
        })
        .collect()
}

/// Criterion's directories of what was just measured, `HOME/GROUP/STEP/NUMBER/new`.
fn results(below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    let directories = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    directories.flat_map(|path| if path.ends_with("new") { vec![path] } else { results(&path) }).collect()
}

/// The step and of what there are so many, how many, and the median in nanoseconds.
fn estimate(result: &Path) -> Option<(String, u64, f64)> {
    let read = |file: &str| -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(result.join(file)).ok()?).ok()
    };
    let (named, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let what = format!("{}, {}", named["function_id"].as_str()?, named["group_id"].as_str()?);
    Some((what, named["value_str"].as_str()?.parse().ok()?, estimates["median"]["point_estimate"].as_f64()?))
}
