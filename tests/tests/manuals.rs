//! The migration tables have a row for every option of the other programs' manual pages and sample files, and none for
//! an option that they do not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use spa_tests::machine::root_or_skip;

type Names = BTreeSet<String>;

const FWKNOP: &str = "docs/MIGRATING-FROM-FWKNOP.md";
const KNOCKD: &str = "docs/MIGRATING-FROM-KNOCKD.md";

#[test]
fn fwknop() {
    let Some(root) = root_with("fwknop", "usr/share/man/man8/fwknop.8.gz") else { return };
    let rows = rows(FWKNOP);
    let manual = manual(&root, "man8/fwknop.8.gz");
    let options =
        union(&manual, &["REQUIRED ARGUMENTS", "GENERAL OPTIONS", "SPA OPTIONS", "GPG OPTIONS"], "-");
    compare(&rows, "fwknop: command line", options, 55, &help(&root, "fwknop"));
    compare(&rows, ".fwknoprc", union(&manual, &["FWKNOPRC FILE"], ""), 35, "");
}

#[test]
fn fwknopd() {
    let Some(root) = root_with("fwknopd", "usr/share/man/man8/fwknopd.8.gz") else { return };
    let rows = rows(FWKNOP);
    let manual = manual(&root, "man8/fwknopd.8.gz");
    let options = union(&manual, &["COMMAND-LINE OPTIONS"], "-");
    compare(&rows, "fwknopd: command line", options, 45, &help(&root, "fwknopd"));
    for (file, section, least) in
        [("fwknopd.conf", "FWKNOPD.CONF VARIABLES", 75), ("access.conf", "ACCESS.CONF VARIABLES", 38)]
    {
        let text = match fs::read_to_string(root.join("etc/fwknop").join(file)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                spa_tests::skip(&format!("migration table of {file}"), "only root may read the sample");
                continue;
            }
            text => text.expect("a sample file"),
        };
        let mut names = union(&manual, &[section], "");
        names.extend(variables(&text));
        compare(&rows, file, names, least, "REQUIRE_SOURCE");
    }
}

#[test]
fn knockd() {
    let Some(root) = root_with("knockd", "usr/share/man/man1/knockd.1.gz") else { return };
    let rows = rows(KNOCKD);
    let manual = manual(&root, "man1/knockd.1.gz");
    compare(
        &rows,
        "knockd: command line",
        union(&manual, &["COMMANDLINE OPTIONS"], "-"),
        17,
        &help(&root, "knockd"),
    );
    let sections = ["CONFIGURATION: GLOBAL DIRECTIVES", "CONFIGURATION: KNOCK/EVENT DIRECTIVES"];
    compare(&rows, "knockd.conf", union(&manual, &sections, ""), 14, "Command Command_6 %IP%");
    let knock = self::manual(&root, "man1/knock.1.gz");
    compare(&rows, "knock", union(&knock, &["OPTIONS"], "-"), 13, &help(&root, "knock"));
}

/// The directory under which a manual page is installed: this machine's, or the test machines'.
fn root_with(test: &str, page: &str) -> Option<PathBuf> {
    let here = Path::new("/");
    if here.join(page).exists() { Some(here.into()) } else { root_or_skip(test) }
}

/// What a program prints for --help; it may name options that its manual page does not. Empty where it is not runnable here.
fn help(root: &Path, program: &str) -> String {
    let mut command = if root == Path::new("/") { Command::new(program) } else { Command::new("chroot") };
    if root != Path::new("/") {
        command.arg(root).arg(program);
    }
    let Ok(output) = command.arg("--help").output() else { return String::new() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // An ordinary user may not run it there.
    if said.starts_with("chroot:") { String::new() } else { said.into_owned() }
}

/// Options (with a dash) or variables (without) of some sections of a manual page.
fn union(manual: &BTreeMap<String, Names>, sections: &[&str], dash: &str) -> Names {
    let names = sections.iter().flat_map(|section| {
        manual.get(*section).unwrap_or_else(|| panic!("the manual page has no section {section}"))
    });
    names.filter(|name| name.starts_with('-') != dash.is_empty()).cloned().collect()
}

/// Every name has its row under that heading, and every row's name is one of them or in `further`.
fn compare(rows: &BTreeMap<String, Names>, heading: &str, names: Names, least: usize, further: &str) {
    let rows = rows.get(heading).unwrap_or_else(|| panic!("no table under the heading {heading}"));
    assert!(
        names.len() >= least,
        "{heading}: only {} names found in the manual page: {names:?}",
        names.len()
    );
    let missing: Vec<_> = names.difference(rows).collect();
    assert!(missing.is_empty(), "{heading}: no row for {missing:?}");
    let words: Names =
        further.split(|c: char| !(c.is_alphanumeric() || "-_%".contains(c))).map(str::to_owned).collect();
    let unknown: Vec<_> = rows.iter().filter(|row| !names.contains(*row) && !words.contains(*row)).collect();
    // Without the program there is no --help to find them in.
    assert!(unknown.is_empty() || further.is_empty(), "{heading}: a row for what is not there: {unknown:?}");
    println!("{heading}: {} names, each with its row", names.len());
}

/// The names in backquotes in the first column of each table, by heading of the third level.
fn rows(document: &str) -> BTreeMap<String, Names> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{document}: {error}"));
    let (mut heading, mut rows) = (String::new(), BTreeMap::<String, Names>::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("### ") {
            heading = name.into();
        } else if let Some(cell) = line.strip_prefix("| ").and_then(|row| row.split(" | ").next()) {
            let quoted = cell.split('`').skip(1).step_by(2).map(str::to_owned);
            rows.entry(heading.clone()).or_default().extend(quoted);
        }
    }
    rows
}

/// Names set at the beginning of a line of a sample file, in comments too.
fn variables(sample: &str) -> Names {
    let first = sample
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_whitespace().next().map(|name| (line, name)));
    // A commented variable stands right after its #; prose after a space.
    let set = first.filter(|(line, _)| !line.trim_start_matches('#').starts_with(char::is_whitespace));
    set.map(|(_, name)| name.trim_end_matches(';'))
        .filter(|name| is_variable(name))
        .map(str::to_owned)
        .collect()
}

fn is_variable(name: &str) -> bool {
    name.len() > 2 && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// The terms of a manual page's lists, by section: options, variables, directives.
fn manual(root: &Path, page: &str) -> BTreeMap<String, Names> {
    let path = root.join("usr/share/man").join(page);
    let output = Command::new("gzip").arg("-dc").arg(&path).output().expect("gzip runs");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let (mut section, mut names) = (String::new(), BTreeMap::<String, Names>::new());
    for (index, line) in lines.iter().enumerate() {
        if let Some(title) = line.strip_prefix(".SH ").or_else(|| line.strip_prefix(".SS ")) {
            section = plain(title);
        }
        // Two ways to write a term: `.TP` and `.B "TERM"`, or the line between `.PP` and `.RS`.
        let before = index.checked_sub(1).and_then(|index| lines.get(index)).copied().unwrap_or("");
        let after = lines.get(index + 1).copied().unwrap_or("");
        let term = match line.strip_prefix(".B ") {
            Some(term) if before == ".TP" => term,
            _ if before == ".PP" && after.starts_with(".RS") => line,
            _ => continue,
        };
        names.entry(section.clone()).or_default().extend(terms(&plain(term)));
    }
    names
}

/// Without roff's fonts, escapes and quotes.
fn plain(text: &str) -> String {
    let fonts = ["\\fB", "\\fI", "\\fR", "\\fP", "\\&"]
        .iter()
        .fold(text.to_owned(), |text, font| text.replace(font, ""));
    fonts.replace("\\-", "-").replace('\\', "").trim_matches('"').to_owned()
}

/// `-A, --access=<port list>` has two names, `ALLOW_IP <IP-address>` and `Target = <ip-address>` one each.
fn terms(term: &str) -> Vec<String> {
    let first = |text: &str| text.split(['=', ' ', '<']).next().unwrap_or("").to_owned();
    if term.starts_with('-') {
        return term
            .split([',', '|'])
            .map(str::trim)
            .filter(|word| word.starts_with('-'))
            .map(first)
            .collect();
    }
    let name = first(term);
    let wanted = is_variable(&name)
        || name.starts_with('%')
        || (term != name && term[name.len()..].starts_with(" = "));
    // A directive of knockd that takes no value stands alone.
    if wanted || term == "UseSyslog" { vec![name] } else { Vec::new() }
}
