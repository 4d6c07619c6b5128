//! A tap that the caller has made and handed over by number (`-F`).
//!
//! It is used as it is: the kernel is asked what it is, nothing is set but that reading does not block.

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use pasta_ipc::types::{IfName, TapInfo, TapOffloads};
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Octets of the virtio-net header that we read and write (`struct virtio_net_hdr`, `linux/virtio_net.h`).
const VNET_HEADER: i32 = 10;

/// The tap and what it is.
#[derive(Debug)]
pub(crate) struct GivenTap {
    pub(crate) tap: OwnedFd,
    pub(crate) info: TapInfo,
}

/// The descriptor is no tap that can be used.
#[derive(Debug)]
pub(crate) struct GivenTapError {
    number: RawFd,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Closed,
    NotATap(io::Error),
    Kind(&'static str),
    System(io::Error),
}

impl fmt::Display for GivenTapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match self.why {
            Why::Closed => write!(f, "descriptor {number} (-F) is not open"),
            Why::NotATap(_) => write!(f, "descriptor {number} (-F) is no tap"),
            Why::Kind(wanted) => write!(f, "descriptor {number} (-F) cannot be used: {wanted}"),
            Why::System(_) => write!(f, "cannot use descriptor {number} (-F)"),
        }
    }
}

impl std::error::Error for GivenTapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::NotATap(error) | Why::System(error) => Some(error),
            Why::Closed | Why::Kind(_) => None,
        }
    }
}

impl GivenTap {
    /// Checks the descriptor that was `number` when we started; none: it was not open.
    ///
    /// # Errors
    ///
    /// [`GivenTapError`].
    pub(crate) fn new(number: RawFd, tap: Option<OwnedFd>) -> Result<Self, GivenTapError> {
        let failed = |why| GivenTapError { number, why };
        let tap = tap.ok_or_else(|| failed(Why::Closed))?;
        let request = sys::tap_request(&tap).map_err(|error| failed(Why::NotATap(error)))?;
        if request.flags & libc::IFF_TAP == 0 {
            return Err(failed(Why::Kind("it was not made with IFF_TAP")));
        }
        if request.flags & libc::IFF_NO_PI == 0 {
            return Err(failed(Why::Kind("it was not made with IFF_NO_PI")));
        }
        let offloads = if request.flags & libc::IFF_VNET_HDR == 0 {
            TapOffloads::None
        } else {
            match sys::vnet_header_size(&tap) {
                Ok(VNET_HEADER) => TapOffloads::Tcp,
                Ok(_) => {
                    return Err(failed(Why::Kind("its virtio-net header is not of 10 octets")));
                }
                Err(error) => return Err(failed(Why::System(error))),
            }
        };
        let system = |errno: Errno| failed(Why::System(errno.into()));
        let flags = fcntl(&tap, FcntlArg::F_GETFL).map_err(system)?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&tap, FcntlArg::F_SETFL(flags)).map_err(system)?;
        let mac = sys::tap_mac(&tap).map_err(|error| failed(Why::System(error)))?;
        let name = IfName::try_from(request.name)
            .map_err(|error| failed(Why::System(io::Error::other(error))))?;
        Ok(Self { tap, info: TapInfo { name, mac, offloads } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tap_is_refused_by_number() {
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let refused = |tap| GivenTap::new(7, tap).unwrap_err().to_string();
        assert_eq!(refused(Some(null)), "descriptor 7 (-F) is no tap");
        assert_eq!(refused(None), "descriptor 7 (-F) is not open");
    }
}
