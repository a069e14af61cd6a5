//! Knocks sealed in this process, with the project's own codec: so that exec is no part of what is measured.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use spa_proto::{
    Action, Address, Endpoint, Invite, Knock, Protocol, Psk, Randomness, Request, Requests, Sealer, SecretKey,
};

/// One client.
pub struct Forger {
    sealer: Sealer,
}

impl Forger {
    /// An honest client.
    pub fn client(invite: &str) -> Self {
        Self::with(&parse(invite))
    }

    /// Somebody who has the cloak key alone.
    pub fn cloak_alone(invite: &str) -> Self {
        let mut invite = parse(invite);
        invite.psk = Psk::from_bytes(rand::random());
        invite.secret = Some(SecretKey::from_bytes(rand::random()));
        Self::with(&invite)
    }

    fn with(invite: &Invite) -> Self {
        let secret = invite.secret.as_ref().expect("the server made the client's pair");
        Self::new(secret, &invite.psk, invite)
    }

    /// A client of the invite's server with keys of its own.
    pub fn new(secret: &SecretKey, psk: &Psk, server: &Invite) -> Self {
        let sealer = Sealer::new(secret, psk, &server.cloaks[0], &server.server);
        Self { sealer: sealer.expect("honest keys have a shared secret") }
    }

    /// A knock for a TCP port, now.
    pub fn knock(&self, port: u16) -> Vec<u8> {
        let endpoint = Endpoint::new(Protocol::Tcp, port).expect("not port 0");
        let requests = Requests::new([Request::Endpoint(endpoint)]).expect("one request");
        let action = Action::Open { requests, seconds: 0 };
        let random = Randomness { nonce: rand::random(), ephemeral: rand::random(), size: rand::random() };
        self.sealer.seal(&Knock { action, address: Address::Observed, counter: now() }, &random)
    }
}

/// An invite that spa-server printed.
pub fn parse(invite: &str) -> Invite {
    Invite::parse(invite.trim()).expect("spa-server made it")
}

/// Unix nanoseconds, never the same twice in a process.
fn now() -> u64 {
    static LAST: Mutex<u64> = Mutex::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let mut last = LAST.lock().expect("nobody panics while they hold it");
    *last = clock.max(*last + 1);
    *last
}
