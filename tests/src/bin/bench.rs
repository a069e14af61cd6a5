//! The bench: prints a table; with `--json FILE` and `--svg FILE` it writes both; with `--short` the parts that take long do
//! less. `tests/bench.sh` runs it.
//!
//! Each part runs alone in fresh namespaces, by running this program again under `unshare`; whatever it made there
//! ends with it. Nothing here asserts a time. docs/BENCHMARKS.md says what each figure means.

#[path = "../bench/mod.rs"]
mod bench;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use bench::report::{self, Row};

/// The first argument of the run inside: then the part's name and the file that takes its rows.
const INSIDE: &str = "--inside";

/// As for the tests: an empty /run, which takes all that the part writes.
const SETUP: &str = "PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/netns && ip link set lo up && \"$@\"
exit $?";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [inside, name, into] if inside == INSIDE => {
            let part = bench::PARTS.iter().find(|part| part.name == name).expect("the outer run named it");
            let rows = (part.run)();
            std::fs::write(into, report::json(&rows)).expect("the file of the outer run");
            ExitCode::SUCCESS
        }
        options => outside(options),
    }
}

fn outside(options: &[String]) -> ExitCode {
    let (mut json, mut svg, mut short, mut wanted) = (None, None, false, Vec::new());
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.as_str() {
            "--json" => json = options.next(),
            "--svg" => svg = options.next(),
            "--short" => short = true,
            name if bench::PARTS.iter().any(|part| part.name == name) => wanted.push(name),
            _ => {
                let names: Vec<&str> = bench::PARTS.iter().map(|part| part.name).collect();
                eprintln!(
                    "usage: bench [--json FILE] [--svg FILE] [--short] [PART...]\nparts: {}",
                    names.join(" ")
                );
                return ExitCode::from(64); // EX_USAGE
            }
        }
    }
    let mut rows = report::machine(short || spa_tests::short::is_short());
    let mut failed = false;
    for part in bench::PARTS.iter().filter(|part| wanted.is_empty() || wanted.contains(&part.name)) {
        eprintln!("{} ...", part.name);
        match run(part.name, short) {
            Some(more) => rows.extend(more),
            None => {
                failed = true;
                rows.push(Row::absent("failed", part.name, "its output is above"));
            }
        }
    }
    rows.push(report::load("load average after"));
    print!("{}", report::table(&rows));
    for (path, text) in [(json, report::json(&rows)), (svg, report::svg(&rows))] {
        if let Some(path) = path {
            std::fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The rows of one part; `None` where it failed.
fn run(name: &str, short: bool) -> Option<Vec<Row>> {
    let into: PathBuf = std::env::temp_dir().join(format!("spa-bench-{}-{name}.json", std::process::id()));
    let status = Command::new("unshare")
        .args(spa_tests::unshare_flags())
        .args(["sh", "-c", SETUP, "sh"])
        .arg(std::env::current_exe().expect("this program has a path"))
        .args([INSIDE, name])
        .arg(&into)
        .envs(short.then_some((spa_tests::short::VARIABLE, "1")))
        // Not for reading: so that the part can look at the kernel's threads (bench::flood::softirq_cpu).
        .stdin(std::fs::File::open("/proc").expect("procfs"))
        .status()
        .expect("unshare runs");
    let text = std::fs::read_to_string(&into).ok();
    // Absent where the part failed.
    let _ = std::fs::remove_file(&into);
    text.filter(|_| status.success()).map(|text| report::parse(&text))
}
