//! Questions about the link itself, asked with whole frames.
//!
//! | question | does |
//! | --- | --- |
//! | `link arp LINK TARGET` | asks who has TARGET; fact `mac ADDRESS`, error `ETIMEDOUT` for silence |
//! | `link arp-probe LINK TARGET` | the same as a probe, with sender 0.0.0.0 |
//! | `link solicit LINK TARGET` | neighbour solicitation; facts and error as for `arp` |
//! | `link solicit-dad LINK TARGET` | the same from `::`, as duplicate address detection asks |
//! | `link frames LINK SEED COUNT` | sends COUNT damaged frames |
//! | `link super-frames LINK SEED COUNT` | the same, with damaged virtio-net headers before them |
//! | `link set LINK up\|down` | brings it up or down |
//! | `link address LINK ADDRESS` | gives it an address with a prefix of its own |
//! | `link delete LINK` | removes it |
//!
//! Those about what the link is configured with are in [`configuration`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::packet::{self, Ends, MacAddress, Random};
use super::{Arguments, Facts};
use super::{configuration, leaks};
use crate::netlink::{Link, Mac, Netlink};
use crate::{Outcome, sys};

/// How long silence has to last to count as such. Chosen: a thousand round trips on a tap.
const SILENCE: Duration = Duration::from_secs(1);

/// Answers a question about a link.
///
/// # Errors
///
/// What the kernel reports.
pub fn answer(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let question = arguments.word("question")?;
    let netlink = Netlink::open()?;
    let link = netlink.link(arguments.word("link")?)?;
    match question {
        "arp" | "arp-probe" => {
            let target: Ipv4Addr = arguments.value("IPv4 address")?;
            let own =
                if question == "arp" { own_ipv4(&netlink, &link)? } else { Ipv4Addr::UNSPECIFIED };
            let request = packet::arp_request(mac_of(&link)?, own, target);
            ask(&link, &request, |frame| Some(at(packet::arp_reply_from(frame, target)?)))
        }
        "solicit" | "solicit-dad" => {
            let target: Ipv6Addr = arguments.value("IPv6 address")?;
            let own = match question {
                "solicit" => own_ipv6(&netlink, &link)?,
                _ => Ipv6Addr::UNSPECIFIED,
            };
            let request = packet::neighbour_solicitation(mac_of(&link)?, own, target);
            ask(&link, &request, |frame| Some(at(packet::advertised(frame, target)?)))
        }
        "dhcp" => {
            let question = configuration::dhcp(arguments, mac_of(&link)?)?;
            ask(&link, &question.frame, question.read)
        }
        "dhcpv6" => {
            let own = own_link_local(&netlink, &link)?;
            let question = configuration::dhcpv6(arguments, mac_of(&link)?, own)?;
            ask(&link, &question.frame, question.read)
        }
        "routers" => {
            let question = configuration::routers(mac_of(&link)?, own_link_local(&netlink, &link)?);
            ask(&link, &question.frame, question.read)
        }
        "frames" | "super-frames" => {
            let random = Random::new(arguments.value("seed")?);
            let count = arguments.value("count")?;
            let ends = ends(&netlink, &link)?;
            match question {
                "frames" => send_frames(&link, random, count, &ends),
                _ => send_super_frames(&link, random, count, &ends),
            }
        }
        "leaks" => leaks::answer(&link, &ends(&netlink, &link)?),
        "carry" => {
            let protocol = arguments.word("protocol")?;
            let ends = (arguments.value("source")?, arguments.value("destination")?);
            let own = mac_of(&link)?;
            let frame = match protocol {
                "tcp" => packet::syn(own, packet::BROADCAST, ends),
                _ => packet::datagram(own, packet::BROADCAST, ends, b"anybody?"),
            };
            let frame = frame.ok_or("addresses of two families")?;
            send_one(&sys::packet_socket(link.index)?, &frame)?;
            Ok(Facts::new())
        }
        "set" => {
            netlink.set_up(link.index, arguments.word("state")? == "up")?;
            Ok(Facts::new())
        }
        "address" => {
            let address: IpAddr = arguments.value("address")?;
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            netlink.add_address(link.index, address, prefix)?;
            Ok(Facts::new())
        }
        "delete" => {
            netlink.delete_link(link.index)?;
            Ok(Facts::new())
        }
        other => Err(format!("no link question {other}").into()),
    }
}

fn mac_of(link: &Link) -> Outcome<MacAddress> {
    Ok(link.mac.as_slice().try_into()?)
}

fn own_ipv4(netlink: &Netlink, link: &Link) -> Outcome<Ipv4Addr> {
    let mut own = netlink.addresses()?.into_iter().filter(|address| address.link == link.index);
    Ok(own.find_map(|address| packet::as_ipv4(address.address)).ok_or("no IPv4 address")?)
}

fn own_ipv6(netlink: &Netlink, link: &Link) -> Outcome<Ipv6Addr> {
    let addresses = netlink.addresses()?;
    let mut own = addresses.iter().filter(|address| address.link == link.index);
    let found = own.find_map(|address| match address.address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    });
    Ok(found.ok_or("no IPv6 address")?)
}

fn own_link_local(netlink: &Netlink, link: &Link) -> Outcome<Ipv6Addr> {
    let addresses = netlink.addresses()?;
    let mut own = addresses.iter().filter(|address| address.link == link.index);
    let found = own.find_map(|address| match address.address {
        IpAddr::V6(address) => Some(address).filter(Ipv6Addr::is_unicast_link_local),
        IpAddr::V4(_) => None,
    });
    Ok(found.ok_or("no link-local address")?)
}

fn ends(netlink: &Netlink, link: &Link) -> Outcome<Ends> {
    let unknown = (Ipv4Addr::new(192, 0, 2, 2), "2001:db8::2".parse()?);
    Ok(Ends {
        from: mac_of(link)?,
        to: packet::BROADCAST,
        ipv4: (own_ipv4(netlink, link).unwrap_or(unknown.0), Ipv4Addr::new(198, 51, 100, 1)),
        ipv6: (own_ipv6(netlink, link).unwrap_or(unknown.1), "2001:db8:1::1".parse()?),
    })
}

/// The fact that somebody is at `mac`.
fn at(mac: MacAddress) -> Facts {
    vec![format!("mac {}", Mac(&mac))]
}

/// Sends `request` and waits for a frame that `read` makes something of. What the link itself sends
/// is seen as well and does not count: its answers to others are no answers to us.
fn ask(link: &Link, request: &[u8], read: impl Fn(&[u8]) -> Option<Facts>) -> Outcome<Facts> {
    let socket = sys::packet_socket(link.index)?;
    let own = mac_of(link)?;
    send(socket.as_raw_fd(), request, MsgFlags::empty())?;
    let deadline = Instant::now() + SILENCE;
    let mut octets = vec![0; 65536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT).into());
        }
        let left = TimeVal::microseconds(i64::try_from(left.as_micros())?.max(1));
        setsockopt(&socket, sockopt::ReceiveTimeout, &left)?;
        match recv(socket.as_raw_fd(), &mut octets, MsgFlags::empty()) {
            Ok(length) => {
                let frame = &octets[..length];
                let is_own = frame.get(6..12) == Some(&own[..]);
                if let Some(facts) = read(frame).filter(|_| !is_own) {
                    return Ok(facts);
                }
            }
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends one frame, waiting while the link's queue is full. Gives whether the kernel took it.
pub(super) fn send_one(socket: &OwnedFd, octets: &[u8]) -> Outcome<bool> {
    loop {
        match send(socket.as_raw_fd(), octets, MsgFlags::empty()) {
            Ok(_) => return Ok(true),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => thread::yield_now(),
            Err(Errno::EINVAL | Errno::EMSGSIZE) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_frames(link: &Link, mut random: Random, count: u64, ends: &Ends) -> Outcome<Facts> {
    let socket = sys::packet_socket(link.index)?;
    let mut sent = 0_u64;
    for _ in 0..count {
        sent += u64::from(send_one(&socket, &packet::damaged_frame(&mut random, ends))?);
    }
    Ok(vec![format!("sent {sent}")])
}

/// Sends frames with a virtio-net header of ten octets in front, which the kernel checks and, for a
/// tap that has such headers, hands on. Most of the damaged ones it refuses.
fn send_super_frames(link: &Link, mut random: Random, count: u64, ends: &Ends) -> Outcome<Facts> {
    let socket = sys::packet_socket(link.index)?;
    sys::expect_vnet_headers(&socket)?;
    let mut sent = 0_u64;
    for _ in 0..count {
        let mut frame = packet::damaged_frame(&mut random, ends);
        if random.below(2) == 0 {
            frame.extend((0..random.below(20_000)).map(|i| i as u8));
        }
        let mut octets = vnet_header(&mut random);
        octets.extend(frame);
        sent += u64::from(send_one(&socket, &octets)?);
    }
    Ok(vec![format!("sent {sent}")])
}

/// A `struct virtio_net_hdr` (linux/virtio_net.h) with values that are near to sensible.
fn vnet_header(random: &mut Random) -> Vec<u8> {
    let flags = [0, 1, 1, 2][random.below(4)];
    let kind = [0, 1, 4, 3, 5, 0x81][random.below(6)];
    let header_length = [0, 34, 54, 74, random.below(200)][random.below(5)] as u16;
    let segment = [0, 1, 100, 1448, 1460, random.below(65536)][random.below(6)] as u16;
    let start = [14, 34, 54, random.below(100)][random.below(4)] as u16;
    let offset = [2, 6, 16, random.below(40)][random.below(4)] as u16;
    let mut header = vec![flags, kind];
    for field in [header_length, segment, start, offset] {
        header.extend(field.to_ne_bytes());
    }
    header
}
