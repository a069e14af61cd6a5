//! The commands and files that a document shows, and the marks that say where each belongs.
//!
//! A mark is an HTML comment on the line before a fence:
//!
//! ```text
//! <!-- run: server; output is the invite -->   run these lines on that machine: server, client, or checkout
//! <!-- run by: tests/run.sh -->                that script has these very lines, and is run itself
//! <!-- run by: tests/tests/torture.rs -->      that test takes the block from the page ([`run_by`]) and runs it
//! <!-- file: client ~/.ssh/config -->          write the block to that file
//! <!-- workflow: ci/deploy.sh -->              a CI system's file that calls that script
//! ```
//!
//! There is no mark for a block of shell that nothing runs.
//!
//! `<!-- setup: server; COMMAND -->` stands alone: what the reader is supposed to have already, or a look that all is as
//! the page says. What may stand after the semicolon is [`Condition`].

use std::fs;
use std::path::{Path, PathBuf};

/// A block, or a setup.
#[derive(Debug)]
pub struct Step {
    /// Line of the fence, or of the setup's comment, from 1.
    pub line: usize,
    /// What to do.
    pub action: Action,
    /// What else the mark says.
    pub conditions: Vec<Condition>,
    /// The lines of the block; the command of a setup.
    pub text: String,
}

/// What is done with a block.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Run it on that machine.
    Run(String),
    /// The same, for what the page does not show.
    Setup(String),
    /// Write it on that machine to that path.
    File(String, String),
    /// Look that it calls that script.
    Workflow(String),
    /// Look that this file of the checkout runs it.
    RunBy(String),
}

/// What a mark says beside the action.
#[derive(Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its standard output is the invite.
    OutputInvite,
    /// Its standard input is the invite.
    InputInvite,
    /// Its standard input is this line.
    InputLine(String),
    /// It is on a terminal, where every question is answered with Enter.
    OnTerminal,
    /// It may end with this status as well as with 0.
    MayEndWith(i32),
    /// The invite is in the environment as SPA_INVITE.
    EnvironmentInvite,
    /// The client's ssh key and known hosts are in the environment as SSH_KEY and KNOWN_HOSTS.
    EnvironmentKey,
    /// It goes on while the next ones run.
    Background,
    /// Before it the one in the background is stopped, as by Ctrl-C.
    AfterBackground,
    /// Before it the test waits until the client finds port 22 closed.
    AfterClosed,
    /// Before it the client imports the invite under this name.
    AfterImport(String),
    /// This word of the block stands for the content of that file on that machine.
    Placeholder(String, String, String),
}

impl Step {
    /// The commands that a reader types: lines, and what a semicolon parts; without comments.
    pub fn commands(&self) -> Vec<String> {
        commands(&self.text)
    }
}

/// The commands of some lines of shell, as they are written: comments and line breaks behind a backslash taken out.
pub fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.split(" #").next().unwrap_or_default());
    let parts = lines.flat_map(|line| line.split("; ")).map(str::trim);
    parts.filter(|part| !part.is_empty() && !part.starts_with('#')).map(str::to_owned).collect()
}

/// Every page that a reader is meant to follow or look something up in.
///
/// # Panics
/// If the checkout cannot be read.
pub fn pages() -> Vec<PathBuf> {
    let mut pages = vec![checkout("README.md"), checkout("CHANGELOG.md")];
    for directory in ["docs", "docs/guides"] {
        let entries = fs::read_dir(checkout(directory)).expect("a directory of the checkout");
        let paths = entries.map(|entry| entry.expect("a readable directory").path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

/// A path of the checkout.
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The blocks of a page, named from the checkout on, whose mark says that `test` runs them: for that test, which gives
/// its own `file!()`.
///
/// # Panics
/// As [`steps`]; and where the page has none.
pub fn run_by(page: &str, test: &str) -> Vec<Step> {
    let mut steps = steps(&checkout(page));
    steps.retain(|step| step.action == Action::RunBy(test.into()));
    assert!(!steps.is_empty(), "{page} has no block that says `run by: {test}`");
    steps
}

/// The steps of a document, in order.
///
/// # Panics
/// If it cannot be read, has a fence of shell without a mark, or a mark that says nothing known. The message names the line.
pub fn steps(document: &Path) -> Vec<Step> {
    let name = document.display();
    let text = fs::read_to_string(document).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (mut steps, mut mark, mut previous) = (Vec::new(), None, "");
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let at = format!("{name}:{}", index + 1);
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<_> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            match mark.take() {
                Some(said) => {
                    let (action, conditions) = parse(said, &at);
                    steps.push(Step { line: index + 1, action, conditions, text: block.join("\n") + "\n" });
                }
                None => assert_ne!(
                    language, "sh",
                    "{at}: a block of shell without a mark (tests/src/documents.rs)"
                ),
            }
        } else if let Some(said) = comment(line) {
            mark = match said.strip_prefix("setup: ") {
                Some(setup) => {
                    let (machine, command) =
                        setup.split_once("; ").unwrap_or_else(|| panic!("{at}: setup of what?"));
                    let action = Action::Setup(machine.into());
                    steps.push(Step {
                        line: index + 1,
                        action,
                        conditions: Vec::new(),
                        text: command.into(),
                    });
                    None
                }
                None => Some(said),
            };
        } else {
            assert!(mark.is_none(), "{at}: a mark that is not right before a block");
            let code = previous.is_empty() && line.starts_with("    ");
            assert!(!code, "{at}: an indented block can have no mark: put it between fences");
            previous = line;
        }
    }
    steps
}

/// What begins with a capital letter is for people.
fn comment(line: &str) -> Option<&str> {
    let said = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    (!said.starts_with(char::is_uppercase)).then_some(said)
}

fn parse(said: &str, at: &str) -> (Action, Vec<Condition>) {
    let mut parts = said.split("; ");
    let (kind, what) = parts.next().and_then(|part| part.split_once(": ")).unwrap_or_default();
    let action = match kind {
        "run" => Action::Run(what.into()),
        "file" => {
            let (machine, path) = what.split_once(' ').unwrap_or_else(|| panic!("{at}: file where?"));
            Action::File(machine.into(), path.into())
        }
        "workflow" => Action::Workflow(what.into()),
        "run by" => Action::RunBy(what.into()),
        _ => panic!("{at}: a mark that says nothing known: {said}"),
    };
    (action, parts.map(|part| condition(part, at)).collect())
}

fn condition(part: &str, at: &str) -> Condition {
    match part {
        "output is the invite" => Condition::OutputInvite,
        "input is the invite" => Condition::InputInvite,
        "SPA_INVITE is the invite" => Condition::EnvironmentInvite,
        "with an ssh key" => Condition::EnvironmentKey,
        "in the background" => Condition::Background,
        "on a terminal, taking what is proposed" => Condition::OnTerminal,
        "after the background command is stopped" => Condition::AfterBackground,
        "after port 22 is closed" => Condition::AfterClosed,
        _ => {
            if let Some(name) = part.strip_prefix("after the invite is imported as ") {
                return Condition::AfterImport(name.into());
            }
            if let Some(line) = part.strip_prefix("input is the line ") {
                return Condition::InputLine(line.into());
            }
            if let Some(status) = part.strip_prefix("may end with ").and_then(|status| status.parse().ok()) {
                return Condition::MayEndWith(status);
            }
            let placeholder = part.split_once(" is ").and_then(|(word, place)| {
                let (machine, path) = place.split_once(':')?;
                Some(Condition::Placeholder(word.into(), machine.into(), path.into()))
            });
            placeholder.unwrap_or_else(|| panic!("{at}: a condition that is not known: {part}"))
        }
    }
}
