//! The vectors of `tests/vectors/`, through the public interface alone: what any implementation would do with them.
#![allow(clippy::unwrap_used)] // helpers of tests

use serde_json::Value;
use spa_proto::{
    Action, Address, ClientKeyFile, Cloak, CloakKey, Envelope, GateKeys, Invite, InviteError, KeyFileError,
    Knock, MAX_PACKET, MIN_PACKET, Message, OpenError, Opener, Psk, PublicKey, Randomness, Request, Requests,
    SealedInvite, Sealer, SecretKey, ServerKeyFile, epoch, parse_psk_file, psk_file_text,
};

const VALID: &str = include_str!("../../../tests/vectors/packet-v1.json");
const INVALID: &str = include_str!("../../../tests/vectors/invalid-v1.json");
const FILES: &str = include_str!("../../../tests/vectors/files-v1.json");

fn vectors(file: &str) -> Value {
    serde_json::from_str(file).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

struct Keys {
    server: SecretKey,
    client: SecretKey,
    psk: Psk,
    cloak: CloakKey,
}

impl Keys {
    fn new(value: &Value) -> Self {
        let keys = Self {
            server: SecretKey::from_bytes(array(&value["server_private"])),
            client: SecretKey::from_bytes(array(&value["client_private"])),
            psk: Psk::from_bytes(array(&value["psk"])),
            cloak: CloakKey::from_bytes(array(&value["cloak"])),
        };
        assert_eq!(keys.server.public_key().as_bytes(), &array(&value["server_public"]));
        assert_eq!(keys.client.public_key().as_bytes(), &array(&value["client_public"]));
        keys
    }

    /// All that a server does with a packet, in its order, but for freshness and replay.
    fn serve(&self, packet: &[u8]) -> Result<(Envelope, Knock), &'static str> {
        let server = self.server.public_key();
        if !(MIN_PACKET..=MAX_PACKET).contains(&packet.len()) {
            assert!(Cloak::new(&self.cloak, &server).open(packet).is_none());
            return Err("length");
        }
        let envelope = Cloak::new(&self.cloak, &server).open(packet).ok_or("tag")?;
        let gate = GateKeys::new(&self.psk, &server, &self.client.public_key());
        if gate.hint(epoch(envelope.time())) != envelope.hint() {
            return Err("hint");
        }
        if !gate.admits(&envelope) {
            return Err("gate");
        }
        let es = self.server.diffie_hellman(&envelope.ephemeral()).ok_or("low-order")?;
        let message = Message {
            nonce: &envelope.nonce(),
            time: envelope.time(),
            hint: &envelope.hint(),
            ephemeral: &envelope.ephemeral(),
            es: &es,
            ciphertext: envelope.ciphertext(),
        };
        let opener = Opener::new(&self.server, &self.client.public_key(), &self.psk).unwrap();
        match opener.open(&message) {
            Ok(knock) => Ok((envelope, knock)),
            Err(OpenError::NotAuthentic) => Err("authentic"),
            Err(OpenError::TimeMismatch) => Err("TimeMismatch"),
            Err(OpenError::Payload(error)) => Err(reason(error)),
        }
    }
}

fn reason(error: spa_proto::PayloadError) -> &'static str {
    use spa_proto::PayloadError as Error;
    match error {
        Error::Truncated => "Truncated",
        Error::Version => "Version",
        Error::Kind => "Kind",
        Error::Address => "Address",
        Error::Request => "Request",
        Error::Extension => "Extension",
        Error::UnknownCritical(_) => "UnknownCritical",
        Error::Padding => "Padding",
    }
}

fn knock(value: &Value) -> Knock {
    let requests = list(&value["requests"]).iter().map(|request| match text(request).parse() {
        Ok(endpoint) => Request::Endpoint(endpoint),
        Err(_) => Request::Service(text(request).parse().unwrap()),
    });
    let requests = Requests::new(requests).unwrap();
    let address = || text(&value["address"]).parse().unwrap();
    Knock {
        action: match text(&value["kind"]) {
            "open" => Action::Open { requests, seconds: value["seconds"].as_u64().unwrap() as u32 },
            "close" => Action::Close { requests },
            other => panic!("{other}"),
        },
        address: match text(&value["mode"]) {
            "observed" => Address::Observed,
            "bound" => Address::Bound(address()),
            "explicit" => Address::Explicit(address()),
            other => panic!("{other}"),
        },
        counter: text(&value["counter"]).parse().unwrap(),
    }
}

#[test]
fn valid_packets_are_made_and_opened() {
    let file = vectors(VALID);
    for vector in list(&file["vectors"]) {
        let name = text(&vector["name"]);
        let keys = Keys::new(&vector["keys"]);
        let knock = knock(&vector["knock"]);
        let packet = bytes(&vector["packet"]);

        let (envelope, opened) = keys.serve(&packet).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        assert_eq!(opened, knock, "{name}");
        assert_eq!(u64::from(envelope.time()), vector["time"].as_u64().unwrap(), "{name}");
        assert_eq!(envelope.hint(), array(&vector["hint"]), "{name}");
        assert_eq!(envelope.tag(), array(&vector["tag"]), "{name}");
        assert_eq!(envelope.ephemeral(), array(&vector["ephemeral_public"]), "{name}");
        assert_eq!(envelope.ciphertext(), bytes(&vector["ciphertext"]), "{name}");
        let gate = GateKeys::new(&keys.psk, &keys.server.public_key(), &keys.client.public_key());
        let derived = [bytes(&vector["hint_key"]), bytes(&vector["gate_key"])].concat();
        assert_eq!(gate.to_bytes()[..], derived, "{name}");

        let plain = bytes(&vector["payload"]);
        assert_eq!(Knock::decode(&plain), Ok(knock.clone()), "{name}");
        if text(&vector["extensions"]).is_empty() {
            let encoded = knock.encode();
            assert_eq!(plain[..encoded.len()], encoded, "{name}");
            let random = Randomness {
                nonce: array(&vector["random_nonce"]),
                ephemeral: array(&vector["random_ephemeral"]),
                size: text(&vector["random_size"]).parse().unwrap(),
            };
            let sealer =
                Sealer::new(&keys.client, &keys.psk, &keys.cloak, &keys.server.public_key()).unwrap();
            assert_eq!(sealer.seal(&knock, &random), packet, "{name}");
        }
    }
}

#[test]
fn invalid_packets_are_refused_where_they_should_be() {
    let file = vectors(INVALID);
    let keys = Keys::new(&file["keys"]);
    for vector in list(&file["vectors"]) {
        let verdict = keys.serve(&bytes(&vector["packet"])).map(|(_, knock)| knock);
        assert_eq!(verdict, Err(text(&vector["refused"])), "{}", vector["name"]);
    }
}

fn cloaks(value: &Value) -> Vec<CloakKey> {
    list(value).iter().map(|key| CloakKey::from_bytes(array(key))).collect()
}

/// Compares what a key file says with its vector; `T` is rebuilt from the vector by `fields`.
fn check_file<T: PartialEq + core::fmt::Debug>(
    vector: &Value,
    read: Result<T, KeyFileError>,
    fields: fn(&Value) -> T,
) {
    let name = &vector["name"];
    match (read, vector.get("valid"), vector.get("refused")) {
        (Ok(file), Some(valid), None) => assert_eq!(file, fields(valid), "{name}"),
        (Err(error), None, Some(refused)) => {
            assert_eq!(error.line as u64, refused["line"].as_u64().unwrap(), "{name}");
            assert!(format!("{:?}", error.reason).starts_with(text(&refused["reason"])), "{name}");
            assert!(error.to_string().starts_with(&format!("line {}: ", error.line)), "{name}");
        }
        (read, ..) => panic!("{name}: {read:?}"),
    }
}

#[test]
fn key_files_are_read_or_refused() {
    let file = vectors(FILES);
    for vector in list(&file["server_key_files"]) {
        check_file(vector, ServerKeyFile::parse(text(&vector["text"])), |valid| ServerKeyFile {
            secret: SecretKey::from_bytes(array(&valid["private"])),
            cloaks: cloaks(&valid["cloaks"]),
        });
    }
    for vector in list(&file["client_key_files"]) {
        check_file(vector, ClientKeyFile::parse(text(&vector["text"])), |valid| ClientKeyFile {
            secret: SecretKey::from_bytes(array(&valid["private"])),
            psk: Psk::from_bytes(array(&valid["psk"])),
            cloaks: cloaks(&valid["cloaks"]),
        });
    }
    for vector in list(&file["psk_files"]) {
        check_file(vector, parse_psk_file(text(&vector["text"])), |valid| {
            Psk::from_bytes(array(&valid["psk"]))
        });
    }
    let first = &file["psk_files"][0];
    let psk = Psk::from_bytes(array(&first["valid"]["psk"]));
    assert_eq!(*psk_file_text(&psk), text(&first["text"]));
}

fn invite(value: &Value) -> Invite {
    let services = list(&value["services"]).iter().map(|service| {
        let endpoints = list(&service["endpoints"]).iter().map(|text_| text(text_).parse().unwrap());
        (text(&service["name"]).parse().unwrap(), endpoints.collect())
    });
    Invite {
        client: text(&value["client"]).parse().unwrap(),
        address: text(&value["address"]).to_owned(),
        port: value["port"].as_u64().unwrap() as u16,
        server: PublicKey::from_bytes(array(&value["server_public"])).unwrap(),
        cloaks: cloaks(&value["cloaks"]),
        psk: Psk::from_bytes(array(&value["psk"])),
        secret: value.get("private").map(|key| SecretKey::from_bytes(array(key))),
        services: services.collect(),
        expires: value.get("expires").map(|expires| expires.as_u64().unwrap()),
    }
}

#[test]
fn invites_are_read_or_refused() {
    let file = vectors(FILES);
    for vector in list(&file["invites"]) {
        let (name, line) = (text(&vector["name"]), text(&vector["text"]));
        match (Invite::parse(line), vector.get("valid"), vector.get("refused")) {
            (Ok(read), Some(valid), None) => {
                assert_eq!(read, invite(valid), "{name}");
                let skips = name.contains("unknown") || name.contains("skipped");
                assert_eq!(*read.encode() == line.trim(), !skips, "{name}");
            }
            (Err(error), None, Some(refused)) => {
                assert!(format!("{error:?}").starts_with(text(&refused["reason"])), "{name}: {error:?}");
                if let InviteError::Field(kind) = error {
                    assert_eq!(u64::from(kind), refused["field"].as_u64().unwrap(), "{name}");
                }
            }
            (read, ..) => panic!("{name}: {read:?}"),
        }
    }
}

#[test]
fn encrypted_invites_are_opened_or_refused() {
    let file = vectors(FILES);
    for vector in list(&file["sealed_invites"]) {
        let (name, line) = (text(&vector["name"]), text(&vector["text"]));
        assert_eq!(Invite::parse(line), Err(InviteError::Encrypted), "{name}");
        let read = SealedInvite::parse(line).and_then(|sealed| sealed.open(text(&vector["passphrase"])));
        match (read, vector.get("valid"), vector.get("refused")) {
            (Ok(read), Some(valid), None) => {
                assert_eq!(read, invite(valid), "{name}");
                assert_eq!(*SealedInvite::parse(line).unwrap().encode(), line.trim(), "{name}");
            }
            (Err(error), None, Some(refused)) => {
                assert!(format!("{error:?}").starts_with(text(&refused["reason"])), "{name}: {error:?}");
            }
            (read, ..) => panic!("{name}: {read:?}"),
        }
    }
}

/// An error may tell where a secret is wrong, never what it was.
#[test]
fn errors_hold_nothing_of_what_was_read() {
    let file = vectors(FILES);
    for vector in
        ["server_key_files", "client_key_files", "psk_files"].iter().flat_map(|kind| list(&file[kind]))
    {
        let content = text(&vector["text"]);
        let errors = [
            ServerKeyFile::parse(content).err(),
            ClientKeyFile::parse(content).err(),
            parse_psk_file(content).err(),
        ];
        for error in errors.into_iter().flatten() {
            let said = format!("{error} {error:?}");
            let values =
                content.lines().filter_map(|line| line.split_once('=')).map(|(_, value)| value.trim());
            for value in values.filter(|value| value.len() > 3) {
                assert!(!said.contains(value), "{said}");
            }
        }
    }
}
