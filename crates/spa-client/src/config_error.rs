//! An error in the configuration, printed with its file, line, column, a caret and the remedy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::suggest::nearest;

/// Longest excerpt of a line, in characters.
const MAX_EXCERPT: usize = 160;
/// Longest message or hint, in characters: they may name a key of the file.
const MAX_MESSAGE: usize = 400;

/// Where the configuration is wrong, and how. Of the file's text it holds the faulty key or value alone.
#[derive(Debug)]
pub struct ConfigError {
    file: PathBuf,
    message: String,
    hint: Option<String>,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    /// Counted from 1.
    line: usize,
    /// In characters, counted from 1.
    column: usize,
    /// The line up to the end of what is wrong: whatever follows may be a secret in the wrong file. Without control
    /// characters; empty where it is longer than a person would read.
    excerpt: String,
    /// Characters to underline.
    width: usize,
}

impl ConfigError {
    /// From a parse error of `text`.
    pub(crate) fn new(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let (message, hint) = reword(error.message());
        let (message, hint) = (shown(&message), hint.map(|hint| shown(&hint)));
        Self { file: file.to_owned(), message, hint, place: error.span().map(|span| Place::new(text, span)) }
    }

    /// What to try, where there is something.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Place {
    fn new(text: &str, span: Range<usize>) -> Self {
        let floor =
            |index: usize| (0..=index.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let (start, end) = (floor(span.start), floor(span.end));
        let line_start = text[..start].rfind('\n').map_or(0, |index| index + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |index| start + index);
        let end = end.clamp(start, line_end);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt: excerpt(&text[line_start..end]),
            width: text[start..end].chars().count().max(1),
        }
    }
}

fn excerpt(line: &str) -> String {
    if line.chars().count() > MAX_EXCERPT { String::new() } else { shown(line.trim_end()) }
}

/// The text as a terminal may show it: control characters but tabs are blanks, and what is too long is cut.
fn shown(text: &str) -> String {
    let plain = |character: char| if character.is_control() && character != '\t' { ' ' } else { character };
    text.chars().map(plain).take(MAX_MESSAGE).collect()
}

/// serde's "unknown field `x`, expected one of `a`, `b`" into our words and the nearest valid key.
fn reword(message: &str) -> (String, Option<String>) {
    let message = message.trim_end();
    let mut words = message.split('`').skip(1).step_by(2);
    let found = words.next().unwrap_or_default();
    if message.starts_with("unknown field") {
        let known: Vec<&str> = words.collect();
        let hint = match nearest(found, known.iter().copied()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("the keys here are {}", known.join(", ")),
        };
        return (format!("unknown key \"{found}\""), Some(hint));
    }
    if message.starts_with("missing field") {
        return (format!("the key \"{found}\" is missing"), None);
    }
    (message.replace('`', "\"").replace('\n', ", "), None)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let Some(Place { line, column, excerpt, width }) = &self.place else {
            return write!(f, "{file}: {}", self.message);
        };
        let margin = " ".repeat(line.to_string().len());
        // Keeps tabs, so that the caret stands under its character.
        let indent: String =
            excerpt.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        if excerpt.is_empty() {
            return write!(f, "{file}:{line}:{column}: {}", self.message);
        }
        writeln!(f, "{file}:{line}:{column}: {}", self.message)?;
        writeln!(f, " {margin} |")?;
        writeln!(f, " {line} | {excerpt}")?;
        write!(f, " {margin} | {indent}{}", "^".repeat(*width))
    }
}

impl std::error::Error for ConfigError {}
