//! A path of two routers to a server behind the lab's remote machine, which is the first of them.
//!
//! ```text
//! host ── remote, the first router ── second router ── far
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use super::address::{FAMILIES, Family, prefix_length};
use super::admin::Inside;
use super::machine::Machine;
use super::network::configure_kernel;
use super::{Lab, UPLINK};
use crate::Outcome;
use crate::netlink::Netlink;

/// Names of a link's two ends, the near one first.
type Ends = (&'static str, &'static str);

const ROUTERS: Ends = ("onward", "back");
const LAST: Ends = ("access", UPLINK);
const CONTAINER: Ends = ("container", UPLINK);

/// The machines behind the first router.
#[derive(Debug)]
pub struct Path {
    /// The second router.
    pub second: Machine,
    /// The server.
    pub far: Machine,
}

impl Family {
    /// The ends of the link between the two routers, the near one first.
    pub const fn between_routers(self) -> (IpAddr, IpAddr) {
        self.ends(128, 0xb)
    }

    /// The second router's address on the last link, and that of the server.
    pub const fn last_link(self) -> (IpAddr, IpAddr) {
        self.ends(192, 0xc)
    }

    /// The ends of the link between the namespace and a container behind it.
    pub const fn to_container(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 => {
                (IpAddr::V4(Ipv4Addr::new(10, 66, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 66, 0, 2)))
            }
            Self::V6 => (
                IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1)),
                IpAddr::V6(Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 2)),
            ),
        }
    }

    const fn ends(self, v4: u8, v6: u16) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 => (
                IpAddr::V4(Ipv4Addr::new(203, 0, 113, v4 + 1)),
                IpAddr::V4(Ipv4Addr::new(203, 0, 113, v4 + 2)),
            ),
            Self::V6 => (
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, 0, 1)),
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, v6, 0, 0, 0, 0, 2)),
            ),
        }
    }

    /// The server's address.
    pub const fn far(self) -> IpAddr {
        self.last_link().1
    }
}

/// Length of the prefixes of these links.
const fn length(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => prefix_length(family),
    }
}

impl Path {
    /// Gives both ends of the last link an MTU.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn limit_last_link(&self, mtu: u32) -> Outcome {
        for (machine, name) in [(&self.second, LAST.0), (&self.far, LAST.1)] {
            machine.run(|| {
                let netlink = Netlink::open()?;
                Ok(netlink.set_mtu(netlink.link(name)?.index, mtu)?)
            })?;
        }
        Ok(())
    }

    /// Adds the machines to `lab`.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn build(lab: &Lab) -> Outcome<Self> {
        let (second, far) = (Machine::new()?, Machine::new()?);
        lab.on_remote(|netlink| Ok(netlink.add_veth(ROUTERS.0, ROUTERS.1, second.as_fd())?))?;
        second.run(|| Ok(Netlink::open()?.add_veth(LAST.0, LAST.1, far.as_fd())?))?;
        let each = |pick: fn(Family) -> IpAddr| FAMILIES.map(|family| (family, pick(family)));
        let first = each(|family| family.between_routers().0);
        let second_back = each(|family| family.between_routers().1);
        let second_access = each(|family| family.last_link().0);
        lab.remote().run(|| configure(&[(ROUTERS.0, first)], Some((ROUTERS.0, second_back))))?;
        second.run(|| {
            forward()?;
            configure(
                &[(ROUTERS.1, second_back), (LAST.0, second_access)],
                Some((ROUTERS.1, first)),
            )
        })?;
        far.run(|| configure(&[(LAST.1, each(Family::far))], Some((LAST.1, second_access))))?;
        Ok(Self { second, far })
    }
}

/// A container behind the namespace, which forwards for it, by a link that carries packets of `mtu` octets towards it;
/// what the container believes of the link is that it carries 9000.
///
/// # Errors
///
/// What the kernel refused.
pub fn container_behind(inside: &Inside, mtu: u32) -> Outcome<Machine> {
    let each = |pick: fn(Family) -> IpAddr| FAMILIES.map(|family| (family, pick(family)));
    let [near, far] = [each(|it| it.to_container().0), each(|it| it.to_container().1)];
    inside.run(|| {
        let container = Machine::new()?;
        let netlink = Netlink::open()?;
        netlink.add_veth(CONTAINER.0, CONTAINER.1, container.as_fd())?;
        forward()?;
        configure(&[(CONTAINER.0, near)], None)?;
        netlink.set_mtu(netlink.link(CONTAINER.0)?.index, mtu)?;
        container.run(|| {
            let netlink = Netlink::open()?;
            netlink.set_mtu(netlink.link(CONTAINER.1)?.index, 9000)?;
            configure(&[(CONTAINER.1, far)], Some((CONTAINER.1, near)))
        })?;
        Ok(container)
    })
}

/// Forwards in both families from now on.
fn forward() -> Outcome {
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
}

/// An address of each family.
type Addresses = [(Family, IpAddr); 2];

/// Gives links their addresses, and the machine a default route by one of them.
fn configure(links: &[(&str, Addresses)], route: Option<(&str, Addresses)>) -> Outcome {
    configure_kernel()?;
    let netlink = Netlink::open()?;
    netlink.set_up(netlink.link("lo")?.index, true)?;
    for (name, addresses) in links {
        let link = netlink.link(name)?.index;
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0")?;
        netlink.set_up(link, true)?;
        for (family, address) in addresses {
            netlink.add_address(link, *address, length(*family))?;
        }
    }
    if let Some((name, gateways)) = route {
        for (_, gateway) in gateways {
            netlink.add_default_route(netlink.link(name)?.index, gateway)?;
        }
    }
    Ok(())
}
