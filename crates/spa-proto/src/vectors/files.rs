//! `files-v1.json`: key files, psk files and invites, valid and not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use blake2::{Blake2s256, Digest as _};

use super::{Keys, Node, hex};
use crate::invite::{Invite, InviteError, MIN_WORK, SealedInvite};
use crate::keyfile::{ClientKeyFile, KeyFileError, ServerKeyFile, parse_psk_file, psk_file_text};
use crate::keys::CloakKey;

fn base64(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

/// The first word of an error's Debug form: the variant's name.
fn variant(error: impl core::fmt::Debug) -> Node {
    let text = format!("{error:?}");
    let end = text.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(text.len());
    Node::Text(text[..end].to_owned())
}

fn cloaks(cloaks: &[CloakKey]) -> Node {
    Node::List(cloaks.iter().map(|cloak| hex(cloak.expose())).collect())
}

/// One vector of a key file: the text, and what it says or why it says nothing.
fn file<T>(
    name: &str,
    text: &str,
    read: Result<T, KeyFileError>,
    fields: fn(T) -> Vec<(&'static str, Node)>,
) -> Node {
    let outcome = match read {
        Ok(file) => ("valid", Node::Object(fields(file))),
        Err(KeyFileError { line, reason }) => {
            ("refused", Node::Object(vec![("line", (line as u64).into()), ("reason", variant(reason))]))
        }
    };
    Node::Object(vec![("name", name.into()), ("text", text.into()), outcome])
}

fn server_files() -> Vec<Node> {
    let keys = Keys::usual();
    let one = ServerKeyFile { secret: keys.server.clone(), cloaks: vec![keys.cloak.clone()] };
    let four = (1..=4).map(|byte| CloakKey::from_bytes([byte; 32])).collect();
    let four = ServerKeyFile { secret: keys.server, cloaks: four };
    let (one, four) = (one.to_text(), four.to_text());
    let (private, cloak) = (base64(1), base64(2));
    let magic = "spa-server-key-v1";
    let unpadded = private.trim_end_matches('=');
    [
        ("one cloak key", one.to_string()),
        ("four cloak keys", four.to_string()),
        (
            "comments, blank lines, white space, no last line feed",
            format!("{magic}  \r\n\n# note = x\n  # more\n\tcloak={cloak}\t\r\nprivate   =   {private}"),
        ),
        ("empty", String::new()),
        ("a client's file", format!("spa-client-key-v1\nprivate = {private}\n")),
        (
            "a comment before the first line",
            format!("# note\n{magic}\nprivate = {private}\ncloak = {cloak}\n"),
        ),
        ("version 2", format!("spa-server-key-v2\nprivate = {private}\ncloak = {cloak}\n")),
        ("first line in capitals", format!("SPA-SERVER-KEY-V1\nprivate = {private}\ncloak = {cloak}\n")),
        ("white space before the first line", format!(" {magic}\nprivate = {private}\ncloak = {cloak}\n")),
        ("no private key", format!("{magic}\ncloak = {cloak}\n")),
        ("no cloak key", format!("{magic}\nprivate = {private}\n")),
        (
            "private key twice",
            format!("{magic}\nprivate = {private}\nprivate = {private}\ncloak = {cloak}\n"),
        ),
        (
            "the same cloak key twice",
            format!("{magic}\nprivate = {private}\ncloak = {cloak}\ncloak = {cloak}\n"),
        ),
        ("five cloak keys", format!("{}cloak = {}\n", *four, base64(5))),
        (
            "a name of another kind of file",
            format!("{magic}\nprivate = {private}\npsk = {cloak}\ncloak = {cloak}\n"),
        ),
        (
            "an unknown name",
            format!("{magic}\nprivate = {private}\ncloak = {cloak}\nprivate-mlkem768 = {cloak}\n"),
        ),
        ("a name in capitals", format!("{magic}\nPrivate = {private}\ncloak = {cloak}\n")),
        ("no equals sign", format!("{magic}\nprivate\ncloak = {cloak}\n")),
        ("a comment after a value", format!("{magic}\nprivate = {private} # note\ncloak = {cloak}\n")),
        ("base64 without padding", format!("{magic}\nprivate = {unpadded}\ncloak = {cloak}\n")),
        (
            "base64 with bits beyond the last byte",
            format!("{magic}\nprivate = {}B=\ncloak = {cloak}\n", &private[..42]),
        ),
        ("base64 of 31 bytes", format!("{magic}\nprivate = {}\ncloak = {cloak}\n", STANDARD.encode([1; 31]))),
        ("base64 of 33 bytes", format!("{magic}\nprivate = {}\ncloak = {cloak}\n", STANDARD.encode([1; 33]))),
        ("an empty value", format!("{magic}\nprivate =\ncloak = {cloak}\n")),
    ]
    .iter()
    .map(|(name, text)| {
        file(name, text, ServerKeyFile::parse(text), |read| {
            vec![("private", hex(read.secret.expose())), ("cloaks", cloaks(&read.cloaks))]
        })
    })
    .collect()
}

fn client_files() -> Vec<Node> {
    let keys = Keys::usual();
    let whole = ClientKeyFile { secret: keys.client, psk: keys.psk, cloaks: vec![keys.cloak] }.to_text();
    let (private, psk, cloak) = (base64(1), base64(2), base64(3));
    let magic = "spa-client-key-v1";
    [
        ("one cloak key", whole.to_string()),
        (
            "another order",
            format!("{magic}\ncloak = {cloak}\npsk = {psk}\ncloak = {psk}\nprivate = {private}\n"),
        ),
        ("no psk", format!("{magic}\nprivate = {private}\ncloak = {cloak}\n")),
        ("psk twice", format!("{magic}\nprivate = {private}\npsk = {psk}\npsk = {cloak}\ncloak = {cloak}\n")),
        ("no cloak key", format!("{magic}\nprivate = {private}\npsk = {psk}\n")),
        ("a server's file", "spa-server-key-v1\n".to_owned()),
    ]
    .iter()
    .map(|(name, text)| {
        file(name, text, ClientKeyFile::parse(text), |read| {
            vec![
                ("private", hex(read.secret.expose())),
                ("psk", hex(read.psk.expose())),
                ("cloaks", cloaks(&read.cloaks)),
            ]
        })
    })
    .collect()
}

fn psk_files() -> Vec<Node> {
    let psk = base64(1);
    [
        ("a psk", psk_file_text(&Keys::usual().psk).to_string()),
        ("nothing but the first line", "spa-psk-v1\n".to_owned()),
        ("base64 alone", format!("{psk}\n")),
        ("psk twice", format!("spa-psk-v1\npsk = {psk}\npsk = {psk}\n")),
        ("version 10", format!("spa-psk-v10\npsk = {psk}\n")),
    ]
    .iter()
    .map(|(name, text)| file(name, text, parse_psk_file(text), |psk| vec![("psk", hex(psk.expose()))]))
    .collect()
}

/// An invite of these fields, with the length and the check right.
fn line(fields: &[u8]) -> String {
    let mut bytes = ((fields.len() + 4) as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(fields);
    bytes.extend_from_slice(&Blake2s256::digest(&bytes)[..4]);
    format!("spa1-{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

/// The fields of a small invite, by their types; each may be replaced.
fn fields(alter: impl FnOnce(&mut Vec<(u8, Vec<u8>)>)) -> String {
    let keys = Keys::usual();
    let mut fields = vec![
        (1, b"alice".to_vec()),
        (2, b"192.0.2.1".to_vec()),
        (3, vec![0xf2, 0xf9]),
        (4, keys.server_public().as_bytes().to_vec()),
        (5, keys.cloak.expose().to_vec()),
        (6, keys.psk.expose().to_vec()),
        (7, keys.client.expose().to_vec()),
        (8, b"\x03ssh\x06\x00\x16".to_vec()),
        (9, vec![0, 0, 0, 0, 0x69, 0x48, 0x8b, 0x80]),
    ];
    alter(&mut fields);
    line(&fields.iter().flat_map(|(kind, value)| field(*kind, value)).collect::<Vec<_>>())
}

/// A small invite with the value of one field replaced.
fn replaced(kind: u8, value: &[u8]) -> String {
    fields(|fields| fields.iter_mut().find(|(own, _)| *own == kind).unwrap().1 = value.to_vec())
}

fn without(kind: u8) -> String {
    fields(|fields| fields.retain(|(own, _)| *own != kind))
}

/// A small invite with a field added where its type belongs.
fn added(kind: u8, value: &[u8]) -> String {
    fields(|fields| {
        fields.push((kind, value.to_vec()));
        fields.sort_by_key(|(kind, _)| *kind);
    })
}

fn large_invite() -> Invite {
    let keys = Keys::usual();
    let service = |name: &str, endpoints: &[&str]| {
        (name.parse().unwrap(), endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect())
    };
    Invite {
        client: "bob.laptop_2-x".parse().unwrap(),
        address: "bastion.example.org".to_owned(),
        port: 62201,
        server: keys.server_public(),
        cloaks: (1..=4).map(|byte| CloakKey::from_bytes([byte; 32])).collect(),
        psk: keys.psk,
        secret: None,
        services: vec![service("dns", &["tcp/53", "udp/53"]), service("ssh", &["tcp/22"])],
        expires: None,
    }
}

fn invite_texts() -> Vec<(&'static str, String)> {
    let whole = fields(|_| ());
    let cut = |count: usize| whole[..whole.len() - count].to_owned();
    let typo = |index: usize, with: &str| {
        let mut text = whole.clone();
        text.replace_range(index..=index, with);
        text
    };
    let other = if whole.as_bytes()[60] == b'A' { "B" } else { "A" };
    vec![
        ("all fields", whole.clone()),
        ("only the fields that must be there", fields(|fields| fields.retain(|(kind, _)| *kind < 7))),
        ("four cloak keys, two services, no private key", large_invite().encode().to_string()),
        ("white space around it", format!("\n  {whole} \t\r\n")),
        ("an unknown field that may be skipped", added(10, b"later")),
        ("a public key of 1,184 bytes that may be skipped", added(11, &[7; 1184])),
        ("unknown fields of one type", fields(|fields| fields.extend([(0x7f, vec![]), (0x7f, vec![1])]))),
        ("an IPv6 address", replaced(2, b"2001:db8::1")),
        ("empty", String::new()),
        ("another text", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned()),
        ("the prefix in capitals", whole.replacen("spa", "SPA", 1)),
        ("version 2", whole.replacen("spa1-", "spa2-", 1)),
        ("another form", whole.replacen("spa1-", "spax1-", 1)),
        ("the prefix alone", "spa1-".to_owned()),
        ("last character cut off", cut(1)),
        ("last 40 characters cut off", cut(40)),
        ("one character added", format!("{whole}A")),
        ("twice the same line", format!("{whole}{whole}")),
        ("a line feed in the middle", typo(60, "\n")),
        ("padding", format!("{whole}=")),
        ("one character altered", typo(60, other)),
        ("no client name", without(1)),
        ("no address", without(2)),
        ("no port", without(3)),
        ("no server key", without(4)),
        ("no cloak key", without(5)),
        ("no psk", without(6)),
        ("no field at all", line(&[])),
        ("fields in descending order", fields(|fields| fields.swap(0, 1))),
        ("the same field twice", added(3, &[0, 22])),
        ("a field past the end", line(&[1, 0, 9, b'a'])),
        ("a field without a length", line(&[1, 0])),
        ("type 0", line(&field(0, b""))),
        ("an unknown critical field", added(0x80, b"")),
        ("client name in capitals", replaced(1, b"Alice")),
        ("address with a space", replaced(2, b"192.0.2.1 ")),
        ("empty address", replaced(2, b"")),
        ("port 0", replaced(3, &[0, 0])),
        ("port of 3 bytes", replaced(3, &[0, 0, 22])),
        ("server key of low order", replaced(4, &[0; 32])),
        ("server key not in canonical form", replaced(4, &[0xff; 32])),
        ("server key of 31 bytes", replaced(4, &[7; 31])),
        ("cloak key of 33 bytes", replaced(5, &[7; 33])),
        ("the same cloak key twice", added(5, Keys::usual().cloak.expose())),
        ("five cloak keys", fields(|fields| (0..4).for_each(|byte| fields.insert(4, (5, vec![byte; 32]))))),
        ("psk of 16 bytes", replaced(6, &[7; 16])),
        ("empty private key", replaced(7, b"")),
        ("service without an endpoint", replaced(8, b"\x03ssh")),
        ("service with an endpoint cut short", replaced(8, b"\x03ssh\x06\x00")),
        ("service with protocol 1", replaced(8, b"\x03ssh\x01\x00\x16")),
        ("service with port 0", replaced(8, b"\x03ssh\x06\x00\x00")),
        ("service with endpoints in descending order", replaced(8, b"\x03ssh\x06\x00\x17\x06\x00\x16")),
        ("service with an endpoint twice", replaced(8, b"\x03ssh\x06\x00\x16\x06\x00\x16")),
        ("service name longer than its field", replaced(8, b"\x09ssh")),
        ("service name that is none", replaced(8, b"\x031sh\x06\x00\x16")),
        ("a service twice", added(8, b"\x03ssh\x06\x00\x17")),
        ("services in descending order", added(8, b"\x03abc\x06\x00\x17")),
        ("expiry of 4 bytes", replaced(9, &[0; 4])),
    ]
}

fn invite_node(invite: &Invite) -> Node {
    let services = invite.services.iter().map(|(name, endpoints)| {
        let endpoints = endpoints.iter().map(|endpoint| Node::Text(endpoint.to_string())).collect();
        Node::Object(vec![("name", name.as_str().into()), ("endpoints", Node::List(endpoints))])
    });
    let mut node = vec![
        ("client", invite.client.as_str().into()),
        ("address", invite.address.as_str().into()),
        ("port", u64::from(invite.port).into()),
        ("server_public", hex(invite.server.as_bytes())),
        ("cloaks", cloaks(&invite.cloaks)),
        ("psk", hex(invite.psk.expose())),
    ];
    if let Some(secret) = &invite.secret {
        node.push(("private", hex(secret.expose())));
    }
    node.push(("services", Node::List(services.collect())));
    if let Some(expires) = invite.expires {
        node.push(("expires", expires.into()));
    }
    Node::Object(node)
}

fn invites() -> Vec<Node> {
    invite_texts()
        .into_iter()
        .map(|(name, text)| {
            let outcome = match Invite::parse(&text) {
                Ok(invite) => ("valid", invite_node(&invite)),
                Err(InviteError::Field(kind)) => (
                    "refused",
                    Node::Object(vec![("field", u64::from(kind).into()), ("reason", "Field".into())]),
                ),
                Err(error) => ("refused", Node::Object(vec![("reason", variant(error))])),
            };
            Node::Object(vec![("name", name.into()), ("text", Node::Text(text)), outcome])
        })
        .collect()
}

/// The passphrase of all encrypted vectors: not ASCII alone, to fix what bytes it is.
const PASSPHRASE: &str = "na\u{ef}ve correct horse";

fn sealed_line(alter: impl FnOnce(&mut Vec<u8>)) -> String {
    let plain = Invite::parse(&fields(|_| ())).unwrap();
    let line = SealedInvite::seal(&plain, PASSPHRASE, MIN_WORK, *b"0123456789abcdef").unwrap().encode();
    let bytes = URL_SAFE_NO_PAD.decode(line.strip_prefix("spae1-").unwrap()).unwrap();
    let mut content = bytes[2..bytes.len() - 4].to_vec();
    alter(&mut content);
    self::line(&content).replacen("spa1-", "spae1-", 1)
}

/// Name, line, passphrase.
fn sealed_texts() -> Vec<(&'static str, String, &'static str)> {
    let whole = sealed_line(|_| ());
    let cut = whole[..whole.len() - 1].to_owned();
    let mut typo = whole.clone();
    typo.replace_range(60..=60, if whole.as_bytes()[60] == b'A' { "B" } else { "A" });
    vec![
        ("an encrypted invite", whole.clone(), PASSPHRASE),
        ("white space around it", format!("\n  {whole} \t\r\n"), PASSPHRASE),
        ("another passphrase", whole.clone(), "naive correct horse"),
        ("the passphrase with a line feed", whole.clone(), "na\u{ef}ve correct horse\n"),
        ("the passphrase decomposed (NFD)", whole.clone(), "nai\u{308}ve correct horse"),
        ("an empty passphrase", whole.clone(), ""),
        ("last character cut off", cut, PASSPHRASE),
        ("one character altered", typo, PASSPHRASE),
        ("ciphertext altered, check made anew", sealed_line(|content| content[40] ^= 1), PASSPHRASE),
        ("salt altered, check made anew", sealed_line(|content| content[1] ^= 1), PASSPHRASE),
        ("no ciphertext", sealed_line(|content| content.truncate(17)), PASSPHRASE),
        ("salt cut short", sealed_line(|content| content.truncate(16)), PASSPHRASE),
        ("work 9", sealed_line(|content| content[0] = 9), PASSPHRASE),
        ("work 19", sealed_line(|content| content[0] = 19), PASSPHRASE),
        ("a plain invite with this prefix", fields(|_| ()).replacen("spa1-", "spae1-", 1), PASSPHRASE),
    ]
}

fn sealed_invites() -> Vec<Node> {
    sealed_texts()
        .into_iter()
        .map(|(name, text, passphrase)| {
            let outcome = match SealedInvite::parse(&text).and_then(|sealed| sealed.open(passphrase)) {
                Ok(invite) => ("valid", invite_node(&invite)),
                Err(error) => ("refused", Node::Object(vec![("reason", variant(error))])),
            };
            let (name, text, passphrase) = (name.into(), Node::Text(text), passphrase.into());
            Node::Object(vec![("name", name), ("text", text), ("passphrase", passphrase), outcome])
        })
        .collect()
}

pub(super) fn node() -> Node {
    Node::Object(vec![
        (
            "about",
            "Key files, psk files and invites, valid and not, as docs/PROTOCOL.md has them. Bytes are hexadecimal. \
             The reasons are this implementation's; that a text is refused, and in which line or field, is everyone's."
                .into(),
        ),
        ("server_key_files", Node::List(server_files())),
        ("client_key_files", Node::List(client_files())),
        ("psk_files", Node::List(psk_files())),
        ("invites", Node::List(invites())),
        ("sealed_invites", Node::List(sealed_invites())),
    ])
}
