//! What the namespace has that is not ours and not on the tap, read so that it costs little.
//!
//! A namespace's users may have a hundred thousand routes, of which few matter here: ways to everything, what leads
//! through the tap, and what has the destination of a route of ours. The kernel cannot be asked for these alone, so
//! each message is looked at where it is, and decoded only if it matters. After each part of a dump others have
//! their turn.

use crate::decode::decode;
use crate::namespace::Collector;
use crate::record::Collect;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NlasIterator, parse_u32};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{MsgFlags, recv, send};
use pasta_ipc::types::Prefix;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

/// Room for a part of an answer; the kernel's are half as long.
const ROOM: usize = 64 * 1024;
/// `NLM_F_DUMP_INTR` (`linux/netlink.h`).
const INTERRUPTED: u16 = 0x10;

// linux/rtnetlink.h.
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_NH_ID: u16 = 30;
/// Most routes of which one is enough that are kept. Chosen: as many as a status is read for.
const MOST_OTHERS: usize = 1024;

/// As the octet of the header has it; tables that it has no room for have another value there.
const MAIN: u8 = 254;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Index of the tap.
    pub tap: u32,
    /// Destinations of routes that are ours, or may be.
    pub destinations: BTreeSet<Prefix>,
}

/// Why there is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Dumps what `request` asks for from the kernel, through `socket`, and collects what is `wanted` of it. True if
/// it is of one moment.
///
/// # Errors
///
/// [`Failed`] if the kernel does not answer as it should.
pub async fn dump(
    socket: impl AsFd,
    request: RouteNetlinkMessage,
    wanted: &Wanted,
    into: &mut Collector,
) -> Result<bool, Failed> {
    let fd = socket.as_fd().as_raw_fd();
    let mut room = vec![0; ROOM];
    // What is left of an answer that nobody read to its end.
    while recv(fd, &mut room, MsgFlags::MSG_DONTWAIT).is_ok() {}
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    send(fd, &octets, MsgFlags::MSG_DONTWAIT).map_err(|_| Failed)?;
    let mut consistent = true;
    loop {
        // The kernel makes each part while it is asked for it.
        let len = recv(fd, &mut room, MsgFlags::MSG_DONTWAIT).map_err(|_| Failed)?;
        let part = part(room.get(..len).ok_or(Failed)?, wanted, into)?;
        consistent &= part.consistent;
        if part.last {
            return Ok(consistent);
        }
        tokio::task::yield_now().await;
    }
}

/// What one part of a dump says of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    last: bool,
    consistent: bool,
}

fn part(mut octets: &[u8], wanted: &Wanted, into: &mut Collector) -> Result<Part, Failed> {
    let mut consistent = true;
    while !octets.is_empty() {
        let &[l0, l1, l2, l3, t0, t1, f0, f1, ..] = octets.first_chunk::<16>().ok_or(Failed)?;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).map_err(|_| Failed)?;
        let payload = octets.get(16..len).ok_or(Failed)?;
        consistent &= u16::from_ne_bytes([f0, f1]) & INTERRUPTED == 0;
        let kind = u16::from_ne_bytes([t0, t1]);
        match kind {
            // Unless there is nothing of the kind at all, which some kernels say as an error.
            _ if kind == libc::NLMSG_DONE as u16 => return Ok(Part { last: true, consistent }),
            _ if kind == libc::NLMSG_ERROR as u16 => {
                let code = payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                let none = [-libc::ENOENT, -libc::EAFNOSUPPORT, 0].contains(&code);
                return if none { Ok(Part { last: true, consistent }) } else { Err(Failed) };
            }
            NEW_ADDRESS | NEW_ROUTE => match importance(kind, payload, wanted) {
                Importance::None => {}
                Importance::Some if into.routes() >= MOST_OTHERS => into.leave_out(),
                Importance::Some | Importance::All => {
                    // One that cannot be read is none of those that we made.
                    if let Ok(record) = decode(kind, payload) {
                        into.take(record);
                    }
                }
            },
            _ => {}
        }
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Part { last: false, consistent })
}

/// What it takes for an object to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Importance {
    /// It need not be.
    None,
    /// One of its kind is enough: it shows that users have something on the tap.
    Some,
    /// Each is.
    All,
}

/// How much what a message is about matters. What is read with what is ours does not.
fn importance(kind: u16, payload: &[u8], wanted: &Wanted) -> Importance {
    if kind == NEW_ADDRESS {
        // struct ifaddrmsg: the index is the second word.
        let index = payload.get(4..8).and_then(|it| <[u8; 4]>::try_from(it).ok());
        let far = index.map(u32::from_ne_bytes) != Some(wanted.tap);
        return if far { Importance::All } else { Importance::None };
    }
    // struct rtmsg: family, two lengths, type of service, table, protocol, scope, type, flags.
    let Some((&[_, bits, _, _, table, ..], attributes)) = payload.split_first_chunk::<12>() else {
        return Importance::None;
    };
    if table != MAIN {
        return Importance::None;
    }
    if bits == 0 {
        return Importance::All;
    }
    let (mut link, mut destination, mut others) = (None, None, false);
    for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
        match attribute.kind() {
            RTA_OIF => link = parse_u32(attribute.value()).ok(),
            RTA_DST => destination = ip(attribute.value()),
            RTA_MULTIPATH | RTA_NH_ID => others = true,
            _ => {}
        }
    }
    let prefix = destination.and_then(|it| Prefix::new(it, bits).ok());
    if prefix.is_some_and(|it| wanted.destinations.contains(&it)) {
        return Importance::All;
    }
    // Where it does not name a link it may lead through the tap.
    let on_tap = link == Some(wanted.tap) || (others && link.is_none());
    if on_tap { Importance::Some } else { Importance::None }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::testing::attributes;
    use crate::net::testing::net;

    fn wanted() -> Wanted {
        Wanted { tap: 2, destinations: [net("203.0.113.0/24")].into() }
    }

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut octets = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend([0; 8]);
        octets.extend(payload);
        octets
    }

    fn route(bits: u8, table: u8, more: &[(u16, &[u8])]) -> Vec<u8> {
        let header = [2, bits, 0, 0, table, 4, 0, 1, 0, 0, 0, 0];
        [&header[..], &attributes(more)].concat()
    }

    #[test]
    fn only_what_matters_is_decoded() {
        let link = |index: u32| index.to_ne_bytes();
        let (tap, other) = (link(2), link(9));
        let of = |payload: &[u8]| importance(NEW_ROUTE, payload, &wanted());
        let (to, elsewhere): (&[u8], &[u8]) = (&[203, 0, 113, 0], &[10, 0, 0, 0]);
        assert_eq!(of(&route(0, MAIN, &[(RTA_OIF, &other)])), Importance::All, "to everything");
        assert_eq!(of(&route(24, MAIN, &[(RTA_DST, to), (RTA_OIF, &other)])), Importance::All);
        for on_tap in [(RTA_OIF, &tap[..]), (RTA_NH_ID, &other), (RTA_MULTIPATH, &other)] {
            let found = of(&route(24, MAIN, &[(RTA_DST, elsewhere), on_tap]));
            assert_eq!(found, Importance::Some, "{on_tap:?}");
        }
        for payload in [
            route(24, MAIN, &[(RTA_DST, elsewhere), (RTA_OIF, &other)]),
            route(25, MAIN, &[(RTA_DST, to), (RTA_OIF, &other)]),
            route(0, 252, &[(RTA_OIF, &tap)]),
        ] {
            assert_eq!(of(&payload), Importance::None);
        }
        let address = |index: u32| [[2, 24, 0, 0], index.to_ne_bytes()].concat();
        assert_eq!(importance(NEW_ADDRESS, &address(9), &wanted()), Importance::All);
        let near = importance(NEW_ADDRESS, &address(2), &wanted());
        assert_eq!(near, Importance::None, "it is read with ours");
    }

    #[test]
    fn however_many_routes_are_on_the_tap_a_default_route_behind_them_is_known() {
        let mut found = Collector::default();
        let tap = 2_u32.to_ne_bytes();
        for n in 0..3000_u16 {
            let [high, low] = n.to_be_bytes();
            let to: &[u8] = &[10, high, low, 0];
            let one = message(NEW_ROUTE, 0, &route(24, MAIN, &[(RTA_DST, to), (RTA_OIF, &tap)]));
            part(&one, &wanted(), &mut found).unwrap();
        }
        assert_eq!((found.routes(), found.left_out()), (MOST_OTHERS, 3000 - MOST_OTHERS));
        let default = message(NEW_ROUTE, 0, &route(0, MAIN, &[(RTA_OIF, &tap)]));
        part(&default, &wanted(), &mut found).unwrap();
        assert_eq!(found.routes(), MOST_OTHERS + 1);
    }

    #[test]
    fn a_dump_ends_and_says_whether_it_was_interrupted() {
        let mut found = Collector::default();
        let default = message(NEW_ROUTE, 0, &route(0, MAIN, &[(RTA_OIF, &9_u32.to_ne_bytes())]));
        let done = |flags| message(3, flags, &[0; 4]);
        let mut of = |octets: &[u8]| part(octets, &wanted(), &mut found);
        assert_eq!(of(&default), Ok(Part { last: false, consistent: true }));
        assert_eq!(of(&done(0)), Ok(Part { last: true, consistent: true }));
        assert_eq!(of(&done(INTERRUPTED)), Ok(Part { last: true, consistent: false }));
        assert_eq!(of(&message(2, 0, &(-libc::ENOENT).to_ne_bytes())).map(|it| it.last), Ok(true));
        assert_eq!(of(&message(2, 0, &(-libc::EPERM).to_ne_bytes())), Err(Failed));
        assert_eq!(of(&default[..20]), Err(Failed));
    }
}
