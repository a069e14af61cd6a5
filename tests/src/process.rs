//! A daemon under test: its log, its signals, its memory.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::probe::{PATIENCE, eventually};

/// A running program. Dropped, it is killed.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<String>>,
    hung_up: Arc<AtomicBool>,
}

impl Process {
    /// Starts it; standard output and standard error become the log.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let hung_up = Arc::new(AtomicBool::new(false));
        collect(child.stdout.take().expect("piped"), &log, &hung_up);
        collect(child.stderr.take().expect("piped"), &log, &hung_up);
        Self { name: name.into(), child, log, hung_up }
    }

    /// After the next line nobody reads any more what it writes: like a terminal, its standard error is gone.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::Relaxed);
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while locked").clone()
    }

    /// Waits for a line of the log that contains `text`, from byte `from` of the log on.
    ///
    /// # Panics
    /// If the process ends before, or after ten seconds; the message has the log.
    pub fn wait_log(&mut self, text: &str, from: usize) {
        self.wait_log_within(text, from, PATIENCE);
    }

    /// The same with another time.
    ///
    /// # Panics
    /// If the process ends before, or after this time; the message has the log.
    pub fn wait_log_within(&mut self, text: &str, from: usize, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let log = self.log();
            if log.get(from..).is_some_and(|new| new.contains(text)) {
                return;
            }
            let ended = self.child.try_wait().expect("it is our child");
            let name = &self.name;
            assert!(ended.is_none(), "{name} ended ({ended:?}) and never said \"{text}\":\n{log}");
            assert!(Instant::now() < deadline, "{name} did not say \"{text}\" in time:\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process id and those of its descendants.
    pub fn pids(&self) -> Vec<u32> {
        descendants(self.pid())
    }

    /// Resident memory of it and its descendants, in KiB.
    ///
    /// # Panics
    /// If it is not running.
    pub fn resident_kib(&self) -> u64 {
        let of = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let sum = self.pids().into_iter().map(of).sum();
        assert!(sum > 0, "{} is not running", self.name);
        sum
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("kill {}: {error}", self.name));
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// If it is still running ten seconds later.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, and waits until it and what it had started are gone.
    ///
    /// # Panics
    /// If a descendant outlives it by ten seconds.
    pub fn kill(&mut self) {
        let pids = self.pids();
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        eventually(format_args!("all of {} ends after kill -9", self.name), PATIENCE, || {
            pids.iter().all(|pid| !is_alive(*pid))
        });
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it is still running after ten seconds.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_for(PATIENCE)
    }

    /// Waits for the end, for so long.
    ///
    /// # Panics
    /// If it is still running then.
    pub fn wait_for(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        let name = self.name.clone();
        eventually(format_args!("{name} ends"), patience, || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("just seen")
    }

    /// Whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of {}\n{}----", self.name, self.log());
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, log: &Arc<Mutex<String>>, hung_up: &Arc<AtomicBool>) {
    let (log, hung_up) = (Arc::clone(log), Arc::clone(hung_up));
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            log.lock().expect("no panic while locked").push_str(&String::from_utf8_lossy(&line));
            line.clear();
            if hung_up.load(Ordering::Relaxed) {
                return; // and closes the pipe
            }
        }
    });
}

fn descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        // A child belongs to the thread that made it.
        let threads = fs::read_dir(format!("/proc/{}/task", all[next])).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    all
}

/// Whether the process exists and is no zombie.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
