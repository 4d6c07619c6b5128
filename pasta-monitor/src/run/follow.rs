//! Following host and namespace: events, readings, operations and messages, and no decision of its own.
//!
//! What is to be read again, and when, says [`Refresh`]; what is desired, [`State`]; what is done to the
//! namespace, a [`Pass`](pasta_monitor::reconcile::Pass), one step at a time.

use crate::run::RunError;
use crate::run::clock::{self, Clock, ClockChanges, processor_time};
use crate::run::publisher::Publisher;
use pasta_ipc::status::NetworkStatus;
use pasta_ipc::types::{Bounded, Generation, LogLevel, MacAddr, Text};
use pasta_monitor::apply::Namespace;
use pasta_monitor::desired::Desired;
use pasta_monitor::far::Wanted;
use pasta_monitor::filter;
use pasta_monitor::interest::{Interest, templates};
use pasta_monitor::log::Log;
use pasta_monitor::namespace::Collector;
use pasta_monitor::netlink::Netlink;
use pasta_monitor::packet_sockets;
use pasta_monitor::peer::ToDatapath;
use pasta_monitor::read;
use pasta_monitor::reconcile::{End, Input, Naming, Reconciler, Step};
use pasta_monitor::reduce::{Event, Readiness, State};
use pasta_monitor::refresh::{HostOutcome, HostReading, Refresh, Source};
use pasta_monitor::status::{Facts, lines, network};
use pasta_monitor::time::earliest;
use pasta_monitor::unbound;
use pasta_monitor::watch::Events;
use std::os::fd::OwnedFd;

/// How many batches of events are handled at most before other work runs, however many are queued.
const TURNS: usize = 32;

/// What wakes us; none where it could not be set up or has failed.
#[derive(Debug)]
pub(super) struct Subscriptions {
    pub(super) host: Option<Events>,
    pub(super) namespace: Option<Events>,
    pub(super) clocks: ClockChanges,
}

/// Sockets to both sides.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) host: Netlink,
    pub(super) namespace: Namespace,
    /// Lists packet sockets; none where nobody asks.
    pub(super) packets: Option<OwnedFd>,
    /// Dumps what of the namespace is not ours and not on the tap.
    pub(super) far: OwnedFd,
}

/// Says once that the host has more than is reproduced.
pub(super) fn warn_of_what_is_left_out(desired: &Desired, log: &Log) {
    if desired.left_out > 0 {
        let left_out = desired.left_out;
        let text = format!("{left_out} addresses and routes of the host are not reproduced");
        log.warn_once(("host", "not reproduced"), &text);
    }
}

/// What events of the namespace say.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Whether there were any.
    any: bool,
    /// Whether something may have changed in a way that a reading made meanwhile shows in part.
    disturbed: bool,
}

/// Everything that following takes.
#[derive(Debug)]
pub(super) struct Follower {
    state: State,
    refresh: Refresh,
    reconciler: Reconciler,
    host: Netlink,
    namespace: Namespace,
    /// Lists the namespace's packet sockets, until the tap has its name.
    packets: Option<OwnedFd>,
    /// Reads what of the namespace is not ours and not on the tap.
    far_socket: OwnedFd,
    far: Collector,
    subscriptions: Subscriptions,
    clock: Clock,
    publisher: Publisher,
    /// The log has said that the template was renamed.
    rename_logged: bool,
    /// Whether the tap has gone since that was last asked.
    tap_gone: bool,
}

impl Follower {
    pub(super) fn new(
        state: State,
        sockets: Sockets,
        tap_mac: MacAddr,
        subscriptions: Subscriptions,
        clock: Clock,
    ) -> Self {
        let Sockets { host, namespace, packets, far: far_socket } = sockets;
        let source = match &subscriptions.host {
            _ if !state.policy().follows() => Source::Nothing,
            Some(_) => Source::Events,
            None => Source::Polling,
        };
        let mut refresh = Refresh::new(source, namespace.tap(), clock.now(), clock::others());
        if subscriptions.clocks.are_announced() {
            refresh.sleep_is_announced();
        }
        let packets = packets.filter(|_| state.may_name_tap());
        Self {
            state,
            refresh,
            reconciler: Reconciler::new(tap_mac),
            host,
            namespace,
            packets,
            far_socket,
            far: Collector::default(),
            subscriptions,
            clock,
            publisher: Publisher::default(),
            rename_logged: false,
            tap_gone: false,
        }
    }

    /// Whether the tap has gone since this was last asked.
    pub(super) fn has_lost_tap(&mut self) -> bool {
        std::mem::take(&mut self.tap_gone)
    }

    /// The publisher of snapshots.
    pub(super) fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// Whether readiness waits for a first template, and may wait for longer.
    pub(super) fn is_to_be_waited_for(&self) -> bool {
        self.state.bind_deadline().is_some_and(|end| self.clock.now() < end)
    }

    /// Configures the namespace for the first time.
    pub(super) async fn start(&mut self, datapath: &ToDatapath, log: &Log) -> Result<(), RunError> {
        if self.reconcile(datapath, log).await == End::Failed {
            return Err(RunError::NamespaceLost);
        }
        self.receive_namespace_events(log);
        self.refresh.configured();
        self.restrict(log);
        self.follow_neighbours(datapath, log).await;
        Ok(())
    }

    /// Says that there is no network, if there is none, now that it is waited for no more.
    pub(super) fn say_what_is_missing(&self, log: &Log) {
        if let Some(text) = unbound::notice(&self.state) {
            log.notice(&text);
        }
    }

    /// How things stand, for the log and for programs.
    pub(super) fn status(&self) -> (Bounded<Text<240>, 64>, NetworkStatus) {
        let facts = Facts {
            now: self.clock.now(),
            health: self.refresh.health(),
            counters: self.refresh.counters(),
            generation: self.publisher.generation(),
        };
        let mut lines = lines(&self.state, &facts);
        let mut network = network(&self.state, &facts);
        if self.refresh.tap_is_gone() {
            lines.push("tap     gone".to_owned());
            network.tap = None;
        }
        let lines = Bounded::truncated(lines.iter().map(|line| Text::truncated(line))).0;
        (lines, network)
    }

    /// Reads everything again and puts right what is not as it should be, at the next turn.
    pub(super) fn resync_wanted(&mut self, log: &Log) {
        if self.refresh.resync_wanted(self.clock.now()) {
            self.state.forget_declined();
        } else {
            log.warn("host: nothing is followed (--follow off), so it is not read again");
        }
    }

    /// The datapath has reset the flows of addresses that the snapshot of this generation says are leaving.
    pub(super) fn flows_were_reset(&mut self, generation: Generation) {
        // An older one says nothing of what has been added since.
        if generation.0 == self.publisher.generation() {
            self.state.parting_mut().flows_were_reset();
        }
    }

    /// Waits until there is something to do. Nothing is lost if this is dropped while it waits.
    pub(super) async fn wait(&self, readiness: Readiness) {
        async fn wait_for(events: Option<&Events>) {
            match events {
                // An error shows when it is read.
                Some(events) => drop(events.wait().await),
                None => std::future::pending().await,
            }
        }
        let due = earliest(self.refresh.next_deadline(), self.state.wakes_at(readiness));
        // Those of a namespace whose users make them dear wait.
        let listens = self.refresh.listens_to_namespace(self.clock.now());
        let namespace = self.subscriptions.namespace.as_ref().filter(|_| listens);
        let listens_at = Some(self.refresh.listens_at()).filter(|_| !listens);
        let due = earliest(due, listens_at);
        tokio::select! {
            () = wait_for(self.subscriptions.host.as_ref()) => {}
            () = wait_for(namespace) => {}
            () = self.subscriptions.clocks.wait() => {}
            () = self.clock.wait_until(due) => {}
        }
    }

    /// Does what is to be done.
    pub(super) async fn act(&mut self, datapath: &ToDatapath, log: &Log) {
        self.receive_host_events(log);
        let before = processor_time();
        let listens = self.refresh.listens_to_namespace(self.clock.now());
        let found = listens && self.receive_namespace_events(log).any;
        let mut spent = processor_time().saturating_sub(before);
        let now = self.clock.now();
        if self.refresh.compare_clocks(now, clock::others()) {
            log.debug("the machine slept");
        }
        if let Some(reading) = self.refresh.begin_host(now) {
            self.read_host(reading, log).await;
        } else if self.state.next_deadline().is_some_and(|at| at <= now) {
            self.reconciler.add(self.state.handle(now, Event::DeadlineReached), now);
        }
        self.restrict(log);
        self.warn_of_rename(log);
        self.follow_neighbours(datapath, log).await;
        let now = self.clock.now();
        let wanted = self.reconciler.is_behind(now, &self.state);
        let before = processor_time();
        // What is done for the host is not done in ignorance of what users did before it.
        let found = (wanted && !listens && self.receive_namespace_events(log).any) || found;
        let passes = self.refresh.begin_pass(self.clock.now(), wanted);
        if passes {
            self.reconcile(datapath, log).await;
        }
        spent += processor_time().saturating_sub(before);
        // To find nothing is no cost that others have made: if it made a pause, that would end with another such turn.
        if found || passes {
            self.refresh.namespace_spent(self.clock.now(), spent);
        }
    }

    /// Receives events of the host.
    fn receive_host_events(&mut self, log: &Log) {
        let Some(events) = &mut self.subscriptions.host else { return };
        let now = self.clock.now();
        match events.receive() {
            Ok(received) => {
                if received.bad > 0 {
                    log.debug(&format!("host: {} unreadable events", received.bad));
                }
                self.refresh.host_events(now, &received, self.state.host());
            }
            Err(error) => {
                log.warn(&format!("host: cannot be watched any more: {error}"));
                self.subscriptions.host = None;
                self.refresh.host_unwatched(now);
            }
        }
    }

    /// Receives events of the namespace.
    fn receive_namespace_events(&mut self, log: &Log) -> Found {
        let mut all = Found::default();
        for _ in 0..TURNS {
            let Some(events) = &mut self.subscriptions.namespace else { return all };
            let now = self.clock.now();
            let (found, more) = match events.receive() {
                Ok(received) => {
                    all.any |= !received.is_empty();
                    (self.refresh.namespace_events(now, &received), received.more)
                }
                Err(error) => {
                    log.warn(&format!("namespace: cannot be watched any more: {error}"));
                    self.subscriptions.namespace = None;
                    (self.refresh.namespace_unwatched(now), false)
                }
            };
            if found.tap_deleted {
                log.warn("tap: gone, the namespace has no network from now on");
                self.tap_gone = true;
            }
            all.disturbed |= found.disturbed;
            if !more {
                return all;
            }
        }
        Found { disturbed: true, any: true }
    }

    /// Reads the host, and takes in what it has.
    async fn read_host(&mut self, begun: HostReading, log: &Log) {
        let reading = read::host(&self.host, self.state.host(), log).await;
        let mut view = reading.view;
        if !reading.complete {
            view.completed_by(self.state.host());
        }
        let outcome = match &reading.failure {
            Some(_) => HostOutcome::Failed,
            None if reading.complete => HostOutcome::Complete,
            None => HostOutcome::Interrupted,
        };
        let now = self.clock.now();
        let (since, gone) = (begun.since, begun.gone.clone());
        let differs = view != *self.state.host();
        let read = self.refresh.finish_host(now, begun, outcome);
        if let Some(failure) = reading.failure.filter(|_| read.failure_is_logged) {
            log.warn(&format!("{failure}: what is known of it stays in force"));
        }
        let host = Box::new(view);
        self.reconciler.add(self.state.handle(now, Event::HostRead { host, gone }), since);
        let (state, desired) = (&self.state, self.state.desired(MacAddr::OURS_BY_DEFAULT));
        if state.is_configured() {
            warn_of_what_is_left_out(&desired, log);
        }
        let what = if differs { "something differed" } else { "nothing differed" };
        if let Some(took) = read.resynchronised {
            let took = took.as_millis();
            log.info(&format!("host: netlink overrun, resynchronised in {took} ms ({what})"));
        }
        if read.asked {
            log.info(&format!("host: read again as asked ({what})"));
        }
    }

    /// Tells the datapath who the templates' neighbours are, and reads them where that is not known.
    async fn follow_neighbours(&mut self, datapath: &ToDatapath, log: &Log) {
        let links = templates(&self.state.bindings());
        if let Some(links) = self.refresh.begin_neighbours(self.clock.now(), links) {
            let (neighbours, complete) = read::neighbours(&self.host, links, log).await;
            self.refresh.finish_neighbours(self.clock.now(), neighbours, complete);
        }
        if let Some(neighbours) = self.refresh.take_neighbours() {
            self.publisher.publish_neighbours(datapath, neighbours);
        }
    }

    /// Says once that the interface that was asked for has another name now.
    fn warn_of_rename(&mut self, log: &Log) {
        if self.rename_logged {
            return;
        }
        if let Some((asked, name)) = self.state.renamed_template() {
            log.warn(&format!(
                "interface \"{asked}\" (-i) is \"{name}\" now, and stays the template"
            ));
            self.rename_logged = true;
        }
    }

    /// Lets the kernel drop what can be of no interest as things are.
    fn restrict(&mut self, log: &Log) {
        let Some(events) = &self.subscriptions.host else { return };
        let state = &self.state;
        let interest =
            Interest::of(state.host(), state.policy(), &state.bindings(), &state.left_links());
        if let Some(interest) = self.refresh.filter_for(self.clock.now(), interest) {
            if let Err(error) = events.restrict(&filter::program(interest)) {
                log.debug(&format!("host: events are not filtered: {error}"));
            }
        }
    }

    /// Makes one pass: brings the namespace to what is desired, if we are to, and tells the datapath.
    async fn reconcile(&mut self, datapath: &ToDatapath, log: &Log) -> End {
        let mut pass = self.reconciler.begin(self.clock.now(), &mut self.state);
        let mut notes = Vec::new();
        let mut input = Input::Begin;
        let end = loop {
            let step = pass.next(self.clock.now(), &mut self.state, input, &mut notes);
            for (level, text) in notes.drain(..) {
                match level {
                    LogLevel::Error | LogLevel::Warn => log.warn(&text),
                    LogLevel::Notice | LogLevel::Info => log.info(&text),
                    LogLevel::Debug | LogLevel::Trace => log.debug(&text),
                }
            }
            input = match step {
                Step::Read => {
                    let reading = self.read_namespace(log).await;
                    let Found { disturbed, .. } = self.receive_namespace_events(log);
                    Input::Read { reading, disturbed, flushed: self.refresh.take_flushed() }
                }
                Step::ReadBack => Input::ReadBack(self.read_namespace(log).await),
                Step::Apply(ops) => Input::Applied(self.namespace.apply(ops, log).await),
                Step::Publish(snapshot) => {
                    self.publisher.publish(datapath, *snapshot);
                    Input::Done
                }
                Step::Name(naming) => {
                    self.name_tap(naming, log).await;
                    Input::Done
                }
                Step::End => break End::Reached,
                Step::Fail => break End::Failed,
            };
        };
        let now = self.clock.now();
        match end {
            End::Reached if !pass.is_doubtful() => self.refresh.pass_done(),
            End::Reached => self.refresh.pass_failed(now),
            End::Failed => self.refresh.pass_failed(now),
        }
        let made = self.reconciler.finish(now, &self.state, end);
        if let Some(took) = made.longest {
            self.refresh.applied(took);
        }
        let generation = self.publisher.generation();
        for (change, took) in made.changes {
            log.info(&format!("{change} gen {generation}, {} ms", took.as_millis()));
        }
        end
    }

    async fn read_namespace(
        &mut self,
        log: &Log,
    ) -> Option<pasta_monitor::namespace::NamespaceReading> {
        let destinations = self.state.destinations();
        if self.refresh.begin_far(self.clock.now(), &destinations) {
            // What changes from here on is an event, where our routes lead now.
            let program = filter::namespace_program(self.namespace.tap(), &destinations);
            if let Some(events) = &self.subscriptions.namespace {
                if let Err(error) = events.restrict(&program) {
                    log.debug(&format!("namespace: events are not filtered: {error}"));
                }
            }
            let before = processor_time();
            let wanted = Wanted { tap: self.namespace.tap(), destinations };
            let (far, complete) = read::far(&self.far_socket, &wanted, &self.far).await;
            self.far = far;
            let cost = processor_time().saturating_sub(before);
            self.refresh.finish_far(self.clock.now(), cost, complete);
        }
        let (namespace, far) = (&self.namespace, &self.far);
        read::namespace(namespace.netlink(), namespace.tap(), namespace.added(), far, log).await
    }

    /// Names the tap after its first template.
    async fn name_tap(&mut self, naming: Naming, log: &Log) {
        // That is tried once.
        let packets = self.packets.take();
        let bound = || packet_sockets::are_bound_to(packets?, self.namespace.tap());
        let naming = match naming {
            Naming::Rename { old, new } if bound() == Some(true) => Naming::Add { old, new },
            naming => naming,
        };
        match &naming {
            Naming::Add { old, new } => {
                let how = match self.namespace.add_name(new).await {
                    Ok(()) => format!("and {new} leads to it too"),
                    Err(error) => format!("and cannot be {new} too: {error}"),
                };
                log.info(&format!("tap: keeps the name {old}, by which it is in use, {how}"));
            }
            Naming::Rename { old, new } => match self.namespace.rename(old, new).await {
                Ok(()) => {
                    log.info(&format!(
                        "tap: {old} is {new} from now on, and both names lead to it"
                    ));
                }
                Err(error) => {
                    log.info(&format!("tap: keeps the name {old} instead of {new}: {error}"));
                }
            },
        }
    }
}
