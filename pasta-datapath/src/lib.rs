//! Frames and flows: the process that holds nothing.
//!
//! The journey of a frame: [`sys::tap`] reads it into a buffer; [`link::classify`] says what it is, once;
//! a question about the link is answered from state by [`link::neighbour`]; anything else belongs to a flow in
//! the [`flow::table`], opened where [`nat`] says; [`flow::tcp`], [`flow::udp`] and [`flow::echo`] decide what
//! becomes of it; [`engine`] carries that out, grouped over a batch of frames.
//!
//! And back: a socket becomes readable, its flow decides how much the namespace may have, and
//! [`sys::tap`] writes headers in front of payload that was never copied inside this process.
//!
//! TCP, NAT and the rules of forwarded ports have no clock, no descriptor and no randomness of their own;
//! datagram flows and splices own their sockets. A drop is a value with a reason, counted in [`counters`].

pub mod capture;
pub mod control;
pub mod counters;
pub mod engine;
pub mod flow;
pub mod link;
pub mod nat;
pub mod port_forward;
pub mod sys;
pub mod time;
pub mod wire;
