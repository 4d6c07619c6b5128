//! Whether answers show what is none of the asker's business: octets of other frames that have been in the
//! same memory, or anything behind the end of a packet.
//!
//! Before each request go frames full of one octet (`SECRET`) that nobody carries or answers, so that it is in every buffer
//! that frames are read into. Then come requests that something on the link answers: whole ones, each cut short at every
//! length, and each claiming to end with so and so much of the secret. No answer may have that in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::link::send_one;
use super::packet::{self, Ends, MacAddress};
use super::{Facts, TIME_LIMIT};
use crate::netlink::Link;
use crate::{Outcome, sys};

/// What is in the frames before.
const SECRET: u8 = 0xa7;
/// So many in a row are the secret, and not chance.
const RUN: usize = 6;
/// Frames of it before each request: more than a batch that is one frame.
const FRAMES: usize = 4;
/// A port where nobody listens, and one of the client's.
const PORTS: (u16, u16) = (40_000, 9);
/// Requests that are sent before answers are waited for. Chosen: what the tap's queue has room for.
const AT_ONCE: usize = 64;
/// After so long without an answer the last request is sent again.
const AGAIN: Duration = Duration::from_millis(100);
/// The address that is asked for after them.
const LAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 199);

/// Asks; says how many requests were answered in some form, and how many answers there were.
pub(super) fn answer(link: &Link, ends: &Ends) -> Outcome<Facts> {
    let mut line = Line { socket: sys::packet_socket(link.index)?, own: ends.from, answers: 0 };
    let secret = secret(ends).ok_or("addresses of two families")?;
    let mut answered = 0;
    for request in requests(ends).ok_or("addresses of two families")? {
        let before = line.answers;
        for some in damaged(&request).chunks(AT_ONCE) {
            for octets in some {
                for _ in 0..FRAMES {
                    send_one(&line.socket, &secret)?;
                }
                send_one(&line.socket, octets)?;
            }
            line.wait(ends)?;
        }
        answered += u8::from(line.answers > before);
    }
    Ok(vec![format!("answered {answered}"), format!("answers {}", line.answers)])
}

/// The link, and how many frames came from its other end.
struct Line {
    socket: OwnedFd,
    own: MacAddress,
    answers: u64,
}

impl Line {
    /// Waits until all has been answered that was sent: frames are taken in order.
    fn wait(&mut self, ends: &Ends) -> Outcome {
        let last = packet::arp_request(ends.from, ends.ipv4.0, LAST);
        let deadline = Instant::now() + TIME_LIMIT;
        while Instant::now() < deadline {
            send_one(&self.socket, &last)?;
            // The tap's queue may have been full.
            let again = Instant::now() + AGAIN;
            while Instant::now() < again {
                match self.next()? {
                    Some(frame) if packet::arp_reply_from(&frame, LAST).is_some() => return Ok(()),
                    Some(_) => {}
                    None => std::thread::yield_now(),
                }
            }
        }
        Err("no answer to the last one".into())
    }

    /// The next frame from the other end, if one is waiting, which shows nothing it should not.
    fn next(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut octets = vec![0; 65536];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut octets, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return Ok(None),
                length => length?,
            };
            let frame = &octets[..length];
            if frame.get(6..12) == Some(&self.own[..]) {
                continue;
            }
            self.answers += u64::from(packet::arp_reply_from(frame, LAST).is_none());
            let shows = frame.windows(RUN).any(|it| it.iter().all(|octet| *octet == SECRET));
            let behind = frame.get(packet::end_of_packet(frame)..).unwrap_or_default();
            if shows || behind.iter().any(|octet| *octet != 0) {
                return Err(format!("an answer shows too much: {frame:02x?}").into());
            }
            return Ok(Some(frame.to_vec()));
        }
    }
}

/// A frame of secrets. Nothing goes to loopback by a link, and no error comes back.
fn secret(ends: &Ends) -> Option<Vec<u8>> {
    let (from, to) = (ends.ipv4.0.into(), Ipv4Addr::LOCALHOST.into());
    let ends_of = (SocketAddr::new(from, PORTS.0), SocketAddr::new(to, PORTS.1));
    packet::datagram(ends.from, ends.to, ends_of, &[SECRET; 1472])
}

/// Requests that are answered on the link, or by an error.
fn requests(ends: &Ends) -> Option<Vec<Vec<u8>>> {
    let Ends { from, to, .. } = *ends;
    let routers = [
        (ends.ipv4.0.into(), IpAddr::from(Ipv4Addr::new(192, 0, 2, 1))),
        (ends.ipv6.0.into(), IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1))),
    ];
    let mut requests = vec![
        packet::arp_request(from, ends.ipv4.0, ends.ipv4.1),
        packet::neighbour_solicitation(from, ends.ipv6.0, ends.ipv6.1),
        packet::router_solicitation(from, ends.ipv6.0),
        dhcp(from, to),
        dhcpv6(from, ends.ipv6.0)?,
    ];
    for (source, router) in routers {
        requests.push(packet::echo_request(from, to, (source, router))?);
        let ports = (SocketAddr::new(source, PORTS.0), SocketAddr::new(router, PORTS.1));
        requests.push(packet::syn(from, to, ports)?);
        requests.push(packet::datagram(from, to, ports, b"anybody?")?);
    }
    Some(requests)
}

fn dhcp(from: MacAddress, to: MacAddress) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
    message[28..34].copy_from_slice(&from);
    // The magic cookie, a DISCOVER with an identifier, the end.
    message.extend([99, 130, 83, 99, 53, 1, 1, 61, 3, 0, 1, 2, 255]);
    let ends = ((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67));
    packet::datagram_v4(from, to, ends, &message)
}

fn dhcpv6(from: MacAddress, source: Ipv6Addr) -> Option<Vec<u8>> {
    // SOLICIT with an identifier of the client and an IA_NA.
    let message = [1, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
    let association = [0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into();
    let ends = (SocketAddr::new(source.into(), 546), SocketAddr::new(group, 547));
    packet::datagram(from, [0x33, 0x33, 0, 1, 0, 2], ends, &[&message[..], &association].concat())
}

/// The request as it is, cut short at each length, and claiming more than there is.
fn damaged(request: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![request.to_vec()];
    all.extend((14..request.len()).map(|length| request[..length].to_vec()));
    all.extend((1..=64).chain([500, 1400]).filter_map(|more| claiming(request, more)));
    all
}

/// Claims `more` octets at its end, which are not there: the secret, by the checksums.
fn claiming(request: &[u8], more: usize) -> Option<Vec<u8>> {
    let mut frame = request.to_vec();
    // Where the length of the packet stands, what it does not count, and where the transport begins.
    let (length, uncounted, start, protocol, addresses) = match request.get(12..14)? {
        [0x08, 0x00] => (16, 14, 34, *request.get(23)?, 26..34),
        [0x86, 0xdd] => (18, 54, 54, *request.get(20)?, 22..54),
        _ => return None,
    };
    let claimed = u16::try_from(request.len() - uncounted + more).ok()?;
    frame[length..length + 2].copy_from_slice(&claimed.to_be_bytes());
    let transport = u16::try_from(request.len() - start + more).ok()?;
    let sum_at = start
        + match protocol {
            6 => 16,
            17 => {
                frame.get_mut(start + 4..start + 6)?.copy_from_slice(&transport.to_be_bytes());
                6
            }
            _ => 2,
        };
    frame.get_mut(sum_at..sum_at + 2)?.fill(0);
    let pseudo = match protocol {
        1 => Vec::new(),
        _ => {
            let last = [0, protocol, transport.to_be_bytes()[0], transport.to_be_bytes()[1]];
            [&frame[addresses], &last].concat()
        }
    };
    let all = [&pseudo[..], &frame[start..], &vec![SECRET; more]].concat();
    let sum = packet::internet_checksum(&[&all]);
    frame[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    if start == 34 {
        frame[24..26].fill(0);
        let sum = packet::internet_checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    Some(frame)
}
