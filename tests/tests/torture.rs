//! Some kills in every phase, as CI runs them; `torture --kills 1000` is the same for longer.

use std::process::Command;

use spa_tests::{legacy_or_skip, skip};

/// Below this no phase has been looked at.
const KILLS: &str = "50";

fn torture(arguments: &[&str], test: &str) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_torture")).args(["--kills", KILLS]).args(arguments).output();
    let output = output.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    println!("{said}");
    if !output.status.success() && errors.starts_with("unshare:") {
        return skip(test, "unshare of user, network and mount namespaces is not permitted here");
    }
    assert!(output.status.success(), "{}\n{errors}", output.status);
    assert!(said.contains("violations: 0"));
}

#[test]
fn nft() {
    torture(&["--variant", "nft"], "torture::nft");
}

#[test]
fn legacy() {
    if legacy_or_skip("torture::legacy") {
        torture(&["--variant", "legacy"], "torture::legacy");
    }
}

#[test]
fn nftables() {
    torture(&["--backend", "nftables"], "torture::nftables");
}

#[test]
fn nft_with_faults() {
    torture(&["--variant", "nft", "--faults"], "torture::nft_with_faults");
}

#[test]
fn nftables_with_faults() {
    torture(&["--backend", "nftables", "--faults"], "torture::nftables_with_faults");
}
