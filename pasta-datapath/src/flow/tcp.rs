//! TCP between the namespace and host sockets.
//!
//! Each TCP connection of the namespace is terminated here and joined to a host socket: a split
//! connection. Segments are not passed through: each side has its own sequence numbers, windows and
//! retransmissions. No octet is copied that a kernel already keeps:
//!
//! - **To the namespace** ([`sender`]) data stays in the receive queue of the host socket. It is read
//!   with `MSG_PEEK` at an offset, sent in super-frames as far as the namespace's window allows, and
//!   consumed once the namespace has acknowledged it. A retransmission peeks at it again.
//! - **To the host** ([`receiver`]) only octets that the host socket has accepted are acknowledged, and
//!   the advertised window is the free space of its send buffer. Octets that arrived in order and did
//!   not fit there are kept in a backlog and never dropped; the window bounds it.
//!
//! [`connection`] joins both halves with the events of the connection (handshake, simultaneous open,
//! FIN, reset, keepalive) and does no I/O. [`relay`] drives one connection over a socket and the tap,
//! through two small traits, so that tests run the same code over fakes in virtual time. [`window`]
//! holds the limits that all connections share: backlog and window credit. `handshake` is mindful of
//! listeners that answer with SYN cookies.
//!
//! Offered in our SYN: MSS, window scale, SACK. Not offered: timestamps, ECN, fast open. Urgent data is
//! carried in line (RFC 6093). Segments out of order are kept and reported in SACK blocks, duplicates in
//! D-SACK blocks ([`assembler`]). SACK blocks of the namespace are not read: loss recovery is go-back-N,
//! which sends at most one window again, and loss between two ends on one machine is rare.
//!
//! RFC 9293 (protocol), 7323 (window scale), 2018 (SACK), 2883 (D-SACK), 6298 (retransmission timeout),
//! 5681 (fast retransmit), 5961 (resets and SYNs inside the window), 4987 (SYN cookies).

#![forbid(unsafe_code)]

pub mod assembler;
pub mod connection;
pub mod flow;
mod handshake;
pub mod receiver;
pub mod relay;
pub mod rto;
pub mod sender;
pub mod window;

use crate::wire::window::WindowScale;

/// The shift count we offer: windows of up to 16 MiB.
pub const WINDOW_SCALE: WindowScale = WindowScale::new(8);
