//! One `iptables-restore` that is started before it is needed, and stays. A change then costs no exec and no dynamic
//! linking; and with the nft variant no wait for the kernel to tidy up after a deletion, which comes when the program ends.
//!
//! It reads its input line by line. Before the first line of a table it takes no lock and reads nothing of the kernel,
//! so that what others change meanwhile is seen; before the line `COMMIT` it changes nothing. If this process dies, it
//! finds the end of its input, and changes nothing more. With `--verbose` it repeats comments when it comes to them:
//! the comment behind `COMMIT` is its answer. One that does not answer is given the end of its input, and its status
//! counts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::LOCK_WAIT;
use super::run::{CHILD_PATH, Output, describe, escape, kill, not_started};
use crate::authors::Authors;
use crate::error::Error;

/// After so many changes another one is started: nobody has promised that it does not grow.
const MAX_CHANGES: u32 = 1_000;
/// How long to wait for an answer before the end of the input is given. The lock may take longer, and still have it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// What is kept of what it prints, in bytes; the rest is lost.
const MAX_SAID: usize = 64 << 10;
/// How long one that is no longer needed may take to end. The nft variant waits for the kernel to tidy up.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Held while a process is started that inherits the lock of the state directory, and by whoever starts one that must
/// not.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process while no other is being started that may inherit more.
pub fn start_alone<T>(start: impl FnOnce() -> T) -> T {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    start()
}

/// The `iptables-restore` of one family.
#[derive(Debug)]
pub struct Writer {
    program: PathBuf,
    authors: Authors,
    lock: Option<Arc<OwnedFd>>,
    ready: Option<Restore>,
    /// It has not been seen to repeat no comments.
    answers: bool,
}

impl Writer {
    /// Starts nothing yet. What it starts holds `lock`, so that it is given up only when none is left that could still
    /// write.
    pub fn new(program: PathBuf, authors: Authors, lock: Option<Arc<OwnedFd>>) -> Self {
        Self { program, authors, lock, ready: None, answers: true }
    }

    /// Sees to it that one is ready.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn prepare(&mut self) -> Result<(), Error> {
        if self.ready.as_mut().is_some_and(|ready| ready.changes >= MAX_CHANGES || ready.has_ended()) {
            self.ready = None;
        }
        if self.ready.is_none() {
            self.ready = Some(Restore::start(&self.program, &self.authors, self.lock.as_deref())?);
        }
        Ok(())
    }

    /// Has it carry out `text`, one commit, within `limit`.
    ///
    /// # Errors
    /// If it cannot be started, or did not end in time and was killed. A failure of the program is not an error here.
    pub fn write(&mut self, text: &str, limit: Duration) -> Result<Output, Error> {
        let deadline = Instant::now() + limit;
        self.prepare()?; // somebody may have killed the one that waited
        let Some(mut restore) = self.ready.take() else { return Err(ended()) };
        let _writing = self.authors.write();
        restore.changes += 1;
        let answer = format!("# change {}\n", restore.changes);
        let waits = if self.answers { ANSWER_WITHIN } else { Duration::ZERO };
        let answered = restore.ask(format!("{text}{answer}").as_bytes(), &answer, waits, deadline);
        if answered.map_err(waiting)? {
            self.ready = Some(restore);
            return Ok(Output::success());
        }
        let Some(output) = restore.finish(deadline).map_err(waiting)? else {
            kill(&mut restore.child);
            return Err(Error::TimedOut { command: self.describe(), after: limit });
        };
        self.answers &= !output.success || output.stdout.contains(&answer);
        Ok(output)
    }

    /// What it would run.
    pub fn into_program(self) -> PathBuf {
        self.program
    }

    /// What is run, for messages.
    pub fn describe(&self) -> String {
        describe(&self.program, &arguments().each_ref().map(String::as_str))
    }
}

fn arguments() -> [String; 5] {
    ["-w", &LOCK_WAIT.to_string(), "-v", "-c", "--noflush"].map(str::to_owned)
}

fn waiting(source: io::Error) -> Error {
    Error::Io { doing: "waiting for iptables", source }
}

fn ended() -> Error {
    waiting(io::ErrorKind::BrokenPipe.into())
}

/// One running program.
#[derive(Debug)]
struct Restore {
    child: Child,
    /// Readable when it has ended.
    end: OwnedFd,
    /// Until it is given its end.
    input: Option<File>,
    /// Until it has closed its side.
    output: Option<File>,
    said: Vec<u8>,
    changes: u32,
    authors: Authors,
}

impl Restore {
    fn start(program: &Path, authors: &Authors, lock: Option<&OwnedFd>) -> Result<Self, Error> {
        let failed = |source| Error::Io { doing: "starting iptables", source };
        let (its_input, input) = io::pipe().map_err(failed)?;
        let (output, its_output) = io::pipe().map_err(failed)?;
        let its_errors = its_output.try_clone().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(arguments()).env_clear().envs([("LC_ALL", "C"), ("PATH", CHILD_PATH)]);
        command.stdin(its_input).stdout(its_output).stderr(its_errors).process_group(0);
        let child = start_alone(|| {
            // This copy alone, and only meanwhile, is not closed by exec.
            let _inherited = lock.map(rustix::io::dup).transpose().map_err(|errno| failed(errno.into()))?;
            command.spawn().map_err(|source| not_started(program, source))
        })?;
        drop(command); // and with it our copies of its ends
        authors.add(child.id(), program);
        let end =
            pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let (input, output) = (File::from(OwnedFd::from(input)), File::from(OwnedFd::from(output)));
        for file in [&input, &output] {
            rustix::io::ioctl_fionbio(file, true).map_err(|errno| failed(errno.into()))?;
        }
        let (input, output, said) = (Some(input), Some(output), Vec::new());
        Ok(Self { child, end, input, output, said, changes: 0, authors: authors.clone() })
    }

    fn has_ended(&mut self) -> bool {
        poll(&mut [PollFd::new(&self.end, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    }

    /// Writes `text` and waits for `answer`; false if it has ended instead, or the time for either is over.
    fn ask(&mut self, mut text: &[u8], answer: &str, waits: Duration, deadline: Instant) -> io::Result<bool> {
        self.said.clear();
        let mut until = deadline;
        loop {
            let (may_write, has_ended) = self.attend(!text.is_empty(), until)?;
            if self.said.ends_with(answer.as_bytes()) {
                return Ok(true);
            }
            if has_ended || Instant::now() >= until {
                return Ok(false);
            }
            if may_write {
                match self.input.as_ref().map(|mut input| input.write(text)) {
                    Some(Ok(written)) => text = &text[written..],
                    Some(Err(error)) if is_passing(&error) => {}
                    Some(Err(_)) | None => return Ok(false), // it closed its input: its status tells why
                }
                if text.is_empty() {
                    until = deadline.min(Instant::now() + waits);
                }
            }
        }
    }

    /// Gives it the end of its input and waits for its own; `None` if the time is over.
    fn finish(&mut self, deadline: Instant) -> io::Result<Option<Output>> {
        self.input = None;
        let Some(status) = self.reap(deadline)? else { return Ok(None) };
        let stdout = String::from_utf8_lossy(&self.said).into_owned();
        let (success, status, stderr) = (status.success(), status.to_string(), escape(&stdout));
        Ok(Some(Output { success, status, stdout, stderr }))
    }

    /// Waits for its end, and takes note of it.
    fn reap(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        while !self.attend(false, deadline)?.1 {
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
        let status = self.child.wait()?;
        self.authors.ended(self.child.id());
        Ok(Some(status))
    }

    /// Waits for something to happen, reads what it has printed, and says whether there is room to write (if that is
    /// asked), and whether it has ended.
    fn attend(&mut self, to_write: bool, until: Instant) -> io::Result<(bool, bool)> {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.end, PollFlags::IN)];
        fds.extend(self.output.as_ref().map(|output| PollFd::new(output, PollFlags::IN)));
        let asked = self.input.as_ref().filter(|_| to_write);
        fds.extend(asked.map(|input| PollFd::new(input, PollFlags::OUT)));
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let has_ended = happened(&fds[0]);
        let may_write = asked.is_some() && fds.last().is_some_and(happened);
        self.listen()?;
        Ok((may_write, has_ended))
    }

    /// Takes what it has printed so far.
    fn listen(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while let Some(output) = &mut self.output {
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    self.said.extend_from_slice(&buffer[..length]);
                    let surplus = self.said.len().saturating_sub(MAX_SAID);
                    self.said.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        self.input = None;
        if !matches!(self.reap(Instant::now() + END_WITHIN), Ok(Some(_))) {
            kill(&mut self.child);
            self.authors.ended(self.child.id());
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
