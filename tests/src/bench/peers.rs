//! fwknopd and knockd, from Debian's packages, configured as their manuals have it, on the server of the topology.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use spa_tests::{Family, Process, SPA_PORT, Topology, WORK, sh, write_private};

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let asked =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// A running fwknopd with one user, who has a symmetric key and an HMAC key.
pub struct Fwknopd {
    topology: Topology,
    directory: PathBuf,
    keys: [String; 2],
    process: Option<Process>,
}

impl Fwknopd {
    /// Closes the ports, and starts it. Everything but the directories, the keys and the time-out is its default.
    pub fn start(topology: &Topology, ports: (u16, u16), open_for: u32) -> Self {
        close(topology, ports);
        let directory = Path::new(WORK).join("fwknop");
        sh(&format!("mkdir -m 700 -p {}", directory.display()));
        let keys = [32, 64].map(|bytes| sh(&format!("head -c {bytes} /dev/urandom | base64 -w0")));
        let run = directory.join("run");
        let configuration = format!("PCAP_INTF eth0;\nFWKNOP_RUN_DIR {};\n", run.display());
        write_private(&directory.join("fwknopd.conf"), configuration);
        let access = format!(
            "SOURCE ANY\nKEY_BASE64 {}\nHMAC_KEY_BASE64 {}\nFW_ACCESS_TIMEOUT {open_for}\n",
            keys[0], keys[1]
        );
        write_private(&directory.join("access.conf"), access);
        let mut fwknopd = Self { topology: topology.clone(), directory, keys, process: None };
        fwknopd.restart();
        fwknopd
    }

    /// Stops it, if it runs, and starts it.
    pub fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            stop(&mut process);
        }
        let mut command = self.topology.server.ns.command("fwknopd");
        command.arg("-f");
        command.arg("-c").arg(self.directory.join("fwknopd.conf"));
        command.arg("-a").arg(self.directory.join("access.conf"));
        let mut process = Process::start("fwknopd", &mut command);
        process.wait_log("Starting fwknopd main event loop", 0);
        self.process = Some(process);
    }

    /// The daemon.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("started")
    }

    /// The client's command line for a port.
    pub fn client(&self, port: u16) -> Vec<String> {
        let client = self.topology.client.address(Family::V4).to_string();
        let server = self.topology.server.address(Family::V4).to_string();
        let words = [
            "-A",
            &format!("tcp/{port}"),
            "-a",
            &client,
            "-D",
            &server,
            "-p",
            &SPA_PORT.to_string(),
            "--key-base64-rijndael",
            &self.keys[0],
            "--key-base64-hmac",
            &self.keys[1],
            "--use-hmac",
            "--no-save-args",
            "--no-rc-file",
        ];
        words.map(str::to_owned).into()
    }

    /// The datagram that the client would send.
    pub fn datagram(&self, port: u16) -> Vec<u8> {
        let saved = self.directory.join("packet");
        // Absent the first time.
        let _ = std::fs::remove_file(&saved);
        let mut command = Command::new("fwknop");
        command
            .env("HOME", &self.directory)
            .args(self.client(port))
            .arg("--test")
            .arg("--save-packet")
            .arg(&saved);
        let output = command.stdin(Stdio::null()).output().expect("fwknop is installed");
        let mut packet = std::fs::read(&saved)
            .unwrap_or_else(|error| panic!("fwknop: {error}: {}", String::from_utf8_lossy(&output.stderr)));
        while packet.last() == Some(&b'\n') {
            packet.pop();
        }
        packet
    }
}

impl Drop for Fwknopd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            stop(&mut process);
        }
    }
}

/// A running knockd: three datagrams to three ports open one TCP port, by one command of iptables.
pub struct Knockd {
    topology: Topology,
    directory: PathBuf,
    port: u16,
    process: Option<Process>,
}

/// The datagrams of knockd's sequence.
pub const SEQUENCE: [u16; 3] = [7000, 7001, 7002];

impl Knockd {
    /// Closes the port, and starts it.
    pub fn start(topology: &Topology, port: u16) -> Self {
        close(topology, (port, port));
        let directory = Path::new(WORK).join("knockd");
        sh(&format!("mkdir -m 700 -p {}", directory.display()));
        let [a, b, c] = SEQUENCE;
        let configuration = format!(
            "[options]\n\tlogfile = {0}/log\n\tinterface = eth0\n[open]\n\tsequence = {a}:udp,{b}:udp,{c}:udp\n\
             \tseq_timeout = 5\n\tcommand = /usr/sbin/iptables -I INPUT -s %IP% -p tcp --dport {port} -j ACCEPT\n",
            directory.display()
        );
        write_private(&directory.join("knockd.conf"), configuration);
        let mut knockd = Self { topology: topology.clone(), directory, port, process: None };
        knockd.restart();
        knockd
    }

    /// Stops it, if it runs, and starts it.
    pub fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            stop(&mut process);
        }
        let mut command = self.topology.server.ns.command("knockd");
        command.arg("-c").arg(self.directory.join("knockd.conf"));
        command.args(["-i", "eth0"]).arg("-p").arg(self.directory.join("pid"));
        self.process = Some(Process::start("knockd", &mut command));
        // It says nothing when it is ready: what it needs by then is a packet socket.
        let ns = self.topology.server.ns.clone();
        spa_tests::probe::eventually("knockd listens", spa_tests::probe::PATIENCE, || {
            ns.sh("cat /proc/net/packet | wc -l").trim() != "1"
        });
    }

    /// The daemon.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("started")
    }

    /// Takes back the rule of a knock: knockd itself never does, unless told to by another knock.
    pub fn close(&self) {
        let client = self.topology.client.address(Family::V4);
        self.topology
            .server
            .ns
            .sh(&format!("iptables -D INPUT -s {client} -p tcp --dport {} -j ACCEPT", self.port));
    }
}

impl Drop for Knockd {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            stop(&mut process);
        }
    }
}

/// SIGTERM through the namespace's shell.
fn stop(process: &mut Process) {
    if process.is_running() {
        process.stop();
    }
}

/// What an administrator has before either of them: the ports and the SPA port dropped.
fn close(topology: &Topology, (first, last): (u16, u16)) {
    topology.server.ns.sh(&format!(
        "iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
         iptables -A INPUT -p tcp --dport {first}:{last} -j DROP
         iptables -A INPUT -p udp -j DROP"
    ));
}
