//! The messages between pasta's processes, and the sockets that travel with them.
//!
//! Three processes, and process 1 of the namespace, talk over `SOCK_SEQPACKET` socket pairs: one datagram is one message, descriptors
//! travel beside it, and the death of one end is an end of file at the other.
//!
//! - [`message`] has one enum for each direction, the protocol version, and each direction's limits.
//! - [`types`] has what payloads are made of, and snapshots of the network; [`start`] what a process needs
//!   to know to start with, [`port_forward`] the rules of forwarded ports, [`socket`] the sockets that one
//!   process opens for another. All check themselves while they are decoded: a value that is out of range
//!   cannot be held, so a receiver never has to clamp one.
//! - [`control`] has the messages of the control socket and its clients, [`status`] what each process says of its
//!   state.
//! - [`channel`] sends and receives; a [`Channel`] can send only what its own side may say.
//! - [`codec`] turns messages into octets and back, and is the only caller of the encoding library.
//!
//! Each side treats the other as hostile. Anything that does not decode, does not fit, or comes with
//! descriptors it may not have is a violation; the receiver closes the channel and ends. There is no
//! resynchronising.

pub mod channel;
pub mod codec;
pub mod control;
pub mod message;
pub mod port_forward;
pub mod rate;
pub mod socket;
pub mod start;
pub mod status;
pub mod types;

mod sys;

pub use channel::{Channel, ReceiveError, Received, SendError};
pub use control::{ClientToSupervisor, SupervisorToClient};
pub use message::{
    CallerToSupervisor, DatapathToMonitor, DatapathToSupervisor, InitToSupervisor,
    IsolationToSupervisor, Message, MonitorToDatapath, MonitorToSupervisor, PROTOCOL_VERSION,
    SupervisorToCaller, SupervisorToDatapath, SupervisorToInit, SupervisorToIsolation,
    SupervisorToMonitor,
};
