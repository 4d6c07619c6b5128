//! The DHCPv6 server (RFC 8415, section 18.3): it grants what the namespace was assigned, and keeps no
//! leases.
//!
//! | message | answer |
//! | --- | --- |
//! | SOLICIT | ADVERTISE; with rapid commit REPLY |
//! | REQUEST | REPLY; *not on link* for an address of another prefix |
//! | CONFIRM | REPLY that all addresses are right, or are not; none without any |
//! | RENEW, REBIND | REPLY; addresses that are not assigned have no time left, the assigned one is added |
//! | INFORMATION-REQUEST | REPLY without an association |
//! | RELEASE, DECLINE | REPLY of success |
//! | any other; with a server's identifier that is not ours, or where none may be | none |
//!
//! The first association for addresses gets the first address that was assigned, or another if it names
//! that one and it is not about to go; other associations, and those for
//! temporary addresses and prefixes, get none. Without an assigned address nothing is answered: local mode
//! has link-local addresses only. A message has to be for all servers, not for one address, and from a
//! link-local address: so clients do.
//!
//! We are known by a DUID of our link-layer address, which is the same at the next start. Our preference is
//! the highest: a client waits for no other. Lifetimes are those of the [`Offer`]; T1 is half of it and a
//! minute at most, T2 four fifths.

use super::offer::{INFINITE, Ipv6Offer, Offer, renewal};
use crate::counters::DropReason;
use crate::link::writer::{FrameDevice, FrameWriter};
use crate::wire::dhcpv6::{
    Association, CLIENT_PORT, Message, MessageType, Reply, SERVER_PORT, Status, code,
};
use pasta_ipc::types::{AssignedAddress, MacAddr};
use std::net::{Ipv6Addr, SocketAddr};

/// DUID type 3, Ethernet (RFC 8415, section 11.4).
const DUID_HEAD: [u8; 4] = [0, 3, 0, 1];

/// Flags of the FQDN option (RFC 4704, section 4.1): the server updates the AAAA record; it does otherwise
/// than the client wants.
const FQDN_S: u8 = 1;
const FQDN_O: u8 = 2;

/// Least time after which a client without lease asks again, in seconds (RFC 8415, section 7.6).
const LEAST_REFRESH: u32 = 600;

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// A lease is offered or granted, in a message of this kind.
    Lease(MessageType),
    /// The same at once.
    CommitRapidly,
    /// The lease goes on.
    Extend,
    /// What there is to know without lease.
    Inform,
    /// Nothing but this.
    Say(Status),
}

/// Answers `request`, the payload of a datagram to all servers; we are at `our_mac`.
///
/// # Errors
///
/// The counter, if there is no answer.
pub fn answer(offer: &Offer, our_mac: MacAddr, request: &[u8]) -> Result<Reply, DropReason> {
    let message = Message::parse(request)?;
    let ours = offer.ipv6.as_ref().ok_or(DropReason::NotAnswered)?;
    let first = *ours.addresses.first().ok_or(DropReason::NotAnswered)?;
    let [a, b, c, d, e, f] = our_mac.octets();
    let [h0, h1, h2, h3] = DUID_HEAD;
    let server = [h0, h1, h2, h3, a, b, c, d, e, f];
    let decision = decide(ours, &server, &message)?;

    let kind = match decision {
        Decision::Lease(kind) => kind,
        _ => MessageType::Reply,
    };
    let mut reply = Reply::new(kind, message.xid);
    if let Some(client) = message.option(code::CLIENT_ID) {
        reply.option(code::CLIENT_ID, &[client]);
    }
    reply.option(code::SERVER_ID, &[&server]);
    match decision {
        Decision::Say(status) => {
            reply.status(status);
            return Ok(reply);
        }
        Decision::Inform if ours.lease != INFINITE => {
            let refresh = ours.lease.max(LEAST_REFRESH).to_be_bytes();
            reply.option(code::REFRESH_TIME, &[&refresh]);
        }
        Decision::Inform => {}
        Decision::CommitRapidly => {
            reply.option(code::RAPID_COMMIT, &[]);
        }
        Decision::Lease(MessageType::Advertise) => {
            reply.option(code::PREFERENCE, &[&[255]]);
        }
        Decision::Lease(_) | Decision::Extend => {}
    }
    if decision != Decision::Inform {
        let mut left = Some(first);
        for association in message.associations() {
            let granted = left.take_if(|_| association.code == code::IA_NA);
            let named = association.addresses().find_map(|it| {
                ours.addresses.iter().find(|ours| ours.address() == it && !ours.deprecated)
            });
            let granted = granted.map(|first| named.copied().unwrap_or(first));
            write_association(&mut reply, ours, &association, granted, decision);
        }
    }
    write_rest(&mut reply, offer, ours, &message);
    Ok(reply)
}

/// Sends an answer from `source` to the client that has `address` and `mac`.
pub fn send<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    reply: &Reply,
    source: Ipv6Addr,
    (mac, address): (MacAddr, Ipv6Addr),
) -> bool {
    let source = SocketAddr::from((source, SERVER_PORT));
    let destination = SocketAddr::from((address, CLIENT_PORT));
    tap.write_datagram(mac.octets(), source, destination, reply.octets())
}

fn decide(ours: &Ipv6Offer, server: &[u8], message: &Message<'_>) -> Result<Decision, DropReason> {
    let named = message.option(code::SERVER_ID);
    let for_us = named == Some(server);
    let has_client = message.option(code::CLIENT_ID).is_some();
    let decision = match message.kind {
        MessageType::Solicit if named.is_none() && has_client => {
            match message.option(code::RAPID_COMMIT) {
                Some(_) => Decision::CommitRapidly,
                None => Decision::Lease(MessageType::Advertise),
            }
        }
        MessageType::Request if for_us && has_client => Decision::Lease(MessageType::Reply),
        MessageType::Confirm if named.is_none() && has_client => {
            let is_assigned = |it| ours.addresses.iter().any(|ours| ours.address() == it);
            message.addresses().next().ok_or(DropReason::NotAnswered)?;
            match message.addresses().all(is_assigned) {
                true => Decision::Say(Status::Success),
                false => Decision::Say(Status::NotOnLink),
            }
        }
        MessageType::Renew if for_us && has_client => Decision::Extend,
        MessageType::Rebind if named.is_none() && has_client => Decision::Extend,
        MessageType::InformationRequest
            if (named.is_none() || for_us) && message.associations().next().is_none() =>
        {
            Decision::Inform
        }
        MessageType::Release | MessageType::Decline if for_us && has_client => {
            Decision::Say(Status::Success)
        }
        _ => return Err(DropReason::NotAnswered),
    };
    Ok(decision)
}

fn write_association(
    reply: &mut Reply,
    ours: &Ipv6Offer,
    association: &Association<'_>,
    granted: Option<AssignedAddress<Ipv6Addr>>,
    decision: Decision,
) {
    let is_on_link = |it: Ipv6Addr| ours.addresses.iter().any(|ours| ours.prefix.contains(it));
    let is_request = decision == Decision::Lease(MessageType::Reply);
    let refused = match granted {
        None if association.code == code::IA_PD => Some(Status::NoPrefix),
        None => Some(Status::NoAddresses),
        Some(_) if is_request && !association.addresses().all(is_on_link) => {
            Some(Status::NotOnLink)
        }
        Some(_) => None,
    };
    let times = match refused {
        None => times(ours.lease),
        Some(_) => [0, 0],
    };
    let Some(open) = reply.open(association, times) else { return };
    if let Some(status) = refused {
        reply.status(status);
    }
    let preferred = |it: AssignedAddress<_>| if it.deprecated { 0 } else { ours.lease };
    if let (Some(granted), None) = (granted, refused) {
        reply.address(granted.address(), preferred(granted), ours.lease);
    }
    if decision == Decision::Extend {
        let granted = granted.map(|it| it.address());
        for old in association.addresses().filter(|it| Some(*it) != granted) {
            // What is not right any more ends now (RFC 8415, section 18.3.4); what is about to go is
            // not used for anything new.
            let is_assigned = ours.addresses.iter().any(|it| it.address() == old);
            reply.address(old, 0, if is_assigned { ours.lease } else { 0 });
        }
    }
    reply.close(open);
}

/// T1 and T2 of a lease of `seconds`.
fn times(seconds: u32) -> [u32; 2] {
    match seconds {
        INFINITE => [INFINITE, INFINITE],
        seconds => [renewal(seconds), seconds / 5 * 4],
    }
}

/// Resolvers and names, as far as they fit.
fn write_rest(reply: &mut Reply, offer: &Offer, ours: &Ipv6Offer, message: &Message<'_>) {
    let names = &offer.names;
    for (code, value) in
        [(code::DNS, &ours.resolvers[..]), (code::DOMAIN_SEARCH, &names.search[..])]
    {
        if !value.is_empty() {
            reply.option(code, &[value]);
        }
    }
    let (_, fqdn) = &names.fqdn;
    if !fqdn.is_empty() {
        let asked = message.option(code::CLIENT_FQDN).and_then(|it| it.first().copied());
        let flags = if asked.unwrap_or(0) & FQDN_S == 0 { 0 } else { FQDN_O };
        reply.option(code::CLIENT_FQDN, &[&[flags], fqdn]);
    }
}

#[cfg(test)]
mod tests;
