//! Frames and flows: the process that holds nothing.
//!
//! The journey of a frame: [`io::tap`] reads it into a buffer; [`classify`] says what it is, once;
//! a question about the link is answered from state by [`local`]; anything else belongs to a flow in
//! the [`flow::table`], opened where [`forward`] says; [`tcp`], [`udp`] and [`icmp`] decide what
//! becomes of it; [`engine`] carries that out, grouped over a batch of frames.
//!
//! And back: a socket becomes readable, its flow decides how much the namespace may have, and
//! [`io::tap`] writes headers in front of payload that was never copied inside this process.
//!
//! The logic has no clock, no descriptor and no randomness of its own. A drop is a value with a
//! reason, counted in [`counters`].

pub mod classify;
pub mod counters;
pub mod engine;
pub mod flow;
pub mod forward;
pub mod icmp;
pub mod icmp_error;
pub mod io;
pub mod listen;
pub mod local;
pub mod peer;
pub mod pool;
pub mod rules;
pub mod splice;
pub mod standing;
pub mod sys;
pub mod tcp;
pub mod time;
pub mod udp;
pub mod wire;
