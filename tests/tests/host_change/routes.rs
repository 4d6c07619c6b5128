//! Routes that are not simply "by way of the router on the link".

use super::*;

pub(super) fn s56_a_router_outside_the_subnet_is_reproduced(lab: &Lab) -> Outcome {
    let family = Family::V4;
    go_offline(lab, &[Family::V4, Family::V6])?;
    let mut watched = Watched::start(lab, &[])?;
    // A host address without a subnet, and a router that is on the link all the same.
    let router = family.gateway();
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_address(link, family.host(), 32)?;
        admin.add_onlink_default(Way::default(link, router, 0))
    })?;

    watched.wait_for(&format!("address {}/32", family.host()), true)?;
    watched.wait_for_default(router)?;
    watched.reach(lab, family)
}

pub(super) fn s57_of_two_hops_the_one_that_lives_is_used(lab: &Lab, family: Family) -> Outcome {
    add_second_uplink(lab)?;
    bring_second_online(lab, family, None)?;
    let (address, gateway, _) = second(family);
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        let ways = [(index_of(UPLINK)?, family.gateway()), (index_of(SECOND.0)?, gateway)];
        admin.add_default_of_two(ways, 100)
    })?;
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;

    // The far end going down is what a pulled cable looks like from here.
    lab.on_remote(|netlink| Ok(netlink.set_up(netlink.link("uplink")?.index, false)?))?;

    watched.wait_for_address(address, true)?;
    watched.wait_for_default(gateway)?;
    watched.wait_for_address(family.host(), false)?;
    set_link(lab, UPLINK, false)?;
    watched.reach(lab, family)
}

pub(super) fn s60_two_uplinks_that_fight_are_left_to_it(lab: &Lab, family: Family) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    bring_second_online(lab, family, Some(3000))?;
    let mut watched = Watched::start(lab, &["-d", "--settle", "20"])?;
    watched.wait_for_address(family.host(), true)?;
    let mut log = watched.inside.listen()?;
    let (address, gateway, _) = second(family);

    // Each swap lasts longer than the settle time, but not than twice that.
    for n in 0..60 {
        let (come, go) = if n % 2 == 0 { (100, 4000) } else { (4000, 100) };
        on_host(lab, |admin| {
            let link = index_of(SECOND.0)?;
            admin.add_route(Way::default(link, gateway, come))?;
            let _ = admin.delete_route(Way::default(link, gateway, go));
            Ok(())
        })?;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let moves = watched.session.running().errors().matches("[better default route").count();
    assert!((1..=12).contains(&moves), "{moves} moves");
    let lines = log.lines()?;
    // There was an address and a default route at every time.
    let ours: Vec<_> = [family.host(), address].iter().map(|it| format!("address {it}/")).collect();
    let mut there = 1_i32;
    for line in lines.iter().filter(|line| ours.iter().any(|it| line.contains(it.as_str()))) {
        // A change of one that is there is reported as another addition.
        if line.starts_with('-') {
            there -= 1;
        } else if !line.contains("deprecated") {
            there += 1;
        }
        assert!(there > 0, "{lines:#?}");
    }
    Ok(())
}

/// Another router on the first uplink.
fn other_router(family: Family) -> Outcome<IpAddr> {
    Ok(match family {
        Family::V4 => "192.0.2.3".parse()?,
        Family::V6 => "fe80::3".parse()?,
    })
}

pub(super) fn a_default_route_by_nexthop_object_is_followed(lab: &Lab, family: Family) -> Outcome {
    // Routes say which object they use and nothing else.
    lab.host().run(|| Ok(std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0")?))?;
    let (router, other) = (family.gateway(), other_router(family)?);
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        admin.set_nexthop(7, index_of(UPLINK)?, router)?;
        admin.add_default_by_nexthop(router, 7, 100)
    })?;
    let mut watched = Watched::start(lab, &["--hold", "100"])?;
    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(router)?;
    watched.reach(lab, family)?;

    // The route stays, and leads elsewhere.
    on_host(lab, |admin| admin.set_nexthop(7, index_of(UPLINK)?, other))?;
    watched.wait_for_default(other)?;
    watched.wait_for(&default_via(router), false)?;

    // A group, of which the members change.
    on_host(lab, |admin| {
        admin.set_nexthop(8, index_of(UPLINK)?, router)?;
        admin.set_nexthop_group(9, &[7])?;
        admin.add_default_by_nexthop(router, 9, 50)
    })?;
    watched.wait_for(&format!("{}metric 50", default_via(other)), true)?;
    on_host(lab, |admin| admin.set_nexthop_group(9, &[8]))?;
    watched.wait_for(&format!("{}metric 50", default_via(router)), true)?;

    // With the objects go the routes, without a word of it.
    on_host(lab, |admin| {
        admin.delete_nexthop(9)?;
        admin.delete_nexthop(7)
    })?;
    watched.wait_for(default_route(router), false)
}
