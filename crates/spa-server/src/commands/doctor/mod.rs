//! `doctor`: every reason why a knock would fail, or why protection is void, on this machine as it is now.
//!
//! It reads: configuration, keys, the daemon's status, the rules of all firewalls of the host, interfaces, routes,
//! sockets, the clock. It sends no packet and changes nothing. What a packet would meet is evaluated
//! (`spa_firewall::hooks`), not guessed.

mod daemon;
mod except;
mod finding;
mod firewall;
mod machine;
mod ports;
mod report;
mod scene;
mod standing;

use std::net::IpAddr;
use std::path::Path;

pub use self::except::too_wide;
use self::finding::{Findings, Severity};
use self::scene::Scene;
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome, counted};

/// Looks at everything and says what was found; for this source, or for one that nobody knows.
///
/// # Errors
/// With the exit code of the worst finding; or where it could not look at all.
pub fn run(path: &Path, source: Option<IpAddr>, as_json: bool) -> Outcome {
    let config = Config::load(path)?;
    let mut findings = Findings::default();
    daemon::look(&config, &mut findings);
    let scene = Scene::look(config, source.map(|source| source.to_canonical()), &mut findings)?;
    let ports = ports::look(&scene);
    standing::look(&scene, &mut findings);
    firewall::look(&scene, &ports, &mut findings);
    machine::look(&scene, &mut findings);
    let findings = findings.sorted(path);
    report::print(&scene, &ports, &findings, as_json)?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let said = |exit| {
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
        Err(Failure::new(exit, format_args!("doctor found {errors} and {warnings}")))
    };
    match findings.first().map(|finding| finding.severity) {
        Some(Severity::Error) => said(Exit::DoctorErrors),
        Some(Severity::Warning) => said(Exit::DoctorWarnings),
        Some(Severity::Note) | None => Ok(()),
    }
}
