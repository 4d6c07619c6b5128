//! A tunnel of the host, as a VPN makes one, and what comes out of it at its far end.
//!
//! The kernel sees a device that carries IP packets and no frames, from one end to the other
//! (`IFF_POINTOPOINT`, `IFF_NOARP`). The far end is a thread of the test: it notes every datagram
//! of UDP and sends it back to where it came from. Everything else is dropped.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use super::Machine;
use super::files::TUN;
use super::wait::PATIENCE;
use crate::netlink::Netlink;
use crate::{Outcome, sys};

/// The number of UDP in a packet's header (RFC 768).
const UDP: u8 = 17;

/// Octets of an IPv6 header (RFC 8200, section 3).
const V6_HEADER: usize = 40;

/// Room for one packet: the largest that a tunnel of the lab carries, whose MTU is 1500.
const ROOM: usize = 2048;

/// A tunnel. It goes when the test ends, or when it is removed.
#[derive(Debug)]
pub struct Tunnel {
    index: u32,
    arrived: Receiver<Datagram>,
}

/// A datagram that came out of a tunnel: who sent it, and to whom.
pub type Datagram = (SocketAddr, SocketAddr);

impl Tunnel {
    /// Makes the tunnel `name` on the machine `machine`, brings it up, and gives it no address.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn new(machine: &Machine, name: &str) -> Outcome<Self> {
        let device = OpenOptions::new().read(true).write(true).open(TUN)?;
        let index = machine.run(|| {
            sys::make_tun(&device, name)?;
            let netlink = Netlink::open()?;
            let index = netlink.link(name)?.index;
            netlink.set_up(index, true)?;
            Ok(index)
        })?;
        let (sender, arrived) = mpsc::channel();
        thread::Builder::new().name(format!("tunnel {name}")).spawn(move || {
            // The device ends it, and a test that has ended is sent nothing.
            let _ = send_back(device, |datagram| {
                let _ = sender.send(datagram);
            });
        })?;
        Ok(Self { index, arrived })
    }

    /// Its index.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The next datagram that comes out.
    ///
    /// # Errors
    ///
    /// When none does within the lab's patience.
    pub fn next(&self) -> Outcome<Datagram> {
        Ok(self.arrived.recv_timeout(PATIENCE)?)
    }

    /// Whether nothing more has come out.
    pub fn was_left_alone(&self) -> bool {
        self.arrived.try_recv().is_err()
    }
}

fn send_back(mut device: File, note: impl Fn(Datagram)) -> std::io::Result<()> {
    let mut octets = vec![0; ROOM];
    loop {
        let length = device.read(&mut octets)?;
        if let Some(datagram) = turn_round(&mut octets[..length]) {
            note(datagram);
            device.write_all(&octets[..length])?;
        }
    }
}

/// Makes an answer of a datagram, and gives who sent it to whom. The checksums are sums, so that
/// they hold whatever the order of what is summed.
fn turn_round(packet: &mut [u8]) -> Option<Datagram> {
    let (from, to, header) = match packet.first()? >> 4 {
        4 if *packet.get(9)? == UDP => {
            let (from, to) = swap::<4>(packet, 12)?;
            let header = usize::from(packet.first()? & 0xf) * 4;
            (IpAddr::from(Ipv4Addr::from(from)), IpAddr::from(Ipv4Addr::from(to)), header)
        }
        6 if *packet.get(6)? == UDP => {
            let (from, to) = swap::<16>(packet, 8)?;
            (IpAddr::from(Ipv6Addr::from(from)), IpAddr::from(Ipv6Addr::from(to)), V6_HEADER)
        }
        _ => return None,
    };
    let (from_port, to_port) = swap::<2>(packet, header)?;
    let end = |address, port| SocketAddr::new(address, u16::from_be_bytes(port));
    Some((end(from, from_port), end(to, to_port)))
}

/// Swaps the `N` octets at `at` with the `N` after them, and gives both as they were.
fn swap<const N: usize>(packet: &mut [u8], at: usize) -> Option<([u8; N], [u8; N])> {
    let (first, rest) = packet.get_mut(at..)?.split_first_chunk_mut::<N>()?;
    let second = rest.first_chunk_mut::<N>()?;
    let before = (*first, *second);
    std::mem::swap(first, second);
    Some(before)
}
