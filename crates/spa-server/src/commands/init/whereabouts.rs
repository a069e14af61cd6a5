//! Where the administrator sits, and by what name others reach this machine: guesses, offered and never taken silently.

use std::net::IpAddr;
use std::path::Path;

/// Parents that are looked at: a shell, sudo, its own shell and the like.
const MAX_ANCESTORS: usize = 16;
/// sshd sets it in the session: the client's address and port, then the server's (ssh(1)).
const SSH_CONNECTION: &str = "SSH_CONNECTION";

/// The two ends of the ssh session that this program was started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where the administrator comes from, as this machine sees it.
    pub from: IpAddr,
    /// The address of this machine that the session came to.
    pub to: IpAddr,
}

/// The ssh session, from the environment or, since sudo takes it out of there, from that of a process above.
pub fn session() -> Option<Session> {
    std::env::var(SSH_CONNECTION).ok().as_deref().and_then(parse).or_else(|| {
        let mut pid = std::process::id();
        for _ in 0..MAX_ANCESTORS {
            pid = parent(pid)?;
            if let Some(session) = environment(pid).as_deref().and_then(parse) {
                return Some(session);
            }
        }
        None
    })
}

fn parse(value: &str) -> Option<Session> {
    let mut words = value.split_ascii_whitespace();
    let address = |word: &str| word.split('%').next()?.parse::<IpAddr>().ok();
    let from = address(words.next()?)?;
    let to = address(words.nth(1)?)?;
    Some(Session { from: from.to_canonical(), to: to.to_canonical() })
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

fn environment(pid: u32) -> Option<String> {
    let all = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |entry: &[u8]| {
        let text = std::str::from_utf8(entry).ok()?;
        text.strip_prefix(SSH_CONNECTION)?.strip_prefix('=').map(str::to_owned)
    };
    all.split(|byte| *byte == 0).find_map(value)
}

/// How clients may reach this machine: its full name, else the address that the administrator came to, else one of its
/// own.
pub fn host_guess(session: Option<Session>) -> Option<String> {
    let name = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let name = name.trim();
    if name.contains('.') && spa_proto::is_host(name) {
        return Some(name.to_owned());
    }
    let own = || {
        let addresses = spa_capture::local_addresses().ok()?;
        let usable = |address: &IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        };
        addresses.into_iter().filter(usable).min_by_key(IpAddr::is_ipv6)
    };
    session
        .map(|session| session.to)
        .filter(|to| !to.is_loopback())
        .or_else(own)
        .map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_says_where_one_comes_from() {
        let session = |from: &str, to: &str| Session { from: from.parse().unwrap(), to: to.parse().unwrap() };
        assert_eq!(parse("198.51.100.7 50022 192.0.2.1 22"), Some(session("198.51.100.7", "192.0.2.1")));
        assert_eq!(parse("fe80::1%eth0 50022 fe80::2%eth0 22"), Some(session("fe80::1", "fe80::2")));
        assert_eq!(parse("::ffff:198.51.100.7 1 ::1 22"), Some(session("198.51.100.7", "::1")));
        for text in ["", "198.51.100.7", "198.51.100.7 22", "a b c d"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parent(std::process::id()), Some(std::os::unix::process::parent_id()));
    }
}
