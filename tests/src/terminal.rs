//! A program on a terminal of its own: what it shows, and what a person types.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::probe::{PATIENCE, eventually};

/// A terminal with a program on it, which is killed when this is dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    /// How much of the screen [`Self::expect`] has read.
    read: usize,
}

impl Terminal {
    /// Runs a command on a terminal of so many columns and rows, as its controlling terminal.
    ///
    /// # Panics
    /// If there is no pseudo-terminal, or the command cannot be run.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("a plain path");
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let slave = || File::options().read(true).write(true).open(&name).expect("the other end");
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        let child = wrapped.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("setsid runs");
        drop(wrapped); // with our copies of the other end
        let keyboard = File::from(master);
        let screen = Arc::new(Mutex::new(String::new()));
        collect(keyboard.try_clone().expect("a copy"), &screen);
        Self { child, keyboard, screen, read: 0 }
    }

    /// All that was shown, with lines that end as the program ended them.
    ///
    /// # Panics
    /// Never: nobody panics while it is locked.
    pub fn screen(&self) -> String {
        self.screen.lock().expect("no panic while locked").replace("\r\n", "\n")
    }

    /// Waits until a text is shown, after what was waited for before.
    ///
    /// # Panics
    /// If it is not shown in ten seconds, with what is.
    pub fn expect(&mut self, text: &str) {
        self.expect_one_of(&[text]);
    }

    /// Waits until one of these texts is shown, and returns the one that is shown first.
    ///
    /// # Panics
    /// As [`Self::expect`].
    pub fn expect_one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            let new = screen.get(self.read..).unwrap_or_default();
            let found = texts.iter().filter_map(|text| Some((new.find(text)?, *text)));
            if let Some((at, text)) = found.min() {
                self.read += at + text.len();
                return text;
            }
            assert!(Instant::now() < deadline, "none of {texts:?} is shown; the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal is there");
    }

    /// Waits for the prompt, then types a line.
    ///
    /// # Panics
    /// As [`Self::expect`].
    pub fn answer(&mut self, prompt: &str, line: impl AsRef<OsStr>) {
        self.expect(prompt);
        self.send(&format!("{}\n", line.as_ref().to_string_lossy()));
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it still runs after ten seconds.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let child = &mut self.child;
        eventually("the program on the terminal ends", PATIENCE, || {
            status = child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("just seen")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail where it has ended, which is as well. What it started gets a hang-up with the terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut master: File, screen: &Arc<Mutex<String>>) {
    let screen = Arc::clone(screen);
    std::thread::spawn(move || {
        let mut pending = Vec::new();
        let mut bytes = [0; 4_096];
        // A read fails once nobody has the other end open.
        while let Ok(length @ 1..) = master.read(&mut bytes) {
            pending.extend_from_slice(&bytes[..length]);
            let whole = match std::str::from_utf8(&pending) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let text: Vec<u8> = pending.drain(..whole).collect();
            screen.lock().expect("no panic while locked").push_str(&String::from_utf8_lossy(&text));
        }
    });
}
