#![forbid(unsafe_code)]
//! What a flow is, how it is named, and the contract of every kind: an event in, an [`Outcome`] out.
//!
//! A flow does all that follows from an event itself, with what a [`Context`] lends it. What concerns others (its
//! turn, its timer, its end, sockets of the namespace) is in the outcome, which the stack settles.

pub mod datagram;
pub mod evict;
pub mod flows;
pub mod refuse;
pub mod schedule;
pub mod source_check;
pub mod splice;
pub mod table;
pub mod tcp;

use crate::link::classify::ErrorReport;
use crate::link::writer::{FrameWriter, Path};
use crate::nat::{Nat, Protocol};
use crate::port_forward::listeners::Listeners;
use crate::sockets::{Connecting, Sockets};
use crate::time::Instant;
use datagram::{Datagram, DatagramFlow, QueuedError, ReadDatagrams, Sender};
use evict::{Group, Opener, Stage, Takes};
use pasta_ipc::types::Mtu;
use splice::SpliceFlow;
use splice::pipes::Pipes;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use tcp::flow::TcpFlow;
use tcp::window::CreditPool;

/// How a frame finds its flow: both ends as the namespace sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// What is carried.
    pub protocol: Protocol,
    /// The end in the namespace; the port of an echo flow is its identifier.
    pub namespace: SocketAddr,
    /// The other end, before translation; the port of an echo flow is 0.
    pub remote: SocketAddr,
}

/// The name of a flow. It outlives the flow harmlessly: the table knows an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    index: u32,
    life: u32,
}

impl FlowId {
    /// Lives begin again after this one, so that other tokens are free.
    pub const MAX_LIFE: u32 = u32::MAX >> 1;

    /// As a number, for the kernel to give back.
    pub fn as_token(self) -> u64 {
        u64::from(self.life) << 32 | u64::from(self.index)
    }

    /// The name that [`FlowId::as_token`] made a number of.
    pub fn from_token(token: u64) -> Self {
        // Both halves are 32 bits.
        Self { index: token as u32, life: (token >> 32) as u32 }
    }
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that opened it: for a splice, the socket that was accepted.
    Initiating,
    /// The one that we connected.
    Target,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Initiating => Self::Target,
            Self::Target => Self::Initiating,
        }
    }
}

/// What has happened to a socket; several at once are possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness(u8);

impl Readiness {
    /// It may be read.
    pub const READABLE: Self = Self(1);
    /// It may be written.
    pub const WRITABLE: Self = Self(2);
    /// The peer has ended its direction.
    pub const ENDED: Self = Self(4);
    /// The peer has sent urgent data, where a read ends short of what there is.
    pub const URGENT: Self = Self(8);
    /// It has failed, or has an error to report.
    pub const FAILED: Self = Self(16);

    /// This and `other`, if `is_set`.
    #[must_use]
    pub const fn with(self, other: Self, is_set: bool) -> Self {
        if is_set { Self(self.0 | other.0) } else { self }
    }

    /// Whether `other` is part of it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What has happened to a flow.
#[derive(Debug)]
pub enum FlowEvent<'a, K> {
    /// It is in the table.
    Opened,
    /// A batch of segments is over; what was noted to be taken of them.
    Payloads(&'a [IoSlice<'a>]),
    /// Datagrams of the namespace.
    Datagrams(Sender, &'a [Datagram<'a>]),
    /// Datagrams that came to the flow's listener.
    Arrived(ReadDatagrams, &'a [u8]),
    /// An error came back for a datagram that it has sent through its listener.
    Error(&'a QueuedError),
    /// An error of the namespace came back for a packet of it.
    Reported(&'a ErrorReport),
    /// Something happened to the socket of a side.
    Socket(Side, Readiness),
    /// The socket that it wanted for its target.
    Target(TargetSocket<K>),
    /// Its turn in the run queue.
    Turn,
    /// Its deadline may have passed.
    Deadline,
    /// Window credit is free.
    CreditFree,
    /// It has to end, for both sides.
    Abort,
    /// It has to make room for another.
    Evicted,
}

/// A socket for a flow's target.
#[derive(Debug)]
pub enum TargetSocket<K> {
    /// One of the namespace, which is to be connected.
    Namespace(K),
    /// One of the host, which connects.
    Host(Connecting<K>),
}

/// What is to become of a flow after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for the next event.
    Wait,
    /// It has more to do than its share of this turn.
    More,
    /// It has ended, and nothing is left to do for it.
    Over,
    /// It was broken off: its sockets are to be closed with a reset.
    Reset,
}

/// What the stack is to do with a flow that has had an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// Whether it waits, has more to do, or is over.
    pub next: Next,
    /// When [`FlowEvent::Deadline`] is due.
    pub deadline: Option<Instant>,
    /// Octets that have gone to the namespace for the first time.
    pub sent: u32,
    /// Facts for others.
    pub facts: Facts,
}

/// Facts for others than the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its window is to grow when window credit is free; then [`FlowEvent::CreditFree`].
    pub credit_wanted: bool,
    /// A socket of the namespace is wanted ([`FlowEvent::Target`]).
    pub socket_wanted: bool,
    /// A segment was not acknowledged in time.
    pub retransmitted: bool,
    /// Its target has met a hard error; if it is a resolver ([`Flow::resolver`]), the next one is to be asked.
    pub target_failed: bool,
    /// A datagram came from a port of DNS: if its other end stands for a resolver ([`DatagramFlow::remote`]), that has
    /// answered.
    pub answered: bool,
}

impl Outcome {
    /// `next`, and nothing else.
    pub fn of(next: Next) -> Self {
        Self { next, deadline: None, sent: 0, facts: Facts::default() }
    }
}

/// What a flow may use while it handles an event.
#[derive(Debug)]
pub struct Context<'a, S: Sockets> {
    /// The time.
    pub now: Instant,
    /// The flow's own name.
    pub id: FlowId,
    /// Most octets that it may move to the namespace.
    pub quantum: usize,
    /// The host's kernel.
    pub sockets: &'a mut S,
    /// Frames to the namespace.
    pub tap: FrameWriter<'a, S::Tap>,
    /// The tap's MTU.
    pub mtu: Mtu,
    /// Address policy, as it is.
    pub nat: &'a Nat,
    /// Listeners, for answers that leave by one.
    pub listeners: &'a Listeners<S::Socket>,
    /// Pipes, borrowed by splices.
    pub pipes: &'a mut Pipes<S::Pipe>,
    /// The limits that all TCP connections share.
    pub credit: &'a mut CreditPool,
    /// Where octets are read to; its contents are of no use afterwards.
    pub scratch: &'a mut [u8],
}

/// A flow of any kind.
#[derive(Debug)]
pub enum Flow<S: Sockets> {
    // Boxed, so that the table pays for the flows that it has and for no largest kind.
    /// A TCP connection of the namespace.
    Tcp(Box<TcpFlow<S::Tcp>>),
    /// Datagrams: UDP and echo, whoever opened it.
    Datagram(Box<DatagramFlow<S::Socket>>),
    /// A local connection, joined socket to socket.
    Splice(Box<SpliceFlow<S::Socket, S::Pipe>>),
}

impl<S: Sockets> Flow<S> {
    /// Takes in what happened to this flow and does all that follows from it now.
    pub fn on_event(
        &mut self,
        cx: &mut Context<'_, S>,
        event: FlowEvent<'_, S::Socket>,
    ) -> Outcome {
        match self {
            Self::Tcp(flow) => flow.on_event(cx, event),
            Self::Datagram(flow) => flow.on_event(cx, event),
            Self::Splice(flow) => flow.on_event(cx, event),
        }
    }

    /// The side of an exchange of messages that an event of `side` is one of; none in the middle of a stream.
    pub fn exchange_side(&self, side: Side) -> Option<Side> {
        match self {
            Self::Splice(flow) => (!flow.is_stream()).then_some(side),
            Self::Tcp(_) | Self::Datagram(_) => Some(Side::Target),
        }
    }

    /// What the namespace takes the flow's target for, and which address was asked, if it may be a resolver.
    pub fn resolver(&self, nat: &Nat) -> Option<(SocketAddr, IpAddr)> {
        match self {
            Self::Tcp(flow) => {
                let remote = flow.path().source();
                let asked = nat.resolver_for(Protocol::Tcp, remote)?;
                Some((remote, asked.address.ip()))
            }
            Self::Datagram(flow) => flow.resolver(),
            Self::Splice(_) => None,
        }
    }

    /// Its way to the namespace, if that is by frames.
    pub fn path_mut(&mut self) -> Option<&mut Path> {
        match self {
            Self::Tcp(flow) => Some(flow.path_mut()),
            Self::Datagram(flow) => flow.path_mut(),
            Self::Splice(_) => None,
        }
    }

    /// Which others it is like for who goes first.
    #[inline]
    pub fn group(&self) -> Group {
        match self {
            Self::Tcp(flow) => {
                let opener = if flow.is_inbound() { Opener::Host } else { Opener::Namespace };
                let is_open = flow.connection().is_established();
                let stage = if is_open { Stage::Stream } else { Stage::Opening };
                Group { opener, stage, takes: Takes::Nothing }
            }
            Self::Datagram(flow) => flow.group(),
            Self::Splice(flow) => {
                let stage = if flow.is_connected() { Stage::Stream } else { Stage::Opening };
                Group { opener: flow.opener(), stage, takes: Takes::Nothing }
            }
        }
    }

    /// Where a target's socket is wanted for.
    pub fn destination(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_) => None,
            Self::Datagram(flow) => flow.wanted_destination(),
            Self::Splice(flow) => flow.wants_socket().then(|| flow.destination()),
        }
    }
}
