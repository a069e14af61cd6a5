//! An invite encrypted with a passphrase, for a way that others may read.
//!
//! `spae1-`, then base64url of the length, the content and the check, as in a plain invite. The content is
//!
//! | size | field |
//! |---|---|
//! | 1 | work: the base-2 logarithm of scrypt's N, 10 to 18 |
//! | 16 | salt, random |
//! | | ChaCha20-Poly1305 (RFC 8439) of the fields, under a nonce of zeros: no key is used twice |
//!
//! The key is scrypt (RFC 7914) of the passphrase with N, r = 8, p = 1; work and salt are authenticated with it. The
//! check is over what anybody can read, so that a mistyped line is told from a wrong passphrase before any work.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use zeroize::Zeroizing;

use super::{Invite, InviteError, MAX_INVITE_LENGTH, line, parse_fields};
use crate::keys::KEY_LENGTH;

pub(super) const PREFIX: &str = "spae1-";
/// Bytes of the salt of an encrypted invite.
pub const SEAL_SALT_LENGTH: usize = 16;
/// Least work that is taken: 1 MiB. No protection, but quick in tests.
pub const MIN_WORK: u8 = 10;
/// Most work that is taken: 256 MiB, about a second. An invite must not be able to use up a client's memory.
pub const MAX_WORK: u8 = 18;
/// The work of new invites: 128 MiB for each try (OWASP's advice for scrypt with r = 8, p = 1).
pub const WORK: u8 = 17;
/// Longest passphrase, in bytes of UTF-8.
pub const MAX_PASSPHRASE: usize = 1024;
/// RFC 7914's block size and parallelization.
const R: u32 = 8;
const P: u32 = 1;
/// Before the salt, so that no other use of the passphrase gives the same key.
const LABEL: &[u8; 16] = b"spa-v1-invite---";

/// An encrypted invite, read but not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedInvite {
    work: u8,
    salt: [u8; SEAL_SALT_LENGTH],
    ciphertext: Vec<u8>,
}

impl SealedInvite {
    /// Encrypts an invite. The salt is 16 random bytes, drawn for it alone; the work is [`WORK`] but in tests.
    ///
    /// # Errors
    /// [`InviteError::Work`] out of its bounds; [`InviteError::Passphrase`] where that is empty or longer than
    /// [`MAX_PASSPHRASE`].
    pub fn seal(
        invite: &Invite,
        passphrase: &str,
        work: u8,
        salt: [u8; SEAL_SALT_LENGTH],
    ) -> Result<Self, InviteError> {
        let mut sealed = Self { work, salt, ciphertext: Vec::new() };
        let (cipher, head) = (sealed.cipher(passphrase)?, sealed.head());
        let fields = invite.fields();
        sealed.ciphertext = cipher
            .encrypt(&Nonce::default(), Payload { msg: &fields, aad: &head })
            .map_err(|_| InviteError::TooLong)?;
        Ok(sealed)
    }

    /// The line, without a line feed.
    pub fn encode(&self) -> Zeroizing<String> {
        line::encode(PREFIX, &[&self.head()[..], &self.ciphertext].concat())
    }

    /// Reads an encrypted invite; white space around it is ignored.
    ///
    /// # Errors
    /// [`InviteError::NotAnInvite`] for any other text, a plain invite among them; else what is wrong with the line.
    pub fn parse(text: &str) -> Result<Self, InviteError> {
        let text = text.trim_ascii();
        if text.len() > MAX_INVITE_LENGTH {
            return Err(InviteError::TooLong);
        }
        let body = text.strip_prefix(PREFIX).ok_or(InviteError::NotAnInvite)?;
        let content = line::decode(PREFIX, body)?;
        let (&work, rest) = content.split_first().ok_or(InviteError::Damaged)?;
        let (&salt, ciphertext) = rest.split_first_chunk().ok_or(InviteError::Damaged)?;
        check_work(work)?;
        Ok(Self { work, salt, ciphertext: ciphertext.to_vec() })
    }

    /// Decrypts it. Takes as much memory and time as its work says: at the usual one 128 MiB and some tenths of a
    /// second.
    ///
    /// # Errors
    /// [`InviteError::Passphrase`], or what is wrong with the fields.
    pub fn open(&self, passphrase: &str) -> Result<Invite, InviteError> {
        let payload = Payload { msg: &self.ciphertext, aad: &self.head() };
        let fields = self.cipher(passphrase)?.decrypt(&Nonce::default(), payload);
        parse_fields(&Zeroizing::new(fields.map_err(|_| InviteError::Passphrase)?))
    }

    fn head(&self) -> [u8; 1 + SEAL_SALT_LENGTH] {
        let mut head = [self.work; 1 + SEAL_SALT_LENGTH];
        head[1..].copy_from_slice(&self.salt);
        head
    }

    fn cipher(&self, passphrase: &str) -> Result<ChaCha20Poly1305, InviteError> {
        check_work(self.work)?;
        if passphrase.is_empty() || passphrase.len() > MAX_PASSPHRASE {
            return Err(InviteError::Passphrase);
        }
        let params = scrypt::Params::new(self.work, R, P).map_err(|_| InviteError::Work(self.work))?;
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        let salt = [&LABEL[..], &self.salt].concat();
        scrypt::scrypt(passphrase.as_bytes(), &salt, &params, &mut *key)
            .map_err(|_| InviteError::Work(self.work))?;
        Ok(ChaCha20Poly1305::new((&*key).into()))
    }
}

fn check_work(work: u8) -> Result<(), InviteError> {
    if (MIN_WORK..=MAX_WORK).contains(&work) { Ok(()) } else { Err(InviteError::Work(work)) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::invite;
    use super::*;

    #[test]
    fn only_the_passphrase_opens() {
        let sealed = SealedInvite::seal(&invite(), "correct horse", MIN_WORK, [7; 16]).unwrap();
        let line = sealed.encode();
        assert!(line.starts_with("spae1-"));
        assert_eq!(Invite::parse(&line), Err(InviteError::Encrypted));
        let read = SealedInvite::parse(&format!(" {}\r\n", *line)).unwrap();
        assert_eq!(read.open("correct horse"), Ok(invite()));
        for wrong in ["", "Correct horse", "correct horse ", &"x".repeat(MAX_PASSPHRASE + 1)] {
            assert_eq!(read.open(wrong), Err(InviteError::Passphrase), "{wrong}");
        }
        assert_eq!(SealedInvite::parse(&invite().encode()), Err(InviteError::NotAnInvite));
    }

    #[test]
    fn what_was_altered_does_not_open() {
        let sealed = SealedInvite::seal(&invite(), "correct horse", MIN_WORK, [7; 16]).unwrap();
        let mut other = sealed.clone();
        other.ciphertext[9] ^= 1;
        assert_eq!(other.open("correct horse"), Err(InviteError::Passphrase));
        let other = SealedInvite { salt: [8; 16], ..sealed.clone() };
        assert_eq!(other.open("correct horse"), Err(InviteError::Passphrase));
        let other = SealedInvite { work: MIN_WORK + 1, ..sealed.clone() };
        assert_eq!(other.open("correct horse"), Err(InviteError::Passphrase));
        for work in [0, MIN_WORK - 1, MAX_WORK + 1, 255] {
            let line = SealedInvite { work, ..sealed.clone() }.encode();
            assert_eq!(SealedInvite::parse(&line), Err(InviteError::Work(work)));
        }
        let line = sealed.encode();
        assert_eq!(SealedInvite::parse(&line[..line.len() - 3]), Err(InviteError::Truncated(3)));
        assert_eq!(
            SealedInvite::parse(&line.replacen("spae1-", "spae1-+", 1)),
            Err(InviteError::Character(7))
        );
    }
}
