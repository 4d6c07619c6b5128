//! Storms of events, and events that are lost.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use tests::lab::DATAPATH;
use tests::lab::pasta::NO_PORTS;

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

/// Routes of the users' own that make a reading of the namespace take milliseconds.
const FOREIGN_ROUTES: u32 = 3000;
/// How often IPv6 is switched off and on, each time after more events than the time before.
const SWITCHES: u32 = 40;

pub(super) fn a_flush_in_the_middle_of_a_reading_is_not_taken_for_the_users(lab: &Lab) -> Outcome {
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_default(Family::V6.gateway())?;
    let switch = format!("/proc/sys/net/ipv6/conf/{UPLINK}/disable_ipv6");
    let foreign = |n: u32| -> Outcome<Way> {
        let to = Some((Ipv4Addr::from_bits(0xc612_0000 + n).into(), 32));
        Ok(Way { to, ..Way::default(index_of(UPLINK)?, Family::V4.gateway(), 7) })
    };
    watched.inside.run(|| {
        let admin = Admin::open()?;
        (0..FOREIGN_ROUTES).try_for_each(|n| admin.add_route(foreign(n)?))
    })?;

    for round in 0..SWITCHES {
        watched.inside.run(|| {
            let admin = Admin::open()?;
            for _ in 0..20 * round {
                admin.delete_route(foreign(0)?)?;
                admin.add_route(foreign(0)?)?;
            }
            std::fs::write(&switch, "1")?;
            std::fs::write(&switch, "0")?;
            Ok(())
        })?;
        watched.wait_for_address(Family::V6.host(), true)?;
        watched.wait_for_default(Family::V6.gateway())?;
    }
    watched.reach(lab, Family::V6)
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

pub(super) fn s22_a_host_that_was_renumbered_in_its_sleep_is_followed(
    lab: &Lab,
    family: Family,
) -> Outcome {
    // A machine that sleeps runs none of the three; what its clock does meanwhile is tested where the
    // clocks are compared.
    let mut watched = Watched::start(lab, &[])?;
    watched.wait_for_address(family.host(), true)?;
    let supervisor = process::Process::read(watched.session.running().pid()).ok_or("no pasta")?;
    let all = [supervisor, process::only(MONITOR)?, process::only(DATAPATH)?];
    let mut log = watched.inside.listen()?;
    let (old, new, len) = (family.host(), elsewhere(family), prefix_length(family));
    let (address, gateway, second_len) = second(family);

    all.iter().try_for_each(|it| it.signal(Signal::SIGSTOP))?;
    let renumbered = on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.delete_address(link, old, len)?;
        admin.add_address(link, new, len)?;
        // IPv4 loses its default route with the address.
        let _ = admin.add_onlink_default(first_default(family, 0)?);
        Ok(())
    });
    // And a cable was plugged in, which is better than what there was.
    let plugged = add_second_uplink(lab).and_then(|()| {
        on_host(lab, |admin| {
            let link = index_of(SECOND.0)?;
            admin.add_address(link, address, second_len)?;
            let _ = admin.delete_route(first_default(family, 0)?);
            admin.add_route(Way::default(link, gateway, 0))
        })
    });
    all.iter().try_for_each(|it| it.signal(Signal::SIGCONT))?;
    renumbered.and(plugged)?;

    watched.wait_for_address(address, true)?;
    watched.wait_for_default(gateway)?;
    watched.wait_for_address(old, false)?;
    let lines = log.lines()?;
    assert!(!lines.iter().any(|it| it.contains("169.254.2.")), "{lines:#?}");
    watched.reach(lab, family)
}

/// Address number `n` of a link that has more of them than the kernel tells in one piece.
fn one_of_many(family: Family, n: u16) -> IpAddr {
    match family {
        Family::V4 => [10, 7, (n >> 8) as u8, n as u8].into(),
        Family::V6 => std::net::Ipv6Addr::new(0x2001, 0xdb8, 7777, 0, 0, 0, 0, n).into(),
    }
}

/// Adds an address to the first uplink, and lets more happen there than the monitor's socket holds,
/// all while it cannot read.
fn lose_events(lab: &Lab, monitor: &process::Process, address: IpAddr, len: u8) -> Outcome {
    let transient = renewed(if address.is_ipv4() { Family::V4 } else { Family::V6 });
    monitor.signal(Signal::SIGSTOP)?;
    let changed = on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        for _ in 0..2000 {
            admin.add_address(link, transient, len)?;
            admin.delete_address(link, transient, len)?;
        }
        admin.add_address(link, address, len)
    });
    monitor.signal(Signal::SIGCONT)?;
    changed
}

/// Address number `n` of another subnet on the first uplink.
fn another(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 9, n].into(),
        Family::V6 => std::net::Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, n.into()).into(),
    }
}

pub(super) fn s53_events_that_are_lost_right_after_others_are_made_up_for(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let monitor = process::only(MONITOR)?;
    let resynchronised = "netlink overrun, resynchronised";
    for n in 1..=8 {
        lose_events(lab, &monitor, another(family, n), prefix_length(family))?;
        // The monitor is stopped again as soon as it says so, whatever else it has to do.
        wait::until(resynchronised, || {
            let errors = watched.session.running().errors();
            (errors.matches(resynchronised).count() >= n.into()).then_some(())
        })?;
    }
    (1..=8).try_for_each(|n| watched.wait_for_address(another(family, n), true))
}

pub(super) fn s54_nothing_goes_on_the_strength_of_interrupted_readings(
    lab: &Lab,
    family: Family,
) -> Outcome {
    use std::os::fd::AsFd;
    const MANY: u16 = 2000;
    lab.on_host(|netlink| Ok(netlink.add_veth("other0", "other1", lab.remote().as_fd())?))?;
    let many = family.host_length();
    on_host(lab, |admin| {
        let other = index_of("other0")?;
        (1..MANY).try_for_each(|n| admin.add_address(other, one_of_many(family, n), many))
    })?;
    let mut watched = Watched::start(lab, &["-d"])?;
    watched.wait_for_address(family.host(), true)?;
    let monitor = process::only(MONITOR)?;
    let mut log = watched.inside.listen()?;
    let len = prefix_length(family);
    let mut times = |text: &str| watched.session.running().errors().matches(text).count();

    // Addresses of a link that nobody follows come and go while the host is read: no event of it gets
    // through, and no reading is of one moment.
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            on_host(lab, |admin| {
                let other = index_of("other0")?;
                while !enough.load(Ordering::Relaxed) {
                    admin.add_address(other, one_of_many(family, MANY), many)?;
                    admin.delete_address(other, one_of_many(family, MANY), many)?;
                }
                Ok(())
            })
        });
        // Which reading is interrupted as often as it is tried is the scheduler's choice.
        let mut lost = || -> Outcome {
            let resynchronised = "netlink overrun, resynchronised";
            let mut round = 0;
            while times("host: addresses kept changing while they were read") == 0 {
                round += 1;
                lose_events(lab, &monitor, another(family, round), len)?;
                let done = || (times(resynchronised) >= round.into()).then_some(());
                wait::until(resynchronised, done)?;
            }
            Ok(())
        };
        let lost = lost();
        enough.store(true, Ordering::Relaxed);
        churn.join().map_err(|_| "the churn panicked")?.and(lost)
    })?;

    watched.wait_for_address(another(family, 1), true)?;
    on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, another(family, 1), len))?;
    watched.wait_for_address(another(family, 1), false)?;
    let lines = log.lines()?;
    never_gone(lines, &format!("address {}/", family.host()));
    never_gone(lines, default_route(family.gateway()));
    watched.reach(lab, family)
}

/// How often the process has gone to sleep of its own accord, and so was woken.
fn wake_ups(process: &process::Process) -> Outcome<u64> {
    Ok(process.status("voluntary_ctxt_switches")?.parse()?)
}

/// Waits until the monitor has nothing to do; gives its wake-ups.
fn wait_for_rest(watched: &Watched, monitor: &process::Process, family: Family) -> Outcome<u64> {
    watched.wait_for_default(family.gateway())?;
    // The kernel proves the namespace's own link-local address within two seconds, and says so.
    wait::until("every address to be proven", || {
        let shown = watched.inside.show().ok()?;
        (!shown.iter().any(|line| line.ends_with(" tentative"))).then_some(())
    })?;
    let (mut last, mut quiet) = (u64::MAX, 0);
    wait::until("the monitor to be at rest for half a second", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        // One that waits for a processor has something to do.
        let sleeps = monitor.status("State").ok()?.starts_with('S');
        let now = wake_ups(monitor).ok()?;
        let same = std::mem::replace(&mut last, now) == now;
        quiet = if sleeps && same { quiet + 1 } else { 0 };
        (quiet == 10).then_some(())
    })?;
    Ok(last)
}

pub(super) fn s52_unrelated_events_wake_nobody(lab: &Lab, family: Family) -> Outcome {
    // A link that is down could not be a template, whatever happens to it.
    use std::os::fd::AsFd;
    lab.on_host(|netlink| Ok(netlink.add_veth("other0", "other1", lab.remote().as_fd())?))?;
    // Looking for new ports, which is what the default does, takes a wake-up each time.
    let watched = Watched::start(lab, &NO_PORTS)?;
    let monitor = process::only(MONITOR)?;
    let last = wait_for_rest(&watched, &monitor, family)?;

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

    assert!(woken <= 2, "{woken} wake-ups for {} events", 4 * rounds);
    // And what matters is noticed as before.
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, elsewhere(family), prefix_length(family))
    })?;
    watched.wait_for_address(elsewhere(family), true)
}

pub(super) fn s52_what_the_namespaces_users_do_elsewhere_wakes_nobody(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let watched = Watched::start(lab, &NO_PORTS)?;
    watched.wait_for_default(family.gateway())?;
    watched.inside.run(|| {
        let (admin, netlink) = (Admin::open()?, Netlink::open()?);
        let here = std::fs::File::open("/proc/thread-self/ns/net")?;
        netlink.add_veth("other0", "other1", std::os::fd::AsFd::as_fd(&here))?;
        for name in ["other0", "other1"] {
            netlink.set_up(index_of(name)?, true)?;
        }
        admin.add_address(index_of("other0")?, elsewhere(family), prefix_length(family))
    })?;
    let monitor = process::only(MONITOR)?;
    let before = wait_for_rest(&watched, &monitor, family)?;

    let rounds = 500;
    watched.inside.run(|| {
        let (admin, netlink) = (Admin::open()?, Netlink::open()?);
        let (tap, other) = (index_of(UPLINK)?, index_of("other0")?);
        let to: (IpAddr, u8) = match family {
            Family::V4 => ([10, 9, 8, 0].into(), 24),
            Family::V6 => ("2001:db8:9::".parse()?, 64),
        };
        let router: IpAddr = match family {
            Family::V4 => [198, 18, 7, 1].into(),
            Family::V6 => "2001:db8:7::1".parse()?,
        };
        let far = Way { to: Some(to), ..Way::default(other, router, 5) };
        let foreign = Way { table: 77, ..Way::default(tap, family.gateway(), 5) };
        for _ in 0..rounds {
            for way in [far, foreign] {
                admin.add_route(way)?;
                admin.delete_route(way)?;
            }
            netlink.set_mtu(other, 1400)?;
            netlink.set_mtu(other, 1500)?;
        }
        Ok(())
    })?;
    let woken = wake_ups(&monitor)? - before;
    assert!(woken <= 2, "{woken} wake-ups for {} events", 6 * rounds);

    // The host is followed as before.
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, renewed(family), prefix_length(family))
    })?;
    watched.wait_for_address(renewed(family), true)
}

pub(super) fn an_address_on_another_cable_is_noticed_though_another_is_template(
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

/// More routes than are looked at of a namespace.
const HOARD: u32 = 20_000;
/// How long the storm is measured. Chosen: many times as long as a reading of all that takes.
const STORM: std::time::Duration = std::time::Duration::from_secs(3);
/// What it may cost, in per cent of a processor. The aim is five; a look at its beginning is not paced.
const MOST: u64 = 10;

pub(super) fn a_storm_of_the_namespaces_users_costs_little(lab: &Lab) -> Outcome {
    let family = Family::V4;
    let mut watched = Watched::start(lab, &NO_PORTS)?;
    watched.wait_for_default(family.gateway())?;
    let monitor = process::only(MONITOR)?;
    let theirs = |n: u32| -> Outcome<Way> {
        let to = Some((Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32));
        Ok(Way { to, ..Way::default(index_of(UPLINK)?, family.gateway(), 7) })
    };
    watched.inside.run(|| {
        let admin = Admin::open()?;
        (0..HOARD).try_for_each(|n| admin.add_route(theirs(n)?))
    })?;

    let enough = AtomicBool::new(false);
    let inside = &watched.inside;
    let (share, followed) = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            inside.run(|| {
                let (admin, way) = (Admin::open()?, theirs(0)?);
                while !enough.load(Ordering::Relaxed) {
                    admin.delete_route(way)?;
                    admin.add_route(way)?;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Ok(())
            })
        });
        let measured = || -> Outcome<(u64, std::time::Duration)> {
            // What has to do with its beginning is over when the host's change is there.
            let len = prefix_length(family);
            on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, renewed(family), len))?;
            wait::until("the first change", || has_address(inside, renewed(family)))?;
            let (start, before) = (std::time::Instant::now(), monitor.processor_time()?);
            wait::until("the end of the storm", || (start.elapsed() >= STORM).then_some(()))?;
            let spent = monitor.processor_time()? - before;
            let share = spent * 100 / u64::try_from(start.elapsed().as_nanos())?;

            let start = std::time::Instant::now();
            on_host(lab, |admin| admin.delete_address(index_of(UPLINK)?, renewed(family), len))?;
            on_host(lab, |admin| admin.add_address(index_of(UPLINK)?, elsewhere(family), len))?;
            wait::until("the next change", || has_address(inside, elsewhere(family)))?;
            Ok((share, start.elapsed()))
        };
        let measured = measured();
        enough.store(true, Ordering::Relaxed);
        storm.join().map_err(|_| "the storm panicked")?.and(measured)
    })?;
    eprintln!("{share} % of a processor; a change was followed after {followed:?}");
    assert!(share <= MOST, "{share} % of a processor");

    // Ours are known however many there are of others.
    on_host(lab, |admin| admin.delete_route(first_default(family, 0)?))?;
    watched.wait_for_address(renewed(family), false)?;
    on_host(lab, |admin| admin.add_route(first_default(family, 300)?))?;
    watched.wait_for(&format!("{}metric 300", default_via(family.gateway())), true)?;
    watched.wait_for(&format!("{}metric 0", default_via(family.gateway())), false)?;
    watched.reach(lab, family)
}

/// Whether the namespace has `address`; the whole of what it has takes long to show.
fn has_address(inside: &Inside, address: IpAddr) -> Option<()> {
    let there = || Ok(Netlink::open()?.addresses()?.iter().any(|it| it.address == address));
    inside.run(there).ok()?.then_some(())
}
