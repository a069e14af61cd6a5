//! Packets that no honest client sends, made with the project's own codec and chosen keys.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use spa_proto::{Action, Address, Invite, Knock, Psk, Randomness, Request, Requests, Sealer, SecretKey};

/// What an attacker holds of a client's invite, and wants.
pub struct Forger {
    sealer: Sealer,
}

impl Forger {
    /// Everything: the client itself.
    pub fn client(invite: &str) -> Self {
        Self::with(invite, |_| ())
    }

    /// The cloak key alone; all else is made up.
    pub fn cloak_alone(invite: &str) -> Self {
        Self::with(invite, |invite| {
            invite.psk = Psk::from_bytes(rand::random());
            invite.secret = Some(SecretKey::from_bytes(rand::random()));
        })
    }

    fn with(text: &str, change: impl FnOnce(&mut Invite)) -> Self {
        let mut invite = Invite::parse(text.trim()).expect("spa-server made it");
        change(&mut invite);
        let secret = invite.secret.as_ref().expect("the server made the client's pair");
        let sealer = Sealer::new(secret, &invite.psk, &invite.cloaks[0], &invite.server);
        Self { sealer: sealer.expect("honest keys have a shared secret") }
    }

    /// A knock for a service, now.
    pub fn knock(&self, service: &str, address: Address) -> Vec<u8> {
        self.knock_at(service, address, now())
    }

    /// A knock for a service with a counter, Unix nanoseconds.
    pub fn knock_at(&self, service: &str, address: Address, counter: u64) -> Vec<u8> {
        let name = service.parse().expect("a service's name");
        let requests = Requests::new([Request::Service(name)]).expect("one request");
        self.seal(Action::Open { requests, seconds: 0 }, address, counter)
    }

    /// A close of everything, with a counter, Unix nanoseconds.
    pub fn close_at(&self, counter: u64) -> Vec<u8> {
        let requests = Requests::new([]).expect("no request");
        self.seal(Action::Close { requests }, Address::Observed, counter)
    }

    fn seal(&self, action: Action, address: Address, counter: u64) -> Vec<u8> {
        let knock = Knock { action, address, counter };
        let random = Randomness { nonce: rand::random(), ephemeral: rand::random(), size: rand::random() };
        self.sealer.seal(&knock, &random)
    }
}

/// Unix nanoseconds, never the same twice in a process.
pub fn now() -> u64 {
    static LAST: Mutex<u64> = Mutex::new(0);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let mut last = LAST.lock().expect("nobody panics while they hold it");
    *last = clock.max(*last + 1);
    *last
}
