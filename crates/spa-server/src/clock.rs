//! The two clocks, and the two timers that watch them.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use spa_gate::Now;
use tokio::io::unix::AsyncFd;

use crate::reactor;

/// The wall clock, which packets and the kernel's rules speak of, and the boot-time clock, which nobody can set and
/// which goes on while the machine sleeps.
pub fn now() -> Now {
    let wall = clock_gettime(ClockId::Realtime);
    Now {
        // Before 1970 and after 2554 there is no packet that is fresh.
        wall: u64::try_from(wall.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000) + wall.tv_nsec as u64,
        boot: boot(),
    }
}

/// What systemd-timesyncd says of the wall clock; `None` where it does not run.
pub fn timesyncd() -> Option<bool> {
    const DIRECTORY: &str = "/run/systemd/timesync";
    let directory = std::path::Path::new(DIRECTORY);
    directory.is_dir().then(|| directory.join("synchronized").exists())
}

/// Time since the machine was started, with the time that it slept.
pub fn boot() -> Duration {
    let boot = clock_gettime(ClockId::Boottime);
    Duration::new(boot.tv_sec as u64, boot.tv_nsec as u32)
}

/// Goes off at a moment of the boot-time clock.
pub struct BootTimer(AsyncFd<OwnedFd>);

impl BootTimer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// As `timerfd_create(2)`.
    pub fn new() -> std::io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        reactor::register(fd).map(Self)
    }

    /// Sets it; `None` unsets it.
    ///
    /// # Errors
    /// As `timerfd_settime(2)`.
    pub fn set(&self, at: Option<Duration>) -> std::io::Result<()> {
        // Zero would unset it; a moment that has passed goes off at once.
        let value = at.map_or(ZERO, |at| timespec(at.max(Duration::from_nanos(1))));
        let spec = Itimerspec { it_interval: ZERO, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Returns when it has gone off.
    ///
    /// # Errors
    /// As `read(2)`.
    pub async fn expired(&self) -> std::io::Result<()> {
        wait(&self.0).await
    }
}

/// Notices that somebody set the wall clock.
pub struct ClockWatch(AsyncFd<OwnedFd>);

impl ClockWatch {
    /// Watches from now on.
    ///
    /// # Errors
    /// As `timerfd_create(2)` and `timerfd_settime(2)`.
    pub fn new() -> std::io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let watch = Self(reactor::register(fd)?);
        watch.arm()?;
        Ok(watch)
    }

    fn arm(&self) -> std::io::Result<()> {
        // Never goes off by itself: only the cancellation matters.
        let far = Timespec { tv_sec: i64::MAX / 1_000_000_000, tv_nsec: 0 };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(self.0.get_ref(), flags, &Itimerspec { it_interval: ZERO, it_value: far })?;
        Ok(())
    }

    /// Returns when the wall clock was set.
    ///
    /// # Errors
    /// As `read(2)`.
    pub async fn was_set(&self) -> std::io::Result<()> {
        match wait(&self.0).await {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) => {
                self.arm()
            }
            other => other,
        }
    }
}

const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: i64::from(duration.subsec_nanos()) }
}

async fn wait(timer: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    timer
        .async_io(tokio::io::Interest::READABLE, |fd| {
            let mut expirations = [0; 8];
            rustix::io::read(fd, &mut expirations).map(|_| ()).map_err(Into::into)
        })
        .await
}
