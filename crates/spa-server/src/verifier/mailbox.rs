//! The way from the sieves to the thread that judges: a queue of fixed size that never keeps a sieve waiting, and a bell.
//! No system call for a packet that comes while the reader has not yet looked at the one before, and no lock.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::event::{EventfdFlags, eventfd};
use spa_gate::Tagged;

/// Packets of all sieves that wait to be judged, 640 bytes each. When it is full the newest is dropped and counted, as in a
/// ring, and that sieve lets packets gather in its own for a moment.
const MAILBOX: usize = 1024;

/// Wakes a thread that sleeps in `poll`; it may be rung by any thread and does not block.
#[derive(Clone)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    /// # Errors
    /// As `eventfd(2)`.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Rings until it is [silenced](Self::silence).
    pub fn ring(&self) {
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes()); // it fails where it rings already, 2^64 times
    }

    /// It is heard.
    pub fn silence(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]); // it fails where it does not ring
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A packet that passed a sieve.
pub struct Mail {
    /// The packet.
    pub tagged: Tagged,
    /// Where it came from.
    pub source: SocketAddr,
    /// The address it was sent to.
    pub destination: IpAddr,
}

/// That there is something new for the reader.
struct News {
    /// Whether somebody has rung, or is about to, since the reader last began to look.
    is_told: AtomicBool,
    bell: Bell,
}

/// A sieve's end.
#[derive(Clone)]
pub struct Slot {
    queue: SyncSender<Mail>,
    news: Arc<News>,
}

/// The reader's end.
pub struct Mailbox {
    queue: Receiver<Mail>,
    news: Arc<News>,
}

/// Both ends.
///
/// # Errors
/// As `eventfd(2)`.
pub fn mailbox() -> std::io::Result<(Slot, Mailbox)> {
    let (sender, receiver) = sync_channel(MAILBOX);
    let news = Arc::new(News { is_told: AtomicBool::new(false), bell: Bell::new()? });
    Ok((Slot { queue: sender, news: Arc::clone(&news) }, Mailbox { queue: receiver, news }))
}

impl Slot {
    /// Puts a packet in; false where there is no room.
    pub fn put(&self, mail: Mail) -> bool {
        let is_in = self.queue.try_send(mail).is_ok();
        if is_in {
            self.tell();
        }
        is_in
    }

    /// Has the reader look, at the mail or at whatever else is new.
    pub fn tell(&self) {
        // Who comes first rings; the reader begins its look by taking this back.
        if !self.news.is_told.swap(true, Ordering::AcqRel) {
            self.news.bell.ring();
        }
    }
}

impl Mailbox {
    /// Begins a look: what is told from here on rings again. `is_ringing` is what `poll` said.
    pub fn begin(&self, is_ringing: bool) {
        if is_ringing || self.news.is_told.load(Ordering::Relaxed) {
            // In this order: what is told in between does not ring, and is there for the look that follows.
            self.news.bell.silence();
            self.news.is_told.swap(false, Ordering::AcqRel);
        }
    }

    /// The oldest packet that waits.
    pub fn take(&self) -> Option<Mail> {
        self.queue.try_recv().ok()
    }

    /// What to wait for in `poll`.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.news.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use spa_proto::{Action, Address, CloakKey, Knock, Psk, Randomness, Requests, Sealer, SecretKey};

    use super::*;

    fn tagged() -> Tagged {
        let (server, cloak) = (SecretKey::from_bytes([1; 32]).public_key(), CloakKey::from_bytes([2; 32]));
        let (secret, psk) = (SecretKey::from_bytes([3; 32]), Psk::from_bytes([4; 32]));
        let sealer = Sealer::new(&secret, &psk, &cloak, &server).unwrap();
        let action = Action::Close { requests: Requests::default() };
        let knock = Knock { action, address: Address::Observed, counter: 1_790_000_000_000_000_000 };
        let packet = sealer.seal(&knock, &Randomness { nonce: [6; 12], ephemeral: [7; 32], size: 8 });
        spa_gate::Sieve::new(&server, &[cloak]).sift(&packet).unwrap()
    }

    fn mail(tagged: &Tagged, port: u16) -> Mail {
        let source = SocketAddr::new([192, 0, 2, 1].into(), port);
        Mail { tagged: tagged.clone(), source, destination: [192, 0, 2, 9].into() }
    }

    fn rings(mailbox: &Mailbox, within: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(mailbox.bell(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap() > 0
    }

    #[test]
    fn a_full_mailbox_takes_no_more_and_keeps_what_it_has() {
        let (slot, mailbox) = mailbox().unwrap();
        let tagged = tagged();
        let put = (0..MAILBOX as u16 + 9).filter(|port| slot.put(mail(&tagged, *port))).count();
        assert_eq!(put, MAILBOX);
        let taken: Vec<_> = std::iter::from_fn(|| mailbox.take()).map(|mail| mail.source.port()).collect();
        assert!(taken.iter().copied().eq(0..MAILBOX as u16), "the oldest, in order");
        assert!(slot.put(mail(&tagged, 1)), "and there is room again");
    }

    #[test]
    fn the_bell_rings_until_the_next_look() {
        let (slot, mailbox) = mailbox().unwrap();
        assert!(!rings(&mailbox, Duration::ZERO));
        for _ in 0..3 {
            slot.tell();
            slot.tell();
            assert!(rings(&mailbox, Duration::ZERO));
            mailbox.begin(true);
            assert!(!rings(&mailbox, Duration::ZERO));
        }
        // Looked at for another reason: it does not ring for what was seen then.
        slot.tell();
        mailbox.begin(false);
        assert!(!rings(&mailbox, Duration::ZERO));
    }

    /// Were a single ring lost, the reader would sleep on although something waits.
    #[test]
    fn whatever_is_put_in_is_told() {
        const SENDERS: usize = 3;
        const EACH: usize = 20_000;
        let (slot, mailbox) = mailbox().unwrap();
        let tagged = tagged();
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                let (slot, tagged) = (slot.clone(), &tagged);
                scope.spawn(move || {
                    for port in 0..EACH {
                        while !slot.put(mail(tagged, port as u16)) {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let mut taken = 0;
            while taken < SENDERS * EACH {
                assert!(
                    rings(&mailbox, Duration::from_secs(20)),
                    "{taken} were taken, and no word of the rest"
                );
                mailbox.begin(true);
                taken += std::iter::from_fn(|| mailbox.take()).count();
            }
        });
    }
}
