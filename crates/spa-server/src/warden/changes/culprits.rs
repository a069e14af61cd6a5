//! Who changed something, for people.

use std::fmt;

use spa_firewall::Notice;

/// So many authors of changes are named; of more it is said that there were others.
const MAX_NAMED: usize = 3;

/// Who changed something, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The name of its process, as that gives itself.
    pub program: Option<String>,
    /// Its process id.
    pub pid: Option<u32>,
    /// What the kernel knows the netlink socket by that the change came through.
    pub port: Option<u32>,
}

impl Author {
    /// What tells whether it was us.
    pub fn notice(&self) -> Notice<'_> {
        Notice { port: self.port, id: self.pid, name: self.program.as_deref() }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.program, self.pid) {
            // A process names itself, so the name is no more to be trusted than any other text.
            (Some(program), Some(pid)) => write!(f, "{} (pid {pid})", program.escape_debug()),
            _ => f.write_str("a program that is not known"),
        }
    }
}

/// Whoever changed something in the same moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Culprits {
    named: Vec<Author>,
    others: bool,
}

impl Culprits {
    /// One more. One that is not known adds nothing.
    pub fn add(&mut self, author: Author) {
        if author == Author::default() || self.named.contains(&author) {
            return;
        }
        if self.named.len() < MAX_NAMED {
            self.named.push(author);
        } else {
            self.others = true;
        }
    }

    /// Takes over those of another moment.
    pub fn join(&mut self, more: Self) {
        more.named.into_iter().for_each(|author| self.add(author));
        self.others |= more.others;
    }
}

impl fmt::Display for Culprits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, more)) = self.named.split_first() else { return Author::default().fmt(f) };
        first.fmt(f)?;
        more.iter().try_for_each(|author| write!(f, ", {author}"))?;
        if self.others { f.write_str(" and others") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_authors_are_named() {
        let mut culprits = Culprits::default();
        assert_eq!(culprits.to_string(), "a program that is not known");
        for pid in [1, 2, 2, 3, 4, 5] {
            culprits.add(Author { program: Some("nft".into()), pid: Some(pid), port: None });
        }
        assert_eq!(culprits.to_string(), "nft (pid 1), nft (pid 2), nft (pid 3) and others");
        let mut first = Culprits::default();
        first.add(Author { program: Some("ufw".into()), pid: Some(9), port: None });
        first.join(culprits);
        assert_eq!(first.to_string(), "ufw (pid 9), nft (pid 1), nft (pid 2) and others");
    }
}
