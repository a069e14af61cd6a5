//! What several tests share: a server, its client, and the server's way through a packet.

use spa_proto::{
    Cloak, CloakKey, GateKeys, Knock, Message, Opener, Psk, Randomness, Sealer, SecretKey, epoch,
};

/// A small generator with a fixed seed (SplitMix64), so that a test is the same each time it runs.
pub struct Generator(pub u64);

impl Generator {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.next() as u8)
    }

    pub fn randomness(&mut self) -> Randomness {
        Randomness { nonce: self.bytes(), ephemeral: self.bytes(), size: self.next() }
    }
}

/// Both ends of one enrolment.
pub struct Pair {
    pub server: SecretKey,
    pub sealer: Sealer,
    pub cloak: Cloak,
    pub gate: GateKeys,
    pub opener: Opener,
}

impl Pair {
    pub fn new(seed: u64) -> Self {
        let mut generator = Generator(seed);
        let (server, client) =
            (SecretKey::from_bytes(generator.bytes()), SecretKey::from_bytes(generator.bytes()));
        let (psk, cloak) = (Psk::from_bytes(generator.bytes()), CloakKey::from_bytes(generator.bytes()));
        let public = server.public_key();
        Self {
            sealer: Sealer::new(&client, &psk, &cloak, &public).unwrap(),
            cloak: Cloak::new(&cloak, &public),
            gate: GateKeys::new(&psk, &public, &client.public_key()),
            opener: Opener::new(&server, &client.public_key(), &psk).unwrap(),
            server,
        }
    }

    /// All that a server does with a packet, but for freshness and replay.
    pub fn serve(&self, packet: &[u8]) -> Option<Knock> {
        let envelope = self.cloak.open(packet)?;
        if self.gate.hint(epoch(envelope.time())) != envelope.hint() || !self.gate.admits(&envelope) {
            return None;
        }
        let message = Message {
            nonce: &envelope.nonce(),
            time: envelope.time(),
            hint: &envelope.hint(),
            ephemeral: &envelope.ephemeral(),
            es: &self.server.diffie_hellman(&envelope.ephemeral())?,
            ciphertext: envelope.ciphertext(),
        };
        self.opener.open(&message).ok()
    }
}
