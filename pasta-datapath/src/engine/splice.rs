//! Flows that are joined socket to socket, and the sockets inside the namespace that they need.

use super::listen::reset;
use super::token::Token;
use super::{Engine, Flow, Kind, RunError};
use crate::counters::DropReason;
use crate::flow::splice::{Side, SpliceFlow};
use crate::flow::{FlowId, Next};
use crate::nat::{Protocol, Target};
use crate::port_forward::listeners::ListenerSpec;
use crate::port_forward::socket_pool::{Request, kind_for};
use crate::sys::epoll::Event;
use crate::sys::listen_socket;
use crate::sys::socket::{open, take_error};
use crate::time::Instant;
use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, bind, connect, setsockopt, sockopt};
use pasta_ipc::forward::{Refusal, RequestId, SocketKind, Transport};
use pasta_ipc::{DatapathToMonitor, ReceiveError, SendError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// Time after which the monitor is asked again when it had made too many sockets; chosen: its gate has
/// let a thousand through by then.
const ASK_AGAIN: Duration = Duration::from_millis(20);

impl Engine {
    /// Joins an accepted connection to a service of the namespace.
    pub(super) fn open_splice_to_namespace(
        &mut self,
        now: Instant,
        socket: OwnedFd,
        destination: SocketAddr,
        otherwise: Option<SocketAddr>,
    ) {
        if let Some(id) = self.insert_splice(now, SpliceFlow::new(socket, destination, otherwise)) {
            self.find_target(id);
        }
    }

    /// Joins a connection that was accepted inside the namespace to a service of the host's loopback.
    pub(super) fn open_splice_to_host(
        &mut self,
        now: Instant,
        socket: OwnedFd,
        destination: SocketAddr,
    ) {
        let target = Target { address: destination, source: None, interface: None };
        match open(Protocol::Tcp, &target, None) {
            Ok(connecting) => {
                let Some(id) = self.insert_splice(now, SpliceFlow::new(socket, destination, None))
                else {
                    return;
                };
                self.set_target(id, connecting.fd, connecting.done);
            }
            Err(_) => {
                self.counters.drop(DropReason::Unreachable);
                reset(socket);
            }
        }
    }

    fn insert_splice(&mut self, now: Instant, flow: SpliceFlow) -> Option<FlowId> {
        let token = Token::Flow(self.flows.next_id(), Side::Initiating);
        let watched = flow.socket(Side::Initiating).map(|fd| self.poller.add(fd, token.into()));
        let Some(id) = self.insert_nameless(now, Kind::Splice(Box::new(flow))) else {
            self.counters.drop(DropReason::TableFull);
            return None;
        };
        self.ports.spliced += 1;
        if !matches!(watched, Some(Ok(()))) {
            self.break_splice(id);
            return None;
        }
        Some(id)
    }

    fn splice_flow(&mut self, id: FlowId) -> Option<&mut SpliceFlow> {
        match self.flows.get_mut(id).map(|flow| &mut flow.kind) {
            Some(Kind::Splice(flow)) => Some(flow),
            _ => None,
        }
    }

    /// Gives a flow a socket of the namespace, at once or when there is one.
    fn find_target(&mut self, id: FlowId) {
        let Some(flow) = self.splice_flow(id) else { return };
        let kind = kind_for(flow.destination(), Transport::Tcp);
        match self.ports.pool.take(kind) {
            Some(socket) => self.connect_target(id, socket),
            None => {
                if self.ports.pool.wait(kind, id).is_err() {
                    self.counters.drop(DropReason::NoSocket);
                    self.break_splice(id);
                }
            }
        }
        self.ask();
    }

    fn connect_target(&mut self, id: FlowId, socket: OwnedFd) {
        let Some(flow) = self.splice_flow(id).filter(|flow| flow.wants_socket()) else { return };
        let destination = SockaddrStorage::from(flow.destination());
        // Where it fails small messages are slower, no more.
        let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
        match connect(socket.as_raw_fd(), &destination) {
            Ok(()) => self.set_target(id, socket, true),
            Err(Errno::EINPROGRESS) => self.set_target(id, socket, false),
            Err(_) => self.target_failed(id),
        }
    }

    fn set_target(&mut self, id: FlowId, socket: OwnedFd, connected: bool) {
        let token = Token::Flow(id, Side::Target);
        let watched = self.poller.add(socket.as_fd(), token.into());
        let Some(flow) = self.splice_flow(id) else { return };
        flow.set_target(socket, connected);
        match watched {
            Ok(()) => self.run_splice(id),
            Err(_) => self.break_splice(id),
        }
    }

    /// The target cannot be reached where it was looked for; there may be another place.
    fn target_failed(&mut self, id: FlowId) {
        let Some(flow) = self.splice_flow(id) else { return };
        if flow.try_otherwise() {
            self.find_target(id);
        } else {
            self.counters.drop(DropReason::Unreachable);
            self.break_splice(id);
        }
    }

    /// Something happened to a socket of a flow.
    pub(super) fn splice_event(&mut self, id: FlowId, side: Side, event: Event) {
        let Some(flow) = self.splice_flow(id) else { return };
        let failed = event.is_failed()
            && flow.socket(side).is_some_and(|socket| take_error(socket).is_some());
        if side == Side::Target && flow.is_connecting() {
            if failed {
                return self.target_failed(id);
            }
            if !event.is_writable() {
                return;
            }
            flow.connected();
        } else if failed {
            return self.break_splice(id);
        }
        if event.is_ended() {
            flow.hung_up(side);
        }
        if event.is_readable() {
            flow.readable(side);
        }
        if event.is_writable() {
            flow.writable(side);
        }
        self.run_splice(id);
    }

    pub(super) fn run_splice(&mut self, id: FlowId) {
        let left = self.descriptors_left();
        self.ports.pipes.set_fd_budget(left);
        let Self { flows, ports, scratch, run_queue, .. } = self;
        let Some(flow) = flows.get_mut(id) else { return };
        let Kind::Splice(splice) = &mut flow.kind else { return };
        match splice.run(&mut ports.pipes, scratch) {
            Next::Wait => {}
            Next::More if flow.queued => {}
            Next::More => {
                flow.queued = true;
                run_queue.push_back(id);
            }
            Next::Over => self.remove(id),
            Next::Reset => self.break_splice(id),
        }
    }

    /// Resets both sides.
    fn break_splice(&mut self, id: FlowId) {
        let Some(flow) = self.splice_flow(id) else { return };
        for side in [Side::Initiating, Side::Target] {
            if let Some(socket) = flow.socket(side) {
                let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                // Where it fails the peer sees an ordinary end, which is all that is left to do.
                let _ = setsockopt(&socket, sockopt::Linger, &linger);
            }
        }
        self.remove(id);
    }

    /// Gives a flow of datagrams its own socket, if it is to have one, at once or when there is one.
    pub(super) fn give_datagram_socket(&mut self, id: FlowId) {
        let Some(Flow { kind: Kind::Forwarded(flow), .. }) = self.flows.get_mut(id) else { return };
        if !flow.wants_socket() {
            return;
        }
        let (destination, listener) = (flow.destination(), flow.listener());
        let port = flow.addresses().peer.port();
        let spec = self.ports.listeners.get(listener).map(|it| &it.spec);
        if let Some(ListenerSpec::Namespace(_)) = spec {
            let target = Target { address: destination, source: None, interface: None };
            match open(Protocol::Udp, &target, Some(port)) {
                Ok(connecting) => self.set_datagram_socket(id, connecting.fd),
                Err(_) => self.lose_datagrams(id),
            }
            return;
        }
        let kind = kind_for(destination, Transport::Udp);
        match self.ports.pool.take(kind) {
            Some(socket) => self.connect_datagrams(id, socket),
            None if self.ports.pool.wait(kind, id).is_err() => self.lose_datagrams(id),
            None => {}
        }
        self.ask();
    }

    fn connect_datagrams(&mut self, id: FlowId, socket: OwnedFd) {
        let Some(Flow { kind: Kind::Forwarded(flow), .. }) = self.flows.get_mut(id) else { return };
        let destination = flow.destination();
        let any: IpAddr = match destination {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The peer's own port is a preference: it may be taken, or be one that takes a right to bind.
        let port = SocketAddr::new(any, flow.addresses().peer.port());
        let _ = bind(socket.as_raw_fd(), &SockaddrStorage::from(port));
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(destination)) {
            Ok(()) => self.set_datagram_socket(id, socket),
            Err(_) => self.lose_datagrams(id),
        }
    }

    fn set_datagram_socket(&mut self, id: FlowId, socket: OwnedFd) {
        // Without it every datagram is read by itself.
        let _ = crate::sys::set_udp_gro(&socket);
        let token = Token::Flow(id, Side::Target);
        if self.poller.add_reading(socket.as_fd(), token.into()).is_err() {
            return self.lose_datagrams(id);
        }
        let Self { flows, counters, .. } = self;
        if let Some(Flow { kind: Kind::Forwarded(flow), .. }) = flows.get_mut(id) {
            flow.set_socket(socket, |reason| counters.drop(reason));
        }
    }

    fn lose_datagrams(&mut self, id: FlowId) {
        self.counters.drop(DropReason::NoSocket);
        self.remove(id);
    }

    /// Asks the monitor for what is wanted of it, as far as it may be asked now.
    pub(super) fn ask(&mut self) {
        if self.ports.ask_again.is_some() {
            return;
        }
        while let Some(message) = self.next_wish() {
            match self.monitor.ask(&message) {
                Ok(()) => {}
                // What it has not answered yet makes it tell us when there is room.
                Err(SendError::WouldBlock) => {
                    self.ports.pool.not_sent(&message);
                    self.take_back(&message);
                    return;
                }
                Err(SendError::Closed | SendError::Io(_)) => return self.no_more_sockets(),
            }
        }
    }

    fn next_wish(&mut self) -> Option<DatapathToMonitor> {
        let left = self.descriptors_left();
        let ports = &mut self.ports;
        if let Some(message) = ports.pool.next_request(left) {
            return Some(message);
        }
        if left == 0 {
            return None;
        }
        let (listener, target) = ports.to_ask.front().copied()?;
        let message = ports.pool.listener_request(listener)?;
        ports.to_ask.pop_front();
        ports.asked.insert(listener, target);
        Some(message)
    }

    fn take_back(&mut self, message: &DatapathToMonitor) {
        if let DatapathToMonitor::ListenerWanted { listener, .. } = message
            && let Some(target) = self.ports.asked.remove(listener)
        {
            self.ports.to_ask.push_front((*listener, target));
        }
    }

    /// Takes in sockets that were asked for.
    pub(super) fn sockets_came(
        &mut self,
        request: RequestId,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), RunError> {
        match self.answered(request)? {
            Request::Sockets(kind, _) => {
                if !sockets.iter().all(|socket| listen_socket::is_of(socket, kind)) {
                    return Err(violation("sockets of another kind than were asked for"));
                }
                let given = self.ports.pool.fill(kind, sockets);
                self.ports.try_starved();
                for (id, socket) in given {
                    match kind.transport {
                        Transport::Tcp => self.connect_target(id, socket),
                        Transport::Udp => self.connect_datagrams(id, socket),
                    }
                }
            }
            Request::Listener(at) => {
                if let (Some(target), Some(socket)) =
                    (self.ports.asked.remove(&at), sockets.into_iter().next())
                {
                    let spec = ListenerSpec::Namespace(at);
                    let opened = self.listen(spec.clone(), target, socket);
                    if opened == Err(Errno::EINVAL) {
                        return Err(violation("a listener of another kind than was asked for"));
                    }
                    self.note(spec, target, opened);
                }
            }
        }
        self.ask();
        Ok(())
    }

    pub(super) fn sockets_refused(
        &mut self,
        request: RequestId,
        why: Refusal,
    ) -> Result<(), RunError> {
        let answered = self.answered(request)?;
        let errno = match why {
            Refusal::Busy => {
                // It has made as many as it may for now; those who wait go on waiting.
                if let Request::Listener(at) = answered
                    && let Some(target) = self.ports.asked.remove(&at)
                {
                    self.ports.to_ask.push_back((at, target));
                }
                self.ports.ask_again = Some(self.now() + ASK_AGAIN);
                return Ok(());
            }
            Refusal::Denied => Errno::EACCES,
            Refusal::Failed(errno) => Errno::from_raw(errno),
        };
        match answered {
            Request::Sockets(kind, _) => self.give_up(kind),
            Request::Listener(at) => {
                if let Some(target) = self.ports.asked.remove(&at) {
                    self.note(ListenerSpec::Namespace(at), target, Err(errno));
                }
            }
        }
        self.ask();
        Ok(())
    }

    fn answered(&mut self, request: RequestId) -> Result<Request, RunError> {
        let answered = self.ports.pool.answered(request);
        answered.ok_or_else(|| violation("an answer that nobody has asked for"))
    }

    fn give_up(&mut self, kind: SocketKind) {
        let waiting: Vec<_> = self.ports.pool.give_up(kind).collect();
        self.end_waiting(waiting);
    }

    /// The monitor has gone: nobody gets a socket of the namespace any more.
    pub(super) fn no_more_sockets(&mut self) {
        self.ports.to_ask.clear();
        self.ports.asked.clear();
        let waiting: Vec<_> = self.ports.pool.give_up_all().collect();
        self.end_waiting(waiting);
    }

    fn end_waiting(&mut self, waiting: Vec<FlowId>) {
        for id in waiting {
            self.counters.drop(DropReason::NoSocket);
            self.break_splice(id);
            self.remove(id);
        }
    }
}

fn violation(why: &str) -> RunError {
    RunError::Peer("monitor", ReceiveError::Violation(why.to_owned()))
}
