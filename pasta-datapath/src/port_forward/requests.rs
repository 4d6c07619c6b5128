//! What is asked of the monitor: sockets of the namespace for flows, and listeners inside it.

use super::rules::ForwardTarget;
use super::socket_pool::{Full, Pool, Request};
use crate::flow::FlowId;
use crate::time::Instant;
use pasta_ipc::DatapathToMonitor;
use pasta_ipc::socket::{NamespaceListener, RequestId, SocketKind};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Time after which the monitor is asked again when it had made too many sockets; chosen: its gate has
/// let a thousand through by then.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Whether there are as many listeners as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// One more may be asked for.
    NotReached,
    /// None more may.
    Reached,
}

/// Sockets in stock, requests that are out, and those that are yet to be made.
#[derive(Debug)]
pub struct Requests<K> {
    /// Sockets for flows.
    pub pool: Pool<FlowId, K>,
    /// Listeners that were asked for.
    asked: BTreeMap<NamespaceListener, ForwardTarget>,
    /// Listeners that are to be asked for.
    to_ask: VecDeque<(NamespaceListener, ForwardTarget)>,
    /// When the monitor, which had too much to do, is to be asked again.
    again: Option<Instant>,
    /// Whether there may be something to ask for.
    changed: bool,
}

impl<K> Default for Requests<K> {
    fn default() -> Self {
        let (asked, to_ask) = (BTreeMap::new(), VecDeque::new());
        Self { pool: Pool::default(), asked, to_ask, again: None, changed: false }
    }
}

impl<K> Requests<K> {
    /// A socket of the namespace for `flow`, which otherwise waits for one.
    ///
    /// # Errors
    ///
    /// [`Full`] if as many wait as may.
    pub fn take(&mut self, kind: SocketKind, flow: FlowId) -> Result<Option<K>, Full> {
        self.changed = true;
        match self.pool.take(kind) {
            Some(socket) => Ok(Some(socket)),
            None => self.pool.wait(kind, flow).map(|()| None),
        }
    }

    /// Descriptors that are in stock or on their way.
    pub fn held(&self) -> usize {
        self.asked.len() + self.pool.held()
    }

    /// Listeners that are asked for, or are to be.
    pub fn listener_count(&self) -> usize {
        self.asked.len() + self.to_ask.len()
    }

    /// Forgets listeners that are not to be kept; those that are yet to be asked for are wanted again where they
    /// are.
    pub fn keep(&mut self, keep: impl Fn(&NamespaceListener) -> bool) {
        self.asked.retain(|at, _| keep(at));
        self.to_ask.clear();
    }

    /// Wants a listener that leads to `target`; `false` if it would be one more and `limit` has none
    /// left.
    pub fn want(&mut self, at: NamespaceListener, target: ForwardTarget, limit: Limit) -> bool {
        self.changed = true;
        if let Some(asked) = self.asked.get_mut(&at) {
            *asked = target;
        } else if limit == Limit::NotReached {
            self.to_ask.push_back((at, target));
        } else {
            return false;
        }
        true
    }

    /// Where a listener that was asked for is to lead, if it is still wanted.
    pub fn take_asked(&mut self, at: &NamespaceListener) -> Option<ForwardTarget> {
        self.asked.remove(at)
    }

    /// What `request` was for; none: it was never made, or was answered before.
    pub fn answered(&mut self, request: RequestId) -> Option<Request> {
        self.changed = true;
        self.pool.answered(request)
    }

    /// The monitor has made as many as it may for now; those who wait go on waiting.
    pub fn busy(&mut self, now: Instant, refused: Request) {
        if let Request::Listener(at) = refused {
            if let Some(target) = self.asked.remove(&at) {
                self.to_ask.push_back((at, target));
            }
        }
        self.again = Some(now + ASK_AGAIN);
    }

    /// When the monitor is asked again.
    pub fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Has the monitor asked again if that is due.
    pub fn tick(&mut self, now: Instant) {
        if self.again.take_if(|due| *due <= now).is_some() {
            self.changed = true;
        }
    }

    /// Whether [`Requests::next`] may have something.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.changed && self.again.is_none()
    }

    /// What is to be asked for next, if anything is and may be, with `left` descriptors and a stock of at most
    /// `stock` sockets; it counts as asked.
    pub fn next(&mut self, left: usize, stock: usize) -> Option<DatapathToMonitor> {
        if self.again.is_some() {
            return None;
        }
        let message = self.next_message(left, stock);
        // A descriptor that a listener waits for may be free the next time.
        self.changed = message.is_some() || (left == 0 && !self.to_ask.is_empty());
        message
    }

    fn next_message(&mut self, left: usize, stock: usize) -> Option<DatapathToMonitor> {
        let spare = left.min(stock.saturating_sub(self.pool.held()));
        if let Some(message) = self.pool.next_request(spare) {
            return Some(message);
        }
        if left == 0 && (self.to_ask.is_empty() || self.pool.shrink(1) == 0) {
            return None;
        }
        let (listener, target) = self.to_ask.front().copied()?;
        let message = self.pool.listener_request(listener)?;
        self.to_ask.pop_front();
        self.asked.insert(listener, target);
        Some(message)
    }

    /// Takes back a request that could not be sent; the next answer shows that there is room.
    pub fn not_sent(&mut self, message: &DatapathToMonitor) {
        self.changed = false;
        self.pool.not_sent(message);
        if let DatapathToMonitor::ListenerWanted { listener, .. } = message {
            if let Some(target) = self.asked.remove(listener) {
                self.to_ask.push_front((*listener, target));
            }
        }
    }

    /// The monitor has gone: nobody gets anything any more. Gives the flows that wait.
    pub fn give_up_all(&mut self) -> Vec<FlowId> {
        self.to_ask.clear();
        self.asked.clear();
        self.changed = false;
        self.pool.give_up_all().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port_forward::rules::RuleIndex;
    use pasta_ipc::port_forward::Effort;
    use pasta_ipc::socket::SocketFamily;
    use pasta_ipc::types::Transport;

    fn listener(port: u16) -> NamespaceListener {
        let (transport, family) = (Transport::Tcp, SocketFamily::Both);
        NamespaceListener { transport, family, port: port.try_into().unwrap() }
    }

    const TARGET: ForwardTarget =
        ForwardTarget { target: None, port: 80, effort: Effort::Auto, rule: RuleIndex(0) };

    fn request_of(message: &DatapathToMonitor) -> RequestId {
        match message {
            DatapathToMonitor::SocketsWanted { request, .. }
            | DatapathToMonitor::ListenerWanted { request, .. } => *request,
            other => panic!("no request: {other:?}"),
        }
    }

    #[test]
    fn listener_is_asked_for_once_and_again_after_a_busy_answer() {
        let mut requests = Requests::<()>::default();
        assert!(requests.want(listener(80), TARGET, Limit::NotReached));
        assert!(!requests.want(listener(81), TARGET, Limit::Reached));
        assert!(requests.is_pending());
        assert_eq!(requests.next(0, 9), None, "no descriptor is left");
        assert!(requests.is_pending(), "one may come to be free");
        let message = requests.next(1, 9).unwrap();
        assert_eq!(requests.next(1, 9), None);
        assert!(!requests.is_pending());

        let now = Instant::START;
        let asked = requests.answered(request_of(&message)).unwrap();
        requests.busy(now, asked);
        assert_eq!(requests.next(1, 9), None);
        let due = requests.deadline().unwrap();
        requests.tick(due);
        assert!(requests.next(1, 9).is_some());
    }

    #[test]
    fn request_that_was_not_sent_comes_first_again() {
        let mut requests = Requests::<()>::default();
        for port in [80, 81] {
            requests.want(listener(port), TARGET, Limit::NotReached);
        }
        let message = requests.next(9, 9).unwrap();
        requests.not_sent(&message);
        assert!(!requests.is_pending(), "not before something has changed");
        assert_eq!(requests.next(9, 9), Some(message));
        assert_eq!(requests.listener_count(), 2);
    }

    #[test]
    fn answer_for_a_listener_that_nobody_wants_any_more_leads_nowhere() {
        let mut requests = Requests::<()>::default();
        requests.want(listener(80), TARGET, Limit::NotReached);
        let message = requests.next(9, 9).unwrap();
        requests.keep(|_| false);
        assert!(requests.answered(request_of(&message)).is_some());
        assert_eq!(requests.take_asked(&listener(80)), None);
        assert_eq!(requests.answered(request_of(&message)), None, "answered twice");
    }

    #[test]
    fn stock_is_bounded_and_goes_before_a_listener_waits() {
        let kind = SocketKind { ipv6: false, transport: Transport::Tcp };
        let mut requests = Requests::<()>::default();
        let mut table = crate::flow::table::FlowTable::new(1);
        let flow = table.insert_nameless(()).unwrap();
        assert_eq!(requests.take(kind, flow), Ok(None));
        let message = requests.next(100, 5).unwrap();
        let DatapathToMonitor::SocketsWanted { count, .. } = message else { panic!("{message:?}") };
        assert_eq!(count.get(), 6, "one for the flow");
        assert_eq!(requests.next(100, 5), None);
        requests.answered(request_of(&message));
        requests.pool.fill(kind, vec![(); 6]);
        assert_eq!(requests.held(), 5);
        requests.want(listener(80), TARGET, Limit::NotReached);
        assert!(matches!(requests.next(0, 5), Some(DatapathToMonitor::ListenerWanted { .. })));
        assert_eq!(requests.held(), 5, "one less in stock");
    }
}
