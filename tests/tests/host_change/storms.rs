//! Storms of events, and events that are lost.

use nix::sys::signal::Signal;

use super::*;

pub(super) fn s52_a_change_in_the_middle_of_a_storm_is_applied(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;

    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        let foreign = |n: u16| -> Outcome<Way> {
            let to: IpAddr = match family {
                Family::V4 => [10, 9, (n >> 8) as u8, n as u8].into(),
                Family::V6 => format!("2001:db8:9::{n:x}").parse()?,
            };
            let len = if family == Family::V4 { 32 } else { 128 };
            let to = Some((to, len));
            Ok(Way { to, table: 77, ..Way::default(link, family.gateway(), 5) })
        };
        for n in 0..5000 {
            admin.add_route(foreign(n)?)?;
            if n == 2500 {
                admin.add_address(link, elsewhere(family), prefix_length(family))?;
            }
            admin.delete_route(foreign(n)?)?;
        }
        Ok(())
    })?;

    watched.wait_for_address(elsewhere(family), true)
}

pub(super) fn s53_lost_events_are_made_up_for(lab: &Lab, family: Family) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let monitor = process::only(MONITOR)?;
    let len = prefix_length(family);
    let transient = renewed(family);

    // While the monitor cannot read, more happens than its socket holds; three changes last.
    monitor.signal(Signal::SIGSTOP)?;
    let changed = on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_address(link, elsewhere(family), len)?;
        for _ in 0..2000 {
            admin.add_address(link, transient, len)?;
            admin.delete_address(link, transient, len)?;
        }
        admin.delete_address(link, family.host(), len)?;
        let _ = admin.add_route(first_default(family, 700)?);
        Ok(())
    });
    monitor.signal(Signal::SIGCONT)?;
    changed?;

    watched.wait_for_address(elsewhere(family), true)?;
    watched.wait_for_address(family.host(), false)?;
    wait::until("word of the overrun", || {
        watched.session.running().errors().contains("overrun").then_some(())
    })
}

/// How often the process has gone to sleep of its own accord, and so was woken.
fn wake_ups(process: &process::Process) -> Outcome<u64> {
    Ok(process.status("voluntary_ctxt_switches")?.parse()?)
}

pub(super) fn s52_unrelated_events_wake_nobody(lab: &Lab, family: Family) -> Outcome {
    // A link that is down could not be a template, whatever happens to it.
    use std::os::fd::AsFd;
    lab.on_host(|netlink| Ok(netlink.add_veth("other0", "other1", lab.remote().as_fd())?))?;
    // Looking for new ports, which is what the default does, takes a wake-up each time.
    let watched = Watched::start(lab, &["-t", "none", "-u", "none", "-T", "none", "-U", "none"])?;
    let monitor = process::only(MONITOR)?;
    // The kernel proves the namespace's own link-local address within two seconds, and says so.
    wait::until("every address to be proven", || {
        let shown = watched.inside.show().ok()?;
        (!shown.iter().any(|line| line.ends_with(" tentative"))).then_some(())
    })?;
    let (mut last, mut quiet) = (u64::MAX, 0);
    wait::until("the monitor to be at rest for half a second", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = wake_ups(&monitor).ok()?;
        quiet = if std::mem::replace(&mut last, now) == now { quiet + 1 } else { 0 };
        (quiet == 10).then_some(())
    })?;

    let rounds = 1000;
    on_host(lab, |admin| {
        let (uplink, other) = (index_of(UPLINK)?, index_of("other0")?);
        for _ in 0..rounds {
            let foreign = Way { table: 77, ..Way::default(uplink, family.gateway(), 5) };
            admin.add_route(foreign)?;
            admin.delete_route(foreign)?;
            admin.add_address(other, elsewhere(family), prefix_length(family))?;
            admin.delete_address(other, elsewhere(family), prefix_length(family))?;
        }
        Ok(())
    })?;
    let woken = wake_ups(&monitor)? - last;

    // The clocks are compared every fifteen seconds.
    assert!(woken <= 2, "{woken} wake-ups for {} events", 4 * rounds);
    // And what matters is heard as ever.
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, elsewhere(family), prefix_length(family))
    })?;
    watched.wait_for_address(elsewhere(family), true)
}

pub(super) fn a_cable_that_gets_an_address_is_heard_though_another_is_template(
    lab: &Lab,
    family: Family,
) -> Outcome {
    // Made, brought up and given an address after the filter was set: each step changes it.
    worsen_first_default(lab, family)?;
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;

    add_second_uplink(lab)?;
    bring_second_online(lab, family, Some(100))?;

    watched.wait_for_address(second(family).0, true)?;
    watched.reach(lab, family)
}
