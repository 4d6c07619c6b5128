#![forbid(unsafe_code)]
//! Which message is allowed now. A message at the wrong time ends its channel, and this process.

use pasta_ipc::channel::Channel;
use pasta_ipc::message::{Hello, PROTOCOL_VERSION};
use pasta_ipc::socket::RequestId;
use pasta_ipc::types::Generation;
use pasta_ipc::{DatapathToMonitor, MonitorToDatapath, MonitorToSupervisor, SupervisorToMonitor};
use std::fmt;

/// Our end of the channel to the supervisor.
pub type ToSupervisor = Channel<MonitorToSupervisor, SupervisorToMonitor>;
/// Our end of the channel to the datapath.
pub type ToDatapath = Channel<MonitorToDatapath, DatapathToMonitor>;

/// How far the conversation with the supervisor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupervisorPhase {
    /// No `Hello` was received yet.
    Handshake,
    /// `Hello` was received.
    Starting,
    /// `Start` was received.
    Serving,
    /// `Shutdown` or `Explain` was received.
    Ending,
}

/// How far the conversation with the datapath is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathPhase {
    /// No `Hello` was received yet.
    Handshake,
    /// `Hello` was received; the last request, if there was one, and the snapshot that it has answered last.
    Serving(Option<RequestId>, Generation),
}

/// A message that is not allowed at this time, or not for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unexpected {
    /// The peer is of another build.
    Version(u16),
    /// It is not the time for this message.
    Untimely {
        /// The message.
        message: &'static str,
        /// How far the conversation was.
        phase: &'static str,
    },
    /// A request is not named after the one before it.
    Repeated {
        /// Its name.
        request: RequestId,
        /// The name of the one before.
        last: RequestId,
    },
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(theirs) => write!(
                f,
                "peer speaks protocol {theirs}, we speak {PROTOCOL_VERSION}: mixed installation"
            ),
            Self::Untimely { message, phase } => write!(f, "{message} while {phase}"),
            Self::Repeated { request, last } => {
                write!(f, "request {} after request {}", request.0, last.0)
            }
        }
    }
}

impl std::error::Error for Unexpected {}

impl SupervisorPhase {
    /// The phase after `message`.
    ///
    /// # Errors
    ///
    /// [`Unexpected`] if it is not allowed in this one.
    pub fn after(self, message: &SupervisorToMonitor) -> Result<Self, Unexpected> {
        use SupervisorToMonitor as M;
        match (self, message) {
            (Self::Handshake, M::Hello(hello)) => checked_hello(*hello, Self::Starting),
            (Self::Starting, M::Start(_)) => Ok(Self::Serving),
            (Self::Serving, M::Shutdown) | (Self::Starting, M::Explain(_)) => Ok(Self::Ending),
            (Self::Serving, M::StatusWanted | M::ResyncWanted | M::Forwards(_)) => {
                Ok(Self::Serving)
            }
            (phase, message) => Err(Unexpected::Untimely {
                message: match message {
                    M::Hello(_) => "Hello",
                    M::Start(_) => "Start",
                    M::Shutdown => "Shutdown",
                    M::StatusWanted => "StatusWanted",
                    M::ResyncWanted => "ResyncWanted",
                    M::Explain(_) => "Explain",
                    M::Forwards(_) => "Forwards",
                },
                phase: match phase {
                    Self::Handshake => "waiting for Hello",
                    Self::Starting => "waiting for Start",
                    Self::Serving => "serving",
                    Self::Ending => "ending",
                },
            }),
        }
    }
}

impl DatapathPhase {
    /// The phase after `message`.
    ///
    /// # Errors
    ///
    /// [`Unexpected`] if it is not allowed in this one.
    pub fn after(self, message: &DatapathToMonitor) -> Result<Self, Unexpected> {
        use DatapathToMonitor as M;
        match (self, message) {
            (Self::Handshake, M::Hello(hello)) => {
                checked_hello(*hello, Self::Serving(None, Generation::default()))
            }
            (
                Self::Serving(last, reset),
                M::SocketsWanted { request, .. } | M::ListenerWanted { request, .. },
            ) => match last {
                Some(last) if *request <= last => {
                    Err(Unexpected::Repeated { request: *request, last })
                }
                _ => Ok(Self::Serving(Some(*request), reset)),
            },
            (Self::Serving(last, reset), M::FlowsReset { generation }) if *generation > reset => {
                Ok(Self::Serving(last, *generation))
            }
            (phase, message) => Err(Unexpected::Untimely {
                message: match message {
                    M::Hello(_) => "Hello",
                    M::SocketsWanted { .. } => "SocketsWanted",
                    M::ListenerWanted { .. } => "ListenerWanted",
                    M::FlowsReset { .. } => "FlowsReset",
                },
                phase: match phase {
                    Self::Handshake => "waiting for Hello",
                    Self::Serving(..) => "serving",
                },
            }),
        }
    }
}

fn checked_hello<P>(hello: Hello, next: P) -> Result<P, Unexpected> {
    if hello == Hello::OURS { Ok(next) } else { Err(Unexpected::Version(hello.version)) }
}

#[cfg(test)]
pub(crate) mod testing {
    use pasta_ipc::port_forward::{LoopbackTarget, PortWatch};
    use pasta_ipc::start::{
        Configure, CopyAddresses, CopyRoutes, CopyStart, FamilyStart, Following, LinkStart,
        MonitorStart, PortsStart, RootFallback, TapUse,
    };
    use pasta_ipc::types::{Bounded, LogLevel, Service};

    /// What `pasta --config-net` without further options makes of itself.
    pub(crate) fn plain_start() -> MonitorStart {
        MonitorStart {
            ipv4: FamilyStart::plain(Service::On),
            ipv6: FamilyStart::plain(Service::On),
            link: LinkStart {
                tap: TapUse::Make,
                configure: Configure::Namespace,
                name: None,
                mtu: None,
                mac: None,
            },
            template: None,
            copy: CopyStart { routes: CopyRoutes::All, addresses: CopyAddresses::All },
            following: Following::default(),
            ports: PortsStart {
                outbound: Bounded::default(),
                watch: PortWatch::default(),
                loopback: LoopbackTarget::Address,
                changes: pasta_ipc::start::RuleChanges::Never,
                host: pasta_ipc::start::HostSockets::InReach,
            },
            log_level: LogLevel::Info,
            run_as: None,
            root: RootFallback::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::plain_start;
    use super::*;
    use pasta_ipc::socket::{NamespaceListener, SocketCount, SocketFamily, SocketKind};
    use pasta_ipc::types::Transport;

    fn start() -> SupervisorToMonitor {
        SupervisorToMonitor::Start(Box::new(plain_start()))
    }

    fn requests(request: u32) -> [DatapathToMonitor; 2] {
        let request = RequestId(request);
        let transport = Transport::Tcp;
        let kind = SocketKind { ipv6: false, transport };
        let count = SocketCount::try_from(1).unwrap();
        let (family, port) = (SocketFamily::Ipv4, 80.try_into().unwrap());
        let listener = NamespaceListener { transport, family, port };
        [
            DatapathToMonitor::SocketsWanted { request, kind, count },
            DatapathToMonitor::ListenerWanted { request, listener },
        ]
    }

    #[test]
    fn each_message_of_the_supervisor_is_allowed_in_exactly_one_phase() {
        use SupervisorPhase as P;
        let hello = SupervisorToMonitor::Hello(Hello::OURS);
        let messages = [hello, start(), SupervisorToMonitor::Shutdown];
        let phases = [P::Handshake, P::Starting, P::Serving, P::Ending];
        for (m, message) in messages.iter().enumerate() {
            for (p, phase) in phases.iter().enumerate() {
                let next = phase.after(message);
                if m == p {
                    assert_eq!(next, Ok(phases[p + 1]));
                } else {
                    assert!(next.is_err(), "{message:?} in {phase:?}");
                }
            }
        }
    }

    #[test]
    fn explain_takes_the_place_of_start_and_is_the_last() {
        use SupervisorPhase as P;
        let explain = SupervisorToMonitor::Explain(Box::new(plain_start()));
        assert_eq!(P::Starting.after(&explain), Ok(P::Ending));
        for phase in [P::Handshake, P::Serving, P::Ending] {
            assert!(phase.after(&explain).is_err(), "{phase:?}");
        }
    }

    #[test]
    fn requests_of_the_supervisor_are_allowed_while_serving_alone() {
        use SupervisorPhase as P;
        for message in [SupervisorToMonitor::StatusWanted, SupervisorToMonitor::ResyncWanted] {
            assert_eq!(P::Serving.after(&message), Ok(P::Serving));
            for phase in [P::Handshake, P::Starting, P::Ending] {
                assert!(phase.after(&message).is_err(), "{message:?} in {phase:?}");
            }
        }
    }

    #[test]
    fn the_datapath_says_hello_once_and_then_makes_requests() {
        let hello = DatapathToMonitor::Hello(Hello::OURS);
        for request in requests(1) {
            assert!(DatapathPhase::Handshake.after(&request).is_err());
        }
        let serving = DatapathPhase::Handshake.after(&hello).unwrap();
        assert!(serving.after(&hello).is_err());
        for request in requests(0) {
            assert_eq!(
                serving.after(&request),
                Ok(DatapathPhase::Serving(Some(RequestId(0)), Generation(0)))
            );
        }
    }

    #[test]
    fn requests_are_named_in_rising_order() {
        let phase = DatapathPhase::Serving(Some(RequestId(7)), Generation(3));
        for wrong in [0, 6, 7] {
            for request in requests(wrong) {
                let refused = phase.after(&request);
                assert!(matches!(refused, Err(Unexpected::Repeated { .. })), "{request:?}");
            }
        }
        for request in requests(9) {
            assert_eq!(
                phase.after(&request),
                Ok(DatapathPhase::Serving(Some(RequestId(9)), Generation(3)))
            );
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let other = Hello { version: PROTOCOL_VERSION + 1 };
        let wrong = Err(Unexpected::Version(PROTOCOL_VERSION + 1));
        assert_eq!(SupervisorPhase::Handshake.after(&SupervisorToMonitor::Hello(other)), wrong);
        let theirs = DatapathToMonitor::Hello(other);
        assert!(matches!(DatapathPhase::Handshake.after(&theirs), Err(Unexpected::Version(_))));
    }

    #[test]
    fn each_snapshot_is_answered_once_at_most() {
        let phase = DatapathPhase::Serving(None, Generation(3));
        let reset =
            |generation| DatapathToMonitor::FlowsReset { generation: Generation(generation) };
        for old in [0, 2, 3] {
            assert!(phase.after(&reset(old)).is_err(), "{old}");
        }
        assert_eq!(phase.after(&reset(9)), Ok(DatapathPhase::Serving(None, Generation(9))));
    }
}
