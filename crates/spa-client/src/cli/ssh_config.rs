//! `ssh-config`: the lines of ~/.ssh/config after which `ssh NAME` knocks by itself.
//!
//! Three readers with rules of their own see what is printed: ssh_config(5), where `%` begins a token; the user's
//! shell, which runs ProxyCommand and Match exec; and us. A host's name has only characters that none of them minds
//! (`is_host_name`); paths are quoted for all three, or refused.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use spa_proto::{Endpoint, Protocol, ServiceName};

use super::args::SshConfigArgs;
use super::failure::{CONFIG, Failure, USAGE};
use super::say::print;
use crate::config::{Config, Host};

/// The port that ssh connects to unless told otherwise.
const SSH_PORT: u16 = 22;
/// What an administrator most likely calls it.
const SSH_SERVICE: &str = "ssh";
/// How long ssh waits for a port that `Match exec` did not open, in seconds; without, for minutes.
const CONNECT_TIMEOUT: u16 = 10;

/// How ssh gets its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Proxy,
    Fdpass,
    MatchExec,
}

pub(super) fn run(args: &SshConfigArgs, config: &Config, path: Option<&Path>) -> Result<(), Failure> {
    let host = config.host(args.host.as_deref())?;
    let way = match (args.fdpass, args.match_exec) {
        (true, _) => Way::Fdpass,
        (_, true) => Way::MatchExec,
        _ => Way::Proxy,
    };
    if way == Way::Fdpass && cfg!(not(unix)) {
        return Err(Failure::new(USAGE, "--fdpass needs a Unix system"));
    }
    let (service, port) = service(host, args.service.as_deref())?;
    let mut program = vec![program(std::env::current_exe().ok(), std::env::var_os("PATH"))];
    if let Some(path) = path {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        program.extend([PathBuf::from("--config"), path]);
    }
    let program = program.iter().map(|word| quoted(word, way)).collect::<Result<Vec<_>, _>>()?.join(" ");
    let shared = config.hosts().iter().filter(|other| other.address == host.address).count() > 1;
    print(block(host, &service, port, way, &program, shared).trim_end())
}

/// The word to open, and the TCP port that ssh connects to.
fn service(host: &Host, named: Option<&str>) -> Result<(String, u16), Failure> {
    if let Some(named) = named {
        let request = host.request(named)?;
        let port = tcp_port(host.endpoints(&request));
        let port =
            port.ok_or_else(|| Failure::new(USAGE, format!("{named} has no TCP port, which ssh wants")))?;
        return Ok((named.to_owned(), port));
    }
    let has_ssh_port = |list: &[Endpoint]| {
        list.iter().any(|endpoint| endpoint.protocol() == Protocol::Tcp && endpoint.port() == SSH_PORT)
    };
    let by_name = |(name, _): &(&ServiceName, &Vec<Endpoint>)| name.as_str() == SSH_SERVICE;
    let found = host.services.iter().find(by_name);
    if let Some((name, port)) = found.and_then(|(name, list)| Some((name, tcp_port(list)?))) {
        return Ok((name.to_string(), port));
    }
    if let Some((name, _)) = host.services.iter().find(|(_, list)| has_ssh_port(list)) {
        return Ok((name.to_string(), SSH_PORT));
    }
    let known: Vec<&str> = host.services.keys().map(ServiceName::as_str).collect();
    let hint = if known.is_empty() { String::new() } else { format!("; it has {}", known.join(", ")) };
    Err(Failure::new(USAGE, format!("host \"{}\" has no service called ssh, and none on port 22", host.name))
        .hint(format!("name the one that sshd is behind with --service NAME{hint}")))
}

fn tcp_port(endpoints: &[Endpoint]) -> Option<u16> {
    endpoints.iter().find(|endpoint| endpoint.protocol() == Protocol::Tcp).map(|endpoint| endpoint.port())
}

/// Just the name, where that is this very program for whoever runs it; else its path.
fn program(this: Option<PathBuf>, path: Option<std::ffi::OsString>) -> PathBuf {
    let name = PathBuf::from("spa-client");
    let Some(this) = this else { return name };
    let real = |path: &Path| path.canonicalize().ok();
    let directories = path.iter().flat_map(std::env::split_paths);
    let first = directories
        .map(|directory| directory.join(&name).with_extension(std::env::consts::EXE_EXTENSION))
        .find(|candidate| candidate.is_file());
    match first {
        Some(first) if real(&first).is_some() && real(&first) == real(&this) => name,
        _ => this,
    }
}

/// A word as it stands in ssh's configuration, for the shell that ssh gives it to.
fn quoted(word: &Path, way: Way) -> Result<String, Failure> {
    let refused = |why: &str| {
        Failure::new(CONFIG, format!("{} cannot be written into ssh's configuration: {why}", word.display()))
            .hint("link or copy it to a plainer path")
    };
    let text = word.to_str().ok_or_else(|| refused("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refused("it has a control character"));
    }
    let plain =
        |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=".contains(c) || (cfg!(windows) && c == '\\');
    let text = text.replace('%', "%%");
    if text.chars().all(plain) {
        return Ok(text);
    }
    if cfg!(windows) {
        return Ok(format!("\"{text}\"")); // no Windows path has a quotation mark
    }
    // The argument of Match exec is in quotation marks itself, and older versions of ssh have no escape in there.
    if way == Way::MatchExec && text.contains(['"', '\\', '\'']) {
        return Err(refused("it has a quotation mark or a backslash"));
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn block(host: &Host, service: &str, port: u16, way: Way, program: &str, shared: bool) -> String {
    let Host { name, address, .. } = host;
    let mut text = String::from(match way {
        Way::Proxy => PROXY,
        Way::Fdpass => FDPASS,
        Way::MatchExec => MATCH_EXEC,
    });
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{line}"); // a String takes everything
    };
    line(format_args!("Host {name}"));
    line(format_args!("    HostName {address}"));
    if port != SSH_PORT {
        line(format_args!("    Port {port}"));
    }
    if shared {
        line(format_args!(
            "    # Another entry of client.toml has this address: their keys are told apart by name."
        ));
        line(format_args!("    HostKeyAlias {name}"));
    }
    match way {
        Way::Proxy => line(format_args!("    ProxyCommand {program} connect {name} %p")),
        Way::Fdpass => {
            line(format_args!("    ProxyCommand {program} connect --fdpass {name} %p"));
            line(format_args!("    ProxyUseFdpass yes"));
        }
        Way::MatchExec => {
            line(format_args!("    ConnectTimeout {CONNECT_TIMEOUT}"));
            let command = format!("{program} --quiet open {service} --wait --host {name}");
            line(format_args!("Match originalhost {name} exec \"{command}\""));
        }
    }
    text
}

const PROXY: &str = "\
# spa-client knocks, connects, and copies between ssh and the connection. Works with every ssh.
# (--fdpass: ssh gets the connection itself, and no process copies. --match-exec: ssh connects by itself.)
# Put it into ~/.ssh/config above \"Host *\": ssh takes the first value that it finds.
";

const FDPASS: &str = "\
# spa-client knocks, connects, hands the connection to ssh, and ends: nothing is copied. The best where it works;
# wants OpenSSH on Unix. (Without --fdpass: for other programs that read this file, and for Windows.)
# Put it into ~/.ssh/config above \"Host *\": ssh takes the first value that it finds.
";

const MATCH_EXEC: &str = "\
# ssh has spa-client knock and wait, then connects by itself: for a host that needs a ProxyCommand of its own, or
# programs that ignore ProxyCommand. Knocks whenever this file is read for the host, so also for \"ssh -G\"; if the
# port stays closed, ssh tries all the same, until ConnectTimeout.
# Put it at the end of ~/.ssh/config: what comes after \"Match\" belongs to it.
";

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn host(services: &str) -> Host {
        let key = spa_proto::SecretKey::from_bytes([1; 32]).public_key();
        let text = format!(
            "[hosts.bastion]\naddress = \"192.0.2.1\"\nport = 9\nserver-key = \"{key}\"\nkey-file = \"k\"\n\
             services = {services}\n"
        );
        Config::parse(&text, Path::new("client.toml")).unwrap().hosts()[0].clone()
    }

    #[test]
    fn the_service_of_ssh_is_found() {
        let find = |services, named| service(&host(services), named).map_err(|failure| failure.message);
        for (services, named, wanted) in [
            ("{ ssh = \"tcp/2222\", other = \"tcp/22\" }", None, ("ssh", 2222)),
            ("{ admin = [\"udp/1\", \"tcp/22\"] }", None, ("admin", 22)),
            ("{ ssh = \"udp/22\", login = \"tcp/22\" }", None, ("login", 22)),
            ("{ admin = \"tcp/2022\" }", Some("admin"), ("admin", 2022)),
            ("{}", Some("tcp/2022"), ("tcp/2022", 2022)),
        ] {
            assert_eq!(find(services, named), Ok((wanted.0.to_owned(), wanted.1)), "{services}");
        }
        for (services, named) in
            [("{}", None), ("{ web = \"tcp/80\" }", None), ("{ dns = \"udp/53\" }", Some("dns"))]
        {
            assert!(find(services, named).is_err(), "{services}");
        }
    }

    #[test]
    fn words_survive_ssh_and_the_shell() {
        let quote = |text: &str, way| quoted(Path::new(text), way).map_err(|failure| failure.code);
        assert_eq!(quote("/usr/bin/spa-client", Way::Proxy), Ok("/usr/bin/spa-client".into()));
        assert_eq!(quote("/my dir/100%", Way::Proxy), Ok("'/my dir/100%%'".into()));
        assert_eq!(quote("/it's", Way::Proxy), Ok(r"'/it'\''s'".into()));
        assert_eq!(quote("/$(x) `y`", Way::MatchExec), Ok("'/$(x) `y`'".into()));
        for text in ["/it's", "/a\"b", "/a\\b"] {
            assert_eq!(quote(text, Way::MatchExec), Err(CONFIG), "{text}");
        }
        assert_eq!(quote("/a\nb", Way::Proxy), Err(CONFIG));
    }

    #[test]
    fn the_program_is_named_as_it_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("spa-client");
        std::fs::write(&ours, "").unwrap();
        let found = |path: &Path| program(Some(ours.clone()), Some(path.into()));
        assert_eq!(found(directory.path()), Path::new("spa-client"));
        assert_eq!(found(Path::new("/nowhere")), ours);
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("spa-client"), "").unwrap();
        assert_eq!(found(other.path()), ours, "another program of that name");
    }
}
