//! Everything that is read from files, as the parts of the daemon want it: read and checked whole, or not at all.

use std::sync::Arc;
use std::time::Duration;

use spa_gate::{ClientPolicy, JudgeSettings, Openers};
use spa_proto::{ClientName, CloakKey, GateKeys, Opener, PublicKey, SecretKey};

use crate::config::Config;
use crate::error::{Exit, Failure, Outcome};

/// A whole configuration with its keys and clients.
pub struct Settings {
    /// The file.
    pub config: Config,
    /// For the verifier.
    pub verifier: VerifierSettings,
    /// For the warden's *open*.
    pub openers: Openers,
    /// For the judge.
    pub judge: JudgeSettings,
    /// What the live cloak keys are called by, in bytes and in text, newest first.
    pub cloak_ids: Vec<([u8; 4], Arc<str>)>,
}

/// What the verifier is told.
pub struct VerifierSettings {
    /// The server's private key.
    pub server: SecretKey,
    /// The live cloak keys, newest first.
    pub cloaks: Vec<CloakKey>,
    /// How old a packet may be.
    pub max_age: Duration,
    /// Names and gate keys of the clients, without their psks.
    pub clients: Vec<(PublicKey, GateKeys)>,
}

impl Settings {
    /// Reads the configuration's keys and clients.
    ///
    /// # Errors
    /// Whatever is wrong with any of the files.
    pub fn load(config: Config) -> Outcome<Self> {
        let keys = config.keys()?;
        let server = keys.secret.public_key();
        // A disabled client is one that nobody knows: the cheapest refusal, and nothing of it stays open.
        let clients: Vec<_> = config.clients()?.into_iter().filter(|client| !client.disabled).collect();
        let mut openers = Vec::with_capacity(clients.len());
        let mut gates = Vec::with_capacity(clients.len());
        for client in &clients {
            let key = client.policy.key;
            let opener = Opener::new(&keys.secret, &key, &client.psk).ok_or_else(|| {
                Failure::new(
                    Exit::Data,
                    format_args!("{}: this public key is of low order", client.path.display()),
                )
            })?;
            openers.push((key, opener));
            gates.push((key, GateKeys::new(&client.psk, &server, &key)));
        }
        Ok(Self {
            judge: JudgeSettings {
                services: config.services.clone(),
                max_age: config.max_age,
                open_for: config.open_for,
                max_open_for: config.max_open_for,
                max_grants: config.max_grants,
                clients: clients.iter().map(|client| client.policy.clone()).collect(),
            },
            cloak_ids: keys.cloaks.iter().map(|cloak| (cloak.id_bytes(), cloak.id().into())).collect(),
            verifier: VerifierSettings {
                server: keys.secret,
                cloaks: keys.cloaks,
                max_age: config.max_age,
                clients: gates,
            },
            openers: Openers::new(openers),
            config,
        })
    }

    /// The live cloak key that the verifier names; `None` where it was retired since, or the verifier lies.
    pub fn cloak(&self, id: [u8; 4]) -> Option<Arc<str>> {
        self.cloak_ids.iter().find(|(known, _)| *known == id).map(|(_, text)| Arc::clone(text))
    }

    /// Forgets the clients that go by this name or have this key. Returns their names and keys.
    pub fn shut_out(&mut self, name: &ClientName, key: Option<&PublicKey>) -> Vec<(ClientName, PublicKey)> {
        let is_meant = |client: &ClientPolicy| client.name == *name || Some(&client.key) == key;
        let clients = self.judge.clients.extract_if(.., |client| is_meant(client));
        let out: Vec<_> = clients.map(|client| (client.name, client.key)).collect();
        for (_, key) in &out {
            self.openers.forget(key);
        }
        self.verifier.clients.retain(|(client, _)| !out.iter().any(|(_, key)| key == client));
        out
    }
}
