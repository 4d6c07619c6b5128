//! Sockets and settings of the host that are opened or read before a namespace is entered.

use crate::options::KernelFamilies;
use crate::target::Target;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use pasta::ports::System;
use pasta_ipc::types::PortRange;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::OwnedFd;

/// The monitor's rtnetlink sockets of the host, which can read and not change its network.
///
/// The kernel checks the capabilities of the process that opened a netlink socket too, so both are opened
/// without `CAP_NET_ADMIN` in the effective set.
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
        without_net_admin(|| {
            let open = || open_netlink(SockProtocol::NetlinkRoute);
            Ok(Self { events: open()?, dumps: open()? })
        })
    }
}

/// Opens the monitor's sock_diag(7) socket of the host, which can only read as well.
///
/// # Errors
///
/// As [`RouteSockets::open`].
pub(crate) fn open_port_socket() -> io::Result<OwnedFd> {
    without_net_admin(|| Ok(open_netlink(SockProtocol::NetlinkSockDiag)?))
}

fn open_netlink(protocol: SockProtocol) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
}

/// Calls `work` without `CAP_NET_ADMIN` in the effective set.
fn without_net_admin<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (set, admin) = (CapSet::Effective, Capability::CAP_NET_ADMIN);
    let powerful = caps::has_cap(None, set, admin).map_err(io::Error::other)?;
    if powerful {
        caps::drop(None, set, admin).map_err(io::Error::other)?;
    }
    let done = work();
    if powerful {
        caps::raise(None, set, admin).map_err(io::Error::other)?;
    }
    done
}

/// Reads the host's sysctls about ports, with fall-backs; and whether the monitor can have the capability
/// to bind low ports in the namespace of `target`. It has it in every user namespace that it makes or
/// enters. In ours (Podman attaches so) it has what a container has left us.
pub(crate) fn port_system(target: &Target) -> System {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let fallback = System::fallback();
    let start = read("ip_unprivileged_port_start").and_then(|text| text.trim().parse().ok());
    let ephemeral = read("ip_local_port_range").and_then(|text| {
        let mut words = text.split_ascii_whitespace().map(str::parse);
        match (words.next(), words.next()) {
            (Some(Ok(first)), Some(Ok(last))) => PortRange::new(first, last).ok(),
            _ => None,
        }
    });
    System {
        unprivileged_start: start.unwrap_or(fallback.unprivileged_start),
        namespace_start: match (target, has_bind_service()) {
            (Target::Existing(_), false) => fallback.unprivileged_start,
            _ => fallback.namespace_start,
        },
        ephemeral: ephemeral.unwrap_or(fallback.ephemeral),
    }
}

fn has_bind_service() -> bool {
    caps::has_cap(None, CapSet::Bounding, Capability::CAP_NET_BIND_SERVICE).unwrap_or(true)
}

/// Asks the kernel which address families it has sockets for.
pub(crate) fn kernel_families() -> KernelFamilies {
    let has = |family| {
        let kind = (SockType::Datagram, SockFlag::SOCK_CLOEXEC);
        !matches!(socket(family, kind.0, kind.1, None), Err(Errno::EAFNOSUPPORT))
    };
    KernelFamilies { ipv4: has(AddressFamily::Inet), ipv6: has(AddressFamily::Inet6) }
}

/// Whether a socket can be bound to `address`: the host has it. What cannot be tried counts as there.
pub(crate) fn has_address(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
        Ok(_) => true,
    }
}
