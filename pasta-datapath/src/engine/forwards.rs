//! What port forwarding keeps between two turns of the loop.

use super::Kind;
use crate::flow::FlowId;
use crate::forward::inbound::LocalPolicy;
use crate::io::envelope::Envelope;
use crate::io::pipes::Pipes;
use crate::listen::{ListenerId, Listeners, Place};
use crate::pool::Pool;
use crate::rules::{Goal, Rules};
use crate::time::Instant;
use nix::errno::Errno;
use pasta_ipc::forward::{NamespaceListener, SocketFamily};
use pasta_ipc::types::MacAddr;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};

/// Port forwarding's part of the shell.
#[derive(Debug)]
pub struct Forwards {
    pub(super) rules: Rules,
    pub(super) listeners: Listeners,
    pub(super) pool: Pool<FlowId>,
    pub(super) pipes: Pipes,
    /// Flows that hold two sockets each.
    pub(super) spliced: usize,
    pub(super) local: LocalPolicy,
    pub(super) families: SocketFamily,
    /// UDP flows by the ends of their datagrams.
    pub(super) arrivals: HashMap<(ListenerId, Envelope), FlowId>,
    /// Listeners that may have more.
    pub(super) ready: VecDeque<ListenerId>,
    /// Listeners that wait until there are descriptors again, and when to try.
    pub(super) starved: (Vec<ListenerId>, Option<Instant>),
    /// Listeners in the namespace that were asked for, or are to be.
    pub(super) asked: BTreeMap<NamespaceListener, Goal>,
    pub(super) to_ask: VecDeque<(NamespaceListener, Goal)>,
    /// Places that could not be listened on, and why.
    pub(super) refused: BTreeMap<Place, Errno>,
    /// Most listeners on the host.
    pub(super) most_listeners: usize,
    /// The namespace's own station.
    pub(super) mac: MacAddr,
}

impl Forwards {
    /// Nothing is forwarded yet. `mac` is the tap's; with `descriptors` in all, at most half are
    /// listeners.
    pub fn new(
        local: LocalPolicy,
        families: SocketFamily,
        mac: MacAddr,
        descriptors: usize,
    ) -> Self {
        Self {
            rules: Rules::default(),
            listeners: Listeners::default(),
            pool: Pool::default(),
            pipes: Pipes::default(),
            spliced: 0,
            local,
            families,
            arrivals: HashMap::new(),
            ready: VecDeque::new(),
            starved: (Vec::new(), None),
            asked: BTreeMap::new(),
            to_ask: VecDeque::new(),
            refused: BTreeMap::new(),
            most_listeners: descriptors / 2,
            mac,
        }
    }

    /// Closes every listener.
    pub(super) fn close_all(&mut self) {
        self.listeners = Listeners::default();
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When there is something to do again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.starved.1
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
        if !self.starved.0.contains(&id) {
            self.starved.0.push(id);
        }
        self.starved.1.get_or_insert(due);
    }

    /// Lets listeners that waited try again.
    pub(super) fn try_starved(&mut self) {
        self.starved.1 = None;
        let waited = std::mem::take(&mut self.starved.0);
        waited.into_iter().for_each(|id| self.make_ready(id));
    }

    fn make_ready(&mut self, id: ListenerId) {
        if !self.ready.contains(&id) {
            self.ready.push_back(id);
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
                self.arrivals.remove(&(flow.listener(), flow.envelope()));
            }
            Kind::Splice(flow) => {
                flow.release(&mut self.pipes);
                self.spliced = self.spliced.saturating_sub(1);
            }
            Kind::Tcp(_) | Kind::Udp(_) | Kind::Echo(_) => {}
        }
    }
}
