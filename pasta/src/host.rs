//! What of the host's network has to be opened or asked before any namespace is entered.

use crate::options::KernelHas;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::io;
use std::os::fd::OwnedFd;

/// The monitor's windows to the host's network: it can look through them and change nothing.
///
/// The kernel lets a netlink socket change the network only if its opener was allowed to, so both
/// are opened with `CAP_NET_ADMIN` out of the effective set, whoever we are.
#[derive(Debug)]
pub(crate) struct RouteSockets {
    /// For events.
    pub(crate) events: OwnedFd,
    /// For dumps.
    pub(crate) dumps: OwnedFd,
}

impl RouteSockets {
    /// Opens both.
    ///
    /// # Errors
    ///
    /// What socket(2) or capset(2) reports.
    pub(crate) fn open() -> io::Result<Self> {
        let (set, admin) = (CapSet::Effective, Capability::CAP_NET_ADMIN);
        let powerful = caps::has_cap(None, set, admin).map_err(io::Error::other)?;
        if powerful {
            caps::drop(None, set, admin).map_err(io::Error::other)?;
        }
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkRoute;
        let open = || socket(AddressFamily::Netlink, SockType::Raw, flags, protocol);
        let sockets = open().and_then(|events| Ok(Self { events, dumps: open()? }));
        if powerful {
            caps::raise(None, set, admin).map_err(io::Error::other)?;
        }
        Ok(sockets?)
    }
}

impl KernelHas {
    /// Asks the kernel which address families it has sockets for.
    pub(crate) fn probe() -> Self {
        let has = |family| {
            let kind = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
            !matches!(socket(family, kind.0, kind.1, None), Err(Errno::EAFNOSUPPORT))
        };
        Self { ipv4: has(AddressFamily::Inet), ipv6: has(AddressFamily::Inet6) }
    }
}
