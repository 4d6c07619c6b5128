//! What becomes of a flow when the namespace has an error for a datagram of it.

use super::{DatagramFlow, DatagramSocket, Next};
use crate::link::classify::ErrorReport;
use crate::link::icmp_error::Unreachable;

impl<K: DatagramSocket> DatagramFlow<K> {
    /// The namespace's kernel has an error for a datagram that came from the other end.
    pub(super) fn reported(&mut self, report: &ErrorReport) -> Next {
        match report.why {
            Unreachable::TooBig(mtu) => {
                if let Some(path) = self.path_mut() {
                    path.learn_mtu(mtu);
                }
                Next::Wait
            }
            // Nobody is there any more. The other end learns of it by its next datagram: the host's kernel refuses
            // that where the socket was the flow's own. What a listener gets begins a new flow.
            Unreachable::Port | Unreachable::Protocol => Next::Over,
            // May pass (RFC 1122, section 4.2.3.9).
            Unreachable::Network
            | Unreachable::Host
            | Unreachable::Prohibited
            | Unreachable::TimeExceeded(_)
            | Unreachable::Field(_)
            | Unreachable::Verbatim(_) => Next::Wait,
        }
    }
}
