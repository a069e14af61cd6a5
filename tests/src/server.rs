//! The shipped spa-server, configured and run on the server of the topology.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::nft::{self, Ruleset};
use crate::ns::Namespace;
use crate::process::Process;
use crate::topology::{Family, Topology};
use crate::{WORK, binary};

/// The UDP port of every test's server.
pub const SPA_PORT: u16 = 62201;
/// What the daemon logs once knocks are taken.
const READY: &str = " ready port=";

/// What holds the rules: one of the two programs that are called iptables, or the kernel's nf_tables itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// iptables-nft
    Nft,
    /// iptables-legacy
    Legacy,
    /// `backend = "nftables"`, the table `inet spa`
    Nftables,
}

impl Variant {
    /// What it is called in test names and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
            Self::Nftables => "nftables",
        }
    }

    /// The lines of `[firewall]` that choose it.
    fn toml(self) -> &'static str {
        match self {
            Self::Nft => "iptables = \"nft\"",
            Self::Legacy => "iptables = \"legacy\"",
            Self::Nftables => "backend = \"nftables\"",
        }
    }

    /// The iptables that the administrator's own rules are set with: `ip6tables-legacy`, for example.
    pub fn iptables(self, family: Family) -> String {
        let program = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let suffix = if self == Self::Legacy { "legacy" } else { "nft" };
        format!("{program}-{suffix}")
    }
}

/// What a test wants to have configured differently.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[firewall] backend` and `iptables`
    pub variant: Variant,
    /// `[limits] open-for`
    pub open_for: &'static str,
    /// `[limits] max-age`
    pub max_age: &'static str,
    /// Further lines of `[server]`.
    pub server: String,
    /// Further lines of `[firewall]`.
    pub firewall: String,
    /// Further lines of `[limits]`.
    pub limits: String,
    /// The lines of `[services]`.
    pub services: String,
}

impl Settings {
    /// Three services, closed, open for 2 seconds.
    pub fn new(variant: Variant) -> Self {
        Self {
            variant,
            open_for: "2s",
            max_age: "60s",
            server: String::new(),
            firewall: String::new(),
            limits: String::new(),
            services: "ssh = \"tcp/22\"\nweb = [\"tcp/80\", \"tcp/443\"]\ndns = \"udp/53\"\n".into(),
        }
    }

    fn toml(&self, directory: &Path) -> String {
        let Self { variant, open_for, max_age, server, firewall, limits, services } = self;
        let (directory, backend) = (directory.display(), variant.toml());
        format!(
            "[server]\nport = {SPA_PORT}\nkey-file = \"{directory}/server.key\"\nstate-dir = \"{directory}/state\"\n\
             clients-dir = \"{directory}/clients.d\"\n{server}\n[firewall]\n{backend}\n{firewall}\n\
             [limits]\nopen-for = \"{open_for}\"\nmax-age = \"{max_age}\"\n{limits}\n[services]\n{services}"
        )
    }
}

/// A configured server; runs after [`Server::start`].
pub struct Server {
    ns: Namespace,
    directory: PathBuf,
    variant: Variant,
    path_first: Option<String>,
    process: Option<Process>,
}

impl Server {
    /// Writes the configuration and makes the keys.
    ///
    /// # Panics
    /// If `spa-server keygen` fails.
    pub fn new(topology: &Topology, settings: &Settings) -> Self {
        let directory = Path::new(WORK).join("server");
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(directory.join("clients.d")).expect("a directory on the tmpfs");
        private.create(directory.join("state")).expect("a directory on the tmpfs");
        let server = Self {
            ns: topology.server.ns.clone(),
            directory,
            variant: settings.variant,
            path_first: None,
            process: None,
        };
        server.configure(settings);
        server.must(&["keygen"]);
        server
    }

    /// Configures and runs it.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn started(topology: &Topology, settings: &Settings) -> Self {
        let mut server = Self::new(topology, settings);
        server.start();
        server
    }

    /// Has its programs looked for in a directory before all others.
    pub fn look_first_in(&mut self, directory: &str) {
        self.path_first = Some(directory.to_owned());
    }

    /// Writes another configuration; does not reload it.
    pub fn configure(&self, settings: &Settings) {
        write_private(&self.config(), settings.toml(&self.directory));
    }

    /// `server.toml`.
    pub fn config(&self) -> PathBuf {
        self.directory.join("server.toml")
    }

    /// A file of the server: `server.key`, `clients.d/alice.toml`, `state/...`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A command of spa-server, on this configuration and in the server's namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ns.command(binary("spa-server"));
        command.arg("--config").arg(self.config()).args(arguments);
        if let Some(first) = &self.path_first {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{first}:{path}"));
        }
        command
    }

    /// Runs a command of spa-server.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("nsenter runs")
    }

    /// Runs a command of spa-server that has to succeed; returns its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub fn must(&self, arguments: &[&str]) -> String {
        succeeded(&format!("spa-server {}", arguments.join(" ")), &self.call(arguments))
    }

    /// Enrols a client; returns its invite.
    ///
    /// # Panics
    /// If `client add` fails.
    pub fn enrol(&self, name: &str, allow: &str, host: &str, further: &[&str]) -> String {
        let arguments = [&["client", "add", name, "--allow", allow, "--host", host], further].concat();
        self.must(&arguments)
    }

    /// Runs the daemon and waits until it is ready.
    ///
    /// # Panics
    /// If it ends, or is not ready in time.
    pub fn start(&mut self) {
        self.start_with(&["run"]);
    }

    /// Runs the daemon with further arguments.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(&mut self, arguments: &[&str]) {
        let mut process = Process::start("spa-server", &mut self.command(arguments));
        process.wait_log(READY, 0);
        self.process = Some(process);
    }

    /// Runs the daemon, which may take so long to be ready.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_within(&mut self, patience: Duration) {
        let mut process = Process::start("spa-server", &mut self.command(&["run"]));
        process.wait_log_within(READY, 0, patience);
        self.process = Some(process);
    }

    /// The running daemon.
    ///
    /// # Panics
    /// If it was never started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server was started")
    }

    /// What the daemon logged.
    ///
    /// # Panics
    /// If it was never started.
    pub fn log(&self) -> String {
        self.process.as_ref().expect("the server was started").log()
    }

    /// `spa-server status --json`.
    ///
    /// # Panics
    /// If it fails or prints no JSON.
    pub fn status(&self) -> Value {
        let text = self.must(&["status", "--json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("status --json: {error}\n{text}"))
    }

    /// How often packets were refused for a reason, by its name.
    ///
    /// # Panics
    /// If the status does not have it.
    pub fn refused(&self, reason: &str) -> u64 {
        let status = self.status();
        let count = find(&status, "refused").and_then(|refused| refused.get(reason)).and_then(Value::as_u64);
        count.unwrap_or_else(|| panic!("status --json has no refused.{reason}: {status}"))
    }

    /// How many packets were refused, for whatever reason.
    ///
    /// # Panics
    /// If the status does not have it.
    pub fn refused_in_all(&self) -> u64 {
        let status = self.status();
        let counts = status["refused"].as_object().unwrap_or_else(|| panic!("no refused: {status}"));
        counts.values().filter_map(Value::as_u64).sum()
    }

    /// How many Diffie-Hellman operations packets have cost.
    ///
    /// # Panics
    /// If the status does not have it.
    pub fn diffie_hellmans(&self) -> u64 {
        let status = self.status();
        status["diffie-hellman"].as_u64().unwrap_or_else(|| panic!("no diffie-hellman: {status}"))
    }

    /// `spa-server grants --json`, as an array.
    ///
    /// # Panics
    /// If it fails or prints something else.
    pub fn grants(&self) -> Vec<Value> {
        let text = self.must(&["grants", "--json"]);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let array = value.as_array().or_else(|| find(&value, "grants").and_then(Value::as_array));
        array.unwrap_or_else(|| panic!("grants --json is no array: {value}")).clone()
    }

    /// The rules of one family as `iptables -S` prints them; with nftables all of ours, as `nft` reads them.
    pub fn rules(&self, family: Family) -> String {
        match self.variant {
            Variant::Nftables => Ruleset::read(&self.ns).ours(),
            _ => self.ns.sh(&format!("{} -w -S", self.iptables(family))),
        }
    }

    /// The rules, or set elements, that let a grant's packets in.
    pub fn grant_rules(&self, family: Family) -> Vec<String> {
        if self.variant == Variant::Nftables {
            return nft::open(&self.ns, family).into_keys().collect();
        }
        let rules = self.rules(family);
        let accepts = |rule: &&str| rule.contains("--datestop") && rule.contains("-j ACCEPT");
        rules.lines().filter(accepts).map(str::to_owned).collect()
    }

    /// All rules of the host that are not ours, of both families, in their order; without counters.
    pub fn foreign_rules(&self) -> String {
        match self.variant {
            Variant::Nftables => Ruleset::read(&self.ns).foreign(),
            _ => {
                let rules = Family::BOTH.map(|family| self.rules(family)).join("--\n");
                rules.lines().filter(|rule| !rule.contains("SPA")).map(|rule| format!("{rule}\n")).collect()
            }
        }
    }

    /// The program that this server's firewall is set with, or the administrator's own rules beside nftables.
    pub fn iptables(&self, family: Family) -> String {
        self.variant.iptables(family)
    }

    /// The server's namespace.
    pub fn ns(&self) -> &Namespace {
        &self.ns
    }
}

/// Writes a file that nobody else can read.
///
/// # Panics
/// If it cannot be written.
pub fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    use std::io::Write;
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = open.and_then(|mut file| file.write_all(text.as_ref()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Standard output of a program that had to succeed.
///
/// # Panics
/// If it did not; the message has what it said.
pub fn succeeded(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// The value of a key, wherever it is in a tree of objects.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key)))
}
