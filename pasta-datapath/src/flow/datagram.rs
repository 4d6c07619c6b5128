//! Flows of datagrams: UDP that the namespace opens, UDP that begins at a listener, and echo.
//!
//! **Opened by the namespace**: one flow for each pair of endpoints. Its source port on the host is the one that is
//! forwarded to the namespace's, else the namespace's own where it can be had, and any other where not; all peers of
//! a source port see the same one ([`crate::port_forward::mappings`]). So a flow goes through the listener of its
//! port, or through a socket that it shares with others of that port, or has a connected socket of its own. Replies
//! are taken from the peer only (RFC 4787 calls it address and port dependent filtering). When the host has lost the
//! address that a flow's own socket sends from, the next datagram of the flow gets a new socket; so do queries when
//! another resolver is to be asked, and the answer of the old one is waited for a little longer.
//!
//! **Echo**: the same for each program that pings one address, over a ping socket (icmp(7)). The kernel lets us
//! have one only if our group is in `net.ipv4.ping_group_range` of the host; where it is not, requests are
//! counted drops and the log says once what to change.
//!
//! **Begun at a listener**, on the host or on the namespace's loopback: the listener is one socket for all its
//! peers, so each flow remembers from whom and to which address its first datagram came, and answers leave from
//! there. The other end is the namespace behind the tap, or a connected socket of the flow's own. Listeners
//! survive every change of addresses, and so do the flows. Until a socket that was asked for is there, datagrams
//! wait, up to a bound; beyond it they are counted drops, as they would be in a socket's own queue.
//!
//! Datagrams of one flow and equal size that are there already are moved together ([`batch`]). A flow ends by
//! time alone ([`lifetime`]).

pub mod batch;
mod by_listener;
pub mod errors;
pub mod lifetime;
pub mod local;
pub mod queued_error;
mod reported;
pub mod send_options;

use super::{Context, Facts, FlowEvent, FlowKey, Next, Outcome, Readiness};
use crate::counters::DropReason;
use crate::flow::evict::{Group, Opener, Stage, Takes};
use crate::flow::source_check::SourceCheck;
use crate::link::writer::{FrameDevice, FrameWriter, Path};
use crate::nat::{Nat, Protocol, Target};
use crate::part::part;
use crate::port_forward::listeners::{DatagramAddresses, ListenSocket, ListenerId, Way};
use crate::sockets::Sockets;
use crate::time::Instant;

use crate::wire::icmp::{ECHO_HEAD, echo_reply_body, echo_reply_head, echo_request_head};
use crate::wire::ip::Handling;
use crate::wire::udp;
use batch::{Drained, Gso, largest_payload, read_all, send_one, write_to_tap};
use errors::report_unsent;
use lifetime::Lifetime;
use local::{Gone, LocalEnd, Place};
use nix::errno::Errno;
use pasta_ipc::types::{MacAddr, Mtu};
pub use queued_error::QueuedError;
use send_options::{SendOption, SendOptions};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

/// How long the answer of a resolver is waited for once another one is asked: what resolver(3) waits.
const QUERY_PENDING: Duration = Duration::from_secs(5);

/// Reads of one flow before others have a turn; chosen: as many datagrams as one frame can stand for, and half
/// as many echo replies, which are frames of their own.
const READS: usize = MAX_GROUP;
const ECHO_READS: usize = 32;

/// Most datagrams (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before 6.9) and octets of one call.
pub const MAX_GROUP: usize = 64;
const MAX_GROUP_OCTETS: usize = 65_000;

/// Octets that wait for a socket of the flow's; chosen: a few datagrams of any size.
const MAX_WAITING: usize = 128 * 1024;

/// A connected socket of datagrams. None of the calls blocks.
pub trait DatagramSocket {
    /// Sends one datagram, gathered from `slices`; with `segment_size`, several of that size at once.
    ///
    /// # Errors
    ///
    /// As sendmsg(2); `EMSGSIZE` with the next hop's MTU too small; `EINVAL` or `EIO` where the path
    /// cannot segment.
    fn send(&self, slices: &[IoSlice<'_>], segment_size: Option<u16>) -> Result<(), Errno>;

    /// Reads one datagram of `peer`, or several of one size that the kernel has joined.
    ///
    /// # Errors
    ///
    /// As recvmsg(2), `EAGAIN` if nothing is waiting; `EPROTO` for one of somebody else, which is gone: the kernel
    /// may have been about to queue it when the socket was connected.
    fn receive(&self, peer: SocketAddr, buffer: &mut [u8]) -> Result<ReadDatagrams, Errno>;

    /// Throws away what came before the socket was connected, datagrams and errors; gives how many there were. A
    /// socket is given its port first, and then everybody can send to it.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is no end to it.
    fn discard_early(&self) -> Result<u64, Errno>;

    /// The error that the socket has come to, if any, and its error queue is left as it is; asking clears it.
    fn take_pending_error(&self) -> Option<Errno>;

    /// Takes one error off the socket's queue (`IP_RECVERR`, ip(7)); `None` if there is none.
    fn take_queued_error(&self) -> Option<QueuedError>;

    /// Has datagrams to `remote` sent so from now on. Where that fails they leave as before.
    fn set_send_option(&self, remote: IpAddr, option: SendOption);

    /// The MTU of the path to `remote`; zero where it is not known.
    fn path_mtu(&self, remote: IpAddr) -> u32;

    /// Whether the host still has the address that the socket sends from. Where that cannot be found out, it
    /// has.
    fn has_its_address(&self) -> bool;
}

/// What a read of a datagram socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadDatagrams {
    /// Octets at the front of the buffer.
    pub len: usize,
    /// If they are several datagrams: the size of each but the last.
    pub segment_size: Option<u16>,
    /// Whether the buffer was too small and the rest is gone.
    pub truncated: bool,
    /// How they were carried, as far as that is known.
    pub handling: Handling,
}

/// Who sends packets of the namespace, and how they are to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The link-layer address.
    pub mac: MacAddr,
    /// What their network headers say.
    pub handling: Handling,
}

/// A datagram to send, or several that the namespace's kernel left in one; of echo, sequence number and payload
/// of a request.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// The octets.
    pub payload: &'a [u8],
    /// If it is several: the size of each but the last.
    pub segment_size: Option<u16>,
}

impl Datagram<'_> {
    /// Octets of it, or of the first.
    pub fn size(&self) -> usize {
        self.segment_size.map_or(self.payload.len(), usize::from)
    }
}

/// Why a datagram did not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The socket is full, or had an old error to report: this datagram is lost.
    Dropped(DropReason),
    /// There is no way; the namespace gets an ICMP error.
    Refused(Errno),
}

impl NotSent {
    /// The counter, where nobody can be sent an error.
    fn reason(self) -> DropReason {
        match self {
            Self::Dropped(reason) => reason,
            Self::Refused(_) => DropReason::Unreachable,
        }
    }
}

/// What becomes of answers to what was sent over a socket that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// They are waited for.
    Awaited,
    /// There will be none.
    Lost,
}

/// A flow of datagrams.
#[derive(Debug)]
pub struct DatagramFlow<K> {
    ends: Ends<K>,
    protocol: Protocol,
    lifetime: Lifetime,
    gso: Gso,
    /// Octets of the last datagram of the namespace, for errors to quote.
    last_len: u16,
}

#[derive(Debug)]
enum Ends<K> {
    /// The namespace and a host socket.
    Outbound { path: Path, host: HostEnd<K> },
    /// The namespace, which has opened it, and a socket that it shares with others; the number of the interface
    /// that it has to leave by, if it has to.
    Mapped { path: Path, listener: ListenerEnd, interface: Option<NonZeroU32> },
    /// A listener and the namespace.
    Inbound { listener: ListenerEnd, path: Path },
    /// A listener and a socket on the other side, without frames.
    Local { listener: ListenerEnd, end: LocalEnd<K> },
}

/// The host socket of a flow that the namespace has opened.
#[derive(Debug)]
pub struct HostEnd<K> {
    socket: K,
    /// What it was opened for.
    target: Target,
    source_check: SourceCheck,
    /// Socket of the resolver that was asked before, where that is, and until when.
    previous: Option<(K, SocketAddr, Instant)>,
    /// Sequence number of the last echo request, for errors to quote.
    last_sequence: [u8; 2],
    /// How it sends.
    options: SendOptions,
    /// Its queue may hold more errors.
    errors_left: bool,
}

impl<K> HostEnd<K> {
    /// `socket`, which is connected to `target`.
    pub fn new(socket: K, target: Target, source_check: SourceCheck) -> Self {
        let options = SendOptions::default();
        let (previous, last_sequence, errors_left) = (None, [0; 2], false);
        Self { socket, target, source_check, previous, last_sequence, options, errors_left }
    }
}

impl<K: DatagramSocket> HostEnd<K> {
    /// The socket, if it can go on as one of many: it is bound to no address and to no interface. One of IPv6 cannot:
    /// the kernel goes on to take what comes from its peer alone (`sk_v6_daddr` outlives `__udp_disconnect()`,
    /// net/ipv4/udp.c, in Linux 6.18).
    pub fn into_shared(mut self) -> Option<K> {
        let Target { source: None, interface: None, address } = self.target else { return None };
        self.options.reset(&self.socket, address.ip());
        address.is_ipv4().then_some(self.socket)
    }
}

/// The end of a flow at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerEnd {
    /// The listener.
    pub id: ListenerId,
    /// The ends of its datagrams there.
    pub addresses: DatagramAddresses,
}

impl<K: DatagramSocket> DatagramFlow<K> {
    fn new(now: Instant, protocol: Protocol, ends: Ends<K>) -> Self {
        let gso = Gso::new(protocol);
        let port = match &ends {
            Ends::Outbound { path, .. } | Ends::Mapped { path, .. } => path.source().port(),
            Ends::Inbound { path, .. } => path.destination().port(),
            Ends::Local { end, .. } => end.destination().port(),
        };
        let lifetime = Lifetime::new(now, protocol, port);
        Self { ends, protocol, lifetime, gso, last_len: 0 }
    }

    /// A flow that the namespace at the end of `path` opens.
    pub fn outbound(now: Instant, protocol: Protocol, path: Path, host: HostEnd<K>) -> Self {
        Self::new(now, protocol, Ends::Outbound { path, host })
    }

    /// A flow that the namespace at the end of `path` opens, through a socket that it shares, and by the interface
    /// with this number, if it has to.
    pub fn mapped(
        now: Instant,
        path: Path,
        (listener, interface): (ListenerEnd, Option<NonZeroU32>),
    ) -> Self {
        Self::new(now, Protocol::Udp, Ends::Mapped { path, listener, interface })
    }

    /// A flow of a listener to the namespace at the end of `path`.
    pub fn inbound(now: Instant, listener: ListenerEnd, path: Path) -> Self {
        Self::new(now, Protocol::Udp, Ends::Inbound { listener, path })
    }

    /// A flow of a listener to `end`, on the other side.
    pub fn local(now: Instant, listener: ListenerEnd, end: LocalEnd<K>) -> Self {
        Self::new(now, Protocol::Udp, Ends::Local { listener, end })
    }

    /// Octets of payload to the namespace and from it.
    pub fn carried(&self) -> [u64; 2] {
        let [opener, other] = self.lifetime.octets();
        let is_of_namespace = match &self.ends {
            Ends::Outbound { .. } | Ends::Mapped { .. } => true,
            Ends::Inbound { .. } => false,
            Ends::Local { end, .. } => end.place() == local::Place::Host,
        };
        if is_of_namespace { [other, opener] } else { [opener, other] }
    }

    /// The end at a listener, if it begins there.
    pub fn listener(&self) -> Option<ListenerEnd> {
        match &self.ends {
            Ends::Outbound { .. } | Ends::Mapped { .. } => None,
            Ends::Inbound { listener, .. } | Ends::Local { listener, .. } => Some(*listener),
        }
    }

    /// The end at a socket that it shares, if the namespace has opened it.
    pub fn mapping(&self) -> Option<ListenerEnd> {
        match &self.ends {
            Ends::Mapped { listener, .. } => Some(*listener),
            _ => None,
        }
    }

    /// The end in the namespace, if that has opened it.
    pub fn opened_from(&self) -> Option<SocketAddr> {
        match &self.ends {
            Ends::Outbound { path, .. } | Ends::Mapped { path, .. } => Some(path.destination()),
            Ends::Inbound { .. } | Ends::Local { .. } => None,
        }
    }

    /// The other end, as the namespace has it, if that has opened it.
    pub fn remote(&self) -> Option<SocketAddr> {
        match &self.ends {
            Ends::Outbound { path, .. } | Ends::Mapped { path, .. } => Some(path.source()),
            Ends::Inbound { .. } | Ends::Local { .. } => None,
        }
    }

    /// Its host socket and what that was opened for, if it has one of its own.
    pub fn own_socket(&self) -> Option<(&K, &Target)> {
        match &self.ends {
            Ends::Outbound { host, .. } => Some((&host.socket, &host.target)),
            _ => None,
        }
    }

    /// Its way to the namespace, if that is by frames.
    pub fn path_mut(&mut self) -> Option<&mut Path> {
        match &mut self.ends {
            Ends::Outbound { path, .. }
            | Ends::Mapped { path, .. }
            | Ends::Inbound { path, .. } => Some(path),
            Ends::Local { .. } => None,
        }
    }

    /// Whether the namespace has opened it.
    pub fn is_outbound(&self) -> bool {
        self.opened_from().is_some()
    }

    /// Which others it is like for who goes first.
    pub fn group(&self) -> Group {
        let (opener, takes) = match (&self.ends, self.protocol) {
            (Ends::Outbound { .. }, Protocol::Echo) => (Opener::Namespace, Takes::Identifier),
            (Ends::Outbound { .. }, _) => (Opener::Namespace, Takes::Port),
            (Ends::Mapped { .. }, _) => (Opener::Namespace, Takes::Nothing),
            (Ends::Inbound { .. }, _) => (Opener::Host, Takes::Nothing),
            (Ends::Local { end, .. }, _) => match end.place() {
                Place::Host => (Opener::Namespace, Takes::Port),
                Place::Namespace => (Opener::Host, Takes::Nothing),
            },
        };
        let is_two_way = self.lifetime.is_two_way();
        let stage = if is_two_way { Stage::TwoWay } else { Stage::OneWay };
        Group { opener, stage, takes }
    }

    /// Goes on through a socket that it shares; its own one is closed.
    pub fn share(
        &mut self,
        (listener, interface): (ListenerEnd, Option<NonZeroU32>),
    ) -> Option<HostEnd<K>> {
        let Ends::Outbound { path, .. } = &self.ends else { return None };
        let mapped = Ends::Mapped { path: *path, listener, interface };
        self.gso = Gso::new(self.protocol);
        match std::mem::replace(&mut self.ends, mapped) {
            Ends::Outbound { host, .. } => Some(host),
            Ends::Mapped { .. } | Ends::Inbound { .. } | Ends::Local { .. } => None,
        }
    }

    /// Where a socket is wanted for.
    pub fn wanted_destination(&self) -> Option<SocketAddr> {
        match &self.ends {
            Ends::Local { end, .. } => end.wanted_destination(),
            _ => None,
        }
    }

    /// What the namespace takes the target for, and which address was asked.
    pub fn resolver(&self) -> Option<(SocketAddr, IpAddr)> {
        match &self.ends {
            Ends::Outbound { path, host } => Some((path.source(), host.target.address.ip())),
            _ => None,
        }
    }

    /// Whether it is time to see if the host socket is still good: whether the host still has its address, and
    /// it leads to the resolver that is asked.
    #[inline]
    pub fn source_check_due(&self, now: Instant, revision: u64) -> bool {
        match &self.ends {
            Ends::Outbound { host, .. } => host.source_check.is_due(now, revision),
            _ => false,
        }
    }

    /// Looks at the host socket, while `resolver` is what is asked for the flow's destination; gives what the
    /// socket is to be replaced by, if it is.
    pub fn check_source(
        &mut self,
        now: Instant,
        revision: u64,
        resolver: Option<Target>,
    ) -> Option<(Target, Pending)> {
        let Ends::Outbound { host, .. } = &mut self.ends else { return None };
        if let Some(other) = resolver.filter(|it| *it != host.target) {
            return Some((other, Pending::Awaited));
        }
        if host.socket.has_its_address() {
            host.source_check.confirm(now, revision);
            return None;
        }
        Some((host.target.clone(), Pending::Lost))
    }

    /// Goes on over another socket. With [`Pending::Awaited`] the answer to what was sent over the one
    /// before is waited for.
    pub fn replace_socket(&mut self, now: Instant, new: HostEnd<K>, pending: Pending) {
        let Ends::Outbound { host, .. } = &mut self.ends else { return };
        let before = std::mem::replace(host, new);
        let awaited = pending == Pending::Awaited && !self.lifetime.is_two_way();
        let asked = before.target.address;
        host.previous = awaited.then_some((before.socket, asked, now + QUERY_PENDING));
        host.last_sequence = before.last_sequence;
        self.lifetime.begin_again();
        self.gso = Gso::new(self.protocol);
    }

    /// When the flow ends unless something happens before.
    pub fn deadline(&self) -> Instant {
        self.lifetime.deadline()
    }

    /// Takes in what happened to this flow and does all that follows from it now.
    #[inline]
    pub fn on_event<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        event: FlowEvent<'_, K>,
    ) -> Outcome
    where
        K: ListenSocket,
    {
        let mut facts = Facts::default();
        let next = match event {
            FlowEvent::Opened => self.at_local_end(|end, gso| end.want(cx, gso, &mut facts)),
            FlowEvent::Datagrams(sender, group) => match &self.ends {
                Ends::Outbound { .. } => self.send(cx, sender, group, &mut facts),
                Ends::Mapped { .. } | Ends::Inbound { .. } => {
                    self.send_by_listener(cx, sender, group)
                }
                Ends::Local { .. } => Next::Wait,
            },
            FlowEvent::Arrived(read, octets) => self.arrived(cx, &mut facts, read, octets),
            FlowEvent::Socket(_, readiness) => {
                let mut errors = Next::Wait;
                if readiness.has(Readiness::FAILED) {
                    errors = self.report_errors(cx, &mut facts);
                    if self.at_local_end(|end, gso| end.check(cx, gso, &mut facts)) == Next::Over {
                        errors = Next::Over;
                    }
                }
                self.receive_beside(cx, &mut facts, errors)
            }
            FlowEvent::Turn => {
                let errors = self.report_left(cx, &mut facts);
                self.receive_beside(cx, &mut facts, errors)
            }
            FlowEvent::Error(error) => self.report_error(cx, error),
            FlowEvent::Reported(report) => self.reported(report),
            FlowEvent::Target(socket) => {
                self.at_local_end(|end, gso| end.set_socket(cx, gso, &mut facts, socket))
            }
            FlowEvent::Deadline if self.deadline() <= cx.now => Next::Over,
            FlowEvent::Abort | FlowEvent::Evicted => Next::Over,
            FlowEvent::Deadline | FlowEvent::CreditFree | FlowEvent::Payloads(_) => Next::Wait,
        };
        Outcome { next, deadline: Some(self.deadline()), sent: 0, facts }
    }

    /// Sends what the namespace sends.
    fn send<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        Sender { mac, handling }: Sender,
        group: &[Datagram<'_>],
        facts: &mut Facts,
    ) -> Next {
        self.note_last(group);
        let Self { ends, protocol, gso, lifetime, .. } = self;
        let Ends::Outbound { path, host } = ends else { return Next::Wait };
        lifetime.sent(cx.now);
        group.iter().for_each(|it| lifetime.query(it.payload, it.segment_size));
        host.source_check.sent(cx.now);
        path.set_mac(mac);
        let (remote, key) = (path.source().ip(), key_of(*protocol, path));
        let octets =
            largest(group) + if *protocol == Protocol::Echo { ECHO_HEAD } else { udp::LEN };
        host.options.apply(&host.socket, host.target.address.ip(), handling, octets);
        let mut doubtful = false;
        let failed = |datagram: &Datagram<'_>, why| {
            let errno = match why {
                NotSent::Dropped(reason) => return cx.tap.counters.drop(reason),
                NotSent::Refused(errno) => errno,
            };
            // The socket's own address has gone: the next datagram gets another socket.
            if errno == Errno::EINVAL {
                doubtful = true;
                return cx.tap.counters.drop(DropReason::Unreachable);
            }
            facts.target_failed |= errno != Errno::EMSGSIZE;
            let target = host.target.address;
            let mtu = match errno {
                Errno::EMSGSIZE => host.socket.path_mtu(target.ip()),
                _ => 0,
            };
            let is_reported = report_unsent(cx, (&key, mac), datagram, (errno, target, mtu));
            cx.tap.counters.drop(match (is_reported, *protocol) {
                (false, Protocol::Echo) => DropReason::SocketFull,
                _ => DropReason::Unreachable,
            });
        };
        match protocol {
            Protocol::Echo => {
                let head = echo_request_head(remote);
                if let Some(sequence) = group.last().and_then(|last| last.payload.first_chunk()) {
                    host.last_sequence = *sequence;
                }
                let send = |slices: &[IoSlice<'_>], _| {
                    let body: &[u8] = slices.first().map_or(&[], |slice| slice);
                    host.socket.send(&[IoSlice::new(&head), IoSlice::new(body)], None)
                };
                gso.send(group, send, failed);
            }
            Protocol::Udp | Protocol::Tcp => {
                gso.send(group, |slices, size| host.socket.send(slices, size), failed);
            }
        }
        if doubtful {
            host.source_check.doubt();
        }
        Next::Wait
    }

    /// Whether it goes to a port of DNS.
    fn asks_for_names(&self) -> bool {
        self.remote().is_some_and(|remote| Nat::is_dns_port(remote.port()))
    }

    /// Notes how long the last datagram of `group` is.
    fn note_last(&mut self, group: &[Datagram<'_>]) {
        let len = group.last().map_or(0, Datagram::size);
        self.last_len = u16::try_from(len).unwrap_or(u16::MAX);
    }

    /// Runs `act` on the end of the flow on the other side.
    fn at_local_end(
        &mut self,
        act: impl FnOnce(&mut LocalEnd<K>, &mut Gso) -> Result<(), Gone>,
    ) -> Next {
        let Ends::Local { end, .. } = &mut self.ends else { return Next::Wait };
        match act(end, &mut self.gso) {
            Ok(()) => Next::Wait,
            Err(Gone) => Next::Over,
        }
    }

    /// Receives, where its errors do not end the flow, and goes on if there may be more of either.
    fn receive_beside<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        facts: &mut Facts,
        errors: Next,
    ) -> Next
    where
        K: ListenSocket,
    {
        if errors == Next::Over {
            return errors;
        }
        let received = self.receive(cx, facts);
        if received == Next::Wait { errors } else { received }
    }

    /// Moves what the flow's own socket has received to the other end, datagrams of one size together.
    fn receive<S: Sockets<Socket = K>>(
        &mut self,
        cx: &mut Context<'_, S>,
        facts: &mut Facts,
    ) -> Next
    where
        K: ListenSocket,
    {
        let Self { ends, protocol, lifetime, .. } = self;
        let drained = match ends {
            Ends::Outbound { path, host } if *protocol == Protocol::Echo => {
                let (namespace, peer) = (path.destination(), host.target.address);
                let head = |body: &[u8]| {
                    let (from, to) = (path.source().ip(), namespace.ip());
                    echo_reply_head(from, to, namespace.port(), body)
                };
                read_all((&host.socket, peer), ECHO_READS, 0, cx.scratch, |read, octets| {
                    if let Some(body) = echo_reply_body(octets) {
                        lifetime.answer(body, None);
                        let path = path.carried(read.handling);
                        cx.tap.write_large_icmp(&path, cx.mtu, &head(body), body);
                    }
                })
            }
            Ends::Outbound { path, host } => {
                host.receive_late(cx.now, &mut cx.tap, path, cx.mtu, cx.scratch);
                let (most, peer) = (largest_payload(path, cx.mtu), host.target.address);
                read_all((&host.socket, peer), READS, most, cx.scratch, |read, octets| {
                    lifetime.answer(octets, read.segment_size);
                    write_to_tap(&mut cx.tap, path, cx.mtu, read, octets);
                })
            }
            Ends::Local { listener, end } => {
                let Some(socket) = end.socket() else { return Next::Wait };
                let Some(out) = cx.listeners.socket(listener.id) else { return Next::Over };
                let (addresses, interface) = (listener.addresses, None);
                let way = Way { addresses, interface, handling: Handling::DEFAULT };
                let send = |slices: &[IoSlice<'_>], size| out.send_from(&way, slices, size);
                read_all(
                    (socket, end.destination()),
                    READS,
                    usize::MAX,
                    cx.scratch,
                    |read, octets| {
                        lifetime.answer(octets, read.segment_size);
                        let datagram =
                            Datagram { payload: octets, segment_size: read.segment_size };
                        if let Err(why) = send_one(&datagram, &send) {
                            cx.tap.counters.drop(why.reason());
                        }
                    },
                )
            }
            Ends::Mapped { .. } | Ends::Inbound { .. } => Drained::NOTHING,
        };
        let Drained { next, datagrams, strangers } = drained;
        (0..strangers).for_each(|_| cx.tap.counters.drop(DropReason::NoFlow));
        cx.tap.counters.datagrams_in += datagrams;
        if datagrams > 0 {
            facts.answered = self.asks_for_names();
            self.lifetime.answered(cx.now);
            match &mut self.ends {
                Ends::Outbound { host, .. } => host.source_check.answered(),
                Ends::Local { end, .. } => end.answered(),
                Ends::Mapped { .. } | Ends::Inbound { .. } => {}
            }
        }
        next
    }
}

impl<K: DatagramSocket> HostEnd<K> {
    /// Takes what the resolver that was asked before has to say, once; its time may be over.
    fn receive_late<D: FrameDevice>(
        &mut self,
        now: Instant,
        tap: &mut FrameWriter<'_, D>,
        path: &mut Path,
        mtu: Mtu,
        buffer: &mut [u8],
    ) {
        let Some((socket, asked, until)) = &self.previous else { return };
        match socket.receive(*asked, buffer) {
            Ok(read) => {
                let octets = part(buffer, ..read.len);
                write_to_tap(tap, path, mtu, read, octets);
            }
            Err(Errno::EAGAIN) if now < *until => return,
            Err(_) => {}
        }
        self.previous = None;
    }
}

/// Octets of the largest datagram of a group.
fn largest(group: &[Datagram<'_>]) -> usize {
    group.iter().map(Datagram::size).max().unwrap_or(0)
}

/// The key of a flow that the namespace at the end of `path` has opened.
fn key_of(protocol: Protocol, path: &Path) -> FlowKey {
    FlowKey { protocol, namespace: path.destination(), remote: path.source() }
}
