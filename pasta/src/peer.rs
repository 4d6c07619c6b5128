//! Which message of a helper is allowed when.
//!
//! | message | allowed |
//! | --- | --- |
//! | `Hello` | first, once, with our version |
//! | `TapReady` (monitor) | once, after it was told to start and to make one |
//! | `Ready` (monitor) | once, after `TapReady`, or after it was told to start without one |
//! | `Ready` (datapath) | once, after it was told to start |
//! | `Log`, `Failed` | at any time after `Hello` |
//! | `Status` (monitor) | once for each time it was asked for |

use pasta_ipc::channel::expect_hello;
use pasta_ipc::message::Hello;
use pasta_ipc::types::TapUse;
use pasta_ipc::{DatapathToSupervisor, MonitorToSupervisor};

/// How far the talk with a helper has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Talk {
    /// The last step that the helper has made.
    heard: Heard,
    /// Whether it has been told to start.
    told: Told,
    /// How often its status was asked for without an answer.
    asked: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Heard {
    #[default]
    Nothing,
    Hello,
    Tap,
    Ready,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Start(TapUse),
}

/// What matters of a message for the order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Hello(Hello),
    Tap,
    Ready,
    Words,
    /// A status that nobody asked for.
    Status,
}

impl Talk {
    /// Notes that the helper has been told to start; `tap` counts for the monitor.
    pub(crate) fn started(&mut self, tap: TapUse) {
        self.told = Told::Start(tap);
    }

    /// Notes that the monitor has been asked for its status.
    pub(crate) fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }

    /// Takes a message of the monitor.
    ///
    /// # Errors
    ///
    /// The violation, in words for the log.
    pub(crate) fn monitor(&mut self, message: &MonitorToSupervisor) -> Result<(), String> {
        let step = match message {
            MonitorToSupervisor::Hello(hello) => Step::Hello(*hello),
            MonitorToSupervisor::TapReady(_) => Step::Tap,
            MonitorToSupervisor::Ready(_) => Step::Ready,
            MonitorToSupervisor::Log(_) | MonitorToSupervisor::Failed(_) => Step::Words,
            MonitorToSupervisor::Status(_) if self.asked > 0 => {
                self.asked -= 1;
                Step::Words
            }
            MonitorToSupervisor::Status(_) => Step::Status,
        };
        let before_ready = match self.told {
            Told::Start(TapUse::None) => Heard::Hello,
            Told::Start(TapUse::Make) | Told::Nothing => Heard::Tap,
        };
        self.take(step, before_ready)
    }

    /// Takes a message of the datapath.
    ///
    /// # Errors
    ///
    /// As [`Talk::monitor`].
    pub(crate) fn datapath(&mut self, message: &DatapathToSupervisor) -> Result<(), String> {
        let step = match message {
            DatapathToSupervisor::Hello(hello) => Step::Hello(*hello),
            DatapathToSupervisor::Ready(_) => Step::Ready,
            DatapathToSupervisor::Log(_) | DatapathToSupervisor::Failed(_) => Step::Words,
        };
        self.take(step, Heard::Hello)
    }

    /// `before_ready` is what must have been heard last when `Ready` comes.
    fn take(&mut self, step: Step, before_ready: Heard) -> Result<(), String> {
        let heard = match (step, self.heard, self.told) {
            (Step::Hello(hello), Heard::Nothing, _) => {
                expect_hello(Some(hello)).map_err(|error| error.to_string())?;
                Heard::Hello
            }
            (_, Heard::Nothing, _) => return Err("first message is not Hello".into()),
            (Step::Words, heard, _) => heard,
            (Step::Tap, Heard::Hello, Told::Start(TapUse::Make)) => Heard::Tap,
            (Step::Ready, heard, Told::Start(_)) if heard == before_ready => Heard::Ready,
            (step, heard, told) => {
                return Err(format!("{step:?} out of turn (heard: {heard:?}, told: {told:?})"));
            }
        };
        self.heard = heard;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::{AuditReport, LogLevel, LogRecord, MacAddr, TapInfo, TapOffloads, Text};

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

    fn words() -> MonitorToSupervisor {
        let text = Text::truncated("x");
        MonitorToSupervisor::Log(LogRecord { level: LogLevel::Info, text })
    }

    const HELLO: MonitorToSupervisor = MonitorToSupervisor::Hello(Hello::OURS);

    #[test]
    fn monitor_says_hello_then_tap_then_ready() {
        let mut talk = Talk::default();
        assert!(talk.monitor(&HELLO).is_ok());
        assert!(talk.monitor(&words()).is_ok());
        talk.started(TapUse::Make);
        for message in [tap(), words(), ready(), words()] {
            assert!(talk.monitor(&message).is_ok(), "{message:?}");
        }
        for message in [HELLO, tap(), ready()] {
            assert!(talk.monitor(&message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn status_comes_as_often_as_it_was_asked_for() {
        let status = MonitorToSupervisor::Status(Box::default());
        let mut talk = Talk::default();
        talk.monitor(&HELLO).unwrap();
        assert!(talk.monitor(&status).is_err());
        talk.asked();
        talk.asked();
        assert!(talk.monitor(&status).is_ok());
        assert!(talk.monitor(&status).is_ok());
        assert!(talk.monitor(&status).is_err());
    }

    #[test]
    fn monitor_that_is_to_make_no_tap_is_ready_without_one() {
        let mut talk = Talk::default();
        talk.monitor(&HELLO).unwrap();
        assert!(talk.monitor(&ready()).is_err());
        talk.started(TapUse::None);
        assert!(talk.monitor(&tap()).is_err());
        assert!(talk.monitor(&ready()).is_ok());
        assert!(talk.monitor(&ready()).is_err());
    }

    #[test]
    fn nothing_comes_before_hello_and_no_tap_before_start() {
        for message in [words(), tap(), ready()] {
            assert!(Talk::default().monitor(&message).is_err(), "{message:?}");
        }
        let mut talk = Talk::default();
        talk.monitor(&HELLO).unwrap();
        assert!(talk.monitor(&tap()).is_err());
        talk.started(TapUse::Make);
        assert!(talk.monitor(&ready()).is_err());
    }

    #[test]
    fn datapath_is_ready_once_and_only_after_start() {
        let ready = DatapathToSupervisor::Ready(Box::<AuditReport>::default());
        let mut talk = Talk::default();
        talk.datapath(&DatapathToSupervisor::Hello(Hello::OURS)).unwrap();
        assert!(talk.datapath(&ready).is_err());
        talk.started(TapUse::Make);
        assert!(talk.datapath(&ready).is_ok());
        assert!(talk.datapath(&ready).is_err());
    }

    #[test]
    fn other_version_is_refused() {
        let hello = MonitorToSupervisor::Hello(Hello { version: 999 });
        assert!(Talk::default().monitor(&hello).unwrap_err().contains("999"));
    }
}
