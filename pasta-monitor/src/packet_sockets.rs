#![forbid(unsafe_code)]
//! Whether a packet socket is bound to a link (packet(7)): a capture goes on by the link's number, but what was
//! started with a name shows that somebody uses it.
//!
//! The kernel is asked for all packet sockets of the namespace (`linux/packet_diag.h`), once. Where it cannot
//! say, there is none as far as we can tell.

use netlink_packet_core::NlasIterator;
use nix::sys::socket::{MsgFlags, recv, send};
use std::os::fd::{AsFd, AsRawFd};

/// `SOCK_DIAG_BY_FAMILY` (`linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` (`linux/netlink.h`).
const DUMP: u16 = 0x1 | 0x300;
/// `struct nlmsghdr`, and `struct packet_diag_req`.
const REQUEST_LEN: usize = 16 + 20;
/// `struct packet_diag_msg`.
const ANSWER_LEN: usize = 16;
/// `PACKET_SHOW_INFO`, and the attribute that it asks for.
const SHOW_INFO: u32 = 1;
const PACKET_DIAG_INFO: u16 = 0;

/// Room for a part of an answer; the kernel's are shorter.
const ROOM: usize = 32 * 1024;
/// Most parts that are read. Chosen: of some hundred sockets each, far more than there is reason for.
const MOST_PARTS: usize = 256;

/// Whether a packet socket is bound to link `link` of the namespace that `socket` (`NETLINK_SOCK_DIAG`) is in; none
/// if the kernel does not say.
pub fn are_bound_to(socket: impl AsFd, link: u32) -> Option<bool> {
    let fd = socket.as_fd().as_raw_fd();
    send(fd, &request(), MsgFlags::MSG_DONTWAIT).ok()?;
    let mut room = vec![0; ROOM];
    for _ in 0..MOST_PARTS {
        // The kernel makes each part while it is asked for it.
        let len = recv(fd, &mut room, MsgFlags::MSG_DONTWAIT).ok()?;
        match read(room.get(..len)?, link)? {
            Found::Bound => return Some(true),
            Found::End => return Some(false),
            Found::More => {}
        }
    }
    None
}

/// What a part of the answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// There is one.
    Bound,
    /// There was none, and there is more to come.
    More,
    /// There was none.
    End,
}

fn request() -> [u8; REQUEST_LEN] {
    let mut octets = [0; REQUEST_LEN];
    let len = (REQUEST_LEN as u32).to_ne_bytes();
    let head = len.into_iter().chain(BY_FAMILY.to_ne_bytes()).chain(DUMP.to_ne_bytes());
    // Sequence and port are 0; then the family, any protocol, any inode, and what to show.
    let body = [0; 8].into_iter().chain([libc::AF_PACKET as u8, 0, 0, 0]);
    let rest = [0; 4].into_iter().chain(SHOW_INFO.to_ne_bytes());
    for (to, from) in octets.iter_mut().zip(head.chain(body).chain(rest)) {
        *to = from;
    }
    octets
}

/// Reads one datagram; none if it is no answer of the kernel's.
fn read(mut octets: &[u8], link: u32) -> Option<Found> {
    while !octets.is_empty() {
        let &[l0, l1, l2, l3, t0, t1, ..] = octets.first_chunk::<16>()?;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = octets.get(16..len)?;
        match u16::from_ne_bytes([t0, t1]) {
            BY_FAMILY if is_bound_to(payload, link)? => return Some(Found::Bound),
            BY_FAMILY => {}
            kind if kind == libc::NLMSG_DONE as u16 => return Some(Found::End),
            _ => return None,
        }
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Found::More)
}

fn is_bound_to(payload: &[u8], link: u32) -> Option<bool> {
    for attribute in NlasIterator::new(payload.get(ANSWER_LEN..)?) {
        let attribute = attribute.ok()?;
        if attribute.kind() == PACKET_DIAG_INFO {
            // struct packet_diag_info begins with the link's number.
            let index = attribute.value().first_chunk().copied()?;
            return Some(u32::from_ne_bytes(index) == link);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut octets = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend([0; 10]);
        octets.extend(payload);
        octets
    }

    fn socket(link: u32) -> Vec<u8> {
        let mut payload = vec![17, 3, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(28_u16.to_ne_bytes());
        payload.extend([0; 2]);
        payload.extend(link.to_ne_bytes());
        payload.extend([0; 20]);
        message(BY_FAMILY, &payload)
    }

    #[test]
    fn only_a_socket_of_that_link_counts() {
        let done = message(3, &[0; 4]);
        assert_eq!(read(&[socket(1), socket(2)].concat(), 2), Some(Found::Bound));
        assert_eq!(read(&[socket(1), socket(3)].concat(), 2), Some(Found::More));
        assert_eq!(read(&[socket(1), done].concat(), 2), Some(Found::End));
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        for octets in [&socket(2)[..40], &[1, 2, 3], &message(2, &[0xea, 0xff, 0xff, 0xff])] {
            assert_eq!(read(octets, 2), None, "{octets:?}");
        }
    }
}
