//! The lab's network: a host with one uplink, and a remote machine that is everything else.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use super::address::{FAMILIES, UPLINK, prefix_length};
use super::enter::Power;
use super::machine::Machine;
use crate::Outcome;
use crate::netlink::{Fate, Netlink};

/// The remote machine's end of the link.
const REMOTE_LINK: &str = "uplink";

/// The two network namespaces of a lab.
#[derive(Debug)]
pub struct Network {
    /// The machine that `pasta` runs on.
    pub host: Machine,
    /// The router and every server behind it.
    pub remote: Machine,
}

impl Network {
    /// Builds the network of the crate's overview; the calling thread's namespace becomes the host.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn build(power: Power) -> Outcome<Self> {
        let host = Machine::here()?;
        let remote = Machine::new()?;
        configure_kernel()?;
        // Whoever runs `pasta` here may use ping sockets: an echo of the namespace becomes one. In a
        // user namespace only groups that are mapped can be named.
        let groups = match power {
            Power::Root => "0 2147483647",
            Power::UserNamespace => "0 0",
        };
        fs::write("/proc/sys/net/ipv4/ping_group_range", groups)?;
        let netlink = Netlink::open()?;
        netlink.set_up(netlink.link("lo")?.index, true)?;
        netlink.add_veth(UPLINK, REMOTE_LINK, remote.as_fd())?;
        remote.run(configure_remote)?;
        let uplink = netlink.link(UPLINK)?.index;
        netlink.set_up(uplink, true)?;
        for family in FAMILIES {
            netlink.add_address(uplink, family.host(), prefix_length(family))?;
        }
        for family in FAMILIES {
            netlink.add_default_route(uplink, family.gateway())?;
        }
        netlink.wait_until_running(uplink)?;
        Ok(Self { host, remote })
    }
}

/// Addresses are usable at once: no duplicate address detection, no router discovery.
pub(super) fn configure_kernel() -> io::Result<()> {
    for scope in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0")?;
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_ra"), "0")?;
    }
    Ok(())
}

fn configure_remote() -> Outcome {
    configure_kernel()?;
    let netlink = Netlink::open()?;
    let (lo, link) = (netlink.link("lo")?.index, netlink.link(REMOTE_LINK)?.index);
    netlink.set_up(lo, true)?;
    netlink.set_up(link, true)?;
    for family in FAMILIES {
        netlink.add_address(link, family.neighbour(), prefix_length(family))?;
        for server in [family.internet(), family.internet_second()] {
            netlink.add_address(lo, server, host_prefix(server))?;
        }
        netlink.add_dead_end(family.silent(), Fate::BlackHole)?;
        netlink.add_dead_end(family.unreachable(), Fate::Unreachable)?;
    }
    netlink.add_address(link, super::address::Family::V6.gateway(), 64)?;
    // A router: what is not its own goes by its routes, here to the dead ends and no further.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    Ok(())
}

const fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}
