//! The namespace's side of following: its events, its readings, and reconciling it.

use super::Follower;
use crate::run::RunError;
use pasta_ipc::types::Configure;
use pasta_monitor::decode::Notice;
use pasta_monitor::host::TABLE_MAIN;
use pasta_monitor::log::Log;
use pasta_monitor::namespace::NamespaceView;
use pasta_monitor::net::is_link_local;
use pasta_monitor::peer::ToDatapath;
use pasta_monitor::plan::plan;
use pasta_monitor::read;
use pasta_monitor::record::Record;
use pasta_monitor::reduce::{Event, Flushed};
use pasta_monitor::watch::ReceivedEvents;

/// How often the namespace is brought closer to what is desired before we leave it at that. One round
/// suffices unless the namespace's users change it at the same time.
const ROUNDS: usize = 3;
/// How often the namespace is read while what is on the tap keeps changing. Once more suffices for
/// one change, however much it takes with it.
const READINGS: usize = 4;

/// How many batches of events are handled at most before other work runs, however many are queued.
const TURNS: usize = 32;

impl Follower {
    /// Handles the events of the namespace. Returns whether what is on the tap may have changed
    /// in a way that a reading made meanwhile shows in part: new routes alone do not count.
    pub(super) fn handle_namespace_events(&mut self, log: &Log) -> bool {
        let mut torn = false;
        for _ in 0..TURNS {
            let Some(events) = &self.subscriptions.namespace else { return torn };
            let received = events.receive().unwrap_or_else(|error| {
                log.warn(&format!("namespace: cannot be watched any more: {error}"));
                self.subscriptions.namespace = None;
                ReceivedEvents { overrun: true, ..ReceivedEvents::default() }
            });
            torn |= self.take_in(&received, log);
            if !received.more {
                return torn;
            }
        }
        true
    }

    /// Takes in events of the namespace; returns whether a reading may be torn by them.
    fn take_in(&mut self, received: &ReceivedEvents, log: &Log) -> bool {
        let now = self.clock.now();
        // What was lost may have been that the tap went down and up.
        self.flushed.tap_was_down |= received.overrun;
        if received.overrun {
            self.namespace_batch.add(now);
        }
        let tap = self.namespace.tap();
        let mut torn = received.overrun;
        for notice in &received.notices {
            match notice {
                Notice::Gone(Record::Link(link)) if link.index == tap && !self.tap_is_gone => {
                    self.tap_is_gone = true;
                    log.warn("tap: gone, the namespace has no network from now on");
                }
                Notice::There(Record::Link(link)) if link.index == tap => {
                    self.flushed.tap_was_down |= !link.up;
                    self.namespace_batch.add(now);
                    torn = true;
                }
                Notice::There(Record::Route(route)) | Notice::Gone(Record::Route(route))
                    if route.table != TABLE_MAIN => {}
                Notice::Gone(Record::Address(address)) => {
                    let ip = address.prefix.address();
                    self.flushed.link_local_went |=
                        address.link == tap && ip.is_ipv6() && is_link_local(ip);
                    self.namespace_batch.add(now);
                    torn |= address.link == tap;
                }
                Notice::There(Record::Address(address)) => {
                    self.namespace_batch.add(now);
                    torn |= address.link == tap;
                }
                Notice::Gone(Record::Route(route)) => {
                    self.namespace_batch.add(now);
                    torn |= route.hops.iter().any(|hop| hop.link == tap);
                }
                Notice::There(Record::Route(_)) => self.namespace_batch.add(now),
                _ => {}
            }
        }
        torn
    }

    /// Brings the namespace to what is desired, if we are to, and tells the datapath; gives what the
    /// namespace has then.
    pub(super) async fn reconcile(
        &mut self,
        datapath: &ToDatapath,
        log: &Log,
    ) -> Result<Option<NamespaceView>, RunError> {
        let Some(mut seen) = self.view_of_one_moment(log).await else { return Ok(None) };
        let flushed = self.flushed;
        let read = Event::NamespaceRead { view: Box::new(seen.clone()), flushed };
        for left_alone in self.state.handle(self.clock.now(), read) {
            log.info(&left_alone.to_string());
        }
        self.desired = self.state.desired(self.tap_mac);
        let desired = &self.desired;
        let bindings = self.state.bindings();

        let first = desired.up;
        let configures = self.state.policy().configure == Configure::Namespace;
        if configures && (first || self.state.policy().changes_namespace()) {
            for round in 0..=ROUNDS {
                let mut plan = plan(desired, &seen);
                plan.without(|op| self.namespace.has_refused(op));
                if plan.is_empty() {
                    break;
                }
                if round == ROUNDS {
                    let text =
                        format!("namespace is not as desired after {ROUNDS} rounds: {plan:?}");
                    log.warn(&text);
                    break;
                }
                self.namespace.apply(&plan.additions, log).await;
                let Some(after) = self.view(log).await else { return Ok(None) };
                seen = after;
                self.publisher.publish(
                    datapath,
                    &bindings,
                    (&self.desired, self.state.losses()),
                    &seen,
                );
                if !plan.removals.is_empty() {
                    self.namespace.apply(&plan.removals, log).await;
                    let Some(after) = self.view(log).await else { return Ok(None) };
                    seen = after;
                }
            }
            self.name_tap(&seen, log).await;
        }
        self.publisher.publish(datapath, &bindings, (&self.desired, self.state.losses()), &seen);
        self.flushed = Flushed::default();
        Ok(Some(seen))
    }

    /// Names the tap after its first template, if it was made without one.
    async fn name_tap(&mut self, seen: &NamespaceView, log: &Log) {
        let Some(new) = self.state.late_name() else { return };
        self.state.name_is_decided();
        let Ok(old) = pasta_ipc::types::IfName::try_from(seen.tap.name.clone()) else { return };
        if old == new {
            return;
        }
        if seen.tap_is_in_use() {
            let how = match self.namespace.add_name(&new).await {
                Ok(()) => format!("and {new} leads to it too"),
                Err(error) => format!("and cannot be {new} too: {error}"),
            };
            log.info(&format!("tap: keeps the name {old}, by which it is in use, {how}"));
            return;
        }
        match self.namespace.rename(&old, &new).await {
            Ok(()) => {
                log.info(&format!("tap: {old} is {new} from now on, and both names lead to it"))
            }
            Err(error) => log.info(&format!("tap: keeps the name {old} instead of {new}: {error}")),
        }
    }

    /// What the namespace has, where nothing on the tap changed while it was read. What the kernel
    /// flushes would otherwise look as if users had removed a part of it.
    async fn view_of_one_moment(&mut self, log: &Log) -> Option<NamespaceView> {
        for _ in 0..READINGS {
            let seen = self.view(log).await?;
            if !self.handle_namespace_events(log) || !self.state.is_configured() {
                return Some(seen);
            }
        }
        // The caller tries again: nothing of it may be thought gone.
        log.debug("namespace: kept changing while it was read");
        None
    }

    /// What the namespace has. What was read in pieces is believed only at the start, when nobody has
    /// had the time to change it.
    async fn view(&self, log: &Log) -> Option<NamespaceView> {
        let (netlink, tap) = (self.namespace.netlink(), self.namespace.tap());
        for _ in 0..READINGS {
            let reading = read::namespace(netlink, tap, self.namespace.added(), log).await?;
            if reading.complete || !self.state.is_configured() {
                return Some(reading.view);
            }
        }
        None
    }
}
