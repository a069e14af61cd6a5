//! The daemon, its keys and its state.

use serde::Deserialize as _;

use super::finding::{Findings, Severity};
use crate::commands::check;
use crate::config::Config;
use crate::control::{self, Refusing, Request};
use crate::error::Failure;
use crate::warden;
use crate::warden::settings::Settings;

/// Looks at it.
pub fn look(config: &Config, findings: &mut Findings) {
    if config.services.is_empty() {
        findings.add(
            Severity::Warning,
            "no-services",
            "no service is configured: nothing is protected, and nobody can open anything",
            Some(config.path.display().to_string()),
            "name what is to be protected under [services]",
        );
    }
    let mut wrong = |failure: Option<Failure>| {
        if let Some(failure) = failure {
            let (what, hint) = failure.parts();
            let hint = hint.unwrap_or("spa-server check");
            findings.add(Severity::Error, "configuration", what, None, hint);
        }
    };
    let settings = Settings::load(config.clone());
    let enrolled = settings.as_ref().map(|settings| settings.verifier.clients.len());
    let none = matches!(enrolled, Ok(0));
    wrong(settings.err());
    wrong(check::look_at_state(config).err());
    wrong(warden::user(config).err());
    if none {
        findings.add(
            Severity::Note,
            "no-clients",
            "no client is enrolled: nobody can open anything",
            Some(config.clients_dir.display().to_string()),
            "spa-server client add NAME --allow SERVICE --host ADDRESS",
        );
    }
    status(config, findings);
}

fn status(config: &Config, findings: &mut Findings) {
    let status = match control::ask(&config.state_dir, &Request::Status) {
        Ok(status) => status,
        Err(failure) => {
            let (what, hint) = failure.parts();
            let hint = hint.unwrap_or("journalctl -u spa-server");
            return findings.add(Severity::Error, "daemon", format!("{what}: no knock is seen"), None, hint);
        }
    };
    for trouble in status["trouble"].as_array().into_iter().flatten() {
        findings.add(
            Severity::Error,
            "degraded",
            format!("the daemon is degraded: {}", trouble.as_str().unwrap_or_default()),
            None,
            "TROUBLESHOOTING.md, \"status says degraded\"; the log tells more: journalctl -u spa-server",
        );
    }
    if let Ok(Some(refusing)) = Option::<Refusing>::deserialize(&status["refusing"]) {
        findings.add(Severity::Error, "refusing", refusing.to_string(), None, refusing.remedy());
    }
    if !status["confirm-within"].is_null() {
        findings.add(
            Severity::Warning,
            "not-confirmed",
            format!("the daemon goes back to the state before in {} s", status["confirm-within"]),
            None,
            "a valid knock, or spa-server confirm",
        );
    }
}
