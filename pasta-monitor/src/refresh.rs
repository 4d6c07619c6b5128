#![forbid(unsafe_code)]
//! What is to be read again, and when: events and the passing of time in, readings out.
//!
//! An event never says what has changed, only that the side it comes from is to be read again:
//!
//! | cause | what is read | when |
//! | --- | --- | --- |
//! | events of the host that are none of what was read | host | after 10 ms without another, 50 ms at the latest |
//! | events of the host were lost | host, neighbours | at once, but 500 ms after the last time at the earliest |
//! | the filter of events was replaced | host | at once: it may have dropped what matters |
//! | the machine slept | host | at once |
//! | a dump of the host was interrupted | host | a second later |
//! | a dump of neighbours failed or was interrupted | neighbours | a second later |
//! | the host cannot be read, or sends no events | host | every 5 s |
//! | events of the namespace | namespace | as for the host, but so that no more than a twentieth of a processor goes into it |
//! | something else is desired, because of the host | namespace, after its events | at once |
//! | the namespace cannot be read at one moment | namespace | a second later |
//! | it is asked for | everything | at once |
//!
//! A reading serves all causes that there were when it began, and none that came later: those lead to
//! another one. So whatever is lost or interrupted, in the end there is a reading that began after the
//! last event.
//!
//! What comes of a reading is the business of [`reconcile`](crate::reconcile).

mod host;
mod namespace;
mod neighbours;
mod pace;

pub use host::{HostOutcome, HostRead, HostReading, Source};
pub use namespace::NamespaceEvents;

use crate::decode::Notice;
use crate::host::HostView;
use crate::interest::Interest;
use crate::neighbours::Neighbours;
use crate::record::Record;
use crate::reduce::Flushed;
use crate::status::{Counters, Health};
use crate::time::{Clocks, Instant, OtherClocks, earliest};
use crate::watch::ReceivedEvents;
use host::HostRefresh;
use namespace::NamespaceRefresh;
use neighbours::NeighbourRefresh;
use pasta_ipc::types::Prefix;
use std::collections::BTreeSet;
use std::time::Duration;

/// What is to be read again.
#[derive(Debug)]
pub struct Refresh {
    host: HostRefresh,
    namespace: NamespaceRefresh,
    neighbours: NeighbourRefresh,
    /// For finding out that the machine slept.
    clocks: Clocks,
    /// Whether the kernel says when to compare them.
    announced: bool,
    counters: Counters,
}

impl Refresh {
    /// The host was read and is watched as `source` says; `tap` is the index of the tap in the
    /// namespace. The clocks show `now` and `others`.
    pub fn new(source: Source, tap: u32, now: Instant, others: OtherClocks) -> Self {
        Self {
            host: HostRefresh::new(source, now),
            namespace: NamespaceRefresh::new(tap),
            neighbours: NeighbourRefresh::default(),
            clocks: Clocks::new(now, others),
            announced: false,
            counters: Counters::default(),
        }
    }

    /// When there is something to do, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let neighbours = self.neighbours.due().filter(|_| self.host.source() != Source::Nothing);
        let due = [self.host.due(), self.namespace.due(), neighbours, self.clocks_due()];
        due.into_iter().fold(None, earliest)
    }

    /// The kernel says when the machine has slept: the clocks need not be looked at for it.
    pub fn sleep_is_announced(&mut self) {
        self.announced = true;
    }

    fn clocks_due(&self) -> Option<Instant> {
        let compares = self.host.source() == Source::Events && !self.announced;
        compares.then(|| self.clocks.due())
    }

    /// Takes in events of the host, which was read as `host` last.
    pub fn host_events(&mut self, now: Instant, received: &ReceivedEvents, host: &HostView) {
        self.counters.bad += received.bad;
        for notice in &received.notices {
            match notice {
                Notice::Gone(Record::Link(link)) => self.host.link_gone(link.index),
                Notice::There(Record::Neighbour(neighbour)) => self.neighbours.learn(neighbour),
                Notice::Gone(Record::Neighbour(neighbour)) => self.neighbours.forget(neighbour),
                _ => {}
            }
            if host.is_change(notice) {
                self.counters.used += 1;
                self.host.changed(now);
            } else {
                self.counters.ignored += 1;
            }
        }
        if received.overrun {
            self.host_overrun(now);
        }
    }

    /// There are no more events of the host.
    pub fn host_unwatched(&mut self, now: Instant) {
        self.host.unwatched();
        self.host_overrun(now);
    }

    fn host_overrun(&mut self, now: Instant) {
        // Until everything was read, further losses change nothing.
        if self.host.overrun(now) {
            self.counters.overruns += 1;
            self.neighbours.lost();
        }
    }

    /// Takes in what the clocks show; true if the machine slept.
    pub fn compare_clocks(&mut self, now: Instant, others: OtherClocks) -> bool {
        let slept = self.clocks.have_parted(now, others);
        if slept {
            // Events may have been missed.
            self.host.look(now);
        }
        slept
    }

    /// Everything is to be read again. False if nothing is followed, so that nothing is read.
    pub fn resync_wanted(&mut self, now: Instant) -> bool {
        if self.host.source() == Source::Nothing {
            return false;
        }
        self.host.resync_wanted(now);
        self.namespace.resync_wanted(now);
        self.neighbours.lost();
        true
    }

    /// The events of the host that can matter are `interest`; gives it if the filter is to be replaced.
    pub fn filter_for(&mut self, now: Instant, interest: Interest) -> Option<&Interest> {
        self.host.filter_for(now, interest)
    }

    /// Begins to read the host, if that is due.
    pub fn begin_host(&mut self, now: Instant) -> Option<HostReading> {
        let reading = self.host.begin(now)?;
        self.counters.looks += 1;
        Some(reading)
    }

    /// The host was read.
    pub fn finish_host(
        &mut self,
        now: Instant,
        reading: HostReading,
        outcome: HostOutcome,
    ) -> HostRead {
        let read = self.host.finish(now, reading, outcome);
        self.counters.resyncs += u64::from(read.resynchronised.is_some());
        self.counters.resyncs += u64::from(read.asked);
        read
    }

    /// Begins to read the neighbours on `links`, if they are not known.
    pub fn begin_neighbours(
        &mut self,
        now: Instant,
        links: BTreeSet<u32>,
    ) -> Option<BTreeSet<u32>> {
        self.neighbours.begin(now, links)
    }

    /// The neighbours were read, if `complete` all of them and at one moment.
    pub fn finish_neighbours(&mut self, now: Instant, neighbours: Neighbours, complete: bool) {
        self.neighbours.finish(now, neighbours, complete);
    }

    /// The neighbours, if they have changed since this was called last.
    pub fn take_neighbours(&mut self) -> Option<&Neighbours> {
        self.neighbours.take()
    }

    /// Takes in events of the namespace.
    pub fn namespace_events(&mut self, now: Instant, received: &ReceivedEvents) -> NamespaceEvents {
        self.namespace.events(now, received)
    }

    /// There are no more events of the namespace.
    pub fn namespace_unwatched(&mut self, now: Instant) -> NamespaceEvents {
        self.namespace.events(now, &ReceivedEvents { overrun: true, ..ReceivedEvents::default() })
    }

    /// Whether events of the namespace are to be received, or wait because they were dear.
    pub fn listens_to_namespace(&self, now: Instant) -> bool {
        self.namespace.listens(now)
    }

    /// When events of the namespace are received again.
    pub fn listens_at(&self) -> Instant {
        self.namespace.listens_at()
    }

    /// The namespace's events and a pass have taken so much of the processor until `now`.
    pub fn namespace_spent(&mut self, now: Instant, cost: Duration) {
        self.namespace.spent(now, cost);
    }

    /// Begins to read what of the namespace is not ours and not on the tap, if that is due. Routes of ours lead to
    /// `destinations`.
    pub fn begin_far(&mut self, now: Instant, destinations: &BTreeSet<Prefix>) -> bool {
        self.namespace.begin_far(now, destinations)
    }

    /// That was read; it took so much of the processor.
    pub fn finish_far(&mut self, now: Instant, cost: Duration, complete: bool) {
        self.namespace.finish_far(now, cost, complete);
    }

    /// Begins a pass over the namespace, if one is due; `wanted` if something else than the last pass
    /// was for is desired.
    pub fn begin_pass(&mut self, now: Instant, wanted: bool) -> bool {
        self.namespace.begin(now, wanted)
    }

    /// What has happened to the tap since the last pass that came to its end; the pass at hand has it.
    pub fn take_flushed(&mut self) -> Flushed {
        self.namespace.take_flushed()
    }

    /// The pass has come to its end.
    pub fn pass_done(&mut self) {
        self.namespace.done();
    }

    /// The namespace could not be read: the pass is to be made again.
    pub fn pass_failed(&mut self, now: Instant) {
        self.namespace.failed(now);
    }

    /// The first pass has come to its end: what we did to the tap says nothing about its users.
    pub fn configured(&mut self) {
        self.namespace.forget_flushed();
    }

    /// A change took so long from its last event until the namespace had it.
    pub fn applied(&mut self, took: Duration) {
        self.counters.applied(took);
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How the host is watched.
    pub fn health(&self) -> Health {
        self.host.health()
    }

    /// Whether the tap was deleted.
    pub fn tap_is_gone(&self) -> bool {
        self.namespace.tap_is_gone()
    }
}

#[cfg(test)]
mod tests;
