//! fwknopd and knockd, from Debian's packages, configured as their manuals have it, on the server of the topology.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use spa_tests::{Family, Process, SPA_PORT, Topology, WORK, sh, write_private};

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let asked =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// What fwknopd logs when it is ready.
const STARTED: &str = "Starting fwknopd main event loop";

/// fwknopd with users who have a symmetric key and an HMAC key each.
pub struct Fwknopd {
    topology: Topology,
    directory: PathBuf,
    open_for: u32,
    /// Of each user, in the order of `access.conf`.
    keys: Vec<[String; 2]>,
    process: Option<Process>,
}

impl Fwknopd {
    /// With one user: closes the ports, and starts it.
    pub fn start(topology: &Topology, ports: (u16, u16), open_for: u32) -> Self {
        let mut fwknopd = Self::new(topology, ports, open_for);
        fwknopd.set_users(1);
        fwknopd.restart();
        fwknopd
    }

    /// Closes the ports. Everything but the directories, the keys and the time-out is its default.
    pub fn new(topology: &Topology, ports: (u16, u16), open_for: u32) -> Self {
        close(topology, ports);
        let directory = Path::new(WORK).join("fwknop");
        let run = directory.join("run");
        sh(&format!("mkdir -m 700 -p {0} {1}", directory.display(), run.display()));
        let configuration = format!("PCAP_INTF eth0;\nFWKNOP_RUN_DIR {};\n", run.display());
        write_private(&directory.join("fwknopd.conf"), configuration);
        Self { topology: topology.clone(), directory, open_for, keys: Vec::new(), process: None }
    }

    /// Has so many users, each with a stanza of `access.conf` and keys of 32 and 64 bytes, from its next start on.
    pub fn set_users(&mut self, users: usize) {
        self.keys = (0..users).map(|_| [base64(42) + "A=", base64(85) + "A=="]).collect();
        let stanza = |[key, hmac]: &[String; 2]| {
            let open_for = self.open_for;
            format!("SOURCE ANY\nKEY_BASE64 {key}\nHMAC_KEY_BASE64 {hmac}\nFW_ACCESS_TIMEOUT {open_for}\n")
        };
        let access: String = self.keys.iter().map(stanza).collect();
        write_private(&self.directory.join("access.conf"), access);
    }

    /// Remembers so many packets of others, from its next start on. Its `digest.cache` has one line for each: digest,
    /// protocol, addresses and ports, time.
    pub fn set_remembered(&self, packets: usize) {
        let now = sh("date +%s");
        let line = |_| {
            let digest = base64(42) + "A"; // SHA-256 without its padding
            format!("{digest} 17 192.0.2.77 40000 192.0.2.1 {SPA_PORT} {}\n", now.trim())
        };
        let mut text = "# <digest> <proto> <src_ip> <src_port> <dst_ip> <dst_port> <time>\n".to_owned();
        text.extend((0..packets).map(line));
        write_private(&self.directory.join("run/digest.cache"), text);
    }

    /// Stops it, if it runs, and starts it.
    pub fn restart(&mut self) {
        self.launch().wait_log(STARTED, 0);
    }

    /// The same; whether it started within this time. It is killed where it did not.
    pub fn restart_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let process = self.launch();
        while !process.log().contains(STARTED) {
            if Instant::now() > deadline || !process.is_running() {
                self.kill();
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }

    fn launch(&mut self) -> &mut Process {
        self.stop();
        let mut command = self.topology.server.ns.command("fwknopd");
        command.arg("-f");
        command.arg("-c").arg(self.directory.join("fwknopd.conf"));
        command.arg("-a").arg(self.directory.join("access.conf"));
        self.process.insert(Process::start("fwknopd", &mut command))
    }

    /// Stops it, if it runs.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            stop(&mut process);
        }
    }

    /// SIGKILL, if it runs. Its rules stay until its next start.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The daemon.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("started")
    }

    /// The first user's command line for a port.
    pub fn client(&self, port: u16) -> Vec<String> {
        self.client_of(0, port)
    }

    fn client_of(&self, user: usize, port: u16) -> Vec<String> {
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
            &self.keys[user][0],
            "--key-base64-hmac",
            &self.keys[user][1],
            "--use-hmac",
            "--no-save-args",
            "--no-rc-file",
        ];
        words.map(str::to_owned).into()
    }

    /// The datagram that the first user's client would send.
    pub fn datagram(&self, port: u16) -> Vec<u8> {
        self.datagram_of(0, port)
    }

    /// The same of another user.
    pub fn datagram_of(&self, user: usize, port: u16) -> Vec<u8> {
        let saved = self.directory.join("packet");
        // Absent the first time.
        let _ = std::fs::remove_file(&saved);
        let mut command = Command::new("fwknop");
        command
            .env("HOME", &self.directory)
            .args(self.client_of(user, port))
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
        self.stop();
    }
}

/// So many random digits of base64.
pub fn base64(digits: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..digits).map(|_| char::from(DIGITS[rand::random_range(0..64)])).collect()
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
