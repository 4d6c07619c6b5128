//! ARP for IPv4 on Ethernet (RFC 826).

use super::Malformed;
use pasta_ipc::types::MacAddr;
use std::net::Ipv4Addr;

/// Length of a packet.
pub const LEN: usize = 28;

/// Hardware Ethernet, protocol IPv4, address lengths 6 and 4.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Someone asks who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub sender_mac: MacAddr,
    /// The asker's address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The address asked for.
    pub target: Ipv4Addr,
}

/// Reads an ARP packet; trailing padding is ignored. Anything but a request is `None`.
///
/// # Errors
///
/// [`Malformed`] if it is cut short, not for IPv4 on Ethernet, or sent by a group.
pub fn parse(octets: &[u8]) -> Result<Option<Request>, Malformed> {
    let (packet, _padding) = octets.split_first_chunk::<LEN>().ok_or(Malformed)?;
    let (fixed, rest) = packet.split_first_chunk::<6>().ok_or(Malformed)?;
    let (operation, rest) = rest.split_first_chunk::<2>().ok_or(Malformed)?;
    let (sender_mac, rest) = rest.split_first_chunk::<6>().ok_or(Malformed)?;
    let (sender, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let (_target_mac, rest) = rest.split_first_chunk::<6>().ok_or(Malformed)?;
    let (target, _) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    if *fixed != FIXED {
        return Err(Malformed);
    }
    if u16::from_be_bytes(*operation) != REQUEST {
        return Ok(None);
    }
    let sender_mac = MacAddr::try_from(*sender_mac).map_err(|_| Malformed)?;
    Ok(Some(Request { sender_mac, sender: (*sender).into(), target: (*target).into() }))
}

fn packet(operation: u16, from: (MacAddr, Ipv4Addr), to: ([u8; 6], Ipv4Addr)) -> [u8; LEN] {
    let mut octets = [0; LEN];
    let parts: [&[u8]; 6] = [
        &FIXED,
        &operation.to_be_bytes(),
        &from.0.octets(),
        &from.1.octets(),
        &to.0,
        &to.1.octets(),
    ];
    let filled = octets.iter_mut().zip(parts.into_iter().flatten());
    filled.for_each(|(octet, value)| *octet = *value);
    octets
}

/// The answer to `request`: what it asked for is at `mac`.
pub fn reply(request: &Request, mac: MacAddr) -> [u8; LEN] {
    packet(REPLY, (mac, request.target), (request.sender_mac.octets(), request.sender))
}

/// A request from `mac` at `sender` for `target`.
pub fn request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; LEN] {
    packet(REQUEST, (mac, sender), ([0; 6], target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_reads_back_and_reply_is_no_request() {
        let mac = MacAddr::OURS_BY_DEFAULT;
        let (sender, target) = (Ipv4Addr::new(192, 0, 2, 7), Ipv4Addr::new(192, 0, 2, 1));
        let asked = parse(&request(mac, sender, target)).unwrap().unwrap();
        assert_eq!(asked, Request { sender_mac: mac, sender, target });
        let answer = reply(&asked, mac);
        assert_eq!(parse(&answer), Ok(None));
        assert_eq!(&answer[14..18], &target.octets());
        assert_eq!(&answer[24..28], &sender.octets());
    }

    #[test]
    fn other_hardware_and_cut_packets_are_refused() {
        let mut octets =
            request(MacAddr::OURS_BY_DEFAULT, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
        assert_eq!(parse(&octets[..LEN - 1]), Err(Malformed));
        octets[1] = 6;
        assert_eq!(parse(&octets), Err(Malformed));
    }
}
