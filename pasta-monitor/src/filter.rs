#![forbid(unsafe_code)]
//! The kernel-side filters of the event sockets: [`Interest`] of the host's → a program of the classic packet
//! filter, and one for the namespace's.
//!
//! The kernel runs it for each message before it queues it, so what it drops does not wake us. It sees
//! one netlink message: `struct nlmsghdr`, then the header of its kind, then attributes. Numbers in it
//! are in the host's order and the filter loads them as if they were in the network's; constants are
//! therefore turned round the same way.
//!
//! | message | passes |
//! | --- | --- |
//! | link | of links of interest; else unless it is a wireless event, a port of a bridge or bond, a bridge's view of a port, or of a link that is known to be out |
//! | address | of links of interest, or all of the family |
//! | route of table main | with a destination of 3 bits or less (ways to everything), of several hops, through a link of interest or through none, or all of the family |
//! | rule | all |
//! | nexthop | if one is in use |
//! | neighbour | of the templates |
//! | other | none |
//!
//! In the namespace, of all that its users do, these pass: links: the tap; addresses: all; routes of table main: to
//! everything, of several hops, through the tap or through none, or to where a route of ours leads.
//!
//! A program that lets too much through costs wake-ups, one that lets too little through costs truth:
//! where in doubt, it lets through. A message that is too short for a load is dropped by the kernel.

use crate::host;
use crate::interest::{Interest, MAX_LISTED, Wanted};
use crate::net::PerFamily;
use libc::sock_filter as Instruction;
use pasta_ipc::types::{Family, Prefix};
use std::collections::BTreeSet;
use std::net::IpAddr;

// linux/bpf_common.h.
const LD_WORD: u16 = 0x20;
const LD_HALF: u16 = 0x28;
const LD_OCTET: u16 = 0x30;
const LD_WORD_BEHIND_X: u16 = 0x40;
const LD_CONSTANT: u16 = 0x00;
const LDX_CONSTANT: u16 = 0x01;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;
const COPY_TO_X: u16 = 0x07;
/// Loads the place of the attribute whose type is in X, searched from the place in A; 0 without one
/// (`SKF_AD_OFF + SKF_AD_NLATTR`, linux/filter.h).
const FIND_ATTRIBUTE: u32 = 0xffff_f000 + 12;

/// The whole message passes.
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

// Places in a message (linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/neighbour.h).
const TYPE: u32 = 4;
const FAMILY: u32 = 16;
const INDEX: u32 = 20;
const DESTINATION_LEN: u32 = 17;
const TABLE: u32 = 20;
const LINK_ATTRIBUTES: u32 = 32;
const ROUTE_ATTRIBUTES: u32 = 28;
/// Where the payload of an attribute begins (`struct nlattr`).
const PAYLOAD: u32 = 4;

// Types of messages, the new or changed object's; the deleted one's is the next number.
const LINK: u16 = 16;
const ADDRESS: u16 = 20;
const ROUTE: u16 = 24;
const NEIGHBOUR: u16 = 28;
const RULE: u16 = 32;
const NEXTHOP: u16 = 104;

const TABLE_MAIN: u32 = 254;
const IFLA_MASTER: u32 = 10;
const IFLA_WIRELESS: u32 = 11;
const RTA_DST: u32 = 1;
const RTA_OIF: u32 = 4;
const RTA_MULTIPATH: u32 = 9;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// As [`host::WIDE`].
const WIDE: u32 = host::WIDE as u32;

/// The filter that lets through what is of interest.
pub fn program(interest: &Interest) -> Vec<Instruction> {
    let mut code = vec![plain(LD_HALF, TYPE)];
    section(&mut code, LINK, &links(interest));
    section(&mut code, ADDRESS, &addresses(interest));
    section(&mut code, ROUTE, &routes(interest));
    section(&mut code, RULE, &[plain(RETURN, PASS)]);
    let nexthops = if interest.nexthops { PASS } else { DROP };
    section(&mut code, NEXTHOP, &[plain(RETURN, nexthops)]);
    let mut neighbours = of_links(Some(&interest.templates));
    neighbours.push(plain(RETURN, DROP));
    section(&mut code, NEIGHBOUR, &neighbours);
    code.push(plain(RETURN, DROP));
    code
}

/// The filter that lets through what of the namespace can matter: where the link `tap` is ours and routes of ours lead
/// to `destinations`.
pub fn namespace_program(tap: u32, destinations: &BTreeSet<Prefix>) -> Vec<Instruction> {
    let tap = BTreeSet::from([tap]);
    let mut code = vec![plain(LD_HALF, TYPE)];
    let mut links = of_links(Some(&tap));
    links.push(plain(RETURN, DROP));
    section(&mut code, LINK, &links);
    section(&mut code, ADDRESS, &pass_all());
    let mut routes = of_table_main();
    routes.extend(by_hops(Some(&tap)));
    if destinations.len() > MAX_LISTED {
        routes.push(plain(RETURN, PASS));
    }
    routes.extend(destinations.iter().flat_map(|it| leading_to(*it)));
    routes.push(plain(RETURN, DROP));
    section(&mut code, ROUTE, &routes);
    code.push(plain(RETURN, DROP));
    code
}

/// Lets routes pass that lead to `destination`, or to one that begins with the same word.
fn leading_to(destination: Prefix) -> Vec<Instruction> {
    let word = match destination.address() {
        IpAddr::V4(a) => a.to_bits(),
        IpAddr::V6(a) => u32::from(a.segments()[0]) << 16 | u32::from(a.segments()[1]),
    };
    let mut code = vec![plain(LD_OCTET, DESTINATION_LEN)];
    code.push(when(JUMP_IF_EQUAL, destination.bits().into(), 0, 8));
    code.extend(find(ROUTE_ATTRIBUTES, RTA_DST));
    code.push(when(JUMP_IF_EQUAL, 0, 4, 0));
    code.extend([plain(COPY_TO_X, 0), plain(LD_WORD_BEHIND_X, PAYLOAD)]);
    code.extend([when(JUMP_IF_EQUAL, word, 0, 1), plain(RETURN, PASS)]);
    code
}

/// The filter that lets everything through.
pub fn pass_all() -> Vec<Instruction> {
    vec![plain(RETURN, PASS)]
}

fn links(interest: &Interest) -> Vec<Instruction> {
    let mut code = vec![plain(LD_OCTET, FAMILY)];
    // A bridge's view of its ports comes with the bridge's family.
    code.extend([when(JUMP_IF_EQUAL, 0, 1, 0), plain(RETURN, DROP)]);
    code.extend(find(LINK_ATTRIBUTES, IFLA_WIRELESS));
    code.extend([when(JUMP_IF_EQUAL, 0, 1, 0), plain(RETURN, DROP)]);
    if let Some(links) = &interest.links {
        code.extend(of_links(Some(links)));
    }
    code.extend(listed(&interest.ignored, DROP));
    code.extend(find(LINK_ATTRIBUTES, IFLA_MASTER));
    code.extend([when(JUMP_IF_EQUAL, 0, 1, 0), plain(RETURN, DROP)]);
    code.push(plain(RETURN, PASS));
    code
}

fn addresses(interest: &Interest) -> Vec<Instruction> {
    let mut code = by_family(interest.families);
    code.extend(of_links(interest.links.as_ref()));
    code.push(plain(RETURN, DROP));
    code
}

fn routes(interest: &Interest) -> Vec<Instruction> {
    let mut code = vec![plain(LD_OCTET, TABLE)];
    if interest.every_table {
        code.push(when(JUMP_IF_EQUAL, TABLE_MAIN, 4, 0));
        code.push(plain(LD_OCTET, DESTINATION_LEN));
        code.extend([when(JUMP_IF_GREATER, WIDE, 1, 0), plain(RETURN, PASS)]);
        code.push(plain(RETURN, DROP));
    } else {
        code = of_table_main();
    }
    code.extend(by_family(interest.families));
    code.extend(by_hops(interest.links.as_ref()));
    code.push(plain(RETURN, DROP));
    code
}

/// Drops routes of other tables than main.
fn of_table_main() -> Vec<Instruction> {
    vec![plain(LD_OCTET, TABLE), when(JUMP_IF_EQUAL, TABLE_MAIN, 1, 0), plain(RETURN, DROP)]
}

/// Lets routes pass that lead to everything, have several hops, or lead through one of `links` or none of any; without
/// a list, all of them. Goes on for the others.
fn by_hops(links: Option<&BTreeSet<u32>>) -> Vec<Instruction> {
    let mut code = vec![plain(LD_OCTET, DESTINATION_LEN)];
    code.extend([when(JUMP_IF_GREATER, WIDE, 1, 0), plain(RETURN, PASS)]);
    code.extend(find(ROUTE_ATTRIBUTES, RTA_MULTIPATH));
    code.extend([when(JUMP_IF_EQUAL, 0, 1, 0), plain(RETURN, PASS)]);
    code.extend(find(ROUTE_ATTRIBUTES, RTA_OIF));
    code.extend([when(JUMP_IF_EQUAL, 0, 0, 1), plain(RETURN, PASS)]);
    code.extend([plain(COPY_TO_X, 0), plain(LD_WORD_BEHIND_X, PAYLOAD)]);
    match links {
        Some(links) => code.extend(compare(links, PASS)),
        None => code.push(plain(RETURN, PASS)),
    }
    code
}

/// Decides for families of which all or nothing passes; goes on for the others.
fn by_family(families: PerFamily<Wanted>) -> Vec<Instruction> {
    let mut code = vec![plain(LD_OCTET, FAMILY)];
    for (family, number) in [(Family::V4, AF_INET), (Family::V6, AF_INET6)] {
        let verdict = match families.get(family) {
            Wanted::Nothing => DROP,
            Wanted::All => PASS,
            Wanted::OfLinks => continue,
        };
        code.extend([when(JUMP_IF_EQUAL, number, 0, 1), plain(RETURN, verdict)]);
    }
    code
}

/// Lets messages pass whose header has one of `links` as index; without a list, all of them.
fn of_links(links: Option<&BTreeSet<u32>>) -> Vec<Instruction> {
    links.map_or_else(pass_all, |links| listed(links, PASS))
}

/// Ends with `verdict` for messages whose header has one of `links` as index.
fn listed(links: &BTreeSet<u32>, verdict: u32) -> Vec<Instruction> {
    let mut code = vec![plain(LD_WORD, INDEX)];
    code.extend(compare(links, verdict));
    code
}

/// Ends with `verdict` if what is loaded is one of `links`.
fn compare(links: &BTreeSet<u32>, verdict: u32) -> impl Iterator<Item = Instruction> {
    links.iter().flat_map(move |link| {
        let as_loaded = u32::from_be_bytes(link.to_ne_bytes());
        [when(JUMP_IF_EQUAL, as_loaded, 0, 1), plain(RETURN, verdict)]
    })
}

/// Loads the place of attribute `kind`, or 0.
fn find(attributes: u32, kind: u32) -> [Instruction; 3] {
    [plain(LDX_CONSTANT, kind), plain(LD_CONSTANT, attributes), plain(LD_WORD, FIND_ATTRIBUTE)]
}

/// `body`, which ends in a verdict on every way, for messages of type `kind` and the next.
fn section(code: &mut Vec<Instruction>, kind: u16, body: &[Instruction]) {
    let as_loaded = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    code.push(when(JUMP_IF_EQUAL, as_loaded(kind), 2, 0));
    code.push(when(JUMP_IF_EQUAL, as_loaded(kind + 1), 1, 0));
    // A body is a few hundred instructions at most.
    code.push(plain(JUMP, u32::try_from(body.len()).unwrap_or(0)));
    code.extend_from_slice(body);
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// A comparison, and how many instructions are passed over if it holds and if not.
fn when(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests;
