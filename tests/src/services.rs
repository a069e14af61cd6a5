//! What is protected: echo services, and the machine's own sshd.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ns::Namespace;
use crate::probe::{PATIENCE, Probe, eventually, tcp};
use crate::process::Process;
use crate::topology::{Family, Topology};
use crate::{WORK, sh};

/// Starts a TCP service that sends back what it gets, over IPv4 and IPv6, for as long as the test runs.
///
/// # Panics
/// If the port is taken.
pub fn tcp_echo(ns: &Namespace, port: u16) {
    unprivileged_ports(ns);
    let listener = ns.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("the port is free"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 512];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// Starts a UDP service that sends back what it gets, over IPv4 and IPv6, for as long as the test runs.
///
/// # Panics
/// If the port is taken.
pub fn udp_echo(ns: &Namespace, port: u16) {
    unprivileged_ports(ns);
    let socket = ns.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("the port is free"));
    std::thread::spawn(move || {
        let mut bytes = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            // Who cannot be answered waits in vain, as the test will say.
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
}

fn unprivileged_ports(ns: &Namespace) {
    ns.sh("sysctl -q -w net.ipv4.ip_unprivileged_port_start=0");
}

/// A real sshd on port 22 of the server, with keys and a configuration of its own, and how to log in to it.
pub struct Sshd {
    process: Process,
    directory: PathBuf,
    user: String,
}

impl Sshd {
    /// Starts it and waits until it accepts connections from the server itself. Root logs in as root, an ordinary
    /// user as that user.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(topology: &Topology) -> Self {
        let directory = Path::new(WORK).join("sshd");
        fs::create_dir_all(&directory).expect("a directory on the tmpfs");
        fs::create_dir_all("/run/sshd").expect("sshd's empty directory");
        let path = directory.display();
        for key in ["host-key", "user-key"] {
            sh(&format!("ssh-keygen -q -t ed25519 -N '' -f {path}/{key}"));
        }
        let host_key = fs::read_to_string(directory.join("host-key.pub")).expect("just made");
        let known =
            [Family::V4, Family::V6].map(|family| topology.server.address(family).to_string()).join(",");
        write(&directory.join("known-hosts"), &format!("server,127.0.0.1,{known} {host_key}"));
        write(&directory.join("sshd.conf"), &configuration(&directory));
        let (uid, gid) = (outer_id("uid"), outer_id("gid"));
        unprivileged_ports(&topology.server.ns);
        let mut command = topology.server.ns.command(if uid == 0 { "/usr/sbin/sshd" } else { "unshare" });
        if uid == 0 {
            unlock_root(&directory);
        } else {
            // sshd without root serves its own user; in a further user namespace it is that user again.
            command.args([
                "--user",
                &format!("--map-user={uid}"),
                &format!("--map-group={gid}"),
                "/usr/sbin/sshd",
            ]);
        }
        let mut process =
            Process::start("sshd", command.args(["-D", "-e", "-f"]).arg(directory.join("sshd.conf")));
        process.wait_log("Server listening on 0.0.0.0", 0);
        eventually("sshd accepts", PATIENCE, || {
            tcp(&topology.server.ns, topology.server.address(Family::V4), 22) == Probe::Open
        });
        let user = sh(&format!("getent passwd {uid}")).split(':').next().unwrap_or("root").to_owned();
        Self { process, directory, user }
    }

    /// The lines of an ssh configuration with which its user logs in by name or address; for what runs ssh itself.
    pub fn ssh_config(&self) -> String {
        let (path, user) = (self.directory.display(), &self.user);
        format!(
            "User {user}\nIdentityFile {path}/user-key\nIdentitiesOnly yes\nUserKnownHostsFile {path}/known-hosts\n\
             GlobalKnownHostsFile none\nStrictHostKeyChecking yes\nBatchMode yes\nExitOnForwardFailure yes\n"
        )
    }

    /// What sshd logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// ssh to the server from a namespace, with the right keys; the caller adds `-o` options, and has to add the
    /// address and the remote command. The server's key is known as `server`.
    pub fn ssh(&self, from: &Namespace) -> Command {
        let mut command = from.command("ssh");
        let path = self.directory.display();
        command.args(["-F", "none", "-l", &self.user, "-i", &format!("{path}/user-key")]);
        for option in [
            format!("UserKnownHostsFile={path}/known-hosts"),
            "GlobalKnownHostsFile=none".into(),
            "HostKeyAlias=server".into(),
            "StrictHostKeyChecking=yes".into(),
            "BatchMode=yes".into(),
            "ConnectTimeout=3".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

fn configuration(directory: &Path) -> String {
    let path = directory.display();
    format!(
        "ListenAddress 0.0.0.0\nListenAddress ::\nHostKey {path}/host-key\nAuthorizedKeysFile {path}/user-key.pub\n\
         PasswordAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\n\
         MaxStartups 200\nSubsystem sftp internal-sftp\n"
    )
}

/// A locked root account may not log in even with a key; for this test's processes alone it is not locked.
fn unlock_root(directory: &Path) {
    let shadow = directory.join("shadow");
    sh(&format!(
        "sed 's/^root:!/root:*!/' /etc/shadow >{0} && chmod 600 {0} && mount --bind {0} /etc/shadow",
        shadow.display()
    ));
}

/// The user or group id that id 0 of this user namespace is outside, 0 for root itself.
fn outer_id(kind: &str) -> u32 {
    let map = fs::read_to_string(format!("/proc/self/{kind}_map")).expect("procfs");
    map.split_whitespace().nth(1).and_then(|id| id.parse().ok()).expect("an id map has three columns")
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
