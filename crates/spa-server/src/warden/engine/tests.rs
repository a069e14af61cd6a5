//! The engine on a firewall in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use spa_firewall::memory::{Fault, Memory};
use spa_gate::{ClientPolicy, JudgeSettings, Now};
use spa_proto::SecretKey;

use super::super::inbox;
use super::*;

/// An engine with alice's grant for ssh open, and the firewall that it writes.
struct Scene {
    memory: Arc<Mutex<Memory>>,
    engine: Engine,
    alice: PublicKey,
    _directory: tempfile::TempDir,
}

const SERVICES: &str = "[services]\nssh = \"tcp/22\"\n";

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let alice = SecretKey::from_bytes([7; 32]).public_key();
        let memory = Arc::new(Mutex::new(Memory::new()));
        let key = GrantKey::new("alice".parse().unwrap(), [192, 0, 2, 7].into(), "tcp/22".parse().unwrap());
        let from = SystemTime::now();
        let grants = [(key, Lifetime { from, until: from + Duration::from_secs(600) })].into();
        let laid = Wanted { protection: Some(config.protection()), grants };
        Enforcer::new(Box::new(memory.clone())).enforce(&laid).unwrap();
        let settings = EngineSettings { judge: judge(&config, alice), config };
        let options = Options { confirm: None, dry_run: true, lock: None };
        let enforcer = Enforcer::new(Box::new(memory.clone()));
        let (published, _) = watch::channel(Published::default());
        let engine = Engine::start(settings, enforcer, Record::none(), options, published).unwrap();
        assert_eq!(engine.wanted.grants.len(), 1, "the grant is adopted");
        Self { memory, engine, alice, _directory: directory }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    /// How often the firewall was written and read.
    fn tried(&self) -> (usize, usize) {
        let memory = self.memory();
        (memory.applied, memory.reads)
    }
}

fn config(directory: &Path) -> Config {
    let path = directory.join("server.toml");
    let text = format!("[server]\nstate-dir = \"{}\"\n{SERVICES}", directory.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Config::load(&path).unwrap()
}

fn judge(config: &Config, alice: PublicKey) -> JudgeSettings {
    let alice = ClientPolicy {
        name: "alice".parse().unwrap(),
        key: alice,
        allow: vec!["ssh".parse().unwrap()],
        sources: Vec::new(),
        require_bound: false,
        allow_explicit: false,
        max_open_for: None,
        max_grants: 8,
        valid_until: None,
        first_knock_by: None,
    };
    JudgeSettings {
        services: BTreeMap::clone(&config.services),
        max_age: config.max_age,
        open_for: config.open_for,
        max_open_for: config.max_open_for,
        max_grants: 8,
        clients: vec![alice],
    }
}

/// A queue that is full when somebody flushes the firewall and sets the clock: both are looked after all the same.
#[test]
fn a_change_that_finds_the_queue_full_is_put_right() {
    let scene = Scene::new();
    let memory = Arc::clone(&scene.memory);
    let (sender, inbox) = inbox::channel();
    while sender.send(Command::Wake) {}
    memory.lock().unwrap().kernel.v4.rules.clear();
    sender.firewall_was_changed(Culprits::default());
    let engine = std::thread::spawn(move || scene.engine.run(&inbox));
    sender.stop();
    engine.join().unwrap();
    assert!(!memory.lock().unwrap().kernel.v4.rules.is_empty(), "it is put right");
}

/// Whoever is shut out has nothing open, whatever waits in the queue, and is known no more.
#[test]
fn a_client_is_shut_out_ahead_of_the_queue() {
    let scene = Scene::new();
    let memory = Arc::clone(&scene.memory);
    let (sender, inbox) = inbox::channel();
    while sender.send(Command::Wake) {}
    let mut closed = sender.shut_out(vec![scene.alice]);
    let engine = std::thread::spawn(move || scene.engine.run(&inbox));
    sender.stop();
    engine.join().unwrap();
    assert_eq!(closed.try_recv().unwrap().unwrap().len(), 1);
    let rules = format!("{:?}", memory.lock().unwrap().kernel.v4.rules);
    assert!(!rules.contains("alice"), "{rules}");
}

/// Whoever is shut out a second time, after a hang, is not said to have nothing open while the rule stands.
#[test]
fn a_rule_that_stands_is_told_at_each_order() {
    let mut scene = Scene::new();
    scene.memory().faults = [Some(Fault::Hang)].into();
    let alice = vec![scene.alice];
    // The first order closes it, or should have; at the others it is not known of whom a rule may stand.
    for (keys, said) in
        [(alice.clone(), "could not be removed"), (alice, "may still stand"), (Vec::new(), "may still stand")]
    {
        let failure = scene.engine.shut_out(&keys).unwrap_err();
        assert!(failure.to_string().contains(said), "{keys:?}: {failure}");
    }
    scene.engine.hangs_until = Some(Duration::ZERO);
    scene.engine.wake();
    assert_eq!(scene.engine.shut_out(&[scene.alice]).unwrap().len(), 0);
    let rules = format!("{:?}", scene.memory().kernel.v4.rules);
    assert!(!rules.contains("alice"), "{rules}");
}

/// A clock that was set back is noted when the rules are known to be written anew, and not before: whoever starts in
/// between takes them over.
#[test]
fn a_step_back_is_noted_when_the_rules_follow() {
    let mut scene = Scene::new();
    let path = scene.engine.config.state_dir.join("clock");
    scene.engine.clock_note = ClockNote::read(&scene.engine.config.state_dir);
    let now = clock::now();
    let ahead = Now { wall: now.wall + 3_600_000_000_000, boot: now.boot };
    scene.engine.date_anew(ahead);
    scene.engine.enforce();
    let noted = std::fs::read_to_string(&path).unwrap();
    scene.memory().faults = [Some(Fault::Refuse), Some(Fault::Refuse), Some(Fault::Refuse)].into();
    scene.engine.clock_set();
    assert!(scene.engine.not_written().is_some());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), noted, "the rules have their old dates");
    scene.memory().faults.clear();
    scene.engine.wake();
    assert!(scene.engine.not_written().is_none());
    assert_ne!(std::fs::read_to_string(&path).unwrap(), noted);
}

/// Nothing is granted then, so `status` must not say that all is well.
#[test]
fn a_clock_that_cannot_be_noted_is_trouble() {
    let mut scene = Scene::new();
    let nowhere = scene.engine.config.state_dir.join("gone");
    scene.engine.clock_note = ClockNote::read(&nowhere);
    assert!(!scene.engine.may_date(clock::now()));
    let trouble = scene.engine.status().trouble;
    assert!(trouble.iter().any(|what| what.contains("nothing is granted")), "{trouble:?}");
    std::fs::create_dir(&nowhere).unwrap();
    assert!(scene.engine.may_date(clock::now()));
    assert_eq!(scene.engine.status().trouble, Vec::<String>::new());
}

/// While the firewall's program hangs only the timer waits for it: whoever asks hears of it at once.
#[test]
fn a_hang_is_waited_for_once() {
    let mut scene = Scene::new();
    scene.memory().faults = [Some(Fault::Hang)].into();
    let all = Selector::default();
    let failure = scene.engine.revoke(&all).unwrap_err();
    assert!(failure.to_string().contains("did not end within 10 s"), "{failure}");
    let tried = scene.tried();
    assert!(scene.engine.revoke(&all).is_ok(), "nothing is left to close, and nothing is tried");
    assert!(scene.engine.grants().is_err() && scene.engine.status().trouble.len() == 1);
    scene.engine.look(&Culprits::default());
    assert_eq!(scene.tried(), tried, "nobody else waited");
    // The timer tries again, and then all is as wanted.
    scene.engine.hangs_until = Some(Duration::ZERO);
    scene.engine.wake();
    assert!(scene.engine.status().trouble.is_empty(), "{:?}", scene.engine.degraded);
    let rules = format!("{:?}", scene.memory().kernel.v4.rules);
    assert!(!rules.contains("alice"), "{rules}");
}
