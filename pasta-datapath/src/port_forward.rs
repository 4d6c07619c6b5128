#![forbid(unsafe_code)]
//! Port forwarding: which rules lead to which listeners, the listeners there are and whose turn it is, and what is
//! asked of the monitor.
//!
//! Listeners are opened and closed by difference ([`listeners`]): one that is wanted before and after a change of
//! rules is never touched.

pub mod change;
pub mod listeners;
pub mod mappings;
pub mod report;
pub mod requests;
pub mod rules;
pub mod socket_pool;
pub mod turns;

use crate::flow::FlowId;
use crate::flow::datagram::ListenerEnd;
use crate::log::Log;
use crate::nat::inbound::LocalPolicy;
use crate::sockets::{Interest, Sockets};
use crate::sys::fd_budget::FdBudget;
use crate::time::Instant;
use crate::token::Token;
use change::PendingChange;
use listeners::{ListenerId, ListenerSpec, Listeners, Role};
use mappings::Mappings;
use nix::errno::Errno;
use pasta_ipc::port_forward::{Direction, ForwardTable, ForwardsChanged, PortSide, PortSnapshot};
use pasta_ipc::socket::{ListenerAddress, NamespaceListener, SocketFamily};
use pasta_ipc::types::{Generation, IfName, LogLevel, Transport};
use report::{Counts, Report};
use requests::{Limit, Requests};
use rules::{ForwardTarget, Rules};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::time::Duration;
use turns::Turns;

/// How often is looked whether an interface with listeners of its own is another one by now; nothing is
/// looked at where there are none. Chosen: who plugs in a cable waits longer for an address.
const INTERFACES_LOOKED_AT: Duration = Duration::from_secs(1);

/// What opening a listener may use.
#[derive(Debug)]
pub struct Context<'a, S> {
    /// The time.
    pub now: Instant,
    /// The host's kernel.
    pub sockets: &'a mut S,
    /// The log.
    pub log: &'a mut Log,
    /// How many descriptors there may be.
    pub fd_budget: FdBudget,
}

/// Port forwarding's part of the stack.
#[derive(Debug)]
pub struct Ports<K> {
    rules: Rules,
    /// The listeners there are.
    pub listeners: Listeners<K>,
    /// What is asked of the monitor.
    pub requests: Requests<K>,
    /// Listeners that may have more.
    pub turns: Turns,
    /// UDP flows by their end at a listener.
    pub arrivals: HashMap<ListenerEnd, FlowId>,
    /// UDP flows that the namespace has opened, by what carries them.
    pub mappings: Mappings,
    report: Report,
    local: LocalPolicy,
    families: SocketFamily,
    /// When interfaces that listeners are bound to are looked at.
    interfaces_due: Option<Instant>,
    /// The first look at the host's ports.
    first_look: FirstLook,
    /// The generation of the rules.
    generation: Generation,
    /// The change that is under way.
    pending: Option<PendingChange>,
    /// What became of the last one, until it is reported.
    changed: Option<ForwardsChanged>,
}

/// What of the first look at the host's ports has been received and served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FirstLook {
    tcp: bool,
    udp: bool,
    is_reported: bool,
}

impl<K> Ports<K> {
    /// Nothing is forwarded yet.
    pub fn new(local: LocalPolicy, families: SocketFamily) -> Self {
        Self {
            rules: Rules::default(),
            listeners: Listeners::default(),
            requests: Requests::default(),
            turns: Turns::default(),
            arrivals: HashMap::new(),
            mappings: Mappings::default(),
            report: Report::default(),
            local,
            families,
            interfaces_due: None,
            first_look: FirstLook::default(),
            generation: Generation::default(),
            pending: None,
            changed: None,
        }
    }

    /// The generation of the rules that hold.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Listeners that are wanted and could not be opened.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What a listener without an address takes.
    pub fn families(&self) -> SocketFamily {
        self.families
    }

    /// What the command line says of local connections.
    pub fn local(&self) -> LocalPolicy {
        self.local
    }

    /// Closes every listener.
    pub fn close_all(&mut self) {
        self.listeners = Listeners::default();
    }

    /// When there is something to do again.
    pub fn deadline(&self) -> Option<Instant> {
        let change = self.pending.as_ref().map(PendingChange::deadline);
        let deadlines =
            [self.turns.deadline(), self.requests.deadline(), self.interfaces_due, change];
        deadlines.into_iter().flatten().min()
    }

    /// Descriptors that are held or on their way here.
    pub fn held(&self) -> usize {
        self.listeners.held() + self.requests.held()
    }

    /// Something came to the listener at this place.
    pub fn came(&mut self, index: u32) {
        if let Some(id) = self.listeners.by_index(index) {
            self.turns.make_ready(id);
        }
    }

    /// Takes over listeners that the launcher has bound.
    pub fn hand_over(&mut self, listeners: Vec<(ListenerAddress, K)>) {
        for (at, socket) in listeners {
            self.listeners.hand_over(at, socket);
        }
    }

    /// Takes in the rules of one direction.
    pub fn rules_changed<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        table: &ForwardTable,
    ) {
        self.generation = self.generation.max(table.generation);
        self.rules.update(table);
        self.reconcile(cx, table.direction);
    }

    /// Takes in who listens on one side.
    pub fn ports_changed<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        snapshot: PortSnapshot,
    ) {
        let direction = match snapshot.side {
            PortSide::Namespace => Direction::Inbound,
            PortSide::Host => Direction::Outbound,
        };
        if snapshot.side == PortSide::Host {
            match snapshot.transport {
                Transport::Tcp => self.first_look.tcp = true,
                Transport::Udp => self.first_look.udp = true,
            }
        }
        self.rules.update_ports(snapshot);
        self.reconcile(cx, direction);
    }

    /// Whether all listeners in the namespace that follow from the first look at the host's ports are open, or
    /// cannot be; true once.
    pub fn has_served_first_look(&mut self) -> bool {
        let FirstLook { tcp, udp, is_reported } = self.first_look;
        let served = tcp && udp && !is_reported && self.requests.listener_count() == 0;
        self.first_look.is_reported |= served;
        served
    }

    /// The listeners of one direction that are wanted.
    fn wanted(&self, rules: &Rules, direction: Direction) -> BTreeMap<ListenerSpec, ForwardTarget> {
        match direction {
            Direction::Inbound => {
                let ours = self.listeners.ours(Direction::Outbound);
                let wanted = rules.on_host(self.families, ours);
                wanted.into_iter().map(|(at, target)| (ListenerSpec::Host(at), target)).collect()
            }
            Direction::Outbound => {
                let ours = self.listeners.ours(Direction::Inbound);
                let wanted = rules.in_namespace(self.families, ours);
                let spec = |(at, target)| (ListenerSpec::Namespace(at), target);
                wanted.into_iter().map(spec).collect()
            }
        }
    }

    /// Closes the listeners that nobody wants and opens those that are missing.
    fn reconcile<S: Sockets<Socket = K>>(&mut self, cx: &mut Context<'_, S>, direction: Direction) {
        let wanted = self.wanted(&self.rules, direction);
        self.report.keep(direction, &wanted);
        if direction == Direction::Outbound {
            let awaited = self.pending.as_ref().map(PendingChange::awaited);
            let is_awaited = |at: &NamespaceListener| awaited.is_some_and(|it| it.contains_key(at));
            // What comes for those that nobody wants any more is closed as it comes.
            self.requests
                .keep(|at| wanted.contains_key(&ListenerSpec::Namespace(*at)) || is_awaited(at));
            for (at, target) in awaited.into_iter().flatten() {
                self.requests.want(*at, *target, Limit::NotReached);
            }
        }
        let difference = self.listeners.compare(direction, wanted);
        for id in difference.surplus {
            self.close(cx.log, id);
        }
        let mut counts = Counts::default();
        for (spec, target) in difference.missing {
            let opened = match &spec {
                ListenerSpec::Host(_) if self.listeners.promote(&spec, target) => {
                    cx.log.add(LogLevel::Debug, || format!("listening on {spec}"));
                    Ok(())
                }
                ListenerSpec::Host(at) => self
                    .open_on_host(cx, at)
                    .and_then(|socket| self.listen(cx, spec.clone(), target, socket)),
                ListenerSpec::Namespace(at) => {
                    if let Some(socket) = self.listeners.take_inside(at) {
                        let opened = self.listen(cx, spec.clone(), target, socket);
                        self.report.opened(cx.log, spec, target, opened);
                        continue;
                    }
                    let limit = match cx.fd_budget.allows_listener(self.listener_count()) {
                        true => Limit::NotReached,
                        false => Limit::Reached,
                    };
                    if self.requests.want(*at, target, limit) {
                        continue;
                    }
                    Err(Errno::EMFILE)
                }
            };
            counts.add(target.effort, opened);
            self.report.opened(cx.log, spec, target, opened);
        }
        self.report.summary(cx.log, direction, &counts);
        self.look_at_interfaces(cx.now);
    }

    /// Listeners that there are or that are wanted of the monitor, of both directions.
    fn listener_count(&self) -> usize {
        self.listeners.len() + self.requests.listener_count()
    }

    fn open_on_host<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        at: &ListenerAddress,
    ) -> Result<K, Errno> {
        if let Some(socket) = self.listeners.take_spare(at) {
            return Ok(socket);
        }
        if !cx.fd_budget.allows_listener(self.listener_count()) {
            return Err(Errno::EMFILE);
        }
        cx.sockets.listen(at, self.families)
    }

    /// Makes a socket that is bound a listener of ours.
    fn listen<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        spec: ListenerSpec,
        target: ForwardTarget,
        socket: K,
    ) -> Result<(), Errno> {
        cx.sockets.prepare_listener(&socket, spec.transport())?;
        let token = Token::Listener(self.listeners.next_id().index());
        cx.sockets.watch(&socket, token, Interest::Reading)?;
        cx.log.add(LogLevel::Debug, || format!("listening on {spec}"));
        self.listeners.insert(spec, target, Role::Listener, socket);
        Ok(())
    }

    /// Opens a socket at the place `at` for flows that the namespace opens from the port of `target`.
    ///
    /// # Errors
    ///
    /// As [`Sockets::listen`] and [`Sockets::watch`].
    pub fn open_mapping<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        at: ListenerAddress,
        target: ForwardTarget,
    ) -> Result<ListenerId, Errno> {
        let socket = cx.sockets.listen(&at, self.families)?;
        cx.sockets.prepare_listener(&socket, Transport::Udp)?;
        let token = Token::Listener(self.listeners.next_id().index());
        cx.sockets.watch(&socket, token, Interest::Reading)?;
        Ok(self.listeners.insert(ListenerSpec::Host(at), target, Role::Mapping, socket))
    }

    /// Makes `socket`, which is connected and has the port of `at`, one for flows of the namespace that share it.
    ///
    /// # Errors
    ///
    /// As [`Sockets::unconnect`]; the socket is closed then.
    pub fn adopt_mapping<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        socket: K,
        at: ListenerAddress,
        target: ForwardTarget,
    ) -> Result<ListenerId, Errno> {
        cx.sockets.prepare_listener(&socket, Transport::Udp)?;
        let token = Token::Listener(self.listeners.next_id().index());
        cx.sockets.unconnect(&socket, token)?;
        Ok(self.listeners.insert(ListenerSpec::Host(at), target, Role::Mapping, socket))
    }

    /// Takes the listener in the namespace that was asked for, or why there is none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is no such listener.
    pub fn listener_answered<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        at: NamespaceListener,
        answer: Result<K, Errno>,
    ) -> Result<(), Errno> {
        let Some(target) = self.requests.take_asked(&at) else { return Ok(()) };
        if self.pending.as_ref().is_some_and(|it| it.awaited().contains_key(&at)) {
            return self.change_answered(cx, at, answer);
        }
        let spec = ListenerSpec::Namespace(at);
        let was_given = answer.is_ok();
        let opened = answer.and_then(|socket| self.listen(cx, spec.clone(), target, socket));
        if was_given && opened == Err(Errno::EINVAL) {
            return Err(Errno::EINVAL);
        }
        self.report.opened(cx.log, spec, target, opened);
        Ok(())
    }

    /// Stops listening; the socket goes on serving flows of the namespace, if there are any through it.
    fn close(&mut self, log: &mut Log, id: ListenerId) {
        if self.listeners.demote(id) {
            return log
                .add(LogLevel::Debug, || "a listener serves flows of its port alone".to_owned());
        }
        if let Some(listener) = self.listeners.remove(id) {
            log.add(LogLevel::Debug, || format!("no longer listening on {}", listener.spec));
        }
    }

    /// Closes a listener that does not listen any more.
    pub fn give_up(&mut self, log: &mut Log, id: ListenerId, error: &dyn Display) {
        if let Some(listener) = self.listeners.remove(id) {
            log.add(LogLevel::Warn, || {
                format!("no longer listening on {}: {error}", listener.spec)
            });
        }
    }

    /// Does what is due: listeners that waited try again, the monitor is asked again, interfaces are looked at.
    pub fn tick<S: Sockets<Socket = K>>(&mut self, cx: &mut Context<'_, S>) {
        self.turns.tick(cx.now);
        self.requests.tick(cx.now);
        self.go_on_with_change(cx);
        self.renew_on_interfaces(cx);
    }

    /// Listens anew on interfaces that were deleted and are there again: a socket is bound to the link that
    /// had the name (socket(7)), and receives nothing from another. The kernel shows it by allowing a second
    /// bind to the same address.
    fn renew_on_interfaces<S: Sockets<Socket = K>>(&mut self, cx: &mut Context<'_, S>) {
        if self.interfaces_due.take_if(|due| *due <= cx.now).is_none() {
            return;
        }
        let mut anew: BTreeMap<IfName, bool> = BTreeMap::new();
        let bound: Vec<_> = self.listeners.on_interfaces().collect();
        for (id, at, target) in bound {
            let Some(interface) = at.interface.clone() else { continue };
            let is_anew = anew.get(&interface).copied();
            if is_anew == Some(false) {
                continue;
            }
            let opened = match cx.sockets.listen(&at, self.families) {
                // One listener speaks for all of its interface.
                Err(Errno::EADDRINUSE | Errno::ENODEV) if is_anew.is_none() => {
                    anew.insert(interface, false);
                    continue;
                }
                // Says nothing of the interface: a low port is refused before that is looked at.
                Err(_) if is_anew.is_none() => continue,
                opened => opened,
            };
            anew.insert(interface, true);
            let spec = ListenerSpec::Host(at);
            let listens = opened.and_then(|socket| {
                self.listeners.remove(id);
                self.listen(cx, spec.clone(), target, socket)
            });
            self.report.opened(cx.log, spec, target, listens);
        }
        self.look_at_interfaces(cx.now);
    }

    /// Has interfaces looked at before long, if there are listeners bound to any.
    fn look_at_interfaces(&mut self, now: Instant) {
        if self.listeners.on_interfaces().next().is_some() {
            self.interfaces_due.get_or_insert(now + INTERFACES_LOOKED_AT);
        }
    }
}
