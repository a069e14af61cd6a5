//! What the main thread has for the engine: commands, in a queue of fixed length, and beside it notices, of which none
//! can be lost. A notice says only that something is not as it was, so two of a kind are one, and they need no room.

use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use spa_proto::PublicKey;
use tokio::sync::oneshot;

use super::changes::Culprits;
use super::engine::Command;
use crate::control::GrantView;
use crate::error::Outcome;

/// Commands that wait for the engine. Only authenticated knocks and root fill it; what comes beyond is refused.
pub const QUEUE: usize = 1_024;

/// Clients that are let in no more.
#[derive(Debug)]
pub struct ShutOut {
    /// Their keys.
    pub keys: Vec<PublicKey>,
    /// For what was closed.
    pub reply: oneshot::Sender<Outcome<Vec<GrantView>>>,
}

/// What came to notice since it was last asked.
#[derive(Debug, Default)]
pub struct Notices {
    /// To be let in no more, also by what is queued already. Only root's orders, one after the other, make it grow.
    pub shut_out: Vec<ShutOut>,
    /// The wall clock was set.
    pub clock_set: bool,
    /// Somebody changed the firewall, perhaps the engine itself.
    pub changed: Option<Culprits>,
}

impl Notices {
    fn is_empty(&self) -> bool {
        self.shut_out.is_empty() && !self.clock_set && self.changed.is_none()
    }
}

/// The commands' end. The notices are the engine's: where it is gone they are too, so nobody waits for a reply to one.
#[derive(Clone)]
pub struct Sender {
    queue: SyncSender<Command>,
    notices: Weak<Mutex<Notices>>,
}

/// The engine's end.
pub struct Inbox {
    queue: Receiver<Command>,
    notices: Arc<Mutex<Notices>>,
}

/// Both ends, of a queue of [`QUEUE`].
pub fn channel() -> (Sender, Inbox) {
    with_room_for(QUEUE)
}

fn with_room_for(commands: usize) -> (Sender, Inbox) {
    let (sender, queue) = mpsc::sync_channel(commands);
    let notices = Arc::default();
    (Sender { queue: sender, notices: Arc::downgrade(&notices) }, Inbox { queue, notices })
}

impl Sender {
    /// Queues a command; false where the queue is full or the engine has ended, and then the command is lost.
    #[must_use]
    pub fn send(&self, command: Command) -> bool {
        self.queue.try_send(command).is_ok()
    }

    /// Has the engine end, after all that is queued.
    pub fn stop(&self) {
        let _ = self.queue.send(Command::Stop); // it may have ended by itself
    }

    /// Has these clients let in no more, and what is open for them closed. The answer is an error where the engine ends
    /// before it comes to that, or has ended.
    pub fn shut_out(&self, keys: Vec<PublicKey>) -> oneshot::Receiver<Outcome<Vec<GrantView>>> {
        let (reply, answer) = oneshot::channel();
        self.notice(|notices| notices.shut_out.push(ShutOut { keys, reply }));
        answer
    }

    /// The wall clock was set.
    pub fn clock_was_set(&self) {
        self.notice(|notices| notices.clock_set = true);
    }

    /// Somebody changed the firewall.
    pub fn firewall_was_changed(&self, by: Culprits) {
        self.notice(|notices| notices.changed.get_or_insert_default().join(by));
    }

    fn notice(&self, add: impl FnOnce(&mut Notices)) {
        let Some(notices) = self.notices.upgrade() else { return };
        let mut notices = lock(&notices);
        let is_first = notices.is_empty();
        add(&mut notices);
        drop(notices);
        if is_first {
            // A full queue is as good: the engine looks for notices before each command.
            let _ = self.queue.try_send(Command::Noticed);
        }
    }
}

impl Inbox {
    /// Waits for the next command; `None` where no more can come.
    pub fn wait(&self) -> Option<Command> {
        self.queue.recv().ok()
    }

    /// The next command, if there is one.
    ///
    /// # Errors
    /// As [`Receiver::try_recv`].
    pub fn poll(&self) -> Result<Command, TryRecvError> {
        self.queue.try_recv()
    }

    /// What came to notice since the last call. To be asked before each command is carried out.
    pub fn notices(&self) -> Notices {
        std::mem::take(&mut *lock(&self.notices))
    }
}

fn lock(notices: &Mutex<Notices>) -> MutexGuard<'_, Notices> {
    notices.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue full of knocks loses the next knock, but never the word that the rules are gone or the clock was set.
    #[test]
    fn a_full_queue_loses_no_notice() {
        let (sender, inbox) = with_room_for(2);
        assert!(sender.send(Command::Wake) && sender.send(Command::Wake));
        assert!(!sender.send(Command::Wake), "it is full");
        sender.clock_was_set();
        sender.firewall_was_changed(Culprits::default());
        sender.firewall_was_changed(Culprits::default());
        let _answer = sender.shut_out(Vec::new());
        assert!(inbox.wait().is_some());
        let notices = inbox.notices();
        assert!(notices.clock_set && notices.changed.is_some() && notices.shut_out.len() == 1);
        assert!(inbox.notices().is_empty(), "once");
    }

    /// Whether the engine ended before the order or after it, nobody waits for ever.
    #[test]
    fn an_engine_that_is_gone_leaves_nobody_waiting() {
        let (sender, inbox) = with_room_for(2);
        let before = sender.shut_out(Vec::new());
        drop(inbox);
        assert!(before.blocking_recv().is_err(), "it never came to it");
        assert!(sender.shut_out(Vec::new()).blocking_recv().is_err(), "there is none");
        sender.clock_was_set();
    }

    #[test]
    fn a_waiting_engine_is_woken_once() {
        let (sender, inbox) = with_room_for(2);
        for _ in 0..3 {
            sender.clock_was_set();
        }
        assert!(matches!(inbox.poll(), Ok(Command::Noticed)));
        assert_eq!(inbox.poll().err(), Some(TryRecvError::Empty), "one nudge is enough");
        assert!(inbox.notices().clock_set);
        sender.clock_was_set();
        assert!(matches!(inbox.poll(), Ok(Command::Noticed)), "and the next is a new one");
    }
}
