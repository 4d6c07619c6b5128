//! How datagrams leave: hop limit, traffic class and fragmentation as the namespace's packets have them.
//!
//! A socket of a flow's own has an option set only when a datagram differs from the one before ([`SendOptions`]). A
//! socket of many gets hop limit and traffic class with each datagram, and keeps one option for each family.
//!
//! **Fragmentation.** Linux sets "don't fragment" on datagrams that fit the MTU of their way, and fragments others
//! itself (`IP_PMTUDISC_WANT`, ip(7)); only a program that discovers the MTU forbids it (`IP_PMTUDISC_DO`). On the tap
//! both look alike, and its MTU may be 65520 where that of the host's link is 1500. So a packet of the namespace that
//! forbids fragmentation is sent so if Ethernet could carry it: its sender gets the ICMP error of a router that says
//! what the path carries. A larger one is fragmented by the host as it would have been at its source.

use super::DatagramSocket;
use crate::wire::ip::{Fragmentation, Handling, IPV4_LEN, IPV6_LEN};
use std::net::IpAddr;

/// The largest packet that links in front of the host are taken to carry whole (RFC 894).
const ETHERNET_MTU: usize = 1500;

/// The largest packet that every path of IPv6 carries whole (RFC 8200, section 5), and nearly every one of IPv4: for
/// these, no call is spent.
const EVERY_PATH: usize = 1280;

/// What a socket does with datagrams that exceed the MTU of their path (`IP_MTU_DISCOVER`, ip(7);
/// `IPV6_MTU_DISCOVER`, ipv6(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oversize {
    /// Fragments them, and forbids fragmentation of others (`PMTUDISC_WANT`): what a new socket does.
    #[default]
    Fragmented,
    /// Refuses them, and forbids fragmentation of others (`PMTUDISC_DO`).
    Refused,
    /// Fragments them, and allows routers to fragment others (`PMTUDISC_DONT`).
    Allowed,
}

/// An option for what a socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOption {
    /// `IP_TTL`, `IPV6_UNICAST_HOPS`.
    HopLimit(u8),
    /// `IP_TOS`, `IPV6_TCLASS`.
    TrafficClass(u8),
    /// `IP_MTU_DISCOVER`, `IPV6_MTU_DISCOVER`.
    Oversize(Oversize),
}

/// The options that a socket has, as far as we have set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOptions {
    hop_limit: u8,
    traffic_class: u8,
    oversize: Oversize,
}

impl Default for SendOptions {
    fn default() -> Self {
        let Handling { hop_limit, traffic_class, .. } = Handling::DEFAULT;
        Self { hop_limit, traffic_class, oversize: Oversize::default() }
    }
}

impl SendOptions {
    /// Has `socket` send a packet with `octets` behind its network header to `remote` as `handling` says.
    #[inline]
    pub fn apply<K: DatagramSocket>(
        &mut self,
        socket: &K,
        remote: IpAddr,
        handling: Handling,
        octets: usize,
    ) {
        let oversize = wanted(self.oversize, handling.fragmentation, remote, octets);
        let Handling { hop_limit, traffic_class, .. } = handling;
        let wanted = Self { hop_limit, traffic_class, oversize };
        if *self != wanted {
            self.change(socket, remote, wanted);
        }
    }

    /// Has `socket` send as one that nothing was set for.
    pub fn reset<K: DatagramSocket>(&mut self, socket: &K, remote: IpAddr) {
        self.change(socket, remote, Self::default());
    }

    #[cold]
    fn change<K: DatagramSocket>(&mut self, socket: &K, remote: IpAddr, wanted: Self) {
        let Self { hop_limit, traffic_class, oversize } = wanted;
        if self.hop_limit != hop_limit {
            socket.set_send_option(remote, SendOption::HopLimit(hop_limit));
        }
        if self.traffic_class != traffic_class {
            socket.set_send_option(remote, SendOption::TrafficClass(traffic_class));
        }
        if self.oversize != oversize {
            socket.set_send_option(remote, SendOption::Oversize(oversize));
        }
        *self = wanted;
    }
}

/// What a socket that has `set` is to do with a packet to `remote` with `octets` behind its network header.
pub fn wanted(
    set: Oversize,
    fragmentation: Fragmentation,
    remote: IpAddr,
    octets: usize,
) -> Oversize {
    let header = if remote.is_ipv4() { IPV4_LEN } else { IPV6_LEN };
    let packet = header + octets;
    match fragmentation {
        Fragmentation::Allowed if remote.is_ipv4() => Oversize::Allowed,
        // Routers never do; its sender has, and so does the host.
        Fragmentation::Allowed => Oversize::Fragmented,
        Fragmentation::Forbidden if packet > ETHERNET_MTU => Oversize::Fragmented,
        Fragmentation::Forbidden if packet > EVERY_PATH => Oversize::Refused,
        Fragmentation::Forbidden if set == Oversize::Allowed => Oversize::Fragmented,
        Fragmentation::Forbidden => set,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fragmentation::{Allowed, Forbidden};

    #[test]
    fn dont_fragment_is_as_the_sender_has_it_where_ethernet_could_carry_the_packet() {
        let (v4, v6) =
            (IpAddr::from([198, 51, 100, 1]), IpAddr::from([1, 2, 3, 4, 5, 6, 7, 8_u16]));
        for (set, fragmentation, remote, octets, expected) in [
            (Oversize::Fragmented, Forbidden, v4, 108, Oversize::Fragmented),
            (Oversize::Refused, Forbidden, v4, 108, Oversize::Refused),
            (Oversize::Allowed, Forbidden, v4, 108, Oversize::Fragmented),
            (Oversize::Fragmented, Forbidden, v4, 1260, Oversize::Fragmented),
            (Oversize::Fragmented, Forbidden, v4, 1261, Oversize::Refused),
            (Oversize::Fragmented, Forbidden, v4, 1480, Oversize::Refused),
            (Oversize::Refused, Forbidden, v4, 1481, Oversize::Fragmented),
            (Oversize::Fragmented, Forbidden, v6, 1241, Oversize::Refused),
            (Oversize::Fragmented, Forbidden, v6, 1460, Oversize::Refused),
            (Oversize::Refused, Forbidden, v6, 1461, Oversize::Fragmented),
            (Oversize::Refused, Allowed, v4, 108, Oversize::Allowed),
            (Oversize::Refused, Allowed, v4, 8008, Oversize::Allowed),
            (Oversize::Refused, Allowed, v6, 8008, Oversize::Fragmented),
        ] {
            let wanted = wanted(set, fragmentation, remote, octets);
            assert_eq!(wanted, expected, "{set:?} {fragmentation:?} {remote} {octets}");
        }
    }
}
