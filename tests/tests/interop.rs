//! Another client, written in Python from docs/PROTOCOL.md alone, opens the port.

use std::path::Path;
use std::process::Command;

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, in_namespace, skip, succeeded, write_private};

fn knock(test: &str, family: Family) {
    if Command::new("python3").arg("--version").output().is_err() {
        return skip(test, "python3 is not installed");
    }
    let scene = Scene::new(&Settings::new(Variant::Nft), family);
    let client = &scene.topology.client;
    let invite = scene.alice.file("invite");
    write_private(&invite, &scene.invite);
    assert_eq!(scene.look(client, 22), Probe::Silent);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/knock.py");
    let output = client.ns.command("python3").arg(&script).arg(&invite).args(["--request", "ssh"]).output();
    succeeded("knock.py", &output.expect("nsenter runs"));
    scene.wait_open(client, 22);
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    eventually("it closes again", PATIENCE, || scene.look(client, 22) == Probe::Silent);
}

#[test]
fn opens_over_ipv4() {
    in_namespace(|| knock("interop::opens_over_ipv4", Family::V4));
}

#[test]
fn opens_over_ipv6() {
    in_namespace(|| knock("interop::opens_over_ipv6", Family::V6));
}
