//! What happens to the host.

use std::net::IpAddr;

use tests::Outcome;
use tests::lab::address::prefix_length;
use tests::lab::admin::index_of;
pub(super) use tests::lab::uplinks::{
    SECOND, add_second_uplink, bring_second_online, first_default, on_host, second, set_link,
    worsen_first_default,
};
use tests::lab::{Family, Lab, UPLINK};

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
