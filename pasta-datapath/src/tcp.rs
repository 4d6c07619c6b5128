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
//! Offered in our SYN: MSS, window scale. Not offered: time stamps, SACK, ECN, fast open. Urgent
//! data is carried in line (RFC 6093). Segments out of order are answered with a duplicate
//! acknowledgement and dropped: the path is one queue on one machine, so what is out of order was
//! lost before, and the sender repeats it at once.
//!
//! RFC 9293 (protocol), 7323 (window scale), 6298 (retransmission), 5681 (fast retransmission), 5961
//! (resets and SYNs inside the window).

pub mod connection;
pub mod mapping;
pub mod seq;
pub mod timers;
pub mod to_socket;
pub mod to_tap;

/// The shift count we offer: windows of up to 16 MiB.
pub const WINDOW_SCALE: u8 = 8;
