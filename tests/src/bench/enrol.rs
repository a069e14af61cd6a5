//! Many clients of one server, by the files that `client add` writes: as many runs of it would take most of the bench's
//! time.

use spa_proto::{Invite, Psk, PublicKey, SecretKey};
use spa_tests::{Server, write_private};

use super::forge::Forger;

/// A client who may have `ssh` and can knock.
pub fn forger(server: &Server, number: usize, invite: &Invite) -> Forger {
    let (secret, psk) = (SecretKey::from_bytes(rand::random()), Psk::from_bytes(rand::random()));
    write(server, number, &secret.public_key(), &psk);
    Forger::new(&secret, &psk, invite)
}

/// A client whose private key nobody has, which is as dear to the server and cheaper to invent.
pub fn nobody(server: &Server, number: usize) {
    let public = PublicKey::from_bytes(public_key()).expect("a public key");
    write(server, number, &public, &Psk::from_bytes(rand::random()));
}

/// The public key of nobody: the canonical form of a random number. One of low order is never drawn.
pub fn public_key() -> [u8; 32] {
    let mut public: [u8; 32] = rand::random();
    public[31] &= 0x7f;
    public
}

fn write(server: &Server, number: usize, public: &PublicKey, psk: &Psk) {
    let name = format!("c{number}");
    let toml = format!(
        "name = \"{name}\"\npublic-key = \"{public}\"\npsk-file = \"{name}.psk\"\nallow = [\"ssh\"]\n"
    );
    write_private(&server.file(&format!("clients.d/{name}.psk")), spa_proto::psk_file_text(psk).as_bytes());
    write_private(&server.file(&format!("clients.d/{name}.toml")), toml);
}
