//! TCP between the namespace and host sockets.
//!
//! A connection of the namespace's ends here, and an ordinary host socket carries it on. This is no
//! relay of segments: each side has its own sequence numbers, windows and losses. Nothing is copied
//! that a kernel already keeps:
//!
//! - **Towards the namespace** ([`to_tap`]) data stays in the host socket's receive queue. It is
//!   peeked at from an offset, sent in super-frames as far as the namespace's window reaches, and
//!   taken out of the queue when the namespace has acknowledged it. To repeat is to peek again.
//! - **Towards the host** ([`to_socket`]) only what the host socket accepted is acknowledged, and the
//!   window promises what its send buffer has room for. What arrived in order and did not fit is
//!   parked and never dropped; the window bounds it.
//!
//! [`connection`] joins both halves with the events that end them (FIN, reset, time-out) and is pure.
//! [`mapping`] drives one connection over a socket and the tap, through two small traits, so that
//! tests drive the same code over fakes in virtual time.
//!
//! Offered in our SYN: MSS, window scale, SACK. Not offered: time stamps, ECN, fast open. Urgent data is
//! carried in line (RFC 6093). What comes before its turn is kept and described to the sender
//! ([`gaps`]); what the namespace says it has kept is not looked at: sending starts over at the gap,
//! which costs a second copy of one window in the rare case of a loss on one machine.
//!
//! RFC 9293 (protocol), 7323 (window scale), 2018 (SACK), 6298 (retransmission), 5681 (fast
//! retransmission), 5961 (resets and SYNs inside the window).

pub mod budget;
pub mod connection;
pub mod gaps;
pub mod mapping;
pub mod seq;
pub mod timers;
pub mod to_socket;
pub mod to_tap;

/// The shift count we offer: windows of up to 16 MiB.
pub const WINDOW_SCALE: u8 = 8;
