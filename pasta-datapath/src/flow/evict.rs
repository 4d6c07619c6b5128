//! Which flow goes when there are too many.
//!
//! Flows of the namespace and flows from the host's side each have a share of the descriptors: half. A side may use
//! what the other one leaves, and gives it back when that needs it: neither fills the table for the other. Sockets
//! that take a UDP port of the host, or an identifier of echo, have a share of their own, so that the namespace does
//! not use up what the host's programs are given (`net.ipv4.ip_local_port_range`).
//!
//! Inside a share these go first, the oldest of each kind: connections that are being opened, flows of datagrams of
//! which only one side has sent, and then whatever was idle longest, if that is long enough. A new flow is refused
//! only where all that is left is in use. So a program that sends from ever new ports, or SYNs that nobody answers,
//! has its own older ones ended, and nobody else's.

use std::time::Duration;

/// Idle time after which a flow may be evicted for others of its own side. A connection that is being opened: when
/// a SYN without an answer would be sent again (RFC 6298, section 2.1). The others: the least that a translator may
/// give up without a need (RFC 5382, REQ-5: 4 minutes for a TCP connection that is being opened or closed; RFC 4787,
/// REQ-5: 2 minutes for UDP).
const OPENING: Duration = Duration::from_secs(1);
const STREAM_IDLE: Duration = Duration::from_secs(240);
const DATAGRAM_IDLE: Duration = Duration::from_secs(120);

/// The side that has opened a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opener {
    /// The namespace.
    #[default]
    Namespace,
    /// The host's side, at a listener.
    Host,
}

impl Opener {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Namespace => Self::Host,
            Self::Host => Self::Namespace,
        }
    }
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// A connection that is being opened.
    #[default]
    Opening,
    /// Datagrams of one side.
    OneWay,
    /// Datagrams of both.
    TwoWay,
    /// A connection.
    Stream,
}

/// What a flow takes of the host that there are few of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    #[default]
    Nothing,
    /// A UDP port.
    Port,
    /// An identifier of echo.
    Identifier,
}

/// Flows that are alike for who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Who has opened them.
    pub opener: Opener,
    /// How far they are.
    pub stage: Stage,
    /// What they take.
    pub takes: Takes,
}

impl Group {
    /// How many there can be.
    pub const COUNT: usize = 2 * 4 * 3;

    /// Its number, below [`Group::COUNT`].
    pub fn index(self) -> usize {
        (self.opener as usize * 4 + self.stage as usize) * 3 + self.takes as usize
    }

    /// Those of `opener` at `stage`, whatever they take.
    pub fn at(opener: Opener, stage: Stage) -> [Self; 3] {
        [Takes::Nothing, Takes::Port, Takes::Identifier].map(|takes| Self { opener, stage, takes })
    }

    /// Idle time after which one may go for others of its own side.
    pub fn evictable_after(self) -> Duration {
        match self.stage {
            Stage::Opening => OPENING,
            Stage::OneWay => Duration::ZERO,
            Stage::TwoWay => DATAGRAM_IDLE,
            Stage::Stream => STREAM_IDLE,
        }
    }
}

/// For whom a flow is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Another one of the same side: what is in use stays.
    Own,
    /// One of the other side, whose share this one has used.
    Share,
}
