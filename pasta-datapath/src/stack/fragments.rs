//! Fragments of the namespace, and the packets that they become.

use super::Stack;
use super::batch::Batch;
use super::new_flows::Origin;
use super::parts::Parts;
use crate::counters::DropReason;
use crate::flow::datagram::Sender;
use crate::flow::refuse::send_error;
use crate::link::classify::{Content, Framing, classify};
use crate::link::reassembly::fault;
use crate::link::writer::FrameDevice;
use crate::sockets::Sockets;
use crate::wire::ip::{Packet, Piece};

impl<S: Sockets> Stack<S> {
    /// Takes in a fragment, and handles the packet that it completes.
    #[cold]
    pub(super) fn handle_fragment(
        &mut self,
        origin: &Origin<'_>,
        fragment: (&Packet<'_>, Piece),
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        let Parts { link, nat, counters, .. } = &mut self.parts;
        if !nat.serves(fragment.0.source) {
            return Err(DropReason::FamilyOff);
        }
        let framing = Framing::of(link.device.offloads());
        let sender = (origin.sender.mac, framing);
        let whole = match link.reassembly.add(origin.now, sender, fragment, counters) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(()),
            Err(reason) => {
                if let Some((why, offending)) = fault(fragment.0, fragment.1) {
                    let writer = &mut link.writer(counters);
                    send_error(writer, nat, origin.sender.mac, &offending, why);
                }
                return Err(reason);
            }
        };
        // It is in a buffer of its own; what came before it goes first.
        self.flush(origin.now, origin.batch, batch);
        batch.clear();
        let handled = classify(&whole, framing).and_then(|frame| match frame.content {
            // Fragments of a fragment.
            Content::Fragment(..) => Err(DropReason::Malformed),
            _ => {
                let sender = Sender { mac: frame.mac, handling: frame.handling };
                let origin = Origin { sender, octets: &whole, batch: &whole, ..*origin };
                self.handle_frame(&origin, frame, batch)
            }
        });
        self.flush(origin.now, &whole, batch);
        batch.clear();
        self.parts.link.reassembly.reuse(whole);
        handled
    }
}
