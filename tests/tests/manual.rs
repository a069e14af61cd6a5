//! The manual pages are what the programs and docs/CONFIGURATION.md say, and troff has nothing against them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spa_tests::{binary, manual, skip};

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn committed_pages_are_current() {
    let fresh = std::env::temp_dir().join(format!("spa-manual-{}", std::process::id()));
    manual::write(&fresh);
    let committed = manual::committed();
    let remedy = "cargo build --release -p spa-server -p spa-client && cargo run -p spa-tests --bin manual";
    assert_eq!(names(&committed), names(&fresh), "docs/man is not current; {remedy}");
    for name in names(&fresh) {
        let [was, is] =
            [&committed, &fresh].map(|directory| fs::read_to_string(directory.join(&name)).expect("text"));
        assert_eq!(was, is, "docs/man/{name} is not current; {remedy}");
    }
    fs::remove_dir_all(&fresh).expect("it is ours");
}

#[test]
fn troff_has_no_complaints() {
    let pages: Vec<PathBuf> =
        names(&manual::committed()).iter().map(|name| manual::committed().join(name)).collect();
    for (program, arguments) in
        [("groff", &["-man", "-ww", "-z", "-Tutf8"][..]), ("mandoc", &["-Tlint", "-Wwarning"])]
    {
        if Command::new(program).arg("-v").stdin(std::process::Stdio::null()).output().is_err() {
            skip("troff_has_no_complaints", &format!("{program} is not installed"));
            continue;
        }
        for page in &pages {
            let output = Command::new(program).args(arguments).arg(page).output().expect("it runs");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            // Without a date they are the same whenever they are made.
            let said: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
            assert!(said.is_empty(), "{program} {}: {said:#?}", page.display());
        }
    }
}

/// The keys that a program names as valid are those of the documents' tables.
#[test]
fn every_key_is_documented() {
    let directory = std::env::temp_dir().join(format!("spa-keys-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let file = directory.join("file.toml");
    let valid = |program: &str, command: &str, text: &str| -> BTreeSet<String> {
        fs::write(&file, text).expect("a file");
        let output =
            Command::new(binary(program)).arg("--config").arg(&file).arg(command).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // "the keys here are a, b", or serde's "expected one of `a`, `b`".
        let keys = said.split_once("the keys here are ").or_else(|| said.split_once("expected one of "));
        let Some((_, keys)) = keys else { panic!("{program}: {said}") };
        let keys = keys.lines().next().unwrap_or_default().replace('`', "");
        keys.split(", ").map(|key| key.trim().to_owned()).collect()
    };
    let documented = |section: &str, prefix: &str| -> BTreeSet<String> {
        let keys = manual::documented_keys(section);
        keys.iter().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    for table in ["server", "firewall", "limits"] {
        let known = valid("spa-server", "check", &format!("[{table}]\nzzzzzzzz = 1\n"));
        assert_eq!(known, documented("server.toml", &format!("{table}.")), "[{table}]");
    }
    let known = valid("spa-client", "hosts", "[hosts.a]\nzzzzzzzzzz = 1\n");
    assert_eq!(known, documented("client.toml", "hosts.NAME."), "[hosts.NAME]");
    fs::remove_dir_all(&directory).expect("it is ours");
}
