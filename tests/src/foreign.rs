//! The firewalls of others, really installed and really enabled, on the server of the topology: ufw and firewalld. Their
//! configurations are copies on the test's tmpfs, bound over the machine's own in this mount namespace alone.

use std::path::Path;
use std::process::Command;

use crate::ns::Namespace;
use crate::probe::{PATIENCE, eventually};
use crate::process::Process;
use crate::topology::{Family, Topology};
use crate::{WORK, sh, skip};

/// Whether a program is there. Reports the test as skipped otherwise.
pub fn installed_or_skip(program: &str, test: &str) -> bool {
    let look = format!("PATH=$PATH:/usr/sbin:/sbin command -v {program}");
    let found = Command::new("sh").args(["-c", &look]).output().is_ok_and(|output| output.status.success());
    if !found {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

/// Binds a copy over a file or directory of the machine.
fn bind_copy(path: &str) {
    let copy = format!("{WORK}/foreign{path}");
    let parent = Path::new(&copy).parent().expect("it is absolute").display().to_string();
    sh(&format!("mkdir -p {parent} && cp -a {path} {copy} && mount --bind {copy} {path}"));
}

/// Has `iptables` and `ip6tables` mean the legacy variant, for everybody in this mount namespace.
pub fn alternatives_are_legacy() {
    bind_copy("/etc/alternatives");
    sh("cd /etc/alternatives && for program in iptables ip6tables; do
            for verb in '' -save -restore; do ln -sf /usr/sbin/$program-legacy$verb $program$verb; done
        done");
}

/// ufw on the server, with Debian's configuration: what comes in is dropped, but for what belongs to a connection.
pub struct Ufw {
    ns: Namespace,
}

impl Ufw {
    /// Enables it.
    ///
    /// # Panics
    /// If `ufw enable` fails.
    pub fn enable(topology: &Topology) -> Self {
        for path in ["/etc/ufw", "/etc/default/ufw", "/lib/ufw"] {
            bind_copy(path);
        }
        // What it would set is not of this namespace alone.
        std::fs::write("/etc/ufw/sysctl.conf", "").expect("a bound copy");
        let ufw = Self { ns: topology.server.ns.clone() };
        ufw.run("--force enable");
        assert!(ufw.run("status verbose").contains("deny (incoming)"));
        ufw
    }

    /// Runs a command of ufw.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, arguments: &str) -> String {
        self.ns.sh(&format!("ufw {arguments}"))
    }

    /// Adds a line to `before.rules` and one to `before6.rules`, where docs/COEXISTENCE.md has them, and reloads.
    ///
    /// # Panics
    /// If the reload fails.
    pub fn accept(&self, rule: &str, rule6: &str) {
        for (file, rule) in [("before.rules", rule.trim()), ("before6.rules", rule6.trim())] {
            sh(&format!("sed -i 's|^# End required lines$|&\\n{rule}|' /etc/ufw/{file}"));
            sh(&format!("grep -qxF -e '{rule}' /etc/ufw/{file}"));
        }
        self.run("reload");
    }
}

/// firewalld on the server, with Debian's configuration (zone public), on a message bus of its own.
pub struct Firewalld {
    ns: Namespace,
    _daemon: Process,
    _bus: Process,
}

impl Firewalld {
    /// Starts it and waits until it says that it runs.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(topology: &Topology) -> Self {
        bind_copy("/etc/firewalld");
        std::fs::create_dir_all("/run/dbus").expect("a directory on the tmpfs");
        let bus_config = Path::new(WORK).join("bus.conf");
        std::fs::write(
            &bus_config,
            "<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>\
             <auth>EXTERNAL</auth><policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_type=\"method_call\"/><allow send_type=\"signal\"/>\
             <allow send_requested_reply=\"true\" send_type=\"method_return\"/>\
             <allow send_requested_reply=\"true\" send_type=\"error\"/>\
             <allow receive_type=\"method_call\"/><allow receive_type=\"method_return\"/>\
             <allow receive_type=\"error\"/><allow receive_type=\"signal\"/></policy></busconfig>",
        )
        .expect("written");
        let ns = topology.server.ns.clone();
        let config = format!("--config-file={}", bus_config.display());
        let mut command = ns.command("dbus-daemon");
        let bus = Process::start("dbus-daemon", command.args([&config, "--nofork", "--nopidfile"]));
        eventually("the bus listens", PATIENCE, || Path::new("/run/dbus/system_bus_socket").exists());
        let mut command = ns.command("firewalld");
        let daemon =
            Process::start("firewalld", command.args(["--nofork", "--nopid", "--log-target=console"]));
        let running = || sh("firewall-cmd --state 2>&1 || true").trim() == "running";
        eventually("firewalld runs", PATIENCE * 3, running);
        let firewalld = Self { ns, _daemon: daemon, _bus: bus };
        assert!(firewalld.run("--list-services").contains("ssh"), "Debian's zone public allows ssh");
        firewalld
    }

    /// Runs `firewall-cmd`.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, arguments: &str) -> String {
        self.ns.sh(&format!("firewall-cmd {arguments}"))
    }
}

/// An administrator's own rules: all is dropped but loopback, and what IPv6 itself needs.
pub fn drop_all(ns: &Namespace, iptables: impl Fn(Family) -> String) {
    for family in Family::BOTH {
        let iptables = iptables(family);
        let icmp = if family == Family::V6 { "ipv6-icmp" } else { "icmp" };
        ns.sh(&format!(
            "{iptables} -A INPUT -i lo -j ACCEPT && {iptables} -A INPUT -p {icmp} -j ACCEPT && {iptables} -P INPUT DROP"
        ));
    }
}
