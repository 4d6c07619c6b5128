//! The forwarded ports, and changes of them: one at a time, all or nothing.
//!
//! What is forwarded has one place, here. A change is checked, and what follows from it goes first to the monitor,
//! which then allows both what was and what is to be, and from there to the datapath, which does all of it or
//! nothing. Only then does it hold here too, and the monitor learns what is left.
//!
//! ```text
//! Idle ── change ──> AwaitMonitor ── taken ──> AwaitDatapath ── changed ──> Idle
//!   └── nothing in the namespace changes ────────^
//! ```
//!
//! This performs no I/O: messages come in, [`Order`]s go out.

use nix::errno::Errno;
use pasta::ports::{Forwards, System, rules_of};
use pasta_ipc::control::{
    ChangeResult, ForwardChange, ForwardEntry, ForwardFailure, ForwardState, OnFailure, Origin,
};
use pasta_ipc::port_forward::{
    Direction, Effort, ForwardRule, ForwardsChange, ForwardsChanged, NamespaceForwards, PortWatch,
};
use pasta_ipc::start::{HostSockets, Protocols};
use pasta_ipc::types::{Bounded, Generation, Service, Text, Transport};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::server::{ClientId, Peer};

/// How long the helpers may take for a change. Chosen: the datapath gives the monitor two seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Send this to the monitor.
    ToMonitor(Box<NamespaceForwards>),
    /// Send this to the datapath.
    ToDatapath(Box<ForwardsChange>),
    /// Answer a client.
    Answer(ClientId, ChangeResult),
    /// Log that the ports have changed.
    Log(String),
}

/// What does not change while the program runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) ipv4: Service,
    pub(crate) ipv6: Service,
    pub(crate) protocols: Protocols,
    /// Whether ports may lead to the host's loopback (`--no-host-loopback`).
    pub(crate) to_host: Service,
    /// Whether anybody may look for the ports of the host, which `auto` out of the namespace follows.
    pub(crate) host_sockets: HostSockets,
    pub(crate) system: System,
}

/// The forwarded ports.
#[derive(Debug)]
pub(crate) struct Transactions {
    served: Served,
    forwards: Forwards,
    generation: Generation,
    /// The last one that was sent.
    sent: Generation,
    /// What the monitor allows and watches, as it was last sent.
    allowed: (Vec<ForwardRule>, PortWatch),
    pending: Option<Pending>,
    /// Changes that wait: of each client one at most.
    queue: VecDeque<(ClientId, Peer, ForwardChange)>,
    helpers: Helpers,
}

/// Which helpers run.
#[derive(Clone, Copy, Debug)]
struct Helpers {
    monitor: bool,
    datapath: bool,
}

/// A change that is under way.
#[derive(Debug)]
struct Pending {
    /// Who waits for the result; none once it was answered that this takes too long.
    client: Option<ClientId>,
    peer: Peer,
    on_failure: OnFailure,
    forwards: Forwards,
    left_out: Vec<ForwardFailure>,
    stage: Stage,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    AwaitMonitor(Generation),
    AwaitDatapath(Generation),
}

impl Transactions {
    /// What the command line says is forwarded, with the generation that the datapath was sent.
    pub(crate) fn new(served: Served, forwards: Forwards) -> Self {
        let generation = Generation::default().next();
        let allowed = (forwards.outbound.clone(), forwards.watched());
        Self {
            served,
            forwards,
            generation,
            sent: generation,
            allowed,
            pending: None,
            queue: VecDeque::new(),
            helpers: Helpers { monitor: true, datapath: true },
        }
    }

    /// All that is forwarded.
    pub(crate) fn state(&self) -> ForwardState {
        let entries = self.forwards.entries.iter().cloned();
        ForwardState {
            generation: self.generation,
            ipv4: self.served.ipv4,
            ipv6: self.served.ipv6,
            // `ports::rules_of` limits their number.
            entries: Bounded::truncated(entries).0,
        }
    }

    /// What follows from it.
    pub(crate) fn forwards(&self) -> &Forwards {
        &self.forwards
    }

    /// The lowest port of the host that can be listened on without a capability.
    pub(crate) fn unprivileged_start(&self) -> u16 {
        self.served.system.unprivileged_start
    }

    /// When a change takes too long.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.pending.as_ref().filter(|it| it.client.is_some()).map(|it| it.deadline)
    }

    /// Takes in a change of a client, which has no other one here.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        client: ClientId,
        peer: Peer,
        change: ForwardChange,
    ) -> Vec<Order> {
        self.queue.push_back((client, peer, change));
        self.go_on(now)
    }

    /// A client has gone: a change of its that waits is forgotten; one that is under way is not.
    pub(crate) fn client_gone(&mut self, client: ClientId) {
        self.queue.retain(|(waiting, ..)| *waiting != client);
        if let Some(pending) = &mut self.pending {
            pending.client = pending.client.filter(|waiting| *waiting != client);
        }
    }

    /// Begins changes that wait until one takes time.
    fn go_on(&mut self, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        while self.pending.is_none() {
            let Some(request) = self.queue.pop_front() else { break };
            orders.extend(self.begin(now, request));
        }
        orders
    }

    fn begin(&mut self, now: Instant, request: (ClientId, Peer, ForwardChange)) -> Vec<Order> {
        let (client, peer, change) = request;
        if change.base != self.generation {
            return vec![Order::Answer(client, ChangeResult::Stale(self.generation))];
        }
        let mut old: Vec<_> = self.forwards.entries.clone();
        let entry = |forward: &pasta_ipc::control::RequestedForward| {
            // What was there keeps who asked for it.
            let place = old.iter().position(|it| it.forward == *forward);
            let origin = place.map(|place| old.swap_remove(place).origin);
            let origin = origin.unwrap_or(Origin::Client { uid: peer.uid, pid: peer.pid });
            ForwardEntry { forward: forward.clone(), origin }
        };
        let entries: Vec<_> = change.forwards.as_slice().iter().map(entry).collect();
        let deadline = now + PATIENCE;
        let pending = Pending {
            client: Some(client),
            peer,
            on_failure: change.on_failure,
            forwards: Forwards::default(),
            left_out: Vec::new(),
            stage: Stage::AwaitDatapath(self.sent),
            deadline,
        };
        self.attempt(pending, entries)
    }

    /// Tries to have `entries`.
    fn attempt(&mut self, mut pending: Pending, entries: Vec<ForwardEntry>) -> Vec<Order> {
        let answer = |result| pending.client.map(|client| Order::Answer(client, result));
        let refused = |why: &str| ChangeResult::Refused(Text::truncated(why));
        let is_off = |entry: &ForwardEntry| match entry.forward.rule().transport() {
            Transport::Tcp => self.served.protocols.tcp == Service::Off,
            Transport::Udp => self.served.protocols.udp == Service::Off,
        };
        if let Some(entry) = entries.iter().find(|entry| is_off(entry)) {
            let transport = entry.forward.rule().transport();
            let why = format!("'{}': {transport} is switched off", entry.forward);
            return answer(refused(&why)).into_iter().collect();
        }
        let to_host = |entry: &&ForwardEntry| entry.forward.direction() == Direction::Outbound;
        let is_closed = self.served.to_host == Service::Off;
        if let Some(entry) = entries.iter().find(|entry| is_closed && to_host(entry)) {
            let why = format!("'{}' leads to what --no-host-loopback closes", entry.forward);
            return answer(refused(&why)).into_iter().collect();
        }
        let are_out_of_reach = self.served.host_sockets == HostSockets::OutOfReach;
        let cannot_follow = |entry: &&ForwardEntry| {
            let is_new = matches!(entry.origin, Origin::Client { .. });
            let is_auto = entry.forward.rule().effort() == Effort::Auto;
            are_out_of_reach && is_new && to_host(entry) && is_auto
        };
        if let Some(entry) = entries.iter().find(cannot_follow) {
            let why = format!(
                "'{}': the host's ports cannot be looked for where the namespace belongs to the \
                 same user namespace as the host's network; name the ports",
                entry.forward
            );
            return answer(refused(&why)).into_iter().collect();
        }
        let Served { ipv4, ipv6, system, .. } = self.served;
        let forwards = match rules_of(entries, ipv4, ipv6, system) {
            Ok(forwards) => forwards,
            Err(conflict) => return answer(refused(&conflict.to_string())).into_iter().collect(),
        };
        if !self.helpers.datapath {
            let why = "pasta-datapath has ended: the namespace has no network";
            return answer(refused(why)).into_iter().collect();
        }
        let wanted = (forwards.outbound.clone(), forwards.watched());
        let changes_namespace = wanted != self.allowed;
        if changes_namespace && !self.helpers.monitor {
            let why = "pasta-monitor has ended: what is listened on in the namespace, and what is \
                       forwarded automatically, cannot change any more";
            return answer(refused(why)).into_iter().collect();
        }
        self.sent = self.sent.next();
        let order = if changes_namespace {
            // Until the datapath has changed, both are allowed.
            let (before, watch) = &self.allowed;
            let both = before.iter().chain(&wanted.0).cloned();
            let watch = either(*watch, wanted.1);
            pending.stage = Stage::AwaitMonitor(self.sent);
            self.tell_monitor(both.collect(), watch)
        } else {
            pending.stage = Stage::AwaitDatapath(self.sent);
            to_datapath(self.sent, &forwards)
        };
        pending.forwards = forwards;
        self.pending = Some(pending);
        vec![order]
    }

    fn tell_monitor(&mut self, outbound: Vec<ForwardRule>, watch: PortWatch) -> Order {
        let (rules, _) = Bounded::truncated(outbound.iter().cloned());
        self.allowed = (outbound, watch);
        Order::ToMonitor(Box::new(NamespaceForwards {
            generation: self.sent,
            outbound: rules,
            watch,
        }))
    }

    /// The monitor has taken in what it may open.
    pub(crate) fn monitor_taken(&mut self, generation: Generation) -> Vec<Order> {
        let Some(pending) = &mut self.pending else { return Vec::new() };
        if pending.stage != Stage::AwaitMonitor(generation) {
            return Vec::new();
        }
        pending.stage = Stage::AwaitDatapath(generation);
        vec![to_datapath(generation, &pending.forwards)]
    }

    /// The datapath has done a change, or not.
    pub(crate) fn datapath_changed(
        &mut self,
        now: Instant,
        changed: &ForwardsChanged,
    ) -> Vec<Order> {
        let is_it = |it: &Pending| it.stage == Stage::AwaitDatapath(changed.generation);
        let Some(pending) = self.pending.take_if(|it| is_it(it)) else { return Vec::new() };
        let mut orders = if changed.failures.as_slice().is_empty() {
            self.applied(pending, changed.generation)
        } else {
            self.failed(now, pending, changed)
        };
        if self.pending.is_none() {
            orders.extend(self.settle_monitor());
        }
        orders.extend(self.go_on(now));
        orders
    }

    fn applied(&mut self, pending: Pending, generation: Generation) -> Vec<Order> {
        self.forwards = pending.forwards;
        self.generation = generation;
        let Peer { uid, pid } = pending.peer;
        let count = self.forwards.entries.len();
        let line = format!(
            "ports: changed by process {pid} of user {uid}, {count} lists, generation {}",
            generation.0
        );
        let left_out = Bounded::truncated(pending.left_out).0;
        let result = ChangeResult::Applied { generation, left_out };
        let answer = pending.client.map(|client| Order::Answer(client, result));
        answer.into_iter().chain([Order::Log(line)]).collect()
    }

    fn failed(
        &mut self,
        now: Instant,
        mut pending: Pending,
        changed: &ForwardsChanged,
    ) -> Vec<Order> {
        let mut places: Vec<u16> = Vec::new();
        let mut failures = Vec::new();
        for failure in changed.failures.as_slice() {
            let of_rules = match failure.direction {
                Direction::Inbound => &pending.forwards.inbound_places,
                Direction::Outbound => &pending.forwards.outbound_places,
            };
            let place = of_rules.get(usize::from(failure.rule)).copied();
            let entry = place.and_then(|it| pending.forwards.entries.get(usize::from(it)));
            let (Some(place), Some(entry)) = (place, entry) else { continue };
            if places.contains(&place) {
                continue;
            }
            places.push(place);
            let forward = entry.forward.clone();
            failures.push(ForwardFailure { forward, port: failure.port, errno: failure.errno });
        }
        if pending.on_failure == OnFailure::KeepRest && !failures.is_empty() {
            pending.left_out.extend(failures);
            pending.deadline = now + PATIENCE;
            let entries = std::mem::take(&mut pending.forwards.entries).into_iter().enumerate();
            let fails = |place: &usize| places.iter().any(|it| usize::from(*it) == *place);
            let entries = entries.filter(|(place, _)| !fails(place)).map(|(_, entry)| entry);
            let entries = entries.collect();
            return self.attempt(pending, entries);
        }
        let failures = Bounded::truncated(failures).0;
        let result = match changed.failures.as_slice() {
            // It was begun and not ended: nobody's port is why.
            [only] if only.errno == Errno::ECANCELED as i32 => {
                ChangeResult::Refused(Text::truncated("the datapath has given the change up"))
            }
            _ => ChangeResult::RolledBack { failures },
        };
        pending.client.map(|client| Order::Answer(client, result)).into_iter().collect()
    }

    /// Tells the monitor what is allowed, where that is less than it knows.
    fn settle_monitor(&mut self) -> Option<Order> {
        let wanted = (self.forwards.outbound.clone(), self.forwards.watched());
        if wanted == self.allowed || !self.helpers.monitor {
            return None;
        }
        self.sent = self.sent.next();
        Some(self.tell_monitor(wanted.0, wanted.1))
    }

    /// An order to a helper could not be sent: the change does not happen.
    pub(crate) fn not_sent(&mut self, now: Instant) -> Vec<Order> {
        self.abandon(now, "the helper process does not take the change in")
    }

    /// The monitor has ended.
    pub(crate) fn monitor_ended(&mut self, now: Instant) -> Vec<Order> {
        self.helpers.monitor = false;
        match self.pending.as_ref().map(|it| it.stage) {
            // The datapath sees it too, and answers.
            Some(Stage::AwaitDatapath(_)) | None => Vec::new(),
            Some(Stage::AwaitMonitor(_)) => self.abandon(now, "pasta-monitor has ended"),
        }
    }

    /// The datapath has ended.
    pub(crate) fn datapath_ended(&mut self, now: Instant) -> Vec<Order> {
        self.helpers.datapath = false;
        self.abandon(now, "pasta-datapath has ended: the namespace has no network")
    }

    fn abandon(&mut self, now: Instant, why: &str) -> Vec<Order> {
        let Some(pending) = self.pending.take() else { return Vec::new() };
        let result = ChangeResult::Refused(Text::truncated(why));
        let answer = pending.client.map(|client| Order::Answer(client, result));
        answer.into_iter().chain(self.go_on(now)).collect()
    }

    /// Tells a client whose change takes too long; the change itself may still come to its end.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Order> {
        let is_late = self.next_deadline().is_some_and(|deadline| deadline <= now);
        let Some(pending) = self.pending.as_mut().filter(|_| is_late) else { return Vec::new() };
        let why = "the helper process has not answered in time; the change may still happen";
        let result = ChangeResult::Refused(Text::truncated(why));
        pending.client.take().map(|client| Order::Answer(client, result)).into_iter().collect()
    }
}

fn either(a: PortWatch, b: PortWatch) -> PortWatch {
    use pasta_ipc::port_forward::Watched::{No, Yes};
    let or = |a, b| if a == Yes || b == Yes { Yes } else { No };
    PortWatch { namespace: or(a.namespace, b.namespace), host: or(a.host, b.host) }
}

fn to_datapath(generation: Generation, forwards: &Forwards) -> Order {
    // They fit: `ports::rules_of` limits their number.
    let rules = |rules: &[ForwardRule]| Bounded::truncated(rules.iter().cloned()).0;
    let (inbound, outbound) = (rules(&forwards.inbound), rules(&forwards.outbound));
    Order::ToDatapath(Box::new(ForwardsChange { generation, inbound, outbound }))
}

#[cfg(test)]
mod tests;
