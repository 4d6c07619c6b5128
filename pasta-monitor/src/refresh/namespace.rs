//! When there is another pass over the namespace, and what its events say about the tap.

use super::pace::Pace;
use crate::decode::Notice;
use crate::host::TABLE_MAIN;
use crate::namespace::TAG;
use crate::net::is_link_local;
use crate::record::Record;
use crate::reduce::Flushed;
use crate::time::{Instant, earliest};
use crate::watch::{Batch, ReceivedEvents};
use pasta_ipc::types::Prefix;
use std::collections::BTreeSet;
use std::time::Duration;

/// Time after which a namespace that could not be read is read again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// When there is another pass over the namespace.
#[derive(Debug)]
pub(super) struct NamespaceRefresh {
    tap: u32,
    /// It has changed.
    changes: Batch,
    /// It was asked for a pass.
    asked: Option<Instant>,
    /// The last pass failed.
    retry_at: Option<Instant>,
    /// What happened to the tap, as far as no pass has it.
    flushed: Flushed,
    /// What happened to the tap, as far as the pass at hand has it.
    taken: Flushed,
    tap_is_gone: bool,
    /// When its events, and passes for these, may cost something again.
    pace: Pace,
    far: FarRefresh,
    /// Whether the pass at hand is made for the host.
    hurries: bool,
}

/// When that is read which is not ours and not on the tap.
#[derive(Debug)]
struct FarRefresh {
    stale: bool,
    /// Users have a new default route.
    gives_way: bool,
    /// Destinations that the last reading knew to be of interest.
    destinations: BTreeSet<Prefix>,
    pace: Pace,
}

/// What events of the namespace say beside that it is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceEvents {
    /// Something may have changed in a way that a reading made meanwhile shows in part, or that decides what of
    /// ours belongs there: of new routes, only users' ways to everything count.
    pub disturbed: bool,
    /// The tap was deleted, for the first time.
    pub tap_deleted: bool,
}

impl Default for FarRefresh {
    fn default() -> Self {
        Self { stale: true, gives_way: false, destinations: BTreeSet::new(), pace: Pace::default() }
    }
}

impl NamespaceRefresh {
    pub(super) fn new(tap: u32) -> Self {
        Self {
            tap,
            changes: Batch::default(),
            asked: None,
            retry_at: None,
            flushed: Flushed::default(),
            taken: Flushed::default(),
            tap_is_gone: false,
            pace: Pace::default(),
            far: FarRefresh::default(),
            hurries: false,
        }
    }

    /// Whether events are to be received. Else they wait, or the kernel says that it has dropped them.
    pub(super) fn listens(&self, now: Instant) -> bool {
        now >= self.pace.next()
    }

    /// When events are received again.
    pub(super) fn listens_at(&self) -> Instant {
        self.pace.next()
    }

    /// Events and a pass have taken so much of the processor until `now`.
    pub(super) fn spent(&mut self, now: Instant, cost: Duration) {
        self.pace.spent(now, cost);
    }

    /// Whether what is far from the tap is to be read again, where routes of ours lead to `destinations`.
    pub(super) fn begin_far(&mut self, now: Instant, destinations: &BTreeSet<Prefix>) -> bool {
        let known = destinations.is_subset(&self.far.destinations);
        if known && !self.far.stale {
            return false;
        }
        // A change of the host waits neither for a pause nor for what is dear, nor does what ours gives way to.
        let (pauses, dear) = (now < self.far.pace.next(), self.far.pace.is_dear());
        let waits = match self.hurries || self.far.gives_way {
            true => dear && (known || pauses),
            false => pauses,
        };
        if waits {
            self.changes.add(now);
            return false;
        }
        self.far.gives_way = false;
        self.far.stale = false;
        self.far.destinations.clone_from(destinations);
        true
    }

    /// It was read, which took so much of the processor; all of it and at one moment, if `complete`.
    pub(super) fn finish_far(&mut self, now: Instant, cost: Duration, complete: bool) {
        self.far.pace.spent(now, cost);
        if !complete {
            self.far_changed(now);
        }
    }

    fn far_changed(&mut self, now: Instant) {
        self.far.stale = true;
        self.changes.add(now);
    }

    pub(super) fn tap_is_gone(&self) -> bool {
        self.tap_is_gone
    }

    pub(super) fn resync_wanted(&mut self, now: Instant) {
        self.asked = earliest(self.asked, Some(now));
        self.far.stale = true;
    }

    pub(super) fn events(&mut self, now: Instant, received: &ReceivedEvents) -> NamespaceEvents {
        let mut events =
            NamespaceEvents { disturbed: received.overrun, ..NamespaceEvents::default() };
        if received.overrun {
            // What was lost may have been that the tap went down and up.
            self.flushed.tap_was_down = true;
            self.far_changed(now);
        }
        for notice in &received.notices {
            self.event(now, notice, &mut events);
        }
        events
    }

    fn event(&mut self, now: Instant, notice: &Notice, events: &mut NamespaceEvents) {
        let of_tap = match notice {
            Notice::Gone(Record::Link(link)) => {
                if link.index == self.tap && !self.tap_is_gone {
                    self.tap_is_gone = true;
                    events.tap_deleted = true;
                }
                return;
            }
            Notice::There(Record::Link(link)) if link.index == self.tap => {
                self.flushed.tap_was_down |= !link.up;
                true
            }
            Notice::There(Record::Route(route)) | Notice::Gone(Record::Route(route))
                if route.table == TABLE_MAIN =>
            {
                let on_tap = route.hops.iter().any(|hop| hop.link == self.tap);
                let ours = route.protocol == TAG && on_tap;
                let unknown = route.hops.is_empty() && route.nexthop.is_some();
                let destination = route.destination;
                let matters = on_tap
                    || unknown
                    || destination.is_everything()
                    || self.far.destinations.contains(&destination);
                if !matters {
                    return;
                }
                self.far.stale |= !ours;
                // A way to everything is one that ours gives way to.
                let gone = matches!(notice, Notice::Gone(_));
                let gives_way = !gone && !ours && destination.is_everything();
                self.far.gives_way |= gives_way;
                (gone && on_tap) || gives_way
            }
            Notice::There(Record::Address(address)) => {
                self.far.stale |= address.link != self.tap;
                address.link == self.tap
            }
            Notice::Gone(Record::Address(address)) => {
                let (ip, of_tap) = (address.prefix.address(), address.link == self.tap);
                self.flushed.link_local_went |= of_tap && ip.is_ipv6() && is_link_local(ip);
                self.far.stale |= !of_tap;
                of_tap
            }
            _ => return,
        };
        self.changes.add(now);
        events.disturbed |= of_tap;
    }

    /// When a pass is due, if at all. Without the tap there is nothing to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let changes = self.changes.due().map(|due| due.max(self.pace.next()));
        let due = [changes, self.asked, self.retry_at].into_iter().fold(None, earliest);
        due.filter(|_| !self.tap_is_gone)
    }

    pub(super) fn begin(&mut self, now: Instant, wanted: bool) -> bool {
        let due = self.due().is_some_and(|due| due <= now);
        if self.tap_is_gone || !(due || wanted) {
            return false;
        }
        // A pass serves all of them, but for what it does without (`begin_far`).
        self.hurries = wanted;
        (self.changes, self.asked, self.retry_at) = (Batch::default(), None, None);
        true
    }

    pub(super) fn take_flushed(&mut self) -> Flushed {
        self.taken = self.taken.with(std::mem::take(&mut self.flushed));
        self.taken
    }

    pub(super) fn forget_flushed(&mut self) {
        (self.flushed, self.taken) = Default::default();
    }

    pub(super) fn done(&mut self) {
        self.taken = Flushed::default();
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.flushed = self.flushed.with(std::mem::take(&mut self.taken));
        self.retry_at = earliest(self.retry_at, Some(now + RETRY));
    }
}
