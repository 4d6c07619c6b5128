//! The host's uplinks: a second one, and which is the better.

use std::net::IpAddr;
use std::os::fd::AsFd;

use super::admin::{Admin, Way, index_of};
use super::{Family, Lab, UPLINK};
use crate::Outcome;
use crate::netlink::Netlink;

/// Name of the second uplink, and of the remote machine's end of it.
pub const SECOND: (&str, &str) = ("eth1", "uplink2");

/// Host's address on the second uplink, its gateway there, and the length of the prefix.
pub fn second(family: Family) -> (IpAddr, IpAddr, u8) {
    match family {
        Family::V4 => ([198, 18, 5, 2].into(), [198, 18, 5, 1].into(), 24),
        Family::V6 => {
            let (host, router) = ("2001:db8:5::2".parse(), "fe80::1".parse());
            (host.expect("an address"), router.expect("an address"), 64)
        }
    }
}

/// Does something as the administrator of the host.
pub fn on_host<T: Send>(lab: &Lab, change: impl FnOnce(&Admin) -> Outcome<T> + Send) -> Outcome<T> {
    lab.host().run(|| change(&Admin::open()?))
}

/// Brings a link of the host up or down.
pub fn set_link(lab: &Lab, name: &str, up: bool) -> Outcome {
    lab.on_host(|netlink| Ok(netlink.set_up(netlink.link(name)?.index, up)?))
}

/// The default route of the host through its first uplink, as the lab makes it.
pub fn first_default(family: Family, metric: u32) -> Outcome<Way> {
    Ok(Way::default(index_of(UPLINK)?, family.gateway(), metric))
}

/// Gives the default route through the first uplink a metric that others are better than.
pub fn worsen_first_default(lab: &Lab, family: Family) -> Outcome {
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        admin.add_route(first_default(family, 2600)?)
    })
}

/// Makes a second uplink without addresses, and brings it up.
pub fn add_second_uplink(lab: &Lab) -> Outcome {
    lab.on_host(|netlink| Ok(netlink.add_veth(SECOND.0, SECOND.1, lab.remote().as_fd())?))?;
    lab.remote().run(|| {
        let netlink = Netlink::open()?;
        let link = netlink.link(SECOND.1)?.index;
        netlink.set_up(link, true)?;
        for family in [Family::V4, Family::V6] {
            let (_, gateway, len) = second(family);
            netlink.add_address(link, gateway, len)?;
        }
        // The router of IPv6 is known by a link-local address, and needs a way back.
        Ok(netlink.add_address(link, "2001:db8:5::1".parse()?, 64)?)
    })?;
    set_link(lab, SECOND.0, true)
}

/// Gives the second uplink its address, and with `metric` a default route.
pub fn bring_second_online(lab: &Lab, family: Family, metric: Option<u32>) -> Outcome {
    let (address, gateway, len) = second(family);
    on_host(lab, |admin| {
        let link = index_of(SECOND.0)?;
        admin.add_address(link, address, len)?;
        metric.map_or(Ok(()), |metric| admin.add_route(Way::default(link, gateway, metric)))
    })
}
