use super::*;
use crate::endpoint::{Endpoint, Protocol};
use crate::noise::tests::{Step, trace};
use crate::payload::{Action, Address, Request, Requests};

#[test]
fn what_a_client_seals_its_server_opens() {
    let server = SecretKey::from_bytes([1; 32]);
    let client = SecretKey::from_bytes([2; 32]);
    let (psk, cloak) = (Psk::from_bytes([3; 32]), CloakKey::from_bytes([4; 32]));
    let ssh = Request::Endpoint(Endpoint::new(Protocol::Tcp, 22).unwrap());
    let knock = Knock {
        action: Action::Open { requests: Requests::new([ssh]).unwrap(), seconds: 30 },
        address: Address::Bound("192.0.2.7".parse().unwrap()),
        counter: 1_766_361_600_123_456_789,
    };
    let sealer = Sealer::new(&client, &psk, &cloak, &server.public_key()).unwrap();
    let random = Randomness { nonce: [5; 12], ephemeral: [6; 32], size: 77 };
    let packet = sealer.seal(&knock, &random);
    assert_eq!(packet.len(), 256 + 77);

    let envelope = Cloak::new(&cloak, &server.public_key()).open(&packet).unwrap();
    let gate = GateKeys::new(&psk, &server.public_key(), &client.public_key());
    assert_eq!(envelope.hint(), gate.hint(epoch(envelope.time())));
    assert!(gate.admits(&envelope));
    let es = server.diffie_hellman(&envelope.ephemeral()).unwrap();
    let message = Message {
        nonce: &envelope.nonce(),
        time: envelope.time(),
        hint: &envelope.hint(),
        ephemeral: &envelope.ephemeral(),
        es: &es,
        ciphertext: envelope.ciphertext(),
    };
    let opener = Opener::new(&server, &client.public_key(), &psk).unwrap();
    assert_eq!(opener.open(&message).as_ref(), Ok(&knock));
    assert!(Cloak::new(&CloakKey::from_bytes([9; 32]), &server.public_key()).open(&packet).is_none());
}

/// Everything that making a packet computes on the way.
pub(crate) struct Sealed {
    pub filter: [u8; 16],
    pub mask: [u8; 32],
    pub hint_key: [u8; 16],
    pub gate: [u8; 16],
    pub noise_psk: [u8; 32],
    pub hedge: [u8; 32],
    pub time: u32,
    pub hint: Hint,
    pub ephemeral: SecretKey,
    pub es: SharedSecret,
    pub ss: SharedSecret,
    pub prologue: [u8; 40],
    pub noise: Vec<Step>,
    pub payload: Vec<u8>,
    pub unmasked: Vec<u8>,
    pub mask_start: [u8; 64],
    pub packet: Vec<u8>,
}

/// Seals any content, with zero padding up to the size that `random` chooses, and keeps what lies between.
pub(crate) fn seal_payload(sealer: &Sealer, content: &[u8], knock: &Knock, random: &Randomness) -> Sealed {
    let time = (knock.counter / NANOS_PER_SECOND) as u32;
    let ephemeral = sealer.ephemeral(&random.ephemeral, knock.counter);
    let mut packet = vec![0; packet_size(content.len(), random.size)];
    packet[CIPHERTEXT][..content.len()].copy_from_slice(content);
    let payload = packet[HEADER_LENGTH..packet.len() - AEAD_TAG_LENGTH].to_vec();
    sealer.seal_in_place(&mut packet, time, &ephemeral, &random.nonce);

    let mut mask = vec![0; packet.len()];
    mask[NONCE].copy_from_slice(&random.nonce);
    sealer.cloak.seal(&mut mask); // masks zeros, which leaves the mask itself
    let mut unmasked = packet.clone();
    unmasked.iter_mut().zip(&mask).skip(28).for_each(|(byte, mask)| *byte ^= mask);
    let hint = sealer.gate.hint(epoch(time));
    let prologue = prologue(&random.nonce, time, &hint);
    let es = ephemeral.diffie_hellman(sealer.server.as_bytes()).unwrap();
    let ephemeral_public = ephemeral.public_key();
    let handshake = Handshake {
        prologue: &prologue,
        initiator: &sealer.client,
        responder: &sealer.server,
        psk: &PskToken::new(&sealer.noise_psk),
        ephemeral: ephemeral_public.as_bytes(),
        es: &es,
        ss: &sealer.ss,
    };
    let noise = trace(&handshake, &sealer.noise_psk);
    Sealed {
        filter: sealer.cloak.filter.0,
        mask: *sealer.cloak.mask,
        hint_key: sealer.gate.hint.0,
        gate: sealer.gate.gate.0,
        noise_psk: *sealer.noise_psk,
        hedge: *sealer.hedge,
        time,
        hint,
        ephemeral,
        es,
        ss: sealer.ss.clone(),
        prologue,
        noise,
        payload,
        unmasked,
        mask_start: core::array::from_fn(|i| mask[28 + i]),
        packet,
    }
}

/// Seals a payload of any length, however broken, with a time of its own.
pub(crate) fn seal_raw(sealer: &Sealer, payload: &[u8], time: u32, random: &Randomness) -> Vec<u8> {
    let mut packet = vec![0; HEADER_LENGTH];
    packet.extend_from_slice(payload);
    packet.extend_from_slice(&[0; AEAD_TAG_LENGTH]);
    let ephemeral = sealer.ephemeral(&random.ephemeral, u64::from(time) * NANOS_PER_SECOND);
    sealer.seal_in_place(&mut packet, time, &ephemeral, &random.nonce);
    packet
}

/// Takes the mask off a packet, alters it, makes `M` anew if `gate` says so, and masks and tags it again.
pub(crate) fn reseal(sealer: &Sealer, packet: &[u8], gate: bool, alter: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut packet = packet.to_vec();
    sealer.cloak.seal(&mut packet); // the mask is its own inverse
    alter(&mut packet);
    if gate {
        sealer.seal_envelope(&mut packet)
    } else {
        sealer.cloak.seal(&mut packet)
    }
    packet
}
