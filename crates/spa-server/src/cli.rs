//! The command line, defined once: parser, help, man page and completions come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use spa_proto::{ClientName, Endpoint, Seconds, ServiceName};

use crate::config::{DEFAULT_PATH, date::Date};

const EXIT_CODES: &str = "Exit codes: 0 done, 64 usage, 65 bad data, 66 missing input, 69 something needed is not \
there, 70 internal error, 71 the system refused, 73 cannot create a file, 74 I/O error, 75 not confirmed, or not answered, in time, 77 no permission, 78 \
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
    /// Set this machine up: configuration, keys, first protection. Asks on a terminal, or goes by its options.
    #[command(
        after_help = "Examples:\n  spa-server init                                  asks, with proposals\n  spa-server init \
--service ssh --confirm 120s     asks nothing, starts on trial\n  spa-server init --service ssh=tcp/2222 --service \
web=tcp/80,tcp/443 --no-start\n\nIt never replaces a configuration or a key file. With --confirm it goes on as `spa-server run \
--confirm`."
    )]
    Init(Init),
    /// Check the configuration, the keys, the clients and this machine; change nothing.
    Check(Json),
    /// Find every reason why a knock would fail or protection is void; change nothing.
    #[command(
        after_help = "Shows each port as it is now for a stranger and for a granted client (open or closed, with a \
program\nlistening or not), by evaluating the rules of all firewalls of this host, and sends no packet. Then \
findings,\neach with its remedy. With --source, for that address instead of an unknown one: what it meets now, and with a \
grant.\n\nExit codes: 0 healthy (notes at most), 1 warnings, 2 errors, others as usual: it \
could not look.\n\nExamples:\n  spa-server doctor\n  spa-server doctor --source 198.51.100.7\n  spa-server doctor --json | jq '.findings[] | select(.severity \
== \"error\")'"
    )]
    Doctor(Doctor),
    /// Make the server's key pair and first cloak key; print the public key.
    Keygen,
    /// Enrol clients, give them new keys, disable or remove them, list them.
    #[command(subcommand)]
    Client(ClientCommand),
    /// Change the key that hides packets from strangers, with an overlap.
    #[command(
        subcommand,
        after_help = "Examples, in this order:\n  spa-server cloak add             a new key; the old one goes on \
working\n  spa-server client invite alice   an invite with the new one; there: spa-client import --update\n  \
spa-server cloak list            who still uses the old one?\n  spa-server cloak retire 1a2b3c4d"
    )]
    Cloak(CloakCommand),
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

/// `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// What to protect: NAME=ENDPOINT, as in ssh=tcp/22 or web=tcp/80,tcp/443; or the NAME of something that listens,
    /// or of a usual service (repeatable).
    #[arg(long = "service", value_name = "NAME[=ENDPOINT]")]
    pub services: Vec<String>,
    /// UDP port that knocks come to [default: a random high one].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// An interface or network that is never filtered, as in 198.51.100.0/24 (repeatable).
    #[arg(long, value_name = "NETWORK")]
    pub except: Vec<spa_firewall::Except>,
    /// Which firewall: iptables, nftables, or auto [default: iptables].
    #[arg(long, value_name = "BACKEND", hide_possible_values = true)]
    pub backend: Option<crate::config::Backend>,
    /// Where the replay record and the control socket go.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/spa")]
    pub state_dir: PathBuf,
    /// Start, and go back to the previous state unless a valid knock or `spa-server confirm` comes in this time.
    #[arg(long, value_name = "TIME")]
    pub confirm: Option<Seconds>,
    /// Do not start.
    #[arg(long, conflicts_with = "confirm")]
    pub no_start: bool,
}

/// `cloak`.
#[derive(Debug, Subcommand)]
pub enum CloakCommand {
    /// Add a new key, which new invites carry; print its id.
    Add,
    /// List the live keys, newest first, and who last used each.
    List(Json),
    /// Take a key out; refused while clients use it.
    Retire {
        /// Its id, as `cloak list` shows it.
        id: String,
        /// Even if clients that use it are shut out.
        #[arg(long)]
        force: bool,
    },
}

/// How an invite is handed over.
#[derive(Debug, Args)]
#[command(next_help_heading = "The invite")]
pub struct InviteArgs {
    /// Show it as a QR code too, on standard error.
    #[arg(long)]
    pub qr: bool,
    /// Encrypt it with a passphrase, asked for on the terminal.
    #[arg(long)]
    pub passphrase: bool,
    /// Encrypt it with the passphrase in this file, whose mode is 0600.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
    pub passphrase_file: Option<PathBuf>,
    /// The invite is good for so long (24h), or until this day or moment in UTC: a client that has not knocked by then is
    /// not let in.
    #[arg(long, value_name = "TIME|DATE")]
    pub invite_expires: Option<Expiry>,
}

/// A length of time from now, or a date.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// From now.
    In(Seconds),
    /// Until then.
    At(Date),
}

impl Expiry {
    /// The moment, if it is `now` Unix seconds.
    pub fn at(self, now: u64) -> Date {
        match self {
            Self::In(seconds) => Date(now.saturating_add(seconds.0.into())),
            Self::At(date) => date,
        }
    }
}

impl std::str::FromStr for Expiry {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let date = || text.parse().map(Self::At);
        text.parse()
            .map(Self::In)
            .or_else(|_| date())
            .map_err(|_| "expected a length of time, as in \"24h\", or a date in UTC, as in \"2027-01-31\"")
    }
}

/// `client rotate`.
#[derive(Debug, Args)]
pub struct ClientRotate {
    /// Its name.
    pub name: ClientName,
    /// The client's new public key, where it made its own pair with `spa-client keygen`.
    #[arg(long, value_name = "KEY")]
    pub public_key: Option<spa_proto::PublicKey>,
    /// Host and invite.
    #[command(flatten)]
    pub invite: Reinvite,
}

/// `client invite`.
#[derive(Debug, Args)]
pub struct ClientInvite {
    /// Its name.
    pub name: ClientName,
    /// Host and invite.
    #[command(flatten)]
    pub invite: Reinvite,
}

/// A further invite of a client.
#[derive(Debug, Args)]
pub struct Reinvite {
    /// The host name or address of this server, as the client reaches it [default: as before].
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// The invite.
    #[command(flatten)]
    pub invite: InviteArgs,
}

/// `client`.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Enrol a client and print its invite, one line, on standard output.
    #[command(
        after_help = "Examples:\n  spa-server client add alice --allow ssh --host bastion.example.org\n  \
spa-server client add bob --allow ssh,web --host 192.0.2.1 --require-bound\n  spa-server client add carol --allow ssh \
--host 192.0.2.1 --passphrase --invite-expires 24h\n  spa-server client add dave --allow ssh --host 192.0.2.1 --qr >/dev/null\n\nThe \
invite holds the client's keys: \
hand it over on a way that nobody else reads."
    )]
    Add(ClientAdd),
    /// Remove a client; its grants end at once.
    Remove {
        /// Its name.
        name: ClientName,
    },
    /// Give a client new keys, and print its new invite; the old keys open nothing from then on.
    #[command(
        after_help = "Examples:\n  spa-server client rotate alice\n  spa-server client rotate alice --invite-expires \
24h --passphrase\n\nOn the client: spa-client import --update."
    )]
    Rotate(ClientRotate),
    /// Print another invite for a client that keeps its keys: with the newest cloak key and the present services.
    #[command(
        after_help = "Example:\n  spa-server client invite alice\n\nIt holds no private key. On the client: \
spa-client import --update. Who has lost the private key needs `client rotate`."
    )]
    Invite(ClientInvite),
    /// Let a client in no more, and end its grants; its files stay.
    Disable {
        /// Its name.
        name: ClientName,
    },
    /// Let a client in again that was disabled, or whose invite expired unused.
    Enable {
        /// Its name.
        name: ClientName,
    },
    /// List the clients: state, last knock, cloak key, services.
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
    /// The invite.
    #[command(flatten)]
    pub invite: InviteArgs,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// A client's address, to take the stranger's place.
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<std::net::IpAddr>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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
