//! The manual pages: sections 1 and 8 as the programs print them, section 5 from docs/CONFIGURATION.md, whose tables
//! are the one definition of what the files may hold. `cargo run -p spa-tests --bin manual` writes docs/man.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary;
use crate::server::succeeded;

/// A page of section 5: its name, what it is about, the sections of CONFIGURATION.md that it is made of, and what to
/// see beside it.
struct Page {
    name: &'static str,
    about: &'static str,
    sections: &'static [&'static str],
    see_also: &'static [(&'static str, &'static str)],
}

const PAGES: [Page; 2] = [
    Page {
        name: "spa-server.toml",
        about: "configuration of spa-server and of its clients",
        sections: &["server.toml", "clients.d/NAME.toml"],
        see_also: &[("spa-server", "8"), ("spa-client.toml", "5")],
    },
    Page {
        name: "spa-client.toml",
        about: "hosts that spa-client knocks at",
        sections: &["client.toml"],
        see_also: &[("spa-client", "1"), ("spa-server.toml", "5")],
    },
];

/// Where the committed pages are.
pub fn committed() -> PathBuf {
    root().join("docs/man")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Writes every page into a directory, which is made.
///
/// # Panics
/// If a program fails, or CONFIGURATION.md is not as expected.
pub fn write(directory: &Path) {
    fs::create_dir_all(directory).expect("the directory can be made");
    for program in ["spa-client", "spa-server"] {
        let output = Command::new(binary(program)).args(["man", "--dir"]).arg(directory).output();
        succeeded(&format!("{program} man --dir"), &output.expect("it runs"));
    }
    let text = fs::read_to_string(root().join("docs/CONFIGURATION.md")).expect("docs/CONFIGURATION.md");
    for page in PAGES {
        let file = directory.join(format!("{}.5", page.name));
        fs::write(&file, page.roff(&text)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// The keys that a section of CONFIGURATION.md describes, as its table's first column has them.
///
/// # Panics
/// If there is no such section.
pub fn documented_keys(section: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/CONFIGURATION.md")).expect("docs/CONFIGURATION.md");
    let rows = lines_of(&text, section).into_iter().filter_map(cells);
    rows.skip(1).filter(|row| !row[0].starts_with("---")).map(|row| row[0].replace('`', "")).collect()
}

/// The lines under `## section`.
fn lines_of<'a>(text: &'a str, section: &str) -> Vec<&'a str> {
    let heading = format!("## {section}");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("## ")).collect();
    assert!(!lines.is_empty(), "docs/CONFIGURATION.md has no section \"{heading}\"");
    lines
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

impl Page {
    fn roff(&self, configuration: &str) -> String {
        let Self { name, about, sections, see_also } = self;
        let mut page = format!(
            ".TH \"{name}\" 5 \"\" \"spa {}\" \"File formats\"\n.SH NAME\n{} \\- {about}\n.SH DESCRIPTION\n",
            env!("CARGO_PKG_VERSION"),
            escaped(name)
        );
        for line in INTRODUCTION {
            page += &format!("{line}\n");
        }
        for section in *sections {
            page += &format!(".SH {}\n", escaped(&section.to_uppercase()));
            page += &body(&lines_of(configuration, section));
        }
        page += ".SH SEE ALSO\n";
        let others = see_also.iter().map(|(name, section)| format!(".BR {} ({section})", escaped(name)));
        page + &others.collect::<Vec<_>>().join(" ,\n") + "\n"
    }
}

const INTRODUCTION: [&str; 5] = [
    "The file is TOML. An unknown key is an error that names file, line, column and the valid keys.",
    "Lengths of time are text with a unit: \"30s\", \"5m\", \"1h\", \"2d\".",
    "An endpoint is \"tcp/PORT\" or \"udp/PORT\".",
    "A network is \"192.0.2.0/24\", \"2001:db8::/32\" or one address.",
    "Relative paths are relative to the file that they stand in.",
];

/// Tables as lists, code as it is, all else as paragraphs.
fn body(lines: &[&str]) -> String {
    let (mut text, mut header, mut code) = (String::new(), Vec::new(), false);
    for line in lines {
        if line.starts_with("```") {
            code = !code;
            text += if code { ".PP\n.RS 4\n.nf\n" } else { ".fi\n.RE\n" };
        } else if code {
            text += &format!("{}\n", escaped(line));
        } else if let Some(row) = cells(line) {
            match (header.is_empty(), row[0].starts_with("---")) {
                (true, _) => header = row,
                (_, true) => {}
                _ => text += &entry(&header, &row),
            }
        } else {
            header.clear();
            let item = line.strip_prefix("- ");
            if let Some(item) = item {
                text += &format!(".IP \\(bu 2\n{}\n", inline(item));
                continue;
            }
            let line = line.trim_start();
            text += &if line.is_empty() { ".PP\n".to_owned() } else { format!("{}\n", inline(line)) };
        }
    }
    // Empty paragraphs are warned of.
    while text.contains(".PP\n.PP\n") {
        text = text.replace(".PP\n.PP\n", ".PP\n");
    }
    let text = text.replace(".PP\n.TP\n", ".TP\n").replace(".PP\n.IP", ".IP").replace(".PP\n.SH", ".SH");
    text.strip_prefix(".PP\n").unwrap_or(&text).trim_end_matches(".PP\n").to_owned()
}

/// A row: the key, its meaning, then type, default and the like in brackets.
fn entry(header: &[String], row: &[String]) -> String {
    let (Some(key), Some(meaning)) = (row.first(), row.last()) else { return String::new() };
    let middle = header.iter().zip(row).skip(1).take(row.len().saturating_sub(2));
    let middle: Vec<String> =
        middle.filter(|(_, cell)| !cell.is_empty()).map(|(name, cell)| format!("{name}: {cell}")).collect();
    let mut meaning = meaning.clone();
    if !meaning.ends_with('.') {
        meaning.push('.');
    }
    format!(
        ".TP\n\\fB{}\\fR\n{}\n.br\n({})\n",
        escaped(&key.replace('`', "")),
        inline(&meaning),
        inline(&middle.join("; "))
    )
}

/// Markdown's code and strong as bold, links as their text.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.replace("**", "`").split('`').enumerate() {
        let part = escaped(&without_links(part));
        out += &if index % 2 == 1 { format!("\\fB{part}\\fR") } else { part };
    }
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(label, after)| Some((label, after.split_once(')')?.1)));
        let Some((label, after)) = link else { break };
        out += before;
        out += label;
        rest = after;
    }
    out + rest
}

/// Text that roff prints as it stands; groff_man(7).
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('~', "\\(ti").replace('^', "\\(ha");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
