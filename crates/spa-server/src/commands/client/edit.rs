//! Changes in a client's file that keep its comments and all that they do not touch.

use std::path::Path;

use toml_edit::{DocumentMut, Value};

use crate::config::{Client, date::Date};
use crate::error::{Exit, Failure, Outcome};
use crate::files::{self, Existing};

/// A client's file under change. Written whole, or not at all.
pub struct Edit<'a> {
    path: &'a Path,
    document: DocumentMut,
    mode: u32,
}

impl<'a> Edit<'a> {
    /// Reads the file of a client that was read before, so that it is known to be right.
    ///
    /// # Errors
    /// Where it changed meanwhile.
    pub fn of(client: &'a Client) -> Outcome<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = client.path.as_path();
        let failed = |error: std::io::Error| Failure::io("cannot read", path, &error);
        let mode = path.metadata().map_err(failed)?.permissions().mode() & 0o777;
        let document = files::read_config(path)?.parse();
        let document = document.map_err(|_| {
            Failure::new(Exit::Config, format_args!("{}: not TOML any more", path.display()))
                .hint("spa-server check")
        })?;
        Ok(Self { path, document, mode })
    }

    /// Sets a key, in its place where it is there already, with the comment behind it.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let mut value = value.into();
        if let Some(old) = self.document.get(key).and_then(toml_edit::Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        self.document[key] = toml_edit::Item::Value(value);
    }

    /// Takes a key out; false where it was not there.
    pub fn unset(&mut self, key: &str) -> bool {
        self.document.remove(key).is_some()
    }

    /// The end of the time for the first knock.
    pub fn set_first_knock_by(&mut self, date: Option<Date>) {
        match date {
            Some(date) => self.set("first-knock-by", date.to_string()),
            None => {
                self.unset("first-knock-by");
            }
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Where it cannot be written; then it is as before.
    pub fn write(self) -> Outcome {
        let text = self.document.to_string();
        // A link stays one.
        let target = std::fs::canonicalize(self.path).unwrap_or_else(|_| self.path.to_owned());
        files::write_atomically(&target, text.as_bytes(), self.mode, Existing::Replace)
    }
}
