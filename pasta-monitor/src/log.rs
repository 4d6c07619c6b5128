//! Lines for the log, sent to the supervisor, which alone writes it.

use crate::peer::ToSupervisor;
use pasta_ipc::types::{LogLevel, LogRecord, Text};
use pasta_ipc::{MonitorToSupervisor, SendError};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Sends lines to the supervisor. A line that finds the channel full is dropped and counted.
#[derive(Debug)]
pub struct Log {
    supervisor: Arc<ToSupervisor>,
    level: Cell<LogLevel>,
    withheld: Cell<u32>,
    /// Conditions that were warned of.
    logged: RefCell<BTreeSet<Condition>>,
}

/// What lasts and is warned of once: on which side, and what.
type Condition = (&'static str, &'static str);

impl Log {
    /// A log over `supervisor`, of level `Info` until it is set.
    pub fn new(supervisor: Arc<ToSupervisor>) -> Self {
        Self {
            supervisor,
            level: Cell::new(LogLevel::Info),
            withheld: Cell::new(0),
            logged: RefCell::default(),
        }
    }

    /// Lines less important than `level` are not sent from then on.
    pub fn set_level(&self, level: LogLevel) {
        self.level.set(level);
    }

    /// This process is about to end, or a feature is lost.
    pub fn error(&self, text: &str) {
        self.line(LogLevel::Error, text);
    }

    /// Someone should look, and can do something.
    pub fn warn(&self, text: &str) {
        self.line(LogLevel::Warn, text);
    }

    /// As [`Log::warn`], of something that lasts and is found anew at each look: the first time.
    pub fn warn_once(&self, condition: Condition, text: &str) {
        if self.logged.borrow_mut().insert(condition) {
            self.warn(text);
        } else {
            self.debug(text);
        }
    }

    /// What is not as the user may expect, without anybody's fault.
    pub fn notice(&self, text: &str) {
        self.line(LogLevel::Notice, text);
    }

    /// Once per life or per change.
    pub fn info(&self, text: &str) {
        self.line(LogLevel::Info, text);
    }

    /// Every request and its result.
    pub fn debug(&self, text: &str) {
        self.line(LogLevel::Debug, text);
    }

    fn line(&self, level: LogLevel, text: &str) {
        if level > self.level.get() {
            return;
        }
        let withheld = self.withheld.take();
        if withheld > 0 && !self.send(LogLevel::Warn, &format!("{withheld} log lines were lost")) {
            self.withheld.set(withheld.saturating_add(1));
            return;
        }
        if !self.send(level, text) {
            self.withheld.set(self.withheld.get().saturating_add(1));
        }
    }

    /// Whether the line was sent, or never can be.
    fn send(&self, level: LogLevel, text: &str) -> bool {
        let record = LogRecord { level, text: Text::truncated(text) };
        let sent = self.supervisor.send(&MonitorToSupervisor::Log(record));
        !matches!(sent, Err(SendError::WouldBlock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::SupervisorToMonitor;
    use pasta_ipc::channel::Channel;

    type Supervisor = Channel<SupervisorToMonitor, MonitorToSupervisor>;

    fn pair() -> (Log, Supervisor) {
        let (ours, theirs) = ToSupervisor::pair().unwrap();
        (Log::new(Arc::new(ours)), theirs)
    }

    fn lines(supervisor: &Supervisor) -> Vec<String> {
        let next = || match supervisor.receive().ok()?.message {
            MonitorToSupervisor::Log(record) => Some(record.text.as_str().to_owned()),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn lines_below_the_level_are_not_sent() {
        let (log, supervisor) = pair();
        log.debug("one");
        log.info("two");
        log.set_level(LogLevel::Warn);
        log.info("three");
        log.warn("four");
        assert_eq!(lines(&supervisor), ["two", "four"]);
    }

    #[test]
    fn what_lasts_is_warned_of_once() {
        let (log, supervisor) = pair();
        log.warn_once(("host", "links"), "one");
        log.warn_once(("host", "links"), "two");
        log.warn_once(("namespace", "links"), "three");
        assert_eq!(lines(&supervisor), ["one", "three"]);
    }

    #[test]
    fn lost_lines_are_counted_and_told_as_soon_as_there_is_room() {
        let (log, supervisor) = pair();
        for _ in 0..10_000 {
            log.info("line");
        }
        let arrived = lines(&supervisor).len();
        assert!(arrived < 10_000);
        log.info("last");
        let lost = format!("{} log lines were lost", 10_000 - arrived);
        assert_eq!(lines(&supervisor), [lost, "last".to_owned()]);
    }
}
