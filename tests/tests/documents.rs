//! Every command that the documents show is run as it stands, on two Debian machines with systemd, sshd and a firewall of their own.
//!
//! A document's own marks say what belongs where (`tests/src/documents.rs`). There are no shims: `systemctl` is systemd's.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use spa_tests::documents::{Action, Condition, Step, steps};
use spa_tests::machine::{Machine, root_or_skip};
use spa_tests::probe::{self, PATIENCE, Probe, eventually};
use spa_tests::{Family, Process, Topology, in_namespace, succeeded};

/// What the documents call the server.
const NAMES: &str = "bastion.example.org vpn.example.org";
/// README's first step, without the compiler.
const INSTALL: &str = "
install -m 755 /mnt/programs/spa-server /mnt/programs/spa-client /usr/bin/
if [ \"$(hostname)\" = server ]; then
    install -m 644 -D /mnt/checkout/deploy/spa.sysusers.conf /usr/lib/sysusers.d/spa.conf && systemd-sysusers spa.conf
    install -m 644 -D /mnt/checkout/deploy/spa.tmpfiles.conf /usr/lib/tmpfiles.d/spa.conf
    systemd-tmpfiles --create spa.conf
    install -m 644 /mnt/checkout/deploy/spa-protect.service /mnt/checkout/deploy/spa-server.service /etc/systemd/system/
    systemctl daemon-reload
fi";

macro_rules! documents {
    ($($test:ident: $path:literal, $families:expr;)+) => { $(
        #[test]
        fn $test() {
            if root_or_skip(stringify!($test)).is_some() {
                in_namespace(|| follow($path, $families));
            }
        }
    )+ };
}

documents! {
    guide_ssh_server: "docs/guides/ssh-server.md", &Family::BOTH;
    guide_wireguard: "docs/guides/wireguard.md", &Family::BOTH;
    guide_ci_job: "docs/guides/ci-job.md", &Family::BOTH;
    migrating_from_fwknop: "docs/MIGRATING-FROM-FWKNOP.md", &Family::BOTH;
    // Its examples are of iptables alone, as knockd's own.
    migrating_from_knockd: "docs/MIGRATING-FROM-KNOCKD.md", &[Family::V4];
}

/// Every document can be read, and every block of shell has its mark.
#[test]
fn every_block_of_shell_has_a_mark() {
    for document in ["docs/guides", "docs"].iter().flat_map(|directory| markdown(&checkout(directory))) {
        if !WITHOUT_MARKS.iter().any(|name| document.ends_with(name)) {
            steps(&document);
        }
    }
}

/// Their commands build and measure, which other tests do, or belong to an emergency.
const WITHOUT_MARKS: &[&str] = &["BENCHMARKS.md", "PROTOCOL.md", "TORTURE.md", "TROUBLESHOOTING.md"];

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn markdown(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.expect("a readable directory").path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Two machines, and what is handed from one to the other by hand.
struct Reader {
    topology: Topology,
    server: Machine,
    client: Machine,
    invite: String,
    background: Option<Process>,
}

fn follow(document: &str, families: &[Family]) {
    let mut reader = Reader::new(families);
    for step in steps(&checkout(document)) {
        let at = format!("{document}:{}", step.line);
        println!("{at}: {:?} {:?}", step.action, step.conditions);
        reader.prepare(&step);
        match &step.action {
            Action::Run(machine) => reader.run(machine, &step, &at),
            Action::File(machine, path) => reader.machine(machine).write(path, &reader.filled_in(&step)),
            Action::Workflow(script) => calls(&step.text, script, &at),
            Action::NotRun(_) => {}
        }
    }
}

impl Reader {
    fn new(families: &[Family]) -> Self {
        let topology = Topology::new();
        let (server, client) = (Machine::boot("server"), Machine::boot("client"));
        for machine in [&server, &client] {
            machine.sh(INSTALL);
        }
        let addresses =
            families.iter().map(|family| format!("{} {NAMES}\n", topology.server.address(*family)));
        let hosts = addresses.collect::<String>();
        succeeded("hosts", &client.call("cat >>/etc/hosts", &[], hosts.as_bytes()));
        let key = client
            .sh("mkdir -p ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && cat ~/.ssh/*.pub");
        server.write("~/.ssh/authorized_keys", &key);
        // The looks at its port are connections that say nothing; beyond ten, sshd would drop real ones at random.
        server.sh("echo 'MaxStartups 1000' > /etc/ssh/sshd_config.d/looks.conf && systemctl try-reload-or-restart ssh");
        let host_key = server.sh("cat /etc/ssh/ssh_host_ed25519_key.pub");
        client.write("~/.ssh/known_hosts", &format!("bastion.example.org {host_key}"));
        Self { topology, server, client, invite: String::new(), background: None }
    }

    fn machine(&self, name: &str) -> &Machine {
        match name {
            "server" => &self.server,
            "client" => &self.client,
            _ => panic!("there is no machine {name}"),
        }
    }

    /// What has to be so before a step.
    fn prepare(&mut self, step: &Step) {
        for condition in &step.conditions {
            match condition {
                Condition::AfterBackground => {
                    self.server.sh("kill -INT $(cat /run/background.pid)");
                    self.background.take().expect("a command in the background").wait();
                }
                Condition::AfterClosed => eventually("port 22 closes", PATIENCE * 6, || {
                    let server = self.topology.server.address(Family::V4);
                    probe::tcp(&self.topology.client.ns, server, 22) == Probe::Silent
                }),
                Condition::AfterImport(name) => {
                    let import = format!("spa-client import --name {name}");
                    succeeded(&import, &self.client.call(&import, &[], self.invite.as_bytes()));
                }
                _ => {}
            }
        }
    }

    fn run(&mut self, name: &str, step: &Step, at: &str) {
        let has = |condition| step.conditions.contains(&condition);
        let machine = self.machine(name);
        if has(Condition::Background) {
            let lines = format!("echo $$ >/run/background.pid; exec {}", step.text.trim());
            let mut process = Process::start(at, machine.command().args(["bash", "-c", &lines]));
            process.wait_log("ready", 0);
            self.background = Some(process);
            return;
        }
        let mut environment = Vec::new();
        if has(Condition::EnvironmentInvite) {
            environment.push(("SPA_INVITE", self.invite.clone()));
        }
        if has(Condition::EnvironmentKey) {
            environment.push(("SSH_KEY", self.client.sh("cat ~/.ssh/id_ed25519")));
            environment.push(("KNOWN_HOSTS", self.client.sh("cat ~/.ssh/known_hosts")));
        }
        let input = if has(Condition::InputInvite) { self.invite.as_bytes() } else { b"" };
        let output = machine.call(&step.text, &environment, input);
        let said = succeeded(&format!("{at}:\n{}", step.text), &output);
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
        if has(Condition::OutputInvite) {
            assert_eq!(said.lines().count(), 1, "{at}: an invite is one line");
            self.invite = said;
        }
    }

    /// A file's text, with what the reader puts in the place of words.
    fn filled_in(&self, step: &Step) -> String {
        step.conditions.iter().fold(step.text.clone(), |text, condition| match condition {
            Condition::Placeholder(word, machine, path) => {
                assert!(text.contains(word), "no {word} in\n{text}");
                text.replace(word, self.machine(machine).sh(&format!("cat {path}")).trim())
            }
            _ => text,
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.server.call("journalctl -b --no-pager | tail -60; iptables -S", &[], b"");
            eprintln!("---- server\n{}", String::from_utf8_lossy(&journal.stdout));
        }
        if let Some(process) = &self.background {
            process.signal(Signal::KILL);
        }
    }
}

/// A workflow file calls the script and hands over what it wants.
fn calls(workflow: &str, script: &str, at: &str) {
    for word in [&*format!("sh {script} "), "TARGET", "SPA_INVITE", "SSH_KEY", "KNOWN_HOSTS"] {
        assert!(workflow.contains(word), "{at}: no {word}");
    }
    assert!(!workflow.contains('\t'), "{at}: YAML has no tabs");
}
