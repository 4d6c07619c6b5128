//! What is logged of listeners: each that cannot be opened once, and one summary where ports are many.

use super::listeners::ListenerSpec;
use super::rules::{ForwardTarget, RuleIndex};
use crate::log::Log;
use nix::errno::Errno;
use pasta_ipc::port_forward::{Direction, Effort};
use pasta_ipc::types::LogLevel;
use std::collections::BTreeMap;

/// What was logged.
#[derive(Debug, Default)]
pub struct Report {
    /// Listeners that could not be opened, and why, and for which rule.
    refused: BTreeMap<ListenerSpec, (Errno, RuleIndex)>,
    /// The last summary of each direction, so that none is logged twice in a row.
    summaries: [String; 2],
}

impl Report {
    /// Forgets listeners of `direction` that are not wanted any more.
    pub(super) fn keep(
        &mut self,
        direction: Direction,
        wanted: &BTreeMap<ListenerSpec, ForwardTarget>,
    ) {
        self.refused.retain(|spec, _| spec.direction() != direction || wanted.contains_key(spec));
    }

    /// Logs once for each listener why it cannot be opened; where ports are many, the summary does.
    pub(super) fn opened(
        &mut self,
        log: &mut Log,
        spec: ListenerSpec,
        target: ForwardTarget,
        opened: Result<(), Errno>,
    ) {
        let Err(errno) = opened else {
            self.refused.remove(&spec);
            return;
        };
        let level = match target.effort {
            Effort::Explicit => LogLevel::Warn,
            Effort::Auto => LogLevel::Info,
            Effort::BestEffort => LogLevel::Debug,
        };
        let before = self.refused.insert(spec.clone(), (errno, target.rule));
        if before.map(|(before, _)| before) != Some(errno) {
            log.add(level, || format!("cannot listen on {spec}: {}", errno.desc()));
        }
    }

    /// Listeners that are wanted and could not be opened, and why, and for which rule.
    pub fn refused(&self) -> &BTreeMap<ListenerSpec, (Errno, RuleIndex)> {
        &self.refused
    }

    /// Logs what became of ports of rules that are followed as far as possible, unless that was logged last.
    pub(super) fn summary(&mut self, log: &mut Log, direction: Direction, counts: &Counts) {
        let [inbound, outbound] = &mut self.summaries;
        let (side, last) = match direction {
            Direction::Inbound => ("host", inbound),
            Direction::Outbound => ("namespace", outbound),
        };
        // Ports that were refused are tried again; only if that opens some there is something new.
        let is_news = |line: &String| last != line && (counts.opened > 0 || last.is_empty());
        if let Some((level, line)) = counts.line(side).filter(|(_, line)| is_news(line)) {
            last.clone_from(&line);
            log.add(level, || line);
        }
    }
}

/// Ports of rules that are followed as far as possible.
#[derive(Debug, Default)]
pub(super) struct Counts {
    opened: usize,
    /// By errno.
    refused: BTreeMap<i32, usize>,
}

impl Counts {
    pub(super) fn add(&mut self, effort: Effort, opened: Result<(), Errno>) {
        match (effort, opened) {
            (Effort::BestEffort, Ok(())) => self.opened += 1,
            (Effort::BestEffort, Err(errno)) => *self.refused.entry(errno as i32).or_default() += 1,
            _ => {}
        }
    }

    /// One line for all of them; none if there are none.
    fn line(&self, side: &str) -> Option<(LogLevel, String)> {
        let refused: usize = self.refused.values().sum();
        if self.opened + refused == 0 {
            return None;
        }
        let mut line = format!("listening on {} more ports of the {side}", self.opened);
        if refused > 0 {
            line.push_str(&format!(", not on {refused}:"));
            for (errno, count) in &self.refused {
                let reason = match Errno::from_raw(*errno) {
                    Errno::EMFILE => "limit of descriptors",
                    errno => errno.desc(),
                };
                line.push_str(&format!(" {reason} ({count})"));
            }
        }
        let level = if refused > 0 { LogLevel::Warn } else { LogLevel::Info };
        Some((level, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ports_are_one_line_with_the_reasons() {
        let mut counts = Counts::default();
        assert_eq!(counts.line("host"), None);
        counts.add(Effort::Explicit, Err(Errno::EADDRINUSE));
        counts.add(Effort::Auto, Ok(()));
        assert_eq!(counts.line("host"), None);
        for _ in 0..5 {
            counts.add(Effort::BestEffort, Ok(()));
        }
        counts.add(Effort::BestEffort, Err(Errno::EADDRINUSE));
        counts.add(Effort::BestEffort, Err(Errno::EMFILE));
        let (level, line) = counts.line("host").unwrap();
        assert_eq!(level, LogLevel::Warn);
        assert!(line.starts_with("listening on 5 more ports of the host, not on 2:"), "{line}");
        assert!(line.contains("limit of descriptors (1)"), "{line}");
    }
}
