//! Errors that the namespace's kernel sends for what came from us.

use super::batch::Batch;
use super::{Stack, carried};
use crate::counters::DropReason;
use crate::flow::FlowKey;
use crate::link::classify::ErrorReport;
use crate::nat::Protocol;
use crate::sockets::Sockets;
use crate::wire::ip::{PROTOCOL_TCP, PROTOCOL_UDP};

impl<S: Sockets> Stack<S> {
    /// Notes an error for a packet of a flow, which learns of it behind what else the batch has for it. It shows no
    /// use of the flow.
    pub(super) fn note_error_report(
        &mut self,
        report: &ErrorReport,
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        let protocol = match report.protocol {
            PROTOCOL_TCP => Protocol::Tcp,
            PROTOCOL_UDP => Protocol::Udp,
            // An answer to a ping is lost, and nobody else is to know.
            _ => return Err(DropReason::Unsupported),
        };
        carried(&self.parts.nat, protocol)?;
        let ErrorReport { remote, namespace, .. } = *report;
        let key = FlowKey { protocol, namespace, remote };
        let found = self.parts.flows.table.look_up(&key, None);
        let (id, _) = found.ok_or(DropReason::NoFlow)?;
        batch.add_error_report(id, *report);
        Ok(())
    }
}
