//! Links that come, go, and change their names and numbers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use super::*;

fn said(watched: &mut Watched, text: &str) -> Outcome {
    wait::until(text, || watched.session.running().errors().contains(text).then_some(()))
}

/// Plugs the first uplink in again, with another number, as the lab had it.
fn plug_in_again(lab: &Lab, family: Family) -> Outcome {
    lab.on_host(|netlink| Ok(netlink.add_veth(UPLINK, "uplink", lab.remote().as_fd())?))?;
    lab.on_remote(|netlink| {
        let link = netlink.link("uplink")?.index;
        netlink.set_up(link, true)?;
        for family in [Family::V4, Family::V6] {
            netlink.add_address(link, family.neighbour(), prefix_length(family))?;
        }
        Ok(netlink.add_address(link, Family::V6.gateway(), 64)?)
    })?;
    set_link(lab, UPLINK, true)?;
    come_online(lab, family, Some(0))
}

pub(super) fn a_listener_on_an_interface_hears_the_one_that_returns(
    lab: &Lab,
    family: Family,
) -> Outcome {
    add_second_uplink(lab)?;
    bring_second_online(lab, family, None)?;
    let rule = format!("%{}/8000", SECOND.0);
    let mut watched = Watched::start(lab, &["-t", &rule, "-u", "none"])?;
    let any = SocketAddr::new(family.any(), 8000).to_string();
    watched.session.must(["serve", "tcp", "talker", &any, "talker"])?;
    let to = SocketAddr::new(second(family).0, 8000);
    let talk = || -> Outcome {
        lab.remote().run(|| {
            let mut stream = TcpStream::connect_timeout(&to, wait::PATIENCE)?;
            stream.set_read_timeout(Some(wait::PATIENCE))?;
            stream.write_all(&[1])?;
            Ok(stream.read_exact(&mut [0])?)
        })
    };
    wait::until("an answer", || talk().ok())?;

    lab.on_host(|netlink| Ok(netlink.delete_link(netlink.link(SECOND.0)?.index)?))?;
    add_second_uplink(lab)?;
    bring_second_online(lab, family, None)?;

    wait::until("an answer by way of the interface that returned", || talk().ok())?;
    Ok(())
}

pub(super) fn s48_s49_a_number_is_no_identity_and_a_named_link_is_known_again(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut watched = Watched::start(lab, &["-d", "-i", UPLINK, "--hold", "inf"])?;
    watched.session.must(["tcp", "open", "kept", &echo.endpoint()])?;
    let mut log = watched.inside.listen()?;
    let index = lab.host().run(|| index_of(UPLINK))?;

    lab.remove_uplink()?;
    said(&mut watched, "[interface gone]")?;
    // Another link with the number of the one that was unplugged.
    on_host(lab, |admin| admin.add_veth_at(index, "usb9", "usb9peer"))?;
    for name in ["usb9", "usb9peer"] {
        set_link(lab, name, true)?;
    }
    let (stranger, _, len) = second(family);
    on_host(lab, |admin| admin.add_address(index, stranger, len))?;
    plug_in_again(lab, family)?;

    said(&mut watched, "[usable again]")?;
    assert_ne!(lab.host().run(|| index_of(UPLINK))?, index);
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&format!("{stranger}/"))), "{lines:#?}");
    never_gone(lines, &format!("address {}/", family.host()));
    watched.reach(lab, family)?;
    watched.session.must(["tcp", "exchange", "kept", "1", "100000"])?;
    Ok(())
}

pub(super) fn s50_a_renamed_template_stays_the_template(lab: &Lab, family: Family) -> Outcome {
    add_second_uplink(lab)?;
    let mut watched = Watched::start(lab, &["-d", "-i", UPLINK])?;
    watched.wait_for_address(family.host(), true)?;
    let mut log = watched.inside.listen()?;
    let index = lab.host().run(|| index_of(UPLINK))?;

    // Two links swap their names by way of a third one.
    on_host(lab, |admin| {
        let second = index_of(SECOND.0)?;
        admin.rename(index, "renamed0")?;
        admin.rename(second, UPLINK)?;
        admin.add_address(second, elsewhere(family), prefix_length(family))
    })?;
    // Something that shows when that has been dealt with.
    on_host(lab, |admin| admin.add_address(index, renewed(family), prefix_length(family)))?;
    watched.wait_for_address(renewed(family), true)?;

    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&format!("{}/", elsewhere(family)))), "{lines:#?}");
    never_gone(lines, &format!("address {}/", family.host()));
    said(&mut watched, &format!("interface \"{UPLINK}\" (-i) is \"renamed0\" now"))?;
    watched.reach(lab, family)
}

pub(super) fn s51_an_address_that_moves_to_another_link_is_followed(
    lab: &Lab,
    family: Family,
) -> Outcome {
    add_second_uplink(lab)?;
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;

    // The dock takes over: the address goes from one link to the other, and the router with it.
    let (address, gateway, len) = second(family);
    go_offline(lab, &[family])?;
    on_host(lab, |admin| {
        let link = index_of(SECOND.0)?;
        admin.add_address(link, address, len)?;
        admin.add_route(Way::default(link, gateway, 0))
    })?;

    watched.wait_for_address(address, true)?;
    watched.wait_for_address(family.host(), false)?;
    watched.reach(lab, family)
}

pub(super) fn s65_a_tap_whose_new_name_is_taken_keeps_its_own(lab: &Lab) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let mut watched = Watched::start(lab, &["-d"])?;
    let index = watched.inside.run(|| index_of("tap0"))?;
    watched.inside.run(|| Admin::open()?.add_veth_at(99, UPLINK, "peer0"))?;

    come_online(lab, Family::V4, Some(0))?;
    watched.wait_for_default(Family::V4.gateway())?;
    watched.reach(lab, Family::V4)?;

    assert_eq!(watched.inside.run(|| index_of("tap0"))?, index);
    assert!(watched.inside.run(|| Ok(Netlink::open()?.link("tap0")?.up))?);
    assert_eq!(watched.inside.run(|| index_of(UPLINK))?, 99);
    Ok(())
}

pub(super) fn a_tap_in_use_keeps_its_name_and_gets_the_new_one_too(lab: &Lab) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let watched = Watched::start(lab, &[])?;
    let index = watched.inside.run(|| index_of("tap0"))?;
    watched.inside.run(|| Admin::open()?.add_address(index, [203, 0, 113, 5].into(), 24))?;

    come_online(lab, Family::V4, Some(0))?;

    let by_new_name = || Ok(nix::net::if_::if_nametoindex(UPLINK)?);
    let found = wait::until("the new name", || watched.inside.run(by_new_name).ok())?;
    assert_eq!(found, index);
    assert_eq!(watched.inside.run(|| index_of("tap0"))?, index);
    Ok(())
}

/// The tap, whose name is `name`, is bound to, and keeps that name: the new one is an alternative.
fn keeps_its_name(lab: &Lab, watched: &Watched, name: &str) -> Outcome {
    let index = watched.inside.run(|| index_of(name))?;
    come_online(lab, Family::V4, Some(0))?;
    let by_new_name = || Ok(nix::net::if_::if_nametoindex(UPLINK)?);
    let found = wait::until("the new name", || watched.inside.run(by_new_name).ok())?;
    assert_eq!((found, watched.inside.run(|| index_of(name))?), (index, index));
    Ok(())
}

pub(super) fn a_tap_that_users_have_renamed_keeps_their_name(lab: &Lab) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let watched = Watched::start(lab, &[])?;
    watched.inside.run(|| {
        let admin = Admin::open()?;
        admin.rename(index_of("tap0")?, "mine0")
    })?;
    keeps_its_name(lab, &watched, "mine0")
}

pub(super) fn a_tap_with_a_packet_socket_keeps_its_name(lab: &Lab) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let watched = Watched::start(lab, &[])?;
    let capture = || Ok(tests::sys::packet_socket(index_of("tap0")?)?);
    let _capture = watched.inside.run(capture)?;
    keeps_its_name(lab, &watched, "tap0")
}

pub(super) fn s08_a_bridge_of_containers_is_never_template(lab: &Lab, family: Family) -> Outcome {
    go_offline(lab, &[Family::V4, Family::V6])?;
    let (bridged, len): (IpAddr, u8) = match family {
        Family::V4 => ([172, 17, 0, 1].into(), 16),
        Family::V6 => ("2001:db8:17::1".parse()?, 64),
    };
    add_bridge(lab, "docker0")?;
    on_host(lab, |admin| admin.add_address(index_of("docker0")?, bridged, len))?;
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for("address 169.254.2.1/16", true)?;
    let mut log = watched.inside.listen()?;

    come_online(lab, family, Some(600))?;

    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    watched.reach(lab, family)?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&format!("{bridged}/"))), "{lines:#?}");
    assert!(!watched.has(&format!("address {bridged}/"))?);
    // It was local before it was this.
    let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
    said(&mut watched, &format!("host: {name} local -> bound {UPLINK}("))
}
