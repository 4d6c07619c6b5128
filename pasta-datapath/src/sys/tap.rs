//! The tap's descriptor: frames in and out, and nothing of what is in them.

use crate::counters::DropReason;
use crate::link::writer::{FrameDevice, ReadError};
use nix::errno::Errno;
use nix::sys::uio::writev;
use pasta_ipc::types::{TapInfo, TapOffloads};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The tap's descriptor and what it can do.
#[derive(Debug)]
pub struct Tap {
    /// None where there are local connections only.
    fd: Option<OwnedFd>,
    offloads: TapOffloads,
}

impl Tap {
    /// Takes over the tap that the monitor made; it is non-blocking.
    pub fn new(fd: OwnedFd, info: &TapInfo) -> Self {
        Self { fd: Some(fd), offloads: info.offloads }
    }

    /// No tap at all: nothing can be read from it, and what is written is a counted drop.
    pub fn none() -> Self {
        Self { fd: None, offloads: TapOffloads::None }
    }

    /// The descriptor, to wait for.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }
}

impl FrameDevice for Tap {
    fn offloads(&self) -> TapOffloads {
        self.offloads
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let Some(fd) = &self.fd else { return Err(ReadError::WouldBlock) };
        loop {
            match nix::unistd::read(fd, buffer) {
                Ok(len) => return Ok(len),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Err(ReadError::WouldBlock),
                // This one frame cannot be had (`tun_put_user()`): the kernel has dropped it.
                Err(Errno::EINVAL | Errno::EFAULT | Errno::ENOBUFS | Errno::ENOMEM) => {
                    return Err(ReadError::Lost);
                }
                Err(errno) => return Err(ReadError::Gone(errno)),
            }
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<(), DropReason> {
        let Some(fd) = &self.fd else { return Err(DropReason::NoTap) };
        loop {
            match writev(fd, slices) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(_) => return Err(DropReason::TapFull),
            }
        }
    }
}
