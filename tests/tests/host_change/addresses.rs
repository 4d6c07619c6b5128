//! Addresses that are renewed, tentative, deprecated, and that expire.

use super::*;

/// A time without end (`INFINITY_LIFE_TIME`, net/addrconf.h).
const FOREVER: u32 = u32::MAX;

pub(super) fn s15_what_was_left_may_go(lab: &Lab, family: Family) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    let mut watched = Watched::start(lab, &[])?;
    bring_second_online(lab, family, Some(100))?;
    let (address, ..) = second(family);
    watched.wait_for(
        &format!("address {}/{} deprecated", family.host(), prefix_length(family)),
        true,
    )?;
    let mut log = watched.inside.listen()?;

    set_link(lab, UPLINK, false)?;
    // Something that shows when that has been dealt with.
    let mark: IpAddr = match family {
        Family::V4 => [198, 18, 5, 9].into(),
        Family::V6 => "2001:db8:5::9".parse()?,
    };
    let len = prefix_length(family);
    on_host(lab, |admin| admin.add_address(index_of(SECOND.0)?, mark, len))?;
    watched.wait_for_address(mark, true)?;

    let lines = log.lines()?;
    never_gone(lines, &format!("address {address}/"));
    never_gone(lines, default_route(address));
    watched.reach(lab, family)
}

pub(super) fn s21_a_default_route_that_goes_with_an_address_is_held(lab: &Lab) -> Outcome {
    let family = Family::V4;
    // A route that prefers an address as source goes with that address, without a word of it.
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        admin.add_default_from(first_default(family, 0)?, family.host())
    })?;
    let watched = Watched::start(lab, &["-4", "--hold", "300"])?;
    watched.wait_for_default(family.gateway())?;
    let len = prefix_length(family);
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, elsewhere(family), len))?;
    watched.wait_for_address(elsewhere(family), true)?;
    let mut log = watched.inside.listen()?;

    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, family.host(), len))?;

    watched.wait_for_address(family.host(), false)?;
    watched.wait_for(default_route(family.gateway()), false)?;
    let lines = log.lines()?;
    let address = position(lines, &format!("- address {}/", family.host()));
    never_gone(&lines[..address], default_route(family.gateway()));
    Ok(())
}

pub(super) fn s29_a_deprecated_address_is_deprecated_and_goes_when_the_hosts_does(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    let (old, new, len) = (family.host(), elsewhere(family), prefix_length(family));
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, new, len))?;
    watched.wait_for_address(new, true)?;

    on_host(lab, |admin| admin.lend_address(index_of(UPLINK)?, (old, len), (0, 3600)))?;
    watched.wait_for(&format!("address {old}/{len} deprecated"), true)?;
    on_host(lab, |admin| {
        admin.delete_address(index_of(UPLINK)?, old, len)?;
        let _ = admin.add_route(first_default(family, 0)?);
        Ok(())
    })?;
    watched.wait_for_address(old, false)?;
    assert!(watched.has(&format!("address {new}/{len} on"))?);
    Ok(())
}

pub(super) fn s30_refreshed_lifetimes_lead_to_nothing(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let (address, len) = (family.host(), prefix_length(family));
    // From now on it has an end, which changes nothing either.
    on_host(lab, |admin| admin.lend_address(index_of(UPLINK)?, (address, len), (1800, 3600)))?;
    let mut log = watched.inside.listen()?;
    let before = watched.lines_said()?;

    for n in 0..300 {
        let times = (1800 + n, 3600 + n);
        on_host(lab, |admin| admin.lend_address(index_of(UPLINK)?, (address, len), times))?;
    }
    assert_eq!(log.lines()?, [] as [String; 0]);
    assert_eq!(watched.lines_said()?, before);
    // A change is noticed as before.
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, elsewhere(family), len))?;
    watched.wait_for_address(elsewhere(family), true)?;
    let lines = log.lines()?;
    never_gone(lines, &format!("address {address}/"));
    Ok(())
}

pub(super) fn s31_privacy_addresses_that_rotate_lead_to_nothing(lab: &Lab) -> Outcome {
    let family = Family::V6;
    let own = (family.host(), prefix_length(family));
    lab.host().run(|| {
        // The kernel gives up after some that were made for one address.
        for (name, value) in [("use_tempaddr", "2"), ("regen_max_retry", "1000")] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{UPLINK}/{name}"), value)?;
        }
        Ok(())
    })?;
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let mut log = watched.inside.listen()?;
    let before = watched.lines_said()?;
    let privacy_address = || {
        let all = lab.on_host(|netlink| Ok(netlink.addresses()?)).ok()?;
        let in_subnet = |it: &IpAddr| it.to_string().starts_with("2001:db8::");
        let mut found = all.into_iter().map(|it| it.address).filter(in_subnet);
        found.find(|it| *it != family.host() && *it != elsewhere(family))
    };

    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        on_host(lab, |admin| admin.manage_privacy_of(index_of(UPLINK)?, own, true))?;
        seen.insert(wait::until("a privacy address", privacy_address)?);
        on_host(lab, |admin| admin.manage_privacy_of(index_of(UPLINK)?, own, false))?;
        wait::until("its end", || privacy_address().is_none().then_some(()))?;
    }
    assert_eq!(seen.len(), 20, "{seen:?}");
    assert_eq!(log.lines()?, [] as [String; 0]);
    assert_eq!(watched.lines_said()?, before);
    // One that stays is no more to be copied, and a change is noticed as before.
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.manage_privacy_of(link, own, true)?;
        admin.add_address(link, elsewhere(family), prefix_length(family))
    })?;
    watched.wait_for_address(elsewhere(family), true)?;
    let stays = wait::until("a privacy address", privacy_address)?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&stays.to_string())), "{lines:#?}");
    assert!(lines.iter().all(|it| it.contains(&elsewhere(family).to_string())), "{lines:#?}");
    Ok(())
}

pub(super) fn s32_a_tentative_address_is_waited_for(lab: &Lab) -> Outcome {
    let family = Family::V6;
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    lab.host().run(|| {
        for (name, value) in [("accept_dad", "1"), ("dad_transmits", "1")] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{UPLINK}/{name}"), value)?;
        }
        Ok(())
    })?;
    let (good, taken) = (elsewhere(family), renewed(family));
    // One of the two is the neighbour's.
    lab.on_remote(|netlink| Ok(netlink.add_address(netlink.link("uplink")?.index, taken, 64)?))?;
    let mut log = watched.inside.listen()?;

    let is_tentative = |address| {
        lab.on_host(|netlink| {
            let all = netlink.addresses()?;
            Ok(all.iter().find(|it| it.address == address).map(|it| it.tentative))
        })
    };
    let forever = (FOREVER, FOREVER);
    on_host(lab, |admin| {
        admin.lend_address(index_of(UPLINK)?, (taken, 64), forever)?;
        admin.lend_address(index_of(UPLINK)?, (good, 64), forever)
    })?;
    let early = log.lines()?.to_vec();
    if is_tentative(good)? == Some(true) {
        assert!(!early.iter().any(|it| it.contains(&good.to_string())), "{early:#?}");
    }
    watched.wait_for_address(good, true)?;
    assert_eq!(is_tentative(good)?, Some(false));
    // The other one stays on the host, and is never proven.
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&format!("{taken}/"))), "{lines:#?}");
    Ok(())
}

pub(super) fn s33_an_address_that_expires_is_held_and_does_not_expire_by_itself(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut watched = Watched::start(lab, &["-d", "--hold", "200"])?;
    watched.wait_for_address(family.host(), true)?;
    let mut log = watched.inside.listen()?;
    let (address, len) = (family.host(), prefix_length(family));

    on_host(lab, |admin| admin.lend_address(index_of(UPLINK)?, (address, len), (1, 2)))?;

    watched.wait_for_address(address, false)?;
    wait::until("local mode", || {
        watched.session.running().errors().contains("-> local").then_some(())
    })?;
    let errors = watched.session.running().errors();
    let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
    let held = errors.find(&format!("host: {name} held"));
    let local = errors.find("-> local");
    assert!(held.is_some() && held < local, "{errors}");
    if family == Family::V4 {
        let lines = log.lines()?;
        let came = position(lines, "+ address 169.254.2.1/");
        assert!(came < position(lines, &format!("- address {address}/")), "{lines:#?}");
    }
    Ok(())
}
