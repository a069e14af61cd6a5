//! The privileged half of the daemon. This thread only waits and passes on: packets from the verifier, commands from
//! the control socket, signals, timers. What may block is in [`engine`], on a thread of its own.

mod addresses;
mod bounds;
mod changes;
mod control_socket;
mod engine;
pub mod events;
mod inbox;
mod links;
mod orders;
mod privileges;
mod provisional;
mod record;
mod reload;
pub mod set_back;
pub mod settings;
mod supervision;
mod verifier_process;
mod watchdog;

use std::net::IpAddr;
use std::time::Instant;

use spa_firewall::{Authors, Choice, Enforcer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::engine::{keep_connections, standing};
pub use self::record::Record;
pub use self::verifier_process::user;

use self::bounds::PerMinute;
use self::changes::{Culprits, Deaf, Watch};
use self::control_socket::ControlSocket;
use self::engine::{Arrival, Command, Engine, EngineSettings, Published};
use self::inbox::Sender;
use self::links::LinkWatch;
use self::settings::Settings;
use self::verifier_process::{Captures, VerifierProcess};
use self::watchdog::Watchdog;
use crate::cli::Run;
use crate::clock::{self, BootTimer, ClockWatch};
use crate::config::Config;
use crate::error::{Exit, Failure, Outcome};
use crate::link::{Counts, FromVerifier, Handover};
use crate::lock::{self, Lock};
use crate::{files, firewall};
use spa_proto::Seconds;

/// The replay record, in the state directory.
pub const RECORD: &str = "replay";
/// Messages of the verifier that are followed before anything else is looked at.
const MESSAGES: usize = 64;
/// Lines a minute about packets with a wrong clock, and about packets that their client did not make.
const MAX_SKEW_LINES: usize = 6;
const MAX_FORGERY_LINES: usize = 30;
/// Look-ups of the interfaces a minute that the verifier can cause.
const MAX_LOOKUPS: usize = 30;

/// Runs the daemon until it is told to stop. Protection and grants stay when it ends.
///
/// # Errors
/// Whatever keeps it from starting, with what to try; [`Exit::TryAgain`] where `--confirm` ran out.
pub fn run(config: Config, options: &Run) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::System, format_args!("cannot start: {error}")))?;
    runtime.block_on(serve(config, options))
}

async fn serve(config: Config, options: &Run) -> Outcome {
    privileges::limit()?;
    files::make_private_directory(&config.state_dir)?;
    let lock = lock::exclusive(&config.state_dir)?;
    let _only = lock::only_daemon()?;
    // From here on who changes a client waits for this daemon, and does not take it that none runs.
    let (control, _socket_file) = ControlSocket::bind(&config.state_dir)?;
    let settings = Settings::load(config)?;
    let captures = Captures::open(&settings.config)?;
    let (published_sender, published) = watch::channel(Published::default());
    let (engine, choice) = start_engine(&settings, options, &lock, published_sender)?;
    let (own, uses_lock) = (engine.authors(), engine.uses_xtables_lock());
    let (commands, inbox) = inbox::channel();
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || engine.run(&inbox));
    let thread =
        thread.map_err(|error| Failure::new(Exit::System, format_args!("cannot start a thread: {error}")))?;
    let verifier = VerifierProcess::start(&settings.config, &settings.verifier, &captures).await?;
    let mut warden = Warden {
        settings,
        captures,
        verifier,
        restarts: Vec::new(),
        commands,
        counts_before: Counts::default(),
        counts: Counts::default(),
        counts_reported: Counts::default(),
        counts_wanted: Vec::new(),
        watchdog: Watchdog::from_environment(),
        deaf: Deaf::default(),
        openers_counters: spa_gate::Counters::default(),
        started: Instant::now(),
        choice,
        shut_out: Vec::new(),
        ready: false,
        dry_run: options.dry_run,
        skews: PerMinute::default(),
        lookups: PerMinute::default(),
        forgeries: PerMinute::default(),
    };
    let last = published.clone();
    let result = warden.work(control, published, own, uses_lock).await;
    tokio::task::yield_now().await; // whoever was answered last gets the answer
    warden.commands.stop();
    if thread.join().is_err() {
        return Err(Failure::new(Exit::Software, "the engine failed; protection stays as it is"));
    }
    result?;
    if last.borrow().unconfirmed {
        return Err(Failure::new(
            Exit::TryAgain,
            "stopped before it was confirmed: the firewall is as it was before",
        ));
    }
    tracing::info!("protection and open grants stay, and the kernel ends them in time");
    Ok(())
}

fn start_engine(
    settings: &Settings,
    options: &Run,
    lock: &Lock,
    published: watch::Sender<Published>,
) -> Outcome<(Engine, Option<Choice>)> {
    let config = &settings.config;
    let record = match options.dry_run {
        true => Record::none(),
        false => Record::open(&config.state_dir.join(RECORD), floor_of_a_new_record(config))?,
    };
    let firewall::Opened { driver, kind, choice } = firewall::open(config, options.dry_run, Some(lock))?;
    if let Some(choice) = &choice {
        events::chosen(choice);
    }
    if !options.dry_run {
        firewall::survey(config, kind)?.iter().for_each(events::finding);
    }
    let dry_run = options.dry_run;
    let confirm = options.confirm.map(Seconds::duration);
    let options = engine::Options { confirm, dry_run, lock: Some(lock.clone()) };
    let enforcer = Enforcer::new(driver);
    let engine = Engine::start(EngineSettings::of(settings), enforcer, record, options, published)?;
    if !dry_run {
        firewall::keep_choice(config, choice.as_ref())?;
    }
    Ok((engine, choice))
}

/// The floor of all where there is no record, Unix nanoseconds: now at the very first start. At a later one the record
/// was lost, and with it perhaps packets that were dated ahead.
fn floor_of_a_new_record(config: &Config) -> u64 {
    let now = clock::now().wall;
    if config.state_dir.join(RECORD).exists() || Config::load_last_good(&config.state_dir).is_err() {
        return now;
    }
    tracing::warn!("the replay record is gone: no packet made before max-age from now is accepted");
    now.saturating_add(u64::try_from(config.max_age.as_nanos()).unwrap_or(u64::MAX))
}

struct Warden {
    settings: Settings,
    captures: Captures,
    verifier: VerifierProcess,
    restarts: Vec<Instant>,
    commands: Sender,
    /// What verifiers counted that are gone.
    counts_before: Counts,
    /// What is known of the present one's.
    counts: Counts,
    /// What of it the log has in a summary.
    counts_reported: Counts,
    counts_wanted: Vec<oneshot::Sender<()>>,
    watchdog: Watchdog,
    /// What tells of changes in the firewall, and does not now.
    deaf: Deaf,
    openers_counters: spa_gate::Counters,
    started: Instant,
    /// Of `backend = "auto"`.
    choice: Option<Choice>,
    /// Whom nobody lets in until the next reload that succeeds or start, by name.
    shut_out: Vec<String>,
    ready: bool,
    dry_run: bool,
    skews: PerMinute<MAX_SKEW_LINES>,
    lookups: PerMinute<MAX_LOOKUPS>,
    forgeries: PerMinute<MAX_FORGERY_LINES>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Warden {
    async fn work(
        &mut self,
        control: ControlSocket,
        mut published: watch::Receiver<Published>,
        own: Authors,
        uses_lock: bool,
    ) -> Outcome {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::System, format_args!("the daemon's loop failed: {error}"))
        };
        let mut signals = Signals::new().map_err(failed)?;
        let timer = BootTimer::new().map_err(failed)?;
        let clock_watch = ClockWatch::new().map_err(failed)?;
        let (orders_sender, mut orders) = mpsc::channel(16);
        tokio::spawn(control.serve(orders_sender));
        let (changes_sender, mut changes) = mpsc::channel(1);
        let deaf = self.deaf.clone();
        tokio::spawn(async move {
            let mut watch = Watch::new(own, uses_lock, &deaf);
            // Somebody may have been there between the engine's start and now.
            let _ = changes_sender.send(Culprits::default()).await;
            // A change that finds the last one still unread is looked at with it.
            while changes_sender.send(watch.changed().await).await.is_ok() {}
        });
        let links = LinkWatch::new();
        // One may have come between the first look-up and now.
        self.look_up_interfaces().await?;
        timer.set(published.borrow_and_update().wake).map_err(failed)?;
        // After each look at the link everything else has its turn.
        let mut others_turn = false;
        loop {
            tokio::select! {
                biased;
                // First, since a knock waits: to ask all the others before costs a machine that slept some 20 us.
                message = self.verifier.receive(), if !others_turn => {
                    self.read_link(message).await?;
                    others_turn = true;
                }
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                () = self.watchdog.tick() => self.beat().await?,
                expired = timer.expired() => {
                    expired.map_err(failed)?;
                    let _ = self.commands.send(Command::Wake); // where the queue is full it wakes by itself
                }
                changed = published.changed() => {
                    let Published { wake, unconfirmed } = *published.borrow_and_update();
                    if unconfirmed {
                        return Err(Failure::new(Exit::TryAgain, "not confirmed in time: the firewall is as it was before")
                            .hint("spa-server confirm, or a valid knock, within the time given to --confirm"));
                    }
                    if changed.is_err() {
                        return Err(Failure::new(Exit::Software, "the engine ended; protection stays as it is"));
                    }
                    timer.set(wake).map_err(failed)?;
                }
                set = clock_watch.was_set() => {
                    set.map_err(failed)?;
                    self.commands.clock_was_set();
                }
                _ = signals.hangup.recv() => {
                    if let Err(failure) = self.reload().await {
                        tracing::error!("not reloaded, and nothing is changed: {failure}");
                    }
                }
                Some(order) = orders.recv() => self.follow(order).await,
                // What others could make come without end is last.
                () = links.changed(), if self.settings.config.interfaces.is_some() => {
                    self.look_up_interfaces().await?;
                }
                Some(culprits) = changes.recv(), if !self.dry_run => {
                    self.commands.firewall_was_changed(culprits);
                }
                () = std::future::ready(()), if others_turn => others_turn = false,
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]); // only systemd cares
        tracing::info!("stopping");
        Ok(())
    }

    /// Follows a message of the verifier, and those that wait behind it: to look at everything else between two of
    /// them costs as much as they do.
    async fn read_link(&mut self, first: std::io::Result<Option<FromVerifier>>) -> Outcome {
        self.received(first).await?;
        for _ in 1..MESSAGES {
            let Some(message) = self.verifier.try_receive() else { return Ok(()) };
            self.received(message).await?;
        }
        // Reading without waiting spends nothing of what tokio grants a task: it would not look at its sockets before
        // the loop has gone through many such batches.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn received(&mut self, message: std::io::Result<Option<FromVerifier>>) -> Outcome {
        match message {
            Ok(Some(message)) => self.heard(message).await,
            Ok(None) => self.restart_verifier().await,
            Err(error) => {
                tracing::error!(%error, "the verifier sent what it must not");
                self.restart_verifier().await
            }
        }
    }

    async fn heard(&mut self, message: FromVerifier) -> Outcome {
        match message {
            FromVerifier::Ready(confinement) => {
                events::verifier_ready(confinement);
                if !self.ready {
                    self.ready = true;
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]); // only systemd cares
                    let config = &self.settings.config;
                    tracing::info!(
                        port = config.port,
                        clients = self.settings.verifier.clients.len(),
                        "ready"
                    );
                }
            }
            FromVerifier::Candidate(handover) => self.open(*handover),
            // The verifier bounds these itself; one that was taken over would not.
            FromVerifier::Skew { source, seconds } => {
                if self.skews.take(clock::boot()) {
                    events::skew(source, seconds);
                }
            }
            FromVerifier::Counts(counts) => self.counted(counts),
            FromVerifier::StaleInterfaces => {
                if self.lookups.take(clock::boot()) {
                    self.look_up_interfaces().await?;
                }
            }
        }
        Ok(())
    }

    /// Opens a candidate and passes the knock on. Then the verifier hears of it: nothing here blocks.
    fn open(&mut self, handover: Handover) {
        let Handover { candidate, destination } = handover;
        let (opened, outcome) = self.settings.openers.open(&candidate);
        if let Err(refusal) = &opened {
            self.openers_counters.count::<()>(&Err(*refusal));
        }
        let source: IpAddr = candidate.source.ip().to_canonical();
        match opened {
            Ok(knock) => {
                let (client, at) = (candidate.client, Instant::now());
                let cloak = self.settings.cloak(candidate.cloak);
                let arrival = Arrival { client, source, destination, knock, at, cloak };
                if !self.commands.send(Command::Knock(Box::new(arrival))) {
                    tracing::warn!("a knock is lost: too many wait for the engine");
                }
            }
            Err(refusal) => {
                if self.forgeries.take(clock::boot()) {
                    events::refused(&candidate.client.to_string(), source, refusal);
                }
            }
        }
        self.verifier.settle(candidate.tag, outcome);
    }
}
