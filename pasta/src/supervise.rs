//! Supervision after start-up: passes signals on, watches the helpers, returns COMMAND's status.
//!
//! [`Supervision::handle`] decides what follows from an event and performs no I/O:
//!
//! | event | action |
//! | --- | --- |
//! | TERM, INT, HUP, QUIT | passed on to COMMAND, unless the terminal sent them to COMMAND too |
//! | USR1 | the status is written to the log |
//! | USR2 | host and namespace are read again and reconciled |
//! | datapath ends | one error line, the monitor is stopped; COMMAND continues without network |
//! | monitor ends | one error line; traffic continues with the last snapshot |
//! | a helper breaks the protocol | one error line, both helpers are killed; COMMAND continues without network |
//! | process 1 ends, and COMMAND with it | the helpers are killed, its status becomes ours |
//!
//! It also follows the host's resolvers ([`crate::resolver`]).

use crate::children::{Children, Event};
use crate::log::{Helper, Log};
use crate::resolver::{Resolvers, Update};
use crate::signals::{ReceivedSignal, Sender};
use crate::termination::Termination;
use nix::sys::signal::Signal;
use pasta_ipc::types::{LogLevel, LogRecord};
use pasta_ipc::{DatapathToSupervisor, MonitorToSupervisor, SendError, SupervisorToDatapath};
use seccomp::Confined;
use std::io;
use std::time::Instant;

/// Whether we lead our session. When its terminal hangs up, the kernel signals only the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// We lead it.
    Ours,
    /// Another process leads it, and passes SIGHUP on.
    Inherited,
}

/// What the shell is to carry out.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    /// Pass a signal on to COMMAND.
    Pass(Signal),
    /// Ask the monitor to end.
    StopMonitor,
    /// End both helpers.
    KillHelpers,
    /// Request the monitor's status.
    RequestStatus,
    /// Ask the monitor to read everything again.
    RequestRefresh,
    /// Write the status.
    Status(Vec<String>),
    /// Write a line of our own.
    Log(LogLevel, String),
    /// Write a helper's line.
    Relay(Helper, LogRecord),
    /// End with this status, and the helpers with us.
    End(i32),
}

/// The state of a helper.
#[derive(Debug, Default, PartialEq, Eq)]
enum HelperState {
    /// It is running.
    #[default]
    Working,
    /// It has reported an error and is about to end.
    Failed(String),
    /// It was stopped or killed by us.
    Dismissed,
}

/// The state of supervision.
#[derive(Debug)]
struct Supervision {
    session: Session,
    monitor: HelperState,
    datapath: HelperState,
}

/// Supervises until COMMAND has ended, and returns the status to end with.
///
/// # Errors
///
/// If waiting for events fails; the helpers have been killed then.
pub(crate) fn run(
    _: Confined,
    mut children: Children,
    mut resolvers: Resolvers,
    session: Session,
    log: &mut Log,
) -> io::Result<i32> {
    let mut supervision =
        Supervision { session, monitor: HelperState::default(), datapath: HelperState::default() };
    loop {
        let now = Instant::now();
        let limit = resolvers.next_deadline().map(|at| at.saturating_duration_since(now));
        let events = children.next(limit).inspect_err(|_| children.kill_helpers())?;
        follow(&mut resolvers, &children, log);
        for action in events.into_iter().flat_map(|event| supervision.handle(event)) {
            match action {
                Action::Pass(signal) => children.pass_on(signal),
                Action::StopMonitor => children.stop_monitor(),
                Action::KillHelpers => children.kill_helpers(),
                Action::RequestStatus => {
                    // Without the monitor the status is shorter.
                    if children.request_status().is_err() {
                        log.status("cannot ask the monitor");
                        log.status(&resolvers.status());
                    }
                }
                Action::RequestRefresh => {
                    if children.request_refresh().is_err() {
                        log.warn("cannot ask the monitor to read again");
                    }
                }
                Action::Status(lines) => {
                    lines.iter().for_each(|line| log.status(line));
                    log.status(&resolvers.status());
                }
                Action::Log(level, text) => log.write(level, &text),
                Action::Relay(helper, record) => log.relay(helper, &record),
                Action::End(status) => {
                    // We end even if this fails.
                    let last = children.shut_down_datapath().unwrap_or_default();
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

/// Sends the host's resolvers to the datapath if they have changed.
fn follow(resolvers: &mut Resolvers, children: &Children, log: &mut Log) {
    let now = Instant::now();
    for update in resolvers.update(now) {
        match update {
            Update::Log(level, text) => log.write(level, &text),
            Update::Servers(list) => {
                let sent =
                    children.send_to_datapath(&SupervisorToDatapath::Resolvers(list.clone()));
                // Any other error means that the datapath has ended.
                if matches!(sent, Err(SendError::WouldBlock)) {
                    resolvers.send_later(list, now);
                }
            }
        }
    }
}

impl Supervision {
    fn handle(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Signal(ReceivedSignal { signal: Some(Signal::SIGUSR1), .. }) => {
                vec![Action::RequestStatus]
            }
            Event::Signal(ReceivedSignal { signal: Some(Signal::SIGUSR2), .. }) => {
                vec![Action::RequestRefresh]
            }
            Event::Signal(received) => {
                self.passed_on(received).map(Action::Pass).into_iter().collect()
            }
            Event::Monitor(MonitorToSupervisor::Status(lines), _) => {
                let lines = lines.as_slice().iter().map(|line| line.as_str().to_owned());
                vec![Action::Status(lines.collect())]
            }
            // It sends nothing after COMMAND was started.
            Event::Init(..) => Vec::new(),
            Event::InitEnded(termination) => vec![Action::End(termination.as_exit_status())],
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
            // Messages of start-up: `peer.rs` allows none of them twice.
            Event::Monitor(..) | Event::Datapath(_) => Vec::new(),
            Event::Violation(helper, why) => {
                self.monitor = HelperState::Dismissed;
                self.datapath = HelperState::Dismissed;
                let text = format!("{}: {why}: the namespace has no network", helper.name());
                vec![Action::Log(LogLevel::Error, text), Action::KillHelpers]
            }
            Event::HelperEnded(helper, termination) => self.ended(helper, termination),
        }
    }

    fn passed_on(&self, received: ReceivedSignal) -> Option<Signal> {
        let signal = received.for_command()?;
        let command_has_it = match (received.sender, self.session, signal) {
            (Sender::Terminal, Session::Ours, Signal::SIGHUP) => false,
            (sender, _, _) => sender == Sender::Terminal,
        };
        (!command_has_it).then_some(signal)
    }

    fn state(&mut self, helper: Helper) -> &mut HelperState {
        match helper {
            Helper::Monitor => &mut self.monitor,
            Helper::Datapath => &mut self.datapath,
        }
    }

    /// Lines of a helper that we have stopped are dropped: they are about that.
    fn relay(&mut self, helper: Helper, record: LogRecord) -> Vec<Action> {
        match self.state(helper) {
            HelperState::Dismissed => Vec::new(),
            _ => vec![Action::Relay(helper, record)],
        }
    }

    fn failed(&mut self, helper: Helper, why: String) {
        let state = self.state(helper);
        if *state != HelperState::Dismissed {
            *state = HelperState::Failed(why);
        }
    }

    fn ended(&mut self, helper: Helper, termination: Termination) -> Vec<Action> {
        let consequence = match helper {
            Helper::Monitor => "traffic continues, changes of the host's network are not followed",
            Helper::Datapath => "the namespace has no network",
        };
        let why = match std::mem::replace(self.state(helper), HelperState::Dismissed) {
            HelperState::Dismissed => return Vec::new(),
            HelperState::Working => format!("{} {termination}", helper.name()),
            HelperState::Failed(why) => format!("{} {termination}: {why}", helper.name()),
        };
        let line = Action::Log(LogLevel::Error, format!("{why}: {consequence}"));
        if helper == Helper::Monitor {
            return vec![line];
        }
        self.monitor = HelperState::Dismissed;
        vec![line, Action::StopMonitor]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::Text;

    fn supervision(session: Session) -> Supervision {
        Supervision { session, monitor: HelperState::Working, datapath: HelperState::Working }
    }

    fn signal(signal: Signal, sender: Sender) -> Event {
        Event::Signal(ReceivedSignal { signal: Some(signal), sender })
    }

    fn lines(actions: &[Action]) -> usize {
        actions.iter().filter(|action| matches!(action, Action::Log(..))).count()
    }

    #[test]
    fn signals_are_passed_on_unless_the_terminal_sent_them() {
        let mut supervision = supervision(Session::Inherited);
        for name in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            assert_eq!(supervision.handle(signal(name, Sender::Process)), [Action::Pass(name)]);
            assert_eq!(supervision.handle(signal(name, Sender::Outside)), [Action::Pass(name)]);
            assert_eq!(supervision.handle(signal(name, Sender::Terminal)), []);
        }
        let own = |name| signal(name, Sender::Process);
        assert_eq!(supervision.handle(own(Signal::SIGUSR1)), [Action::RequestStatus]);
        assert_eq!(supervision.handle(own(Signal::SIGUSR2)), [Action::RequestRefresh]);
        assert_eq!(supervision.handle(own(Signal::SIGCHLD)), []);
    }

    #[test]
    fn hang_up_of_the_session_leader_is_passed_on() {
        let mut supervision = supervision(Session::Ours);
        let hang_up = signal(Signal::SIGHUP, Sender::Terminal);
        assert_eq!(supervision.handle(hang_up), [Action::Pass(Signal::SIGHUP)]);
        assert_eq!(supervision.handle(signal(Signal::SIGINT, Sender::Terminal)), []);
    }

    #[test]
    fn end_of_the_datapath_is_one_line_and_stops_the_monitor() {
        let mut supervision = supervision(Session::Inherited);
        let ended = |helper| Event::HelperEnded(helper, Termination::Killed(Signal::SIGKILL));
        let actions = supervision.handle(ended(Helper::Datapath));
        let text = "pasta-datapath was killed by SIGKILL: the namespace has no network";
        assert_eq!(actions, [Action::Log(LogLevel::Error, text.into()), Action::StopMonitor]);
        assert_eq!(supervision.handle(ended(Helper::Monitor)), []);
    }

    #[test]
    fn reported_error_is_part_of_the_line() {
        let mut supervision = supervision(Session::Inherited);
        let failed = MonitorToSupervisor::Failed(Text::truncated("no more memory"));
        assert_eq!(supervision.handle(Event::Monitor(failed, Vec::new())), []);
        let actions =
            supervision.handle(Event::HelperEnded(Helper::Monitor, Termination::Exited(1)));
        let [Action::Log(LogLevel::Error, text)] = actions.as_slice() else {
            panic!("{actions:?}")
        };
        assert!(text.starts_with("pasta-monitor ended with status 1: no more memory: traffic"));
    }

    #[test]
    fn violation_ends_both_helpers_and_not_the_command() {
        let mut supervision = supervision(Session::Inherited);
        let actions = supervision.handle(Event::Violation(Helper::Datapath, "bad message".into()));
        assert_eq!(lines(&actions), 1);
        assert_eq!(actions.last(), Some(&Action::KillHelpers));
        for helper in [Helper::Datapath, Helper::Monitor] {
            let ended = Event::HelperEnded(helper, Termination::Killed(Signal::SIGKILL));
            assert_eq!(supervision.handle(ended), []);
        }
    }

    #[test]
    fn status_of_the_command_is_ours_even_after_a_helper_has_failed() {
        let mut supervision = supervision(Session::Inherited);
        supervision.handle(Event::HelperEnded(Helper::Datapath, Termination::Exited(134)));
        assert_eq!(supervision.handle(Event::InitEnded(Termination::Exited(7))), [Action::End(7)]);
        let killed = Event::InitEnded(Termination::Killed(Signal::SIGKILL));
        assert_eq!(supervision.handle(killed), [Action::End(137)]);
    }
}
