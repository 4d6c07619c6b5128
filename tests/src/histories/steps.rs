//! What may happen in a history, drawn at random and carried out.

use std::net::IpAddr;

use super::Numbers;
use super::reading::{OURS, Reading};
use super::rules::Known;
use crate::Outcome;
use crate::lab::admin::{Admin, Inside, Way, index_of};
use crate::lab::process::{self, Process};
use crate::lab::{DATAPATH, Family, Lab, MONITOR, UPLINK};
use crate::netlink::Netlink;
use netlink_packet_route::route::RouteHeader;
use nix::sys::signal::Signal;

/// The second uplink, and the other ends of both.
pub const SECOND: &str = "eth1";
const FAR: [&str; 2] = ["uplink", "uplink2"];

/// Routes that come and go while nobody reads their events: more than a socket's queue has room for.
const BURST: u32 = 3000;
/// A table that nobody looks at.
const ELSEWHERE: u8 = 99;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// An uplink is taken up or down.
    Link(usize, bool),
    /// A cable is pulled or plugged in.
    Cable(usize, bool),
    /// The second uplink is removed and comes back.
    Replug,
    /// The host gets an address.
    Add(Place),
    /// It loses one.
    Remove(Place),
    /// One of its addresses is to be used no more, or again.
    Deprecate(Place, bool),
    /// All addresses of a link and family go, and another comes.
    Renumber(Place),
    /// A default route comes.
    Default(Place),
    /// A default route goes.
    NoDefault(Place),
    /// A default route gets another router.
    Router(Place),
    /// A route to somewhere comes or goes.
    Elsewhere(Place, bool),
    /// Users add or remove an address of theirs.
    UsersAddress(Family, bool),
    /// Users add or remove a default route of theirs.
    UsersDefault(Family, bool),
    /// Users append a hop to our default route, or remove it.
    UsersHop(Family, bool),
    /// Users delete one of our addresses or routes.
    UsersDelete(u64),
    /// Users take the tap down and up.
    TapFlaps,
    /// Nobody of ours runs while this many other steps are made.
    Sleep(u8),
    /// The events of that many steps are lost.
    Overrun(u8),
    /// Nothing, for as long as it takes something to happen in the namespace, or some milliseconds.
    Pause(u64),
}

/// Something of an uplink.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    link: usize,
    family: Family,
    /// Which of its addresses or routers.
    which: u8,
    /// Which of its metrics.
    metric: u8,
}

impl Place {
    fn draw(numbers: &mut Numbers) -> Self {
        Self {
            link: numbers.below(2) as usize,
            family: if numbers.below(2) == 0 { Family::V4 } else { Family::V6 },
            which: numbers.below(3) as u8,
            metric: numbers.below(2) as u8,
        }
    }

    fn name(self) -> &'static str {
        if self.link == 0 { UPLINK } else { SECOND }
    }

    fn third(self) -> u8 {
        11 + self.link as u8
    }

    fn bits(self) -> u8 {
        if self.family == Family::V4 { 24 } else { 64 }
    }

    fn address(self) -> Outcome<IpAddr> {
        let (third, last) = (self.third(), 10 + self.which);
        Ok(match self.family {
            Family::V4 => [198, 18, third, last].into(),
            Family::V6 => format!("2001:db8:{third}::{last}").parse()?,
        })
    }

    fn way(self, link: u32) -> Outcome<Way> {
        let router: IpAddr = match self.family {
            Family::V4 => [198, 18, self.third(), 1 + self.which % 2].into(),
            Family::V6 => format!("fe80::{}", 1 + self.which % 2).parse()?,
        };
        // No two uplinks have equals, so that one is best.
        let metric = 100 * u32::from(self.third()) + 1000 * u32::from(self.metric);
        Ok(Way::default(link, router, metric))
    }

    fn elsewhere(self, link: u32) -> Outcome<Way> {
        let to: (IpAddr, u8) = match self.family {
            Family::V4 => ([198, 19, self.which, 0].into(), 24),
            Family::V6 => (format!("2001:db8:9{}::", self.which).parse()?, 48),
        };
        Ok(Way { to: Some(to), ..self.way(link)? })
    }
}

impl Step {
    /// Draws a step.
    pub fn draw(numbers: &mut Numbers) -> Self {
        let place = Place::draw(numbers);
        let (yes, link) = (numbers.below(2) == 0, place.link);
        match numbers.below(40) {
            0 => Self::Link(link, false),
            1 | 2 => Self::Link(link, true),
            3 => Self::Cable(link, false),
            4 | 5 => Self::Cable(link, true),
            6 => Self::Replug,
            7..=10 => Self::Add(place),
            11 | 12 => Self::Remove(place),
            13 | 14 => Self::Deprecate(place, yes),
            15 | 16 => Self::Renumber(place),
            17..=20 => Self::Default(place),
            21 | 22 => Self::NoDefault(place),
            23 => Self::Elsewhere(place, yes),
            24 => Self::UsersAddress(place.family, yes),
            25 => Self::UsersDefault(place.family, numbers.below(3) == 0),
            26 => Self::UsersHop(place.family, yes),
            27 if numbers.below(3) == 0 => Self::UsersDelete(numbers.below(1000)),
            28 => Self::TapFlaps,
            29 => Self::Sleep(numbers.below(4) as u8),
            30 if numbers.below(4) == 0 => Self::Overrun(numbers.below(4) as u8),
            31..=33 => Self::Router(place),
            34 | 35 => Self::UsersHop(Family::V6, true),
            _ => Self::Pause(numbers.below(60)),
        }
    }

    /// Whether it happens on the host.
    fn is_of_host(self) -> bool {
        !matches!(
            self,
            Self::UsersAddress(..)
                | Self::UsersDefault(..)
                | Self::UsersHop(..)
                | Self::UsersDelete(_)
                | Self::TapFlaps
                | Self::Sleep(_)
                | Self::Overrun(_)
                | Self::Pause(_)
        )
    }
}

/// Where steps are carried out.
#[derive(Debug)]
pub struct World<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The namespace.
    pub inside: &'a Inside,
    /// The supervisor's number.
    pub pasta: i32,
    /// What is known of the namespace's users.
    pub known: Known,
}

impl World<'_> {
    /// Carries out `step`; what cannot be done at the time is not done.
    ///
    /// # Errors
    ///
    /// Where the lab itself fails.
    pub fn run(&mut self, step: Step, numbers: &mut Numbers) -> Outcome {
        match step {
            Step::Pause(ms) => {
                let log = self.inside.listen()?;
                // That nothing happens is as well.
                let _ = log.wait(std::time::Duration::from_millis(ms));
                Ok(())
            }
            Step::Sleep(steps) => {
                let all = self.processes(&[MONITOR, DATAPATH])?;
                self.stopped(&all, steps, numbers, |_| Ok(()))
            }
            Step::Overrun(steps) => {
                let all = self.processes(&[MONITOR])?;
                self.stopped(&all, steps, numbers, |world| world.burst())
            }
            step if step.is_of_host() => self.on_host(step),
            step => self.on_users(step),
        }
    }

    fn processes(&self, names: &[&str]) -> Outcome<Vec<Process>> {
        let mut all: Vec<_> =
            names.iter().map(|name| process::only(name)).collect::<Outcome<_>>()?;
        if names.len() > 1 {
            all.push(Process::read(self.pasta).ok_or("no pasta")?);
        }
        Ok(all)
    }

    /// Makes some steps of the host while `all` do not run.
    fn stopped(
        &mut self,
        all: &[Process],
        steps: u8,
        numbers: &mut Numbers,
        first: impl Fn(&Self) -> Outcome,
    ) -> Outcome {
        all.iter().try_for_each(|it| it.signal(Signal::SIGSTOP))?;
        let mut done = first(self);
        for _ in 0..steps {
            let step = std::iter::repeat_with(|| Step::draw(numbers)).find(|it| it.is_of_host());
            if let (Some(step), Ok(())) = (step, &done) {
                done = self.on_host(step);
            }
        }
        all.iter().try_for_each(|it| it.signal(Signal::SIGCONT))?;
        done
    }

    /// Makes more events than the monitor's socket has room for.
    fn burst(&self) -> Outcome {
        self.lab.host().run(|| {
            let (admin, link) = (Admin::open()?, index_of(UPLINK)?);
            let netlink = Netlink::open()?;
            for n in 0..BURST {
                let to = (std::net::Ipv6Addr::from(u128::from(n) << 64 | 0x2001 << 112).into(), 64);
                let via: IpAddr = "fe80::1".parse()?;
                let way = Way { to: Some(to), via, link, metric: 1, table: ELSEWHERE };
                // Filtered events do not fill the queue, so that a link's do it.
                let _ = if n % 2 == 0 { admin.add_route(way) } else { admin.delete_route(way) };
                netlink.set_up(link, n % 2 == 0)?;
            }
            netlink.set_up(link, true)?;
            Ok(())
        })
    }

    fn on_host(&self, step: Step) -> Outcome {
        let link_of = |place: Place| index_of(place.name());
        if let Step::Cable(link, plugged) = step {
            return self.lab.on_remote(|netlink| {
                let far = FAR.get(link).copied().unwrap_or_default();
                Ok(netlink.set_up(netlink.link(far)?.index, plugged)?)
            });
        }
        if let Step::Replug = step {
            self.lab.on_host(|netlink| Ok(netlink.delete_link(netlink.link(SECOND)?.index)?))?;
            return add_second(self.lab);
        }
        self.lab.host().run(|| {
            let (admin, netlink) = (Admin::open()?, Netlink::open()?);
            let _ = match step {
                Step::Link(link, up) => {
                    let name = if link == 0 { UPLINK } else { SECOND };
                    Ok(netlink.set_up(index_of(name)?, up)?)
                }
                Step::Add(place) => {
                    admin.add_address(link_of(place)?, place.address()?, place.bits())
                }
                Step::Remove(place) => {
                    admin.delete_address(link_of(place)?, place.address()?, place.bits())
                }
                Step::Deprecate(place, on) => {
                    let preferred = if on { 0 } else { u32::MAX };
                    let address = (place.address()?, place.bits());
                    admin.lend_address(link_of(place)?, address, (preferred, u32::MAX))
                }
                Step::Renumber(place) => {
                    let link = link_of(place)?;
                    for which in 0..3 {
                        let address = Place { which, ..place }.address()?;
                        let _ = admin.delete_address(link, address, place.bits());
                    }
                    let _ = admin.add_address(link, place.address()?, place.bits());
                    admin.add_route(place.way(link)?)
                }
                Step::Default(place) => admin.add_route(place.way(link_of(place)?)?),
                Step::NoDefault(place) => admin.delete_route(place.way(link_of(place)?)?),
                Step::Router(place) => {
                    let link = link_of(place)?;
                    let other = Place { which: place.which + 1, ..place };
                    let gone = admin.delete_route(other.way(link)?);
                    gone.and_then(|()| admin.add_route(place.way(link)?))
                }
                Step::Elsewhere(place, true) => admin.add_route(place.elsewhere(link_of(place)?)?),
                Step::Elsewhere(place, false) => {
                    admin.delete_route(place.elsewhere(link_of(place)?)?)
                }
                _ => Ok(()),
            };
            Ok(())
        })
    }

    fn on_users(&mut self, step: Step) -> Outcome {
        let (tap, known) = (self.known.tap, &self.known.users);
        let declined = self.inside.run(|| {
            let (admin, netlink) = (Admin::open()?, Netlink::open()?);
            let before = Reading::here()?;
            let found = super::rules::Users::of(&before);
            if found != *known {
                return Err(format!("users' objects: {found:?} instead of {known:?}").into());
            }
            let theirs = |family| -> Outcome<(IpAddr, u8, IpAddr)> {
                Ok(match family {
                    Family::V4 => ("203.0.113.5".parse()?, 24, "203.0.113.1".parse()?),
                    Family::V6 => ("2001:db8:77::5".parse()?, 64, "fe80::77".parse()?),
                })
            };
            let mut declined = None;
            let _ = match step {
                Step::UsersAddress(family, true) => {
                    let (address, bits, _) = theirs(family)?;
                    admin.add_address(tap, address, bits)
                }
                Step::UsersAddress(family, false) => {
                    let (address, bits, _) = theirs(family)?;
                    admin.delete_address(tap, address, bits)
                }
                Step::UsersDefault(family, true) => {
                    admin.add_route(Way::default(tap, theirs(family)?.2, 5))
                }
                Step::UsersDefault(family, false) => {
                    admin.delete_route(Way::default(tap, theirs(family)?.2, 5))
                }
                Step::UsersHop(family, on) => {
                    let is_v4 = family == Family::V4;
                    let ours = before.routes.iter().find(|it| {
                        it.protocol == OURS && it.is_default() && it.to.0.is_ipv4() == is_v4
                    });
                    match ours {
                        Some(ours) if on && !is_v4 => {
                            admin.add_route(Way::default(tap, theirs(family)?.2, ours.metric))
                        }
                        _ => {
                            let theirs = theirs(family)?.2;
                            let all = before.routes.iter();
                            all.filter(|it| it.via == Some(theirs) && it.is_default()).try_for_each(
                                |it| admin.delete_route(Way::default(tap, theirs, it.metric)),
                            )
                        }
                    }
                }
                Step::UsersDelete(n) => {
                    let ours: Vec<_> = before.addresses.iter().filter(|it| it.ours).collect();
                    match ours.get(n as usize % ours.len().max(1)) {
                        Some(address) => {
                            declined = Some(address.ip.0);
                            admin.delete_address(tap, address.ip.0, address.ip.1)
                        }
                        None => Ok(()),
                    }
                }
                Step::TapFlaps => {
                    netlink.set_up(tap, false)?;
                    netlink.set_up(tap, true)?;
                    Ok(())
                }
                _ => Ok(()),
            };
            Ok(declined)
        })?;
        self.known.declined.extend(declined);
        // The kernel takes away what depends on what goes, and what is on a link that goes down.
        let after = self.inside.run(Reading::here)?;
        self.known.users = super::rules::Users::of(&after);
        Ok(())
    }
}

/// Makes the second uplink, up and without addresses.
///
/// # Errors
///
/// What the kernel reports.
pub fn add_second(lab: &Lab) -> Outcome {
    use std::os::fd::AsFd;
    lab.on_host(|netlink| Ok(netlink.add_veth(SECOND, FAR[1], lab.remote().as_fd())?))?;
    lab.on_remote(|netlink| Ok(netlink.set_up(netlink.link(FAR[1])?.index, true)?))?;
    lab.on_host(|netlink| Ok(netlink.set_up(netlink.link(SECOND)?.index, true)?))
}

/// Puts the host back to two uplinks that are up and have nothing.
///
/// # Errors
///
/// What the kernel reports.
pub fn reset(lab: &Lab) -> Outcome {
    lab.on_host(|netlink| {
        if let Ok(link) = netlink.link(SECOND) {
            netlink.delete_link(link.index)?;
        }
        Ok(())
    })?;
    lab.on_remote(|netlink| Ok(netlink.set_up(netlink.link(FAR[0])?.index, true)?))?;
    lab.host().run(|| {
        let (admin, netlink) = (Admin::open()?, Netlink::open()?);
        let link = index_of(UPLINK)?;
        netlink.set_up(link, true)?;
        let there = Reading::here()?;
        for route in there.routes.iter().filter(|it| it.link == link) {
            if let Some(via) = route.via {
                let to = Some(route.to).filter(|_| !route.is_default());
                let table = RouteHeader::RT_TABLE_MAIN;
                let _ = admin.delete_route(Way { to, via, link, metric: route.metric, table });
            }
        }
        for address in there.addresses.iter().filter(|it| it.link == link) {
            let _ = admin.delete_address(link, address.ip.0, address.ip.1);
        }
        Ok(())
    })?;
    add_second(lab)
}
