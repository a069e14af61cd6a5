//! The clients in `tests/interop/` follow `docs/PROTOCOL.md` without our code: `knock.py` makes the same packets byte
//! for byte, and `knock.mjs` agrees with the vectors of packets and invites.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use spa_proto::{CloakKey, Invite, Psk, PublicKey, SecretKey};

const VALID: &str = include_str!("../../../tests/vectors/packet-v1.json");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/knock.py");
const NODE_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/knock.mjs");
/// The first version of Node.js that the script is known to work with: Debian 12's.
const NODE_VERSION: u32 = 18;

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn array(value: &Value) -> [u8; 32] {
    hex::decode(text(value)).unwrap().try_into().unwrap()
}

fn invite(keys: &Value) -> Invite {
    Invite {
        client: "alice".parse().unwrap(),
        address: "192.0.2.1".to_owned(),
        port: 62201,
        server: PublicKey::from_bytes(array(&keys["server_public"])).unwrap(),
        cloaks: vec![CloakKey::from_bytes(array(&keys["cloak"])), CloakKey::from_bytes([9; 32])],
        psk: Psk::from_bytes(array(&keys["psk"])),
        secret: Some(SecretKey::from_bytes(array(&keys["client_private"]))),
        services: vec![("ssh".parse().unwrap(), vec!["tcp/22".parse().unwrap()])],
        expires: None,
    }
}

fn command(vector: &Value) -> Command {
    let knock = &vector["knock"];
    let mut command = Command::new("python3");
    command.args(["-B", SCRIPT, "-", "--print", "--mode", text(&knock["mode"])]);
    for request in knock["requests"].as_array().unwrap().iter().rev() {
        command.args(["--request", text(request)]);
    }
    if text(&knock["kind"]) == "close" {
        command.arg("--close");
    }
    if !text(&knock["address"]).is_empty() {
        command.args(["--address", text(&knock["address"])]);
    }
    command
        .args(["--seconds", &knock["seconds"].to_string()])
        .args(["--counter", text(&knock["counter"])])
        .args(["--random-nonce", text(&vector["random_nonce"])])
        .args(["--random-ephemeral", text(&vector["random_ephemeral"])])
        .args(["--random-size", text(&vector["random_size"])]);
    command
}

#[test]
fn a_client_in_python_makes_the_same_packets() {
    if Command::new("python3").arg("--version").output().is_err() {
        return spa_tests::skip("a_client_in_python_makes_the_same_packets", "no python3 here");
    }
    let file: Value = serde_json::from_str(VALID).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let plain: Vec<_> = vectors.iter().filter(|vector| text(&vector["extensions"]).is_empty()).collect();
    assert!(plain.len() >= 14);
    for vector in plain {
        let mut child = command(vector).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let line = invite(&vector["keys"]).encode();
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", vector["name"]);
        let packet = String::from_utf8(output.stdout).unwrap();
        assert_eq!(packet.trim(), text(&vector["packet"]), "{}", vector["name"]);
    }
}

/// The major version of the Node.js that is here: it calls itself `v20.1.2`.
fn node_version() -> Option<u32> {
    let output = Command::new("node").arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[test]
fn a_client_in_javascript_agrees_with_the_vectors() {
    if node_version().is_none_or(|version| version < NODE_VERSION) {
        return spa_tests::skip("a_client_in_javascript_agrees_with_the_vectors", "no Node.js 18 here");
    }
    let output = Command::new("node").args([NODE_SCRIPT, "--self-test"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
