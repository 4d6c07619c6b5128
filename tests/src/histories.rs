//! Random histories of a host and of a namespace's users, held against the rules.
//!
//! A history starts `pasta`, lets things happen ([`steps`]), and now and then leaves all alone. When it is quiet then,
//! the namespace must have what the rules say ([`rules`]), which know nothing of how that comes about. All is drawn
//! from one number, so that a history can be had again; only the order in which processes run cannot.

pub mod reading;
pub mod rules;
pub mod steps;

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::lab::admin::Inside;
use crate::lab::{Lab, UPLINK, wait};
use crate::netlink::Netlink;
use reading::Reading;
use rules::Known;
use steps::{Step, World};

/// How often a history comes to rest, and most steps between.
const RESTS: u64 = 6;
const MOST_STEPS: u64 = 12;
/// How long nothing may happen in the namespace before it counts as quiet. Chosen: longer than the monitor
/// gathers events, and than it waits for the datapath.
const QUIET: Duration = Duration::from_millis(200);
/// How long it may take to be right. Chosen: far longer than a flapping host is given to settle.
const LIMIT: Duration = Duration::from_secs(30);

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
#[derive(Clone, Copy, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Those of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut numbers = Self(seed);
        numbers.below(1);
        numbers
    }

    /// The next one, below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Runs histories from number `seed` on, until `time` is over; gives how many there were.
///
/// # Errors
///
/// The first that does not end as the rules say, with its number and what had happened.
pub fn run(lab: &Lab, seed: u64, time: Duration, mut report: impl FnMut(u64)) -> Outcome<u64> {
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < time || count == 0 {
        history(lab, seed + count, start + time)?;
        count += 1;
        report(count);
    }
    Ok(count)
}

/// Runs the history of `seed`, or the part of it that there is time for.
fn history(lab: &Lab, seed: u64, end: Instant) -> Outcome {
    let mut numbers = Numbers::new(seed);
    steps::reset(lab)?;
    let mut options = vec!["--hold", "20", "--linger", "0", "--settle"];
    options.push(if numbers.below(2) == 0 { "0" } else { "5" });
    let named = (numbers.below(4) == 0).then(|| UPLINK.to_owned());
    options.extend(named.iter().flat_map(|name| ["-i", name]));
    let mut happened = vec![format!("pasta {}", options.join(" "))];

    let mut session = lab.pasta().configured().with(&options).session()?;
    let inside = Inside::of(&mut session)?;
    let tap = inside.run(|| {
        let links = Netlink::open()?.links()?;
        links.iter().find(|it| it.name != "lo").map(|it| it.index).ok_or("no tap".into())
    })?;
    let known = Known { named, tap, ..Known::default() };
    let mut world = World { lab, inside: &inside, pasta: session.running().pid(), known };
    for rest in 0..RESTS {
        for _ in 0..=numbers.below(MOST_STEPS) {
            let step = Step::draw(&mut numbers);
            happened.push(format!("{step:?}"));
            let done = world.run(step, &mut numbers);
            done.map_err(|error| format!("seed {seed}: {error}\n{}", happened.join("\n")))?;
        }
        happened.push("rest".to_owned());
        rested(&world).map_err(|error| {
            let errors = session.running().errors();
            format!("seed {seed}, rest {rest}: {error}\n{}\n{errors}", happened.join("\n"))
        })?;
        if Instant::now() >= end {
            break;
        }
    }
    session.end(0)?.expect_code(0)?;
    Ok(())
}

/// Waits until all is quiet and right.
fn rested(world: &World<'_>) -> Outcome {
    let mut last = String::new();
    let right = wait::until_within(LIMIT, "the namespace to be as the rules say", || {
        let log = world.inside.listen().ok()?;
        let found = look(world);
        let is_right = found.is_ok();
        last = found.err().unwrap_or_default();
        // It must stay so.
        let is_quiet = log.wait(if is_right { QUIET } else { Duration::from_millis(20) }).is_err();
        (is_right && is_quiet && look(world).is_ok()).then_some(())
    });
    right.map_err(|error| format!("{error}: {last}").into())
}

fn look(world: &World<'_>) -> Result<(), String> {
    let text = |error: crate::Failure| error.to_string();
    let host = world.lab.host().run(Reading::here).map_err(text)?;
    let inside = world.inside.run(Reading::here).map_err(text)?;
    rules::check(&host, &inside, &world.known)
        .map_err(|wrong| format!("{wrong}\nhost {host:?}\ninside {inside:?}"))
}
