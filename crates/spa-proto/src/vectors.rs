//! Makes the test vectors under `tests/vectors/` and the worked example of `docs/PROTOCOL.md`, and fails where what
//! is committed differs. `tests/vectors.rs` consumes them through the public interface alone.
//!
//! After a change: `cargo test -p spa-proto -- --ignored write_the_vectors`.

mod files;
mod invalid;
mod page;
mod valid;

use std::path::PathBuf;

use serde::{Serialize, Serializer};

use crate::keys::{CloakKey, Psk, PublicKey, SecretKey};
use crate::packet::Sealer;
use crate::payload::Request;

/// A JSON value whose objects keep the order in which they were written.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Node {
    Text(String),
    Number(u64),
    List(Vec<Node>),
    #[serde(serialize_with = "in_order")]
    Object(Vec<(&'static str, Node)>),
}

fn in_order<S: Serializer>(entries: &[(&'static str, Node)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Node {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> Node {
    Node::Text(hex::encode(bytes))
}

/// `tcp/22` is an endpoint, and anything without a slash a service.
fn request(text: &str) -> Request {
    match text.parse() {
        Ok(endpoint) => Request::Endpoint(endpoint),
        Err(_) => Request::Service(text.parse().unwrap()),
    }
}

/// The fixed keys of a server and one of its clients.
struct Keys {
    server: SecretKey,
    client: SecretKey,
    psk: Psk,
    cloak: CloakKey,
}

impl Keys {
    /// Ascending bytes from the four given ones on, so that nobody takes them for real keys.
    fn ascending(starts: [u8; 4]) -> Self {
        let [server, client, psk, cloak] =
            starts.map(|start| core::array::from_fn(|i| start.wrapping_add(i as u8)));
        Self {
            server: SecretKey::from_bytes(server),
            client: SecretKey::from_bytes(client),
            psk: Psk::from_bytes(psk),
            cloak: CloakKey::from_bytes(cloak),
        }
    }

    /// Those of most vectors.
    fn usual() -> Self {
        Self::ascending([0x00, 0x20, 0x40, 0x60])
    }

    fn server_public(&self) -> PublicKey {
        self.server.public_key()
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(&self.client, &self.psk, &self.cloak, &self.server_public()).unwrap()
    }

    fn node(&self) -> Node {
        Node::Object(vec![
            ("server_private", hex(self.server.expose())),
            ("server_public", hex(self.server_public().as_bytes())),
            ("client_private", hex(self.client.expose())),
            ("client_public", hex(self.client.public_key().as_bytes())),
            ("psk", hex(self.psk.expose())),
            ("cloak", hex(self.cloak.expose())),
        ])
    }
}

/// Every generated file, by its path from the repository's root, with what it should hold.
fn generated() -> Vec<(&'static str, String)> {
    let text = |node: Node| serde_json::to_string_pretty(&node).unwrap() + "\n";
    vec![
        ("tests/vectors/packet-v1.json", text(valid::node())),
        ("tests/vectors/invalid-v1.json", text(invalid::node())),
        ("tests/vectors/files-v1.json", text(files::node())),
        (page::PATH, page::text(&std::fs::read_to_string(path(page::PATH)).unwrap())),
    ]
}

fn path(from_root: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(from_root)
}

#[test]
fn the_committed_vectors_are_what_the_code_makes() {
    for (name, wanted) in generated() {
        let committed = std::fs::read_to_string(path(name)).unwrap_or_default();
        assert!(
            committed == wanted,
            "{name} differs from what the code makes. If the change is meant (it breaks every other \
             implementation): cargo test -p spa-proto -- --ignored write_the_vectors"
        );
    }
}

#[test]
#[ignore = "writes the files that the test above compares"]
fn write_the_vectors() {
    for (name, text) in generated() {
        std::fs::write(path(name), text).unwrap();
    }
}
