//! The host's socket, and the kernel's buffers behind it.

use crate::fake::{self, Shared, TcpModel};
use nix::errno::Errno;
use pasta_datapath::flow::tcp::relay::HostSocket;
use pasta_datapath::sys::send_buffer::SendBuffer;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};

/// The host's socket: a queue to read from, a buffer to write to.
#[derive(Debug)]
pub(super) struct Socket {
    /// Whether closing it sends a reset.
    pub(super) resets: bool,
    /// Still to come from the far end, in full at the start.
    pub(super) queue: Vec<u8>,
    pub(super) ended: bool,
    /// Written by the relay, not yet taken by the far end.
    pub(super) buffered: usize,
    pub(super) received: Vec<u8>,
    pub(super) shut_down: bool,
    pub(super) size: usize,
    /// A write came up short, or room was asked for: the next drain is an event.
    pub(super) wants_room: bool,
    pub(super) fail_after: Option<usize>,
    /// As a kernel without a peek offset: the end does not show behind what is still in the queue.
    pub(super) hides_end: bool,
    pub(super) consumed: usize,
    /// Size of the kernel's buffers, and octets of them that are held before the far end has to wait.
    pub(super) buffers: Option<(usize, usize)>,
    /// How much of the queue has arrived.
    pub(super) arrived: usize,
}

impl Socket {
    /// Lets the far end send what there is room for: a buffer counts until its last octet is consumed.
    /// Gives whether something came.
    pub(super) fn arrive(&mut self) -> bool {
        let before = self.arrived;
        match self.buffers {
            None => self.arrived = self.queue.len(),
            Some((size, limit)) => {
                let held_from = self.consumed / size * size;
                while self.arrived < self.queue.len() && self.arrived + size <= held_from + limit {
                    self.arrived = (self.arrived + size).min(self.queue.len());
                }
            }
        }
        self.arrived > before
    }
}

impl Socket {
    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!self.shut_down, "written after shutdown");
        let mut accepted = 0;
        let mut offered = 0;
        for slice in slices {
            offered += slice.len();
            let fits = slice.len().min(self.size - self.buffered);
            self.received.extend(&slice[..fits]);
            self.buffered += fits;
            accepted += fits;
        }
        self.wants_room |= accepted < offered;
        if accepted == 0 && offered > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(accepted) }
    }

    fn send_buffer(&self) -> SendBuffer {
        SendBuffer { size: self.size as u32, queued: self.buffered as u32 }
    }

    fn peek(&self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        if self.fail_after.is_some_and(|limit| self.consumed >= limit) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let offset = offset as usize;
        let queue = &self.queue[self.consumed..self.arrived];
        assert!(offset <= queue.len(), "peeks behind the end");
        let len = into.len().min(queue.len() - offset);
        into[..len].copy_from_slice(&queue[offset..offset + len]);
        match len {
            0 if self.hides_end && offset > 0 => Err(ErrorKind::WouldBlock.into()),
            0 if self.ended && self.arrived == self.queue.len() => Ok(0),
            0 => Err(ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        self.consumed += octets as usize;
        assert!(self.consumed <= self.arrived, "consumes what was never there");
        Ok(())
    }
}

/// The stack's end of the socket.
#[derive(Debug)]
pub(super) struct HostEnd(pub(super) Shared<Socket>);

impl TcpModel for HostEnd {
    fn of(_: fake::Socket) -> Self {
        panic!("a second flow")
    }
}

impl HostSocket for HostEnd {
    fn mark(&mut self, _remote: IpAddr, _dscp: u8) {}

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.borrow_mut().send(slices)
    }

    fn send_buffer(&mut self, _least: u32) -> SendBuffer {
        self.0.borrow().send_buffer()
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        self.0.borrow().peek(offset, into)
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        self.0.borrow_mut().consume(octets)
    }

    fn shut_down_write(&mut self) {
        self.0.borrow_mut().shut_down = true;
    }

    fn take_error(&mut self) -> Option<Errno> {
        None
    }

    fn keep_alive(&mut self) {}

    fn reset_on_close(&mut self) {
        self.0.borrow_mut().resets = true;
    }

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
}
