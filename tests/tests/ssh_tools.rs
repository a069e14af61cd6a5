//! What people use ssh for, through each of the three ways that `spa-client ssh-config` prints: ssh, scp, sftp, rsync,
//! git, forwarded ports, a jump; and what ssh shows where it fails.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use spa_tests::ns::Namespace;
use spa_tests::probe::{PATIENCE, Probe, echoes, eventually, tcp};
use spa_tests::scene::Scene;
use spa_tests::services::tcp_echo;
use spa_tests::{Family, Settings, Sshd, Topology, Variant, WORK, in_namespace, sh, skip, succeeded};

/// Ports of the client's machine, but the third, which is the server's.
const LOCAL: u16 = 7001;
const SOCKS: u16 = 7002;
const REMOTE: u16 = 7003;
const AT_HOME: u16 = 7004;

#[test]
fn as_proxy_command() {
    in_namespace(|| every_tool("as_proxy_command", &[], Family::V4));
}

#[test]
fn with_the_connection_handed_over() {
    in_namespace(|| every_tool("with_the_connection_handed_over", &["--fdpass"], Family::V6));
}

#[test]
fn from_a_match_line() {
    in_namespace(|| every_tool("from_a_match_line", &["--match-exec"], Family::V4));
}

/// A scene, and an ssh configuration of alice's: her keys, then what spa-client printed.
struct Desk {
    scene: Scene,
    block: String,
    /// What else is in her configuration.
    login: String,
    config: PathBuf,
    _sshd: Sshd,
}

impl Desk {
    fn new(arguments: &[&str], family: Family) -> Self {
        let topology = Topology::new();
        for port in [80, AT_HOME] {
            tcp_echo(if port == 80 { &topology.server.ns } else { &topology.client.ns }, port);
        }
        let sshd = Sshd::start(&topology);
        let (config, login) = (Path::new(WORK).join("ssh.conf"), sshd.ssh_config());
        let settings = Settings { open_for: "30s", ..Settings::new(Variant::Nft) };
        let scene = Scene::on(topology, &settings, family);
        let block = scene.alice.must(&[&["ssh-config", "bastion"], arguments].concat());
        let desk = Self { scene, block, login, config, _sshd: sshd };
        desk.configure(&desk.block);
        desk
    }

    fn configure(&self, block: &str) {
        fs::write(&self.config, format!("{}{block}", self.login)).expect("a file on the tmpfs");
    }

    /// A program on alice's machine.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.scene.topology.client.ns.command(program);
        command.args(arguments).env("HOME", self.scene.alice.file("")).stdin(Stdio::null());
        command.env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME");
        let ssh = format!("ssh -F {}", self.config.display());
        command.env("GIT_SSH_COMMAND", &ssh).env("RSYNC_RSH", &ssh);
        command
    }

    /// ssh, scp or sftp.
    fn ssh(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(program, &["-F", self.config.to_str().expect("plain")]);
        command.args(arguments);
        command
    }

    /// Runs something that has to knock by itself: the port is closed before it, and open for alice after it.
    fn knocks<T>(&self, what: &str, run: impl FnOnce() -> T) -> T {
        let server = &self.scene.server;
        server.call(&["revoke", "--all"]);
        assert!(server.grants().is_empty(), "nothing is open before {what}");
        let result = run();
        assert!(!server.grants().is_empty(), "{what} went in without a knock");
        result
    }

    fn must(&self, what: &str, mut command: Command) -> String {
        self.knocks(what, || succeeded(what, &command.output().expect("nsenter runs")))
    }
}

fn installed(test: &str, program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip(&format!("ssh_tools::{test}: {program}"), &format!("{program} is not installed"));
    }
    found
}

fn every_tool(test: &str, arguments: &[&str], family: Family) {
    let desk = Desk::new(arguments, family);
    let client = &desk.scene.topology.client;
    let here = Path::new(WORK).join("files");
    fs::create_dir_all(here.join("dir")).expect("a directory on the tmpfs");
    fs::write(here.join("dir/file"), test).expect("a file on the tmpfs");
    let at = |name: &str| here.join(name).display().to_string();
    let copied =
        |name: &str| assert_eq!(fs::read_to_string(here.join(name)).ok().as_deref(), Some(test), "{name}");

    let said = desk.must("ssh", desk.ssh("ssh", &["bastion", "echo $SSH_CONNECTION"]));
    assert!(said.starts_with(&client.address(family).to_string()), "{said}");
    desk.must("scp", desk.ssh("scp", &["-q", &at("dir/file"), &format!("bastion:{}", at("by-scp"))]));
    copied("by-scp");
    let batch = at("batch");
    fs::write(&batch, format!("put {} {}\n", at("dir/file"), at("by-sftp"))).expect("a file on the tmpfs");
    desk.must("sftp", desk.ssh("sftp", &["-q", "-b", &batch, "bastion"]));
    copied("by-sftp");
    if installed(test, "rsync") {
        let to = format!("bastion:{}/", at("by-rsync"));
        desk.must("rsync", desk.command("rsync", &["-a", &format!("{}/", at("dir")), &to]));
        copied("by-rsync/file");
    }
    if installed(test, "git") {
        sh(&format!(
            "cd {0}/dir && export HOME={0} && git init -q . && git config user.email a@b.c && git config user.name a \
             && git add file && git commit -qm one && git clone -q --bare . {0}/bare",
            here.display()
        ));
        let from = format!("bastion:{}", at("bare"));
        desk.must("git", desk.command("git", &["clone", "-q", &from, &at("by-git")]));
        copied("by-git/file");
    }
    forwards(&desk);
    let jump = desk.must("ssh -J", desk.ssh("ssh", &["-J", "bastion", "127.0.0.1", "echo in"]));
    assert_eq!(jump, "in\n");
    assert_eq!(desk.scene.look(&desk.scene.topology.stranger, 22), Probe::Silent, "for her alone");
}

/// -L, -D and -R over one connection.
fn forwards(desk: &Desk) {
    let (client, server) = (&desk.scene.topology.client.ns, &desk.scene.topology.server.ns);
    let (local, socks) = (format!("127.0.0.1:{LOCAL}:127.0.0.1:80"), format!("127.0.0.1:{SOCKS}"));
    let remote = format!("127.0.0.1:{REMOTE}:127.0.0.1:{AT_HOME}");
    let mut command = desk.ssh("ssh", &["-N", "-L", &local, "-D", &socks, "-R", &remote, "bastion"]);
    let mut ssh = desk.knocks("ssh -L -D -R", || {
        let child = command.spawn().expect("ssh runs");
        let ready = || tcp(server, Ipv4Addr::LOCALHOST.into(), REMOTE) == Probe::Open;
        eventually("the ports are forwarded", PATIENCE, ready);
        child
    });
    assert!(echoes(&mut connect(client, LOCAL)), "-L");
    assert!(echoes(&mut connect(server, REMOTE)), "-R");
    let mut stream = connect(client, SOCKS);
    // SOCKS 5, RFC 1928: no authentication; connect to an IPv4 address and port. The answer is 10 bytes.
    stream.write_all(&[5, 1, 0]).expect("SOCKS hears");
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut answer[..2]).expect("SOCKS answers");
    stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80]).expect("SOCKS hears");
    std::io::Read::read_exact(&mut stream, &mut answer[2..]).expect("SOCKS answers");
    assert_eq!(answer[..4], [5, 0, 5, 0], "-D");
    assert!(echoes(&mut stream), "-D");
    ssh.kill().expect("it is our child");
    ssh.wait().expect("it is our child");
}

fn connect(from: &Namespace, port: u16) -> TcpStream {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    from.enter(|| TcpStream::connect(address).expect("the forwarded port"))
}

/// The one line that spa-client said among what ssh shows.
fn line(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(255), "ssh fails");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = text.lines().filter(|line| line.starts_with("spa-client:")).collect();
    assert_eq!(ours.len(), 1, "one line of ours in:\n{text}");
    // ssh itself adds a line or two, that the connection was closed or timed out.
    assert!(text.lines().count() <= 3, "{text}");
    ours[0].to_owned()
}

#[test]
fn a_failure_is_one_line_where_ssh_shows_it() {
    in_namespace(|| {
        let mut desk = Desk::new(&[], Family::V4);
        let one_second = desk.block.replace(" connect ", " connect --timeout 1s ");
        assert_ne!(one_second, desk.block);
        desk.configure(&one_second);
        let fails =
            |desk: &Desk, arguments: &[&str]| line(&desk.ssh("ssh", arguments).output().expect("ssh runs"));

        // A service with nobody behind it: it opens, and refuses.
        let refused = fails(&desk, &["-p", "443", "bastion", "true"]);
        assert!(refused.contains("tcp/443 of bastion refused every connection for 1 s"), "{refused}");
        // An entry that is not there.
        desk.configure(&one_second.replace("bastion %p", "bastoin %p"));
        let unknown = fails(&desk, &["bastion", "true"]);
        assert!(unknown.contains("no host \"bastoin\"") && unknown.contains("did you mean \"bastion\"?"));
        clock_off(&desk, &one_second, fails);
        // Nobody opens. Also from a Match line, after which ssh tries by itself.
        desk.configure(&one_second);
        desk.scene.server.call(&["revoke", "--all"]);
        desk.scene.server.process().kill();
        let silent = fails(&desk, &["bastion", "true"]);
        assert!(
            silent.contains("could not tell whether tcp/22 of bastion opened: no answer in 1 s"),
            "{silent}"
        );
        let block = desk.scene.alice.must(&["ssh-config", "--match-exec"]);
        desk.configure(
            &block.replace(" --wait ", " --wait=1s ").replace("ConnectTimeout 10", "ConnectTimeout 1"),
        );
        let silent = fails(&desk, &["bastion", "true"]);
        assert!(
            silent.contains("could not tell whether tcp/22 of bastion opened: no answer in 1 s"),
            "{silent}"
        );
    });
}

/// A clock ten minutes behind: refused, which from here looks as any silence; the server's log has the reason.
fn clock_off(desk: &Desk, block: &str, fails: impl Fn(&Desk, &[&str]) -> String) {
    let library = sh("ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null || true");
    let Some(library) = library.lines().next() else {
        return skip(
            "ssh_tools::a_failure_is_one_line_where_ssh_shows_it: clock",
            "faketime is not installed",
        );
    };
    let faked = format!("env LD_PRELOAD={library} FAKETIME=-10m FAKETIME_DONT_FAKE_MONOTONIC=1 ");
    desk.configure(&block.replace("ProxyCommand ", &format!("ProxyCommand {faked}")));
    desk.scene.server.call(&["revoke", "--all"]);
    let behind = fails(desk, &["bastion", "true"]);
    assert!(behind.contains("no answer in 1 s (likely reasons: this clock"), "{behind}");
    let log = desk.scene.server.log();
    assert!(log.contains("refused: a packet with a right tag was made"), "{log}");
}

/// ssh itself takes each block as it is meant.
#[test]
fn ssh_reads_the_blocks() {
    in_namespace(|| {
        let desk = Desk::new(&[], Family::V6);
        let value = |text: &str, key: &str| -> Option<String> {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ').map(str::to_owned))
        };
        let config = desk.scene.alice.config();
        let text = fs::read_to_string(&config).expect("alice's configuration");
        // A second entry with the same address, and a service on another port; in a directory that needs quoting.
        let odd = desk.scene.alice.file("100% \"odd\" 'dir'");
        fs::create_dir(&odd).expect("a directory on the tmpfs");
        let second = text.replace("[hosts.bastion]", "[hosts.other]").replace("tcp/22", "tcp/2222");
        let odd = odd.join("client.toml");
        fs::write(&odd, format!("{text}\n{second}")).expect("a file on the tmpfs");
        let odd = odd.to_str().expect("plain enough");
        let shown = |arguments: &[&str], host: &str| {
            let mut command = desk.scene.topology.client.ns.command(spa_tests::binary("spa-client"));
            let block = succeeded(
                "ssh-config",
                &command.args(["--config", odd]).args(arguments).output().expect("runs"),
            );
            desk.configure(&block);
            succeeded("ssh -G", &desk.ssh("ssh", &["-G", host]).output().expect("ssh runs"))
        };
        let proxy = shown(&["ssh-config", "other"], "other");
        assert_eq!(value(&proxy, "hostname"), Some(desk.scene.address.to_string()));
        assert_eq!(value(&proxy, "port").as_deref(), Some("2222"));
        assert_eq!(value(&proxy, "hostkeyalias").as_deref(), Some("other"));
        assert_eq!(value(&proxy, "proxyusefdpass").as_deref(), Some("no"));
        let command = value(&proxy, "proxycommand").expect("a ProxyCommand");
        assert!(command.contains(r#"100%% "odd" '\''dir'\''/client.toml' connect other %p"#), "{command}");
        assert_eq!(
            value(&shown(&["ssh-config", "other", "--fdpass"], "other"), "proxyusefdpass").as_deref(),
            Some("yes")
        );
        // What ssh -G ran for the third block did knock.
        let refused = Command::new(spa_tests::binary("spa-client"))
            .args(["--config", odd, "ssh-config", "other", "--match-exec"])
            .output()
            .expect("spa-client runs");
        assert_eq!(refused.status.code(), Some(78), "older versions of ssh have no way to quote that");
        let block = desk.scene.alice.must(&["ssh-config", "--match-exec"]);
        desk.configure(&block);
        desk.knocks("ssh -G", || desk.ssh("ssh", &["-G", "bastion"]).output().expect("ssh runs"));
        // And the quoted path works.
        desk.scene.server.call(&["revoke", "--all"]);
        fs::copy(desk.scene.alice.file("bastion.key"), Path::new(odd).with_file_name("bastion.key"))
            .expect("a copy");
        shown(&["ssh-config", "bastion"], "bastion");
        let said =
            desk.ssh("ssh", &["-o", "HostKeyAlias=server", "bastion", "echo in"]).output().expect("ssh runs");
        assert_eq!(succeeded("ssh with a quoted path", &said), "in\n");
    });
}
