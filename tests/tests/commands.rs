//! Every command line of ours that a document or a help text shows is one that the program's own parser takes: also
//! those that no test can run as they stand.

use std::fs;
use std::path::Path;

use clap::error::ErrorKind;
use spa_tests::documents::{commands, pages};

const SERVER: &str = "spa-server";
const CLIENT: &str = "spa-client";

/// A public key, for KEY.
const KEY: &str = "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=";
/// What a page writes, and what a reader puts there.
const PLACEHOLDERS: [(&str, &str); 12] = [
    ("ADDRESS", "192.0.2.1"),
    ("DIRECTORY", "/tmp"),
    ("FILE", "file"),
    ("HOST", "bastion"),
    ("ID", "1a2b3c4d"),
    ("KEY", KEY),
    ("NAME", "alice"),
    ("PROGRAM", "true"),
    ("SERVICE", "ssh"),
    ("TIME", "10s"),
    ("%p", "22"),
    ("%h", "192.0.2.1"),
];

#[test]
fn what_is_shown_is_what_the_programs_take() {
    let (mut shown, mut wrong) = (0, String::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        shown += check(&page, &text, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(shown > 150, "only {shown} command lines found: the search is broken");
}

#[test]
fn the_examples_of_the_help_are_taken() {
    let mut wrong = String::new();
    for (program, mut command) in [(SERVER, spa_server::command()), (CLIENT, spa_client::cli::command())] {
        command.build();
        let examples = examples(&command);
        assert!(examples.len() >= 10, "{examples:?}");
        for example in examples {
            if let Err(why) = take(&words(&example), true) {
                wrong += &format!("{program} --help: {example}\n{why}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The lines of a command's help, and of its commands', that begin with a program of ours.
fn examples(command: &clap::Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    // What it does stands behind it, two columns away.
    let own = lines
        .map(|line| line.split("  ").next().unwrap_or_default().trim().to_owned())
        .filter(|line| line.starts_with(SERVER) || line.starts_with(CLIENT));
    own.chain(command.get_subcommands().flat_map(examples)).collect()
}

/// Checks all that a page shows, and counts it.
fn check(page: &Path, text: &str, wrong: &mut String) -> usize {
    let (mut prose, mut language, mut block) = (String::new(), None, String::new());
    let mut shown = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("```"), language) {
            (Some(opened), None) => language = Some(opened),
            (Some(_), Some(what)) => {
                shown.extend(in_block(what, &block).into_iter().map(|line| (line, true)));
                (language, block) = (None, String::new());
            }
            (None, Some(_)) => block += &format!("{line}\n"),
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    shown.extend(in_prose(&prose).into_iter().map(|line| (line, false)));
    for (line, whole) in &shown {
        if let Err(why) = take(&words(line), *whole) {
            *wrong += &format!("{}: {line}\n{why}", page.display());
        }
    }
    shown.len()
}

/// The commands of ours in a block: of shell, or behind the keys of files that hold one.
fn in_block(language: &str, block: &str) -> Vec<String> {
    let value = |line: &str| {
        let keys = ["ProxyCommand ", "PreUp = "];
        keys.iter().find_map(|key| line.trim().strip_prefix(key)).map(str::to_owned)
    };
    let lines = match language {
        "sh" => commands(block),
        _ => block.lines().filter_map(value).collect(),
    };
    let parts = lines.iter().flat_map(|line| line.split(" | ")).map(str::trim);
    parts.filter(|part| is_ours(part.split_whitespace().next())).map(str::to_owned).collect()
}

fn is_ours(word: Option<&str>) -> bool {
    word.is_some_and(|word| word == SERVER || word == CLIENT)
}

/// What stands between backquotes and is a command, of which prose may leave the program out.
fn in_prose(prose: &str) -> Vec<String> {
    let joined = prose.replace('\n', " ");
    let spans = joined.split('`').skip(1).step_by(2).map(str::trim);
    let mut lines = Vec::new();
    for span in spans {
        let mut parts = span.split_whitespace();
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        if second.is_none() || second == Some("=") {
            continue; // the name alone, or a line of a configuration
        }
        if is_ours(Some(first)) {
            lines.push(span.to_owned());
            continue;
        }
        let has =
            |command: clap::Command| command.find_subcommand(first).is_some_and(|found| !found.is_hide_set());
        let programs = [(SERVER, has(spa_server::command())), (CLIENT, has(spa_client::cli::command()))];
        let mut of: Vec<_> = programs.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
        // Both have it: it is whose parser takes it.
        of.sort_by_key(|program| take(&words(&format!("{program} {span}")), false).is_err());
        lines.extend(of.first().map(|program| format!("{program} {span}")));
    }
    lines
}

/// The words up to a redirection or comment, with something in the place of what stands for something.
fn words(line: &str) -> Vec<String> {
    let ends = |word: &&str| !["|", ">", ">>", "<", "#", "&&"].contains(word) && !word.starts_with('>');
    line.split_whitespace().take_while(ends).filter_map(word).collect()
}

fn word(word: &str) -> Option<String> {
    let word = word.replace(['"', '\''], "").replace("[=", "=").replace("...", "");
    let word = word.trim_matches(['[', ']']);
    let word = word.split('|').next().unwrap_or_default(); // add|list|remove
    let word =
        PLACEHOLDERS.iter().fold(word.to_owned(), |word, (name, value)| match word.strip_suffix(name) {
            Some(before) if before.is_empty() || before.ends_with('=') => format!("{before}{value}"),
            _ => word,
        });
    (!word.is_empty()).then_some(word)
}

/// Has the parser take it. What is not whole may lack what is required, and the last option its value.
fn take(words: &[String], whole: bool) -> Result<(), String> {
    let command = match words.first().map(String::as_str) {
        Some(SERVER) => spa_server::command(),
        Some(CLIENT) => spa_client::cli::command(),
        _ => return Err("no program of ours".into()),
    };
    let Err(error) = command.try_get_matches_from(words) else { return Ok(()) };
    let lacks = match error.kind() {
        // As in `run [--confirm TIME] [--dry-run]`.
        ErrorKind::ArgumentConflict
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
        ErrorKind::InvalidValue => error.to_string().contains("a value is required for"),
        _ => false,
    };
    if lacks && !whole || !error.use_stderr() { Ok(()) } else { Err(error.to_string()) }
}
