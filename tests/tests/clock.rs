//! Steps of the wall clock, in a guest: a clock is not namespaced. See tests/clock-guest.sh, which does it.

use std::path::Path;
use std::process::Command;

use spa_tests::skip;

/// sysexits(3) `EX_UNAVAILABLE`: the script says what lacks.
const UNAVAILABLE: i32 = 69;

#[test]
fn grants_end_by_boot_time_wherever_the_clock_goes() {
    let test = "grants_end_by_boot_time_wherever_the_clock_goes";
    let binaries = spa_tests::binary("spa-server");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clock-guest.sh");
    let output = Command::new(script).arg(binaries.parent().expect("it is in a directory")).output();
    let output = output.expect("bash runs");
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(UNAVAILABLE) {
        return skip(test, why.lines().next().unwrap_or("something is missing"));
    }
    println!("{said}{why}");
    assert!(output.status.success(), "{}; the guest's words are above", output.status);
}
