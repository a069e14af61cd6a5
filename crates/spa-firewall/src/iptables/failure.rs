//! What a failure of the programs means. Their words are the only source for most of it, so they run with `LC_ALL=C`;
//! what is not recognized is passed on as it is.

use std::time::Duration;

use rustix::thread::CapabilitySet;

use super::run::{Output, escape};
use super::{LOCK_WAIT, parse::Unreadable};
use crate::error::Error;
use crate::model::Family;

const NEEDS: &str = "CAP_NET_ADMIN, and with iptables-legacy also user id 0 and CAP_NET_RAW";
/// What the modules of our matches are called, for when the program does not say which is missing.
const MODULES: &str = "-a xt_conntrack xt_time xt_comment xt_tcpudp";

/// What iptables-legacy itself is called there: both families want their own.
const LEGACY: &str = "-a ip_tables ip6_tables";

/// The error for a program that ended with a failure.
pub fn classify(command: String, output: &Output, family: Family) -> Error {
    let said = output.stderr.as_str();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["xtables lock"]) {
        return Error::LockBusy { waited: Duration::from_secs(LOCK_WAIT.into()) };
    }
    if let Some(module) = said.split_once("could not insert '").and_then(|(_, rest)| rest.split('\'').next())
    {
        // iptables-legacy runs modprobe; the daemon has no right to load what is missing.
        let module = if LEGACY.contains(module) { LEGACY.to_owned() } else { module.to_owned() };
        return Error::MissingModule { module, stderr: said.to_owned() };
    }
    if has(&["you must be root", "Operation not permitted", "Permission denied"]) || lacks_rights(said) {
        return Error::NotPermitted { command, needs: NEEDS };
    }
    // The nft variant says "is incompatible" of a missing chain too, but of the table only when it is the table.
    if is_incompatible_table(said) || is_incompatible_table(&output.stdout) {
        return Error::Incompatible { family };
    }
    if has(&["missing kernel module", "Couldn't load match", "Couldn't load target"]) {
        let module = named_module(said).map_or_else(|| MODULES.to_owned(), |name| format!("xt_{name}"));
        return Error::MissingModule { module, stderr: said.to_owned() };
    }
    if has(&["RULE_APPEND failed (No such file", "RULE_INSERT failed (No such file"]) {
        return Error::MissingModule { module: MODULES.to_owned(), stderr: said.to_owned() };
    }
    Error::Refused { command, status: output.status.clone(), stderr: said.to_owned() }
}

/// The error for a program that ended well but printed something else than a filter table.
pub fn unreadable(command: String, unreadable: Unreadable, output: &Output, family: Family) -> Error {
    if is_incompatible_table(&output.stdout) {
        return Error::Incompatible { family };
    }
    match unreadable {
        // iptables-legacy-save prints nothing, successfully, for a user who may not look.
        Unreadable::NoTable if lacks_rights("unable to initialize table") => {
            Error::NotPermitted { command, needs: NEEDS }
        }
        Unreadable::NoTable => Error::Unreadable { command, line: "no filter table".to_owned() },
        Unreadable::Line(line) => Error::Unreadable { command, line: escape(&line) },
    }
}

/// The commit did not fit the netlink socket's buffer.
pub fn is_too_long(said: &str) -> bool {
    said.contains("Message too long")
}

fn is_incompatible_table(said: &str) -> bool {
    said.lines().any(|line| line.contains("able `filter' is incompatible") && !line.contains("chain `"))
}

/// A legacy program that may not open its socket only says that it cannot initialize the table; so our own rights
/// decide.
fn lacks_rights(said: &str) -> bool {
    let wants = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    said.contains("unable to initialize table")
        && rustix::thread::capabilities(None).is_ok_and(|own| !own.effective.contains(wants))
}

/// From "Extension conntrack revision 0 not supported, missing kernel module?" or "Couldn't load match `time'".
fn named_module(said: &str) -> Option<&str> {
    let rest = said.split_once("Extension ").or_else(|| said.split_once('`'))?.1;
    let name = rest.split([' ', '\'']).next()?;
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(stderr: &str) -> Error {
        let output = Output {
            success: false,
            status: "exit status: 1".into(),
            stdout: String::new(),
            stderr: stderr.into(),
        };
        classify("iptables-restore".into(), &output, Family::V4)
    }

    #[test]
    fn words_of_iptables() {
        assert!(matches!(
            kind("Another app is currently holding the xtables lock. Stopped waiting after 1s."),
            Error::LockBusy { .. }
        ));
        assert!(matches!(
            kind("Could not fetch rule set generation id: Permission denied (you must be root)"),
            Error::NotPermitted { .. }
        ));
        assert!(matches!(
            kind("iptables v1.8.9 (nf_tables): table `filter' is incompatible, use 'nft' tool."),
            Error::Incompatible { .. }
        ));
        assert!(matches!(
            kind(
                "iptables v1.8.9 (nf_tables): chain `NOPE' in table `filter' is incompatible, use 'nft' tool."
            ),
            Error::Refused { .. }
        ));
        for said in [
            "Warning: Extension conntrack revision 0 not supported, missing kernel module?; line 3 failed",
            "iptables-nft-restore v1.8.9 (nf_tables): Couldn't load match `conntrack':No such file or directory",
        ] {
            assert!(
                matches!(kind(said), Error::MissingModule { module, .. } if module == "xt_conntrack"),
                "{said}"
            );
        }
        let said = "modprobe: ERROR: could not insert 'ip_tables': Operation not permitted\n";
        assert!(matches!(kind(said), Error::MissingModule { module, .. } if module == LEGACY), "{said}");
        assert!(matches!(kind("iptables-restore: line 2 failed"), Error::Refused { .. }));
    }

    #[test]
    fn an_incompatible_table_is_told_though_the_status_is_0() {
        let output = Output {
            success: true,
            status: "exit status: 0".into(),
            stdout: "# Table `filter' is incompatible, use 'nft' tool.\n".into(),
            stderr: String::new(),
        };
        let error = unreadable("iptables-save".into(), Unreadable::NoTable, &output, Family::V6);
        assert!(matches!(error, Error::Incompatible { family: Family::V6 }), "{error}");
    }
}
