//! Writes the manual pages, into docs/man or the directory named: after a change of a command line or of
//! docs/CONFIGURATION.md. Wants the release binaries.

fn main() {
    let named = std::env::args_os().nth(1).map(std::path::PathBuf::from);
    let directory = named.unwrap_or_else(spa_tests::manual::committed);
    spa_tests::manual::write(&directory);
    println!("wrote {}", directory.display());
}
