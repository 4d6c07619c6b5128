//! ICMP (RFC 792), ICMPv6 (RFC 4443), neighbour solicitation and advertisement, router solicitation
//! (RFC 4861): the messages we take and those we make. Router advertisements have a file of their own.

use super::checksum::{Sum, pseudo_header};
use super::ip::PROTOCOL_ICMPV6;
use super::{Malformed, take_u16};
use pasta_ipc::types::{Family, MacAddr};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Length of the part that every message has: type, code, checksum and four octets more.
pub const LEN: usize = 8;

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const UNREACHABLE_V6: u8 = 1;
const TOO_BIG_V6: u8 = 2;
const TIME_EXCEEDED_V6: u8 = 3;
const PARAMETER_PROBLEM_V6: u8 = 4;

/// Code of [`UNREACHABLE`]: the packet does not fit, and may not be fragmented.
const FRAGMENTATION_NEEDED: u8 = 4;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Options of neighbour discovery (RFC 4861, section 4.6.1).
pub(super) const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// The advertisement answers a solicitation (RFC 4861, section 4.4): first octet behind the checksum.
const SOLICITED: u8 = 0x40;

/// A message from the namespace, as far as we act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Someone pings.
    EchoRequest {
        /// Which program's.
        id: u16,
        /// Sequence number and payload: all that follows the identifier.
        body: &'a [u8],
    },
    /// Someone asks for the link-layer address of `target`.
    NeighbourSolicitation {
        /// The address asked for.
        target: Ipv6Addr,
    },
    /// Someone asks for routers.
    RouterSolicitation,
    /// Someone has `target`, and says so, asked or not.
    NeighbourAdvertisement {
        /// The address that it has.
        target: Ipv6Addr,
        /// Where it is, if that is said.
        mac: Option<MacAddr>,
    },
    /// A packet did not arrive.
    Error {
        /// Why.
        error: Error,
        /// Its front.
        quote: &'a [u8],
    },
    /// Anything else.
    Other,
}

/// Reads an ICMP message and verifies its checksum.
///
/// # Errors
///
/// [`Malformed`].
pub fn parse_v4(octets: &[u8]) -> Result<Message<'_>, Malformed> {
    if Sum::default().octets(octets).folded() != 0xffff {
        return Err(Malformed);
    }
    let (&[kind, code, _, _], rest) = octets.split_first_chunk::<4>().ok_or(Malformed)?;
    match (kind, code) {
        (ECHO_REQUEST, 0) => echo_request(rest),
        // The next hop's MTU is in the lower half (RFC 1191, section 4).
        (UNREACHABLE, FRAGMENTATION_NEEDED) => error((kind, code), 0xffff, rest),
        (UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, _) => error((kind, code), 0, rest),
        _ => Ok(Message::Other),
    }
}

/// Reads an ICMPv6 message and verifies its checksum.
///
/// # Errors
///
/// [`Malformed`]; also for a solicitation or an advertisement that was forwarded, is about a group or
/// has options that do not fit (RFC 4861, sections 6.1.1, 7.1.1 and 7.1.2).
pub fn parse_v6(
    octets: &[u8],
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
) -> Result<Message<'_>, Malformed> {
    let len = u16::try_from(octets.len()).map_err(|_| Malformed)?;
    if pseudo_header(source, destination, PROTOCOL_ICMPV6, len).octets(octets).folded() != 0xffff {
        return Err(Malformed);
    }
    let (&[kind, code, _, _], rest) = octets.split_first_chunk::<4>().ok_or(Malformed)?;
    match (kind, code) {
        (ECHO_REQUEST_V6, 0) => echo_request(rest),
        (TOO_BIG_V6, _) => error((kind, code), u32::MAX, rest),
        (UNREACHABLE_V6 | TIME_EXCEEDED_V6 | PARAMETER_PROBLEM_V6, _) => {
            error((kind, code), 0, rest)
        }
        (NEIGHBOUR_SOLICITATION, 0) if hop_limit == 255 => {
            let Discovery { target, .. } = discovery(rest)?;
            Ok(Message::NeighbourSolicitation { target })
        }
        (NEIGHBOUR_ADVERTISEMENT, 0) if hop_limit == 255 => {
            let Discovery { flags, target, target_mac } = discovery(rest)?;
            if flags & SOLICITED != 0 && destination.is_multicast() {
                return Err(Malformed);
            }
            let mac = target_mac.map(MacAddr::try_from).transpose().map_err(|_| Malformed)?;
            Ok(Message::NeighbourAdvertisement { target, mac })
        }
        (ROUTER_SOLICITATION, 0) if hop_limit == 255 => {
            let (_reserved, mut options) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            while let Some((kind, _, more)) = split_option(options)? {
                if kind == SOURCE_LINK_LAYER_ADDRESS && source.is_unspecified() {
                    return Err(Malformed);
                }
                options = more;
            }
            Ok(Message::RouterSolicitation)
        }
        (ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT, _) => {
            Err(Malformed)
        }
        _ => Ok(Message::Other),
    }
}

/// What solicitations and advertisements have behind the checksum.
struct Discovery {
    flags: u8,
    target: Ipv6Addr,
    /// The last target link-layer address option of a length that Ethernet has.
    target_mac: Option<[u8; 6]>,
}

fn discovery(rest: &[u8]) -> Result<Discovery, Malformed> {
    let (&[flags, _, _, _], rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let (target, mut options) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
    let target = Ipv6Addr::from(*target);
    if target.is_multicast() {
        return Err(Malformed);
    }
    let mut target_mac = None;
    while let Some((kind, option, more)) = split_option(options)? {
        if let (TARGET_LINK_LAYER_ADDRESS, &[_, _, a, b, c, d, e, f]) = (kind, option) {
            target_mac = Some([a, b, c, d, e, f]);
        }
        options = more;
    }
    Ok(Discovery { flags, target, target_mac })
}

/// The type of an option, all of it, and the rest.
type Split<'a> = (u8, &'a [u8], &'a [u8]);

/// Takes one option of neighbour discovery off the front.
fn split_option(octets: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some((&kind, len_and_more)) = octets.split_first() else { return Ok(None) };
    let (&units, _) = len_and_more.split_first().ok_or(Malformed)?;
    let len = usize::from(units).checked_mul(8).filter(|len| *len > 0);
    let (option, more) = octets.split_at_checked(len.ok_or(Malformed)?).ok_or(Malformed)?;
    Ok(Some((kind, option, more)))
}

fn echo_request(rest: &[u8]) -> Result<Message<'_>, Malformed> {
    let (id, body) = take_u16(rest).ok_or(Malformed)?;
    if body.len() < 2 { Err(Malformed) } else { Ok(Message::EchoRequest { id, body }) }
}

/// An error, of whose value these bits are an MTU.
fn error((kind, code): (u8, u8), mtu: u32, rest: &[u8]) -> Result<Message<'_>, Malformed> {
    let (value, quote) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let value = u32::from_be_bytes(*value) & mtu;
    Ok(Message::Error { error: Error { kind, code, value }, quote })
}

/// Whether a message of this type is an error (RFC 1122, section 3.2.2; RFC 4443, section 2.1).
pub fn is_error(family: Family, kind: u8) -> bool {
    match family {
        // With "redirect" and "source quench".
        Family::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        Family::V6 => kind < 128,
    }
}

/// Whether `octets` are an echo reply as a ping socket delivers it; gives all after the identifier.
pub fn echo_reply_body(octets: &[u8]) -> Option<&[u8]> {
    let (&[kind, 0, _, _, _, _], body) = octets.split_first_chunk::<6>()? else { return None };
    matches!(kind, ECHO_REPLY | ECHO_REPLY_V6).then_some(body)
}

/// Whether `octets` are the front of an echo request as a ping socket has sent it; gives all after the identifier.
pub fn echo_request_body(octets: &[u8]) -> Option<&[u8]> {
    let (&[kind, 0, _, _, _, _], body) = octets.split_first_chunk::<6>()? else { return None };
    (matches!(kind, ECHO_REQUEST | ECHO_REQUEST_V6) && body.len() >= 2).then_some(body)
}

/// Length of an echo request's or reply's head, identifier included.
pub const ECHO_HEAD: usize = 6;

/// The head of an echo request for a ping socket; the kernel fills in identifier and checksum.
pub fn echo_request_head(destination: IpAddr) -> [u8; ECHO_HEAD] {
    let kind = if destination.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    [kind, 0, 0, 0, 0, 0]
}

/// Sum that an ICMP message of `len` octets starts from: the pseudo-header for ICMPv6, else nothing.
pub(super) fn start_sum(source: IpAddr, destination: IpAddr, len: usize) -> Sum {
    match (source, u16::try_from(len)) {
        (IpAddr::V6(_), Ok(len)) => pseudo_header(source, destination, PROTOCOL_ICMPV6, len),
        _ => Sum::default(),
    }
}

/// The first six octets of the echo reply that carries `id` and `body`, checksum complete.
pub fn echo_reply_head(
    source: IpAddr,
    destination: IpAddr,
    id: u16,
    body: &[u8],
) -> [u8; ECHO_HEAD] {
    let kind = if source.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
    echo_head(kind, (source, destination), id, body)
}

/// The first six octets of the echo request that carries the port of `source` as its identifier, and `body`, checksum
/// complete.
pub fn echo_request_head_of(
    source: SocketAddr,
    destination: IpAddr,
    body: &[u8],
) -> [u8; ECHO_HEAD] {
    let kind = if destination.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    echo_head(kind, (source.ip(), destination), source.port(), body)
}

fn echo_head(
    kind: u8,
    (source, destination): (IpAddr, IpAddr),
    id: u16,
    body: &[u8],
) -> [u8; ECHO_HEAD] {
    let sum = start_sum(source, destination, ECHO_HEAD + body.len());
    let sum = sum.word(u16::from(kind) << 8).word(id).octets(body);
    let [c0, c1] = sum.checksum().to_be_bytes();
    let [i0, i1] = id.to_be_bytes();
    [kind, 0, c0, c1, i0, i1]
}

/// Length of [`neighbour_advertisement`] and [`neighbour_solicitation`].
pub const NEIGHBOUR_LEN: usize = 32;

/// An advertisement: `target` is at `mac`; router and override flags set, solicited unless it is for a group, target
/// link-layer address option (RFC 4861, sections 4.4, 7.2.4 and 7.2.6).
pub fn neighbour_advertisement(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
    mac: MacAddr,
) -> [u8; NEIGHBOUR_LEN] {
    let flags = if destination.is_multicast() { 0xa0 } else { 0xe0 };
    let head = [NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    neighbour((source, destination), head, target, (TARGET_LINK_LAYER_ADDRESS, mac))
}

/// A solicitation from `source` at `mac` to the group that `target` listens to, with the source
/// link-layer address option (RFC 4861, sections 4.3 and 7.2.2).
pub fn neighbour_solicitation(
    source: Ipv6Addr,
    mac: MacAddr,
    target: Ipv6Addr,
) -> [u8; NEIGHBOUR_LEN] {
    let head = [NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    let ends = (source, solicited_node(target));
    neighbour(ends, head, target, (SOURCE_LINK_LAYER_ADDRESS, mac))
}

fn neighbour(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    head: [u8; 8],
    target: Ipv6Addr,
    (option, mac): (u8, MacAddr),
) -> [u8; NEIGHBOUR_LEN] {
    let mut octets = [0; NEIGHBOUR_LEN];
    let parts: [&[u8]; 4] = [&head, &target.octets(), &[option, 1], &mac.octets()];
    let filled = octets.iter_mut().zip(parts.into_iter().flatten());
    filled.for_each(|(octet, value)| *octet = *value);
    let sum = start_sum(source.into(), destination.into(), NEIGHBOUR_LEN).octets(&octets);
    (octets[2], octets[3]) = sum.checksum().to_be_bytes().into();
    octets
}

/// The group that whoever has `address` listens to (RFC 4291, section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// What an error says, for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four octets after the checksum: an MTU in some, else zero.
    pub value: u32,
}

/// The first eight octets of an error that quotes `quote`, checksum complete.
pub fn error_head(source: IpAddr, destination: IpAddr, error: Error, quote: &[u8]) -> [u8; LEN] {
    let [v0, v1, v2, v3] = error.value.to_be_bytes();
    let mut octets = [error.kind, error.code, 0, 0, v0, v1, v2, v3];
    let sum = start_sum(source, destination, LEN + quote.len()).octets(&octets).octets(quote);
    (octets[2], octets[3]) = sum.checksum().to_be_bytes().into();
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const A6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
    const B6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn solicitation(target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        message([NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0], B6, target, options)
    }

    fn parse_from_a(octets: &[u8], to: Ipv6Addr, hops: u8) -> Result<Message<'_>, Malformed> {
        parse_v6(octets, A6.into(), to.into(), hops)
    }

    /// A message from [`A6`] to `destination`.
    fn message(head: [u8; 8], destination: Ipv6Addr, about: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let mut octets = [&head[..], &about.octets(), options].concat();
        let sum = start_sum(A6.into(), destination.into(), octets.len()).octets(&octets).checksum();
        octets[2..4].copy_from_slice(&sum.to_be_bytes());
        octets
    }

    #[test]
    fn echo_reply_reads_back_as_one_with_a_valid_checksum() {
        let body = [0, 1, 0xaa, 0xbb, 0xcc];
        let mut octets = echo_reply_head(B6.into(), A6.into(), 77, &body).to_vec();
        octets.extend(body);
        assert_eq!(parse_v6(&octets, B6.into(), A6.into(), 64), Ok(Message::Other));
        assert_eq!(echo_reply_body(&octets), Some(&body[..]));
    }

    #[test]
    fn solicitation_is_read_and_options_that_do_not_fit_are_refused() {
        let parse = |octets: &[u8], hops| {
            parse_v6(octets, A6.into(), B6.into(), hops)
                .map(|m| m == Message::NeighbourSolicitation { target: B6 })
        };
        assert_eq!(parse(&solicitation(B6, &[1, 1, 2, 0, 0, 0, 0, 1]), 255), Ok(true));
        assert_eq!(parse(&solicitation(B6, &[]), 64), Err(Malformed));
        assert_eq!(parse(&solicitation(B6, &[1, 0, 0, 0, 0, 0, 0, 0]), 255), Err(Malformed));
        assert_eq!(parse(&solicitation(B6, &[1, 2, 0, 0, 0, 0, 0, 0]), 255), Err(Malformed));
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        assert_eq!(parse(&solicitation(group, &[]), 255), Err(Malformed));
    }

    #[test]
    fn router_solicitation_is_checked_as_the_rfc_asks() {
        let all = "ff02::2".parse::<Ipv6Addr>().unwrap();
        let read = |source: Ipv6Addr, code, options: &[u8], hops| {
            let mut octets = [&[ROUTER_SOLICITATION, code, 0, 0, 0, 0, 0, 0], options].concat();
            let sum = start_sum(source.into(), all.into(), octets.len()).octets(&octets);
            octets[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
            parse_v6(&octets, source.into(), all.into(), hops)
                .map(|it| it == Message::RouterSolicitation)
        };
        let (none, option) = (Ipv6Addr::UNSPECIFIED, [1, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(read(A6, 0, &option, 255), Ok(true));
        assert_eq!(read(none, 0, &[], 255), Ok(true));
        assert_eq!(read(none, 0, &option, 255), Err(Malformed));
        assert_eq!(read(A6, 0, &option, 64), Err(Malformed));
        assert_eq!(read(A6, 1, &option, 255), Err(Malformed));
        assert_eq!(read(A6, 0, &[1, 0, 2, 0, 0, 0, 0, 1], 255), Err(Malformed));
        assert_eq!(read(A6, 0, &option[..7], 255), Err(Malformed));
    }

    #[test]
    fn broken_checksum_is_refused() {
        let mut octets = solicitation(B6, &[]);
        octets[9] ^= 1;
        assert_eq!(parse_v6(&octets, A6.into(), B6.into(), 255), Err(Malformed));
        assert_eq!(parse_v4(&[8, 0, 0, 0, 0, 1, 0, 1]), Err(Malformed));
    }

    #[test]
    fn advertisement_reads_back() {
        let octets = neighbour_advertisement(B6, A6, B6, MacAddr::OURS_BY_DEFAULT);
        let read = parse_v6(&octets, B6.into(), A6.into(), 255);
        let mac = Some(MacAddr::OURS_BY_DEFAULT);
        assert_eq!(read, Ok(Message::NeighbourAdvertisement { target: B6, mac }));
    }

    #[test]
    fn own_solicitation_reads_back_and_names_its_sender() {
        let octets = neighbour_solicitation(B6, MacAddr::OURS_BY_DEFAULT, A6);
        let group: Ipv6Addr = "ff02::1:ff00:7".parse().unwrap();
        assert_eq!(solicited_node(A6), group);
        let read = parse_v6(&octets, B6.into(), group.into(), 255);
        assert_eq!(read, Ok(Message::NeighbourSolicitation { target: A6 }));
        assert_eq!(octets[24..26], [SOURCE_LINK_LAYER_ADDRESS, 1]);
        assert_eq!(octets[26..], MacAddr::OURS_BY_DEFAULT.octets());
    }

    #[test]
    fn advertisement_is_checked_as_the_rfc_asks() {
        let all: Ipv6Addr = "ff02::1".parse().unwrap();
        let mac = MacAddr::OURS_BY_DEFAULT;
        let option = [&[2, 1][..], &mac.octets()].concat();
        let with = |code, flags| [NEIGHBOUR_ADVERTISEMENT, code, 0, 0, flags, 0, 0, 0];
        let read = |target, mac| Ok(Message::NeighbourAdvertisement { target, mac });

        let good = message(with(0, 0x60), B6, A6, &option);
        assert_eq!(parse_from_a(&good, B6, 255), read(A6, Some(mac)));
        assert_eq!(parse_from_a(&good, B6, 254), Err(Malformed), "it was forwarded");
        assert_eq!(parse_from_a(&message(with(1, 0x60), B6, A6, &option), B6, 255), Err(Malformed));
        assert_eq!(
            parse_from_a(&message(with(0, 0x20), all, A6, &option), all, 255),
            read(A6, Some(mac))
        );
        let solicited_by_all = message(with(0, 0x60), all, A6, &option);
        assert_eq!(parse_from_a(&solicited_by_all, all, 255), Err(Malformed));
        assert_eq!(
            parse_from_a(&message(with(0, 0x60), B6, all, &option), B6, 255),
            Err(Malformed)
        );

        // Without the option, with others, with one of another kind of link.
        for others in
            [&[][..], &[1, 1, 2, 0, 0, 0, 0, 1], &[2, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(
                parse_from_a(&message(with(0, 0x60), B6, A6, others), B6, 255),
                read(A6, None)
            );
        }
        for broken in [
            &[2, 0, 2, 0, 0, 0, 0, 1][..],
            &[2, 2, 2, 0, 0, 0, 0, 1],
            &[2],
            &[2, 1, 1, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(
                parse_from_a(&message(with(0, 0x60), B6, A6, broken), B6, 255),
                Err(Malformed),
                "{broken:?}"
            );
        }
        let whole = message(with(0, 0x60), B6, A6, &[]);
        for len in 4..whole.len() {
            let mut octets = whole[..len].to_vec();
            octets[2..4].fill(0);
            let sum = start_sum(A6.into(), B6.into(), len).octets(&octets).checksum();
            octets[2..4].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(parse_from_a(&octets, B6, 255), Err(Malformed), "{len} octets");
        }
    }
}
