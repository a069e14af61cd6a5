//! Fresh random bytes from the operating system, for packets and keys.

use rand::TryRng as _;
use rand::rngs::SysRng;
use spa_proto::{Randomness, SecretKey};
use zeroize::Zeroizing;

use crate::error::Error;

fn fill(bytes: &mut [u8]) -> Result<(), Error> {
    SysRng.try_fill_bytes(bytes).map_err(|error| Error::Random(error.into()))
}

/// The random input of one packet.
pub(crate) fn randomness() -> Result<Randomness, Error> {
    let mut random = Randomness { nonce: [0; 12], ephemeral: [0; 32], size: 0 };
    let mut size = [0; 8];
    fill(&mut random.nonce)?;
    fill(&mut random.ephemeral)?;
    fill(&mut size)?;
    random.size = u64::from_ne_bytes(size);
    Ok(random)
}

/// A new private key.
///
/// # Errors
/// [`Error::Random`].
pub fn generate_key() -> Result<SecretKey, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill(&mut *bytes)?;
    Ok(SecretKey::from_bytes(*bytes))
}
