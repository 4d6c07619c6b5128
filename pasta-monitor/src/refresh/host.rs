//! When the host is read again.

use crate::interest::Interest;
use crate::status::Health;
use crate::time::{Instant, earliest};
use crate::watch::Batch;
use std::collections::BTreeSet;
use std::time::Duration;

/// Shortest time between two readings because events were lost.
pub(super) const RESYNC_INTERVAL: Duration = Duration::from_millis(500);
/// When to read again after a reading during which the host kept changing.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// How often the host is read where it sends no events, or could not be read.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How often the log says that the host cannot be read.
const LOG_AGAIN: Duration = Duration::from_secs(3600);

/// How changes of the host become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By its events.
    Events,
    /// By reading it every few seconds: there are no events.
    Polling,
    /// Not at all: it is not followed.
    Nothing,
}

/// When the host is read again, and why.
#[derive(Debug)]
pub(super) struct HostRefresh {
    source: Source,
    /// It has changed.
    changes: Batch,
    /// It is to be read for another reason.
    look_at: Option<Instant>,
    causes: Causes,
    last_resync: Option<Instant>,
    /// Links that were deleted since the last reading began.
    gone: BTreeSet<u32>,
    /// What the kernel's filter lets through of its events.
    interest: Option<Interest>,
    /// It could not be read the last time.
    blind: bool,
    /// When the log said so.
    blindness_logged: Option<Instant>,
}

/// Causes of a reading that the log has a line about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Causes {
    /// Events were lost, first at this time.
    overrun: Option<Instant>,
    /// It was asked for.
    asked: bool,
}

/// A reading of the host that has begun. It serves all that had happened until then, and is to be handed
/// back when it is over.
#[derive(Debug)]
#[must_use]
pub struct HostReading {
    /// When the last event before it was received, or else when it began.
    pub since: Instant,
    /// Links that were deleted since the reading before.
    pub gone: BTreeSet<u32>,
    began: Instant,
    causes: Causes,
}

/// How a reading of the host went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostOutcome {
    /// All of it was read, at one moment.
    Complete,
    /// It kept changing while it was read.
    Interrupted,
    /// Some of it could not be read.
    Failed,
}

/// What the log says of a reading of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRead {
    /// Events had been lost, and it took so long to read everything again.
    pub resynchronised: Option<Duration>,
    /// It was asked for.
    pub asked: bool,
    /// That the reading failed, which is logged once an hour at most.
    pub failure_is_logged: bool,
}

impl HostRefresh {
    pub(super) fn new(source: Source, now: Instant) -> Self {
        let mut host = Self {
            source,
            changes: Batch::default(),
            look_at: None,
            causes: Causes::default(),
            last_resync: None,
            gone: BTreeSet::new(),
            interest: None,
            blind: false,
            blindness_logged: None,
        };
        host.poll(now);
        host
    }

    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// An event said something else than the last reading.
    pub(super) fn changed(&mut self, now: Instant) {
        self.changes.add(now);
    }

    /// A link was deleted.
    pub(super) fn link_gone(&mut self, index: u32) {
        self.gone.insert(index);
    }

    /// Events were lost. False if that was known.
    pub(super) fn overrun(&mut self, now: Instant) -> bool {
        let known = self.causes.overrun.is_some();
        self.causes.overrun.get_or_insert(now);
        self.look(self.last_resync.map_or(now, |last| now.max(last + RESYNC_INTERVAL)));
        !known
    }

    /// There are no more events.
    pub(super) fn unwatched(&mut self) {
        self.source = Source::Polling;
    }

    pub(super) fn resync_wanted(&mut self, now: Instant) {
        self.causes.asked = true;
        self.look(now);
    }

    /// The host is to be read at `at`, or before.
    pub(super) fn look(&mut self, at: Instant) {
        if self.source != Source::Nothing {
            self.look_at = earliest(self.look_at, Some(at));
        }
    }

    /// Gives `interest` if the filter is for something else. What that dropped until it is replaced may
    /// matter, so the host is to be read.
    pub(super) fn filter_for(&mut self, now: Instant, interest: Interest) -> Option<&Interest> {
        if self.source != Source::Events || self.interest.as_ref() == Some(&interest) {
            return None;
        }
        self.look(now);
        Some(self.interest.insert(interest))
    }

    /// When the host is to be read, if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        earliest(self.changes.due(), self.look_at)
    }

    pub(super) fn begin(&mut self, now: Instant) -> Option<HostReading> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        let since = self.changes.take(now).unwrap_or(now);
        // One that is not over yet is served as well.
        self.changes = Batch::default();
        self.look_at = None;
        Some(HostReading {
            since,
            gone: std::mem::take(&mut self.gone),
            began: now,
            causes: std::mem::take(&mut self.causes),
        })
    }

    pub(super) fn finish(
        &mut self,
        now: Instant,
        reading: HostReading,
        outcome: HostOutcome,
    ) -> HostRead {
        self.blind = outcome == HostOutcome::Failed;
        match outcome {
            HostOutcome::Complete => {}
            HostOutcome::Interrupted => self.look(now + AGAIN),
            HostOutcome::Failed => self.look(now + POLL_INTERVAL),
        }
        let quiet = self.blindness_logged.is_some_and(|logged| now < logged + LOG_AGAIN);
        let failure_is_logged = self.blind && !quiet;
        if failure_is_logged {
            self.blindness_logged = Some(now);
        }
        let Causes { overrun, asked } = reading.causes;
        if overrun.is_some() {
            self.last_resync = Some(reading.began);
        }
        let complete = outcome == HostOutcome::Complete;
        if !complete {
            // What has led to it is not made up for yet.
            let first = overrun.into_iter().chain(self.causes.overrun).min();
            self.causes = Causes { overrun: first, asked: asked || self.causes.asked };
        }
        self.poll(now);
        HostRead {
            resynchronised: overrun.filter(|_| complete).map(|since| now.since(since)),
            asked: asked && complete,
            failure_is_logged,
        }
    }

    fn poll(&mut self, now: Instant) {
        if self.source == Source::Polling {
            self.look(now + POLL_INTERVAL);
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.source {
            Source::Nothing => Health::Off,
            _ if self.blind => Health::Blind,
            Source::Polling => Health::Poll,
            Source::Events if self.causes.overrun.is_some() => Health::Resync,
            Source::Events => Health::Live,
        }
    }
}
