//! The target of a rule, with its options.

use super::Target;
use super::options::Reader;
use super::values::masked;
use crate::hooks::expression::Answer;

impl Reader<'_> {
    /// The target of this name, with its options.
    pub(super) fn target(&mut self, name: &str) -> Target {
        match name {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "REJECT" => match (self.take(), self.take()) {
                (Some("--reject-with"), Some("tcp-reset")) => Target::Reject(Answer::Reset),
                _ => Target::Reject(Answer::Icmp),
            },
            "RETURN" => Target::Return,
            "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "CLASSIFY" | "TOS" | "DSCP" | "TTL" | "HL"
            | "TCPMSS" | "CHECKSUM" | "SECMARK" | "CONNSECMARK" | "SET" | "TEE" | "LED" => Target::Nothing,
            "MARK" => self.mark(false).unwrap_or(Target::Strange),
            "CONNMARK" => self.mark(true).unwrap_or(Target::Strange),
            "NOTRACK" => Target::NoTrack,
            "CT" if self.take() == Some("--notrack") => Target::NoTrack,
            "CT" => Target::Nothing,
            "MASQUERADE" | "SNAT" | "NETMAP" => Target::Accept,
            "DNAT" => self.destination().unwrap_or(Target::Strange),
            "REDIRECT" => match self.take() {
                None => Target::Redirect(None),
                Some("--to-ports") => {
                    let port = self.value().parse().ok();
                    port.map_or(Target::Strange, |port| Target::Redirect(Some(port)))
                }
                Some(_) => Target::Strange,
            },
            _ => Target::Strange,
        }
    }

    fn mark(&mut self, of_connection: bool) -> Option<Target> {
        let what = self.take()?;
        match what {
            "--set-xmark" | "--set-mark" => {
                let (value, mask) = masked(self.value())?;
                let (clear, flip) = if what == "--set-xmark" { (mask, value) } else { (mask | value, value) };
                Some(if of_connection {
                    Target::ConnectionMark(clear, flip)
                } else {
                    Target::Mark(clear, flip)
                })
            }
            "--save-mark" | "--restore-mark" if of_connection => {
                let (mut packet, mut connection) = (u32::MAX, u32::MAX);
                while let Some(option) = self.take() {
                    let mask = masked(self.value())?.0;
                    match option {
                        "--nfmask" => packet = mask,
                        "--ctmask" => connection = mask,
                        "--mask" => (packet, connection) = (mask, mask),
                        _ => return None,
                    }
                }
                let make = if what == "--save-mark" { Target::SaveMark } else { Target::RestoreMark };
                Some(make(connection, packet))
            }
            _ => None,
        }
    }

    /// `192.0.2.1:80`, `192.0.2.1`, `[2001:db8::1]:80`, `:80`; ranges are strange.
    fn destination(&mut self) -> Option<Target> {
        if self.take()? != "--to-destination" {
            return None;
        }
        let text = self.value();
        let (address, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':')),
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((address, port)) => (address, Some(port)),
                None => (text, None),
            },
        };
        let address = if address.is_empty() { None } else { Some(address.parse().ok()?) };
        let port = match port {
            Some(port) => Some(port.parse().ok()?),
            None => None,
        };
        Some(Target::Destination(address, port))
    }
}
