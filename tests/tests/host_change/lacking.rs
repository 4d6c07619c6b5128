//! Kernels that lack something, or refuse it: events, a family; and policy rules that some have.

use nix::sys::signal::Signal;
use tests::lab::Power;
use tests::sys::Refusal;

use super::*;

/// Subscribing to what changes: `NETLINK_ADD_MEMBERSHIP` (netlink(7)).
const SUBSCRIPTION: Refusal = Refusal {
    call: libc::SYS_setsockopt,
    arguments: &[(1, libc::SOL_NETLINK), (2, libc::NETLINK_ADD_MEMBERSHIP)],
    error: libc::EPERM,
};

/// Sockets of IPv6, as a kernel without the family answers (ipv6(7)).
const IPV6_SOCKETS: Refusal = Refusal {
    call: libc::SYS_socket,
    arguments: &[(0, libc::AF_INET6)],
    error: libc::EAFNOSUPPORT,
};

/// How many lines of the log so far have `text`.
fn count(watched: &mut Watched, text: &str) -> usize {
    let errors = watched.session.running().errors();
    errors.lines().filter(|line| line.contains(text)).count()
}

pub(super) fn s55_a_host_that_cannot_be_watched_is_looked_at(lab: &Lab, family: Family) -> Outcome {
    let pasta = lab.pasta().configured().refused(&[SUBSCRIPTION]);
    let mut watched = Watched::new(pasta.session()?)?;
    let warning = "warning: pasta-monitor: cannot watch the host: ";
    wait::until("a warning", || (count(&mut watched, warning) > 0).then_some(()))?;
    watched.wait_for_address(family.host(), true)?;
    watched.reach(lab, family)?;

    // Every few seconds it is looked at, so a change is found, and another one too.
    let len = prefix_length(family);
    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, elsewhere(family), len))?;
    watched.wait_for_address(elsewhere(family), true)?;
    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, elsewhere(family), len))?;
    watched.wait_for_address(elsewhere(family), false)?;

    watched.session.running().signal(Signal::SIGUSR1)?;
    wait::until("the status", || (count(&mut watched, "monitor poll, gen ") > 0).then_some(()))?;
    assert_eq!(count(&mut watched, warning), 1);
    watched.reach(lab, family)
}

pub(super) fn s59_without_ipv6_the_family_is_off_and_the_other_is_followed(lab: &Lab) -> Outcome {
    let family = Family::V4;
    // What programs see of a kernel without the family: no sockets, no addresses, no settings.
    lab.host().run(|| Ok(std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?))?;
    let pasta = lab.pasta().configured().with(["-d"]).refused(&[IPV6_SOCKETS]);
    let mut watched = Watched::new(pasta.session()?)?;
    watched.wait_for_address(family.host(), true)?;
    wait::until("word of it", || {
        (count(&mut watched, "this kernel has no IPv6: it is switched off") == 1).then_some(())
    })?;

    watched.reach(lab, family)?;
    let (new, len) = (elsewhere(family), prefix_length(family));
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_address(link, new, len)?;
        admin.delete_address(link, family.host(), len)?;
        // The kernel takes the default route along.
        let _ = admin.add_onlink_default(first_default(family, 0)?);
        Ok(())
    })?;
    watched.wait_for_address(new, true)?;
    watched.wait_for_address(family.host(), false)?;
    watched.wait_for_default(family.gateway())?;

    let shown = watched.inside.show()?;
    assert!(!shown.iter().any(|line| line.contains("::")), "{shown:#?}");
    watched.session.running().signal(Signal::SIGUSR1)?;
    wait::until("the status", || (count(&mut watched, "status: IPv6    off ") > 0).then_some(()))
}

pub(super) fn s58_a_rule_for_our_user_makes_the_template_by_its_table(
    lab: &Lab,
    family: Family,
) -> Outcome {
    const TABLE: u8 = 77;
    add_second_uplink(lab)?;
    bring_second_online(lab, family, None)?;
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    let (address, gateway, _) = second(family);
    on_host(lab, |admin| {
        let way = Way::default(index_of(SECOND.0)?, gateway, 0);
        admin.add_route(Way { table: TABLE, ..way })?;
        // A rule for somebody else says nothing about us. In the lab of an ordinary user nobody else
        // is mapped, and the kernel takes no rule for a user without a number.
        if lab.power() == Power::Root {
            admin.add_rule(family, lab.user() + 1, TABLE)?;
        }
        admin.add_address(index_of(UPLINK)?, elsewhere(family), prefix_length(family))
    })?;
    watched.wait_for_address(elsewhere(family), true)?;
    assert!(!watched.has(&format!("address {address}/"))?);

    on_host(lab, |admin| admin.add_rule(family, lab.user(), TABLE))?;
    watched.wait_for_address(address, true)?;
    watched.wait_for_default(gateway)?;
    watched.wait_for_address(family.host(), false)?;
    watched.session.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    assert_eq!(echo.next_peer()?.ip(), address);

    // The table leads elsewhere, and back, while the rules are as before.
    let ways = || -> Outcome<[Way; 2]> {
        let ways = [first_default(family, 0)?, Way::default(index_of(SECOND.0)?, gateway, 0)];
        Ok(ways.map(|way| Way { table: TABLE, ..way }))
    };
    on_host(lab, |admin| {
        let [first, second] = ways()?;
        admin.delete_route(second)?;
        admin.add_route(first)
    })?;
    watched.wait_for_address(family.host(), true)?;
    on_host(lab, |admin| {
        let [first, second] = ways()?;
        admin.delete_route(first)?;
        admin.add_route(second)
    })?;
    watched.wait_for_address(address, true)?;
    watched.wait_for_address(family.host(), false)?;

    on_host(lab, |admin| admin.delete_rule(family, lab.user(), TABLE))?;
    watched.wait_for_address(family.host(), true)?;
    watched.wait_for_default(family.gateway())?;
    watched.wait_for_address(address, false)?;
    watched.session.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    assert_eq!(echo.next_peer()?.ip(), family.host());
    Ok(())
}
