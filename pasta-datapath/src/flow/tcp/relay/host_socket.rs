//! The kernel's socket as the host socket of a relay.

use super::HostSocket;
use crate::sys::send_buffer::SendBuffer;
use crate::sys::socket::TcpSocket;
use std::io::{self, IoSlice};

impl HostSocket for TcpSocket {
    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::send(self, slices)
    }

    fn send_buffer(&mut self, least: u32) -> SendBuffer {
        Self::send_buffer(self, least)
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, offset, into)
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        Self::consume(self, octets)
    }

    fn shut_down_write(&mut self) {
        Self::shut_down_write(self);
    }
}
