#![allow(unsafe_code)]
//! Receiving, which makes descriptors that somebody has to own.

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A datagram as the kernel delivered it.
#[derive(Debug)]
pub(crate) struct Datagram {
    /// How many octets of the buffer it takes.
    pub(crate) len: usize,
    /// The descriptors that came with it; none where some of them did not fit.
    pub(crate) fds: Vec<OwnedFd>,
    /// What the kernel says of it, as that something did not fit.
    pub(crate) flags: MsgFlags,
}

/// Receives one datagram into `octets` without blocking (recvmsg(2)), and the descriptors that travel with
/// it as far as `control` has room for them; they are closed on exec.
///
/// # Errors
///
/// As recvmsg(2).
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    octets: &mut [u8],
    control: Option<&mut [u8]>,
) -> Result<Datagram, Errno> {
    let takes_descriptors = control.is_some();
    let mut slices = [IoSliceMut::new(octets)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let result = recvmsg::<()>(socket.as_raw_fd(), &mut slices, control, flags)?;
    let mut fds = Vec::new();
    if takes_descriptors && !result.flags.contains(MsgFlags::MSG_CTRUNC) {
        for record in result.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = record {
                // SAFETY: the kernel has installed each number in our table for this very message and
                // nobody else has seen it, so we are its only owner; each record is visited once, so
                // each number is wrapped exactly once.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
    }
    Ok(Datagram { len: result.bytes, fds, flags: result.flags })
}
