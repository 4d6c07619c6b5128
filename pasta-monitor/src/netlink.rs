//! Requests to the kernel's routing netlink, and its answers as [`Record`]s.
//!
//! One request at a time is on its way on a socket: the kernel carries each out while it is sent, so
//! that more at once would gain nothing. A dump is handed on record by record and never held whole.

use crate::decode::decode;
use crate::record::{Collect, Record};
use crate::sys;
use futures_util::Stream;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_proto::{Connection, ConnectionHandle, NetlinkCodec, from_socket_with_codec};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

/// Marks each message of a dump during which the kernel's table changed (`linux/netlink.h`).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// `RTM_GETNEXTHOP` (`linux/rtnetlink.h`), and the length of `struct nhmsg`.
const GET_NEXTHOP: u16 = 106;
const NEXTHOP_HEADER: usize = 8;

/// How often a dump is asked for again when it was interrupted. Chosen: a host that changes more
/// often than five dumps in a row take will be read again soon anyway.
const ATTEMPTS: u32 = 5;

/// How long the kernel may take to answer. It answers at once, or an answer was lost, which it says of
/// no other socket than one that is subscribed to events; chosen so that a start still fails in time.
const PATIENCE: Duration = Duration::from_secs(5);

/// What travels on the socket.
#[derive(Debug)]
enum Wire {
    /// What we send.
    Request(RouteNetlinkMessage),
    /// We ask for nexthop objects.
    GetNexthops,
    /// What the kernel sent, decoded.
    Record(Record),
    /// What the kernel sent and we cannot read.
    Unreadable(String),
}

impl NetlinkSerializable for Wire {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type(),
            Self::GetNexthops => GET_NEXTHOP,
            Self::Record(_) | Self::Unreadable(_) => 0,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => NetlinkSerializable::buffer_len(request),
            Self::GetNexthops => NEXTHOP_HEADER,
            Self::Record(_) | Self::Unreadable(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Request(request) => NetlinkSerializable::serialize(request, buffer),
            // Of any family; all else has to be zero.
            Self::GetNexthops => buffer.fill(0),
            Self::Record(_) | Self::Unreadable(_) => {}
        }
    }
}

impl NetlinkDeserializable for Wire {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(decode(header.message_type, payload)
            .map_or_else(|error| Self::Unreadable(error.to_string()), Self::Record))
    }
}

/// Why a request did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkError {
    /// The kernel said no.
    Refused(Errno),
    /// The socket is of no further use.
    Gone,
    /// No answer came.
    TimedOut,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => f.write_str(errno.desc()),
            Self::Gone => f.write_str("netlink socket failed"),
            Self::TimedOut => f.write_str("no answer from the kernel"),
        }
    }
}

impl std::error::Error for NetlinkError {}

/// How good a dump is that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quality {
    /// How many messages could not be read.
    pub unreadable: usize,
    /// Why the first of them could not.
    pub why: Option<String>,
    /// Whether it is of one moment; false if the kernel's table kept changing.
    pub consistent: bool,
}

/// A socket to the routing netlink of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    handle: ConnectionHandle<Wire>,
}

/// Opens a socket to the routing netlink of the network namespace we are in.
///
/// # Errors
///
/// What `socket(2)` reports.
pub fn open_here() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let route = SockProtocol::NetlinkRoute;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, route)?)
}

/// As [`open_here`]; the kernel filters dumps by what the request says, where it can.
///
/// # Errors
///
/// What `socket(2)` reports.
pub fn open_strict() -> io::Result<OwnedFd> {
    let socket = sys::plain_netlink_socket(open_here()?);
    // Without it we filter all of them.
    let _ = socket.set_netlink_get_strict_chk(true);
    Ok(sys::owned(socket))
}

impl Netlink {
    /// Takes a socket over. Must be called inside the runtime, which does the reading and writing.
    pub fn start(socket: OwnedFd) -> Self {
        let (mut connection, handle, _): (Connection<Wire, TokioSocket, NetlinkCodec>, _, _) =
            from_socket_with_codec(sys::netlink_socket(socket));
        // Strict checking lets the kernel filter dumps by table. Without it we filter all of them.
        let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
        // Ends of dumps and acknowledgements are what tells success from a socket that broke.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        tokio::spawn(connection);
        Self { handle }
    }

    /// Asks for a change, and waits until it is made. `flags` come on top of `NLM_F_REQUEST` and
    /// `NLM_F_ACK`.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`]; nothing was changed if it is `Refused`.
    pub async fn change(&self, what: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.exchange(what.into(), NLM_F_ACK | flags, |_, _| ()).await
    }

    /// Asks for one object.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`]; `Refused` if there is no such object.
    pub async fn get(&self, what: RouteNetlinkMessage) -> Result<Option<Record>, NetlinkError> {
        let mut found = None;
        let keep = |wire, _| {
            if let Wire::Record(record) = wire {
                found = Some(record);
            }
        };
        self.exchange(what.into(), NLM_F_ACK, keep).await?;
        Ok(found)
    }

    /// Asks for all objects and collects them `into` what is there, again from the start while the
    /// kernel says that they changed meanwhile.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`]; `into` is as it was then.
    pub async fn dump<C: Collect>(
        &self,
        what: impl Fn() -> RouteNetlinkMessage,
        into: &mut C,
    ) -> Result<Quality, NetlinkError> {
        self.dump_all(|| Wire::Request(what()), into).await
    }

    /// As [`Netlink::dump`], of nexthop objects. A kernel without them has none.
    ///
    /// # Errors
    ///
    /// As [`Netlink::dump`].
    pub async fn dump_nexthops<C: Collect>(&self, into: &mut C) -> Result<Quality, NetlinkError> {
        match self.dump_all(|| Wire::GetNexthops, into).await {
            Err(NetlinkError::Refused(Errno::EOPNOTSUPP)) => {
                Ok(Quality { unreadable: 0, why: None, consistent: true })
            }
            read => read,
        }
    }

    async fn dump_all<C: Collect>(
        &self,
        what: impl Fn() -> Wire,
        into: &mut C,
    ) -> Result<Quality, NetlinkError> {
        let mut attempt = 1;
        loop {
            let mut collected = into.clone();
            let mut quality = Quality { unreadable: 0, why: None, consistent: true };
            let keep = |wire, flags| {
                quality.consistent &= flags & NLM_F_DUMP_INTR == 0;
                match wire {
                    Wire::Record(record) => collected.take(record),
                    Wire::Unreadable(why) => {
                        quality.unreadable += 1;
                        quality.why.get_or_insert(why);
                    }
                    Wire::Request(_) | Wire::GetNexthops => {}
                }
            };
            match self.exchange(what(), NLM_F_DUMP, keep).await {
                Ok(()) => {}
                // With strict checking, a table or family that nothing was ever put into.
                Err(NetlinkError::Refused(Errno::ENOENT | Errno::EAFNOSUPPORT)) => {}
                Err(error) => return Err(error),
            }
            if quality.consistent || attempt == ATTEMPTS {
                *into = collected;
                return Ok(quality);
            }
            attempt += 1;
        }
    }

    /// Sends one request and hands on what comes until the kernel says that this was all.
    async fn exchange(
        &self,
        what: Wire,
        flags: u16,
        mut take: impl FnMut(Wire, u16),
    ) -> Result<(), NetlinkError> {
        let mut message = NetlinkMessage::from(what);
        message.header.flags = NLM_F_REQUEST | flags;
        let kernel = SocketAddr::new(0, 0);
        let answers = self.handle.request(message, kernel).map_err(|_| NetlinkError::Gone)?;
        let mut answers = pin!(answers);
        let all = async {
            while let Some(answer) = poll_fn(|cx| answers.as_mut().poll_next(cx)).await {
                let flags = answer.header.flags;
                match answer.payload {
                    NetlinkPayload::InnerMessage(wire) => take(wire, flags),
                    NetlinkPayload::Done(done) => {
                        // The last message may be the only one that says the dump was interrupted.
                        take(Wire::Record(Record::Other), flags);
                        return refusal(done.code);
                    }
                    NetlinkPayload::Error(error) => {
                        return refusal(error.code.map_or(0, i32::from));
                    }
                    _ => {}
                }
            }
            Err(NetlinkError::Gone)
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap_or(Err(NetlinkError::TimedOut))
    }
}

impl From<RouteNetlinkMessage> for Wire {
    fn from(request: RouteNetlinkMessage) -> Self {
        Self::Request(request)
    }
}

impl From<Wire> for NetlinkPayload<Wire> {
    fn from(wire: Wire) -> Self {
        Self::InnerMessage(wire)
    }
}

/// The kernel's negative error number as a result.
fn refusal(code: i32) -> Result<(), NetlinkError> {
    match code {
        0 => Ok(()),
        code => Err(NetlinkError::Refused(Errno::from_raw(code.saturating_neg()))),
    }
}
