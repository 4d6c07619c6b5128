//! When there is another pass over the namespace, and what its events say about the tap.

use crate::decode::Notice;
use crate::host::TABLE_MAIN;
use crate::net::is_link_local;
use crate::record::Record;
use crate::reduce::Flushed;
use crate::time::{Instant, earliest};
use crate::watch::{Batch, ReceivedEvents};
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
}

/// What events of the namespace say beside that it is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceEvents {
    /// Something on the tap may have changed in a way that a reading made meanwhile shows in part: new
    /// routes alone do not count.
    pub disturbed: bool,
    /// The tap was deleted, for the first time.
    pub tap_deleted: bool,
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
        }
    }

    pub(super) fn tap_is_gone(&self) -> bool {
        self.tap_is_gone
    }

    pub(super) fn resync_wanted(&mut self, now: Instant) {
        self.asked = earliest(self.asked, Some(now));
    }

    pub(super) fn events(&mut self, now: Instant, received: &ReceivedEvents) -> NamespaceEvents {
        let mut events =
            NamespaceEvents { disturbed: received.overrun, ..NamespaceEvents::default() };
        if received.overrun {
            // What was lost may have been that the tap went down and up.
            self.flushed.tap_was_down = true;
            self.changes.add(now);
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
            Notice::There(Record::Route(route)) if route.table == TABLE_MAIN => false,
            Notice::Gone(Record::Route(route)) if route.table == TABLE_MAIN => {
                route.hops.iter().any(|hop| hop.link == self.tap)
            }
            Notice::There(Record::Address(address)) => address.link == self.tap,
            Notice::Gone(Record::Address(address)) => {
                let (ip, of_tap) = (address.prefix.address(), address.link == self.tap);
                self.flushed.link_local_went |= of_tap && ip.is_ipv6() && is_link_local(ip);
                of_tap
            }
            _ => return,
        };
        self.changes.add(now);
        events.disturbed |= of_tap;
    }

    /// When a pass is due, if at all. Without the tap there is nothing to do.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = [self.changes.due(), self.asked, self.retry_at].into_iter().fold(None, earliest);
        due.filter(|_| !self.tap_is_gone)
    }

    pub(super) fn begin(&mut self, now: Instant, wanted: bool) -> bool {
        let due = self.due().is_some_and(|due| due <= now);
        if self.tap_is_gone || !(due || wanted) {
            return false;
        }
        // A pass serves all of them.
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
