//! The addresses of the lab, all from the documentation ranges (RFC 5737, RFC 3849).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family, and with it the addresses that play each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Host's link to the remote machine, and what the namespace's link is called after it.
pub const UPLINK: &str = "eth0";

/// Length of the host's prefix in each family.
pub const fn prefix_length(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

const fn v6(third: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, last))
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

impl Family {
    /// Short name, as it appears in names of tests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    const fn pick(self, v4: IpAddr, v6: IpAddr) -> IpAddr {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// The host's own address, on [`UPLINK`]; the namespace copies it.
    pub const fn host(self) -> IpAddr {
        self.pick(v4(192, 0, 2, 2), v6(0, 2))
    }

    /// A second address of the host, on its loopback link: for outbound sources.
    pub const fn host_second(self) -> IpAddr {
        self.pick(v4(192, 0, 2, 22), v6(0, 0x22))
    }

    /// The router, the host's gateway; in IPv6 link-local, as advertised routers are.
    pub const fn gateway(self) -> IpAddr {
        self.pick(v4(192, 0, 2, 1), IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)))
    }

    /// An address of the remote machine on the host's own link.
    pub const fn neighbour(self) -> IpAddr {
        self.pick(v4(192, 0, 2, 1), v6(0, 1))
    }

    /// A server beyond the router.
    pub const fn internet(self) -> IpAddr {
        self.pick(v4(198, 51, 100, 1), v6(1, 1))
    }

    /// Another server beyond the router.
    pub const fn internet_second(self) -> IpAddr {
        self.pick(v4(203, 0, 113, 1), v6(2, 1))
    }

    /// An address beyond the router that answers nothing.
    pub const fn silent(self) -> IpAddr {
        self.pick(v4(198, 51, 100, 66), v6(1, 0x66))
    }

    /// An address for which the router answers "unreachable".
    pub const fn unreachable(self) -> IpAddr {
        self.pick(v4(203, 0, 113, 77), v6(2, 0x77))
    }

    /// What a program without `pasta` gets for [`Family::unreachable`]: Linux answers with "host
    /// unreachable" in IPv4 and with "no route" in IPv6, which applications see as these.
    pub const fn unreachable_error(self) -> &'static str {
        match self {
            Self::V4 => "EHOSTUNREACH",
            Self::V6 => "ENETUNREACH",
        }
    }

    /// The option of `pasta` that switches the other family off.
    pub const fn only_option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    /// Length of the prefix that holds one address.
    pub const fn host_length(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// An address that is nowhere in the lab, for options that map one.
    pub const fn unused(self) -> IpAddr {
        self.pick(v4(203, 0, 113, 200), v6(3, 0x200))
    }

    /// The host's loopback address.
    pub const fn loopback(self) -> IpAddr {
        self.pick(IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST))
    }

    /// The wildcard address.
    pub const fn any(self) -> IpAddr {
        self.pick(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// Octets of IP and UDP header in front of a datagram's payload.
    pub const fn udp_overhead(self) -> usize {
        match self {
            Self::V4 => 28,
            Self::V6 => 48,
        }
    }
}

/// An address as the client inside the namespace takes it: a link-local one gets the zone of the
/// namespace's link `link`.
pub fn zoned(address: IpAddr, link: &str) -> String {
    match address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => format!("{ip}%{link}"),
        _ => address.to_string(),
    }
}

/// Address and port as the client inside the namespace takes them; zones as for [`zoned`].
pub fn endpoint_on(address: IpAddr, port: u16, link: &str) -> String {
    match address {
        IpAddr::V6(_) => format!("[{}]:{port}", zoned(address, link)),
        IpAddr::V4(_) => format!("{address}:{port}"),
    }
}

/// [`endpoint_on`] the namespace's usual link, which has the name of the host's.
pub fn endpoint(address: IpAddr, port: u16) -> String {
    endpoint_on(address, port, UPLINK)
}
