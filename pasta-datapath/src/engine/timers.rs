//! What is due, and which flow it wakes.

use super::{Engine, Kind};
use crate::flow::FlowId;
use crate::time::Instant;

impl Engine {
    pub(super) fn fire_timers(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let Some(flow) = self.flows.get_mut(id) else { continue };
            flow.armed = None;
            match &mut flow.kind {
                Kind::Tcp(tcp) => {
                    tcp.relay.tick(now);
                    self.run_tcp(now, id, &[]);
                }
                Kind::Udp(udp) => {
                    let deadline = udp.deadline();
                    self.expire(now, id, deadline);
                }
                Kind::Echo(echo) => {
                    let deadline = echo.deadline();
                    self.expire(now, id, deadline);
                }
                Kind::Forwarded(forwarded) => {
                    let deadline = forwarded.deadline();
                    self.expire(now, id, deadline);
                }
                // Has no deadline.
                Kind::Splice(_) => {}
            }
        }
    }

    /// Ends a flow whose life is over, or looks again when it may be.
    pub(super) fn expire(&mut self, now: Instant, id: FlowId, deadline: Instant) {
        if deadline <= now {
            self.remove(id);
        } else {
            self.arm(id, Some(deadline));
        }
    }

    /// Makes the timer queue wake `id` at `deadline`, if that is before it would anyway.
    pub(super) fn arm(&mut self, id: FlowId, deadline: Option<Instant>) {
        let (Some(deadline), Some(flow)) = (deadline, self.flows.get_mut(id)) else { return };
        match flow.armed {
            Some(armed) if armed <= deadline => return,
            Some(armed) => {
                self.timers.remove(&(armed, id));
            }
            None => {}
        }
        flow.armed = Some(deadline);
        self.timers.insert((deadline, id));
    }

    pub(super) fn remove(&mut self, id: FlowId) {
        let Some(mut flow) = self.flows.remove(id) else { return };
        if let Some(armed) = flow.armed {
            self.timers.remove(&(armed, id));
        }
        if let Kind::Tcp(tcp) = &mut flow.kind {
            tcp.relay.release(&mut self.credit);
        }
        self.ports.ended(&mut flow.kind);
    }
}
