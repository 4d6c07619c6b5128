#![forbid(unsafe_code)]
//! Lines for the log, kept until they are sent to the supervisor.

use crate::time::Instant;
use pasta_ipc::types::LogLevel;
use std::collections::VecDeque;
use std::fmt::Display;
use std::time::Duration;

/// Lines that are kept between two turns of the loop; chosen: more than its channel takes. What comes beyond is
/// counted.
const MOST_LINES: usize = 1024;

/// Time between two lines about the same lack.
const INTERVAL: Duration = Duration::from_secs(60);

/// A line that is not to be logged too often.
#[derive(Debug, Default)]
struct RateLimit {
    last: Option<Instant>,
    withheld: u64,
}

impl RateLimit {
    /// Whether the line is due; if so, how often it was withheld.
    fn due(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.since(last) < INTERVAL) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.withheld))
    }
}

/// The lines that are to be sent, in order.
#[derive(Debug)]
pub struct Log {
    level: LogLevel,
    lines: VecDeque<(LogLevel, String)>,
    withheld: u64,
    exhausted: RateLimit,
    no_ping: bool,
}

impl Log {
    /// Lines less important than `level` are not kept.
    pub fn new(level: LogLevel) -> Self {
        let (lines, exhausted) = (VecDeque::new(), RateLimit::default());
        Self { level, lines, withheld: 0, exhausted, no_ping: false }
    }

    /// Adds a line; it is not made if it is not kept.
    #[inline]
    pub fn add(&mut self, level: LogLevel, line: impl FnOnce() -> String) {
        if level > self.level {
            return;
        }
        if self.lines.len() >= MOST_LINES {
            self.withheld += 1;
            return;
        }
        self.lines.push_back((level, line()));
    }

    /// Adds a line, at most once a minute, that something cannot be had.
    pub fn exhausted(&mut self, now: Instant, what: &str, why: &dyn Display) {
        if let Some(withheld) = self.exhausted.due(now) {
            self.add(LogLevel::Warn, || match withheld {
                0 => format!("{what}: {why}"),
                more => format!("{what}: {why} (and {more} times more since this was said last)"),
            });
        }
    }

    /// Adds a line, once, that echo requests are refused by the host.
    pub fn no_ping(&mut self) {
        if !std::mem::replace(&mut self.no_ping, true) {
            self.add(LogLevel::Warn, || {
                "echo requests are not forwarded: this group is not in \
                 net.ipv4.ping_group_range of the host"
                    .to_owned()
            });
        }
    }

    /// The next line to send.
    pub fn take(&mut self) -> Option<(LogLevel, String)> {
        self.lines.pop_front()
    }

    /// How many lines were not kept since this was asked last.
    pub fn take_withheld(&mut self) -> u64 {
        std::mem::take(&mut self.withheld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_due_once_a_minute_with_how_often_it_was_not() {
        let mut line = RateLimit::default();
        let start = Instant::START;
        assert_eq!(line.due(start), Some(0));
        assert_eq!(line.due(start + Duration::from_secs(1)), None);
        assert_eq!(line.due(start + Duration::from_secs(59)), None);
        assert_eq!(line.due(start + Duration::from_secs(60)), Some(2));
        assert_eq!(line.due(start + Duration::from_secs(120)), Some(0));
    }

    #[test]
    fn lines_are_kept_by_level_and_up_to_a_bound() {
        let mut log = Log::new(LogLevel::Info);
        log.add(LogLevel::Debug, || panic!("not made"));
        for n in 0..MOST_LINES + 3 {
            log.add(LogLevel::Info, || n.to_string());
        }
        assert_eq!(log.take(), Some((LogLevel::Info, "0".to_owned())));
        assert_eq!((log.take_withheld(), log.take_withheld()), (3, 0));
    }
}
