//! The tap's descriptor: frames in and out, and nothing of what is in them.

use crate::capture::{Capture, Header};
use crate::counters::DropReason;
use crate::link::writer::{FrameDevice, ReadError};
use crate::part::part;
use nix::errno::Errno;
use nix::sys::uio::writev;
use nix::time::{ClockId, clock_gettime};
use pasta_ipc::types::{TapInfo, TapOffloads};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The tap's descriptor and what it can do.
#[derive(Debug)]
pub struct Tap {
    /// None where there are local connections only.
    fd: Option<OwnedFd>,
    offloads: TapOffloads,
    capture: Option<Box<Capture>>,
}

impl Tap {
    /// Takes over the tap that the monitor made; it is non-blocking.
    pub fn new(fd: OwnedFd, info: &TapInfo) -> Self {
        Self { fd: Some(fd), offloads: info.offloads, capture: None }
    }

    /// Records every frame in `file`, which is empty, from now on.
    pub fn capture_to(&mut self, file: OwnedFd) {
        let header = match self.offloads {
            TapOffloads::None => Header::None,
            TapOffloads::Tcp | TapOffloads::TcpAndUdp => Header::VirtioNet,
        };
        self.capture = Some(Box::new(Capture::new(file, header)));
    }

    /// Writes out what was captured; gives why that is not possible any more, once.
    pub fn flush_capture(&mut self) -> Option<Errno> {
        let capture = self.capture.as_mut()?;
        capture.flush();
        capture.take_failure()
    }

    /// No tap at all: nothing can be read from it, and what is written is a counted drop.
    pub fn none() -> Self {
        Self { fd: None, offloads: TapOffloads::None, capture: None }
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
                Ok(len) => {
                    if let Some(capture) = &mut self.capture {
                        let frame = part(buffer, ..len);
                        capture.frame(&[IoSlice::new(frame)], wall_clock());
                    }
                    return Ok(len);
                }
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
                Ok(_) => {
                    if let Some(capture) = &mut self.capture {
                        capture.frame(slices, wall_clock());
                    }
                    return Ok(());
                }
                Err(Errno::EINTR) => continue,
                Err(_) => return Err(DropReason::TapFull),
            }
        }
    }
}

/// The time of day since 1970, for captures only: nothing is decided by it.
fn wall_clock() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}
