//! The clocks: the one that deadlines are counted by, and news that others were set or have run ahead.

use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use pasta_monitor::log::Log;
use pasta_monitor::sys;
use pasta_monitor::time::{Instant, OtherClocks};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};
use tokio::io::unix::AsyncFd;

/// When the timer would expire, in seconds after 1970, if nobody set the clock. Chosen: in the year 2242.
const NEVER: i64 = 1 << 33;

/// The runtime's clock, as the core counts time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(tokio::time::Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Clock {
    pub(super) fn now(self) -> Instant {
        Instant::after_start(self.0.elapsed())
    }

    /// Waits until `moment`; for ever if there is none.
    pub(super) async fn wait_until(self, moment: Option<Instant>) {
        match moment {
            Some(moment) => tokio::time::sleep_until(self.0 + moment.since_start()).await,
            None => std::future::pending().await,
        }
    }
}

/// What the other clocks show.
pub(super) fn others() -> OtherClocks {
    let boot = clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    OtherClocks { boot: boot.map_or(Duration::ZERO, Duration::from), wall: SystemTime::now() }
}

/// What this thread has had of a processor.
pub(super) fn processor_time() -> Duration {
    let time = clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.map_or(Duration::ZERO, Duration::from)
}

/// Says when the wall clock was set, which the kernel does after each sleep (timerfd_create(2),
/// `TFD_TIMER_CANCEL_ON_SET`).
#[derive(Debug)]
pub(super) struct ClockChanges(Option<AsyncFd<OwnedFd>>);

impl ClockChanges {
    /// Subscribes. Where that cannot be, the clocks have to be compared now and then.
    pub(super) fn subscribe(log: &Log) -> Self {
        let timer = timer().inspect_err(|error| log.debug(&format!("no timer: {error}"))).ok();
        Self(timer)
    }

    /// Whether there will be news.
    pub(super) fn are_announced(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until the wall clock was set. Nothing is lost if this is dropped while it waits.
    pub(super) async fn wait(&self) {
        let Some(timer) = &self.0 else { return std::future::pending().await };
        loop {
            // Nothing is to be waited for where the runtime ends.
            let Ok(mut ready) = timer.readable().await else { return std::future::pending().await };
            let mut expirations = [0; 8];
            match nix::unistd::read(timer, &mut expirations) {
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                // It was cancelled, and is set for the next time; or it has expired.
                _ => return,
            }
        }
    }
}

fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
    let never = Expiration::OneShot(TimeSpec::seconds(NEVER));
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(never, flags)?;
    sys::watch_owned(timer.into())
}
