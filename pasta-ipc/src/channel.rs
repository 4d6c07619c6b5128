//! One end of a conversation between two processes, with descriptors beside the messages.
//!
//! Sending and receiving never block. A full socket is back-pressure, reported to the caller; the
//! caller decides what waits (facts: only the newest; requests: none).

use crate::codec::{self, DecodeError};
use crate::message::{Hello, Message, PROTOCOL_VERSION};
use crate::sys::{self, Datagram};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use std::fmt;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The kernel passes at most this many descriptors in one message (`SCM_MAX_FD`, `net/scm.h`).
pub const MAX_FDS: usize = 253;

/// One end of a channel that sends `Out` and receives `In`.
#[derive(Debug)]
pub struct Channel<Out, In> {
    socket: OwnedFd,
    sends: PhantomData<fn(Out)>,
    receives: PhantomData<fn() -> In>,
}

/// A message that has arrived, and the descriptors that came with it.
#[derive(Debug)]
pub struct Received<M> {
    /// The decoded message.
    pub message: M,
    /// As many as the message says it carries ([`Message::descriptors`]).
    pub fds: Vec<OwnedFd>,
}

/// Why a message could not be sent.
#[derive(Debug)]
pub enum SendError {
    /// The socket is full: the peer does not keep up. Nothing was sent.
    WouldBlock,
    /// The peer has closed its end, or has died.
    Closed,
    /// The kernel refused for another reason.
    Io(io::Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("peer does not keep up"),
            Self::Closed => f.write_str("peer has gone"),
            Self::Io(_) => f.write_str("cannot send a message"),
        }
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::WouldBlock | Self::Closed => None,
        }
    }
}

/// Why no message was received.
#[derive(Debug)]
pub enum ReceiveError {
    /// Nothing is waiting.
    WouldBlock,
    /// The peer has closed its end, or has died.
    Closed,
    /// The peer broke the protocol. The channel is of no further use; the text is for the log.
    Violation(String),
    /// The kernel refused for another reason.
    Io(io::Error),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("no message is waiting"),
            Self::Closed => f.write_str("peer has gone"),
            Self::Violation(why) => write!(f, "protocol violation: {why}"),
            Self::Io(_) => f.write_str("cannot receive a message"),
        }
    }
}

impl std::error::Error for ReceiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::WouldBlock | Self::Closed | Self::Violation(_) => None,
        }
    }
}

impl<Out, In> AsFd for Channel<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<Out, In> From<OwnedFd> for Channel<Out, In> {
    /// Takes one end of a pair over, as a helper does with the descriptor it was started with.
    fn from(socket: OwnedFd) -> Self {
        Self { socket, sends: PhantomData, receives: PhantomData }
    }
}

impl<Out, In> From<Channel<Out, In>> for OwnedFd {
    fn from(channel: Channel<Out, In>) -> Self {
        channel.socket
    }
}

impl<Out: Message, In: Message> Channel<Out, In> {
    /// Makes both ends; the other end sends what this one receives.
    ///
    /// # Errors
    ///
    /// What `socketpair(2)` reports, as where descriptors have run out.
    pub fn pair() -> io::Result<(Self, Channel<In, Out>)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((a.into(), b.into()))
    }

    /// Sends `message` without blocking.
    ///
    /// # Errors
    ///
    /// [`SendError`]; after `WouldBlock` nothing was sent and it can be tried again.
    pub fn send(&self, message: &Out) -> Result<(), SendError> {
        self.send_with(message, &[])
    }

    /// Sends `message` with `fds` beside it; the peer gets duplicates.
    ///
    /// # Errors
    ///
    /// As [`Channel::send`]; `Io` with `InvalidInput` if the message does not carry that many
    /// descriptors or exceeds its limit.
    pub fn send_with(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        if fds.len() != message.descriptors() {
            let text = "wrong number of descriptors for this message";
            return Err(SendError::Io(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let mut buffer = vec![0; Out::LIMIT];
        let len = codec::encode(message, &mut buffer)
            .map_err(|error| SendError::Io(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let octets = [IoSlice::new(buffer.get(..len).unwrap_or_default())];
        let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            return match sendmsg::<()>(self.socket.as_raw_fd(), &octets, control, flags, None) {
                Ok(_) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Err(SendError::WouldBlock),
                Err(Errno::EPIPE | Errno::ECONNRESET) => Err(SendError::Closed),
                Err(errno) => Err(SendError::Io(errno.into())),
            };
        }
    }

    /// Receives one message without blocking.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; after `Closed` or `Violation` the channel must not be used again.
    pub fn receive(&self) -> Result<Received<In>, ReceiveError> {
        let mut buffer = vec![0; In::LIMIT + 1];
        // A direction without descriptors gets no control buffer: what a hostile peer attaches is
        // dropped by the kernel before we could own it, and shows as MSG_CTRUNC.
        let mut control =
            if In::MAX_FDS == 0 { Vec::new() } else { nix::cmsg_space!([i32; MAX_FDS]) };
        let Datagram { len, fds, flags } = loop {
            let room = (In::MAX_FDS > 0).then_some(control.as_mut_slice());
            match sys::receive(self.socket.as_fd(), &mut buffer, room) {
                Ok(datagram) => break datagram,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(ReceiveError::WouldBlock),
                // The peer has closed its end with messages of ours unread (`unix_release_sock()`,
                // net/unix/af_unix.c). It is said once; what the peer had sent before is still there.
                Err(Errno::ECONNRESET) => continue,
                Err(errno) => return Err(ReceiveError::Io(errno.into())),
            }
        };
        // Nobody sends an empty message, so nothing read is the end of the channel.
        if len == 0 {
            return Err(ReceiveError::Closed);
        }
        let violation = |why: &str| Err(ReceiveError::Violation(why.into()));
        if flags.contains(MsgFlags::MSG_TRUNC) || len > In::LIMIT {
            return violation("message longer than its direction allows");
        }
        if flags.contains(MsgFlags::MSG_CTRUNC) {
            return violation("descriptors that did not arrive or were not allowed");
        }
        let octets = buffer.get(..len).unwrap_or_default();
        let message: In = codec::decode(octets).map_err(|error| {
            let head: String = octets.iter().take(16).map(|octet| format!("{octet:02x}")).collect();
            let why = match error {
                DecodeError::Malformed(why) => why,
                other => other.to_string(),
            };
            ReceiveError::Violation(format!("{why} (starts {head})"))
        })?;
        if fds.len() != message.descriptors() {
            return violation("wrong number of descriptors for this message");
        }
        Ok(Received { message, fds })
    }
}

/// Checks the first message of a peer: it must be `Hello` with our version.
///
/// # Errors
///
/// [`ReceiveError::Violation`] naming what came instead.
pub fn expect_hello(hello: Option<Hello>) -> Result<(), ReceiveError> {
    match hello {
        Some(Hello { version: PROTOCOL_VERSION }) => Ok(()),
        Some(Hello { version }) => Err(ReceiveError::Violation(format!(
            "peer speaks protocol {version}, we speak {PROTOCOL_VERSION}: mixed installation"
        ))),
        None => Err(ReceiveError::Violation("first message is not Hello".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{DatapathToMonitor, MonitorToDatapath, SupervisorToDatapath};
    use crate::types::{LogLevel, LogRecord, Text};
    use crate::{DatapathToSupervisor, MonitorToSupervisor, SupervisorToMonitor};
    use nix::sys::socket::{MsgFlags, send};

    type Ours = Channel<MonitorToDatapath, DatapathToMonitor>;

    fn raw_send(channel: &impl AsFd, octets: &[u8]) {
        send(channel.as_fd().as_raw_fd(), octets, MsgFlags::empty()).unwrap();
    }

    #[test]
    fn message_arrives_whole_and_in_order() {
        let (a, b) = Ours::pair().unwrap();
        b.send(&DatapathToMonitor::Hello(Hello::OURS)).unwrap();
        let got = a.receive().unwrap();
        assert_eq!(got.message, DatapathToMonitor::Hello(Hello::OURS));
        assert!(got.fds.is_empty());
        assert!(matches!(a.receive(), Err(ReceiveError::WouldBlock)));
    }

    #[test]
    fn death_of_the_peer_is_closed_for_both_directions() {
        let (a, b) = Ours::pair().unwrap();
        drop(b);
        assert!(matches!(a.receive(), Err(ReceiveError::Closed)));
        let hello = MonitorToDatapath::Hello(Hello::OURS);
        assert!(matches!(a.send(&hello), Err(SendError::Closed)));
    }

    #[test]
    fn octets_after_a_message_are_a_violation() {
        let (a, b) = Ours::pair().unwrap();
        let mut buffer = [0; 64];
        let len = codec::encode(&DatapathToMonitor::Hello(Hello::OURS), &mut buffer).unwrap();
        raw_send(&b, &buffer[..len + 1]);
        assert!(matches!(a.receive(), Err(ReceiveError::Violation(_))));
    }

    #[test]
    fn too_long_a_datagram_is_a_violation() {
        let (a, b) = Ours::pair().unwrap();
        raw_send(&b, &vec![0; DatapathToMonitor::LIMIT + 1]);
        assert!(matches!(a.receive(), Err(ReceiveError::Violation(_))));
    }

    #[test]
    fn descriptors_from_a_side_that_may_send_none_are_a_violation_and_never_owned() {
        let (a, b) = Ours::pair().unwrap();
        let mut buffer = [0; 64];
        let len = codec::encode(&DatapathToMonitor::Hello(Hello::OURS), &mut buffer).unwrap();
        let fds = [b.as_fd().as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        let slices = [IoSlice::new(&buffer[..len])];
        sendmsg::<()>(b.as_fd().as_raw_fd(), &slices, &control, MsgFlags::empty(), None).unwrap();
        assert!(matches!(a.receive(), Err(ReceiveError::Violation(_))));
    }

    #[test]
    fn descriptor_count_must_match_the_message() {
        let (a, b) = Channel::<SupervisorToMonitor, MonitorToSupervisor>::pair().unwrap();
        let record = LogRecord { level: LogLevel::Info, text: Text::truncated("x") };
        let refused = b.send_with(&MonitorToSupervisor::Log(record), &[a.as_fd()]);
        assert!(matches!(refused, Err(SendError::Io(_))));
    }

    #[test]
    fn full_socket_is_back_pressure_and_nothing_is_lost() {
        let (a, b) = Channel::<SupervisorToDatapath, DatapathToSupervisor>::pair().unwrap();
        let record = LogRecord { level: LogLevel::Info, text: Text::truncated(&"x".repeat(1000)) };
        let mut sent = 0;
        while b.send(&DatapathToSupervisor::Log(record.clone())).is_ok() {
            sent += 1;
        }
        assert!(sent > 10);
        for _ in 0..sent {
            assert_eq!(a.receive().unwrap().message, DatapathToSupervisor::Log(record.clone()));
        }
        assert!(matches!(a.receive(), Err(ReceiveError::WouldBlock)));
    }

    #[test]
    fn last_words_of_a_peer_that_has_read_nothing_arrive() {
        let (ours, theirs) = Channel::<SupervisorToMonitor, MonitorToSupervisor>::pair().unwrap();
        ours.send(&SupervisorToMonitor::Hello(Hello::OURS)).unwrap();
        let failed = MonitorToSupervisor::Failed(crate::types::Text::truncated("why"));
        theirs.send(&failed).unwrap();
        drop(theirs);
        assert_eq!(ours.receive().unwrap().message, failed);
        assert!(matches!(ours.receive(), Err(ReceiveError::Closed)));
    }

    #[test]
    fn other_version_is_named_in_the_violation() {
        let version = PROTOCOL_VERSION + 1;
        let error = expect_hello(Some(Hello { version })).unwrap_err();
        assert!(error.to_string().contains(&format!("protocol {version}")));
    }
}
