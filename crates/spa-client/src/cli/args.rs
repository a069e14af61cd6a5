//! The command line: one definition for the parser, the help, the completions and the man pages.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::ArgValueCompleter;

use super::completions::{hosts, services};
use super::examples;
use crate::address::Source;
use crate::duration;
use crate::knocker::Options;
use crate::resolve::Family;

/// Knock at a server that shows no open port, and connect.
#[derive(Debug, Parser)]
#[command(name = "spa-client", version, after_help = examples::PROGRAM, max_term_width = 110)]
pub(super) struct Args {
    /// Configuration, instead of $XDG_CONFIG_HOME/spa/client.toml or ~/.config/spa/client.toml.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Say what is done, also where standard error is no terminal.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say nothing but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Open services for this machine, for a time.
    #[command(after_help = examples::OPEN)]
    Open(OpenArgs),
    /// Close this machine's own openings before their time.
    #[command(after_help = examples::CLOSE)]
    Close(CloseArgs),
    /// Open a port, connect to it, and copy standard input and output: ssh's ProxyCommand.
    #[command(after_help = examples::CONNECT)]
    Connect(ConnectArgs),
    /// Keep services open while a command runs.
    #[command(after_help = examples::EXEC)]
    Exec(ExecArgs),
    /// Make a key pair for a server whose administrator wants your public key.
    #[command(after_help = examples::KEYGEN)]
    Keygen(KeygenArgs),
    /// Take an invite: write its host entry and key file.
    #[command(after_help = examples::IMPORT)]
    Import(ImportArgs),
    /// Print what ~/.ssh/config needs, so that ssh knocks by itself.
    #[command(after_help = examples::SSH_CONFIG)]
    SshConfig(SshConfigArgs),
    /// List the configured hosts.
    #[command(after_help = examples::HOSTS)]
    Hosts {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check configuration, keys, name resolution, route and clock.
    #[command(after_help = examples::CHECK)]
    Check {
        /// This host alone.
        #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(hosts))]
        host: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the completions for a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them.
    #[command(after_help = examples::MAN)]
    Man {
        /// Write the pages of the program and of each command into this directory, which exists.
        #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// How to reach a server.
#[derive(Debug, clap::Args)]
pub(super) struct PathArgs {
    /// Whose access to ask for: auto, observed, bound, resolve or an IP address.
    #[arg(long, value_name = "SOURCE")]
    source: Option<Source>,
    /// Use the host's IPv4 addresses alone.
    #[arg(short = '4', conflicts_with = "v6")]
    v4: bool,
    /// Use the host's IPv6 addresses alone.
    #[arg(short = '6')]
    v6: bool,
}

impl PathArgs {
    pub(super) fn options(&self) -> Options {
        let family = match (self.v4, self.v6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Both,
        };
        Options { source: self.source, family, state: None }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct OpenArgs {
    /// Services of the host's entry, or endpoints such as tcp/22. One packet asks for all of them.
    #[arg(required = true, value_name = "SERVICE", add = ArgValueCompleter::new(services))]
    pub services: Vec<String>,
    /// The host entry. Not needed where there is only one.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(hosts))]
    pub host: Option<String>,
    /// For how long, such as 30s, 5m or 1h. Without it, as long as the server's default; the server may shorten it.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    pub time: Option<Duration>,
    /// Knock until the TCP ports answer, at most so long.
    #[arg(
        long, value_name = "TIME", value_parser = duration::parse,
        num_args = 0..=1, require_equals = true, default_missing_value = "5s"
    )]
    pub wait: Option<Duration>,
    #[command(flatten)]
    pub path: PathArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct CloseArgs {
    /// What to close. Nothing named: everything that this client's key opened.
    #[arg(value_name = "SERVICE", add = ArgValueCompleter::new(services))]
    pub services: Vec<String>,
    /// The host entry. Not needed where there is only one.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(hosts))]
    pub host: Option<String>,
    #[command(flatten)]
    pub path: PathArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConnectArgs {
    /// A host entry's name or its address: ssh's %n or %h.
    #[arg(add = ArgValueCompleter::new(hosts))]
    pub host: String,
    /// The TCP port: ssh's %p.
    pub port: NonZeroU16,
    /// Hand the connection over on standard output, for ssh's ProxyUseFdpass.
    #[arg(long)]
    pub fdpass: bool,
    /// Give up after this time.
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10s")]
    pub timeout: Duration,
    #[command(flatten)]
    pub path: PathArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    /// Services of the host's entry, or endpoints such as tcp/22.
    #[arg(required = true, value_name = "SERVICE", add = ArgValueCompleter::new(services))]
    pub services: Vec<String>,
    /// The host entry. Not needed where there is only one.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(hosts))]
    pub host: Option<String>,
    /// For how long to ask at a time. It is renewed at a third of that.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse, default_value = "1m")]
    pub time: Duration,
    /// Give up where the TCP ports do not answer in this time.
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10s")]
    pub timeout: Duration,
    /// Leave it open at the end, until it expires.
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub path: PathArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<std::ffi::OsString>,
}

#[derive(Debug, clap::Args)]
pub(super) struct KeygenArgs {
    /// What the host entry will be called.
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    pub name: String,
    /// Replace a key that waits for its invite.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// File with the invite; - or nothing is standard input.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What to call the host entry.
    #[arg(long, value_name = "NAME", value_parser = host_name, required_unless_present = "update")]
    pub name: Option<String>,
    /// Renew the keys of an entry that is there already: the one of the invite's server, or --name. Its address and source
    /// stay. Its key file is kept as NAME.key.old.
    #[arg(long, conflicts_with = "force")]
    pub update: bool,
    /// The passphrase of an encrypted invite is in this file, readable by you alone. Without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The server's host name or address, where the invite's does not work from here.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub address: Option<String>,
    /// Replace an entry of this name. Its key file is kept as NAME.key.old.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SshConfigArgs {
    /// The host entry. Not needed where there is only one.
    #[arg(add = ArgValueCompleter::new(hosts))]
    pub host: Option<String>,
    /// Hand the connection to ssh instead of copying (ProxyUseFdpass).
    #[arg(long, conflicts_with = "match_exec")]
    pub fdpass: bool,
    /// Knock from a Match line, and let ssh connect by itself.
    #[arg(long)]
    pub match_exec: bool,
    /// The service that sshd is behind, where it is not called ssh and not on port 22.
    #[arg(long, value_name = "SERVICE", add = ArgValueCompleter::new(services))]
    pub service: Option<String>,
}

fn host_name(text: &str) -> Result<String, &'static str> {
    if crate::config::is_host_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 64 of letters, digits, '.', '_' and '-', beginning with a letter or digit")
    }
}

fn address(text: &str) -> Result<String, &'static str> {
    if spa_proto::is_host(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a host name or an IP address, without port and brackets")
    }
}
