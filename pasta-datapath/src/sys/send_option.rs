//! Options for what a socket sends ([`crate::flow::datagram::send_options`]).

use super::raw::set_option;
use crate::flow::datagram::send_options::{Oversize, SendOption};
use crate::wire::ip::Handling;
use nix::libc;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Sets `option` of `socket` for what it sends to `remote`; on a socket of both families, each has its own.
///
/// # Errors
///
/// As setsockopt(2).
pub fn set(socket: impl AsFd, remote: IpAddr, option: SendOption) -> io::Result<()> {
    let v4 = remote.to_canonical().is_ipv4();
    let (name_v4, name_v6, value) = match option {
        SendOption::HopLimit(hops) => {
            // What the host is set up for is the usual one's.
            let hops = if hops == Handling::DEFAULT.hop_limit { -1 } else { hops.into() };
            (libc::IP_TTL, libc::IPV6_UNICAST_HOPS, hops)
        }
        SendOption::TrafficClass(class) => (libc::IP_TOS, libc::IPV6_TCLASS, class.into()),
        SendOption::Oversize(oversize) => {
            let value = match oversize {
                Oversize::Fragmented => libc::IP_PMTUDISC_WANT,
                Oversize::Refused => libc::IP_PMTUDISC_DO,
                Oversize::Allowed => libc::IP_PMTUDISC_DONT,
            };
            (libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER, value)
        }
    };
    let (level, name) = if v4 { (libc::SOL_IP, name_v4) } else { (libc::SOL_IPV6, name_v6) };
    set_option(socket.as_fd(), level, name, value)
}
