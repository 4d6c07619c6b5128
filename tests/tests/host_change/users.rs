//! What the namespace's own users have configured.

use std::net::Ipv4Addr;
use std::time::Duration;

use tests::lab::pasta::NO_PORTS;

use super::*;
use tests::lab::admin::Log;

/// The host's gateway becomes `new`, and then something changes that shows when that has been dealt with.
fn other_gateway_is_not_handed_on(
    lab: &Lab,
    family: Family,
    new: IpAddr,
    watched: &Watched,
    log: &mut Log,
) -> Outcome {
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        admin.add_route(Way::default(index_of(UPLINK)?, new, 0))?;
        admin.add_address(index_of(UPLINK)?, elsewhere(family), prefix_length(family))
    })?;
    watched.wait_for_address(elsewhere(family), true)?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|line| line.contains(default_route(new))), "{lines:#?}");
    Ok(())
}

pub(super) fn s41_a_default_route_of_users_is_left_alone(lab: &Lab, family: Family) -> Outcome {
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_default(family.gateway())?;
    let (theirs, new) = match family {
        Family::V4 => ("192.0.2.77".parse()?, "192.0.2.9".parse()?),
        Family::V6 => ("fe80::77".parse::<IpAddr>()?, "fe80::9".parse::<IpAddr>()?),
    };
    watched.inside.run(|| {
        let (admin, tap) = (Admin::open()?, index_of(UPLINK)?);
        let metric = if family == Family::V4 { 0 } else { 1024 };
        admin.delete_route(Way::default(tap, family.gateway(), metric))?;
        admin.add_route(Way::default(tap, theirs, metric))
    })?;
    watched.wait_for_default(theirs)?;
    let mut log = watched.inside.listen()?;

    other_gateway_is_not_handed_on(lab, family, new, &watched, &mut log)?;
    assert!(watched.has(&default_via(theirs))?);
    assert!(!watched.has(&default_via(new))?);
    Ok(())
}

/// What users have our processor do first, so that what they do next is noticed later: a pause of fifty times as long
/// follows.
const BUSY: Duration = Duration::from_millis(3);

pub(super) fn a_default_route_of_users_that_discards_is_left_alone(
    lab: &Lab,
    family: Family,
) -> Outcome {
    discards(lab, family, Duration::ZERO)
}

pub(super) fn what_users_do_in_the_pause_after_a_storm_of_theirs_counts(
    lab: &Lab,
    family: Family,
) -> Outcome {
    discards(lab, family, BUSY)
}

/// Users have us `busy` for so long, then have a default route that discards instead of ours, and the host's gateway
/// becomes another.
fn discards(lab: &Lab, family: Family, busy: Duration) -> Outcome {
    let mut watched = Watched::start(lab, &NO_PORTS)?;
    watched.wait_for_default(family.gateway())?;
    let monitor = process::only(MONITOR)?;
    watched.inside.run(|| {
        let (admin, tap, loopback) = (Admin::open()?, index_of(UPLINK)?, index_of("lo")?);
        let before = monitor.processor_time()?;
        // Many at once, since what costs little is followed by a short pause.
        let theirs = || (0..100).map(|n| Ipv4Addr::new(198, 18, 77, n).into());
        wait::until("work that users make", || {
            let spent = u128::from(monitor.processor_time().ok()?.checked_sub(before)?);
            if spent < busy.as_nanos() {
                theirs().try_for_each(|it| admin.add_address(loopback, it, 32)).ok()?;
                theirs().try_for_each(|it| admin.delete_address(loopback, it, 32)).ok()?;
            }
            (spent >= busy.as_nanos()).then_some(())
        })?;
        let metric = if family == Family::V4 { 0 } else { 1024 };
        admin.delete_route(Way::default(tap, family.gateway(), metric))?;
        admin.add_blackhole(family == Family::V6, 10)?;
        Ok(())
    })?;
    let mut log = watched.inside.listen()?;

    let new: IpAddr = match family {
        Family::V4 => "192.0.2.9".parse()?,
        Family::V6 => "fe80::9".parse()?,
    };
    other_gateway_is_not_handed_on(lab, family, new, &watched, &mut log)?;
    let errors = watched.session.running().errors();
    assert!(!errors.contains("not as desired"), "{errors}");
    Ok(())
}

pub(super) fn ipv6_that_was_switched_off_and_on_is_complete_again(lab: &Lab) -> Outcome {
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_default(Family::V6.gateway())?;
    let switch = format!("/proc/sys/net/ipv6/conf/{UPLINK}/disable_ipv6");

    for seen_in_between in [true, false] {
        watched.inside.run(|| Ok(std::fs::write(&switch, "1")?))?;
        if seen_in_between {
            watched.wait_for_address(Family::V6.host(), false)?;
        }
        watched.inside.run(|| Ok(std::fs::write(&switch, "0")?))?;
        watched.wait_for_address(Family::V6.host(), true)?;
        watched.wait_for_default(Family::V6.gateway())?;
    }
    watched.reach(lab, Family::V6)
}

pub(super) fn s42_what_users_have_configured_stays_through_every_move(
    lab: &Lab,
    family: Family,
) -> Outcome {
    add_second_uplink(lab)?;
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    let (address, len, to): (IpAddr, u8, IpAddr) = match family {
        Family::V4 => ("203.0.113.5".parse()?, 32, "198.18.99.0".parse()?),
        Family::V6 => ("2001:db8:113::5".parse()?, 128, "2001:db8:99::".parse()?),
    };
    let link_local: IpAddr = "fe80::55".parse()?;
    let via = if family == Family::V4 { "203.0.113.9".parse()? } else { link_local };
    watched.inside.run(|| {
        let (admin, tap) = (Admin::open()?, index_of(UPLINK)?);
        admin.add_address(tap, address, if family == Family::V4 { 24 } else { len })?;
        let to = Some((to, if family == Family::V4 { 24 } else { 48 }));
        admin.add_route(Way { to, ..Way::default(tap, via, 55) })
    })?;
    let mut log = watched.inside.listen()?;

    bring_second_online(lab, family, Some(0))?;
    go_offline(lab, &[family])?;
    let (second_address, _, second_len) = second(family);
    watched.wait_for_address(second_address, true)?;
    watched.wait_for_address(family.host(), false)?;
    on_host(lab, |admin| admin.delete_address(index_of(SECOND.0)?, second_address, second_len))?;
    watched.wait_for_address(second_address, false)?;

    let lines = log.lines()?;
    never_gone(lines, &format!("address {address}/"));
    never_gone(lines, &format!("route {to}/"));
    assert!(watched.has(&format!("address {address}/"))?);
    assert!(watched.has(&format!("route {to}/"))?);
    Ok(())
}

pub(super) fn s43_an_address_that_users_deleted_stays_deleted(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    let len = prefix_length(family);
    watched.inside.run(|| Admin::open()?.delete_address(index_of(UPLINK)?, family.host(), len))?;
    let mut log = watched.inside.listen()?;

    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, elsewhere(family), len))?;
    watched.wait_for_address(elsewhere(family), true)?;
    let declined = format!("+ address {}/", family.host());
    assert!(!log.lines()?.iter().any(|line| line.starts_with(&declined)));

    // The host's side of it changes, so the decision of before is about something else.
    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, family.host(), len))?;
    let mark = if family == Family::V4 { "198.18.7.10" } else { "2001:db8:7::10" };
    let mark: IpAddr = mark.parse()?;
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, mark, len))?;
    watched.wait_for_address(mark, true)?;
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, family.host(), len))?;
    watched.wait_for_address(family.host(), true)
}

pub(super) fn s44_the_tap_stays_down_and_is_complete_when_up_again(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_default(family.gateway())?;

    watched.session.must(["link", "set", UPLINK, "down"])?;
    // A change on the host is dealt with meanwhile: the tap stays down.
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, elsewhere(family), prefix_length(family))
    })?;
    assert!(!watched.inside.run(|| Ok(Netlink::open()?.link(UPLINK)?.up))?);
    watched.session.must(["link", "set", UPLINK, "up"])?;

    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_address(elsewhere(family), true)?;
    watched.wait_for_default(family.gateway())?;
    watched.reach(lab, family)
}

pub(super) fn s45_what_was_observed_of_users_is_not_the_hosts_to_change(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let used: IpAddr = match family {
        Family::V4 => [10, 9, 9, 9].into(),
        Family::V6 => "2001:db8:99::9".parse()?,
    };
    let mut watched = Watched::new(lab.pasta().configured().with(["-t", "8080"]).session()?)?;
    watched.wait_for_address(family.host(), true)?;
    watched.session.must(["link", "address", UPLINK, &used.to_string()])?;
    let udp = lab.remote().udp_echo(family.internet())?;
    watched.session.must(["udp", "bind", "kept", &used.to_string(), &udp.endpoint()])?;
    watched.session.must(["udp", "exchange", "kept", "30000"])?;
    // A service that is nowhere but on that address.
    let there = std::net::SocketAddr::new(used, 8080).to_string();
    watched.session.must(["serve", "tcp", "used", &there, "echo"])?;
    let visit = |at: IpAddr| {
        lab.remote().run(|| {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect((at, 8080))?;
            stream.set_read_timeout(Some(wait::PATIENCE))?;
            stream.write_all(b"?")?;
            Ok(stream.read_exact(&mut [0])?)
        })
    };
    // The datapath learns the namespace's addresses a moment after they are there.
    wait::until("who comes from outside to get there", || visit(family.host()).ok())?;

    // The host gets another address, and loses the one that it had.
    let (old, new, len) = (family.host(), elsewhere(family), prefix_length(family));
    lab.on_remote(|netlink| {
        let (link, back) = (netlink.link("uplink")?.index, neighbour_elsewhere(family));
        Ok(netlink.add_address(link, back, len)?)
    })?;
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_address(link, new, len)?;
        admin.delete_address(link, old, len)?;
        // The kernel may have taken the default route of IPv4 along.
        let _ = admin.add_onlink_default(first_default(family, 0)?);
        Ok(())
    })?;
    watched.wait_for_address(new, true)?;
    watched.wait_for_address(old, false)?;

    // Replies reach it on the flow that was there and on others, and so does who comes from outside.
    super::flows::exchange_with_one_loss(&mut watched.session)?;
    watched.session.must(["udp", "bind", "fresh", &used.to_string(), &udp.endpoint()])?;
    watched.session.must(["udp", "exchange", "fresh", "30000"])?;
    visit(new)
}

/// The neighbour's address in the subnet of [`elsewhere`].
fn neighbour_elsewhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 7, 1].into(),
        Family::V6 => "2001:db8:7::1".parse().expect("an address"),
    }
}

pub(super) fn hops_that_users_append_to_a_route_of_ours_stay(lab: &Lab, family: Family) -> Outcome {
    let (theirs, new, to): (IpAddr, IpAddr, IpAddr) = match family {
        Family::V4 => ("192.0.2.77".parse()?, "192.0.2.9".parse()?, "198.18.77.0".parse()?),
        Family::V6 => ("fe80::77".parse()?, "fe80::9".parse()?, "2001:db8:77::".parse()?),
    };
    let len = if family == Family::V4 { 24 } else { 48 };
    let way = |link, via, to| Way { to, ..Way::default(link, via, 1024) };
    let ways = [None, Some((to, len))];
    on_host(lab, |admin| {
        admin.delete_route(first_default(family, 0)?)?;
        let link = index_of(UPLINK)?;
        ways.iter().try_for_each(|to| admin.add_route(way(link, family.gateway(), *to)))
    })?;
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_default(family.gateway())?;
    watched.wait_for(&format!("route {to}/{len}"), true)?;
    // With the same metric, the kernel makes one route of both for IPv6, with two hops.
    watched.inside.run(|| {
        let (admin, tap) = (Admin::open()?, index_of(UPLINK)?);
        ways.iter().try_for_each(|to| admin.add_route(way(tap, theirs, *to)))
    })?;

    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        for to in ways {
            admin.delete_route(way(link, family.gateway(), to))?;
            admin.add_route(way(link, new, to))?;
        }
        admin.add_address(link, elsewhere(family), prefix_length(family))
    })?;
    watched.wait_for_address(elsewhere(family), true)?;
    // Ours have gone, and theirs are alone.
    for start in [default_via(theirs), format!("route {to}/{len} via {theirs} ")] {
        watched.wait_for(&start, true)?;
    }
    for gone in [family.gateway(), new] {
        watched.wait_for(&default_via(gone), false)?;
        watched.wait_for(&format!("route {to}/{len} via {gone} "), false)?;
    }
    Ok(())
}
