//! What becomes of connections when the namespace loses the address that they are from.

use super::*;
use tests::lab::service::Service;

/// An address that leads to the host's loopback, outside of all prefixes.
fn mapped(family: Family) -> &'static str {
    match family {
        Family::V4 => "203.0.113.1",
        Family::V6 => "2001:db8:ffff::1",
    }
}

/// A connection by name `kept` to the host's loopback, whose both ends show what becomes of it.
fn connect(lab: &Lab, family: Family, watched: &mut Watched) -> Outcome<Service> {
    let server = lab.host().tcp(family.loopback(), service::echo)?;
    let to = tests::lab::address::endpoint(mapped(family).parse()?, server.port());
    watched.session.must(["tcp", "open", "kept", &to])?;
    watched.session.must(["tcp", "exchange", "kept", "1", "1000"])?;
    Ok(server)
}

/// Both ends of `kept` are reset, without sending anything.
fn is_reset(watched: &mut Watched, server: &Service) -> Outcome {
    watched.session.ask(["tcp", "read", "kept"])?.failure("ECONNRESET")?;
    let report = server.next_report();
    let reset = report.as_ref().is_err_and(|error| error.to_string().contains("reset"));
    if reset { Ok(()) } else { Err(format!("the server was not reset: {report:?}").into()) }
}

pub(super) fn s14_a_connection_from_what_was_left_lives_as_long_as_the_hosts_address(
    lab: &Lab,
    family: Family,
) -> Outcome {
    worsen_first_default(lab, family)?;
    add_second_uplink(lab)?;
    let options = ["--settle", "100", "--linger", "0", "--map-host-loopback", mapped(family)];
    let mut watched = Watched::start(lab, &options)?;
    let server = connect(lab, family, &mut watched)?;

    bring_second_online(lab, family, Some(100))?;
    let len = prefix_length(family);
    watched.wait_for(&format!("address {}/{len} deprecated", family.host()), true)?;
    let (_, gateway, _) = second(family);
    watched.wait_for_default(gateway)?;
    // Whatever has its reason in the time is over with the next change.
    let mark: IpAddr = match family {
        Family::V4 => [198, 18, 5, 9].into(),
        Family::V6 => "2001:db8:5::9".parse()?,
    };
    on_host(lab, |admin| admin.add_address(index_of(SECOND.0)?, mark, len))?;
    watched.wait_for_address(mark, true)?;
    assert!(watched.has(&format!("address {}/{len} deprecated", family.host()))?);
    watched.session.must(["tcp", "exchange", "kept", "1", "100000"])?;

    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, family.host(), len))?;
    is_reset(&mut watched, &server)?;
    watched.wait_for_address(family.host(), false)?;
    watched.reach(lab, family)
}

pub(super) fn a_connection_from_an_address_that_goes_is_reset_on_both_sides(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut watched = Watched::start(lab, &["--map-host-loopback", mapped(family)])?;
    let server = connect(lab, family, &mut watched)?;
    let (old, new, len) = (family.host(), elsewhere(family), prefix_length(family));

    on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, new, len))?;
    watched.wait_for_address(new, true)?;
    watched.session.must(["tcp", "exchange", "kept", "1", "100000"])?;
    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, old, len))?;

    is_reset(&mut watched, &server)?;
    watched.wait_for_address(old, false)
}

pub(super) fn a_connection_from_a_template_that_is_lost_for_good_is_reset(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let options = ["--hold", "100", "--map-host-loopback", mapped(family)];
    let mut watched = Watched::start(lab, &options)?;
    let server = connect(lab, family, &mut watched)?;

    go_offline(lab, &[family])?;

    is_reset(&mut watched, &server)?;
    watched.wait_for_address(family.host(), false)
}

pub(super) fn a_connection_of_local_mode_is_reset_at_the_first_binding(lab: &Lab) -> Outcome {
    let family = Family::V4;
    go_offline(lab, &[Family::V4, Family::V6])?;
    let mut watched = Watched::start(lab, &["--map-host-loopback", mapped(family)])?;
    let server = connect(lab, family, &mut watched)?;

    come_online(lab, family, Some(0))?;

    is_reset(&mut watched, &server)?;
    watched.wait_for("address 169.254.2.1/", false)?;
    watched.reach(lab, family)
}
