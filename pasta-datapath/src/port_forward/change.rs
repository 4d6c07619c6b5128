//! A change of the rules of both directions at once: all of it or nothing.
//!
//! What the new rules name and nobody has is opened first, beside all that is there: the host's listeners a few in
//! each turn, so that frames do not wait for them, those of the namespace by request to the monitor. They wait,
//! unused. If one cannot be opened, all of them are closed, and nothing has changed. Otherwise the new rules hold,
//! and listeners that nobody wants any more are closed; those that were wanted before and after were never touched.
//!
//! A port that is in use by a listener of ours which is to go (another address of the same port) is opened last: ours
//! is closed for it, and opened again if that fails.
//!
//! Rules of `auto` and of `all` are followed as far as possible and fail no change.

use super::listeners::ListenerSpec;
use super::requests::Limit;
use super::rules::{ForwardTarget, RuleIndex, Rules};
use super::{Context, Ports};
use crate::sockets::Sockets;
use crate::time::Instant;
use nix::errno::Errno;
use pasta_ipc::port_forward::{Direction, Effort, ForwardsChange, ForwardsChanged, ListenFailure};
use pasta_ipc::socket::{ListenerAddress, NamespaceListener};
use pasta_ipc::types::{Bounded, Generation};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Listeners that are opened in one turn; chosen: some tenths of a millisecond.
const LISTENERS_A_TURN: usize = 64;

/// How long the monitor may take for listeners in the namespace. Chosen: it makes thousands in this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// A change that is under way.
#[derive(Debug)]
pub struct PendingChange {
    generation: Generation,
    rules: Rules,
    /// What the new rules want on the host.
    wanted: BTreeMap<ListenerSpec, ForwardTarget>,
    /// Listeners of the host that are yet to be opened.
    missing: VecDeque<(ListenerAddress, ForwardTarget)>,
    /// Those whose port a listener of ours has that is to go.
    in_use: Vec<(ListenerAddress, ForwardTarget)>,
    /// Those that are open.
    opened: Vec<ListenerAddress>,
    /// Listeners in the namespace that the monitor was asked for, or is to be.
    awaited: BTreeMap<NamespaceListener, ForwardTarget>,
    /// Those that are there.
    inside: Vec<NamespaceListener>,
    failures: BTreeMap<(Direction, RuleIndex), (u16, Errno)>,
    deadline: Instant,
}

impl PendingChange {
    /// When the monitor has taken too long.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Listeners in the namespace that are waited for.
    pub fn awaited(&self) -> &BTreeMap<NamespaceListener, ForwardTarget> {
        &self.awaited
    }

    fn fail(&mut self, direction: Direction, target: ForwardTarget, port: u16, errno: Errno) {
        self.failures.entry((direction, target.rule)).or_insert((port, errno));
    }

    /// Whether there is something to do that waits for nobody.
    fn is_busy(&self) -> bool {
        !self.missing.is_empty() || self.awaited.is_empty()
    }
}

impl<K> Ports<K> {
    /// Whether a change has something to do at once.
    pub fn is_changing(&self) -> bool {
        self.pending.as_ref().is_some_and(PendingChange::is_busy)
    }

    /// What became of the last change; once.
    pub fn take_changed(&mut self) -> Option<ForwardsChanged> {
        self.changed.take()
    }

    /// Begins a change; one that is under way is over, and has failed.
    pub fn begin_change<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        change: &ForwardsChange,
    ) {
        if let Some(pending) = self.pending.take() {
            self.roll_back(cx, pending);
        }
        let rules = self.rules.with(change);
        let wanted = self.wanted(&rules, Direction::Inbound);
        let inside = self.wanted(&rules, Direction::Outbound);
        let is_missing = |(spec, target): &(&ListenerSpec, &ForwardTarget)| {
            target.effort == Effort::Explicit && self.listeners.find(spec).is_none()
        };
        let on_host = wanted.iter().filter(is_missing).filter_map(|(spec, target)| match spec {
            ListenerSpec::Host(at) => Some((at.clone(), *target)),
            ListenerSpec::Namespace(_) => None,
        });
        let missing = on_host.collect();
        let in_namespace =
            inside.iter().filter(is_missing).filter_map(|(spec, target)| match spec {
                ListenerSpec::Namespace(at) => Some((*at, *target)),
                ListenerSpec::Host(_) => None,
            });
        let asked: BTreeMap<NamespaceListener, ForwardTarget> = in_namespace.collect();
        let mut pending = PendingChange {
            generation: change.generation,
            rules,
            wanted,
            missing,
            in_use: Vec::new(),
            opened: Vec::new(),
            awaited: BTreeMap::new(),
            inside: Vec::new(),
            failures: BTreeMap::new(),
            deadline: cx.now + PATIENCE,
        };
        let counts = self.listener_count()..;
        for (count, (at, target)) in counts.zip(asked) {
            let limit = match cx.fd_budget.allows_listener(count) {
                true => Limit::NotReached,
                false => Limit::Reached,
            };
            if self.requests.want(at, target, limit) {
                pending.awaited.insert(at, target);
            } else {
                pending.fail(Direction::Outbound, target, at.port.get(), Errno::EMFILE);
            }
        }
        self.pending = Some(pending);
        self.go_on_with_change(cx);
    }

    /// Opens some of the listeners that a change wants, and ends it when nothing more is to be waited for.
    pub(super) fn go_on_with_change<S: Sockets<Socket = K>>(&mut self, cx: &mut Context<'_, S>) {
        let Some(mut pending) = self.pending.take() else { return };
        for _ in 0..LISTENERS_A_TURN {
            let Some((at, target)) = pending.missing.pop_front() else { break };
            match self.open_on_host(cx, &at) {
                Ok(socket) => {
                    self.listeners.hand_over(at.clone(), socket);
                    pending.opened.push(at);
                }
                Err(Errno::EADDRINUSE) if self.blocked_by(&pending, &at).next().is_some() => {
                    pending.in_use.push((at, target));
                }
                Err(errno) => pending.fail(Direction::Inbound, target, at.port.get(), errno),
            }
        }
        if pending.deadline <= cx.now {
            for (at, target) in std::mem::take(&mut pending.awaited) {
                pending.fail(Direction::Outbound, target, at.port.get(), Errno::ETIMEDOUT);
            }
        }
        // All of them are tried, so that all that fail are reported.
        if !pending.missing.is_empty() || !pending.awaited.is_empty() {
            self.pending = Some(pending);
            return;
        }
        if pending.failures.is_empty() {
            self.replace_in_use(cx, &mut pending);
        }
        if pending.failures.is_empty() {
            self.commit(cx, pending);
        } else {
            self.roll_back(cx, pending);
        }
    }

    /// Listeners of ours that have the port of `at` and are to go.
    fn blocked_by<'a>(
        &'a self,
        pending: &'a PendingChange,
        at: &ListenerAddress,
    ) -> impl Iterator<Item = super::ListenerId> + 'a {
        let ids = self.listeners.at_port(at.transport, at.port.get()).into_iter();
        ids.filter(|id| {
            self.listeners.get(*id).is_some_and(|it| !pending.wanted.contains_key(&it.spec))
        })
    }

    /// Opens listeners whose ports those of ours have that are to go; after a failure the latter are there again.
    fn replace_in_use<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        pending: &mut PendingChange,
    ) {
        let mut closed: Vec<(ListenerSpec, ForwardTarget)> = Vec::new();
        for (at, target) in std::mem::take(&mut pending.in_use) {
            let blocking: Vec<_> = self.blocked_by(pending, &at).collect();
            for id in blocking {
                let Some(listener) = self.listeners.get(id) else { continue };
                closed.push((listener.spec.clone(), listener.target));
                self.close(cx.log, id);
            }
            match self.open_on_host(cx, &at) {
                Ok(socket) => {
                    self.listeners.hand_over(at.clone(), socket);
                    pending.opened.push(at);
                }
                Err(errno) => pending.fail(Direction::Inbound, target, at.port.get(), errno),
            }
        }
        if pending.failures.is_empty() {
            return;
        }
        self.drop_opened(pending);
        for (spec, target) in closed {
            let ListenerSpec::Host(at) = &spec else { continue };
            let opened = match self.listeners.promote(&spec, target) {
                true => Ok(()),
                false => self
                    .open_on_host(cx, at)
                    .and_then(|socket| self.listen(cx, spec.clone(), target, socket)),
            };
            self.report.opened(cx.log, spec, target, opened);
        }
    }

    fn drop_opened(&mut self, pending: &mut PendingChange) {
        for at in pending.opened.drain(..) {
            drop(self.listeners.take_spare(&at));
        }
        for at in pending.inside.drain(..) {
            drop(self.listeners.take_inside(&at));
        }
    }

    fn commit<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        mut pending: PendingChange,
    ) {
        self.rules.replace(std::mem::take(&mut pending.rules));
        self.generation = pending.generation;
        self.reconcile(cx, Direction::Inbound);
        self.reconcile(cx, Direction::Outbound);
        // What somebody else has become the reason for meanwhile.
        self.drop_opened(&mut pending);
        self.changed =
            Some(ForwardsChanged { generation: pending.generation, failures: Bounded::default() });
    }

    fn roll_back<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        mut pending: PendingChange,
    ) {
        self.drop_opened(&mut pending);
        if pending.failures.is_empty() {
            let none = (Direction::Inbound, RuleIndex::NONE);
            pending.failures.insert(none, (0, Errno::ECANCELED));
        }
        let failures = pending.failures.iter().map(|((direction, rule), (port, errno))| {
            let (direction, errno) = (*direction, *errno as i32);
            ListenFailure { direction, rule: rule.0, port: *port, errno }
        });
        self.changed = Some(ForwardsChanged {
            generation: pending.generation,
            failures: Bounded::truncated(failures).0,
        });
        // Requests to the monitor that only the change was for are forgotten.
        self.reconcile(cx, Direction::Outbound);
    }

    /// Takes the listener in the namespace that the change wants, or why there is none.
    pub(super) fn change_answered<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        at: NamespaceListener,
        answer: Result<K, Errno>,
    ) -> Result<(), Errno> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        let Some(target) = pending.awaited.remove(&at) else { return Ok(()) };
        let prepared = match answer {
            Ok(socket) => {
                cx.sockets.prepare_listener(&socket, at.transport)?;
                Ok(socket)
            }
            Err(errno) => Err(errno),
        };
        match prepared {
            Ok(socket) => {
                pending.inside.push(at);
                self.listeners.keep_inside(at, socket);
            }
            Err(errno) => pending.fail(Direction::Outbound, target, at.port.get(), errno),
        }
        self.go_on_with_change(cx);
        Ok(())
    }

    /// The monitor has gone: a change that waits for it fails.
    pub fn change_without_monitor<S: Sockets<Socket = K>>(&mut self, cx: &mut Context<'_, S>) {
        let Some(pending) = &mut self.pending else { return };
        for (at, target) in std::mem::take(&mut pending.awaited) {
            pending.fail(Direction::Outbound, target, at.port.get(), Errno::EPIPE);
        }
        self.go_on_with_change(cx);
    }
}
