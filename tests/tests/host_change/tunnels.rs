//! VPNs: traffic goes through them as the host's routes say, the identity stays as a rule.
//!
//! The tunnels are those of the kernel's tun driver. A guard that a VPN puts beside itself would be
//! a dummy device; a bridge with a port stands for it, which the same rules are about.

use std::net::SocketAddr;

use tests::lab::tunnel::Tunnel;

use super::*;

/// The host's own address in the tunnel, and the one at its far end.
fn ends(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => ([10, 8, 0, 6].into(), [10, 8, 0, 5].into()),
        Family::V6 => {
            let (own, peer) = ("2001:db8:8::6".parse(), "2001:db8:8::5".parse());
            (own.expect("an address"), peer.expect("an address"))
        }
    }
}

/// A tunnel that is up and has the address of [`ends`], and no route but the one to its peer.
fn dial(lab: &Lab, name: &str, family: Family) -> Outcome<Tunnel> {
    let tunnel = Tunnel::new(lab.host(), name)?;
    let ((own, peer), link) = (ends(family), tunnel.index());
    on_host(lab, |admin| admin.add_address_with_peer(link, own, peer))?;
    // The kernel makes the route to an IPv6 peer some time after the address is there.
    let way = Some((peer, family.host_length()));
    wait::until("the way to the peer", || {
        let routes = lab.on_host(|netlink| Ok(netlink.routes()?)).ok()?;
        routes.iter().any(|it| it.destination == way).then_some(())
    })?;
    Ok(tunnel)
}

fn hang_up(lab: &Lab, tunnel: &Tunnel) -> Outcome {
    let link = tunnel.index();
    lab.on_host(|netlink| Ok(netlink.delete_link(link)?))
}

/// Leads all of a family into the tunnel, by itself and not by its peer.
fn lead_all_through(lab: &Lab, tunnel: &Tunnel, family: Family, metric: u32) -> Outcome {
    let link = tunnel.index();
    on_host(lab, |admin| admin.add_link_route(link, (family.any(), 0), metric))
}

/// Exchanges a datagram with a server that stands at the far end, and checks who is seen there.
fn reach_through(watched: &mut Watched, tunnel: &Tunnel, family: Family) -> Outcome {
    let server = SocketAddr::new(family.internet_second(), 7);
    let server_text = server.to_string();
    let question = ["udp", "echo", &server_text, "64"];
    // One datagram may be lost right after a move.
    if watched.session.ask(question)?.result.is_err() {
        watched.session.must(question)?;
    }
    let (from, to) = tunnel.next()?;
    assert_eq!((from.ip(), to), (ends(family).0, server));
    Ok(())
}

/// Makes a change on the first uplink that shows when all before it has been dealt with.
fn leave_mark(lab: &Lab, watched: &Watched, family: Family) -> Outcome {
    let (mark, len) = (elsewhere(family), prefix_length(family));
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, mark, len))?;
    watched.wait_for_address(mark, true)
}

/// Asserts that the changes in `lines` are those of [`leave_mark`] and no other. The kernel tells of an IPv6
/// address once more, a while after it was added.
fn only_the_mark(lines: &[String], family: Family) {
    let expected =
        [elsewhere(family), Family::V6.host()].map(|address| format!("+ address {address}/"));
    let is_expected = |line: &String| expected.iter().any(|it| line.starts_with(it));
    assert!(lines.iter().all(is_expected), "{lines:#?}");
}

pub(super) fn s23_traffic_goes_through_a_vpn_and_the_identity_stays(
    lab: &Lab,
    family: Family,
) -> Outcome {
    worsen_first_default(lab, family)?;
    // Without a settle time, what should not happen would happen at once.
    let mut watched = Watched::start(lab, &["--settle", "0"])?;
    watched.wait_for_default(family.gateway())?;
    watched.reach(lab, family)?;
    let mut log = watched.inside.listen()?;

    let tunnel = dial(lab, "tun0", family)?;
    lead_all_through(lab, &tunnel, family, 50)?;

    reach_through(&mut watched, &tunnel, family)?;
    leave_mark(lab, &watched, family)?;
    only_the_mark(log.lines()?, family);
    assert!(watched.has(&default_via(family.gateway()))?);
    reach_through(&mut watched, &tunnel, family)
}

pub(super) fn s24_a_tunnel_that_is_allowed_gives_its_own_end_and_a_way_by_its_peer(
    lab: &Lab,
    family: Family,
) -> Outcome {
    worsen_first_default(lab, family)?;
    let mut watched = Watched::start(lab, &["--tunnels", "allow", "--settle", "0"])?;
    watched.wait_for_default(family.gateway())?;
    let mut log = watched.inside.listen()?;
    let (own, peer) = ends(family);

    let tunnel = dial(lab, "tun0", family)?;
    let link = tunnel.index();
    on_host(lab, |admin| admin.add_route(Way::default(link, peer, 50)))?;

    let (own_len, tap) = (family.host_length(), watched.inside.run(|| index_of(UPLINK))?);
    watched.wait_for(&format!("address {own}/{own_len} on {tap}"), true)?;
    watched.wait_for_default(peer)?;
    watched.wait_for(&format!("route {peer}/{own_len} metric "), true)?;
    watched.wait_for(&default_via(family.gateway()), false)?;
    reach_through(&mut watched, &tunnel, family)?;
    // The old identity stays for a while, and the peer is a router and nothing else.
    watched.wait_for(
        &format!("address {}/{} deprecated", family.host(), prefix_length(family)),
        true,
    )?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains(&format!("address {peer}/"))), "{lines:#?}");
    Ok(())
}

pub(super) fn s25_a_tunnel_that_is_the_only_way_is_template_until_there_is_another(
    lab: &Lab,
    family: Family,
) -> Outcome {
    on_host(lab, |admin| admin.delete_route(first_default(family, 0)?))?;
    let tunnel = dial(lab, "tun0", family)?;
    lead_all_through(lab, &tunnel, family, 50)?;
    let mut watched = Watched::start(lab, &[family.only_option()])?;
    let tap = watched.inside.run(|| index_of("tun0"))?;
    let (own, _) = ends(family);
    let own = format!("address {own}/{}", family.host_length());
    watched.wait_for(&format!("{own} on {tap}"), true)?;
    watched.wait_for(&format!("{} metric 50 on {tap}", default_route(family.any())), true)?;
    reach_through(&mut watched, &tunnel, family)?;
    assert!(!watched.has(&format!("address {}/", family.host()))?);

    // A worse way that is no tunnel is still the better template.
    on_host(lab, |admin| admin.add_route(first_default(family, 2600)?))?;

    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    watched.wait_for(&format!("{own} deprecated"), true)?;
    watched.wait_for(&format!("{} metric 50 ", default_route(family.any())), false)?;
    // The name is the first template's for good, and traffic goes where the host's does.
    watched.inside.run(|| index_of("tun0"))?;
    reach_through(&mut watched, &tunnel, family)
}

pub(super) fn s26_a_vpn_by_halves_comes_and_goes_and_nothing_happens(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let halves: &[(IpAddr, u8)] = match family {
        Family::V4 => &[(Family::V4.any(), 1), ([128, 0, 0, 0].into(), 1)],
        Family::V6 => {
            &[(Family::V6.any(), 1), ("8000::".parse()?, 1), ("2000::".parse::<IpAddr>()?, 3)]
        }
    };
    let mut watched = Watched::start(lab, &["-d", "--settle", "0"])?;
    watched.wait_for_default(family.gateway())?;
    let mut log = watched.inside.listen()?;
    for _ in 0..5 {
        let tunnel = dial(lab, "tun0", family)?;
        let link = tunnel.index();
        on_host(lab, |admin| halves.iter().try_for_each(|to| admin.add_link_route(link, *to, 50)))?;
        reach_through(&mut watched, &tunnel, family)?;
        hang_up(lab, &tunnel)?;
        watched.reach(lab, family)?;
    }
    leave_mark(lab, &watched, family)?;
    only_the_mark(log.lines()?, family);
    let errors = watched.session.running().errors();
    let complains = |line: &&str| line.contains("warning: ");
    let tells = |line: &&str| line.contains("info: ") && line.contains("tun0");
    let mut lines = errors.lines().filter(|it| complains(it) || tells(it));
    assert_eq!(lines.next(), None);
    Ok(())
}

pub(super) fn s27_a_guard_counts_with_a_default_route_and_is_left_when_it_goes(
    lab: &Lab,
    family: Family,
) -> Outcome {
    worsen_first_default(lab, family)?;
    let mut watched = Watched::start(lab, &["-d", "--settle", "0"])?;
    watched.wait_for_default(family.gateway())?;
    let mut log = watched.inside.listen()?;
    let (guarded, router): (IpAddr, IpAddr) = match family {
        Family::V4 => ([10, 99, 0, 2].into(), [10, 99, 0, 1].into()),
        Family::V6 => ("fd00:99::2".parse()?, "fd00:99::1".parse()?),
    };

    // Without a default route it is not even looked at.
    add_bridge(lab, "guard0")?;
    let len = prefix_length(family);
    on_host(lab, |admin| admin.add_address(index_of("guard0")?, guarded, len))?;
    leave_mark(lab, &watched, family)?;
    only_the_mark(log.lines()?, family);
    on_host(lab, |admin| admin.add_route(Way::default(index_of("guard0")?, router, 50)))?;
    watched.wait_for_address(guarded, true)?;
    watched.wait_for_default(router)?;
    // It goes, and nothing is waited for.
    lab.on_host(|netlink| Ok(netlink.delete_link(netlink.link("guard0")?.index)?))?;
    watched.wait_for_address(guarded, false)?;
    watched.wait_for_default(family.gateway())?;
    watched.reach(lab, family)?;

    // The log says why: it was better, and then was lost (down is what a link is before it is gone).
    let mut logged = |from: &str, to: &str, reasons: &[&str]| {
        let errors = watched.session.running().errors();
        let (from, to) = (format!("{from}("), format!("bound {to}("));
        let mut lines = errors.lines().filter(|it| it.contains(&from) && it.contains(&to));
        lines.any(|it| reasons.iter().any(|why| it.contains(why))).then_some(())
    };
    wait::until("why it was chosen", || logged(UPLINK, "guard0", &["[default route]"]))?;
    // What is seen of a link that is deleted depends on when it is looked at.
    let lost = [
        "[interface gone]",
        "[interface down]",
        "[carrier lost]",
        "[last address gone]",
        "[default route]",
    ];
    wait::until("why it was left", || logged("guard0", UPLINK, &lost))
}

pub(super) fn s28_of_two_tunnels_one_goes_and_nothing_happens(
    lab: &Lab,
    family: Family,
) -> Outcome {
    worsen_first_default(lab, family)?;
    let mut watched = Watched::start(lab, &["--settle", "0"])?;
    watched.wait_for_default(family.gateway())?;
    let first = dial(lab, "tun0", family)?;
    let second = Tunnel::new(lab.host(), "tun1")?;
    let link = second.index();
    let (own, peer, _) = super::second(family);
    on_host(lab, |admin| admin.add_address_with_peer(link, own, peer))?;
    lead_all_through(lab, &first, family, 60)?;
    lead_all_through(lab, &second, family, 50)?;
    let mut log = watched.inside.listen()?;
    let server = SocketAddr::new(family.internet_second(), 7).to_string();
    watched.session.must(["udp", "echo", &server, "64"])?;
    second.next()?;
    assert!(first.was_left_alone());

    hang_up(lab, &second)?;

    reach_through(&mut watched, &first, family)?;
    leave_mark(lab, &watched, family)?;
    only_the_mark(log.lines()?, family);
    Ok(())
}
