//! How fast the namespace follows the host, and what events cost that concern nobody.
//!
//! `cargo bench -p tests --bench follow [-- --instances N] [--changes N] [--events N] [--ipv6] [--storms]`
//!
//! In a lab, N namespaces with a `pasta` each follow one host. Measured are
//!
//! - the time from asking the host's kernel for a change (an address comes, an address goes) until the
//!   last of the namespaces has it, over all changes: median, 99th percentile and worst. It includes
//!   the 10 ms for which the monitor gathers events;
//! - wake-ups and processor time of the monitors while unrelated events pass: addresses of a link that
//!   is down, and routes in another table.
//!
//! With `--storms`, something else instead: what one namespace whose users change it without pause costs the monitor,
//! and whether others notice (`storm`).
//!
//! Nothing is asserted.

mod storm;

use std::env;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use tests::Outcome;
use tests::bench::{self, say};
use tests::lab::address::prefix_length;
use tests::lab::admin::{Admin, Inside, Log, Way, index_of};
use tests::lab::pasta::NO_PORTS;
use tests::lab::process::{self, Process};
use tests::lab::programs::{self, Programs};
use tests::lab::{Family, Lab, MONITOR, Session, UPLINK};

/// How long one change may take. Chosen: a thousand times what it does.
const LIMIT: Duration = Duration::from_secs(20);

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    instances: usize,
    changes: u16,
    events: u32,
    family: Family,
    storms: bool,
}

impl Options {
    fn parse(words: impl IntoIterator<Item = String>) -> Outcome<Self> {
        let mut options =
            Self { instances: 1, changes: 400, events: 100_000, family: Family::V4, storms: false };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--instances" => options.instances = value()?.parse()?,
                "--changes" => options.changes = value()?.parse()?,
                "--events" => options.events = value()?.parse()?,
                "--ipv6" => options.family = Family::V6,
                "--storms" => options.storms = true,
                "--bench" => {}
                _ => return Err(format!("unknown option {word}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    bench::main(run)
}

fn run() -> Outcome {
    let options = Options::parse(env::args().skip(1))?;
    let client = Path::new(env!("CARGO_BIN_EXE_lab-client"));
    programs::build(client)?;
    let lab = Lab::build(&Programs::find(client)?, &[])?;
    if options.storms {
        return storm::run(&lab);
    }
    lab.on_host(|netlink| Ok(netlink.add_veth("other0", "other1", lab.remote().as_fd())?))?;

    let mut sessions: Vec<Session> = Vec::new();
    let mut logs = Vec::new();
    for _ in 0..options.instances {
        // Looking for new ports, which is what the default does, takes wake-ups too.
        let mut session = lab.pasta().configured().with(NO_PORTS).session()?;
        logs.push(Inside::of(&mut session)?.listen()?);
        sessions.push(session);
    }
    let name = options.family.name();
    say(&format!("{} instances, {name}\n", options.instances));
    let times = lab.host().run(|| measure_changes(&options, &mut logs))?;
    say(&format!("change to namespace right: {}\n", percentiles(times)));
    let monitors: Vec<_> = process::all()?.into_iter().filter(|it| it.name == MONITOR).collect();
    let (woken, busy) = lab.host().run(|| measure_events(&options, &monitors))?;
    let each = busy / u32::try_from(monitors.len().max(1))?;
    say(&format!(
        "{} unrelated events: {woken} wake-ups, {:.2} ms of processor time each monitor\n",
        options.events,
        each.as_secs_f64() * 1e3
    ));
    Ok(())
}

/// The time that each change of the host took to be in all namespaces.
fn measure_changes(options: &Options, logs: &mut [Log]) -> Outcome<Vec<Duration>> {
    let (admin, link) = (Admin::open()?, index_of(UPLINK)?);
    let len = prefix_length(options.family);
    let mut times = Vec::new();
    for n in 0..options.changes / 2 {
        let address: IpAddr = match options.family {
            Family::V4 => [198, 18, 32 + (n >> 8) as u8, n as u8].into(),
            Family::V6 => format!("2001:db8:18:{n:x}::7").parse()?,
        };
        for sign in ['+', '-'] {
            // Each change by itself: the one before is over.
            thread::sleep(Duration::from_millis(20));
            let start = Instant::now();
            match sign {
                '+' => admin.add_address(link, address, len)?,
                _ => admin.delete_address(link, address, len)?,
            }
            let line = format!("{sign} address {address}/");
            for log in logs.iter_mut() {
                while !log.lines()?.iter().rev().any(|it| it.starts_with(&line)) {
                    log.wait(LIMIT)?;
                }
            }
            times.push(start.elapsed());
        }
    }
    Ok(times)
}

/// How often the monitors were woken by events that concern nobody, and how long they ran.
fn measure_events(options: &Options, monitors: &[Process]) -> Outcome<(u64, Duration)> {
    let wake_ups = |it: &Process| -> Outcome<u64> {
        Ok(it.status("voluntary_ctxt_switches")?.parse::<u64>()?)
    };
    let sum = || -> Outcome<(u64, u64)> {
        let mut sum = (0, 0);
        for monitor in monitors {
            sum.0 += wake_ups(monitor)?;
            sum.1 += monitor.processor_time()?;
        }
        Ok(sum)
    };
    // What was measured before has to come to rest.
    let mut before = sum()?;
    let end = Instant::now() + LIMIT;
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = sum()?;
        if now.0 == before.0 {
            break;
        }
        if Instant::now() > end {
            return Err("the monitors do not come to rest".into());
        }
        before = now;
    }
    let (admin, family) = (Admin::open()?, options.family);
    let (uplink, other) = (index_of(UPLINK)?, index_of("other0")?);
    let (address, len) = match family {
        Family::V4 => ([198, 18, 99, 1].into(), 24),
        Family::V6 => ("2001:db8:99::1".parse::<IpAddr>()?, 64),
    };
    for _ in 0..options.events / 4 {
        let foreign = Way { table: 77, ..Way::default(uplink, family.gateway(), 5) };
        admin.add_route(foreign)?;
        admin.delete_route(foreign)?;
        admin.add_address(other, address, len)?;
        admin.delete_address(other, address, len)?;
    }
    let after = sum()?;
    Ok((after.0 - before.0, Duration::from_nanos(after.1 - before.1)))
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| {
        let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    format!(
        "median {:.1} ms, p99 {:.1} ms, worst {:.1} ms of {}",
        at(50),
        at(99),
        at(100),
        times.len()
    )
}
