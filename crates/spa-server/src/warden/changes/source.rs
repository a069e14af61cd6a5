//! One source of notices, which is opened anew when it fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::culprits::Author;
use super::nf_tables::Announcements;
use super::xtables_lock::LockWatch;

/// After a failure a source is opened again after this time, after the next in twice as much, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a notice can be read from.
pub trait Ear: Sized {
    /// The author of the next change that it tells of.
    async fn next(&mut self) -> io::Result<Author>;
}

impl Ear for Announcements {
    async fn next(&mut self) -> io::Result<Author> {
        self.next().await
    }
}

impl Ear for LockWatch {
    async fn next(&mut self) -> io::Result<Author> {
        self.next().await.map(|()| Author::default())
    }
}

/// The sources that tell nothing now, and why: for `status`.
#[derive(Clone, Debug, Default)]
pub struct Deaf(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Deaf {
    /// What is wrong, for people.
    pub fn trouble(&self) -> Vec<String> {
        let seconds = LONGEST_PAUSE.as_secs();
        let tell = |(what, why): &(&str, String)| {
            format!("changes that others make in {what} are noticed late, within {seconds} s: {why}")
        };
        self.lock().iter().map(tell).collect()
    }

    fn set(&self, what: &'static str, why: Option<String>) {
        let mut list = self.lock();
        list.retain(|(other, _)| *other != what);
        list.extend(why.map(|why| (what, why)));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(&'static str, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source with what it takes to open it again.
pub struct Source<E> {
    what: &'static str,
    open: Box<dyn FnMut() -> io::Result<E> + Send>,
    /// Otherwise when to try again.
    ear: Result<E, Instant>,
    /// The pause after the next failure; none failed since this was last heard.
    pause: Option<Duration>,
    deaf: Deaf,
}

impl<E: Ear> Source<E> {
    /// Opens it.
    pub fn new(
        what: &'static str,
        open: impl FnMut() -> io::Result<E> + Send + 'static,
        deaf: &Deaf,
    ) -> Self {
        let ear = Err(Instant::now());
        let mut source = Self { what, open: Box::new(open), ear, pause: None, deaf: deaf.clone() };
        source.open();
        source
    }

    /// The author of the next change. One that nobody is known of may also be a failure, here or in opening again:
    /// whatever changed meanwhile was not told.
    pub async fn next(&mut self) -> Author {
        match &mut self.ear {
            Ok(ear) => match ear.next().await {
                Ok(author) => {
                    self.pause = None;
                    author
                }
                Err(error) => {
                    self.failed(&error);
                    Author::default()
                }
            },
            Err(again) => {
                sleep_until(*again).await;
                self.open();
                Author::default()
            }
        }
    }

    fn open(&mut self) {
        match (self.open)() {
            Ok(ear) => {
                self.ear = Ok(ear);
                self.deaf.set(self.what, None);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Says so once, until it is heard again.
    fn failed(&mut self, error: &io::Error) {
        let pause = self.pause.unwrap_or_else(|| {
            tracing::warn!(
                %error,
                "what others change in {} is not told any more; trying again, and looking at the firewall each time",
                self.what
            );
            FIRST_PAUSE
        });
        self.pause = Some(LONGEST_PAUSE.min(pause * 2));
        self.ear = Err(Instant::now() + pause);
        self.deaf.set(self.what, Some(error.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Tells what it is given, and then nothing.
    struct Script(VecDeque<io::Result<Author>>);

    impl Ear for Script {
        async fn next(&mut self) -> io::Result<Author> {
            match self.0.pop_front() {
                Some(told) => told,
                None => std::future::pending().await,
            }
        }
    }

    fn run(body: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(body);
    }

    fn nft() -> Author {
        Author { program: Some("nft".into()), pid: Some(7), port: None }
    }

    fn broken() -> io::Error {
        io::Error::other("the socket is broken")
    }

    #[test]
    fn a_source_that_fails_is_opened_again_and_nothing_is_missed() {
        run(async {
            let deaf = Deaf::default();
            let mut opened = 0;
            let open = move || {
                opened += 1;
                match opened {
                    1 => Ok(Script(VecDeque::from([Ok(nft()), Err(broken())]))),
                    2 => Err(io::Error::other("not yet")),
                    _ => Ok(Script(VecDeque::from([Ok(nft())]))),
                }
            };
            let mut source = Source::new("nf_tables", open, &deaf);
            assert_eq!(source.next().await, nft());
            assert!(deaf.trouble().is_empty());
            // The failure, the first attempt, and the second all have the firewall looked at.
            assert_eq!(source.next().await, Author::default());
            assert!(deaf.trouble()[0].contains("the socket is broken"), "{:?}", deaf.trouble());
            assert_eq!(source.next().await, Author::default());
            assert!(deaf.trouble()[0].contains("not yet"), "{:?}", deaf.trouble());
            assert_eq!(source.next().await, Author::default());
            assert!(deaf.trouble().is_empty(), "{:?}", deaf.trouble());
            assert_eq!(source.next().await, nft());
            assert_eq!(source.pause, None, "the next failure is a new one");
        });
    }

    /// One that opens and fails at once, for ever, costs less and less.
    #[test]
    fn the_pauses_grow_and_are_bounded() {
        run(async {
            let deaf = Deaf::default();
            let mut source = Source::new("nf_tables", || Err::<Script, _>(broken()), &deaf);
            let mut pauses = Vec::new();
            for _ in 0..20 {
                pauses.extend(source.pause);
                source.open();
            }
            assert_eq!(pauses[0], FIRST_PAUSE * 2);
            assert!(pauses.is_sorted() && pauses[19] == LONGEST_PAUSE, "{pauses:?}");
            assert_eq!(deaf.trouble().len(), 1);
        });
    }
}
