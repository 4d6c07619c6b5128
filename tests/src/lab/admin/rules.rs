//! Policy rules: which table is looked into for whom.

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RuleUidRange};

use super::Admin;
use crate::Outcome;
use crate::lab::Family;
use crate::netlink::family;

/// Chosen: before the standard rule that leads to table main, which has number 32766.
const PRIORITY: u32 = 1000;

impl Admin {
    /// Has the ways of user `user` looked up in table `table` first.
    ///
    /// # Errors
    ///
    /// What the kernel reports, for instance `EOPNOTSUPP` without policy rules.
    pub fn add_rule(&self, of: Family, user: u32, table: u8) -> Outcome {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewRule(rule(of, user, table)), flags).map(drop)
    }

    /// Removes such a rule.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_rule(&self, of: Family, user: u32, table: u8) -> Outcome {
        self.request(RouteNetlinkMessage::DelRule(rule(of, user, table)), NLM_F_ACK).map(drop)
    }
}

fn rule(of: Family, user: u32, table: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(of.any());
    message.header.table = table;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(PRIORITY));
    message.attributes.push(RuleAttribute::UidRange(RuleUidRange { start: user, end: user }));
    message
}
