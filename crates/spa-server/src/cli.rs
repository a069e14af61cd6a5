//! The command line, defined once: parser, help, man page and completions come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use spa_proto::{ClientName, Endpoint, ServiceName};

use crate::config::duration::Seconds;
use crate::config::{DEFAULT_PATH, date::Date};

const EXIT_CODES: &str = "Exit codes: 0 done, 64 usage, 65 bad data, 66 missing input, 69 something needed is not \
there, 70 internal error, 73 cannot create a file, 74 I/O error, 75 not confirmed in time, 77 no permission, 78 \
configuration.";

/// Opens ports for those who send one right packet, and for nobody else.
///
/// The server listens on no port: it sees packets to a closed UDP port below the firewall, and never answers.
#[derive(Debug, Parser)]
#[command(name = "spa-server", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground.
    #[command(
        after_help = "Examples:\n  spa-server run --confirm 120s   over ssh, the first time: if no valid knock and \
no\n                                  `spa-server confirm` comes, all is as it was\n  spa-server run --dry-run        \
say what would happen, change no rule"
    )]
    Run(Run),
    /// Check the configuration, the keys, the clients and this machine; change nothing.
    Check(Json),
    /// Make the server's key pair and first cloak key; print the public key.
    Keygen,
    /// Enrol clients, remove them, list them.
    #[command(subcommand)]
    Client(ClientCommand),
    /// Show the open grants.
    Grants(Json),
    /// Close grants: of a client, for a source, or all.
    #[command(
        after_help = "Examples:\n  spa-server revoke alice\n  spa-server revoke --source 192.0.2.7\n  spa-server \
revoke --all\n  spa-server revoke --source 192.0.2.7 --cut   end its connections too, also those whose grant is over already"
    )]
    Revoke(Revoke),
    /// Show what the daemon does and what it refused.
    Status(Json),
    /// Read the configuration and the clients anew; all of it, or nothing where there is an error in it.
    Reload,
    /// Keep what `run --confirm` laid.
    Confirm,
    /// Close the protected ports from the last good configuration, without the daemon (at boot).
    Protect,
    /// Remove every trace from the firewall; the ports are as the administrator's own rules have them.
    Unprotect,
    /// Refuse every packet made until now, after the replay record was damaged, lost or restored from a backup.
    #[command(
        after_help = "Sets the floor of every client to now + max-age. The clock must be right: nobody who \
knocks\nis let in before that moment has passed. Refused while the daemon runs."
    )]
    Recover,
    /// Print shell completions.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them.
    #[command(
        after_help = "Examples:\n  spa-server man | man -l -\n  spa-server man --dir /usr/share/man/man8"
    )]
    Man {
        /// Write the pages of the program and of each command into this directory, which exists.
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<PathBuf>,
    },
    /// The unprivileged half of the daemon, started by it.
    #[command(hide = true)]
    Verifier,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Go back to the previous state, and end, unless a valid knock or `spa-server confirm` comes in this time.
    #[arg(long, value_name = "TIME")]
    pub confirm: Option<Seconds>,
    /// Do everything but change the firewall and the replay record.
    #[arg(long, conflicts_with = "confirm")]
    pub dry_run: bool,
}

/// `--json`.
#[derive(Debug, Args)]
pub struct Json {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `client`.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Enrol a client and print its invite, one line, on standard output.
    #[command(
        after_help = "Examples:\n  spa-server client add alice --allow ssh --host bastion.example.org\n  \
spa-server client add bob --allow ssh,web --host 192.0.2.1 --require-bound\n\nThe invite holds the client's keys: \
hand it over on a way that nobody else reads."
    )]
    Add(ClientAdd),
    /// Remove a client; its grants end at once.
    Remove {
        /// Its name.
        name: ClientName,
    },
    /// List the clients.
    List(Json),
}

/// `client add`.
#[derive(Debug, Args)]
pub struct ClientAdd {
    /// Its name: a-z, 0-9, `.`, `_`, `-`.
    pub name: ClientName,
    /// The services that it may open.
    #[arg(long, value_name = "SERVICE", value_delimiter = ',', required = true)]
    pub allow: Vec<ServiceName>,
    /// The host name or address of this server, as the client reaches it.
    #[arg(long, value_name = "ADDRESS")]
    pub host: String,
    /// Open only for the address that the packet itself names (useless behind NAT, proof against redirection).
    #[arg(long)]
    pub require_bound: bool,
    /// Let the client name any address to open for.
    #[arg(long, conflicts_with = "require_bound")]
    pub allow_explicit: bool,
    /// Open only for addresses in this network (repeatable).
    #[arg(long = "source", value_name = "NETWORK")]
    pub sources: Vec<spa_proto::Network>,
    /// The longest that this client may open.
    #[arg(long, value_name = "TIME")]
    pub max_open_for: Option<Seconds>,
    /// The last day, or the moment, in UTC, at which it is let in.
    #[arg(long, value_name = "DATE")]
    pub valid_until: Option<Date>,
    /// The client's public key, where it made its own pair with `spa-client keygen`.
    #[arg(long, value_name = "KEY")]
    pub public_key: Option<spa_proto::PublicKey>,
}

/// `revoke`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
pub struct Revoke {
    /// The client's name.
    #[arg(group = "which")]
    pub client: Option<ClientName>,
    /// The source address.
    #[arg(long, group = "which", value_name = "ADDRESS")]
    pub source: Option<std::net::IpAddr>,
    /// The endpoint, as `tcp/22`.
    #[arg(long, group = "which", value_name = "ENDPOINT")]
    pub endpoint: Option<Endpoint>,
    /// Every grant.
    #[arg(long, group = "which", conflicts_with_all = ["client", "source", "endpoint"])]
    pub all: bool,
    /// End the connections of these grants as well, and with --source all from there to protected services, unless
    /// another client's grant still covers them.
    #[arg(long)]
    pub cut: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
