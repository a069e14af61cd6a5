//! `init`: from nothing to a configuration, keys and a first protection on trial. By a dialogue, or by options alone.
//! Everything is found out, asked and checked before the first file is written; then both files are written, or none.

mod dialogue;
mod listening;
mod text;
mod whereabouts;

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use spa_firewall::Except;
use spa_firewall::survey::Severity;
use spa_proto::{Endpoint, Protocol};

use self::dialogue::Services;
use self::whereabouts::Session;
use super::keygen::{new_keys, random_port};
use crate::cli::{Init, Run};
use crate::config::{Backend, Config, DEFAULT_PATH};
use crate::error::{Exit, Failure, Outcome};
use crate::files::{self, Existing};
use crate::log::say;
use crate::{control, firewall, log, terminal, warden};
use spa_proto::Seconds;

/// How long protection is on trial where nobody says.
const TRIAL: Seconds = Seconds(120);

/// All that is decided before anything is written.
pub struct Plan {
    config: PathBuf,
    key_file: PathBuf,
    clients_dir: PathBuf,
    state_dir: PathBuf,
    port: u16,
    backend: Backend,
    except: Vec<Except>,
    services: Services,
    /// How long on trial; `None` to leave it at the files.
    confirm: Option<Seconds>,
}

/// Sets the machine up.
pub fn run(config: &Path, options: &Init) -> Outcome {
    let config = std::path::absolute(config).map_err(|error| Failure::io("cannot find", config, &error))?;
    let (key_file, clients_dir) = (config.with_file_name("server.key"), config.with_file_name("clients.d"));
    refuse_existing(&config, &key_file)?;
    let session = whereabouts::session();
    let plan = decide(Paths { config, key_file, clients_dir }, options, session)?;
    let text = text::server_toml(&plan);
    let checked = Config::from_text(&plan.config, &text)?;
    look_around(&checked)?;
    if terminal::is_interactive() && options.services.is_empty() && !agree(&plan)? {
        return Err(Failure::new(Exit::Usage, "nothing was written, nothing was changed"));
    }
    write(&plan, &text)?;
    say!("wrote {} and {}", plan.config.display(), plan.key_file.display());
    say_what_is_next(&plan, session);
    match plan.confirm {
        None => Ok(()),
        Some(confirm) => {
            log::start();
            warden::run(Config::load(&plan.config)?, &Run { confirm: Some(confirm), dry_run: false })
        }
    }
}

/// Before any question: what is there stays, and what cannot be written is not asked for.
fn refuse_existing(config: &Path, key_file: &Path) -> Outcome {
    for path in [config, key_file] {
        if path.symlink_metadata().is_ok() {
            let what = format_args!("{} exists already; nothing was changed", path.display());
            return Err(Failure::new(Exit::CannotCreate, what).hint(format_args!(
                "spa-server check reads what is there; to begin anew, move {} away first; or --config FILE in another \
                 directory",
                path.display()
            )));
        }
    }
    let mut directory = files::directory_of(config);
    while !directory.exists() {
        directory = directory.parent().unwrap_or(Path::new("/"));
    }
    access(directory, Access::WRITE_OK)
        .map_err(|error| Failure::io("cannot write in", directory, &error.into()))?;
    if files::directory_of(config).exists() {
        files::check_private_directory(files::directory_of(config))?;
    }
    Ok(())
}

struct Paths {
    config: PathBuf,
    key_file: PathBuf,
    clients_dir: PathBuf,
}

/// Options where they are given, else questions where there is a terminal, else what is missing.
fn decide(paths: Paths, options: &Init, session: Option<Session>) -> Outcome<Plan> {
    let dialogue = terminal::is_interactive() && options.services.is_empty();
    if !dialogue {
        refuse_missing(options)?;
    }
    let found = listening::look()?;
    let services = if dialogue { dialogue::services(&found)? } else { named(options, &found)? };
    let endpoints: Vec<Endpoint> = services.values().flatten().copied().collect();
    let proposal = free_port(&endpoints, &found)?;
    let port = match options.port {
        Some(port) => port,
        None if dialogue => dialogue::port(proposal, &endpoints)?,
        None => proposal,
    };
    let except = if dialogue && options.except.is_empty() {
        dialogue::except(session)?
    } else {
        options.except.clone()
    };
    let confirm = match options.confirm {
        None if dialogue && !options.no_start => dialogue::start(TRIAL)?,
        confirm => confirm,
    };
    let Paths { config, key_file, clients_dir } = paths;
    let backend = options.backend.unwrap_or_default();
    let state_dir = std::path::absolute(&options.state_dir)
        .map_err(|error| Failure::io("cannot find", &options.state_dir, &error))?;
    if confirm.is_some() && control::is_running(&state_dir) {
        let what = format_args!("another spa-server runs with {}; nothing was changed", state_dir.display());
        let stop = control::how_to_stop(&state_dir);
        return Err(
            Failure::new(Exit::Unavailable, what).hint(format_args!("stop it first ({stop}), or --no-start"))
        );
    }
    Ok(Plan { config, key_file, clients_dir, state_dir, port, backend, except, services, confirm })
}

fn refuse_missing(options: &Init) -> Outcome {
    let mut missing = Vec::new();
    if options.services.is_empty() {
        missing.push("--service NAME[=ENDPOINT]");
    }
    if options.confirm.is_none() && !options.no_start {
        missing.push("--confirm TIME or --no-start");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", and ");
    let what = if terminal::is_interactive() {
        format!("with --service nothing is asked, and this is missing: {missing}")
    } else {
        format!("there is no terminal to ask on, and this is missing: {missing}")
    };
    Err(Failure::new(Exit::Usage, format_args!("{what}; nothing was changed"))
        .hint("spa-server init --service ssh --confirm 120s"))
}

fn named(options: &Init, found: &[listening::Found]) -> Outcome<Services> {
    let mut services = Services::new();
    for text in &options.services {
        let (name, endpoints) = dialogue::service(text, found)
            .map_err(|why| Failure::new(Exit::Usage, format_args!("--service {why}; nothing was changed")))?;
        if services.insert(name.clone(), endpoints).is_some() {
            let what = format_args!("--service {name} is there twice; nothing was changed");
            return Err(
                Failure::new(Exit::Usage, what).hint(format_args!("--service {name}=tcp/PORT,tcp/PORT"))
            );
        }
    }
    Ok(services)
}

/// A random port that is no service and that nothing is bound to.
fn free_port(services: &[Endpoint], found: &[listening::Found]) -> Outcome<u16> {
    loop {
        let port = random_port()?;
        let endpoint = Endpoint::new(Protocol::Udp, port);
        let bound = std::net::UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, port))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
        let taken =
            services.iter().chain(found.iter().map(|one| &one.endpoint)).any(|one| Some(*one) == endpoint);
        if !bound && !taken {
            return Ok(port);
        }
    }
}

/// What would make protection void is an error now, while nothing is written.
fn look_around(config: &Config) -> Outcome {
    let (driver, _) = firewall::settle(config)?;
    for finding in firewall::survey(config, driver)? {
        match finding.severity {
            Severity::Error => {
                let what = format_args!("{}; nothing was changed", finding.what);
                return Err(Failure::new(Exit::Unavailable, what).hint(finding.remedy));
            }
            Severity::Warning => say!("warning: {}; {}", finding.what, finding.remedy),
        }
    }
    Ok(())
}

fn agree(plan: &Plan) -> Outcome<bool> {
    let services: Vec<_> =
        plan.services.iter().map(|(name, list)| format!("{name} ({})", join(list))).collect();
    let except: Vec<_> = plan.except.iter().map(ToString::to_string).collect();
    say!("\n  {:<10} {}", "protect", services.join(", "));
    say!("  {:<10} udp/{}", "knocks to", plan.port);
    say!("  {:<10} {}", "except", if except.is_empty() { "none".to_owned() } else { except.join(", ") });
    say!("  {:<10} {}, {}", "files", plan.config.display(), plan.key_file.display());
    say!(
        "  {:<10} {}",
        "start",
        plan.confirm.map_or_else(|| "no".to_owned(), |time| format!("on trial for {time}"))
    );
    dialogue::agreed()
}

fn join(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Both files, or none: what was made is taken back where the next step fails.
fn write(plan: &Plan, text: &str) -> Outcome {
    let keys = new_keys()?;
    let mut made = Made::default();
    made.directory(files::directory_of(&plan.config))?;
    made.directory(&plan.clients_dir)?;
    made.file(&plan.key_file, keys.to_text().as_bytes())?;
    made.file(&plan.config, text.as_bytes())?;
    made.keep();
    Ok(())
}

/// What was made so far; dropped, it is gone again.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Made {
    fn directory(&mut self, path: &Path) -> Outcome {
        // Those above that are not there either are made with it, and so go with it.
        let new = path.ancestors().take_while(|path| !path.exists()).map(Path::to_owned);
        self.directories.splice(0..0, new);
        files::make_private_directory(path)
    }

    fn file(&mut self, path: &Path, content: &[u8]) -> Outcome {
        files::write_atomically(path, content, 0o600, Existing::Keep)?;
        self.files.push(path.to_owned());
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.directories.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.files {
            let _ = std::fs::remove_file(path); // nothing more can be done than to try
        }
        for path in &self.directories {
            let _ = std::fs::remove_dir(path); // only where it is empty
        }
    }
}

fn say_what_is_next(plan: &Plan, session: Option<Session>) {
    let program = if plan.config == Path::new(DEFAULT_PATH) {
        "spa-server".to_owned()
    } else {
        format!("spa-server --config {}", plan.config.display())
    };
    let host = whereabouts::host_guess(session).unwrap_or_else(|| "HOST".to_owned());
    let allow: Vec<_> = plan.services.keys().map(ToString::to_string).collect();
    let first = allow.first().map_or("ssh", String::as_str);
    let here = if plan.confirm.is_some() { "in another terminal here" } else { "here" };
    say!("\nNext, {here} (is {host} how clients reach this machine?):");
    say!("  {program} client add alice --allow {} --host {host}", allow.join(","));
    say!("and on the client, with the line that it prints:");
    say!("  spa-client import --name bastion");
    match plan.confirm {
        Some(_) => {
            say!(
                "  spa-client open {first} --wait      # the first knock ends the trial; so does `{program} confirm`, here"
            );
            say!("Then end this with Ctrl-C (protection stays) and run it as a service:");
        }
        None => {
            say!("  spa-client open {first} --wait      # once this runs, which lays protection on trial:");
            say!("  {program} run --confirm {TRIAL}");
            say!("Then end that with Ctrl-C (protection stays) and run it as a service:");
        }
    }
    if plan.config != Path::new(DEFAULT_PATH) {
        say!("  systemctl edit spa-protect spa-server   # ExecStart= of both: they read {DEFAULT_PATH}");
    }
    say!("  systemctl enable --now spa-protect spa-server");
    say!("To undo all of it: {program} unprotect\n");
}
