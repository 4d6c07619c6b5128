//! What happens to the host.

use std::net::IpAddr;

use tests::Outcome;
use tests::lab::address::prefix_length;
use tests::lab::admin::{Admin, Way, index_of};
use tests::lab::{Family, Lab, UPLINK};
use tests::netlink::Netlink;

/// Name of the second uplink, and of the remote machine's end of it.
pub(super) const SECOND: (&str, &str) = ("eth1", "uplink2");

/// Host's address on the second uplink, its gateway there, and the length of the prefix.
pub(super) fn second(family: Family) -> (IpAddr, IpAddr, u8) {
    match family {
        Family::V4 => ([198, 18, 5, 2].into(), [198, 18, 5, 1].into(), 24),
        Family::V6 => {
            let (host, router) = ("2001:db8:5::2".parse(), "fe80::1".parse());
            (host.expect("an address"), router.expect("an address"), 64)
        }
    }
}

/// Another address on the first uplink, in the same subnet.
pub(super) fn renewed(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 0, 2, 60].into(),
        Family::V6 => "2001:db8::60".parse().expect("an address"),
    }
}

/// An address on the first uplink in another subnet.
pub(super) fn elsewhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 7, 9].into(),
        Family::V6 => "2001:db8:7::9".parse().expect("an address"),
    }
}

/// Does something as the administrator of the host.
pub(super) fn on_host<T: Send>(
    lab: &Lab,
    change: impl FnOnce(&Admin) -> Outcome<T> + Send,
) -> Outcome<T> {
    lab.host().run(|| change(&Admin::open()?))
}

pub(super) fn set_link(lab: &Lab, name: &str, up: bool) -> Outcome {
    lab.on_host(|netlink| Ok(netlink.set_up(netlink.link(name)?.index, up)?))
}

/// The default route of the host through its first uplink, as the lab makes it.
pub(super) fn first_default(family: Family, metric: u32) -> Outcome<Way> {
    Ok(Way::default(index_of(UPLINK)?, family.gateway(), metric))
}

/// Takes all addresses and routes of the first uplink away; the link stays up.
pub(super) fn go_offline(lab: &Lab, families: &[Family]) -> Outcome {
    for family in families {
        on_host(lab, |admin| {
            let link = index_of(UPLINK)?;
            // A default route of IPv6 does not go with the address.
            let _ = admin.delete_route(first_default(*family, 0)?);
            admin.delete_address(link, family.host(), prefix_length(*family))
        })?;
    }
    Ok(())
}

/// Gives the first uplink its address back, and with `metric` a default route.
pub(super) fn come_online(lab: &Lab, family: Family, metric: Option<u32>) -> Outcome {
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, family.host(), prefix_length(family))?;
        metric.map_or(Ok(()), |metric| admin.add_route(first_default(family, metric)?))
    })
}

/// Gives the default route through the first uplink a metric that others are better than.
pub(super) fn worsen_first_default(lab: &Lab, family: Family) -> Outcome {
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        admin.add_route(first_default(family, 2600)?)
    })
}

/// Makes a second uplink without addresses, and brings it up.
pub(super) fn add_second_uplink(lab: &Lab) -> Outcome {
    use std::os::fd::AsFd;
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
pub(super) fn bring_second_online(lab: &Lab, family: Family, metric: Option<u32>) -> Outcome {
    let (address, gateway, len) = second(family);
    on_host(lab, |admin| {
        let link = index_of(SECOND.0)?;
        admin.add_address(link, address, len)?;
        metric.map_or(Ok(()), |metric| admin.add_route(Way::default(link, gateway, metric)))
    })
}

/// Makes a bridge that is up and has a port, and so a carrier.
pub(super) fn add_bridge(lab: &Lab, name: &str) -> Outcome {
    use std::os::fd::AsFd;
    let (port, peer) = ("port0", "peer0");
    lab.on_host(|netlink| Ok(netlink.add_veth(port, peer, lab.remote().as_fd())?))?;
    lab.on_remote(|netlink| Ok(netlink.set_up(netlink.link(peer)?.index, true)?))?;
    on_host(lab, |admin| {
        admin.add_bridge(name)?;
        admin.add_port(index_of(name)?, index_of(port)?)
    })?;
    set_link(lab, port, true)?;
    set_link(lab, name, true)?;
    lab.on_host(|netlink| netlink.wait_until_running(netlink.link(name)?.index))
}
