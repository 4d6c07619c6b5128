//! DHCPv6 messages (RFC 8415, section 8; options in section 21): a view of a client's, and a writer of ours.

use super::{Malformed, take_u16};
use crate::part::part;
use std::net::Ipv6Addr;

/// Port of the server.
pub const SERVER_PORT: u16 = 547;
/// Port of the client.
pub const CLIENT_PORT: u16 = 546;
/// The group of all servers and relays on the link.
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Longest message that we send: what fits a packet of the smallest MTU that IPv6 has, with a UDP header.
pub const MAX_REPLY: usize = 1280 - 40 - 8;

/// Longest DUID in octets, type included (RFC 8415, section 11.1).
const MAX_DUID: usize = 130;

/// Codes of options.
pub mod code {
    /// Client identifier.
    pub const CLIENT_ID: u16 = 1;
    /// Server identifier.
    pub const SERVER_ID: u16 = 2;
    /// Identity association for addresses.
    pub const IA_NA: u16 = 3;
    /// Identity association for temporary addresses.
    pub const IA_TA: u16 = 4;
    /// Address of an association.
    pub const IA_ADDRESS: u16 = 5;
    /// Preference of a server.
    pub const PREFERENCE: u16 = 7;
    /// Status code.
    pub const STATUS: u16 = 13;
    /// Rapid commit.
    pub const RAPID_COMMIT: u16 = 14;
    /// Recursive name servers (RFC 3646).
    pub const DNS: u16 = 23;
    /// Domain search list (RFC 3646).
    pub const DOMAIN_SEARCH: u16 = 24;
    /// Identity association for prefixes.
    pub const IA_PD: u16 = 25;
    /// When a client without lease asks again.
    pub const REFRESH_TIME: u16 = 32;
    /// Client's fully qualified domain name (RFC 4704).
    pub const CLIENT_FQDN: u16 = 39;
}

/// What a message is (RFC 8415, section 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// A client looks for servers.
    Solicit,
    /// A server offers a lease.
    Advertise,
    /// A client takes one.
    Request,
    /// A client asks whether its addresses are right for the link.
    Confirm,
    /// A client extends its lease with its server.
    Renew,
    /// The same with any server.
    Rebind,
    /// A server answers.
    Reply,
    /// A client gives its lease back.
    Release,
    /// A client has found an address to be in use.
    Decline,
    /// A client without lease asks for the rest.
    InformationRequest,
    /// Anything else.
    Other(u8),
}

impl From<u8> for MessageType {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Solicit,
            2 => Self::Advertise,
            3 => Self::Request,
            4 => Self::Confirm,
            5 => Self::Renew,
            6 => Self::Rebind,
            7 => Self::Reply,
            8 => Self::Release,
            9 => Self::Decline,
            11 => Self::InformationRequest,
            other => Self::Other(other),
        }
    }
}

/// What a server says of a request (RFC 8415, section 21.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// All is well.
    Success = 0,
    /// There is no address.
    NoAddresses = 2,
    /// An address is not right for the link.
    NotOnLink = 4,
    /// There is no prefix.
    NoPrefix = 6,
}

/// A message of a client. Holding one is proof that every option ends inside of it, and so do the options
/// inside of associations, which are as long as they have to be.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What it is.
    pub kind: MessageType,
    /// Transaction.
    pub xid: [u8; 3],
    options: Options<'a>,
}

/// Options that were checked.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (code, value, rest) = split_option(self.0).ok()?;
        self.0 = rest;
        Some((code, value))
    }
}

impl<'a> Options<'a> {
    /// Checks that every option fits.
    fn check(octets: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = octets;
        while !rest.is_empty() {
            (_, _, rest) = split_option(rest)?;
        }
        Ok(Self(octets))
    }
}

/// Takes one option off the front: code, value, and the rest.
fn split_option(octets: &[u8]) -> Result<(u16, &[u8], &[u8]), Malformed> {
    let (code, rest) = take_u16(octets).ok_or(Malformed)?;
    let (len, rest) = take_u16(rest).ok_or(Malformed)?;
    let (value, rest) = rest.split_at_checked(usize::from(len)).ok_or(Malformed)?;
    Ok((code, value, rest))
}

/// An association of a client: addresses or prefixes that it has or wants.
#[derive(Clone, Copy, Debug)]
pub struct Association<'a> {
    /// The option that it is.
    pub code: u16,
    /// Which of the client's.
    pub id: [u8; 4],
    options: Options<'a>,
}

impl<'a> Association<'a> {
    fn parse(code: u16, value: &'a [u8]) -> Result<Self, Malformed> {
        let (id, rest) = value.split_first_chunk::<4>().ok_or(Malformed)?;
        let options = match code {
            // Two times are in front.
            code::IA_NA | code::IA_PD => rest.split_first_chunk::<8>().ok_or(Malformed)?.1,
            _ => rest,
        };
        let association = Self { code, id: *id, options: Options::check(options)? };
        let addresses = association.options.filter(|(code, _)| *code == code::IA_ADDRESS);
        // An address and two times.
        let fits = addresses.map(|(_, value)| value.len()).all(|len| len >= 24);
        if fits { Ok(association) } else { Err(Malformed) }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        let of = |(code, value): (u16, &[u8])| {
            let (address, _) = value.split_first_chunk::<16>()?;
            (code == code::IA_ADDRESS).then_some(Ipv6Addr::from(*address))
        };
        self.options.filter_map(of)
    }
}

impl<'a> Message<'a> {
    /// Reads the UDP payload `octets`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is cut short, an option or one inside an association does not fit, or an
    /// identifier is longer than may be.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Malformed> {
        let (&[kind, ref xid @ ..], options) = octets.split_first_chunk::<4>().ok_or(Malformed)?;
        let options = Options::check(options)?;
        for (code, value) in options {
            match code {
                code::CLIENT_ID | code::SERVER_ID if !(2..=MAX_DUID).contains(&value.len()) => {
                    return Err(Malformed);
                }
                code::IA_NA | code::IA_TA | code::IA_PD => {
                    Association::parse(code, value)?;
                }
                _ => {}
            }
        }
        Ok(Self { kind: kind.into(), xid: *xid, options })
    }

    /// The value of the first option `code`.
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        { self.options }.find(|(it, _)| *it == code).map(|(_, value)| value)
    }

    /// Its associations, of whatever kind, in their order.
    pub fn associations(&self) -> impl Iterator<Item = Association<'a>> {
        let of = |(code, value)| match code {
            code::IA_NA | code::IA_TA | code::IA_PD => Association::parse(code, value).ok(),
            _ => None,
        };
        self.options.filter_map(of)
    }

    /// The addresses in all of its associations.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        let inside = |it: (u16, &'a [u8])| match it {
            (code::IA_NA | code::IA_TA, value) => Association::parse(it.0, value).ok(),
            _ => None,
        };
        let of = |(code, value): (u16, &[u8])| {
            let (address, _) = value.split_first_chunk::<16>()?;
            (code == code::IA_ADDRESS).then_some(Ipv6Addr::from(*address))
        };
        self.options.filter_map(inside).flat_map(move |it| it.options.filter_map(of))
    }
}

/// A message being written.
#[derive(Debug)]
pub struct Reply {
    octets: [u8; MAX_REPLY],
    len: usize,
}

/// An association being written: what follows is inside of it.
#[derive(Debug)]
pub struct Open(usize);

impl Reply {
    /// One without options, of the transaction `xid`.
    pub fn new(kind: MessageType, xid: [u8; 3]) -> Self {
        let kind = match kind {
            MessageType::Advertise => 2,
            _ => 7,
        };
        let mut reply = Self { octets: [0; MAX_REPLY], len: 0 };
        reply.push(&[&[kind], &xid]);
        reply
    }

    fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            let room = self.octets.iter_mut().skip(self.len);
            room.zip(*part).for_each(|(to, from)| *to = *from);
            self.len += part.len();
        }
    }

    /// Adds an option whose value is `parts`; false if it does not fit.
    pub fn option(&mut self, code: u16, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|it| it.len()).sum();
        let Ok(value_len) = u16::try_from(len) else { return false };
        if self.len + 4 + len > MAX_REPLY {
            return false;
        }
        self.push(&[&code.to_be_bytes(), &value_len.to_be_bytes()]);
        self.push(parts);
        true
    }

    /// Adds what the server says.
    pub fn status(&mut self, status: Status) -> bool {
        self.option(code::STATUS, &[&(status as u16).to_be_bytes()])
    }

    /// Begins the answer to `association`, with its two times where it has some; none if even that does
    /// not fit.
    pub fn open(&mut self, association: &Association<'_>, times: [u32; 2]) -> Option<Open> {
        let [t1, t2] = times.map(u32::to_be_bytes);
        let start = self.len;
        let Association { code, id, .. } = association;
        let fits = match *code {
            code::IA_TA => self.option(*code, &[id]),
            _ => self.option(*code, &[id, &t1, &t2]),
        };
        fits.then_some(Open(start))
    }

    /// Adds an address that may be used for so many seconds.
    pub fn address(&mut self, address: Ipv6Addr, preferred: u32, valid: u32) -> bool {
        let (preferred, valid) = (preferred.to_be_bytes(), valid.to_be_bytes());
        self.option(code::IA_ADDRESS, &[&address.octets(), &preferred, &valid])
    }

    /// Ends an association.
    pub fn close(&mut self, Open(start): Open) {
        // Less than the longest message.
        let len = (self.len - start - 4) as u16;
        let field = self.octets.iter_mut().skip(start + 2).zip(len.to_be_bytes());
        field.for_each(|(to, from)| *to = from);
    }

    /// The whole message.
    pub fn octets(&self) -> &[u8] {
        part(&self.octets, ..self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &[u8] = &[0, 1, 0, 4, 0, 3, 0, 1];
    /// An association with the address ::7.
    const ASSOCIATION: &[u8] = &[
        0, 3, 0, 40, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2,
    ];

    fn message(options: &[&[u8]]) -> Vec<u8> {
        [&[1, 9, 8, 7][..], &options.concat()].concat()
    }

    #[test]
    fn message_is_read() {
        let octets = message(&[CLIENT, ASSOCIATION, &[0, 14, 0, 0]]);
        let message = Message::parse(&octets).unwrap();
        assert_eq!((message.kind, message.xid), (MessageType::Solicit, [9, 8, 7]));
        assert_eq!(message.option(code::CLIENT_ID), Some(&[0, 3, 0, 1][..]));
        assert_eq!(message.option(code::SERVER_ID), None);
        assert_eq!(message.option(code::RAPID_COMMIT), Some(&[][..]));
        let associations: Vec<_> = message.associations().collect();
        assert_eq!((associations[0].code, associations[0].id), (code::IA_NA, [1, 2, 3, 4]));
        assert_eq!(associations.len(), 1);
        let address = Ipv6Addr::from(7);
        assert_eq!(associations[0].addresses().collect::<Vec<_>>(), [address]);
        assert_eq!(message.addresses().collect::<Vec<_>>(), [address]);
    }

    #[test]
    fn every_cut_into_an_option_is_refused() {
        let octets = message(&[CLIENT, ASSOCIATION]);
        for len in 0..octets.len() {
            let whole = [4, 4 + CLIENT.len()].contains(&len);
            assert_eq!(Message::parse(&octets[..len]).is_ok(), whole, "{len} octets");
        }
    }

    #[test]
    fn associations_are_checked_inside_and_identifiers_for_their_length() {
        // The address claims more and less than there is.
        for (at, value) in [(19, 25), (19, 23), (3, 11), (3, 3)] {
            let mut association = ASSOCIATION.to_vec();
            association[at] = value;
            association.truncate(4 + usize::from(association[3]));
            assert!(Message::parse(&message(&[&association])).is_err(), "{at} {value}");
        }
        for (len, good) in [(0, false), (1, false), (2, true), (130, true), (131, false)] {
            for code in [1, 2] {
                let id = [vec![0, code, 0, len], vec![7; usize::from(len)]].concat();
                assert_eq!(Message::parse(&message(&[&id])).is_ok(), good, "{len}");
            }
        }
    }

    #[test]
    fn reply_reads_back() {
        let octets = message(&[ASSOCIATION]);
        let association = Message::parse(&octets).unwrap().associations().next().unwrap();
        let mut reply = Reply::new(MessageType::Reply, [9, 8, 7]);
        assert!(reply.option(code::CLIENT_ID, &[&[0, 3], &[0, 1]]));
        let open = reply.open(&association, [0, 0]).unwrap();
        assert!(reply.address(Ipv6Addr::from(7), 1, 2));
        reply.close(open);
        let mut wanted = message(&[CLIENT, ASSOCIATION]);
        wanted[0] = 7;
        assert_eq!(reply.octets(), wanted);
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut reply = Reply::new(MessageType::Advertise, [0; 3]);
        assert!(!reply.option(24, &[&[1; MAX_REPLY - 7]]));
        assert!(reply.option(24, &[&[1; MAX_REPLY - 8]]));
        assert!(!reply.status(Status::Success));
        assert_eq!((reply.octets().len(), reply.octets()[0]), (MAX_REPLY, 2));
    }
}
