//! Who writes for us: so that a notice of our own change is told from that of somebody else's.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A notice of a change may be read this long after its author has ended. Process ids are not given out anew so soon.
const AFTERLIFE: Duration = Duration::from_secs(1);
/// The same after a change that is announced without its author.
const ECHO: Duration = Duration::from_millis(10);
/// The process-id namespace whose numbers the kernel's notices have: `PROC_PID_INIT_INO` of linux/proc_ns.h.
const INITIAL_NAMESPACE: &str = "pid:[4026531836]";

/// What the kernel keeps of a program's name, in bytes: `TASK_COMM_LEN` less the zero.
const NAME_LENGTH: usize = 15;

/// Who made a change, as far as its notice says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notice<'a> {
    /// What the kernel knows the author's netlink socket by.
    pub port: Option<u32>,
    /// The author's process id, in the initial process-id namespace.
    pub id: Option<u32>,
    /// The author's name.
    pub name: Option<&'a str>,
}

/// What changes the firewall for us. Copies share what they know.
#[derive(Clone, Debug, Default)]
pub struct Authors(Arc<Mutex<Known>>);

/// Whose change it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// One of ours made it.
    Ours,
    /// It cannot be told from one of ours.
    PerhapsOurs,
    /// Somebody else made it.
    Others,
}

#[derive(Debug, Default)]
struct Known {
    /// Netlink sockets of this process, by their ports: a port is one socket's in a network namespace.
    ports: Vec<u32>,
    /// With the time of their end, if they have ended.
    ids: Vec<(u32, Option<Instant>)>,
    /// In a process-id namespace of our own the notices have other numbers: then the names of our programs.
    names: Vec<String>,
    writing: bool,
    wrote: Option<Instant>,
}

impl Authors {
    /// Whose the change is that is announced now.
    pub fn whose(&self, Notice { port, id, name }: Notice<'_>) -> Whose {
        let known = self.lock();
        if port.is_some_and(|port| known.ports.contains(&port)) {
            return Whose::Ours;
        }
        if id.is_some_and(|id| known.ids.iter().any(|(ours, ended)| *ours == id && is_near(*ended))) {
            return Whose::Ours;
        }
        let may_be = match name {
            Some(name) => known.names.iter().any(|ours| ours == name),
            None => true, // what takes the lock is not named
        };
        if may_be && known.is_writing() { Whose::PerhapsOurs } else { Whose::Others }
    }

    /// The netlink socket with this port, which stays open, writes for us from now on.
    pub(crate) fn add_port(&self, port: u32) {
        self.lock().ports.push(port);
    }

    /// This process, which runs `program`, writes for us from now on.
    pub(crate) fn add(&self, id: u32, program: &Path) {
        let mut known = self.lock();
        if std::fs::read_link("/proc/self/ns/pid").is_ok_and(|own| own.as_os_str() == INITIAL_NAMESPACE) {
            known.ids.retain(|(other, ended)| *other != id && is_near(*ended));
            known.ids.push((id, None));
            return;
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let name: String = name.chars().take(NAME_LENGTH).collect();
        if !known.names.contains(&name) {
            known.names.push(name);
        }
    }

    /// It has ended.
    pub(crate) fn ended(&self, id: u32) {
        let mut known = self.lock();
        for (_, ended) in known.ids.iter_mut().filter(|(other, _)| *other == id) {
            *ended = Some(Instant::now());
        }
    }

    /// A change begins; it is over when what is returned is dropped.
    pub(crate) fn write(&self) -> Writing {
        self.lock().writing = true;
        Writing(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether one of ours is changing the firewall now, or was a moment ago.
    fn is_writing(&self) -> bool {
        self.writing || self.wrote.is_some_and(|wrote| wrote.elapsed() < ECHO)
    }
}

/// A change that is being made.
pub(crate) struct Writing(Authors);

impl Drop for Writing {
    fn drop(&mut self) {
        let mut known = self.0.lock();
        (known.writing, known.wrote) = (false, Some(Instant::now()));
    }
}

/// Whether it lives, or has ended only now.
fn is_near(ended: Option<Instant>) -> bool {
    ended.is_none_or(|ended| ended.elapsed() < AFTERLIFE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_known_until_its_notices_have_come() {
        let authors = Authors::default();
        authors.lock().ids = vec![(7, None), (8, None)];
        authors.ended(7);
        let whose = |id| authors.whose(Notice { port: None, id: Some(id), name: Some("iptables-nft-re") });
        assert_eq!([whose(7), whose(8), whose(9)], [Whose::Ours, Whose::Ours, Whose::Others]);
        authors.lock().ids[0].1 = Instant::now().checked_sub(AFTERLIFE);
        assert_eq!([whose(7), whose(8)], [Whose::Others, Whose::Ours]);
    }

    #[test]
    fn what_is_not_known_is_perhaps_ours_while_we_write() {
        let authors = Authors::default();
        authors.lock().names = vec!["iptables-nft-re".to_owned()];
        let notice = |name| Notice { port: Some(1), id: Some(7), name };
        let whose = || [Some("iptables-nft-re"), None, Some("nft")].map(|name| authors.whose(notice(name)));
        let while_writing = [Whose::PerhapsOurs, Whose::PerhapsOurs, Whose::Others];
        assert_eq!(whose(), [Whose::Others; 3]);
        let writing = authors.write();
        assert_eq!(whose(), while_writing);
        drop(writing);
        assert_eq!(whose(), while_writing, "and for a moment after");
        authors.lock().wrote = Instant::now().checked_sub(ECHO);
        assert_eq!(whose(), [Whose::Others; 3]);
    }

    #[test]
    fn a_socket_of_ours_is_known_by_its_port_alone() {
        let authors = Authors::default();
        authors.add_port(5);
        let whose = |port| authors.whose(Notice { port, id: Some(7), name: Some("nft") });
        assert_eq!([Some(5), Some(6), None].map(whose), [Whose::Ours, Whose::Others, Whose::Others]);
    }
}
