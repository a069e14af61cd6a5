//! Other clients, written in Python and for Node.js from docs/PROTOCOL.md alone, open the port.

use std::path::Path;
use std::process::Command;

use spa_tests::probe::{PATIENCE, Probe, eventually};
use spa_tests::scene::Scene;
use spa_tests::{Family, Settings, Variant, in_namespace, skip, succeeded, write_private};

fn opens(family: Family, program: &str, script: &str, request: &[&str]) {
    let scene = Scene::new(&Settings::new(Variant::Nft), family);
    opens_with(&scene, &scene.invite, program, script, request);
}

fn opens_with(scene: &Scene, line: &str, program: &str, script: &str, request: &[&str]) {
    let client = &scene.topology.client;
    let invite = scene.alice.file("invite");
    write_private(&invite, line);
    assert_eq!(scene.look(client, 22), Probe::Silent);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(script);
    let output = client.ns.command(program).arg(path).arg(&invite).args(request).output();
    succeeded(script, &output.expect("nsenter runs"));
    scene.wait_open(client, 22);
    assert_eq!(scene.look(&scene.topology.stranger, 22), Probe::Silent);
    eventually("it closes again", PATIENCE, || scene.look(client, 22) == Probe::Silent);
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn python(test: &str, family: Family) {
    if !is_installed("python3") {
        return skip(test, "python3 is not installed");
    }
    opens(family, "python3", "knock.py", &["--request", "ssh"]);
}

fn node(test: &str, family: Family) {
    if !is_installed("node") {
        return skip(test, "node is not installed");
    }
    opens(family, "node", "knock.mjs", &["ssh"]);
}

#[test]
fn python_opens_over_ipv4() {
    in_namespace(|| python("interop::python_opens_over_ipv4", Family::V4));
}

#[test]
fn python_opens_over_ipv6() {
    in_namespace(|| python("interop::python_opens_over_ipv6", Family::V6));
}

/// The encrypted invite of section 8.1, with the scrypt of Python's OpenSSL.
#[test]
fn python_opens_with_an_encrypted_invite() {
    if !is_installed("python3") {
        return skip("interop::python_opens_with_an_encrypted_invite", "python3 is not installed");
    }
    in_namespace(|| {
        let scene = Scene::new(&Settings::new(Variant::Nft), Family::V4);
        let passphrase = scene.server.file("passphrase");
        write_private(&passphrase, "na\u{ef}ve correct horse\n");
        let (host, file) = (scene.address.to_string(), passphrase.display().to_string());
        let line = scene.server.enrol("bob", "ssh", &host, &["--passphrase-file", &file]);
        assert!(line.starts_with("spae1-"), "{line}");
        opens_with(&scene, &line, "python3", "knock.py", &["--request", "ssh", "--passphrase-file", &file]);
    });
}

#[test]
fn node_opens_over_ipv4() {
    in_namespace(|| node("interop::node_opens_over_ipv4", Family::V4));
}

#[test]
fn node_opens_over_ipv6() {
    in_namespace(|| node("interop::node_opens_over_ipv6", Family::V6));
}
