use serde_json::Value;
use snow::Builder;

use super::*;
use crate::keys::SecretKey;

const VECTOR: &str = include_str!("../../../../tests/vectors/published/cacophony-kpsk0.json");

/// The chaining key, the hash and the cipher key after a step of the handshake.
#[derive(Clone)]
pub(crate) struct Step {
    pub name: &'static str,
    pub chaining_key: [u8; 32],
    pub hash: [u8; 32],
    pub key: [u8; 32],
}

/// Every step of the handshake as Noise section 5.2 has them, with all that they yield: for the test vectors, and to
/// be compared with what [`Handshake::symmetric_state`] leaves out.
pub(crate) fn trace(handshake: &Handshake<'_>, psk: &[u8; 32]) -> Vec<Step> {
    let mut state =
        Step { name: "initialize", chaining_key: initial_hash(), hash: initial_hash(), key: [0; 32] };
    let mut steps = vec![state.clone()];
    let mut step = |name, mix: &dyn Fn(&mut Step)| {
        mix(&mut state);
        state.name = name;
        steps.push(state.clone());
    };
    step("MixHash(prologue)", &|state| state.mix_hash(handshake.prologue));
    step("MixHash(client public)", &|state| state.mix_hash(handshake.initiator.as_bytes()));
    step("MixHash(server public)", &|state| state.mix_hash(handshake.responder.as_bytes()));
    step("MixKeyAndHash(Noise psk)", &|state| {
        let [chaining_key, mixed, key] = hkdf(&state.chaining_key, psk);
        (state.chaining_key, state.key) = (chaining_key, key);
        state.mix_hash(&mixed);
    });
    step("MixHash(e)", &|state| state.mix_hash(handshake.ephemeral));
    step("MixKey(e)", &|state| state.mix_key(handshake.ephemeral));
    step("MixKey(es)", &|state| state.mix_key(handshake.es.expose()));
    step("MixKey(ss)", &|state| state.mix_key(handshake.ss.expose()));
    let real = handshake.symmetric_state();
    assert_eq!((state.hash, state.key), (real.hash, *real.key));
    steps
}

impl Step {
    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = Blake2s256::new().chain_update(self.hash).chain_update(data).finalize().into();
    }

    fn mix_key(&mut self, input: &[u8; 32]) {
        [self.chaining_key, self.key, _] = hkdf(&self.chaining_key, input);
    }
}

/// One side's keys: enough to run the handshake of either side.
struct Keys {
    client: SecretKey,
    server: SecretKey,
    psk: [u8; 32],
    ephemeral: SecretKey,
}

impl Keys {
    /// Fixed, and different for each `seed`.
    fn from_seed(seed: u64) -> Self {
        let draw = |label: u8| -> [u8; 32] {
            Blake2s256::new().chain_update(seed.to_be_bytes()).chain_update([label]).finalize().into()
        };
        Self {
            client: SecretKey::from_bytes(draw(0)),
            server: SecretKey::from_bytes(draw(1)),
            psk: draw(2),
            ephemeral: SecretKey::from_bytes(draw(3)),
        }
    }

    fn with<T>(&self, prologue: &[u8], run: impl FnOnce(Handshake<'_>) -> T) -> T {
        let (client, server, e) =
            (self.client.public_key(), self.server.public_key(), self.ephemeral.public_key());
        run(Handshake {
            prologue,
            initiator: &client,
            responder: &server,
            psk: &PskToken::new(&self.psk),
            ephemeral: e.as_bytes(),
            es: &self.server.diffie_hellman(e.as_bytes()).unwrap(),
            ss: &self.client.diffie_hellman(server.as_bytes()).unwrap(),
        })
    }

    /// What goes over the wire: `e`, then the ciphertext.
    fn seal(&self, prologue: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut ciphertext = [payload, &[0; AEAD_TAG_LENGTH]].concat();
        self.with(prologue, |handshake| handshake.encrypt(&mut ciphertext));
        [self.ephemeral.public_key().as_bytes(), ciphertext.as_slice()].concat()
    }

    fn open(&self, prologue: &[u8], message: &[u8]) -> Option<Vec<u8>> {
        let (e, ciphertext) = message.split_first_chunk::<32>()?;
        assert_eq!(e, self.ephemeral.public_key().as_bytes());
        let mut buffer = ciphertext.to_vec();
        self.with(prologue, |handshake| handshake.decrypt(&mut buffer).map(<[u8]>::to_vec))
    }

    fn snow(&self, prologue: &[u8], initiator: bool) -> snow::HandshakeState {
        let (own, other) =
            if initiator { (&self.client, &self.server) } else { (&self.server, &self.client) };
        let other = other.public_key();
        let builder = Builder::new("Noise_Kpsk0_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
            .prologue(prologue)
            .unwrap()
            .psk(0, &self.psk)
            .unwrap()
            .local_private_key(own.expose())
            .unwrap()
            .remote_public_key(other.as_bytes())
            .unwrap();
        if initiator {
            builder.fixed_ephemeral_key_for_testing_only(self.ephemeral.expose()).build_initiator().unwrap()
        } else {
            builder.build_responder().unwrap()
        }
    }
}

/// The vector of cacophony for exactly this pattern; its source is in the file.
#[test]
fn published_vector_of_the_pattern() {
    let vector: Value = serde_json::from_str(VECTOR).unwrap();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
    let key = |value: &Value| <[u8; 32]>::try_from(bytes(value)).unwrap();
    assert_eq!(vector["protocol_name"].as_str().unwrap().as_bytes(), PROTOCOL_NAME);
    let keys = Keys {
        client: SecretKey::from_bytes(key(&vector["init_static"])),
        server: SecretKey::from_bytes(key(&vector["resp_static"])),
        psk: key(&vector["init_psks"][0]),
        ephemeral: SecretKey::from_bytes(key(&vector["init_ephemeral"])),
    };
    assert_eq!(keys.server.public_key().as_bytes(), &key(&vector["init_remote_static"]));
    assert_eq!(keys.client.public_key().as_bytes(), &key(&vector["resp_remote_static"]));
    let prologue = bytes(&vector["init_prologue"]);
    let (payload, message) =
        (bytes(&vector["messages"][0]["payload"]), bytes(&vector["messages"][0]["ciphertext"]));
    assert_eq!(keys.seal(&prologue, &payload), message);
    assert_eq!(keys.open(&prologue, &message), Some(payload));
    let hash = keys.with(&prologue, |handshake| mix_hash(&handshake.symmetric_state().hash, &message[32..]));
    assert_eq!(hash, key(&vector["handshake_hash"]));
}

/// `snow` opens what we seal, we open what `snow` seals, and the bytes are the same.
#[test]
fn snow_agrees_both_ways() {
    for seed in 0..200 {
        let keys = Keys::from_seed(seed);
        let prologue = prologue(&[seed as u8; 12], seed as u32, &[!seed as u8; 8]);
        let payload: Vec<u8> = (0..(seed * 7 % 449) as usize).map(|i| i as u8).collect();

        let ours = keys.seal(&prologue, &payload);
        let mut opened = vec![0; ours.len()];
        let length = keys.snow(&prologue, false).read_message(&ours, &mut opened).unwrap();
        assert_eq!(opened[..length], payload);

        let mut theirs = vec![0; ours.len()];
        let length = keys.snow(&prologue, true).write_message(&payload, &mut theirs).unwrap();
        assert_eq!(theirs[..length], ours);
        assert_eq!(keys.open(&prologue, &theirs), Some(payload));
    }
}

#[test]
fn every_input_of_the_handshake_counts() {
    let payload = [9; 40];
    let (keys, other) = (Keys::from_seed(1), Keys::from_seed(2));
    let message = keys.seal(b"prologue", &payload);
    assert!(keys.open(b"prologue", &message).is_some());
    assert!(keys.open(b"prologuf", &message).is_none());
    let Keys { client, server, psk, ephemeral } = Keys::from_seed(1);
    let wrong_psk = Keys { psk: other.psk, client: client.clone(), server: server.clone(), ephemeral };
    assert!(wrong_psk.open(b"prologue", &message).is_none());
    let ephemeral = Keys::from_seed(1).ephemeral;
    let wrong_client = Keys { client: other.client, server, psk, ephemeral };
    assert!(wrong_client.open(b"prologue", &message).is_none());
    let wrong_server = Keys { server: other.server, ..Keys::from_seed(1) };
    let snow_opens = wrong_server.snow(b"prologue", false).read_message(&message, &mut [0; 100]);
    assert!(snow_opens.is_err());
}

#[test]
fn nothing_shorter_than_a_tag_opens() {
    let keys = Keys::from_seed(3);
    for length in 0..AEAD_TAG_LENGTH {
        let opened = keys.with(b"", |handshake| handshake.decrypt(&mut vec![0; length]).is_some());
        assert!(!opened);
    }
}

/// HMAC of RFC 2104, spelled out for keys of up to a block.
fn plain_hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let inner = Blake2s256::new().chain_update(pad(0x36)).chain_update(data).finalize();
    Blake2s256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// HKDF of Noise revision 34, section 4.3, with three outputs; with two they are the first two.
fn hkdf(chaining_key: &[u8; 32], input: &[u8]) -> [[u8; 32]; 3] {
    let temporary = plain_hmac(chaining_key, input);
    let first = plain_hmac(&temporary, &[1]);
    let second = plain_hmac(&temporary, &[&first[..], &[2]].concat());
    let third = plain_hmac(&temporary, &[&second[..], &[3]].concat());
    [first, second, third]
}

#[test]
fn hkdf_is_that_of_noise() {
    for seed in 0..20 {
        let (chaining_key, input) = ([seed; 32], [!seed; 32]);
        let [first, second, third] = hkdf(&chaining_key, &input);
        let keys = Hkdf::new(&chaining_key, &input);
        assert_eq!([*keys.first(), *keys.next(&first, 2), *keys.next(&second, 3)], [first, second, third]);
    }
}
