//! `RTM_NEWRULE`.

use super::{Unreadable, family};
use crate::record::{Record, Rule};
use netlink_packet_core::Parseable;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

/// Priority and table of the rules that every namespace starts with: local, main, default
/// (`fib_default_rules_init()`, `net/ipv4/fib_rules.c`; IPv6 has the first two).
const STANDARD: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

pub(super) fn decode(octets: &[u8]) -> Result<Record, Unreadable> {
    let message = RuleMessage::parse(octets)?;
    let header = &message.header;
    let Some(family) = family(header.family) else { return Ok(Record::Other) };

    let mut priority = 0;
    let mut table = u32::from(header.table);
    let mut selects = header.src_len != 0
        || header.dst_len != 0
        || header.tos != 0
        || header.flags.contains(RuleFlags::Invert);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            // Set on every rule; "no limit" is all ones.
            RuleAttribute::SuppressPrefixLen(value) | RuleAttribute::SuppressIfGroup(value) => {
                selects |= *value != u32::MAX;
            }
            RuleAttribute::Protocol(_) | RuleAttribute::Other(_) => {}
            RuleAttribute::L3MDev(used) => selects |= *used,
            _ => selects = true,
        }
    }
    let to_table = header.action == RuleAction::ToTable;
    let standard = to_table && !selects && STANDARD.contains(&(priority, table));
    Ok(Record::Rule(Rule { family, standard }))
}
