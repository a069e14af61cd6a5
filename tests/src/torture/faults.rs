//! What fails beside the daemon in a round with `--faults`, until the daemon has been killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use spa_tests::ns::Namespace;
use spa_tests::{Variant, WORK, sh};

use super::random::Random;

/// Where the stubs are: first on the daemon's PATH.
pub const STUBS: &str = "/run/spa-e2e/stubs";
/// The state directory is a file system of this size.
const DISK: &str = "256k";
/// How long a stub hangs, in seconds: below the daemon's patience, which is 10.
const HANGS: &str = "1";
/// Foreign changes in a burst.
const BURST: usize = 60;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `iptables-restore` fails, hangs and then works, or says that it worked and did nothing.
    Fails,
    Hangs,
    Lies,
    /// Somebody holds the lock of iptables-legacy.
    Locked,
    /// No room for the record.
    DiskFull,
    /// So many changes by others that netlink's queue overflows.
    Burst,
}

impl Fault {
    /// Those that this kind of firewall can have.
    pub fn pick(variant: Variant, random: &mut Random) -> Self {
        let both = [Self::DiskFull, Self::Burst];
        let nft = [Self::Fails, Self::Hangs, Self::Lies, Self::DiskFull, Self::Burst];
        let legacy = [Self::Fails, Self::Hangs, Self::Lies, Self::Locked, Self::DiskFull, Self::Burst];
        *match variant {
            Variant::Nftables => random.pick(&both),
            Variant::Nft => random.pick(&nft),
            Variant::Legacy => random.pick(&legacy),
        }
    }
}

/// The ground for all of them, before the daemon is configured.
pub fn prepare(variant: Variant, state: &Path) {
    sh(&format!("mount -t tmpfs -o size={DISK},mode=0700 tmpfs {}", state.display()));
    sh(&format!("mkdir -p {STUBS} && echo works >{STUBS}/mode"));
    if variant == Variant::Nftables {
        return;
    }
    for program in ["iptables", "ip6tables"] {
        let name = format!("{program}-{}-restore", variant.name());
        let stub = format!(
            "#!/bin/sh\nread mode <{STUBS}/mode\ncase $mode in\n\
             fails) echo 'a stub that fails' >&2; exit 4;;\n\
             lies) cat >/dev/null; exit 0;;\n\
             hangs) sleep {HANGS};;\nesac\nexec /usr/sbin/{name} \"$@\"\n"
        );
        let path = format!("{STUBS}/{name}");
        std::fs::write(&path, stub).expect("written");
        sh(&format!("chmod 755 {path}"));
    }
}

impl Fault {
    /// Whether a program of the killed daemon may go on after it, and has to be waited for.
    pub fn lingers(self) -> bool {
        matches!(self, Self::Hangs | Self::Locked)
    }
}

/// A fault that lasts until it is dropped.
pub struct Lasting {
    fault: Fault,
    state: std::path::PathBuf,
    children: Vec<Child>,
}

impl Lasting {
    pub fn begin(fault: Fault, ns: &Namespace, state: &Path) -> Self {
        let mode = match fault {
            Fault::Fails => "fails",
            Fault::Hangs => "hangs",
            Fault::Lies => "lies",
            _ => "works",
        };
        set_mode(mode);
        let mut children = Vec::new();
        let mut quiet = |command: &mut Command| {
            let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            children.push(command.spawn().expect("it runs"));
        };
        match fault {
            Fault::Locked => quiet(Command::new("flock").args(["/run/xtables.lock", "sleep", "60"])),
            Fault::DiskFull => drop(sh(&format!("cat /dev/zero >{} 2>/dev/null || true", filler(state)))),
            Fault::Burst => {
                let line = format!(
                    "for i in $(seq {BURST}); do nft add table ip storm; nft delete table ip storm; done"
                );
                quiet(ns.command("sh").args(["-c", &line]));
            }
            Fault::Fails | Fault::Hangs | Fault::Lies => {}
        }
        Self { fault, state: state.into(), children }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        set_mode("works");
        for child in &mut self.children {
            if self.fault == Fault::Locked {
                // flock runs sleep with its lock: the whole group has to go, and both are ours.
                sh(&format!("kill $(cat /proc/{0}/task/{0}/children) {0} 2>/dev/null || true", child.id()));
            }
            let _ = child.wait(); // a burst ends by itself
        }
        let _ = std::fs::remove_file(filler(&self.state)); // it may not be there
    }
}

fn filler(state: &Path) -> String {
    format!("{}/filler", state.display())
}

fn set_mode(mode: &str) {
    let (new, path) = (format!("{WORK}/mode.new"), format!("{STUBS}/mode"));
    std::fs::write(&new, format!("{mode}\n")).and_then(|()| std::fs::rename(&new, path)).expect("written");
}
