//! Whose turn it is among listeners that have something, and which wait for descriptors.

use super::listeners::ListenerId;
use crate::time::Instant;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// How long listeners wait for descriptors before they are looked at again; chosen: a storm of
/// connections that cannot be accepted then costs ten looks a second.
const STARVED_FOR: Duration = Duration::from_millis(100);

/// Listeners, each once, in the order in which they came.
#[derive(Debug, Default)]
struct Order {
    order: VecDeque<ListenerId>,
    members: BTreeSet<ListenerId>,
}

impl Order {
    fn push(&mut self, id: ListenerId) {
        if self.members.insert(id) {
            self.order.push_back(id);
        }
    }

    fn pop(&mut self) -> Option<ListenerId> {
        let id = self.order.pop_front()?;
        self.members.remove(&id);
        Some(id)
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// Listeners that may have more, in the order of their turns, and those that wait.
#[derive(Debug, Default)]
pub struct Turns {
    ready: Order,
    /// Those whose queue may hold more errors.
    erroneous: Order,
    starved: BTreeSet<ListenerId>,
    /// When those that wait are to try again.
    retry_at: Option<Instant>,
}

impl Turns {
    /// Whether there is something to do at once.
    pub fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.erroneous.is_empty()
    }

    /// When those that wait try again.
    pub fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The next listener in turn.
    pub fn next_ready(&mut self) -> Option<ListenerId> {
        self.ready.pop()
    }

    /// A listener may have more.
    pub fn make_ready(&mut self, id: ListenerId) {
        self.ready.push(id);
    }

    /// A listener may have more errors.
    pub fn leave_errors(&mut self, id: ListenerId) {
        self.erroneous.push(id);
    }

    /// The next listener of which errors were left.
    pub fn next_erroneous(&mut self) -> Option<ListenerId> {
        self.erroneous.pop()
    }

    /// A listener has something that cannot be taken now: it waits for a while, or for the sockets that are
    /// coming. What waits in it goes on waiting there: nothing is lost, and nothing spins.
    pub fn starve(&mut self, now: Instant, id: ListenerId) {
        self.starved.insert(id);
        self.retry_at.get_or_insert(now + STARVED_FOR);
    }

    /// Lets listeners that waited long enough try again.
    pub fn tick(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry();
        }
    }

    /// Lets listeners that waited try again.
    pub fn retry(&mut self) {
        self.retry_at = None;
        let waited = std::mem::take(&mut self.starved);
        waited.into_iter().for_each(|id| self.make_ready(id));
    }
}
