//! What a flow is, how it is named, and who owns it.

pub mod echo;
pub mod source_check;
pub mod splice;
pub mod table;
pub mod tcp;
pub mod udp;

use crate::nat::Protocol;
use std::net::SocketAddr;

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

/// What is to become of a flow after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It waits for the next event.
    Wait,
    /// It has more to do than its share of this turn.
    More,
    /// Both directions have ended in order.
    Over,
    /// It was broken off: its sockets are to be closed with a reset.
    Reset,
}
