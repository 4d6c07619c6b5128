//! What storms of the namespace's users cost, and whether others notice: the monitor's share of a processor, the time
//! to follow a change of the host, and the time of a connection that takes a socket of the namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::percentiles;
use tests::Outcome;
use tests::bench::say;
use tests::lab::admin::{Admin, Inside, Way, index_of};
use tests::lab::process::{self, Process};
use tests::lab::{Family, Lab, MONITOR, UPLINK};
use tests::netlink::Netlink;

/// The port of the service in the namespace.
const PORT: u16 = 8000;
const FORWARDED: [&str; 8] = ["-t", "8000", "-u", "none", "-T", "none", "-U", "none"];

/// For how long the monitor's share is measured, and how often the others are.
const TIME: Duration = Duration::from_secs(5);
const CHANGES: u8 = 20;
const CONNECTIONS: usize = 500;

/// What goes on in the namespace.
#[derive(Clone, Copy, Debug)]
enum Storm {
    None,
    /// One of so many routes of the tap comes and goes, with this time between.
    Routes(u32, Duration),
    /// An address of the tap comes and goes.
    Addresses,
}

/// Measures each storm.
///
/// # Errors
///
/// When something does not do what it should.
pub(crate) fn run(lab: &Lab) -> Outcome {
    let storms = [
        ("no storm", Storm::None),
        ("1 of 20,000 routes, without pause", Storm::Routes(20_000, Duration::ZERO)),
        ("1 of 100,000 routes each 40 ms", Storm::Routes(100_000, Duration::from_millis(40))),
        ("an address, without pause", Storm::Addresses),
    ];
    for (name, storm) in storms {
        say(&format!("{name}:\n"));
        measure(lab, storm)?;
    }
    Ok(())
}

fn measure(lab: &Lab, storm: Storm) -> Outcome {
    let mut session = lab.pasta().configured().with(FORWARDED).session()?;
    let here = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    session.must(["serve", "tcp", "talker", &here.to_string(), "talker"])?;
    let inside = Inside::of(&mut session)?;
    let monitor = process::only(MONITOR)?;
    if let Storm::Routes(count, _) = storm {
        inside.run(|| {
            let admin = Admin::open()?;
            (1..=count).try_for_each(|n| admin.add_route(foreign(n)?))
        })?;
    }
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let stormy = scope.spawn(|| inside.run(|| rage(storm, &enough)));
        let over = OnDrop(&enough);
        let measured = lab.host().run(|| observe(&inside, &monitor));
        drop(over);
        stormy.join().map_err(|_| "the storm panicked")?.and(measured)
    })?;
    session.end(0)?.expect_code(0)?;
    process::wait_until_none_left()
}

/// Sets a flag when it is dropped, also by a panic: the storm would rage for ever.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Route number `n` of the namespace's users.
fn foreign(n: u32) -> Outcome<Way> {
    let to = Some((Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 32));
    Ok(Way { to, ..Way::default(index_of(UPLINK)?, Family::V4.gateway(), 7) })
}

fn rage(storm: Storm, enough: &AtomicBool) -> Outcome {
    let (admin, link, way) = (Admin::open()?, index_of(UPLINK)?, foreign(0)?);
    let address = IpAddr::from([10, 200, 0, 1]);
    while !enough.load(Ordering::Relaxed) {
        match storm {
            Storm::None => thread::sleep(Duration::from_millis(10)),
            Storm::Routes(_, pause) => {
                admin.add_route(way)?;
                thread::sleep(pause);
                admin.delete_route(way)?;
                thread::sleep(pause);
            }
            Storm::Addresses => {
                admin.add_address(link, address, 32)?;
                admin.delete_address(link, address, 32)?;
            }
        }
    }
    Ok(())
}

/// Measures on the host, while the storm goes on.
fn observe(inside: &Inside, monitor: &Process) -> Outcome {
    // What has to do with its beginning is over by then.
    thread::sleep(TIME / 2);
    let (start, before) = (Instant::now(), monitor.processor_time()?);
    thread::sleep(TIME);
    let spent = monitor.processor_time()? - before;
    let share = spent as f64 / start.elapsed().as_nanos() as f64 * 100.0;
    say(&format!("  monitor: {share:.2} % of a processor\n"));

    let (admin, link) = (Admin::open()?, index_of(UPLINK)?);
    let followed: Vec<_> = (1..=CHANGES)
        .map(|n| {
            let address = IpAddr::from([198, 18, 40, n]);
            let start = Instant::now();
            admin.add_address(link, address, 24)?;
            while !has_address(inside, address)? {
                thread::sleep(Duration::from_millis(1));
            }
            let time = start.elapsed();
            admin.delete_address(link, address, 24)?;
            Ok(time)
        })
        .collect::<Outcome<_>>()?;
    say(&format!("  change to namespace right: {}\n", percentiles(followed)));

    let service = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
    let connected: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let start = Instant::now();
            let mut stream = TcpStream::connect(service)?;
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
            Ok(start.elapsed())
        })
        .collect::<Outcome<_>>()?;
    say(&format!("  connection by a socket of the namespace: {}\n", percentiles(connected)));
    Ok(())
}

/// Whether the namespace has `address`.
fn has_address(inside: &Inside, address: IpAddr) -> Outcome<bool> {
    inside.run(|| Ok(Netlink::open()?.addresses()?.iter().any(|it| it.address == address)))
}
