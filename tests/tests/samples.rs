//! The sample configurations are right: the programs themselves say so.

use std::fs;
use std::path::{Path, PathBuf};

use spa_tests::{Client, Family, Server, Settings, Topology, Variant, in_namespace, write_private};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn example(name: &str) -> String {
    fs::read_to_string(examples().join(name)).unwrap_or_else(|error| panic!("examples/{name}: {error}"))
}

#[test]
fn server_and_client_samples_pass_their_checks() {
    in_namespace(|| {
        let topology = Topology::new();
        let server = Server::new(&topology, &Settings::new(Variant::Nft));
        let address = topology.server.address(Family::V4).to_string();
        let invite = server.enrol("alice", "ssh", &address, &[]);
        // With the sample's paths pointed here, and alice's psk from her enrolment.
        let here = server.file("");
        let here = here.to_str().expect("a plain path").trim_end_matches('/');
        let text = example("server.toml");
        assert!(text.contains("\"/etc/spa/") && text.contains("\"/var/lib/spa\""));
        let state = format!("\"{here}/state\"");
        let text = text.replace("\"/etc/spa/", &format!("\"{here}/")).replace("\"/var/lib/spa\"", &state);
        write_private(&server.config(), text);
        write_private(&server.file("clients.d/alice.toml"), example("alice.toml"));
        server.must(&["check"]);
        let alice = Client::invited(&topology.client, "alice", &invite);
        if examples().join("client.toml").exists() {
            // The sample's key file is relative to it: the one just imported has the same name.
            write_private(&alice.config(), example("client.toml"));
            // An example's host name resolves nowhere in here; the file itself is what is to be right.
            let output = alice.call(&["hosts"]);
            spa_tests::succeeded("spa-client hosts, with examples/client.toml", &output);
        }
    });
}
