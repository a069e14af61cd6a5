//! The privileged half of the daemon. This thread only waits and passes on: packets from the verifier, commands from
//! the control socket, signals, timers. What may block is in [`engine`], on a thread of its own.

mod bounds;
mod changes;
mod control_socket;
mod engine;
pub mod events;
mod links;
mod privileges;
mod provisional;
mod record;
pub mod settings;
mod verifier_process;
mod watchdog;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use spa_firewall::{Authors, Choice, Enforcer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::engine::{keep_connections, standing};
pub use self::record::Record;
pub use self::verifier_process::user;

use self::bounds::PerMinute;
use self::changes::{Culprits, Watch};
use self::control_socket::{ControlSocket, Order};
use self::engine::{Arrival, Command, Engine, EngineSettings, Published};
use self::links::LinkWatch;
use self::settings::Settings;
use self::verifier_process::{Captures, VerifierProcess};
use self::watchdog::{Pulse, Watchdog};
use crate::cli::Run;
use crate::clock::{self, BootTimer, ClockWatch};
use crate::config::Config;
use crate::control::{Request, Response};
use crate::error::{Exit, Failure, Outcome};
use crate::link::{Counts, FromVerifier, Handover};
use crate::lock::{self, Lock};
use crate::{files, firewall};
use spa_proto::Seconds;

/// The replay record, in the state directory.
pub const RECORD: &str = "replay";
/// A verifier that ends is started again, but not more often than this many times in [`RESTART_WINDOW`].
const MAX_RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Lines a minute about packets with a wrong clock, and about packets that their client did not make.
const MAX_SKEW_LINES: usize = 6;
const MAX_FORGERY_LINES: usize = 30;
/// Look-ups of the interfaces a minute that the verifier can cause.
const MAX_LOOKUPS: usize = 30;
/// How long `status` waits for the verifier's counts.
const COUNTS_TIMEOUT: Duration = Duration::from_secs(1);

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
    let settings = Settings::load(config)?;
    let captures = Captures::open(&settings.config)?;
    let (published_sender, published) = watch::channel(Published::default());
    let (engine, choice) = start_engine(&settings, options, &lock, published_sender)?;
    let own = engine.authors();
    let (commands, queue) = std::sync::mpsc::sync_channel(engine::QUEUE);
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || engine.run(&queue));
    let thread =
        thread.map_err(|error| Failure::new(Exit::System, format_args!("cannot start a thread: {error}")))?;
    let verifier = VerifierProcess::start(&settings.config, &settings.verifier, &captures).await?;
    let control = ControlSocket::bind(&settings.config.state_dir)?;
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
        openers_counters: spa_gate::Counters::default(),
        started: Instant::now(),
        choice,
        ready: false,
        dry_run: options.dry_run,
        skews: PerMinute::default(),
        lookups: PerMinute::default(),
        forgeries: PerMinute::default(),
    };
    let last = published.clone();
    let result = warden.work(control, published, own).await;
    let _ = warden.commands.send(Command::Stop); // it may have ended by itself
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
    let options =
        engine::Options { confirm: options.confirm.map(Seconds::duration), dry_run: options.dry_run };
    let dry_run = options.dry_run;
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
    commands: engine::Sender,
    /// What verifiers counted that are gone.
    counts_before: Counts,
    /// What is known of the present one's.
    counts: Counts,
    /// What of it the log has in a summary.
    counts_reported: Counts,
    counts_wanted: Vec<oneshot::Sender<()>>,
    watchdog: Watchdog,
    openers_counters: spa_gate::Counters,
    started: Instant,
    /// Of `backend = "auto"`.
    choice: Option<Choice>,
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
        tokio::spawn(async move {
            let mut watch = Watch::new(own);
            // Somebody may have been there between the engine's start and now.
            let _ = changes_sender.send(Culprits::default()).await;
            // A change that finds the last one still unread is looked at with it.
            while changes_sender.send(watch.changed().await).await.is_ok() {}
        });
        let links = LinkWatch::new();
        // One may have come between the first look-up and now.
        self.look_up_interfaces().await?;
        timer.set(published.borrow_and_update().wake).map_err(failed)?;
        loop {
            tokio::select! {
                message = self.verifier.receive() => match message {
                    Ok(Some(message)) => self.heard(message).await?,
                    Ok(None) => self.restart_verifier().await?,
                    Err(error) => {
                        tracing::error!(%error, "the verifier sent what it must not");
                        self.restart_verifier().await?;
                    }
                },
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
                expired = timer.expired() => {
                    expired.map_err(failed)?;
                    self.tell(Command::Wake);
                }
                set = clock_watch.was_set() => {
                    set.map_err(failed)?;
                    self.tell(Command::ClockSet);
                }
                Some(culprits) = changes.recv(), if !self.dry_run => self.tell(Command::Look(culprits)),
                Some(order) = orders.recv() => self.follow(order).await,
                () = links.changed(), if self.settings.config.interfaces.is_some() => {
                    self.look_up_interfaces().await?;
                }
                () = self.watchdog.tick() => self.beat().await?,
                _ = signals.hangup.recv() => {
                    if let Err(failure) = self.reload().await {
                        tracing::error!("not reloaded, and nothing is changed: {failure}");
                    }
                }
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]); // only systemd cares
        tracing::info!("stopping");
        Ok(())
    }

    /// Gives the engine a command that no one waits for. Wake-ups are repeated by what they are for.
    fn tell(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            tracing::warn!("the engine is busy");
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

    async fn look_up_interfaces(&mut self) -> Outcome {
        if let Err(error) = self.verifier.resolve_interfaces(&self.captures).await {
            tracing::warn!(%error, "the verifier was not told of the interfaces");
            self.restart_verifier().await?;
        }
        Ok(())
    }

    /// Opens a candidate and passes the knock on. The verifier hears at once, before anything that may block.
    fn open(&mut self, handover: Handover) {
        let Handover { candidate, destination } = handover;
        let (opened, outcome) = self.settings.openers.open(&candidate);
        self.verifier.settle(candidate.tag, outcome);
        if let Err(refusal) = &opened {
            self.openers_counters.count::<()>(&Err(*refusal));
        }
        let source: IpAddr = candidate.source.ip().to_canonical();
        match opened {
            Ok(knock) => {
                let (client, at) = (candidate.client, Instant::now());
                let cloak = self.settings.cloak_ids.get(usize::from(candidate.cloak)).cloned();
                let arrival = Arrival { client, source, destination, knock, at, cloak };
                self.tell(Command::Knock(Box::new(arrival)));
            }
            Err(refusal) => {
                if self.forgeries.take(clock::boot()) {
                    events::refused(&candidate.client.to_string(), source, refusal);
                }
            }
        }
    }

    fn counted(&mut self, counts: Counts) {
        if self.watchdog.awaits_verifier() {
            self.watchdog.verifier_answered();
        } else if self.counts_wanted.is_empty() {
            events::junk(&self.counts_reported, &counts);
            self.counts_reported = counts;
        }
        self.counts = counts;
        for waiting in self.counts_wanted.drain(..) {
            let _ = waiting.send(()); // who asked may have gone
        }
    }

    /// Tells systemd that all is well if it is, and asks both halves again.
    async fn beat(&mut self) -> Outcome {
        match self.watchdog.pulse() {
            Pulse::Begins | Pulse::EngineStillBusy => {}
            Pulse::Alive => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]); // only systemd cares
            }
            Pulse::VerifierSilent => {
                tracing::error!("the verifier does not answer");
                self.restart_verifier().await?;
            }
            Pulse::EngineBusy => {
                tracing::warn!("the engine has not answered yet: it waits for the disk or for the firewall")
            }
        }
        // A verifier that is gone, or does not read, has not answered at the next tick.
        let _ = self.verifier.ask_counts().await;
        let engine = if self.watchdog.awaits_engine() {
            None
        } else {
            let (reply, answer) = oneshot::channel();
            self.commands.try_send(Command::Status(reply)).is_ok().then_some(answer)
        };
        self.watchdog.asked(engine);
        Ok(())
    }

    async fn restart_verifier(&mut self) -> Outcome {
        self.watchdog.forget_verifier();
        self.counts_reported = Counts::default();
        let how = self.verifier.end();
        events::verifier_ended(&how);
        self.restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
        if self.restarts.len() == MAX_RESTARTS {
            let what = format_args!(
                "the verifier ended again after {MAX_RESTARTS} restarts in a minute, with {how}; protection stays"
            );
            return Err(Failure::new(Exit::Software, what));
        }
        self.restarts.push(Instant::now());
        self.counts_before.add(&std::mem::take(&mut self.counts));
        self.verifier =
            VerifierProcess::start(&self.settings.config, &self.settings.verifier, &self.captures).await?;
        Ok(())
    }

    /// Swaps the whole configuration, or nothing.
    async fn reload(&mut self) -> Outcome {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]); // only systemd cares
        let result = self.try_reload().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        result
    }

    async fn try_reload(&mut self) -> Outcome {
        let settings = Settings::load(Config::load(&self.settings.config.path)?)?;
        let old = &self.settings.config;
        let new = &settings.config;
        let fixed = [
            ("server.state-dir", old.state_dir != new.state_dir),
            ("firewall.backend", old.backend != new.backend),
            ("firewall.iptables", old.variant != new.variant),
            ("firewall.mark", old.mark != new.mark),
        ];
        let changed: Vec<_> = fixed.iter().filter(|(_, changed)| *changed).map(|(key, _)| *key).collect();
        if !changed.is_empty() {
            let what = format_args!(
                "{}: a change of {} takes effect at a restart; nothing was reloaded",
                new.path.display(),
                changed.join(" and ")
            );
            return Err(Failure::new(Exit::Config, what)
                .hint("restart the daemon: protection and grants stay meanwhile"));
        }
        let same_capture = (old.port, &old.interfaces, &old.user) == (new.port, &new.interfaces, &new.user);
        // What can fail comes first, beside what works; the engine swaps last, and it swaps back if it must.
        let fresh = if same_capture {
            None
        } else {
            let captures = Captures::open(new)?;
            let verifier = VerifierProcess::start(new, &settings.verifier, &captures).await?;
            Some((captures, verifier))
        };
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(Command::Reload(Box::new(EngineSettings::of(&settings)), reply))
            .map_err(|_| busy())?;
        answer.await.unwrap_or_else(|_| Err(busy()))?;
        match fresh {
            Some((captures, verifier)) => {
                self.counts_before.add(&std::mem::take(&mut self.counts));
                self.counts_reported = Counts::default();
                self.watchdog.forget_verifier();
                self.captures = captures;
                self.verifier = verifier;
            }
            None => {
                let told = self.verifier.configure(&settings.verifier).await;
                // An interface may have been renamed.
                let resolved = self.verifier.resolve_interfaces(&self.captures).await;
                if told.is_err() || resolved.is_err() {
                    self.verifier.end(); // before another reads the same rings
                    self.settings = settings; // the engine goes by them already
                    let Settings { config, verifier, .. } = &self.settings;
                    self.verifier = VerifierProcess::start(config, verifier, &self.captures).await?;
                    tracing::info!(clients = self.settings.verifier.clients.len(), "reloaded");
                    return Ok(());
                }
            }
        }
        self.settings = settings;
        tracing::info!(clients = self.settings.verifier.clients.len(), "reloaded");
        Ok(())
    }

    async fn follow(&mut self, order: Order) {
        let Order { request, reply } = order;
        let answer = match request {
            Request::Status => self.status().await,
            Request::Grants => self.ask(Command::Grants).await.and_then(|grants| json(&grants?)),
            Request::Revoke { client, source, endpoint, cut } => {
                self.revoke(client, source, endpoint, cut).await
            }
            Request::Reload => self.reload().await.map(|()| serde_json::Value::Null),
            Request::Confirm => self.ask(Command::Confirm).await.and_then(|confirmed| json(&confirmed?)),
        };
        let response = answer.map_or_else(|failure| Response::error(&failure), Response::Ok);
        let _ = reply.send(response); // who asked may have gone
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Outcome<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_| busy())?;
        answer.await.map_err(|_| busy())
    }

    async fn revoke(
        &self,
        client: Option<String>,
        source: Option<IpAddr>,
        endpoint: Option<String>,
        cut: bool,
    ) -> Outcome<serde_json::Value> {
        let wrong = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
        let selector = spa_gate::Selector {
            client: client.map(|name| name.parse()).transpose().map_err(|error| wrong(&error))?,
            source: source.map(|source| source.to_canonical()),
            endpoint: endpoint.map(|text| text.parse()).transpose().map_err(|error| wrong(&error))?,
        };
        if cut {
            return json(&self.ask(|reply| Command::Cut(selector, reply)).await??);
        }
        json(&self.ask(|reply| Command::Revoke(selector, reply)).await??)
    }

    async fn status(&mut self) -> Outcome<serde_json::Value> {
        let (sender, counted) = oneshot::channel();
        self.counts_wanted.push(sender);
        // The answer comes on the link, which only this task reads.
        let asked = self.verifier.ask_counts().await.is_ok();
        if !asked || tokio::time::timeout(COUNTS_TIMEOUT, self.await_counts(counted)).await.is_err() {
            tracing::error!("the verifier does not answer");
            self.restart_verifier().await?;
        }
        let engine = self.ask(Command::Status).await?;
        let mut counts = self.counts_before;
        counts.add(&self.counts);
        let mut refused: serde_json::Map<String, serde_json::Value> = spa_gate::Reason::ALL
            .into_iter()
            .map(|reason| {
                let count = counts.refused(reason)
                    + engine.counters.refused(reason)
                    + self.openers_counters.refused(reason);
                (reason.name().to_owned(), count.into())
            })
            .collect();
        refused.insert("destination".to_owned(), engine.misdirected.into());
        refused.insert("record".to_owned(), engine.unrecorded.into());
        Ok(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime": self.started.elapsed().as_secs(),
            "port": self.settings.config.port,
            "capture": self.captures.methods(),
            "firewall": engine.driver,
            "firewall-chosen": self.choice.as_ref().map(|choice| &choice.why),
            "state": if engine.trouble.is_empty() { "ok" } else { "degraded" },
            "trouble": engine.trouble,
            "confirm-within": engine.confirm_within,
            "clients": engine.clients,
            "cloaks": self.settings.cloak_ids.iter().map(|id| {
                let clients = engine.cloaks.get(id).copied().unwrap_or(0);
                serde_json::json!({ "id": &**id, "clients": clients })
            }).collect::<Vec<_>>(),
            "grants": engine.grants,
            "granted": engine.counters.passed(),
            "refused": refused,
            "dropped": counts.dropped,
            "diffie-hellman": counts.diffie_hellman,
        }))
    }

    async fn await_counts(&mut self, mut counted: oneshot::Receiver<()>) {
        while counted.try_recv().is_err() {
            let Ok(Some(message)) = self.verifier.receive().await else { return };
            if let FromVerifier::Counts(counts) = message {
                self.counted(counts);
            } else if self.heard(message).await.is_err() {
                return;
            }
        }
    }
}

fn busy() -> Failure {
    Failure::new(Exit::TryAgain, "the daemon is busy; nothing was changed")
}

fn json<T: serde::Serialize>(value: &T) -> Outcome<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Failure::new(Exit::Software, error))
}
