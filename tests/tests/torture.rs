//! Some kills in every phase: the command lines of docs/TORTURE.md, as they stand. The long runs are the same with more
//! kills.

use std::process::{Command, Output};

use spa_tests::documents::{checkout, run_by};
use spa_tests::{legacy_or_skip, skip};

/// What the page calls the program by, and how it begins.
const PROGRAM: &str = "cargo run -p spa-tests --bin torture -- --kills 50";

/// The lines of the page, one for each of the tests below.
fn lines() -> Vec<String> {
    run_by("docs/TORTURE.md", file!()).iter().flat_map(|step| step.commands()).collect()
}

fn torture(options: &str, test: &str) {
    let line = format!("{PROGRAM}{options}");
    assert!(lines().contains(&line), "docs/TORTURE.md does not show: {line}");
    let Output { status, stdout, stderr } =
        Command::new("sh").args(["-c", &line]).current_dir(checkout("")).output().expect("sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&stdout), text(&stderr));
    println!("{line}\n{said}");
    if !status.success() && errors.lines().any(|line| line.starts_with("unshare:")) {
        return skip(test, "unshare of user, network and mount namespaces is not permitted here");
    }
    assert!(status.success(), "{status}\n{errors}");
    assert!(said.contains("violations: 0"));
}

#[test]
fn nft() {
    torture("", "torture::nft");
}

#[test]
fn legacy() {
    if legacy_or_skip("torture::legacy") {
        torture(" --variant legacy", "torture::legacy");
    }
}

#[test]
fn nftables() {
    torture(" --backend nftables", "torture::nftables");
}

#[test]
fn nft_with_faults() {
    torture(" --variant nft --faults", "torture::nft_with_faults");
}

#[test]
fn nftables_with_faults() {
    torture(" --backend nftables --faults", "torture::nftables_with_faults");
}

/// No line of the page is without its test; and each is taken with the number that the page has for long runs.
#[test]
fn the_page_shows_what_is_run() {
    let lines = lines();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for line in lines {
        assert!(line.starts_with(PROGRAM), "{line}");
        let long = line.replace("--kills 50", "--kills 1000") + " --help";
        let output =
            Command::new("sh").args(["-c", &long]).current_dir(checkout("")).output().expect("sh runs");
        assert!(output.status.success(), "{long}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
