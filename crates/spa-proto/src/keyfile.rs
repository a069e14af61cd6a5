//! The files that hold secrets: a server's keys, a client's keys for one server, and one client's psk on its server.
//!
//! All three are lines of text. The first is a fixed word that names the kind and the version; every other is
//! `NAME = VALUE`, a comment that begins with `#`, or blank. A file says each thing once, and an unknown name is
//! refused. An error tells the line and what is wrong with it, never what is in it.

use core::fmt;

use zeroize::Zeroizing;

use crate::keys::{CloakKey, KeyError, Psk, SecretKey};

/// Most cloak keys that a server has live at once, and so the most that a key file or an invite holds.
pub const MAX_CLOAK_KEYS: usize = 4;
/// Longest key file, in bytes. Ours have under 400; the rest is room for comments.
pub const MAX_KEY_FILE: usize = 16 * 1024;

const SERVER_MAGIC: &str = "spa-server-key-v1";
const CLIENT_MAGIC: &str = "spa-client-key-v1";
const PSK_MAGIC: &str = "spa-psk-v1";
const PRIVATE: &str = "private";
const PSK: &str = "psk";
const CLOAK: &str = "cloak";

/// A server's key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKeyFile {
    /// The server's private key.
    pub secret: SecretKey,
    /// 1 to [`MAX_CLOAK_KEYS`] cloak keys, newest first.
    pub cloaks: Vec<CloakKey>,
}

/// A client's key file for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKeyFile {
    /// The client's private key.
    pub secret: SecretKey,
    /// The pre-shared key of this client and this server.
    pub psk: Psk,
    /// 1 to [`MAX_CLOAK_KEYS`] cloak keys of the server, newest first. A client seals under the first.
    pub cloaks: Vec<CloakKey>,
}

/// Why a file is not a key file of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFileError {
    /// The line, counted from 1. For something that is missing: the last line.
    pub line: usize,
    /// What is wrong with it.
    pub reason: KeyFileReason,
}

/// What is wrong with a line of a key file. It never holds any part of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileReason {
    /// The file is longer than [`MAX_KEY_FILE`].
    TooLong,
    /// The first line is not this word.
    FirstLine(&'static str),
    /// The first line is that of another kind of file.
    OtherKind {
        /// The first line of the wanted kind.
        wanted: &'static str,
        /// The first line of the kind that it is.
        found: &'static str,
    },
    /// The first line names a version of the wanted kind other than 1.
    OtherVersion,
    /// Not `NAME = VALUE`.
    Syntax,
    /// A name that version 1 does not have in this kind of file.
    UnknownName,
    /// This name, or this very cloak key, was there before.
    Repeated(&'static str),
    /// More than [`MAX_CLOAK_KEYS`] cloak keys.
    TooManyCloaks,
    /// The value of this name is not a key.
    Value(&'static str, KeyError),
    /// The file has no such line.
    Missing(&'static str),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match self.reason {
            KeyFileReason::TooLong => write!(f, "the file goes on past {MAX_KEY_FILE} bytes"),
            KeyFileReason::FirstLine(wanted) => write!(f, "the first line must be \"{wanted}\""),
            KeyFileReason::OtherKind { wanted, found } => {
                write!(f, "this is a file of the kind \"{found}\" and not \"{wanted}\"")
            }
            KeyFileReason::OtherVersion => f.write_str("the file is from a newer version of this software"),
            KeyFileReason::Syntax => f.write_str("expected NAME = VALUE"),
            KeyFileReason::UnknownName => {
                f.write_str("an unknown name: misspelt, or the file is from a newer version of this software")
            }
            KeyFileReason::Repeated(name) => write!(f, "\"{name}\" is repeated"),
            KeyFileReason::TooManyCloaks => write!(f, "more than {MAX_CLOAK_KEYS} cloak keys"),
            KeyFileReason::Value(name, error) => write!(f, "the value of \"{name}\" is wrong: {error}"),
            KeyFileReason::Missing(name) => write!(f, "the file ends without a line \"{name} = ...\""),
        }
    }
}

impl core::error::Error for KeyFileError {}

impl ServerKeyFile {
    /// Reads the text of a server's key file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut fields = Fields::parse(text, SERVER_MAGIC, &[PRIVATE, CLOAK])?;
        Ok(Self { secret: fields.secret()?, cloaks: fields.cloaks()? })
    }

    /// The text of the file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let cloaks = self.cloaks.iter().map(|cloak| (CLOAK, cloak.to_base64()));
        text(SERVER_MAGIC, [(PRIVATE, self.secret.to_base64())].into_iter().chain(cloaks))
    }
}

impl ClientKeyFile {
    /// Reads the text of a client's key file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut fields = Fields::parse(text, CLIENT_MAGIC, &[PRIVATE, PSK, CLOAK])?;
        Ok(Self { secret: fields.secret()?, psk: fields.psk()?, cloaks: fields.cloaks()? })
    }

    /// The text of the file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let cloaks = self.cloaks.iter().map(|cloak| (CLOAK, cloak.to_base64()));
        let own = [(PRIVATE, self.secret.to_base64()), (PSK, self.psk.to_base64())];
        text(CLIENT_MAGIC, own.into_iter().chain(cloaks))
    }
}

/// Reads the text of a psk file: the pre-shared key of one client, on its server.
///
/// # Errors
/// [`KeyFileError`].
pub fn parse_psk_file(text: &str) -> Result<Psk, KeyFileError> {
    Fields::parse(text, PSK_MAGIC, &[PSK])?.psk()
}

/// The text of a psk file.
pub fn psk_file_text(psk: &Psk) -> Zeroizing<String> {
    text(PSK_MAGIC, [(PSK, psk.to_base64())].into_iter())
}

fn text(magic: &str, lines: impl Iterator<Item = (&'static str, Zeroizing<String>)>) -> Zeroizing<String> {
    // Room for everything at once: growing would leave copies behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(64 * (3 + MAX_CLOAK_KEYS)));
    text.push_str(magic);
    text.push('\n');
    for (name, value) in lines {
        for part in [name, " = ", &value, "\n"] {
            text.push_str(part);
        }
    }
    text
}

/// The fields of any of the kinds, as far as the file has them.
struct Fields {
    lines: usize,
    secret: Option<SecretKey>,
    psk: Option<Psk>,
    cloaks: Vec<CloakKey>,
}

impl Fields {
    fn parse(text: &str, magic: &'static str, names: &[&'static str]) -> Result<Self, KeyFileError> {
        let mut fields = Self { lines: 1, secret: None, psk: None, cloaks: Vec::new() };
        if text.len() > MAX_KEY_FILE {
            let lines = text.as_bytes()[..MAX_KEY_FILE].iter().filter(|byte| **byte == b'\n').count();
            return Err(KeyFileError { line: lines + 1, reason: KeyFileReason::TooLong });
        }
        check_first_line(text.lines().next().unwrap_or_default().trim_ascii_end(), magic)
            .map_err(|reason| KeyFileError { line: 1, reason })?;
        for (index, line) in text.lines().enumerate().skip(1) {
            fields.lines = index + 1;
            fields
                .line(line.trim_ascii(), names)
                .map_err(|reason| KeyFileError { line: index + 1, reason })?;
        }
        Ok(fields)
    }

    fn line(&mut self, line: &str, names: &[&'static str]) -> Result<(), KeyFileReason> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (name, value) = line.split_once('=').ok_or(KeyFileReason::Syntax)?;
        let (name, value) = (name.trim_ascii_end(), value.trim_ascii_start());
        let name = *names.iter().find(|known| **known == name).ok_or(KeyFileReason::UnknownName)?;
        let wrong = |error| KeyFileReason::Value(name, error);
        match name {
            PRIVATE if self.secret.is_none() => {
                self.secret = Some(SecretKey::from_base64(value).map_err(wrong)?);
            }
            PSK if self.psk.is_none() => self.psk = Some(Psk::from_base64(value).map_err(wrong)?),
            CLOAK if self.cloaks.len() == MAX_CLOAK_KEYS => return Err(KeyFileReason::TooManyCloaks),
            CLOAK => {
                let cloak = CloakKey::from_base64(value).map_err(wrong)?;
                if self.cloaks.contains(&cloak) {
                    return Err(KeyFileReason::Repeated(CLOAK));
                }
                self.cloaks.push(cloak);
            }
            _ => return Err(KeyFileReason::Repeated(name)),
        }
        Ok(())
    }

    fn missing(&self, name: &'static str) -> KeyFileError {
        KeyFileError { line: self.lines, reason: KeyFileReason::Missing(name) }
    }

    fn secret(&mut self) -> Result<SecretKey, KeyFileError> {
        self.secret.take().ok_or_else(|| self.missing(PRIVATE))
    }

    fn psk(&mut self) -> Result<Psk, KeyFileError> {
        self.psk.take().ok_or_else(|| self.missing(PSK))
    }

    fn cloaks(&mut self) -> Result<Vec<CloakKey>, KeyFileError> {
        let cloaks = core::mem::take(&mut self.cloaks);
        if cloaks.is_empty() { Err(self.missing(CLOAK)) } else { Ok(cloaks) }
    }
}

/// Says which of our files it is, where it is not the wanted one: mixing them up is the likeliest mistake.
fn check_first_line(line: &str, wanted: &'static str) -> Result<(), KeyFileReason> {
    if line == wanted {
        return Ok(());
    }
    if let Some(found) = [SERVER_MAGIC, CLIENT_MAGIC, PSK_MAGIC].into_iter().find(|magic| *magic == line) {
        return Err(KeyFileReason::OtherKind { wanted, found });
    }
    let version = line.strip_prefix(wanted.trim_end_matches('1'));
    if version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(KeyFileReason::OtherVersion);
    }
    Err(KeyFileReason::FirstLine(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_parses() {
        let secret = SecretKey::from_bytes([1; 32]);
        let psk = Psk::from_bytes([2; 32]);
        for count in 1..=MAX_CLOAK_KEYS {
            let cloaks: Vec<_> = (0..count).map(|i| CloakKey::from_bytes([i as u8; 32])).collect();
            let server = ServerKeyFile { secret: secret.clone(), cloaks: cloaks.clone() };
            assert_eq!(ServerKeyFile::parse(&server.to_text()), Ok(server));
            let client = ClientKeyFile { secret: secret.clone(), psk: psk.clone(), cloaks };
            assert_eq!(ClientKeyFile::parse(&client.to_text().replace('\n', "\r\n")), Ok(client.clone()));
            assert!(!format!("{client:?}").contains("1, 1"));
        }
        assert_eq!(parse_psk_file(&psk_file_text(&psk)), Ok(psk));
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_unread() {
        let text = format!("{PSK_MAGIC}\n{}", "#\n".repeat(MAX_KEY_FILE / 2));
        assert_eq!(parse_psk_file(&text).unwrap_err().reason, KeyFileReason::TooLong);
    }
}
