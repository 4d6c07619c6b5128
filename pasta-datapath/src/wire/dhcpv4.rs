//! DHCP messages (RFC 2131, section 2; options of RFC 2132): a view of a client's, and a writer of ours.
//!
//! Of a message that says options go on in the fields `file` and `sname` (option 52) those are not read:
//! nothing that a client has to say needs them. Of an option that comes more than once the first counts.

use super::{Malformed, take_u16};
use crate::part::part;
use std::net::Ipv4Addr;

/// Length of the part that every message has, without the magic cookie.
const FIXED_LEN: usize = 236;
/// What options begin with (RFC 2131, section 3).
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Port of the server.
pub const SERVER_PORT: u16 = 67;
/// Port of the client.
pub const CLIENT_PORT: u16 = 68;

/// Shortest reply: what BOOTP has (RFC 1542, section 2.1).
pub const MIN_REPLY: usize = 300;
/// Longest reply to a client that says nothing of how much it takes: 576 octets with IP and UDP headers
/// (RFC 2131, section 2).
pub const USUAL_REPLY: usize = 576 - 28;
/// Longest reply of all: one frame of Ethernet, whatever else a client would take.
pub const MAX_REPLY: usize = 1500 - 28;

/// A client may not know its address yet: answers go to everybody (RFC 2131, section 2).
const BROADCAST_FLAG: u16 = 0x8000;

/// Codes of options.
pub mod code {
    /// Fills up.
    pub const PAD: u8 = 0;
    /// Subnet mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Router.
    pub const ROUTER: u8 = 3;
    /// Domain name servers.
    pub const DNS: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// Interface MTU.
    pub const MTU: u8 = 26;
    /// Requested IP address.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// IP address lease time.
    pub const LEASE_TIME: u8 = 51;
    /// DHCP message type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Server identifier.
    pub const SERVER_ID: u8 = 54;
    /// Parameter request list.
    pub const PARAMETER_LIST: u8 = 55;
    /// Maximum DHCP message size.
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    /// Renewal (T1) time.
    pub const RENEWAL_TIME: u8 = 58;
    /// Rebinding (T2) time.
    pub const REBINDING_TIME: u8 = 59;
    /// Vendor class identifier.
    pub const VENDOR_CLASS: u8 = 60;
    /// Client identifier.
    pub const CLIENT_ID: u8 = 61;
    /// Rapid commit (RFC 4039).
    pub const RAPID_COMMIT: u8 = 80;
    /// Client's fully qualified domain name (RFC 4702).
    pub const CLIENT_FQDN: u8 = 81;
    /// Relay agent information (RFC 3046).
    pub const RELAY_AGENT: u8 = 82;
    /// Domain search (RFC 3397).
    pub const DOMAIN_SEARCH: u8 = 119;
    /// Classless static routes (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// Nothing follows.
    pub const END: u8 = 255;
}

/// What a message is (RFC 2132, section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// A client looks for servers.
    Discover,
    /// A server offers a lease.
    Offer,
    /// A client takes, confirms or extends a lease.
    Request,
    /// A client has found an address to be in use.
    Decline,
    /// A server grants a lease.
    Ack,
    /// A server refuses one.
    Nak,
    /// A client gives a lease back.
    Release,
    /// A client that has an address asks for the rest.
    Inform,
    /// Anything else.
    Other(u8),
}

impl From<u8> for MessageType {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            other => Self::Other(other),
        }
    }
}

impl From<MessageType> for u8 {
    fn from(kind: MessageType) -> Self {
        match kind {
            MessageType::Discover => 1,
            MessageType::Offer => 2,
            MessageType::Request => 3,
            MessageType::Decline => 4,
            MessageType::Ack => 5,
            MessageType::Nak => 6,
            MessageType::Release => 7,
            MessageType::Inform => 8,
            MessageType::Other(number) => number,
        }
    }
}

/// A client's message. Holding one is proof that it is a request from Ethernet, and that every option ends
/// inside of it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What an answer repeats.
    pub echo: Echo,
    options: &'a [u8],
}

/// What an answer repeats of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Transaction.
    pub xid: [u8; 4],
    /// Flags.
    pub flags: u16,
    /// The client's address, if it has one and can be reached at it.
    pub client: Ipv4Addr,
    /// The relay that passed the message on, if any did.
    pub relay: Ipv4Addr,
    /// The client's hardware address.
    pub hardware: [u8; 6],
}

impl Echo {
    /// Whether answers go to everybody.
    pub fn wants_broadcast(&self) -> bool {
        self.flags & BROADCAST_FLAG != 0
    }

    /// The same, with answers to everybody.
    #[must_use]
    pub fn to_everybody(self) -> Self {
        Self { flags: self.flags | BROADCAST_FLAG, ..self }
    }
}

impl<'a> Message<'a> {
    /// Reads the UDP payload `octets`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is cut short, no request, not from Ethernet, or an option does not fit.
    pub fn parse(octets: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, options) = octets.split_first_chunk::<FIXED_LEN>().ok_or(Malformed)?;
        let options = options.strip_prefix(&MAGIC_COOKIE).ok_or(Malformed)?;
        let ([op, hardware_type, hardware_len, _hops, xid @ .., _, _], rest) =
            fixed.split_first_chunk::<10>().ok_or(Malformed)?;
        if (*op, *hardware_type, *hardware_len) != (1, 1, 6) {
            return Err(Malformed);
        }
        let (flags, rest) = take_u16(rest).ok_or(Malformed)?;
        let (client, rest) = take_address(rest).ok_or(Malformed)?;
        let (_yours, rest) = take_address(rest).ok_or(Malformed)?;
        let (_next_server, rest) = take_address(rest).ok_or(Malformed)?;
        let (relay, rest) = take_address(rest).ok_or(Malformed)?;
        let (hardware, _) = rest.split_first_chunk::<6>().ok_or(Malformed)?;
        let mut rest = options;
        while let Some((_, more)) = split_option(rest)? {
            rest = more;
        }
        let echo = Echo { xid: *xid, flags, client, relay, hardware: *hardware };
        Ok(Self { echo, options })
    }

    /// The options in their order.
    pub fn options(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            // They were checked when the message was read.
            let (option, more) = split_option(rest).ok().flatten()?;
            rest = more;
            Some(option)
        })
    }

    /// The value of the option `code`.
    pub fn option(&self, code: u8) -> Option<&'a [u8]> {
        self.options().find(|(it, _)| *it == code).map(|(_, value)| value)
    }

    /// What kind of message it is; none: BOOTP's.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the option is not one octet.
    pub fn kind(&self) -> Result<Option<MessageType>, Malformed> {
        match self.option(code::MESSAGE_TYPE) {
            None => Ok(None),
            Some([number]) => Ok(Some(MessageType::from(*number))),
            Some(_) => Err(Malformed),
        }
    }

    /// The address in the option `code`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the option is not four octets.
    pub fn address(&self, code: u8) -> Result<Option<Ipv4Addr>, Malformed> {
        let Some(value) = self.option(code) else { return Ok(None) };
        let octets = <[u8; 4]>::try_from(value).map_err(|_| Malformed)?;
        Ok(Some(Ipv4Addr::from(octets)))
    }

    /// Seconds that the client wants a lease to last, if it says so.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the option is not four octets.
    pub fn lease(&self) -> Result<Option<u32>, Malformed> {
        Ok(self.address(code::LEASE_TIME)?.map(u32::from))
    }

    /// Longest message that the client takes, in octets of UDP payload.
    pub fn largest_reply(&self) -> usize {
        let stated = self.option(code::MAX_MESSAGE_SIZE).and_then(take_u16);
        let stated = stated.map_or(0, |(size, _)| usize::from(size).saturating_sub(28));
        stated.clamp(USUAL_REPLY, MAX_REPLY)
    }
}

fn take_address(octets: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let (head, rest) = octets.split_first_chunk::<4>()?;
    Some((Ipv4Addr::from(*head), rest))
}

type Split<'a> = Option<((u8, &'a [u8]), &'a [u8])>;

/// Takes one option off the front: code, length, value. None at the end, which not every client marks.
fn split_option(mut octets: &[u8]) -> Result<Split<'_>, Malformed> {
    while let [code::PAD, rest @ ..] = octets {
        octets = rest;
    }
    match octets {
        [] | [code::END, ..] => Ok(None),
        [code, len, rest @ ..] => {
            let (value, rest) = rest.split_at_checked(usize::from(*len)).ok_or(Malformed)?;
            Ok(Some(((*code, value), rest)))
        }
        [_] => Err(Malformed),
    }
}

/// A reply being written: the fixed part is there, options follow.
#[derive(Debug)]
pub struct Reply {
    octets: [u8; MAX_REPLY],
    len: usize,
    limit: usize,
}

impl Reply {
    /// An answer to what `echo` is of, that gives the client the address `yours`; at most `limit` octets.
    pub fn new(echo: &Echo, yours: Ipv4Addr, limit: usize) -> Self {
        let (len, limit) = (0, limit.min(MAX_REPLY));
        let mut reply = Self { octets: [0; MAX_REPLY], len, limit };
        let flags = echo.flags.to_be_bytes();
        let (client, yours, relay) = (echo.client.octets(), yours.octets(), echo.relay.octets());
        // Reply, Ethernet, its address length, no hops; no seconds; no next server.
        let parts: [&[u8]; 9] = [
            &[2, 1, 6, 0],
            &echo.xid,
            &[0, 0],
            &flags,
            &client,
            &yours,
            &[0; 4],
            &relay,
            &echo.hardware,
        ];
        parts.into_iter().for_each(|it| reply.push(it));
        reply.len = FIXED_LEN;
        reply.push(&MAGIC_COOKIE);
        reply
    }

    fn push(&mut self, part: &[u8]) {
        let room = self.octets.iter_mut().skip(self.len);
        room.zip(part).for_each(|(to, from)| *to = *from);
        self.len += part.len();
    }

    /// Adds an option, one with more than 255 octets in parts (RFC 3396); false if it does not fit.
    pub fn option(&mut self, code: u8, value: &[u8]) -> bool {
        let parts = value.len().div_ceil(255).max(1);
        // One octet is left for the end.
        if self.len + 2 * parts + value.len() + 1 > self.limit {
            return false;
        }
        let mut rest = value;
        for _ in 0..parts {
            let (part, more) = rest.split_at_checked(255).unwrap_or((rest, &[]));
            // At most 255.
            self.push(&[code, part.len() as u8]);
            self.push(part);
            rest = more;
        }
        true
    }

    /// Adds an option that is to be the last, behind all that `others` adds; false if it does not fit.
    pub fn last_option(
        &mut self,
        code: u8,
        value: Option<&[u8]>,
        others: impl FnOnce(&mut Self),
    ) -> bool {
        let Some(value) = value else {
            others(self);
            return true;
        };
        let whole = self.limit;
        // Of a client's message, hence in one part.
        self.limit = whole.saturating_sub(2 + value.len());
        others(self);
        self.limit = whole;
        self.option(code, value)
    }

    /// Ends the options; gives the whole message.
    pub fn finish(&mut self) -> &[u8] {
        // Options leave room for it.
        self.octets.iter_mut().skip(self.len).take(1).for_each(|it| *it = code::END);
        part(&self.octets, ..(self.len + 1).max(MIN_REPLY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's message with these options.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; FIXED_LEN];
        octets[..4].copy_from_slice(&[1, 1, 6, 0]);
        octets[4..8].copy_from_slice(&[1, 2, 3, 4]);
        octets[10] = 0x80;
        octets[12..16].copy_from_slice(&[192, 0, 2, 7]);
        octets[24..28].copy_from_slice(&[192, 0, 2, 9]);
        octets[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        octets.extend(MAGIC_COOKIE);
        octets.extend(options);
        octets
    }

    #[test]
    fn message_is_read() {
        let octets = message(&[53, 1, 3, 0, 0, 50, 4, 192, 0, 2, 8, 255, 1]);
        let message = Message::parse(&octets).unwrap();
        let echo = message.echo;
        assert_eq!((echo.xid, echo.wants_broadcast()), ([1, 2, 3, 4], true));
        assert_eq!((echo.client, echo.relay), ([192, 0, 2, 7].into(), [192, 0, 2, 9].into()));
        assert_eq!(echo.hardware, [2, 0, 0, 0, 0, 1]);
        assert_eq!(message.kind(), Ok(Some(MessageType::Request)));
        assert_eq!(message.address(code::REQUESTED_ADDRESS), Ok(Some([192, 0, 2, 8].into())));
        assert_eq!(message.address(code::SERVER_ID), Ok(None));
        assert_eq!(message.options().count(), 2);
    }

    #[test]
    fn every_cut_into_the_fixed_part_or_an_option_is_refused() {
        let octets = message(&[53, 1, 3, 50, 4, 192, 0, 2, 8]);
        for len in 0..octets.len() {
            let whole = [FIXED_LEN + 4, FIXED_LEN + 7].contains(&len);
            assert_eq!(Message::parse(&octets[..len]).is_ok(), whole, "{len} octets");
        }
    }

    #[test]
    fn replies_other_links_and_missing_cookies_are_refused() {
        for at in [0, 1, 2, FIXED_LEN] {
            let mut octets = message(&[53, 1, 3, 255]);
            octets[at] ^= 3;
            assert!(Message::parse(&octets).is_err(), "octet {at}");
        }
    }

    #[test]
    fn values_of_a_wrong_length_are_malformed() {
        let octets = message(&[53, 2, 3, 3, 50, 3, 1, 2, 3, 57, 1, 9, 255]);
        let message = Message::parse(&octets).unwrap();
        assert_eq!(message.kind(), Err(Malformed));
        assert_eq!(message.address(code::REQUESTED_ADDRESS), Err(Malformed));
        assert_eq!(message.largest_reply(), USUAL_REPLY);
    }

    #[test]
    fn clients_say_how_much_they_take() {
        for (stated, taken) in
            [(0, USUAL_REPLY), (576, USUAL_REPLY), (1000, 972), (65535, MAX_REPLY)]
        {
            let [high, low] = u16::to_be_bytes(stated);
            let octets = message(&[57, 2, high, low, 255]);
            assert_eq!(Message::parse(&octets).unwrap().largest_reply(), taken);
        }
    }

    #[test]
    fn reply_repeats_what_it_must_and_nothing_else() {
        let octets = message(&[]);
        let echo = Message::parse(&octets).unwrap().echo;
        let mut reply = Reply::new(&echo, [192, 0, 2, 8].into(), USUAL_REPLY);
        assert!(reply.option(code::MESSAGE_TYPE, &[5]));
        let mut wanted = octets.clone();
        wanted[0] = 2;
        wanted[16..20].copy_from_slice(&[192, 0, 2, 8]);
        wanted.extend([53, 1, 5, 255]);
        wanted.resize(MIN_REPLY, 0);
        assert_eq!(reply.finish(), wanted);
    }

    #[test]
    fn long_options_are_split_and_those_that_do_not_fit_are_left_out() {
        let echo = Message::parse(&message(&[])).unwrap().echo;
        let mut reply = Reply::new(&echo, Ipv4Addr::UNSPECIFIED, USUAL_REPLY);
        assert!(!reply.option(119, &[7; 304]), "{}", reply.len);
        assert!(reply.option(119, &[7; 303]));
        assert!(!reply.option(1, &[]));
        let octets = reply.finish();
        assert_eq!(octets.len(), USUAL_REPLY);
        assert_eq!(octets[240..242], [119, 255]);
        assert_eq!(octets[240 + 257..240 + 259], [119, 48]);
        assert_eq!(octets.last(), Some(&255));
    }
}
