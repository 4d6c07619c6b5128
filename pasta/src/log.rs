//! The log, written by this process only: to standard error, a file, the system log.
//!
//! | start | lines go to |
//! | --- | --- |
//! | COMMAND | standard error; with `-l` also the file |
//! | attached, until ready | standard error, and the file or the system log |
//! | attached, in the background | the file or the system log |
//!
//! Lines of the helpers come from less trusted processes. Control characters in them are escaped, so
//! that they can neither forge a line nor control a terminal, and the rate of each helper is limited. A
//! line that cannot be written (closed or full pipe, full disk) is dropped; writing never blocks ([`crate::log_writer`]).

use crate::log_file::{LogFile, LogFileError, Written};
use crate::log_writer::LogWriter;
use crate::options::LogOptions;
use crate::syslog::Syslog;
use crate::target::Target;
use nix::unistd::Pid;
use pasta::error_text::without_numbers;
use pasta_ipc::types::{LogLevel, LogRecord, Text};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Stderr, Write as _, stderr};
use std::time::{Duration, Instant};

/// Most lines that a helper may have written in [`WINDOW`]. Chosen: far above what warnings need
/// (5 per second and place), far below what would fill a disk unnoticed.
const LINES_PER_WINDOW: u32 = 100;

/// As [`LINES_PER_WINDOW`], when lines for every flow or frame were asked for.
const LINES_PER_WINDOW_DEBUG: u32 = 20_000;

/// Interval of the rate limit.
const WINDOW: Duration = Duration::from_secs(1);

/// Which helper a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    /// `pasta-monitor`
    Monitor,
    /// `pasta-datapath`
    Datapath,
}

impl Helper {
    /// The program's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Monitor => "pasta-monitor",
            Self::Datapath => "pasta-datapath",
        }
    }
}

/// Writes lines at least as important as a level.
#[derive(Debug)]
pub(crate) struct Log {
    level: LogLevel,
    start: Instant,
    monitor: RateLimit,
    datapath: RateLimit,
    stderr: Option<StandardError>,
    file: Option<LogFile>,
    syslog: Option<Syslog>,
}

/// Standard error, and the least important level that is written there.
#[derive(Debug)]
struct StandardError {
    writer: LogWriter<Stderr>,
    level: LogLevel,
}

impl Log {
    /// A log that counts its timestamps from now.
    pub(crate) fn new(level: LogLevel) -> Self {
        let start = Instant::now();
        let rate_limit = RateLimit::new(start, limit(level));
        let stderr = Some(StandardError { writer: LogWriter::new(stderr()), level });
        let (monitor, datapath) = (rate_limit, rate_limit);
        Self { level, start, monitor, datapath, stderr, file: None, syslog: None }
    }

    /// Opens the log file, or connects to the system log where `target` exists already.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub(crate) fn open(
        &mut self,
        options: &LogOptions,
        target: &Target,
        pid: Pid,
    ) -> Result<(), LogFileError> {
        match (&options.file, target) {
            (Some(path), _) => self.file = Some(LogFile::create(path, options.size, pid)?),
            // Debugging is for whoever reads standard error.
            (None, Target::Existing(_)) if self.level <= LogLevel::Info => {
                self.syslog = Syslog::connect(pid);
            }
            (None, _) => {}
        }
        if let (Some(stderr), Some(_), Target::Command(_)) = (&mut self.stderr, &self.file, target)
        {
            stderr.level = stderr.level.min(LogLevel::Notice);
        }
        Ok(())
    }

    /// Writes nothing to standard error any more, and closes what was opened for that.
    pub(crate) fn leave_standard_error(&mut self) {
        // Once only: a confined process cannot connect.
        let first = self.stderr.take().is_some();
        if first && self.file.is_none() && self.syslog.is_none() {
            self.syslog = Syslog::connect(nix::unistd::getpid());
        }
    }

    /// Writes one line of our own.
    pub(crate) fn write(&mut self, level: LogLevel, text: &str) {
        if level > self.level {
            return;
        }
        let text = &without_numbers(text);
        let elapsed = self.start.elapsed();
        let written = self.file.as_mut().map(|file| {
            let line = file_line(elapsed, level, text);
            file.write(&line, self.start + elapsed)
        });
        if let (Some(Written::FirstLost(errno)), Some(stderr)) = (written, &mut self.stderr) {
            let why = format!("the log file cannot be written: {}", errno.desc());
            stderr.write(self.level, elapsed, LogLevel::Warn, &why);
        }
        if let Some(syslog) = &mut self.syslog {
            let mut escaped = String::new();
            escape(text, &mut escaped);
            syslog.write(level, &escaped);
        }
        if let Some(stderr) = self.stderr.as_mut().filter(|stderr| level <= stderr.level) {
            stderr.write(self.level, elapsed, level, text);
        }
    }

    /// As [`Log::write`].
    pub(crate) fn error(&mut self, text: &str) {
        self.write(LogLevel::Error, text);
    }

    /// As [`Log::write`].
    pub(crate) fn warn(&mut self, text: &str) {
        self.write(LogLevel::Warn, text);
    }

    /// As [`Log::write`].
    pub(crate) fn notice(&mut self, text: &str) {
        self.write(LogLevel::Notice, text);
    }

    /// As [`Log::write`].
    pub(crate) fn debug(&mut self, text: &str) {
        self.write(LogLevel::Debug, text);
    }

    /// Writes a line that was asked for, whatever the level.
    pub(crate) fn status(&mut self, text: &str) {
        let text = format!("status: {text}");
        let elapsed = self.start.elapsed();
        if let Some(file) = &mut self.file {
            // As for any other line, the next one reports the loss.
            file.write(&file_line(elapsed, LogLevel::Info, &text), self.start + elapsed);
        }
        let mut escaped = String::new();
        escape(&text, &mut escaped);
        if let Some(syslog) = &mut self.syslog {
            syslog.write(LogLevel::Info, &escaped);
        }
        if let Some(stderr) = &mut self.stderr {
            stderr.write_line(self.level, elapsed, &format!("pasta: {escaped}\n"));
        }
    }

    /// Writes the datapath's counters, or counts the line if the datapath is over its rate limit.
    pub(crate) fn statistics(&mut self, line: &Text<1024>) {
        let Decision { write, .. } = self.datapath.take(Instant::now());
        if write {
            self.status(&format!("counters: {line}"));
        }
    }

    /// Writes a line for a person: to standard error only if that is a terminal, whatever the level.
    pub(crate) fn notice_at_terminal(&mut self, text: &str) {
        let elapsed = self.start.elapsed();
        if let Some(stderr) = self.stderr.as_mut().filter(|_| stderr().is_terminal()) {
            stderr.write_line(self.level, elapsed, &format!("pasta: {text}\n"));
        }
    }

    /// Writes a helper's line, or counts it if the helper is over its rate limit.
    pub(crate) fn relay(&mut self, from: Helper, record: &LogRecord) {
        if record.level > self.level {
            return;
        }
        let now = Instant::now();
        let rate_limit = match from {
            Helper::Monitor => &mut self.monitor,
            Helper::Datapath => &mut self.datapath,
        };
        let Decision { withheld_before, write } = rate_limit.take(now);
        if withheld_before > 0 {
            let text = format!("{withheld_before} lines of {} withheld", from.name());
            self.warn(&text);
        }
        if write {
            self.write(record.level, &format!("{}: {}", from.name(), record.text));
        }
    }
}

impl StandardError {
    fn write(&mut self, threshold: LogLevel, elapsed: Duration, level: LogLevel, text: &str) {
        self.write_line(threshold, elapsed, &line(threshold, elapsed, level, text));
    }

    /// Writes a whole line without blocking, or counts it as lost.
    fn write_line(&mut self, threshold: LogLevel, elapsed: Duration, text: &str) {
        self.writer.write(text, |lost| {
            let text = format!("{lost} lines lost: nobody read the log");
            line(threshold, elapsed, LogLevel::Warn, &text)
        });
    }
}

/// Writes `text` to standard error, without the numbers of errors and otherwise unchanged, and ignores errors. May
/// block: only for use before COMMAND runs, and in process 1.
pub(crate) fn emit(text: &str) {
    // There is nowhere to report the error.
    let _ = stderr().write_all(without_numbers(text).as_bytes());
}

fn limit(level: LogLevel) -> u32 {
    if level >= LogLevel::Debug { LINES_PER_WINDOW_DEBUG } else { LINES_PER_WINDOW }
}

/// One line with its end. With debugging it begins with the time since the start, in seconds and
/// ten thousandths; without, with the program's name, as errors on a terminal do.
fn line(threshold: LogLevel, elapsed: Duration, level: LogLevel, text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 32);
    if threshold >= LogLevel::Debug {
        let (seconds, fraction) = (elapsed.as_secs(), elapsed.subsec_micros() / 100);
        // Writing to a String cannot fail.
        let _ = write!(line, "{seconds}.{fraction:04}: ");
    } else {
        line.push_str("pasta: ");
    }
    line.push_str(match level {
        LogLevel::Error => "",
        LogLevel::Warn => "warning: ",
        LogLevel::Notice => "notice: ",
        LogLevel::Info => "info: ",
        LogLevel::Debug => "debug: ",
        LogLevel::Trace => "trace: ",
    });
    escape(text, &mut line);
    line.push('\n');
    line
}

/// One line of the log file with its end.
fn file_line(elapsed: Duration, level: LogLevel, text: &str) -> String {
    let (seconds, fraction) = (elapsed.as_secs(), elapsed.subsec_micros() / 100);
    let label = match level {
        LogLevel::Error => "ERROR:   ",
        LogLevel::Warn => "WARNING: ",
        LogLevel::Notice => "notice:  ",
        LogLevel::Info => "info:    ",
        LogLevel::Debug | LogLevel::Trace => "         ",
    };
    let mut line = format!("{seconds}.{fraction:04}: {label}");
    escape(text, &mut line);
    line.push('\n');
    line
}

/// Appends `text`, with control characters (and what turns the direction of text) as `\u{..}`.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// The rate limit of one helper.
#[derive(Clone, Copy, Debug)]
struct RateLimit {
    limit: u32,
    since: Instant,
    written: u32,
    withheld: u32,
}

/// What to do with one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    /// Lines dropped before this one and not reported yet.
    withheld_before: u32,
    write: bool,
}

impl RateLimit {
    fn new(now: Instant, limit: u32) -> Self {
        Self { limit, since: now, written: 0, withheld: 0 }
    }

    fn take(&mut self, now: Instant) -> Decision {
        let mut withheld_before = 0;
        if now.saturating_duration_since(self.since) >= WINDOW {
            withheld_before = self.withheld;
            *self = Self::new(now, self.limit);
        }
        let write = self.written < self.limit;
        if write {
            self.written += 1;
        } else {
            self.withheld = self.withheld.saturating_add(1);
        }
        Decision { withheld_before, write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_forge_a_line() {
        let shown =
            line(LogLevel::Warn, Duration::ZERO, LogLevel::Warn, "a\nb\x1b[2J\u{202e}é\u{9b}");
        assert_eq!(shown, "pasta: warning: a\\nb\\u{1b}[2J\\u{202e}é\\u{9b}\n");
    }

    #[test]
    fn debugging_brings_timestamps_in_ten_thousandths() {
        let elapsed = Duration::from_micros(12_034_599);
        assert_eq!(line(LogLevel::Debug, elapsed, LogLevel::Error, "x"), "12.0345: x\n");
        assert_eq!(line(LogLevel::Trace, elapsed, LogLevel::Debug, "x"), "12.0345: debug: x\n");
    }

    #[test]
    fn errors_have_the_programs_name_only() {
        assert_eq!(line(LogLevel::Warn, Duration::ZERO, LogLevel::Error, "x"), "pasta: x\n");
    }

    #[test]
    fn lines_over_the_limit_are_counted_and_reported_in_the_next_window() {
        let start = Instant::now();
        let mut rate_limit = RateLimit::new(start, 2);
        let decision = |n, write| Decision { withheld_before: n, write };
        assert_eq!(rate_limit.take(start), decision(0, true));
        assert_eq!(rate_limit.take(start), decision(0, true));
        assert_eq!(rate_limit.take(start), decision(0, false));
        assert_eq!(rate_limit.take(start + WINDOW / 2), decision(0, false));
        assert_eq!(rate_limit.take(start + WINDOW), decision(2, true));
        assert_eq!(rate_limit.take(start + WINDOW), decision(0, true));
    }
}
