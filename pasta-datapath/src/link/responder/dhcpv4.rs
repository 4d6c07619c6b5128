//! The DHCP server (RFC 2131, section 4.3): it grants what the namespace was assigned, and keeps no leases.
//!
//! | message | answer |
//! | --- | --- |
//! | DISCOVER | OFFER; with rapid commit (RFC 4039) ACK |
//! | REQUEST for an address that is assigned | ACK |
//! | REQUEST for another, or extending a lease of another | NAK |
//! | REQUEST that takes another server's offer | none |
//! | INFORM | ACK without address and lease |
//! | none (BOOTP) | ACK |
//! | RELEASE, DECLINE, others | none |
//!
//! Any client gets the same address: there is one link with one host. An address that is deprecated is
//! given only where there is no other. Lease times are those of the [`Offer`]; T1 is half of it and a minute at
//! most, T2 seven eighths. A client that wants a shorter lease (option 51) gets one of a minute or more. udhcpc
//! knows nothing of T1 and renews after half of the lease: its lease lasts two minutes.
//!
//! A refusal goes to everybody, as the RFC asks, and to the address that the client has, if it says one:
//! dhcpcd, for example, listens nowhere else while it extends a lease.
//!
//! A client that extends its lease takes an answer only from whom it has asked, which may have been our address before
//! the host had another router: NetworkManager ignores any other server's. So that is where the answer comes from.
//!
//! A client's identifier is repeated (RFC 6842), and what a relay has added (RFC 3046), at the end. Options that it asks
//! for come first, in its order; then all others that we have. One that does not fit is left out: messages have 576
//! octets, or as many as the client takes and Ethernet has room for.

use super::offer::{INFINITE, Ipv4Offer, Offer, SHORT_LEASE, lease_without_renewal, renewal};
use crate::counters::DropReason;
use crate::link::writer::{FrameDevice, FrameWriter};
use crate::wire::dhcpv4::{CLIENT_PORT, Message, MessageType, Reply, SERVER_PORT, code};
use crate::wire::ethernet;
use pasta_ipc::types::{AssignedAddress, MacAddr, Mtu};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Flags of the FQDN option (RFC 4702, section 2.1): the server updates the A record; it does otherwise
/// than the client wants; the name is encoded as in DNS.
const FQDN_S: u8 = 1;
const FQDN_O: u8 = 2;
const FQDN_E: u8 = 4;
/// What its fields for response codes have (RFC 4702, section 2.2).
const FQDN_RCODE: u8 = 255;
/// Room for its value: flags, codes, and the longest name.
const FQDN_ROOM: usize = 3 + 255;

/// How the vendor class identifier of BusyBox's client begins where its user gives no other (`udhcpc -V`).
const UDHCPC: &[u8] = b"udhcp";

/// An answer, and where it goes.
#[derive(Debug)]
pub struct Answer {
    /// The message.
    pub reply: Reply,
    /// Where it comes from.
    pub from: SocketAddrV4,
    /// The link-layer address.
    pub hardware: [u8; 6],
    /// The address and port.
    pub to: SocketAddrV4,
    /// Where else it goes: a client that extends its lease may listen at its present address only.
    pub also_to: Option<SocketAddrV4>,
}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// This address is offered.
    Offer(AssignedAddress<Ipv4Addr>),
    /// It is granted.
    Grant(AssignedAddress<Ipv4Addr>),
    /// It is granted at once.
    CommitRapidly(AssignedAddress<Ipv4Addr>),
    /// The client has an address and gets the rest.
    Inform(AssignedAddress<Ipv4Addr>),
    /// What the client wants is not to be had.
    Refuse,
}

/// Answers `request`, the payload of a datagram to the server's port at `asked`, which may be everybody.
///
/// # Errors
///
/// The counter, if there is no answer.
pub fn answer(offer: &Offer, asked: Ipv4Addr, request: &[u8]) -> Result<Answer, DropReason> {
    let message = Message::parse(request)?;
    let hardware = MacAddr::try_from(message.echo.hardware).map_err(|_| DropReason::Malformed)?;
    let ours = offer.ipv4.as_ref().ok_or(DropReason::NotAnswered)?;
    let decision = decide(ours, &message)?;
    let echo = match decision {
        // A relay is to tell everybody (RFC 2131, section 4.3.2).
        Decision::Refuse if !message.echo.relay.is_unspecified() => message.echo.to_everybody(),
        _ => message.echo,
    };
    let mut reply = Reply::new(&echo, decision.yours(), message.largest_reply());
    let everybody = asked.is_broadcast() || asked.is_multicast() || asked.is_unspecified();
    let server = if everybody { ours.server } else { asked };
    let lease = lease(ours.lease, &message)?;
    let by_relay = message.option(code::RELAY_AGENT);
    // It fits: a reply has room for it beside what each has, and it comes before the rest.
    reply.last_option(code::RELAY_AGENT, by_relay, |reply| {
        write_options(reply, &message, offer, (ours, server, lease), decision);
    });
    let (hardware, to) = destination(&message, decision, hardware);
    let from = SocketAddrV4::new(server, SERVER_PORT);
    let present = Some(message.echo.client).filter(|it| !it.is_unspecified());
    let also_to = present.filter(|_| decision == Decision::Refuse);
    let also_to = also_to.map(|address| SocketAddrV4::new(address, CLIENT_PORT));
    Ok(Answer { reply, from, hardware, to, also_to })
}

/// Sends an answer.
pub fn send<D: FrameDevice>(tap: &mut FrameWriter<'_, D>, answer: &mut Answer) -> bool {
    let Answer { reply, from, hardware, to, also_to } = answer;
    let octets = reply.finish();
    let from = SocketAddr::from(*from);
    let sent = tap.write_datagram(*hardware, from, (*to).into(), octets);
    match also_to {
        Some(to) => tap.write_datagram(*hardware, from, (*to).into(), octets),
        None => sent,
    }
}

fn decide(ours: &Ipv4Offer, message: &Message<'_>) -> Result<Decision, DropReason> {
    let first = *ours.addresses.first().ok_or(DropReason::NotAnswered)?;
    // Beside the first, any that is not about to go.
    let find = |address: Ipv4Addr| {
        let others = ours.addresses.iter().filter(|it| !it.deprecated);
        std::iter::once(&first).chain(others).find(|it| it.address() == address).copied()
    };
    let wanted = message.address(code::REQUESTED_ADDRESS)?;
    match message.kind()? {
        Some(MessageType::Discover) => {
            let address = wanted.and_then(find).unwrap_or(first);
            Ok(match message.option(code::RAPID_COMMIT) {
                Some(_) => Decision::CommitRapidly(address),
                None => Decision::Offer(address),
            })
        }
        Some(MessageType::Request) => {
            let server = message.address(code::SERVER_ID)?;
            if server.is_some_and(|it| it != ours.server) {
                return Err(DropReason::NotAnswered);
            }
            let present = Some(message.echo.client).filter(|it| !it.is_unspecified());
            let wanted = wanted.or(present).ok_or(DropReason::Malformed)?;
            Ok(find(wanted).map_or(Decision::Refuse, Decision::Grant))
        }
        Some(MessageType::Inform) if message.echo.client.is_unspecified() => {
            Err(DropReason::Malformed)
        }
        Some(MessageType::Inform) => {
            Ok(Decision::Inform(find(message.echo.client).unwrap_or(first)))
        }
        None => Ok(Decision::Grant(first)),
        Some(_) => Err(DropReason::NotAnswered),
    }
}

impl Decision {
    fn kind(self) -> MessageType {
        match self {
            Self::Offer(_) => MessageType::Offer,
            Self::Grant(_) | Self::CommitRapidly(_) | Self::Inform(_) => MessageType::Ack,
            Self::Refuse => MessageType::Nak,
        }
    }

    /// The address that the client is given.
    fn given(self) -> Option<AssignedAddress<Ipv4Addr>> {
        match self {
            Self::Offer(it) | Self::Grant(it) | Self::CommitRapidly(it) => Some(it),
            Self::Inform(_) | Self::Refuse => None,
        }
    }

    fn yours(self) -> Ipv4Addr {
        self.given().map_or(Ipv4Addr::UNSPECIFIED, |it| it.address())
    }
}

/// Where an answer goes (RFC 2131, section 4.1).
fn destination(
    message: &Message<'_>,
    decision: Decision,
    hardware: MacAddr,
) -> ([u8; 6], SocketAddrV4) {
    let everybody = (ethernet::BROADCAST, SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT));
    let one = |address, port| (hardware.octets(), SocketAddrV4::new(address, port));
    let echo = &message.echo;
    if !echo.relay.is_unspecified() {
        return one(echo.relay, SERVER_PORT);
    }
    match decision {
        Decision::Refuse => everybody,
        _ if !echo.client.is_unspecified() => one(echo.client, CLIENT_PORT),
        _ if echo.wants_broadcast() => everybody,
        _ => one(decision.yours(), CLIENT_PORT),
    }
}

fn write_options(
    reply: &mut Reply,
    message: &Message<'_>,
    offer: &Offer,
    (ours, server, lease): (&Ipv4Offer, Ipv4Addr, u32),
    decision: Decision,
) {
    let (kind, server) = ([decision.kind().into()], server.octets());
    reply.option(code::MESSAGE_TYPE, &kind);
    reply.option(code::SERVER_ID, &server);
    if let Some(id) = message.option(code::CLIENT_ID) {
        reply.option(code::CLIENT_ID, id);
    }
    let (address, given) = match decision {
        Decision::Refuse => return,
        Decision::Inform(address) => (address, false),
        Decision::Offer(it) | Decision::Grant(it) | Decision::CommitRapidly(it) => (it, true),
    };
    let lasting = given && lease != INFINITE;
    let [lease, renewal, rebinding] = times(lease).map(u32::to_be_bytes);
    if given {
        reply.option(code::LEASE_TIME, &lease);
    }
    let mask = u32::MAX.checked_shl(32 - u32::from(address.prefix.bits())).unwrap_or(0);
    let mask = mask.to_be_bytes();
    let router = ours.router.map(|it| it.octets());
    // A router that is no neighbour by the address's prefix (RFC 3442).
    let far = ours.router.filter(|it| !address.prefix.contains(*it));
    let routes = far.map(|it| {
        let [a, b, c, d] = it.octets();
        [32, a, b, c, d, 0, 0, 0, 0, 0, a, b, c, d]
    });
    let mtu = offer.mtu.map(|it| Mtu::get(it).to_be_bytes());
    let mut room = [0; FQDN_ROOM];
    let fqdn = fqdn(offer, message, &mut room);
    let rapid = matches!(decision, Decision::CommitRapidly(_));
    let names = &offer.names;
    let any = |octets: &&[u8]| !octets.is_empty();

    // In ascending order.
    let values: [(u8, Option<&[u8]>); 11] = [
        (code::SUBNET_MASK, Some(&mask)),
        (code::ROUTER, router.as_ref().map(|it| &it[..])),
        (code::DNS, Some(&ours.resolvers[..]).filter(any)),
        (code::HOST_NAME, Some(names.host_name.as_bytes()).filter(any)),
        (code::MTU, mtu.as_ref().map(|it| &it[..])),
        (code::RENEWAL_TIME, lasting.then_some(&renewal)),
        (code::REBINDING_TIME, lasting.then_some(&rebinding)),
        (code::RAPID_COMMIT, rapid.then_some(&[])),
        (code::CLIENT_FQDN, fqdn),
        (code::DOMAIN_SEARCH, Some(&names.search_compressed[..]).filter(any)),
        (code::CLASSLESS_ROUTES, routes.as_ref().map(|it| &it[..])),
    ];
    let mut written = [false; 11];
    let asked = message.option(code::PARAMETER_LIST).unwrap_or_default();
    let all = values.iter().map(|(code, _)| code);
    for wanted in asked.iter().chain(all) {
        let found = values.iter().zip(&mut written).find(|((code, _), _)| code == wanted);
        let Some(((code, Some(value)), written)) = found else { continue };
        if !*written {
            *written = reply.option(*code, value);
        }
    }
}

/// Seconds that the lease of the sender of `message` lasts, where there is no more than `most`.
fn lease(most: u32, message: &Message<'_>) -> Result<u32, DropReason> {
    let class = message.option(code::VENDOR_CLASS).unwrap_or_default();
    let usual = if class.starts_with(UDHCPC) { lease_without_renewal(most) } else { most };
    Ok(message.lease()?.map_or(usual, |it| it.max(SHORT_LEASE).min(usual)))
}

/// Lease, T1 and T2 of a lease of `seconds`.
fn times(seconds: u32) -> [u32; 3] {
    [seconds, renewal(seconds), seconds - seconds / 8]
}

/// The value of the FQDN option, in the encoding that the client has used: that of DNS if it has sent none.
fn fqdn<'a>(
    offer: &Offer,
    message: &Message<'_>,
    room: &'a mut [u8; FQDN_ROOM],
) -> Option<&'a [u8]> {
    let (text, encoded) = &offer.names.fqdn;
    let asked = message.option(code::CLIENT_FQDN).and_then(|it| it.first().copied());
    let encoding = asked.unwrap_or(FQDN_E) & FQDN_E;
    let name = if encoding == 0 { text.as_bytes() } else { encoded };
    if name.is_empty() {
        return None;
    }
    let overridden = if asked.unwrap_or(0) & FQDN_S == 0 { 0 } else { FQDN_O };
    let head = [encoding | overridden, FQDN_RCODE, FQDN_RCODE];
    let all = head.iter().chain(name);
    room.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
    room.get(..head.len() + name.len())
}

#[cfg(test)]
mod tests;
