//! The commands, without a server: errors with their exit codes and hints, invites, lists.

use crate::common::{Home, Ran, client_keys, server_secret, write_private};
use spa_proto::{ClientKeyFile, Invite, SecretKey};

const SERVICES: &str = "{ ssh = \"tcp/22\", web = [\"tcp/80\", \"tcp/443\"] }";

fn home() -> Home {
    Home::with_host("127.0.0.1", 9, SERVICES)
}

fn invite(secret: Option<SecretKey>) -> Invite {
    let keys = client_keys();
    Invite {
        client: "alice".parse().unwrap(),
        address: "bastion.example.org".to_owned(),
        port: 40123,
        server: server_secret().public_key(),
        cloaks: keys.cloaks,
        psk: keys.psk,
        secret,
        services: vec![("ssh".parse().unwrap(), vec!["tcp/22".parse().unwrap()])],
        expires: None,
    }
}

#[test]
fn an_unknown_key_names_file_line_column_and_remedy() {
    let home = home();
    let text = std::fs::read_to_string(home.config()).unwrap().replace("services", "sevrices");
    std::fs::write(home.config(), text).unwrap();
    let place = format!("{}:6:1: unknown key \"sevrices\"", home.config().display());
    home.run("hosts")
        .fails(78, &[&place, "\n 6 | sevrices\n", "^^^^^^^^", "hint: did you mean \"services\"?"]);
}

#[test]
fn wrong_usage_is_told_with_a_suggestion() {
    let home = home();
    home.run("open shs").fails(64, &["has no service \"shs\"", "did you mean \"ssh\"?"]);
    home.run("open ssh --host bastoin").fails(64, &["no host \"bastoin\"", "did you mean \"bastion\"?"]);
    home.run("open tcp/0").fails(64, &["no service \"tcp/0\"", "a port from 1 to 65535"]);
    home.run("opne").fails(64, &["open"]);
    home.run("open").fails(64, &["SERVICE"]);
    home.run("open ssh --for 30").fails(64, &["a time with its unit"]);
    home.run("open ssh --source anywhere").fails(64, &["\"observed\""]);
    home.run("exec ssh").fails(64, &["COMMAND"]);
    home.run("connect nowhere 22").fails(64, &["no host \"nowhere\""]);
    home.run("connect bastion 0").fails(64, &["0"]);
    let words: Vec<String> = (1..=9).map(|port| format!("tcp/{port}")).collect();
    home.run(&format!("open {}", words.join(" "))).fails(64, &["1 to 8"]);
}

#[test]
fn errors_of_connect_are_one_line() {
    let ran = home().run("connect bastoin 22");
    ran.fails(64, &["did you mean"]);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert_eq!(ran.out, "");
}

#[test]
fn resolving_wants_a_resolver() {
    let home = home();
    home.run("open ssh --source resolve").fails(78, &["has no resolver", "dns:NAME@SERVER"]);
    let text = std::fs::read_to_string(home.config()).unwrap();
    for wrong in ["http://example.org/", "dns:example.org", "dns:a@b:53"] {
        std::fs::write(home.config(), format!("{text}resolver = \"{wrong}\"\n")).unwrap();
        home.run("hosts").fails(78, &["expected \"https://...\"", ":7:"]);
    }
}

#[test]
fn ssh_config_is_printed_or_told_why_not() {
    let home = home();
    let ran = home.run("ssh-config");
    let program = env!("CARGO_BIN_EXE_spa-client");
    let block =
        format!("Host bastion\n    HostName 127.0.0.1\n    ProxyCommand {program} connect bastion %p\n");
    assert!(ran.succeeds().out.ends_with(&block), "{}", ran.out);
    assert!(ran.out.lines().all(|line| line.len() <= 120 || line.contains(program)), "{}", ran.out);
    let ran = home.run("ssh-config bastion --match-exec --service web");
    assert!(ran.succeeds().out.contains("open web --wait --host bastion\"\n"), "{}", ran.out);
    assert!(ran.out.contains("    Port 80\n"), "{}", ran.out);
    home.run("ssh-config bastoin").fails(64, &["did you mean \"bastion\"?"]);
    home.run("ssh-config --service wbe").fails(64, &["did you mean \"web\"?"]);
    home.run("ssh-config --service udp/53").fails(64, &["no TCP port"]);
    home.run("ssh-config --fdpass --match-exec").fails(64, &["cannot be used with"]);
    let text = std::fs::read_to_string(home.config()).unwrap().replace("ssh = \"tcp/22\", ", "");
    std::fs::write(home.config(), text).unwrap();
    home.run("ssh-config").fails(64, &["no service called ssh", "--service NAME", "web"]);
}

#[test]
fn every_command_has_an_example() {
    let home = home();
    let help = home.run("--help");
    let commands = help.succeeds().out.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 11, "{commands:?}");
    for command in commands {
        let help = home.run(&format!("{command} --help"));
        assert!(help.succeeds().out.contains("Example"), "{command}");
        assert!(help.out.contains(&format!("spa-client {command}")), "{command}");
        assert!(help.out.lines().all(|line| line.chars().count() <= 100), "{}", help.out);
    }
}

#[test]
fn a_missing_configuration_says_how_to_get_one() {
    let home = Home::empty();
    home.run("open ssh").fails(66, &[".config/spa/client.toml", "spa-client import"]);
    std::fs::create_dir_all(home.path(".config/spa")).unwrap();
    std::fs::write(home.config(), "").unwrap();
    home.run("open ssh").fails(64, &["no host", "spa-client import"]);
}

#[test]
fn the_configuration_may_be_named_before_and_after_the_command() {
    let (home, other) = (home(), Home::empty());
    let file = home.config().display().to_string();
    for line in [format!("--config {file} hosts"), format!("hosts --config {file}")] {
        let ran = other.run(&line);
        assert_eq!(ran.succeeds().out, "bastion  127.0.0.1      9  ssh=tcp/22 web=tcp/80,tcp/443\n");
    }
    let xdg = other.command("hosts").env("XDG_CONFIG_HOME", home.path(".config")).output().unwrap();
    assert!(xdg.status.success());
}

#[test]
fn exposed_keys_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = home();
    let key = home.path(".config/spa/bastion.key");
    let set_mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&key, 0o644);
    home.run("open ssh").fails(77, &["bastion.key can be read by others (mode 644)", "chmod 600"]);
    home.run("check").fails(77, &[]);
    set_mode(&key, 0o600);
    set_mode(&home.path(".config/spa"), 0o777);
    home.run("open ssh").fails(77, &["can be written by others (mode 777)", "chmod go-w"]);
    set_mode(&home.path(".config/spa"), 0o755);
    std::fs::remove_file(&key).unwrap();
    home.run("open ssh").fails(66, &["bastion.key", "import the invite again"]);
    write_private(&key, "spa-psk-v1\n");
    home.run("open ssh").fails(65, &["bastion.key", "line 1"]);
}

#[test]
fn an_invite_becomes_an_entry_and_a_key_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::empty();
    let keys = client_keys();
    let line = invite(Some(keys.secret.clone())).encode();
    let ran = home.run_with("import --name bastion -v", &format!("{}\n", *line));
    ran.succeeds();
    let key = home.path(".config/spa/bastion.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(key.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(ClientKeyFile::parse(&std::fs::read_to_string(&key).unwrap()).unwrap(), keys);
    let hosts = home.run("hosts");
    assert_eq!(hosts.succeeds().out, "bastion  bastion.example.org  40123  ssh=tcp/22\n");
    for text in [&ran.out, &ran.err, &std::fs::read_to_string(home.config()).unwrap()] {
        for secret in [keys.secret.to_base64(), keys.psk.to_base64(), keys.cloaks[0].to_base64()] {
            assert!(!text.contains(secret.as_str()), "{text}");
        }
    }
    // Again: refused, and nothing changes.
    let before = std::fs::read(home.config()).unwrap();
    home.run_with("import --name bastion", &line).fails(64, &["has a host \"bastion\" already", "--force"]);
    assert_eq!(std::fs::read(home.config()).unwrap(), before);
    // By force: replaced, and the old key is kept.
    let other = SecretKey::from_bytes([9; 32]);
    let forced = home.run_with(
        "import --name bastion --force --address 192.0.2.1 -",
        &invite(Some(other.clone())).encode(),
    );
    forced.succeeds();
    assert!(home.run("hosts").out.contains("bastion  192.0.2.1  40123"));
    assert_eq!(ClientKeyFile::parse(&std::fs::read_to_string(&key).unwrap()).unwrap().secret, other);
    let old = std::fs::read_to_string(home.path(".config/spa/bastion.key.old")).unwrap();
    assert_eq!(ClientKeyFile::parse(&old).unwrap(), keys);
    assert_eq!(home.path(".config/spa").read_dir().unwrap().count(), 3, "nothing else is left");
}

/// One address under two names: said when it comes about, and by whoever is asked for the address alone.
#[test]
fn one_address_under_two_names_is_said() {
    let home = Home::empty();
    let line = invite(Some(client_keys().secret)).encode();
    let first = home.run_with("import --name work", &line);
    assert!(!first.succeeds().err.contains("as well"), "{first:?}");
    let second = home.run_with("import --name admin", &line);
    assert!(
        second.succeeds().err.contains("that of work as well") && second.err.contains("%n"),
        "{second:?}"
    );
    home.run("connect bastion.example.org 22")
        .fails(64, &["several hosts have the address bastion.example.org", "admin, work"]);
    // Replacing an entry makes no second one.
    std::fs::remove_file(home.path(".config/spa/client.toml")).unwrap();
    home.run_with("import --name work --force", &line).succeeds();
    let again = home.run_with("import --name work --force", &line);
    assert!(!again.succeeds().err.contains("as well"), "{again:?}");
}

#[test]
fn a_second_invite_keeps_the_comments_and_entries_of_the_first() {
    let home = home();
    let text = format!("# mine\n{}# the end of bastion\n", std::fs::read_to_string(home.config()).unwrap());
    std::fs::write(home.config(), &text).unwrap();
    let file = home.path("invite");
    std::fs::write(&file, invite(Some(SecretKey::from_bytes([9; 32]))).encode().as_str()).unwrap();
    let ran = home.run(&format!("import {} --name second", file.display()));
    assert!(ran.succeeds().err.contains("holds secrets: delete"), "{ran:?}");
    let now = std::fs::read_to_string(home.config()).unwrap();
    assert!(text.lines().all(|line| now.contains(line)), "{now}");
    assert_eq!(home.run("hosts").succeeds().out.lines().count(), 2);
}

#[test]
fn a_bad_invite_changes_nothing() {
    let home = Home::empty();
    let line = invite(Some(SecretKey::from_bytes([9; 32]))).encode();
    home.run_with("import --name b", &line[..line.len() - 8]).fails(65, &["8 characters are missing"]);
    home.run_with("import --name b", "hello").fails(65, &["not an invite", "copy the one line"]);
    home.run_with("import --name b", "\n").fails(66, &["no invite"]);
    let expired = Invite { expires: Some(1), ..invite(Some(SecretKey::from_bytes([9; 32]))) };
    home.run_with("import --name b", &expired.encode()).fails(65, &["expired"]);
    home.run_with("import --name ../b", &line).fails(64, &["a name is"]);
    home.run_with("import --name b", &invite(None).encode()).fails(66, &["b.key.pending is missing"]);
    assert!(!home.path(".config").exists());
    // Nor does a configuration that is wrong already.
    std::fs::create_dir_all(home.path(".config/spa")).unwrap();
    std::fs::write(home.config(), "[hsots.x]\n").unwrap();
    home.run_with("import --name b", &line).fails(78, &["did you mean \"hosts\"?"]);
    assert_eq!(home.path(".config/spa").read_dir().unwrap().count(), 1);
}

#[test]
fn a_failure_half_way_leaves_the_old_entry_whole() {
    let home = home();
    let (config, key) = (home.config(), home.path(".config/spa/bastion.key"));
    let before = (std::fs::read(&config).unwrap(), std::fs::read(&key).unwrap());
    // The key's place is taken by a directory that is not empty: even root cannot rename onto it.
    std::fs::create_dir_all(home.path(".config/spa/bastion.key.old/x")).unwrap();
    let line = invite(Some(SecretKey::from_bytes([9; 32]))).encode();
    home.run_with("import --name bastion --force", &line).fails(74, &["cannot write"]);
    assert_eq!((std::fs::read(&config).unwrap(), std::fs::read(&key).unwrap()), before);
    assert_eq!(home.path(".config/spa").read_dir().unwrap().count(), 3);
}

#[test]
fn a_key_of_ones_own_is_completed_by_the_invite() {
    let home = Home::empty();
    let made = home.run("keygen --name bastion");
    let public = made.succeeds().out.trim().to_owned();
    assert_eq!(made.err, "", "standard error is a pipe");
    home.run("keygen --name bastion").fails(64, &["waits for its invite already"]);
    home.run_with("import --name bastion", &invite(None).encode()).succeeds();
    let text = std::fs::read_to_string(home.path(".config/spa/bastion.key")).unwrap();
    let keys = ClientKeyFile::parse(&text).unwrap();
    assert_eq!(keys.secret.public_key().to_string(), public);
    assert_eq!(keys.psk, client_keys().psk);
    assert!(!home.path(".config/spa/bastion.key.pending").exists());
}

/// An invite without a private key may be for the pair that is here, for one that waits, or for somebody else's.
#[test]
fn an_update_without_a_private_key_says_what_it_rests_on() {
    let home = home();
    let keys = client_keys();
    let key_file = || {
        let text = std::fs::read_to_string(home.path(".config/spa/bastion.key")).unwrap();
        ClientKeyFile::parse(&text).unwrap()
    };
    // The psk of before: the same client, and nothing to say.
    let ran = home.run_with("import --update", &invite(None).encode());
    assert_eq!(ran.succeeds().err.matches("only if").count(), 0, "{ran:?}");
    // Another one: perhaps another client's.
    let psk = spa_proto::Psk::from_bytes([7; 32]);
    let other = || Invite { psk: psk.clone(), ..invite(None) };
    let ran = home.run_with("import --update", &other().encode());
    let public = keys.secret.public_key().to_string();
    for word in [&*public, "right only if the server has this one", "bastion.key.old"] {
        assert!(ran.succeeds().err.contains(word), "no {word}: {ran:?}");
    }
    assert_eq!((key_file().secret, key_file().psk), (keys.secret, psk.clone()));
    // A new pair waits for it: that one is meant.
    let made = home.run("keygen --name bastion").succeeds().out.trim().to_owned();
    let newer = Invite { psk: spa_proto::Psk::from_bytes([8; 32]), ..invite(None) };
    let ran = home.run_with("import --update --name bastion", &newer.encode());
    assert!(!ran.succeeds().err.contains("only if"), "{ran:?}");
    assert_eq!(key_file().secret.public_key().to_string(), made);
    assert!(!home.path(".config/spa/bastion.key.pending").exists(), "it waits no more");
}

/// What a script reads has to be there whole, or the exit code says so. A reader that has read enough is no error.
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let home = home();
    for line in [
        "hosts",
        "hosts --json",
        "check",
        "check --json",
        "ssh-config bastion",
        "open ssh --json",
        "open ssh --json --wait=1s",
        "close --json",
        "keygen --name new",
        "completions bash",
        "man",
        "--help",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = Ran::from(home.command(line).stdout(full).output().unwrap());
        assert_eq!(ran.code, Some(74), "{line}: {ran:?}");
    }
    home.run("keygen --name new").fails(64, &["waits for its invite already"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = Ran::from(home.command("hosts").stdout(writer).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn scripts_read_json() {
    let home = home();
    let hosts: serde_json::Value = serde_json::from_str(&home.run("hosts --json").succeeds().out).unwrap();
    assert_eq!(hosts[0]["services"]["web"][1], "tcp/443");
    let check = home.run("check --json --host bastion");
    let findings: serde_json::Value = serde_json::from_str(&check.succeeds().out).unwrap();
    let address = findings.as_array().unwrap().iter().find(|finding| finding["check"] == "address").unwrap();
    assert!(address["detail"].as_str().unwrap().contains("127.0.0.1, observed"), "{address}");
}

#[test]
fn help_completions_and_man_pages_come_from_one_definition() {
    let home = Home::empty();
    let help = home.run("--help");
    assert!(help.succeeds().out.contains("75  could not tell"), "{}", help.out);
    assert!(home.run("completions bash").succeeds().out.contains("spa-client"));
    home.run(&format!("man --dir {}", home.directory.path().display())).succeeds();
    assert!(home.path("spa-client-open.1").exists());
}
