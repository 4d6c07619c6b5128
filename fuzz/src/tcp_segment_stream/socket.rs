//! A host socket that does what the script says and checks what it is asked to do.

use super::{free, octet};
use crate::fake::{self, Shared, TcpModel};
use nix::errno::Errno;
use pasta_datapath::flow::tcp::relay::HostSocket;
use pasta_datapath::sys::send_buffer::SendBuffer;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};

/// Both streams of the host's side.
#[derive(Debug)]
pub(super) struct Socket {
    /// Octets that the far end has sent.
    pub(super) arrived: u32,
    /// Whether the far end has sent FIN behind them.
    pub(super) has_ended: bool,
    /// Octets that the send buffer will accept.
    pub(super) takes: usize,
    /// What it says that it will accept, which need not be true.
    room: SendBuffer,
    /// The most that it ever said.
    pub(super) largest_room: u32,
    /// Most octets that one peek gives.
    pub(super) peeks_at_most: usize,
    /// Whether a peek has given less than there was.
    pub(super) has_cut: bool,
    /// Which calls fail: a bit each for send, peek and consume.
    pub(super) fails: u8,
    /// Whether sending has failed: nothing more may be sent.
    pub(super) is_broken: bool,
    /// Octets accepted.
    pub(super) accepted: u32,
    /// Whether our direction was ended.
    pub(super) is_shut_down: bool,
    /// The error that it has to report.
    pub(super) error: Option<Errno>,
    pub(super) is_closed: bool,
    consumed: u32,
    /// The end of what was peeked at, counted from the start of the stream.
    peeked: u32,
}

impl Socket {
    fn new() -> Self {
        let room = SendBuffer { size: 400_000, queued: 0 };
        Self {
            arrived: 0,
            has_ended: false,
            takes: 1 << 16,
            room,
            largest_room: free(room),
            peeks_at_most: usize::MAX,
            has_cut: false,
            fails: 0,
            is_broken: false,
            accepted: 0,
            is_shut_down: false,
            error: None,
            is_closed: false,
            consumed: 0,
            peeked: 0,
        }
    }

    /// The far end sends so much more, unless it has sent FIN.
    pub(super) fn arrives(&mut self, octets: u32) {
        if !self.has_ended {
            self.arrived += octets;
        }
    }

    /// Says that it has this much room from now on.
    pub(super) fn set_room(&mut self, room: SendBuffer) {
        self.room = room;
        self.largest_room = self.largest_room.max(free(room));
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!self.is_shut_down, "written after the end");
        assert!(!self.is_broken, "written after a failure");
        if self.fails & 1 != 0 {
            self.is_broken = true;
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut written = 0;
        for octets in slices {
            for given in octets.iter().take(self.takes - written) {
                assert_eq!(*given, octet(self.accepted), "at {} of the stream", self.accepted);
                self.accepted += 1;
                written += 1;
            }
        }
        self.takes -= written;
        let offered: usize = slices.iter().map(|octets| octets.len()).sum();
        if written == 0 && offered > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        if self.fails & 2 != 0 {
            return Err(ErrorKind::ConnectionReset.into());
        }
        assert!(!into.is_empty(), "peeks at nothing, which looks like the end");
        let from = self.consumed + offset;
        assert!(from <= self.arrived, "peeks behind what has arrived");
        let whole = into.len().min((self.arrived - from) as usize);
        let len = whole.min(self.peeks_at_most);
        self.has_cut |= len < whole;
        (from..).zip(into.iter_mut()).take(len).for_each(|(place, to)| *to = octet(place));
        // At most what has arrived.
        self.peeked = self.peeked.max(from + len as u32);
        if len == 0 && !self.has_ended { Err(ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        if self.fails & 4 != 0 {
            return Err(ErrorKind::ConnectionReset.into());
        }
        assert!(octets > 0);
        self.consumed += octets;
        assert!(self.consumed <= self.peeked, "consumes what was never peeked at");
        Ok(())
    }

    fn shut_down_write(&mut self) {
        assert!(!self.is_shut_down, "ended twice");
        self.is_shut_down = true;
    }
}

/// The stack's end of the socket; dropping it closes it.
#[derive(Debug)]
pub(super) struct HostEnd(pub(super) Shared<Socket>);

impl Drop for HostEnd {
    fn drop(&mut self) {
        self.0.borrow_mut().is_closed = true;
    }
}

impl TcpModel for HostEnd {
    fn of(_: fake::Socket) -> Self {
        Self(Shared::new(Socket::new().into()))
    }
}

impl HostSocket for HostEnd {
    fn mark(&mut self, _remote: IpAddr, _dscp: u8) {}

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.borrow_mut().send(slices)
    }

    fn send_buffer(&mut self, _least: u32) -> SendBuffer {
        self.0.borrow().room
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().peek(offset, into)
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        self.0.borrow_mut().consume(octets)
    }

    fn shut_down_write(&mut self) {
        self.0.borrow_mut().shut_down_write();
    }

    fn take_error(&mut self) -> Option<Errno> {
        self.0.borrow_mut().error.take()
    }

    fn keep_alive(&mut self) {}

    fn reset_on_close(&mut self) {}

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}
