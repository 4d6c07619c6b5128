//! A host's kernel that is not there: a socket is a few queues that a test fills and reads, the tap a list of
//! frames. The stack over it has no descriptor.

#![allow(dead_code, reason = "shared by tests that each use a part of it")]
#![allow(unreachable_pub, reason = "shared with the fuzz crate")]

pub mod rig;

use nix::errno::Errno;
use pasta_datapath::counters::DropReason;
use pasta_datapath::flow::datagram::send_options::SendOption;
use pasta_datapath::flow::datagram::{DatagramSocket, QueuedError, ReadDatagrams};
use pasta_datapath::flow::splice::StreamSocket;
use pasta_datapath::flow::splice::pipes::Splicing;
use pasta_datapath::flow::tcp::relay::HostSocket;
use pasta_datapath::flow::{FlowId, FlowKey, Side};
use pasta_datapath::link::writer::{FrameDevice, ReadError};
use pasta_datapath::nat::{Protocol, Target};
use pasta_datapath::port_forward::listeners::{DatagramAddresses, ListenSocket, Way};
use pasta_datapath::sockets::{Connecting, Interest, Progress, Sockets};
use pasta_datapath::sys::send_buffer::SendBuffer;
use pasta_datapath::token::Token;
use pasta_datapath::wire::ip::Handling;
use pasta_ipc::socket::{ListenerAddress, SocketFamily, SocketKind};
use pasta_ipc::types::{IfName, TapOffloads, Transport};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::rc::Rc;

/// What both the stack and a test hold.
pub type Shared<T> = Rc<RefCell<T>>;

/// One socket, as its far end sees it.
#[derive(Debug)]
pub struct State {
    /// What its events are reported under.
    pub token: Option<Token>,
    /// What it is connected to.
    pub peer: Option<SocketAddr>,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// Octets of a stream that are waiting to be read, and whether its end is behind them.
    pub incoming: VecDeque<u8>,
    pub ended: bool,
    /// Octets of a stream that were written, and how many more may be.
    pub outgoing: Vec<u8>,
    pub takes: usize,
    pub shut_down: bool,
    /// Datagrams that are waiting to be read, and that were sent.
    pub datagrams: VecDeque<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    /// What sending fails with.
    pub send_error: Option<Errno>,
    /// Whether an error is pending as soon as something was sent: nobody listens there.
    pub refuses: bool,
    pub error: Option<Errno>,
    pub queued_errors: VecDeque<QueuedError>,
    pub has_its_address: bool,
    /// Connections that wait to be accepted, and datagrams of a listener, in and out.
    pub connections: VecDeque<(Socket, SocketAddr)>,
    pub arrivals: VecDeque<(DatagramAddresses, Vec<u8>)>,
    pub answers: Vec<(DatagramAddresses, Vec<u8>)>,
    /// How datagrams that come are carried.
    pub carried: Handling,
    /// Hop limit and traffic class of each answer, and options that were set, for which peer.
    pub handled: Vec<Handling>,
    pub options: Vec<(IpAddr, SendOption)>,
    /// The interface that the last datagram of a listener had to leave by.
    pub interface: Option<NonZeroU32>,
    /// Errors that others have earned: each is what the next datagram that a listener sends fails with.
    pub earned: VecDeque<Errno>,
    /// Errors of what was sent from a listener, and where that went.
    pub errors_of: VecDeque<(QueuedError, Option<SocketAddr>)>,
    /// Whether closing it sends a reset, and whether it is closed.
    pub resets: bool,
    pub closed: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            token: None,
            peer: None,
            local: None,
            incoming: VecDeque::new(),
            ended: false,
            outgoing: Vec::new(),
            takes: usize::MAX,
            shut_down: false,
            datagrams: VecDeque::new(),
            sent: Vec::new(),
            send_error: None,
            refuses: false,
            error: None,
            queued_errors: VecDeque::new(),
            has_its_address: true,
            connections: VecDeque::new(),
            arrivals: VecDeque::new(),
            answers: Vec::new(),
            carried: Handling::TO_NAMESPACE,
            handled: Vec::new(),
            options: Vec::new(),
            interface: None,
            earned: VecDeque::new(),
            errors_of: VecDeque::new(),
            resets: false,
            closed: false,
        }
    }
}

impl State {
    /// The flow and the side that its events are about.
    pub fn flow(&self) -> (FlowId, Side) {
        match self.token {
            Some(Token::Flow(id, side)) => (id, side),
            other => panic!("no socket of a flow: {other:?}"),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        let len = self.incoming.len().min(into.len());
        for (to, from) in into.iter_mut().zip(self.incoming.drain(..len)) {
            *to = from;
        }
        len
    }

    fn write(&mut self, octets: &[u8]) -> usize {
        let len = octets.len().min(self.takes);
        self.takes -= if self.takes == usize::MAX { 0 } else { len };
        self.outgoing.extend_from_slice(&octets[..len]);
        len
    }
}

/// The stack's end of a socket; dropping it closes it.
#[derive(Debug)]
pub struct Socket(pub Shared<State>);

impl Socket {
    /// A socket, and what a test sees of it.
    pub fn new() -> (Self, Shared<State>) {
        let state = Shared::<State>::default();
        (Self(Rc::clone(&state)), state)
    }

    /// One that is connected: its own address, and its peer's.
    pub fn connected(local: SocketAddr, peer: SocketAddr) -> (Self, Shared<State>) {
        let (socket, state) = Self::new();
        (state.borrow_mut().local, state.borrow_mut().peer) = (Some(local), Some(peer));
        (socket, state)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl DatagramSocket for Socket {
    fn send(&self, slices: &[IoSlice<'_>], segment_size: Option<u16>) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        if let Some(errno) = state.send_error {
            return Err(errno);
        }
        // One that is pending is that of an earlier datagram.
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        if state.refuses {
            state.error = Some(Errno::ECONNREFUSED);
        }
        let octets: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        match segment_size {
            Some(size) => state.sent.extend(octets.chunks(size.into()).map(<[u8]>::to_vec)),
            None => state.sent.push(octets),
        }
        Ok(())
    }

    fn receive(&self, peer: SocketAddr, buffer: &mut [u8]) -> Result<ReadDatagrams, Errno> {
        let octets = self.0.borrow_mut().datagrams.pop_front().ok_or(Errno::EAGAIN)?;
        if self.0.borrow().peer != Some(peer) {
            return Err(Errno::EPROTO);
        }
        let handling = self.0.borrow().carried;
        Ok(ReadDatagrams { handling, ..copy(&octets, buffer) })
    }

    fn discard_early(&self) -> Result<u64, Errno> {
        let mut state = self.0.borrow_mut();
        let (errors, datagrams) = (state.queued_errors.len(), state.datagrams.len());
        state.queued_errors.clear();
        state.datagrams.clear();
        Ok((errors + datagrams) as u64 + u64::from(state.error.take().is_some()))
    }

    fn take_pending_error(&self) -> Option<Errno> {
        self.0.borrow_mut().error.take()
    }

    fn take_queued_error(&self) -> Option<QueuedError> {
        self.0.borrow_mut().queued_errors.pop_front()
    }

    fn set_send_option(&self, remote: IpAddr, option: SendOption) {
        self.0.borrow_mut().options.push((remote, option));
    }

    fn path_mtu(&self, _: IpAddr) -> u32 {
        1400
    }

    fn has_its_address(&self) -> bool {
        self.0.borrow().has_its_address
    }
}

fn copy(octets: &[u8], buffer: &mut [u8]) -> ReadDatagrams {
    let len = octets.len().min(buffer.len());
    buffer[..len].copy_from_slice(&octets[..len]);
    let (truncated, handling) = (len < octets.len(), Handling::TO_NAMESPACE);
    ReadDatagrams { len, segment_size: None, truncated, handling }
}

impl StreamSocket for Socket {
    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut state = self.0.borrow_mut();
        match state.read(into) {
            0 if !state.ended => Err(Errno::EAGAIN),
            len => Ok(len),
        }
    }

    fn write(&self, octets: &[u8]) -> Result<usize, Errno> {
        match self.0.borrow_mut().write(octets) {
            0 if !octets.is_empty() => Err(Errno::EAGAIN),
            len => Ok(len),
        }
    }

    fn shut_down_write(&self) {
        self.0.borrow_mut().shut_down = true;
    }

    fn take_error(&self) -> Option<Errno> {
        self.0.borrow_mut().error.take()
    }

    fn reset_on_close(&self) {
        self.0.borrow_mut().resets = true;
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.0.borrow().local
    }
}

impl ListenSocket for Socket {
    fn accept(&self) -> io::Result<(Self, SocketAddr)> {
        let next = self.0.borrow_mut().connections.pop_front();
        next.ok_or_else(|| io::Error::from_raw_os_error(Errno::EAGAIN as i32))
    }

    fn receive_from(&self, buffer: &mut [u8]) -> Result<(ReadDatagrams, DatagramAddresses), Errno> {
        let (addresses, octets) = self.0.borrow_mut().arrivals.pop_front().ok_or(Errno::EAGAIN)?;
        let handling = self.0.borrow().carried;
        Ok((ReadDatagrams { handling, ..copy(&octets, buffer) }, addresses))
    }

    fn send_from(
        &self,
        way: &Way,
        slices: &[IoSlice<'_>],
        segment_size: Option<u16>,
    ) -> Result<(), Errno> {
        let Way { addresses, interface, handling } = way;
        self.0.borrow_mut().handled.push(*handling);
        if let Some(errno) = self.0.borrow().send_error {
            return Err(errno);
        }
        if let Some(errno) = self.0.borrow_mut().earned.pop_front() {
            return Err(errno);
        }
        self.0.borrow_mut().interface = *interface;
        let octets: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let size = segment_size.map_or(octets.len().max(1), usize::from);
        let answers = &mut self.0.borrow_mut().answers;
        answers.extend(octets.chunks(size).map(|it| (*addresses, it.to_vec())));
        Ok(())
    }

    fn take_error_of(&self) -> Option<(QueuedError, Option<SocketAddr>)> {
        self.0.borrow_mut().errors_of.pop_front()
    }
}

/// A socket of a TCP flow.
pub trait TcpModel: HostSocket + std::fmt::Debug {
    /// Makes one of a connected or connecting socket.
    fn of(socket: Socket) -> Self;
}

impl TcpModel for Socket {
    fn of(socket: Socket) -> Self {
        socket
    }
}

impl HostSocket for Socket {
    fn mark(&mut self, remote: IpAddr, dscp: u8) {
        self.0.borrow_mut().options.push((remote, SendOption::TrafficClass(dscp)));
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let sent = slices.iter().map(|slice| state.write(slice)).sum();
        if sent == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(sent) }
    }

    fn send_buffer(&mut self, _least: u32) -> SendBuffer {
        let free = u32::try_from(self.0.borrow().takes).unwrap_or(1 << 20).min(1 << 20);
        SendBuffer { size: free, queued: 0 }
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        let state = self.0.borrow();
        let rest = state.incoming.iter().skip(offset as usize);
        let len = into.iter_mut().zip(rest).map(|(to, from)| *to = *from).count();
        match len {
            0 if !state.ended || into.is_empty() => Err(ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        assert!(octets as usize <= state.incoming.len(), "consumed more than there is");
        state.incoming.drain(..octets as usize);
        Ok(())
    }

    fn shut_down_write(&mut self) {
        StreamSocket::shut_down_write(self);
    }

    fn take_error(&mut self) -> Option<Errno> {
        StreamSocket::take_error(self)
    }

    fn take_queued_error(&mut self) -> Option<QueuedError> {
        DatagramSocket::take_queued_error(self)
    }

    fn keep_alive(&mut self) {}

    fn reset_on_close(&mut self) {
        StreamSocket::reset_on_close(self);
    }

    fn local_address(&self) -> Option<SocketAddr> {
        StreamSocket::local_address(self)
    }
}

/// A pipe that octets are copied through.
#[derive(Debug, Default)]
pub struct Pipe(VecDeque<u8>);

impl Splicing<Socket> for Pipe {
    fn make() -> Option<Self> {
        Some(Self::default())
    }

    fn octets(&self) -> usize {
        self.0.len()
    }

    fn fill(&mut self, from: &Socket) -> Result<usize, Errno> {
        let mut octets = vec![0; 65_536];
        let len = StreamSocket::read(from, &mut octets)?;
        self.put(&octets[..len])
    }

    fn drain(&mut self, to: &Socket) -> Result<usize, Errno> {
        let len = StreamSocket::write(to, self.0.make_contiguous())?;
        self.0.drain(..len);
        Ok(len)
    }

    fn put(&mut self, octets: &[u8]) -> Result<usize, Errno> {
        self.0.extend(octets);
        Ok(octets.len())
    }
}

/// What sees the frames to the namespace.
pub type Hook = Box<dyn FnMut(&[IoSlice<'_>])>;

/// The tap: frames to the namespace are kept, if that is wanted, or handed to a function.
pub struct Tap {
    pub offloads: TapOffloads,
    pub written: Shared<Vec<Vec<u8>>>,
    /// How many frames it does not take.
    pub refuses: usize,
    /// Sees each frame, also one that is not taken, instead of its being kept.
    pub hook: Option<Hook>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("offloads", &self.offloads).finish_non_exhaustive()
    }
}

impl Tap {
    pub fn new(offloads: TapOffloads) -> Self {
        Self { offloads, written: Shared::default(), refuses: 0, hook: None }
    }
}

impl FrameDevice for Tap {
    fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    fn read(&mut self, _: &mut [u8]) -> Result<usize, ReadError> {
        Err(ReadError::WouldBlock)
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<(), DropReason> {
        if let Some(hook) = &mut self.hook {
            hook(slices);
        }
        if self.refuses > 0 {
            self.refuses -= 1;
            return Err(DropReason::TapFull);
        }
        if self.hook.is_none() {
            let frame = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.written.borrow_mut().push(frame);
        }
        Ok(())
    }
}

/// A socket that the stack has opened.
#[derive(Clone, Debug)]
pub struct Opened {
    pub protocol: Protocol,
    pub target: Target,
    pub port: Option<u16>,
    pub handling: Handling,
    pub state: Shared<State>,
}

/// The kernel.
#[derive(Debug)]
pub struct Kernel<T = Socket> {
    /// Sockets that were opened, in order.
    pub opened: Vec<Opened>,
    /// Listeners that were opened.
    pub listeners: Vec<(ListenerAddress, Shared<State>)>,
    /// Sockets of the namespace that were connected, to where.
    pub connected: Vec<(SocketAddr, Shared<State>)>,
    /// How the next calls that connect end; connected if there is nothing here.
    pub answers: VecDeque<Result<Progress, Errno>>,
    /// What comes to the next sockets of datagrams before they are connected.
    pub early: Vec<Vec<u8>>,
    /// The host's own addresses, where that matters.
    pub addresses: Vec<IpAddr>,
    /// Where nobody takes datagrams.
    pub closed_ports: Vec<SocketAddr>,
    /// Whether connected sockets can be unconnected; as in a kernel that cannot, they are replaced.
    pub unconnects: bool,
    /// What opening a listener fails with.
    pub listen_error: Option<Errno>,
    /// What initial sequence numbers are counted from.
    pub isn: u32,
    /// The sockets of the next TCP flows, if they are not made of what was opened.
    pub tcp: VecDeque<T>,
    /// Flows for which an event for free space was asked for.
    pub rearmed: Vec<FlowId>,
}

impl<T> Default for Kernel<T> {
    fn default() -> Self {
        Self {
            opened: Vec::new(),
            listeners: Vec::new(),
            connected: Vec::new(),
            answers: VecDeque::new(),
            early: Vec::new(),
            addresses: Vec::new(),
            closed_ports: Vec::new(),
            unconnects: false,
            listen_error: None,
            isn: 0,
            tcp: VecDeque::new(),
            rearmed: Vec::new(),
        }
    }
}

/// Whether a socket at this address takes IPv4, and whether it takes IPv6.
fn families_of(address: Option<IpAddr>) -> (bool, bool) {
    (address.is_none_or(|it| it.is_ipv4()), address.is_none_or(|it| it.is_ipv6()))
}

impl<T> Kernel<T> {
    /// Whether a UDP socket has this port in one of the families.
    fn is_taken(&self, port: u16, (v4, v6): (bool, bool)) -> bool {
        let meets = |(its_v4, its_v6): (bool, bool)| its_v4 && v4 || its_v6 && v6;
        let listens = self.listeners.iter().any(|(at, state)| {
            let is_there = at.transport == Transport::Udp && at.port.get() == port;
            is_there && meets(families_of(at.address)) && !state.borrow().closed
        });
        let has_it = |state: &State| {
            let local = state.local.filter(|local| !state.closed && local.port() == port);
            local.is_some_and(|local| meets((local.is_ipv4(), local.is_ipv6())))
        };
        let udp = |it: &&Opened| it.protocol == Protocol::Udp;
        listens || self.opened.iter().filter(udp).any(|it| has_it(&it.state.borrow()))
    }
}

impl<T: TcpModel> Sockets for Kernel<T> {
    type Socket = Socket;
    type Tcp = T;
    type Pipe = Pipe;
    type Tap = Tap;

    fn open(
        &mut self,
        protocol: Protocol,
        target: &Target,
        port: Option<u16>,
        handling: Handling,
    ) -> Result<Connecting<Socket>, Errno> {
        let progress = self.answers.pop_front().unwrap_or(Ok(Progress::Connected))?;
        let (socket, state) = Socket::new();
        state.borrow_mut().peer = Some(target.address);
        let v4 = target.address.is_ipv4();
        // As one that the kernel picks.
        let picked = 40_000 + (self.opened.len() % 25_000) as u16;
        let own = port.filter(|port| *port != 0 && !self.is_taken(*port, (v4, !v4)));
        let any = if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        state.borrow_mut().local = Some(SocketAddr::new(any, own.unwrap_or(picked)));
        state.borrow_mut().refuses = self.closed_ports.contains(&target.address);
        state.borrow_mut().datagrams.extend(self.early.iter().cloned());
        let target = target.clone();
        self.opened.push(Opened { protocol, target, port, handling, state });
        Ok(Connecting { socket, progress })
    }

    fn connect(
        &mut self,
        socket: &Socket,
        _: Transport,
        destination: SocketAddr,
        _: u16,
    ) -> Result<Progress, Errno> {
        let progress = self.answers.pop_front().unwrap_or(Ok(Progress::Connected))?;
        socket.0.borrow_mut().refuses = self.closed_ports.contains(&destination);
        socket.0.borrow_mut().peer = Some(destination);
        socket.0.borrow_mut().datagrams.extend(self.early.iter().cloned());
        self.connected.push((destination, Rc::clone(&socket.0)));
        Ok(progress)
    }

    fn has_address(&mut self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    fn interface_index(&mut self, interface: &IfName) -> Option<NonZeroU32> {
        let known = ["lo", "eth0", "eth1"].iter().position(|name| interface.as_str() == *name)?;
        NonZeroU32::new(known as u32 + 1)
    }

    fn tcp(&mut self, socket: Socket, _: SocketAddr) -> T {
        self.tcp.pop_front().unwrap_or_else(|| T::of(socket))
    }

    fn listen(&mut self, at: &ListenerAddress, _: SocketFamily) -> Result<Socket, Errno> {
        if let Some(errno) = self.listen_error {
            return Err(errno);
        }
        let is_udp = at.transport == Transport::Udp;
        if is_udp && self.is_taken(at.port.get(), families_of(at.address)) {
            return Err(Errno::EADDRINUSE);
        }
        let (socket, state) = Socket::new();
        self.listeners.push((at.clone(), state));
        Ok(socket)
    }

    fn prepare_listener(&mut self, _: &Socket, _: Transport) -> Result<(), Errno> {
        Ok(())
    }

    fn is_of(&self, _: &Socket, _: SocketKind) -> bool {
        true
    }

    fn watch(&mut self, socket: &Socket, token: Token, _: Interest) -> Result<(), Errno> {
        socket.0.borrow_mut().token = Some(token);
        Ok(())
    }

    fn unconnect(&mut self, socket: &Socket, token: Token) -> Result<(), Errno> {
        if !self.unconnects {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = socket.0.borrow_mut();
        (state.peer, state.token) = (None, Some(token));
        Ok(())
    }

    fn isn_offset(&self, _: &FlowKey) -> u32 {
        self.isn
    }

    fn rearm(&mut self, _: &T, flow: FlowId) -> Result<(), Errno> {
        self.rearmed.push(flow);
        Ok(())
    }
}
