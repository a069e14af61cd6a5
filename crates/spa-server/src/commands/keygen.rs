//! `keygen`.

use rand::TryRng as _;
use rand::rngs::SysRng;
use spa_proto::{CloakKey, SecretKey, ServerKeyFile};

use super::print;
use crate::config::{Config, DEFAULT_PORT};
use crate::error::{Exit, Failure, Outcome};
use crate::files::{self, Existing};
use crate::log::say;

/// Random ports are proposed from here: above the well-known ones, and below those that Linux gives to outgoing
/// connections (`ip_local_port_range`, 32,768 to 60,999).
const PROPOSED_PORTS: std::ops::Range<u16> = 10_000..32_768;

/// Writes the key file and prints the public key.
pub fn run(config: &Config) -> Outcome {
    let keys = new_keys()?;
    let directory = files::directory_of(&config.key_file);
    if !directory.exists() {
        files::make_private_directory(directory)?;
    }
    files::write_atomically(&config.key_file, keys.to_text().as_bytes(), 0o600, Existing::Keep)?;
    say!("wrote {} (private key and first cloak key)", config.key_file.display());
    print(&keys.secret.public_key().to_string())?;
    if config.port == DEFAULT_PORT {
        let port = random_port()?;
        say!("port {DEFAULT_PORT} is known to scanners as fwknop's; consider in [server]: port = {port}");
    }
    Ok(())
}

/// A key pair and a first cloak key.
///
/// # Errors
/// As [`random`].
pub fn new_keys() -> Outcome<ServerKeyFile> {
    Ok(ServerKeyFile {
        secret: SecretKey::from_bytes(random()?),
        cloaks: vec![CloakKey::from_bytes(random()?)],
    })
}

/// A port to propose.
///
/// # Errors
/// As [`random`].
pub fn random_port() -> Outcome<u16> {
    let span = u32::from(PROPOSED_PORTS.end - PROPOSED_PORTS.start);
    Ok(PROPOSED_PORTS.start + (u32::from_be_bytes(random()?) % span) as u16)
}

/// Random bytes from the system.
///
/// # Errors
/// Where the system has none.
pub fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| {
        Failure::new(Exit::System, format_args!("no random numbers from the system: {error}"))
    })?;
    Ok(bytes)
}
