//! What port forwarding keeps between two turns of the loop.

use super::Kind;
use crate::flow::FlowId;
use crate::nat::inbound::LocalPolicy;
use crate::port_forward::listeners::{ListenerId, ListenerSpec, Listeners};
use crate::port_forward::rules::{ForwardTarget, Rules};
use crate::port_forward::socket_pool::Pool;
use crate::sys::pipe::Pipes;
use crate::sys::pktinfo::DatagramAddresses;
use crate::time::Instant;
use nix::errno::Errno;
use pasta_ipc::forward::{NamespaceListener, SocketFamily};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};

/// Port forwarding's part of the shell.
#[derive(Debug)]
pub struct PortForwarding {
    pub(super) rules: Rules,
    pub(super) listeners: Listeners,
    pub(super) pool: Pool<FlowId>,
    pub(super) pipes: Pipes,
    /// Flows that hold two sockets each.
    pub(super) spliced: usize,
    pub(super) local: LocalPolicy,
    pub(super) families: SocketFamily,
    /// UDP flows by the ends of their datagrams.
    pub(super) arrivals: HashMap<(ListenerId, DatagramAddresses), FlowId>,
    /// Listeners that may have more, in the order of their turns and by name.
    ready: (VecDeque<ListenerId>, BTreeSet<ListenerId>),
    /// Listeners that wait until there are descriptors again, and when to try.
    starved: (BTreeSet<ListenerId>, Option<Instant>),
    /// When the monitor, which had too much to do, is to be asked again.
    pub(super) ask_again: Option<Instant>,
    /// When interfaces that listeners are bound to are looked at.
    pub(super) interfaces_due: Option<Instant>,
    /// The last summary of each direction, so that none is said twice in a row.
    pub(super) said: [String; 2],
    /// Listeners in the namespace that were asked for, or are to be.
    pub(super) asked: BTreeMap<NamespaceListener, ForwardTarget>,
    pub(super) to_ask: VecDeque<(NamespaceListener, ForwardTarget)>,
    /// Listeners that could not be opened, and why.
    pub(super) refused: BTreeMap<ListenerSpec, Errno>,
}

impl PortForwarding {
    /// Nothing is forwarded yet.
    pub fn new(local: LocalPolicy, families: SocketFamily) -> Self {
        Self {
            rules: Rules::default(),
            listeners: Listeners::default(),
            pool: Pool::default(),
            pipes: Pipes::default(),
            spliced: 0,
            local,
            families,
            arrivals: HashMap::new(),
            ready: <(VecDeque<_>, BTreeSet<_>)>::default(),
            starved: <(BTreeSet<_>, Option<_>)>::default(),
            ask_again: None,
            interfaces_due: None,
            said: <[String; 2]>::default(),
            asked: BTreeMap::new(),
            to_ask: VecDeque::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Closes every listener.
    pub(super) fn close_all(&mut self) {
        self.listeners = Listeners::default();
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.0.is_empty()
    }

    /// When there is something to do again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.starved.1, self.ask_again, self.interfaces_due].into_iter().flatten().min()
    }

    /// Listeners that there are or that are wanted of the monitor, of both directions.
    pub(super) fn listener_count(&self) -> usize {
        self.listeners.len() + self.asked.len() + self.to_ask.len()
    }

    /// Descriptors that are held or on their way here.
    pub(super) fn held(&self) -> usize {
        let listeners = self.listeners.held() + self.asked.len();
        self.spliced + listeners + self.pool.held() + 2 * self.pipes.made()
    }

    /// The next listener in turn.
    pub(super) fn next_ready(&mut self) -> Option<ListenerId> {
        let id = self.ready.0.pop_front()?;
        self.ready.1.remove(&id);
        Some(id)
    }

    /// Something came to the listener at this place.
    pub(super) fn came(&mut self, index: u32) {
        if let Some(id) = self.listeners.by_index(index) {
            self.make_ready(id);
        }
    }

    /// A listener has something that cannot be taken now: it waits until `due`, or for the sockets that
    /// are coming.
    pub(super) fn starve(&mut self, due: Instant, id: ListenerId) {
        self.starved.0.insert(id);
        self.starved.1.get_or_insert(due);
    }

    /// Lets listeners that waited long enough try again.
    pub(super) fn try_starved_at(&mut self, now: Instant) {
        if self.starved.1.is_some_and(|due| due <= now) {
            self.try_starved();
        }
    }

    /// Lets listeners that waited try again.
    pub(super) fn try_starved(&mut self) {
        self.starved.1 = None;
        let waited = std::mem::take(&mut self.starved.0);
        waited.into_iter().for_each(|id| self.make_ready(id));
    }

    /// A listener may have more.
    pub(super) fn make_ready(&mut self, id: ListenerId) {
        if self.ready.1.insert(id) {
            self.ready.0.push_back(id);
        }
    }

    /// A listener's socket.
    pub(super) fn listener(&self, id: ListenerId) -> Option<BorrowedFd<'_>> {
        self.listeners.get(id).map(AsFd::as_fd)
    }

    /// Gives back what a flow that has ended held.
    pub(super) fn ended(&mut self, kind: &mut Kind) {
        match kind {
            Kind::Forwarded(flow) => {
                self.arrivals.remove(&(flow.listener(), flow.addresses()));
            }
            Kind::Splice(flow) => {
                flow.release(&mut self.pipes);
                self.spliced = self.spliced.saturating_sub(1);
            }
            Kind::Tcp(_) | Kind::Udp(_) | Kind::Echo(_) => {}
        }
    }
}
