//! The order in which a helper may send its messages.
//!
//! | message | allowed |
//! | --- | --- |
//! | `Hello` | first, once, with our version |
//! | `TapReady` (monitor) | once, after `Start` that asks for a tap |
//! | `Ready` (monitor) | once, after `TapReady`, or after `Start` that asks for none |
//! | `Ready` (datapath) | once, after `Start` |
//! | `Log`, `Failed` | any number, at any time after `Hello` |
//! | `PortsOpen` (datapath) | once, after `Ready` |
//! | `StatusFile` (monitor) | once, after `Start` |
//! | `Status` | once for each `StatusWanted` |
//! | `ForwardsTaken` (monitor), `Changed` (datapath) | once for each `Forwards` (monitor), `Change` (datapath) |

use pasta_ipc::channel::expect_hello;
use pasta_ipc::message::Hello;
use pasta_ipc::start::TapUse;
use pasta_ipc::{DatapathToSupervisor, MonitorToSupervisor};

/// The state of the handshake with a helper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The last message of the handshake that was received.
    phase: Phase,
    /// Whether `Start` was sent.
    start: Start,
    /// Status requests without an answer.
    status_requests: u32,
    /// Changes of what is forwarded without an answer.
    forwards: u32,
    /// Whether it has handed over its status file.
    status_file: bool,
    /// Whether its first listeners in the namespace are open.
    ports_open: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    AwaitHello,
    Hello,
    Tap,
    Ready,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Start {
    #[default]
    NotSent,
    Sent(TapUse),
}

/// What the order depends on in a message.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hello(Hello),
    Tap,
    Ready,
    Text,
    /// A status without a request.
    Status,
    /// An answer to a change of what is forwarded that was not sent.
    Forwards,
    /// A second status file, or one too early.
    StatusFile,
    /// As that, of the first listeners.
    PortsOpen,
    /// An explanation: `Explain` is never sent beside `Start`.
    Explanation,
}

impl Handshake {
    /// Records that `Start` was sent; only the monitor uses `tap`.
    pub(crate) fn started(&mut self, tap: TapUse) {
        self.start = Start::Sent(tap);
    }

    /// Records a status request.
    pub(crate) fn status_requested(&mut self) {
        self.status_requests = self.status_requests.saturating_add(1);
    }

    /// Records that a change of what is forwarded was sent.
    pub(crate) fn forwards_sent(&mut self) {
        self.forwards = self.forwards.saturating_add(1);
    }

    /// Takes an answer to one of `requests`.
    fn answered(requests: &mut u32, else_: Step) -> Step {
        match requests.checked_sub(1) {
            Some(left) => {
                *requests = left;
                Step::Text
            }
            None => else_,
        }
    }

    /// Checks a message of the monitor.
    ///
    /// # Errors
    ///
    /// The text of the violation.
    pub(crate) fn monitor(&mut self, message: &MonitorToSupervisor) -> Result<(), String> {
        let step = match message {
            MonitorToSupervisor::Hello(hello) => Step::Hello(*hello),
            MonitorToSupervisor::TapReady(_) => Step::Tap,
            MonitorToSupervisor::Ready(_) => Step::Ready,
            MonitorToSupervisor::Log(_) | MonitorToSupervisor::Failed(_) => Step::Text,
            MonitorToSupervisor::Status(_) => {
                Self::answered(&mut self.status_requests, Step::Status)
            }
            MonitorToSupervisor::ForwardsTaken { .. } => {
                Self::answered(&mut self.forwards, Step::Forwards)
            }
            MonitorToSupervisor::Explained(_) => Step::Explanation,
            MonitorToSupervisor::TapGone => Step::Text,
            MonitorToSupervisor::StatusFile
                if !self.status_file && self.start != Start::NotSent =>
            {
                self.status_file = true;
                Step::Text
            }
            MonitorToSupervisor::StatusFile => Step::StatusFile,
        };
        let before_ready = match self.start {
            Start::Sent(TapUse::None | TapUse::Given) => Phase::Hello,
            Start::Sent(TapUse::Make) | Start::NotSent => Phase::Tap,
        };
        self.take(step, before_ready)
    }

    /// Checks a message of the datapath.
    ///
    /// # Errors
    ///
    /// As [`Handshake::monitor`].
    pub(crate) fn datapath(&mut self, message: &DatapathToSupervisor) -> Result<(), String> {
        let step = match message {
            DatapathToSupervisor::Hello(hello) => Step::Hello(*hello),
            DatapathToSupervisor::Ready(_) => Step::Ready,
            DatapathToSupervisor::Log(_)
            | DatapathToSupervisor::Failed(_)
            | DatapathToSupervisor::Statistics(_) => Step::Text,
            DatapathToSupervisor::PortsOpen if self.phase == Phase::Ready && !self.ports_open => {
                self.ports_open = true;
                Step::Text
            }
            DatapathToSupervisor::PortsOpen => Step::PortsOpen,
            DatapathToSupervisor::Status(_) => {
                Self::answered(&mut self.status_requests, Step::Status)
            }
            DatapathToSupervisor::Changed(_) => Self::answered(&mut self.forwards, Step::Forwards),
        };
        self.take(step, Phase::Hello)
    }

    /// `before_ready` is the phase in which `Ready` is allowed.
    fn take(&mut self, step: Step, before_ready: Phase) -> Result<(), String> {
        let phase = match (step, self.phase, self.start) {
            (Step::Hello(hello), Phase::AwaitHello, _) => {
                expect_hello(Some(hello)).map_err(|error| error.to_string())?;
                Phase::Hello
            }
            (_, Phase::AwaitHello, _) => return Err("first message is not Hello".into()),
            (Step::Text, phase, _) => phase,
            (Step::Tap, Phase::Hello, Start::Sent(TapUse::Make)) => Phase::Tap,
            (Step::Ready, phase, Start::Sent(_)) if phase == before_ready => Phase::Ready,
            (step, phase, start) => {
                return Err(format!(
                    "{step:?} out of turn (received last: {phase:?}, start: {start:?})"
                ));
            }
        };
        self.phase = phase;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::status::MonitorStatus;
    use pasta_ipc::types::{
        AuditReport, Bounded, Explanation, FamilyExplanation, FamilyState, LogLevel, LogRecord,
        MacAddr, TapInfo, TapOffloads, Text,
    };

    fn tap() -> MonitorToSupervisor {
        MonitorToSupervisor::TapReady(TapInfo {
            name: "tap0".to_owned().try_into().unwrap(),
            mac: MacAddr::OURS_BY_DEFAULT,
            offloads: TapOffloads::Tcp,
        })
    }

    fn ready() -> MonitorToSupervisor {
        MonitorToSupervisor::Ready(Box::<AuditReport>::default())
    }

    fn log() -> MonitorToSupervisor {
        let text = Text::truncated("x");
        MonitorToSupervisor::Log(LogRecord { level: LogLevel::Info, text })
    }

    const HELLO: MonitorToSupervisor = MonitorToSupervisor::Hello(Hello::OURS);

    #[test]
    fn monitor_says_hello_then_tap_then_ready() {
        let mut handshake = Handshake::default();
        assert!(handshake.monitor(&HELLO).is_ok());
        assert!(handshake.monitor(&log()).is_ok());
        handshake.started(TapUse::Make);
        for message in [tap(), log(), ready(), log()] {
            assert!(handshake.monitor(&message).is_ok(), "{message:?}");
        }
        for message in [HELLO, tap(), ready()] {
            assert!(handshake.monitor(&message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn status_comes_as_often_as_it_was_asked_for() {
        let none =
            MonitorStatus { lines: Bounded::default(), network: None, namespace: None, host: None };
        let status = MonitorToSupervisor::Status(Box::new(none));
        let mut handshake = Handshake::default();
        handshake.monitor(&HELLO).unwrap();
        assert!(handshake.monitor(&status).is_err());
        handshake.status_requested();
        handshake.status_requested();
        assert!(handshake.monitor(&status).is_ok());
        assert!(handshake.monitor(&status).is_ok());
        assert!(handshake.monitor(&status).is_err());
    }

    #[test]
    fn status_file_comes_once_and_after_start() {
        let file = MonitorToSupervisor::StatusFile;
        let mut handshake = Handshake::default();
        handshake.monitor(&HELLO).unwrap();
        assert!(handshake.monitor(&file).is_err());
        handshake.started(TapUse::Make);
        assert!(handshake.monitor(&file).is_ok());
        assert!(handshake.monitor(&file).is_err());
    }

    #[test]
    fn explanation_is_no_answer_to_start() {
        let none = FamilyExplanation {
            state: FamilyState::Off,
            template: None,
            candidates: Text::default(),
            addresses: Bounded::default(),
            gateway: None,
            routes: Bounded::default(),
            more_routes: 0,
        };
        let explained = MonitorToSupervisor::Explained(Box::new(Explanation {
            tap_name: "tap0".to_owned().try_into().unwrap(),
            mtu: None,
            ipv4: none.clone(),
            ipv6: none,
            left_out: 0,
        }));
        let mut handshake = Handshake::default();
        handshake.monitor(&HELLO).unwrap();
        assert!(handshake.monitor(&explained).is_err());
        handshake.started(TapUse::None);
        assert!(handshake.monitor(&explained).is_err());
    }

    #[test]
    fn monitor_that_is_to_make_no_tap_is_ready_without_one() {
        let mut handshake = Handshake::default();
        handshake.monitor(&HELLO).unwrap();
        assert!(handshake.monitor(&ready()).is_err());
        handshake.started(TapUse::None);
        assert!(handshake.monitor(&tap()).is_err());
        assert!(handshake.monitor(&ready()).is_ok());
        assert!(handshake.monitor(&ready()).is_err());
    }

    #[test]
    fn nothing_comes_before_hello_and_no_tap_before_start() {
        for message in [log(), tap(), ready()] {
            assert!(Handshake::default().monitor(&message).is_err(), "{message:?}");
        }
        let mut handshake = Handshake::default();
        handshake.monitor(&HELLO).unwrap();
        assert!(handshake.monitor(&tap()).is_err());
        handshake.started(TapUse::Make);
        assert!(handshake.monitor(&ready()).is_err());
    }

    #[test]
    fn datapath_is_ready_once_and_only_after_start() {
        let ready = DatapathToSupervisor::Ready(Box::<AuditReport>::default());
        let mut handshake = Handshake::default();
        handshake.datapath(&DatapathToSupervisor::Hello(Hello::OURS)).unwrap();
        assert!(handshake.datapath(&ready).is_err());
        handshake.started(TapUse::Make);
        assert!(handshake.datapath(&DatapathToSupervisor::PortsOpen).is_err());
        assert!(handshake.datapath(&ready).is_ok());
        assert!(handshake.datapath(&ready).is_err());
        assert!(handshake.datapath(&DatapathToSupervisor::PortsOpen).is_ok());
        assert!(handshake.datapath(&DatapathToSupervisor::PortsOpen).is_err());
    }

    #[test]
    fn other_version_is_refused() {
        let hello = MonitorToSupervisor::Hello(Hello { version: 999 });
        assert!(Handshake::default().monitor(&hello).unwrap_err().contains("999"));
    }
}
