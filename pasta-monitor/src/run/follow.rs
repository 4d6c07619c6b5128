//! Following host and namespace: events in, looks out, and the namespace kept as it should be.
//!
//! An event only marks its side as changed. When the burst is over, that side is read, the reducer
//! decides, and the namespace is brought to what is desired: additions, then the snapshot for the
//! datapath, then removals, then another reading to see whether that was all.

use crate::run::RunError;
use crate::run::publisher::Publisher;
use pasta_ipc::types::{Bounded, MacAddr, Text};
use pasta_monitor::apply::Namespace;
use pasta_monitor::change::Change;
use pasta_monitor::decode::Notice;
use pasta_monitor::desired::Desired;
use pasta_monitor::interest::{Interest, templates};
use pasta_monitor::log::Log;
use pasta_monitor::neighbours::Neighbours;
use pasta_monitor::netlink::Netlink;
use pasta_monitor::peer::ToDatapath;
use pasta_monitor::read;
use pasta_monitor::record::Record;
use pasta_monitor::reduce::{Event, Flushed, State};
use pasta_monitor::status::{Counters, Facts, Health, lines};
use pasta_monitor::time::{Clocks, Instant, earliest};
use pasta_monitor::watch::{Batch, Events, ReceivedEvents};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// Shortest time between two readings because events were lost.
const RESYNC_INTERVAL: Duration = Duration::from_millis(500);
/// When to look again after a reading during which the host kept changing.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the host is read where it cannot be watched.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is said that the host cannot be read.
const LOG_AGAIN: Duration = Duration::from_secs(3600);
/// Time after which a namespace that could not be read is read again.
const RETRY: Duration = Duration::from_secs(1);

/// Transitions that are kept for the log while the namespace cannot be read; later ones are not logged.
const MOST_UNTOLD: usize = 64;

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

/// Netlink event subscriptions; none where one could not be set up or has failed.
#[derive(Debug)]
pub(super) struct Subscriptions {
    pub(super) host: Option<Events>,
    pub(super) namespace: Option<Events>,
}

/// Everything that following takes.
#[derive(Debug)]
pub(super) struct Follower {
    state: State,
    host: Netlink,
    namespace: Namespace,
    tap_mac: MacAddr,
    subscriptions: Subscriptions,
    clock: Clock,
    publisher: Publisher,
    /// What was last desired of the namespace.
    desired: Desired,
    /// The host is to be read because it has changed.
    host_batch: Batch,
    /// The namespace is to be read because it has changed.
    namespace_batch: Batch,
    /// The host is to be read for another reason.
    look_at: Option<Instant>,
    /// Because events were lost.
    overrun: bool,
    last_resync: Option<Instant>,
    /// Links of the host that were deleted since it was read.
    gone: BTreeSet<u32>,
    /// What happened to the tap since the namespace was read.
    flushed: Flushed,
    tap_is_gone: bool,
    /// For finding out that the machine slept.
    clocks: Clocks,
    /// What the kernel's filter lets through of the host's events.
    interest: Option<Interest>,
    counters: Counters,
    /// The host could not be read the last time.
    rename_told: bool,
    neighbours: Neighbours,
    /// The neighbours are to be published.
    neighbours_changed: bool,
    /// The neighbours are to be read.
    neighbours_lost: bool,
    blind: bool,
    /// It was asked for that all be read again.
    asked: bool,
    /// And the namespace too.
    reconcile_asked: bool,
    /// When to try again with a namespace that could not be read.
    retry_at: Option<Instant>,
    /// Transitions that the namespace has yet to make, and since when.
    untold: Vec<(Change, Instant)>,
    /// When it was last said that the host cannot be read.
    blindness_logged: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        state: State,
        host: Netlink,
        namespace: Namespace,
        tap_mac: MacAddr,
        subscriptions: Subscriptions,
        clock: Clock,
    ) -> Self {
        Self {
            state,
            host,
            namespace,
            tap_mac,
            subscriptions,
            clock,
            publisher: Publisher::default(),
            desired: Desired::default(),
            host_batch: Batch::default(),
            namespace_batch: Batch::default(),
            look_at: None,
            overrun: false,
            last_resync: None,
            gone: BTreeSet::new(),
            flushed: Flushed::default(),
            tap_is_gone: false,
            clocks: Clocks::new(clock.now(), SystemTime::now()),
            interest: None,
            counters: Counters::default(),
            rename_told: false,
            neighbours: Neighbours::default(),
            neighbours_changed: false,
            neighbours_lost: true,
            blind: false,
            asked: false,
            reconcile_asked: false,
            retry_at: None,
            untold: Vec::new(),
            blindness_logged: None,
        }
    }

    /// The publisher of snapshots.
    pub(super) fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// Whether readiness waits for a first template, and may wait for longer.
    pub(super) fn is_to_be_waited_for(&self) -> bool {
        self.state.policy().follows()
            && !self.state.is_bound()
            && self.clock.now() < self.wait_end()
    }

    fn wait_end(&self) -> Instant {
        Instant::START + self.state.policy().bind_wait()
    }

    /// Configures the namespace for the first time.
    pub(super) async fn start(&mut self, datapath: &ToDatapath, log: &Log) -> Result<(), RunError> {
        let seen = self.reconcile(datapath, log).await?.ok_or(RunError::NamespaceLost)?;
        self.state.handle(self.clock.now(), Event::Configured(Box::new(seen)));
        // That the tap was down before we brought it up says nothing about its users.
        self.handle_namespace_events(log);
        self.flushed = Flushed::default();
        self.poll_if_deaf();
        self.restrict(log);
        self.follow_neighbours(datapath, log).await;
        Ok(())
    }

    /// How things stand, for the log.
    pub(super) fn status(&self) -> Bounded<Text<240>, 64> {
        let facts = Facts {
            now: self.clock.now(),
            health: self.health(),
            counters: self.counters,
            generation: self.publisher.generation(),
        };
        let mut lines = lines(&self.state, &facts);
        if self.tap_is_gone {
            lines.push("tap     gone".to_owned());
        }
        Bounded::truncated(lines.iter().map(|line| Text::truncated(line))).0
    }

    fn health(&self) -> Health {
        match &self.subscriptions.host {
            _ if !self.state.policy().follows() => Health::Off,
            _ if self.blind => Health::Blind,
            None => Health::Poll,
            Some(_) if self.overrun => Health::Resync,
            Some(_) => Health::Live,
        }
    }

    /// Reads everything again and puts right what is not as it should be, at the next turn.
    pub(super) fn look_is_wanted(&mut self, log: &Log) {
        if !self.state.policy().follows() {
            log.warn("host: nothing is followed (--follow off), so it is not read again");
            return;
        }
        self.state.forget_declined();
        (self.asked, self.reconcile_asked, self.neighbours_lost) = (true, true, true);
        self.look_at = Some(self.clock.now());
    }

    /// Waits until there is something to do. Nothing is lost if this is dropped while it waits.
    pub(super) async fn wait(&self) {
        async fn wait_for(events: Option<&Events>) {
            match events {
                // An error shows when it is read.
                Some(events) => drop(events.wait().await),
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = wait_for(self.subscriptions.host.as_ref()) => {}
            () = wait_for(self.subscriptions.namespace.as_ref()) => {}
            () = self.clock.wait_until(self.next_deadline()) => {}
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let waited_for = Some(self.wait_end()).filter(|_| self.is_to_be_waited_for());
        let decision = self.state.next_deadline().filter(|_| self.state.policy().follows());
        [
            self.host_batch.due(),
            self.namespace_batch.due(),
            self.look_at,
            self.retry_at,
            decision,
            waited_for,
            Some(self.clocks.due()).filter(|_| self.subscriptions.host.is_some()),
        ]
        .into_iter()
        .fold(None, earliest)
    }

    /// Does what is to be done.
    pub(super) async fn act(&mut self, datapath: &ToDatapath, log: &Log) -> Result<(), RunError> {
        self.handle_host_events(log);
        self.handle_namespace_events(log);
        self.compare_clocks(log);
        let now = self.clock.now();
        let mut changes = Vec::new();
        let mut since = now;
        let look = self.look_at.is_some_and(|at| at <= now);
        if let Some(last) = self.host_batch.take(now).or(look.then_some(now)) {
            since = last;
            changes = self.read_host(now, log).await;
        } else if self.state.next_deadline().is_some_and(|at| at <= now)
            && self.state.policy().follows()
        {
            changes = self.state.handle(now, Event::DeadlineReached);
        }
        self.restrict(log);
        self.warn_of_rename(log);
        self.follow_neighbours(datapath, log).await;
        let namespace_changed = self.namespace_batch.take(now).is_some();
        let lost = self.publisher.losses() != self.state.losses();
        let changed =
            lost || self.state.desired(self.tap_mac) != self.desired || !changes.is_empty();
        let retry = self.retry_at.take_if(|at| *at <= now).is_some();
        let asked = std::mem::take(&mut self.reconcile_asked) || retry;
        let room = MOST_UNTOLD.saturating_sub(self.untold.len());
        self.untold.extend(changes.into_iter().take(room).map(|change| (change, since)));
        if self.tap_is_gone || !(changed || namespace_changed || asked) {
            return Ok(());
        }
        self.namespace.try_again();
        let Some(seen) = self.reconcile(datapath, log).await? else {
            self.retry_at = Some(self.clock.now() + RETRY);
            return Ok(());
        };
        self.retry_at = None;
        self.state.handle(self.clock.now(), Event::Configured(Box::new(seen)));
        self.tell(log);
        Ok(())
    }

    /// Says which transitions the namespace has made.
    fn tell(&mut self, log: &Log) {
        let (generation, now) = (self.publisher.generation(), self.clock.now());
        if let Some(first) = self.untold.iter().map(|(_, since)| *since).min() {
            self.counters.applied(now.since(first));
        }
        for (change, since) in self.untold.drain(..) {
            let took = now.since(since).as_millis();
            log.info(&format!("{change} gen {generation}, {took} ms"));
        }
    }

    /// Handles the events of the host.
    fn handle_host_events(&mut self, log: &Log) {
        let Some(events) = &self.subscriptions.host else { return };
        let now = self.clock.now();
        let received = events.receive().unwrap_or_else(|error| {
            log.warn(&format!("host: cannot be watched any more: {error}"));
            self.subscriptions.host = None;
            ReceivedEvents { overrun: true, ..ReceivedEvents::default() }
        });
        if received.bad > 0 {
            log.debug(&format!("host: {} unreadable events", received.bad));
        }
        self.counters.bad += received.bad;
        for notice in &received.notices {
            if let Notice::Gone(Record::Link(link)) = notice {
                self.gone.insert(link.index);
            }
            if let Notice::There(Record::Neighbour(neighbour)) = notice {
                self.neighbours_changed |= self.neighbours.learn(neighbour);
            }
            if let Notice::Gone(Record::Neighbour(neighbour)) = notice {
                self.neighbours_changed |= self.neighbours.forget(neighbour);
            }
            if self.state.host().is_change(notice) {
                self.counters.used += 1;
                self.host_batch.add(now);
            } else {
                self.counters.ignored += 1;
            }
        }
        if received.overrun && !self.overrun {
            self.overrun = true;
            self.counters.overruns += 1;
            self.neighbours_lost = true;
            let earliest = self.last_resync.map_or(now, |last| last + RESYNC_INTERVAL);
            self.look_at = Some(now.max(earliest));
        }
    }

    /// Reads the host, and takes in what it has.
    async fn read_host(&mut self, now: Instant, log: &Log) -> Vec<Change> {
        self.look_at = None;
        self.host_batch = Batch::default();
        self.counters.looks += 1;
        let reading = read::host(&self.host, self.state.host(), log).await;
        let mut view = reading.view;
        if !reading.complete {
            view.completed_by(self.state.host());
            let again = if reading.failure.is_some() { POLL_INTERVAL } else { AGAIN };
            self.look_at = Some(self.clock.now() + again);
        }
        self.take_failure(reading.failure, log);
        let gone = std::mem::take(&mut self.gone);
        let differs = view != *self.state.host();
        let changes =
            self.state.handle(self.clock.now(), Event::HostRead { host: Box::new(view), gone });
        if std::mem::take(&mut self.overrun) {
            self.last_resync = Some(now);
            let took = self.clock.now().since(now).as_millis();
            let what = if differs { "something differed" } else { "nothing differed" };
            log.info(&format!("host: netlink overrun, resynchronised in {took} ms ({what})"));
            self.counters.resyncs += 1;
        }
        if std::mem::take(&mut self.asked) {
            let what = if differs { "something differed" } else { "nothing differed" };
            log.info(&format!("host: read again as asked ({what})"));
            self.counters.resyncs += 1;
        }
        self.poll_if_deaf();
        changes
    }

    /// Tells the datapath who the templates' neighbours are, and reads them where that is not known.
    async fn follow_neighbours(&mut self, datapath: &ToDatapath, log: &Log) {
        let bindings = self.state.bindings();
        let links = templates(&bindings);
        if self.neighbours_lost || links != *self.neighbours.links() {
            self.neighbours = read::neighbours(&self.host, links, log).await;
            (self.neighbours_lost, self.neighbours_changed) = (false, true);
        }
        if std::mem::take(&mut self.neighbours_changed) {
            self.publisher.publish_neighbours(datapath, &self.neighbours);
        }
    }

    /// Says once that the interface that was asked for has another name now.
    fn warn_of_rename(&mut self, log: &Log) {
        if self.rename_told {
            return;
        }
        if let (Some(name), Some(asked)) =
            (self.state.renamed_template(), &self.state.policy().template)
        {
            log.warn(&format!(
                "interface \"{asked}\" (-i) is \"{name}\" now, and stays the template"
            ));
            self.rename_told = true;
        }
    }

    /// Notes whether the host could be read, and says once an hour at most that it could not.
    fn take_failure(&mut self, failure: Option<String>, log: &Log) {
        self.blind = failure.is_some();
        let Some(failure) = failure else { return };
        let now = self.clock.now();
        if self.blindness_logged.is_some_and(|logged| now < logged + LOG_AGAIN) {
            return;
        }
        self.blindness_logged = Some(now);
        log.warn(&format!("{failure}: what is known of it stays in force"));
    }

    /// Lets the kernel drop what can be of no interest as things are, and looks at the host if that is
    /// something else than before: what was dropped until then may matter.
    fn restrict(&mut self, log: &Log) {
        let Some(events) = &self.subscriptions.host else { return };
        let state = &self.state;
        let interest = Interest::of(state.host(), state.policy(), &state.bindings());
        if self.interest.as_ref() == Some(&interest) {
            return;
        }
        if let Err(error) = events.restrict(&interest) {
            log.debug(&format!("host: events are not filtered: {error}"));
        }
        self.interest = Some(interest);
        let now = self.clock.now();
        self.look_at = Some(self.look_at.map_or(now, |at| at.min(now)));
    }

    /// Polls the host where there are no events of it.
    fn poll_if_deaf(&mut self) {
        if self.subscriptions.host.is_none() && self.state.policy().follows() {
            let next = self.clock.now() + POLL_INTERVAL;
            self.look_at = Some(self.look_at.map_or(next, |at| at.min(next)));
        }
    }

    /// Looks at the host after the machine has slept: events may have been missed.
    fn compare_clocks(&mut self, log: &Log) {
        let now = self.clock.now();
        if self.clocks.have_parted(now, SystemTime::now()) {
            log.debug("the machine slept");
            self.look_at = Some(now);
        }
    }
}

mod reconcile;
