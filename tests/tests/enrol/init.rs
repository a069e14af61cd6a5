//! `spa-server init`, by options and through a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use spa_tests::probe::{self, PATIENCE, Probe, eventually};
use spa_tests::services::tcp_echo;
use spa_tests::{Client, Family, Process, Terminal, Topology, WORK, binary, in_namespace, succeeded};

use super::refused;

/// A machine with ssh on port 22, and no spa-server yet.
struct Machine {
    topology: Topology,
    directory: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let topology = Topology::new();
        tcp_echo(&topology.server.ns, 22);
        let directory = Path::new(WORK).join("new");
        fs::create_dir_all(WORK).unwrap();
        Self { topology, directory }
    }

    fn config(&self) -> PathBuf {
        self.directory.join("etc/server.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.topology.server.ns.command(binary("spa-server"));
        command.arg("--config").arg(self.config()).args(arguments).env_remove("SSH_CONNECTION");
        command
    }

    fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        succeeded(&format!("spa-server {}", arguments.join(" ")), &self.call(arguments))
    }

    fn state(&self) -> String {
        self.directory.join("state").display().to_string()
    }

    fn init(&self, further: &[&str]) -> Vec<String> {
        let state = self.state();
        [&["init", "--state-dir", &state], further].concat().into_iter().map(str::to_owned).collect()
    }

    fn call_init(&self, further: &[&str]) -> Output {
        let arguments = self.init(further);
        self.call(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn look(&self) -> Probe {
        probe::tcp(&self.topology.client.ns, self.topology.server.address(Family::V4), 22)
    }

    /// Enrols alice and knocks until the port answers.
    fn enrol_and_open(&self) {
        let address = self.topology.server.address(Family::V4).to_string();
        let invite = self.must(&["client", "add", "alice", "--allow", "ssh", "--host", &address]);
        let alice = Client::invited(&self.topology.client, "alice", &invite);
        alice.must(&["open", "ssh", "--wait"]);
    }

    /// Not one file or directory is left.
    fn is_untouched(&self) {
        assert!(!self.directory.exists(), "{}", spa_tests::sh(&format!("find {}", self.directory.display())));
    }
}

#[test]
fn options_alone_lead_to_an_open_port() {
    in_namespace(|| {
        let machine = Machine::new();
        assert_eq!(machine.look(), Probe::Open, "before");
        let arguments = machine.init(&["--service", "ssh", "--port", "23117", "--confirm", "120s"]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut daemon = Process::start("spa-server init", &mut machine.command(&arguments));
        daemon.wait_log("ready", 0);
        let log = daemon.log();
        let config = machine.config().display().to_string();
        for next in [
            format!("spa-server --config {config} client add alice --allow ssh --host "),
            "spa-client import --name bastion".to_owned(),
            format!("spa-server --config {config} unprotect"),
            "systemctl edit spa-protect spa-server".to_owned(),
        ] {
            assert!(log.contains(&next), "{next}\n{log}");
        }
        assert_eq!(machine.look(), Probe::Silent, "protected, and nobody enrolled");
        machine.enrol_and_open();
        daemon.wait_log("confirmed", 0);
        assert!(daemon.stop().success());
        let key = machine.directory.join("etc/server.key");
        for path in [&machine.config(), &key] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        assert!(fs::read_to_string(machine.config()).unwrap().contains("port = 23117"));
        machine.must(&["check"]);
        // Nothing is ever overwritten.
        let before = (fs::read(machine.config()).unwrap(), fs::read(&key).unwrap());
        refused(
            &machine.call_init(&["--service", "ssh", "--no-start"]),
            73,
            &["server.toml exists already", "move"],
        );
        fs::rename(machine.config(), machine.directory.join("aside")).unwrap();
        refused(&machine.call_init(&["--service", "ssh", "--no-start"]), 73, &["server.key exists already"]);
        assert!(!machine.config().exists());
        fs::rename(machine.directory.join("aside"), machine.config()).unwrap();
        assert_eq!((fs::read(machine.config()).unwrap(), fs::read(&key).unwrap()), before);
        machine.must(&["unprotect"]);
        assert_eq!(machine.look(), Probe::Open, "as before");
    });
}

#[test]
fn what_is_missing_or_wrong_is_said_and_nothing_is_written() {
    in_namespace(|| {
        let machine = Machine::new();
        let start = ["--confirm TIME", "--no-start"];
        refused(&machine.call_init(&[]), 64, &[&["no terminal", "--service"][..], &start].concat());
        refused(&machine.call_init(&["--service", "ssh"]), 64, &start);
        refused(&machine.call_init(&["--no-start"]), 64, &["--service NAME"]);
        for (service, word) in [("quake", "quake=tcp/PORT"), ("ssh=22", "tcp/PORT"), ("SSH", "service name")]
        {
            refused(
                &machine.call_init(&["--service", service, "--no-start"]),
                64,
                &[word, "nothing was changed"],
            );
        }
        refused(&machine.call_init(&["--service", "ssh", "--service", "ssh", "--no-start"]), 64, &["twice"]);
        let own = ["--service", "dns=udp/5353", "--port", "5353", "--no-start"];
        refused(&machine.call_init(&own), 78, &["knocks come to"]);
        refused(&machine.call_init(&["--service", "ssh", "--port", "0", "--no-start"]), 64, &["0"]);
        let except = machine.call_init(&["--service", "ssh", "--except", "192.0.2.7/24", "--no-start"]);
        refused(&except, 64, &["192.0.2.0/24"]);
        machine.is_untouched();
        // An error midway takes back what was made: here the directory of the clients cannot be.
        fs::create_dir_all(machine.directory.join("etc")).unwrap();
        fs::set_permissions(machine.directory.join("etc"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(machine.directory.join("etc/clients.d"), "").unwrap();
        refused(&machine.call_init(&["--service", "ssh", "--no-start"]), 74, &["clients.d"]);
        let left: Vec<_> = fs::read_dir(machine.directory.join("etc")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        fs::remove_file(machine.directory.join("etc/clients.d")).unwrap();
        machine.call_init(&["--service", "ssh", "--no-start"]);
        assert!(!Path::new(&machine.state()).exists(), "--no-start starts nothing");
        assert_eq!(machine.look(), Probe::Open, "and closes nothing");
        machine.must(&["check"]);
    });
}

#[test]
fn a_dialogue_proposes_and_asks() {
    in_namespace(|| {
        let machine = Machine::new();
        tcp_echo(&machine.topology.server.ns, 8006);
        let arguments = machine.init(&[]);
        let mut command = machine.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("SSH_CONNECTION", "198.51.100.7 50022 192.0.2.1 22").env("NO_COLOR", "1");
        let mut terminal = Terminal::start(&command, 80, 24);
        terminal.expect("1  ssh ");
        terminal.expect("proxmox");
        terminal.answer("Protect [ssh]: ", "3");
        terminal.answer("there is no number 3", "");
        terminal.answer("UDP port [", "seven");
        terminal.answer("1 to 65535", "");
        terminal.expect("You are connected from 198.51.100.7.");
        terminal.answer("as 198.51.100.7/32, or none) [none]: ", "198.51.100.0/24");
        terminal.answer("on trial for (as 120s or 10m, or no) [2m]: ", "");
        terminal.expect("198.51.100.0/24");
        terminal.answer("Write these? [yes]: ", "");
        terminal.expect("client add alice --allow ssh --host 192.0.2.1");
        terminal.expect("ready");
        let dialogue = terminal.screen();
        let dialogue = dialogue.split("Next, in").next().unwrap();
        let longest = dialogue.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{longest:?}\n{dialogue}");
        assert_eq!(machine.look(), Probe::Silent);
        machine.enrol_and_open();
        terminal.expect("confirmed");
        terminal.send("\x03");
        assert!(terminal.wait().success(), "{}", terminal.screen());
        assert!(!terminal.screen().contains("verifier ended"), "Ctrl-C is for the warden alone");
        let text = fs::read_to_string(machine.config()).unwrap();
        assert!(
            text.contains("except = [\"198.51.100.0/24\"]") && text.ends_with("ssh = \"tcp/22\"\n"),
            "{text}"
        );
        assert!(!text.contains("8006"), "{text}");
    });
}

#[test]
fn who_leaves_the_dialogue_changes_nothing() {
    in_namespace(|| {
        let machine = Machine::new();
        let arguments = machine.init(&[]);
        let command = machine.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        // Ctrl-D at each question, Ctrl-C, and a last no.
        for questions in 0..5 {
            let mut terminal = Terminal::start(&command, 80, 24);
            for prompt in
                ["Protect [ssh]: ", "UDP port [", "[none]: ", "or no) [2m]: "].iter().take(questions)
            {
                terminal.answer(prompt, "");
            }
            terminal.expect("]: ");
            terminal.send("\x04");
            assert_eq!(terminal.wait().code(), Some(64), "{}", terminal.screen());
            machine.is_untouched();
        }
        let mut terminal = Terminal::start(&command, 80, 24);
        for (prompt, line) in [("[ssh]: ", ""), ("UDP port [", ""), ("[none]: ", ""), ("[2m]: ", "no")] {
            terminal.answer(prompt, line);
        }
        terminal.answer("Write these? [yes]: ", "no");
        terminal.expect("nothing was written");
        assert_eq!(terminal.wait().code(), Some(64));
        machine.is_untouched();
        assert_eq!(machine.look(), Probe::Open);
    });
}

#[test]
fn without_a_knock_all_is_as_before() {
    in_namespace(|| {
        let machine = Machine::new();
        let arguments = machine.init(&["--service", "ssh", "--confirm", "2s"]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut daemon = Process::start("spa-server init", &mut machine.command(&arguments));
        daemon.wait_log("ready", 0);
        assert_eq!(daemon.wait().code(), Some(75), "{}", daemon.log());
        eventually("the port is open again", PATIENCE, || machine.look() == Probe::Open);
        assert!(machine.config().exists(), "the files stay, to be tried again with run --confirm");
    });
}
