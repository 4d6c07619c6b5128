//! After start-up: signals to COMMAND, the fate of the helpers, COMMAND's status.
//!
//! What to do about an event is decided by [`Watch::handle`], which does nothing itself:
//!
//! | event | answer |
//! | --- | --- |
//! | TERM, INT, HUP, QUIT | passed on to COMMAND, unless the terminal sent them: COMMAND has them |
//! | USR1 | how things stand goes to the log |
//! | USR2 | host and namespace are read again, and what is not as it should be is put right |
//! | datapath ends | one line, monitor told to stop; COMMAND goes on without network |
//! | monitor ends | one line; traffic goes on with what the datapath knows |
//! | a helper breaks the protocol | one line, both are ended; COMMAND goes on without network |
//! | process 1 ends, and COMMAND with it | helpers are ended, its status is ours |
//!
//! Beside that it follows the host's resolvers, which is decided in [`crate::resolver`].

use crate::children::{Children, Event};
use crate::log::{Helper, Log};
use crate::resolver::{News, Resolvers};
use crate::signals::{Arrived, Sender};
use crate::status::Ending;
use nix::sys::signal::Signal;
use pasta_ipc::types::{LogLevel, LogRecord};
use pasta_ipc::{DatapathToSupervisor, MonitorToSupervisor, SendError, SupervisorToDatapath};
use seccomp::Confined;
use std::io;
use std::time::Instant;

/// Whether we lead our session. When its terminal is lost, the kernel tells the leader alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// We do.
    Ours,
    /// Somebody else does, and passes the hang-up on.
    Callers,
}

/// Something to do.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    /// Pass a signal on to COMMAND.
    Pass(Signal),
    /// Ask the monitor to end.
    StopMonitor,
    /// End both helpers.
    KillHelpers,
    /// Ask the monitor how things stand.
    AskForStatus,
    /// Ask the monitor to look at everything again.
    AskForLook,
    /// Write how things stand.
    Status(Vec<String>),
    /// Write a line of our own.
    Log(LogLevel, String),
    /// Write a helper's line.
    Relay(Helper, LogRecord),
    /// End with this status, and the helpers with us.
    End(i32),
}

/// What is known of a helper.
#[derive(Debug, Default, PartialEq, Eq)]
enum Health {
    /// It works.
    #[default]
    Working,
    /// It has said why it is about to end.
    Failed(String),
    /// We have asked or forced it to end.
    Dismissed,
}

/// What the supervisor remembers.
#[derive(Debug)]
struct Watch {
    session: Session,
    monitor: Health,
    datapath: Health,
}

/// Supervises until COMMAND has ended, and returns the status to end with.
///
/// # Errors
///
/// If there is no way to wait for anything; the helpers have been ended then.
pub(crate) fn run(
    _: Confined,
    mut children: Children,
    mut resolvers: Resolvers,
    session: Session,
    log: &mut Log,
) -> io::Result<i32> {
    let mut watch = Watch { session, monitor: Health::default(), datapath: Health::default() };
    loop {
        let now = Instant::now();
        let limit = resolvers.next_deadline().map(|at| at.saturating_duration_since(now));
        let events = children.next(limit).inspect_err(|_| children.kill_helpers())?;
        follow(&mut resolvers, &children, log);
        for action in events.into_iter().flat_map(|event| watch.handle(event)) {
            match action {
                Action::Pass(signal) => children.pass_on(signal),
                Action::StopMonitor => children.stop_monitor(),
                Action::KillHelpers => children.kill_helpers(),
                Action::AskForStatus => {
                    // Without the monitor there is less to tell.
                    if children.ask_for_status().is_err() {
                        log.status("monitor cannot be asked");
                        log.status(&resolvers.status());
                    }
                }
                Action::AskForLook => {
                    if children.ask_for_look().is_err() {
                        log.warn("monitor cannot be asked to look again");
                    }
                }
                Action::Status(lines) => {
                    lines.iter().for_each(|line| log.status(line));
                    log.status(&resolvers.status());
                }
                Action::Log(level, text) => log.write(level, &text),
                Action::Relay(helper, record) => log.relay(helper, &record),
                Action::End(status) => {
                    // Whatever fails here, all is over.
                    let last = children.close_ports().unwrap_or_default();
                    for event in last {
                        if let Event::Datapath(DatapathToSupervisor::Log(record)) = event {
                            log.relay(Helper::Datapath, &record);
                        }
                    }
                    children.kill_helpers();
                    return Ok(status);
                }
            }
        }
    }
}

/// Tells the datapath of the host's resolvers where they have changed.
fn follow(resolvers: &mut Resolvers, children: &Children, log: &mut Log) {
    let now = Instant::now();
    for news in resolvers.turn(now) {
        match news {
            News::Line(level, text) => log.write(level, &text),
            News::List(list) => {
                let told = children.tell_datapath(&SupervisorToDatapath::Resolvers(list.clone()));
                // A datapath that is gone needs no list.
                if matches!(told, Err(SendError::WouldBlock)) {
                    resolvers.not_sent(list, now);
                }
            }
        }
    }
}

impl Watch {
    fn handle(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Signal(Arrived { signal: Some(Signal::SIGUSR1), .. }) => {
                vec![Action::AskForStatus]
            }
            Event::Signal(Arrived { signal: Some(Signal::SIGUSR2), .. }) => {
                vec![Action::AskForLook]
            }
            Event::Signal(arrived) => {
                self.passed_on(arrived).map(Action::Pass).into_iter().collect()
            }
            Event::Monitor(MonitorToSupervisor::Status(lines), _) => {
                let lines = lines.as_slice().iter().map(|line| line.as_str().to_owned());
                vec![Action::Status(lines.collect())]
            }
            // It has said all before COMMAND was started.
            Event::First(_) => Vec::new(),
            Event::FirstEnded(ending) => vec![Action::End(ending.as_exit_status())],
            Event::Monitor(MonitorToSupervisor::Log(record), _) => {
                self.relay(Helper::Monitor, record)
            }
            Event::Datapath(DatapathToSupervisor::Log(record)) => {
                self.relay(Helper::Datapath, record)
            }
            Event::Monitor(MonitorToSupervisor::Failed(why), _) => {
                self.failed(Helper::Monitor, why.to_string());
                Vec::new()
            }
            Event::Datapath(DatapathToSupervisor::Failed(why)) => {
                self.failed(Helper::Datapath, why.to_string());
                Vec::new()
            }
            // What belongs to start-up is over: `peer.rs` lets none of it through twice.
            Event::Monitor(..) | Event::Datapath(_) => Vec::new(),
            Event::Violation(helper, why) => {
                self.monitor = Health::Dismissed;
                self.datapath = Health::Dismissed;
                let text = format!("{}: {why}: the namespace has no network", helper.name());
                vec![Action::Log(LogLevel::Error, text), Action::KillHelpers]
            }
            Event::HelperEnded(helper, ending) => self.ended(helper, ending),
        }
    }

    fn passed_on(&self, arrived: Arrived) -> Option<Signal> {
        let signal = arrived.for_command()?;
        let command_has_it = match (arrived.sender, self.session, signal) {
            (Sender::Terminal, Session::Ours, Signal::SIGHUP) => false,
            (sender, _, _) => sender == Sender::Terminal,
        };
        (!command_has_it).then_some(signal)
    }

    fn health(&mut self, helper: Helper) -> &mut Health {
        match helper {
            Helper::Monitor => &mut self.monitor,
            Helper::Datapath => &mut self.datapath,
        }
    }

    /// What a helper says after we have ended it is about that, and has been said.
    fn relay(&mut self, helper: Helper, record: LogRecord) -> Vec<Action> {
        match self.health(helper) {
            Health::Dismissed => Vec::new(),
            _ => vec![Action::Relay(helper, record)],
        }
    }

    fn failed(&mut self, helper: Helper, why: String) {
        let health = self.health(helper);
        if *health != Health::Dismissed {
            *health = Health::Failed(why);
        }
    }

    fn ended(&mut self, helper: Helper, ending: Ending) -> Vec<Action> {
        let consequence = match helper {
            Helper::Monitor => "traffic goes on, changes of the host's network are not followed",
            Helper::Datapath => "the namespace has no network",
        };
        let why = match std::mem::replace(self.health(helper), Health::Dismissed) {
            Health::Dismissed => return Vec::new(),
            Health::Working => format!("{} {ending}", helper.name()),
            Health::Failed(why) => format!("{} {ending}: {why}", helper.name()),
        };
        let line = Action::Log(LogLevel::Error, format!("{why}: {consequence}"));
        if helper == Helper::Monitor {
            return vec![line];
        }
        self.monitor = Health::Dismissed;
        vec![line, Action::StopMonitor]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::Text;

    fn watch(session: Session) -> Watch {
        Watch { session, monitor: Health::Working, datapath: Health::Working }
    }

    fn signal(signal: Signal, sender: Sender) -> Event {
        Event::Signal(Arrived { signal: Some(signal), sender })
    }

    fn lines(actions: &[Action]) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Log(..))).count()
    }

    #[test]
    fn signals_are_passed_on_unless_the_terminal_sent_them() {
        let mut watch = watch(Session::Callers);
        for name in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            assert_eq!(watch.handle(signal(name, Sender::Process)), [Action::Pass(name)]);
            assert_eq!(watch.handle(signal(name, Sender::Outside)), [Action::Pass(name)]);
            assert_eq!(watch.handle(signal(name, Sender::Terminal)), []);
        }
        let own = |name| signal(name, Sender::Process);
        assert_eq!(watch.handle(own(Signal::SIGUSR1)), [Action::AskForStatus]);
        assert_eq!(watch.handle(own(Signal::SIGUSR2)), [Action::AskForLook]);
        assert_eq!(watch.handle(own(Signal::SIGCHLD)), []);
    }

    #[test]
    fn hang_up_told_to_the_session_leader_alone_is_passed_on() {
        let mut watch = watch(Session::Ours);
        let hang_up = signal(Signal::SIGHUP, Sender::Terminal);
        assert_eq!(watch.handle(hang_up), [Action::Pass(Signal::SIGHUP)]);
        assert_eq!(watch.handle(signal(Signal::SIGINT, Sender::Terminal)), []);
    }

    #[test]
    fn end_of_the_datapath_is_one_line_and_the_monitor_is_told_to_stop() {
        let mut watch = watch(Session::Callers);
        let ended = |helper| Event::HelperEnded(helper, Ending::Killed(Signal::SIGKILL));
        let actions = watch.handle(ended(Helper::Datapath));
        let text = "pasta-datapath was killed by SIGKILL: the namespace has no network";
        assert_eq!(actions, [Action::Log(LogLevel::Error, text.into()), Action::StopMonitor]);
        assert_eq!(watch.handle(ended(Helper::Monitor)), []);
    }

    #[test]
    fn last_words_are_part_of_the_line() {
        let mut watch = watch(Session::Callers);
        let failed = MonitorToSupervisor::Failed(Text::truncated("no more memory"));
        assert_eq!(watch.handle(Event::Monitor(failed, Vec::new())), []);
        let actions = watch.handle(Event::HelperEnded(Helper::Monitor, Ending::Exited(1)));
        let [Action::Log(LogLevel::Error, text)] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert!(text.starts_with("pasta-monitor ended with status 1: no more memory: traffic"));
    }

    #[test]
    fn violation_ends_both_helpers_and_not_the_command() {
        let mut watch = watch(Session::Callers);
        let actions = watch.handle(Event::Violation(Helper::Datapath, "bad message".into()));
        assert_eq!(lines(&actions), 1);
        assert_eq!(actions.last(), Some(&Action::KillHelpers));
        for helper in [Helper::Datapath, Helper::Monitor] {
            let ended = Event::HelperEnded(helper, Ending::Killed(Signal::SIGKILL));
            assert_eq!(watch.handle(ended), []);
        }
    }

    #[test]
    fn status_of_the_command_is_ours_whatever_became_of_the_helpers() {
        let mut watch = watch(Session::Callers);
        watch.handle(Event::HelperEnded(Helper::Datapath, Ending::Exited(134)));
        assert_eq!(watch.handle(Event::FirstEnded(Ending::Exited(7))), [Action::End(7)]);
        let killed = Event::FirstEnded(Ending::Killed(Signal::SIGKILL));
        assert_eq!(watch.handle(killed), [Action::End(137)]);
    }
}
