//! `torture`: see `docs/TORTURE.md`.

use std::process::{Command, ExitCode};

#[path = "../torture/mod.rs"]
mod torture;

use torture::options::{Options, USAGE};

/// Set for the run inside of the namespaces.
const INSIDE: &str = "SPA_TORTURE_INSIDE";
const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(Some(wrong)) => {
            eprintln!("torture: {wrong}\n\n{USAGE}");
            return EX_USAGE.into();
        }
    };
    if std::env::var_os(INSIDE).is_none() {
        return inside(&options);
    }
    let report = torture::rounds::run(&options);
    report.print();
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program again, alone in fresh namespaces, with an empty /run.
fn inside(options: &Options) -> ExitCode {
    println!("seed: {}", options.seed);
    let ground = "PATH=$PATH:/usr/sbin:/sbin
        mount -t tmpfs -o mode=0755 tmpfs /run && mkdir -p /run/netns && ip link set lo up || exit 69
        \"$@\"
        exit $?";
    let myself = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => {
            eprintln!("torture: where this program is: {error}");
            return EX_UNAVAILABLE.into();
        }
    };
    let status = Command::new("unshare")
        .args(spa_tests::unshare_flags())
        .args(["sh", "-c", ground, "sh"])
        .arg(myself)
        .args(std::env::args_os().skip(1))
        .args(["--seed", &options.seed.to_string()])
        .env(INSIDE, "1")
        .status();
    match status {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(EX_UNAVAILABLE).into(),
        Err(error) => {
            eprintln!("torture: unshare: {error}");
            EX_UNAVAILABLE.into()
        }
    }
}
