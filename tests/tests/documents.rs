//! Every command that the documents show is run as it stands, on two Debian machines with systemd, sshd and a firewall of their own.
//!
//! A document's own marks say what belongs where (`tests/src/documents.rs`). There are no shims: `systemctl` is systemd's.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use spa_tests::documents::{Action, Condition, Step, checkout, pages, steps};
use spa_tests::machine::{Machine, root_or_skip};
use spa_tests::probe::{self, PATIENCE, Probe, eventually};
use spa_tests::{Family, Process, Terminal, Topology, in_namespace, skip, succeeded};

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
    ($($test:ident: $path:expr, $families:expr;)+) => { $(
        #[test]
        fn $test() {
            if root_or_skip(stringify!($test)).is_some() && has_built(stringify!($test), $path) {
                in_namespace(|| follow($path, $families));
            }
        }
    )+ };
}

documents! {
    readme: README, &Family::BOTH;
    guide_ssh_server: "docs/guides/ssh-server.md", &Family::BOTH;
    guide_wireguard: "docs/guides/wireguard.md", &Family::BOTH;
    guide_ci_job: "docs/guides/ci-job.md", &Family::BOTH;
    migrating_from_fwknop: "docs/MIGRATING-FROM-FWKNOP.md", &Family::BOTH;
    troubleshooting: "docs/TROUBLESHOOTING.md", &Family::BOTH;
    // Its examples are of iptables alone, as knockd's own.
    migrating_from_knockd: "docs/MIGRATING-FROM-KNOCKD.md", &[Family::V4];
}

/// Every document can be read, every block of shell has its mark, and what is run elsewhere is run there.
#[test]
fn every_block_of_shell_is_run() {
    for document in pages() {
        for step in steps(&document) {
            if let Action::RunBy(file) = &step.action {
                is_run_by(file, &document, &step);
            }
        }
    }
}

/// A script has the very lines; a test takes them from the page.
fn is_run_by(file: &str, document: &Path, step: &Step) {
    let at = format!("{}:{}", document.display(), step.line);
    let text = fs::read_to_string(checkout(file)).unwrap_or_else(|error| panic!("{at}: {file}: {error}"));
    if file.ends_with(".rs") {
        let page = document.strip_prefix(checkout("")).expect("a page of the checkout").display();
        let takes = format!("\"{page}\"");
        assert!(
            text.contains("run_by(") && text.contains(&takes),
            "{at}: {file} does not take the page's blocks"
        );
        return;
    }
    for command in step.commands() {
        let has = text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains(&command));
        assert!(has, "{at}: {file} does not run: {command}");
    }
}

/// README's way from the packages to an `ssh bastion` that knocks by itself has at most so many commands on each side.
const MOST_COMMANDS: usize = 8;

#[test]
fn the_way_through_readme_is_short() {
    let text = fs::read_to_string(checkout(README)).expect("README.md");
    let end = 1 + text.lines().position(|line| line == "### Undo everything").expect("how it is undone");
    for machine in ["server", "client"] {
        let on_machine = |step: &Step| step.line < end && step.action == Action::Run(machine.into());
        let way = steps(&checkout(README)).into_iter().filter(on_machine);
        let commands: Vec<String> = way.flat_map(|step| step.commands()).collect();
        let few = (4..=MOST_COMMANDS).contains(&commands.len());
        assert!(few, "{} commands on the {machine}: {commands:#?}", commands.len());
        assert!(commands[0].starts_with("apt-get install "), "it begins with the package: {commands:#?}");
    }
}

/// Its reader has nothing but the packages.
const README: &str = "README.md";

/// Runs what the document has its reader run in the checkout, which is to build the packages; false, and reported as
/// skipped, where that cannot be done here.
fn has_built(test: &str, document: &str) -> bool {
    let is_here = |step: &Step| step.action == Action::Run(CHECKOUT.into());
    for step in steps(&checkout(document)).into_iter().filter(is_here) {
        for (tool, arguments) in [("cargo", &["deb", "--version"][..]), ("dpkg-shlibdeps", &["--version"])] {
            if !Command::new(tool).args(arguments).output().is_ok_and(|output| output.status.success()) {
                skip(test, &format!("{tool} {} fails: the packages cannot be built", arguments.join(" ")));
                return false;
            }
        }
        let mut shell = Command::new("sh");
        shell.args(["-ec", &step.text]).current_dir(checkout(""));
        succeeded(&format!("{document}:{}", step.line), &shell.output().expect("sh runs"));
    }
    true
}

/// Where the sources are, as a place to run something: before the machines boot.
const CHECKOUT: &str = "checkout";

/// Two machines, and what is handed from one to the other by hand.
struct Reader {
    topology: Topology,
    server: Machine,
    client: Machine,
    invite: String,
    background: Option<Background>,
}

/// What goes on while the reader does the next steps.
enum Background {
    Process(Process),
    Terminal(Terminal),
}

fn follow(document: &str, families: &[Family]) {
    let mut reader = Reader::new(families);
    if document != README {
        for machine in [&reader.server, &reader.client] {
            machine.sh(INSTALL);
        }
    }
    for step in steps(&checkout(document)) {
        let at = format!("{document}:{}", step.line);
        println!("{at}: {:?} {:?}", step.action, step.conditions);
        reader.prepare(&step);
        match &step.action {
            Action::Run(machine) if machine == CHECKOUT => {}
            Action::Run(machine) | Action::Setup(machine) => reader.run(machine, &step, &at),
            Action::File(machine, path) => reader.machine(machine).write(path, &reader.filled_in(&step)),
            Action::Workflow(script) => calls(&step.text, script, &at),
            Action::RunBy(_) => {}
        }
    }
}

impl Reader {
    fn new(families: &[Family]) -> Self {
        let topology = Topology::new();
        let (server, client) = (Machine::boot("server"), Machine::boot("client"));
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
                    match self.background.take().expect("a command in the background") {
                        Background::Process(mut process) => {
                            self.server.sh("kill -INT $(cat /run/background.pid)");
                            process.wait();
                        }
                        Background::Terminal(mut terminal) => {
                            terminal.send("\x03");
                            terminal.wait();
                        }
                    }
                    self.server.sh("timeout 10 tail --pid=$(cat /run/background.pid) -f /dev/null");
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
            let mut command = machine.command();
            command.args(["bash", "-c", &lines]);
            self.background = Some(if has(Condition::OnTerminal) {
                Background::Terminal(take_proposals(&command))
            } else {
                let mut process = Process::start(at, &mut command);
                process.wait_log("ready", 0);
                Background::Process(process)
            });
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
        let line = step.conditions.iter().find_map(|condition| match condition {
            Condition::InputLine(line) => Some(format!("{line}\n")),
            Condition::InputInvite => Some(self.invite.clone()),
            _ => None,
        });
        let mut output = machine.call(&step.text, &environment, line.unwrap_or_default().as_bytes());
        if output.status.code().is_some_and(|status| has(Condition::MayEndWith(status))) {
            output.status = ExitStatus::default();
        }
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
        if let Some(Background::Process(process)) = &self.background {
            process.signal(Signal::KILL);
        }
    }
}

/// Answers each question with Enter, until what was asked for runs.
fn take_proposals(command: &Command) -> Terminal {
    /// More than any of our dialogues asks.
    const QUESTIONS: usize = 10;
    let mut terminal = Terminal::start(command, 80, 24);
    for _ in 0..QUESTIONS {
        if terminal.expect_one_of(&["]: ", "ready"]) == "ready" {
            return terminal;
        }
        terminal.send("\n");
    }
    panic!("questions without end:\n{}", terminal.screen());
}

/// A workflow file calls the script and hands over what it wants.
fn calls(workflow: &str, script: &str, at: &str) {
    for word in [&*format!("sh {script} "), "TARGET", "SPA_INVITE", "SSH_KEY", "KNOWN_HOSTS"] {
        assert!(workflow.contains(word), "{at}: no {word}");
    }
    assert!(!workflow.contains('\t'), "{at}: YAML has no tabs");
}
