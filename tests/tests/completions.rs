//! The completions, loaded and asked by the real shells.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use spa_tests::{binary, skip, succeeded};

const CONFIG: &str = "[hosts.bastion]\naddress = \"192.0.2.1\"\nport = 9\nkey-file = \"k\"\n\
                      server-key = \"j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=\"\n\
                      services = { ssh = \"tcp/22\", wiki = \"tcp/443\" }\n";

/// A home directory with a host in it, and the completions of a shell; `None` where there is no such shell.
struct Home {
    directory: PathBuf,
    script: PathBuf,
}

impl Home {
    fn new(shell: &str) -> Option<Self> {
        if Command::new(shell).arg("--version").output().is_err() {
            skip(&format!("completions::{shell}_completes"), &format!("{shell} is not installed"));
            return None;
        }
        let directory = std::env::temp_dir().join(format!("spa-completions-{}-{shell}", std::process::id()));
        fs::create_dir_all(directory.join(".config/spa")).expect("a directory");
        fs::write(directory.join(".config/spa/client.toml"), CONFIG).expect("a file");
        let home = Self { script: directory.join("script"), directory };
        let script = home.command(binary("spa-client")).args(["completions", shell]).output();
        fs::write(&home.script, succeeded("completions", &script.expect("spa-client runs"))).expect("a file");
        Some(home)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let programs = binary("spa-client");
        let programs = programs.parent().and_then(Path::to_str).expect("a plain directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.env("HOME", &self.directory).env("PATH", format!("{programs}:{path}"));
        command.env_remove("XDG_CONFIG_HOME").current_dir(&self.directory).env("TERM", "dumb");
        command
    }

    /// Runs a shell with a script of ours; the completions are `$1`.
    fn run(&self, shell: &str, arguments: &[&str], script: &str) -> Output {
        let mut command = self.command("timeout");
        command.args(["30", shell]).args(arguments).args(["-c", script]);
        if shell != "fish" {
            command.arg(shell); // as $0
        }
        command.arg(&self.script);
        command.output().expect("timeout runs")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory); // of no more use to anybody
    }
}

#[test]
fn bash_completes() {
    let Some(home) = Home::new("bash") else { return };
    succeeded("bash -n", &home.command("bash").arg("-n").arg(&home.script).output().expect("bash runs"));
    let complete = |words: &str| {
        let script = format!(
            ". \"$1\"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9
             function=$(complete -p spa-client | grep -o '_clap[a-z_]*'); \"$function\" spa-client \"${{COMP_WORDS[-1]}}\"
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        succeeded("bash", &home.run("bash", &["--norc"], &script))
    };
    assert_eq!(complete("spa-client open --host ba").trim(), "bastion");
    assert_eq!(complete("spa-client open w").trim(), "wiki");
    assert_eq!(complete("spa-client ssh-config b").trim(), "bastion");
    assert_eq!(complete("spa-client conn").trim(), "connect");
    assert!(complete("spa-client open ssh --").contains("--wait"));
}

#[test]
fn zsh_completes() {
    let Some(home) = Home::new("zsh") else { return };
    succeeded("zsh -n", &home.command("zsh").arg("-n").arg(&home.script).output().expect("zsh runs"));
    // A zsh on a terminal of its own, with the tabulator key pressed.
    let script = "zmodload zsh/zpty; zpty z zsh -f -i
        zpty -w z \"PS1=; autoload -U compinit; compinit -u -d $HOME/dump; source '$1'; print loa''ded\"
        zpty -r z out '*loaded*'
        zpty -w -n z $'spa-client open ssh --host ba\\t'
        zpty -r z out '*bastion*' && print -r -- \"$out\"";
    let output = home.run("zsh", &["-f"], script);
    assert!(succeeded("zsh", &output).contains("bastion"), "{output:?}");
}

#[test]
fn fish_completes() {
    let Some(home) = Home::new("fish") else { return };
    succeeded(
        "fish -n",
        &home.command("fish").arg("--no-execute").arg(&home.script).output().expect("fish runs"),
    );
    let complete = |line: &str| {
        let script = format!("source $argv[1]; complete -C '{line}'");
        succeeded("fish", &home.run("fish", &["--no-config"], &script))
    };
    assert_eq!(complete("spa-client open ssh --host ba").split_whitespace().next(), Some("bastion"));
    assert_eq!(complete("spa-client open wi").split_whitespace().next(), Some("wiki"));
    assert_eq!(complete("spa-client ssh-c").split_whitespace().next(), Some("ssh-config"));
}
