//! What was found, how bad it is, and what to do.

use std::path::Path;

use serde::Serialize;

use crate::error::with_config;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// It may fail, or shows more than it should.
    Warning,
    /// A knock fails, or what should be closed is open.
    Error,
}

impl Severity {
    /// As printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A name that stays, for scripts.
    pub name: &'static str,
    /// What was found.
    pub what: String,
    /// The rule, file or interface.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// What to do.
    pub remedy: String,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds one; the same thing again, at another port or family, is said once.
    pub fn add(
        &mut self,
        severity: Severity,
        name: &'static str,
        what: impl Into<String>,
        place: Option<String>,
        remedy: impl Into<String>,
    ) {
        let finding = Finding { severity, name, what: what.into(), place, remedy: remedy.into() };
        let is_same = |other: &Finding| {
            other.name == name
                && other.place == finding.place
                && (other.place.is_some() || other.what == finding.what)
        };
        if !self.0.iter().any(is_same) {
            self.0.push(finding);
        }
    }

    /// The worst first, else in the order in which they were found; remedies for this configuration.
    pub fn sorted(mut self, config: &Path) -> Vec<Finding> {
        for finding in &mut self.0 {
            finding.remedy = with_config(&finding.remedy, config);
        }
        self.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        self.0
    }
}
