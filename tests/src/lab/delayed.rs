//! A second link between host and remote machine, with delay and loss: two tun devices, and a thread for each
//! direction of a program that holds packets back.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::files::TUN;
use super::{Family, Lab, Machine};
use crate::netlink::Netlink;
use crate::{Outcome, sys};

const NAME: &str = "delayed";

/// Room for one packet: the MTU of a tun device is 1500.
const ROOM: usize = 2048;

/// Packets that are held back for each direction: more than a second's at a gigabit a second. What comes then waits in
/// the device, and is dropped where that is full, as on any other link.
const HELD: usize = 100_000;

/// Loss is counted in packets of so many.
const LOSS_OF: u64 = 10_000;

/// The link; it goes when the lab does.
#[derive(Debug)]
pub struct DelayedLink {
    held: Arc<Held>,
}

/// What each packet is held for, and how many are lost.
#[derive(Debug, Default)]
struct Held {
    nanoseconds: AtomicU64,
    losses: AtomicU64,
}

impl Family {
    /// The ends of the link: the host's, and the remote machine's.
    pub const fn delayed(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 => {
                (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2)))
            }
            Self::V6 => (
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 1)),
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 2)),
            ),
        }
    }
}

impl DelayedLink {
    /// Makes the link, which has no delay and loses nothing yet.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn build(lab: &Lab) -> Outcome<Self> {
        let near = end(&Machine::here()?, |family| family.delayed().0)?;
        let far = end(lab.remote(), |family| family.delayed().1)?;
        let held = Arc::new(Held::default());
        for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            hold_back(from, to, &held)?;
        }
        Ok(Self { held })
    }

    /// Has packets take half of `round_trip` each way, and `losses` of 10,000 not arrive.
    pub fn set(&self, round_trip: Duration, losses: u64) {
        let one_way = u64::try_from(round_trip.as_nanos() / 2).unwrap_or(u64::MAX);
        self.held.nanoseconds.store(one_way, Ordering::Relaxed);
        self.held.losses.store(losses, Ordering::Relaxed);
    }
}

/// One end: a device of `machine` with its addresses.
fn end(machine: &Machine, address: fn(Family) -> IpAddr) -> Outcome<File> {
    machine.run(|| {
        // A device belongs to the namespace that it was opened in.
        let device = OpenOptions::new().read(true).write(true).open(TUN)?;
        sys::make_tun(&device, NAME)?;
        let netlink = Netlink::open()?;
        let index = netlink.link(NAME)?.index;
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{NAME}/accept_dad"), "0")?;
        netlink.set_up(index, true)?;
        netlink.add_address(index, address(Family::V4), 30)?;
        netlink.add_address(index, address(Family::V6), 64)?;
        Ok(device)
    })
}

/// Carries packets one way for as long as there is a device.
fn hold_back(mut from: File, mut to: File, held: &Arc<Held>) -> Outcome {
    let (sender, due) = mpsc::sync_channel::<(Instant, Vec<u8>)>(HELD);
    let held = Arc::clone(held);
    thread::Builder::new()
        .name("delayed: in".to_owned())
        .spawn(move || take(&mut from, &held, &sender))?;
    thread::Builder::new().name("delayed: out".to_owned()).spawn(move || {
        for (when, packet) in due {
            if let Some(left) = when.checked_duration_since(Instant::now()) {
                thread::sleep(left);
            }
            // A device that is down drops, as the other end of a cable does.
            let _ = to.write(&packet);
        }
    })?;
    Ok(())
}

fn take(from: &mut File, held: &Held, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut octets = [0; ROOM];
    // Chosen: any fixed start, so that each run loses the same ones.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    loop {
        let length = match from.read(&mut octets) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        // Xorshift (Marsaglia, 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random % LOSS_OF < held.losses.load(Ordering::Relaxed) {
            continue;
        }
        let wait = Duration::from_nanos(held.nanoseconds.load(Ordering::Relaxed));
        if sender.send((Instant::now() + wait, octets[..length].to_vec())).is_err() {
            return;
        }
    }
}
