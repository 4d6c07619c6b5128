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

/// A packet from the namespace, as far as we act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Someone asks.
    Request(Request),
    /// Someone has `sender`, and says so, asked or not.
    Reply {
        /// Where it is.
        sender_mac: MacAddr,
        /// The address that it has.
        sender: Ipv4Addr,
    },
    /// Anything else.
    Other,
}

/// Reads an ARP packet; trailing padding is ignored.
///
/// # Errors
///
/// [`Malformed`] if it is cut short, not for IPv4 on Ethernet, or a request or reply sent by a group.
pub fn parse(octets: &[u8]) -> Result<Message, Malformed> {
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
    let sender_mac = || MacAddr::try_from(*sender_mac).map_err(|_| Malformed);
    let (sender, target) = ((*sender).into(), (*target).into());
    match u16::from_be_bytes(*operation) {
        REQUEST => Ok(Message::Request(Request { sender_mac: sender_mac()?, sender, target })),
        REPLY => Ok(Message::Reply { sender_mac: sender_mac()?, sender }),
        _ => Ok(Message::Other),
    }
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

    const MAC: MacAddr = MacAddr::OURS_BY_DEFAULT;
    const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    #[test]
    fn request_and_its_reply_read_back() {
        let asked = Request { sender_mac: MAC, sender: HERE, target: THERE };
        assert_eq!(parse(&request(MAC, HERE, THERE)), Ok(Message::Request(asked)));
        let mac = MacAddr::try_from([2, 0, 0, 0, 0, 1]).unwrap();
        let answer = reply(&asked, mac);
        assert_eq!(parse(&answer), Ok(Message::Reply { sender_mac: mac, sender: THERE }));
        assert_eq!(&answer[24..28], &HERE.octets());
    }

    #[test]
    fn other_operations_are_told_apart() {
        let mut octets = request(MAC, HERE, THERE);
        for operation in [0, 3, 8, 255] {
            octets[7] = operation;
            assert_eq!(parse(&octets), Ok(Message::Other), "{operation}");
        }
    }

    #[test]
    fn other_hardware_groups_and_cut_packets_are_refused() {
        let good = request(MAC, HERE, THERE);
        assert_eq!(parse(&good[..LEN - 1]), Err(Malformed));
        let mut octets = good;
        octets[1] = 6;
        assert_eq!(parse(&octets), Err(Malformed));
        for operation in [REQUEST, REPLY] {
            let mut octets = good;
            octets[7] = operation as u8;
            octets[8] |= 1;
            assert_eq!(parse(&octets), Err(Malformed), "{operation}");
        }
    }
}
