//! Frames and flows: the process that holds nothing.
//!
//! The journey of a frame: the [`reactor`] reads it into a buffer ([`sys::tap`]) and hands a batch to the
//! [`stack`]; [`link::classify`] says what it is, once; a question about the link, and a request for what the namespace
//! is configured with, is answered from state by [`link::responder`]; anything else belongs to a flow in the
//! [`flow::table`], opened where [`nat`] says; [`flow::tcp`], [`flow::datagram`] and [`flow::splice`] decide what
//! becomes of it, and the stack settles what
//! follows for others: run queue, timers, removal.
//!
//! And back: a socket becomes readable, its flow decides how much the namespace may have, and
//! [`link::writer`] writes headers in front of payload that was never copied inside this process.
//!
//! The stack has no clock, no descriptor and no randomness of its own: the host's kernel is behind the traits of
//! [`sockets`]. A drop is a value with a reason, counted in [`counters`].

pub mod capture;
pub mod control;
pub mod counters;
pub mod flow;
pub mod link;
pub mod log;
pub mod nat;
pub mod part;
pub mod port_forward;
pub mod reactor;
pub mod sockets;
pub mod stack;
pub mod sys;
pub mod time;
pub mod token;
pub mod wire;
