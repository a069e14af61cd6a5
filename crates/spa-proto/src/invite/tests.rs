use super::*;

pub(super) fn invite() -> Invite {
    Invite {
        client: "alice".parse().unwrap(),
        address: "bastion.example.org".to_owned(),
        port: 62201,
        server: SecretKey::from_bytes([1; 32]).public_key(),
        cloaks: vec![CloakKey::from_bytes([4; 32])],
        psk: Psk::from_bytes([3; 32]),
        secret: Some(SecretKey::from_bytes([2; 32])),
        services: vec![("ssh".parse().unwrap(), vec!["tcp/22".parse().unwrap()])],
        expires: Some(1_766_361_600),
    }
}

/// The largest that version 1 makes.
fn largest() -> Invite {
    let name = |i: usize| format!("s{i:031}").parse().unwrap();
    let endpoints: Vec<Endpoint> =
        (1..=MAX_SERVICE_ENDPOINTS).map(|i| Endpoint::new(Protocol::Udp, i as u16).unwrap()).collect();
    Invite {
        client: "a".repeat(32).parse().unwrap(),
        address: ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join("."),
        cloaks: (0..MAX_CLOAK_KEYS).map(|i| CloakKey::from_bytes([i as u8; 32])).collect(),
        services: (0..MAX_INVITE_SERVICES).map(|i| (name(i), endpoints.clone())).collect(),
        ..invite()
    }
}

#[test]
fn what_was_encoded_parses() {
    let small = Invite { secret: None, services: vec![], expires: None, ..invite() };
    for invite in [small, invite(), largest()] {
        let line = invite.encode();
        assert_eq!(Invite::parse(&line), Ok(invite.clone()));
        assert_eq!(Invite::parse(&format!(" \t{}\r\n", *line)), Ok(invite.clone()));
        assert_eq!(invite.check(), Ok(()));
    }
    assert_eq!(largest().encode().len(), 20_205);
}

#[test]
fn services_and_endpoints_are_put_in_order() {
    let service = |name: &str, endpoints: &[&str]| {
        (name.parse().unwrap(), endpoints.iter().map(|text| text.parse().unwrap()).collect())
    };
    let mixed = vec![service("web", &["tcp/443", "tcp/80", "tcp/443"]), service("ssh", &["tcp/22"])];
    let sorted = vec![service("ssh", &["tcp/22"]), service("web", &["tcp/80", "tcp/443"])];
    let line = Invite { services: mixed, ..invite() }.encode();
    assert_eq!(Invite::parse(&line).unwrap().services, sorted);
}

#[test]
fn what_breaks_a_limit_is_refused_before_and_after() {
    let one = &largest().services[0];
    let more = |count: usize| (0..count).map(|i| CloakKey::from_bytes([i as u8; 32])).collect();
    let renamed = |i: usize| (format!("s{i}").parse().unwrap(), one.1.clone());
    let ports = |count: u16| (1..=count).map(|i| Endpoint::new(Protocol::Tcp, i).unwrap()).collect();
    for (field, broken) in [
        (ADDRESS, Invite { address: String::new(), ..invite() }),
        (ADDRESS, Invite { address: "a.".repeat(40_000), ..invite() }),
        (PORT, Invite { port: 0, ..invite() }),
        (CLOAK, Invite { cloaks: more(MAX_CLOAK_KEYS + 1), ..invite() }),
        (CLOAK, Invite { cloaks: vec![CloakKey::from_bytes([1; 32]); 2], ..invite() }),
        (SERVICE, Invite { services: (0..65).map(renamed).collect(), ..largest() }),
        (SERVICE, Invite { services: vec![(one.0.clone(), vec![])], ..invite() }),
        (SERVICE, Invite { services: vec![(one.0.clone(), ports(65))], ..largest() }),
        (SERVICE, Invite { services: vec![(one.0.clone(), ports(65_535))], ..invite() }),
        (SERVICE, Invite { services: vec![one.clone(), one.clone()], ..invite() }),
    ] {
        assert_eq!(broken.check(), Err(InviteError::Field(field)));
        assert_eq!(Invite::parse(&broken.encode()), Err(InviteError::Field(field)));
    }
    let none = Invite { cloaks: vec![], ..invite() };
    assert_eq!(none.check(), Err(InviteError::Missing("cloak key")));
}

#[test]
fn what_happened_to_a_line_is_told() {
    let line = invite().encode();
    for cut in PREFIX.len() + 4..line.len() {
        assert_eq!(Invite::parse(&line[..cut]), Err(InviteError::Truncated(line.len() - cut)));
    }
    for cut in 0..PREFIX.len() {
        assert_eq!(Invite::parse(&line[..cut]), Err(InviteError::NotAnInvite));
    }
    assert_eq!(Invite::parse(&format!("{}AB", *line)), Err(InviteError::Extended(2)));
    for (index, old) in line.char_indices().skip(PREFIX.len() + 4) {
        let mut typo = line.to_string();
        typo.replace_range(index..=index, if old == 'x' { "y" } else { "x" });
        assert_eq!(Invite::parse(&typo), Err(InviteError::Damaged), "at {index}");
        typo.replace_range(index..=index, "+");
        assert_eq!(Invite::parse(&typo), Err(InviteError::Character(index + 1)));
    }
    let body = &line[PREFIX.len()..];
    for prefix in ["spa2-", "spax1-"] {
        assert_eq!(Invite::parse(&format!("{prefix}{body}")), Err(InviteError::OtherVersion));
    }
    for other in ["", "spa", "ssh-ed25519 AAAA", "SPA1-AAAA", "spa-server-key-v1"] {
        assert_eq!(Invite::parse(other), Err(InviteError::NotAnInvite), "{other}");
    }
    assert_eq!(Invite::parse(&format!("spa1-{}", "A".repeat(MAX_INVITE_LENGTH))), Err(InviteError::TooLong));
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", invite());
    for secret in ["3, 3", "4, 4", "2, 2", "AwMD", "BAQE", "AgIC"] {
        assert!(!text.contains(secret), "{text}");
    }
}
