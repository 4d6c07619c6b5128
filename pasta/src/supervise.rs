//! Supervision after start-up: passes signals on, watches the helpers, returns COMMAND's status.
//!
//! [`Supervision::handle`] decides what follows from an event and performs no I/O:
//!
//! | event | action |
//! | --- | --- |
//! | TERM, INT, HUP, QUIT, TSTP | passed on to COMMAND, unless the terminal sent them to COMMAND too |
//! | COMMAND is stopped | we stop by the same signal; when we are continued, so is COMMAND |
//! | USR1 | the status is written to the log |
//! | USR2 | host and namespace are read again and reconciled |
//! | datapath ends | one error line, the monitor is stopped; COMMAND continues without network |
//! | monitor ends | one error line; traffic continues with the last snapshot; with `--strict-sandbox` all is ended, status 1 |
//! | a helper breaks the protocol | one error line, both helpers are killed; COMMAND continues without network |
//! | process 1 ends, and COMMAND with it | the helpers are killed, its status becomes ours |
//!
//! When attached to a namespace there is no COMMAND:
//!
//! | event | action |
//! | --- | --- |
//! | TSTP | we stop; the helpers do not |
//! | the namespace ends, or its tap; TERM, INT, HUP, QUIT | the helpers are ended, status 0 |
//! | a helper ends or breaks the protocol | one error line, the other one is ended, status 1 |
//!
//! It also follows the host's resolvers ([`crate::resolver`]) and serves the control socket ([`crate::control`]).

use crate::askers::{Asker, Askers};
use crate::children::{Children, Event};
use crate::control::{Control, ControlAction};
use crate::log::{Helper, Log};
use crate::resolver::{Resolvers, Update};
use crate::signals::{ReceivedSignal, Sender};
use crate::terminal::Terminal;
use crate::termination::{self, Termination};
use nix::sys::signal::Signal;
use pasta_ipc::message::TerminalGround;
use pasta_ipc::types::{LogLevel, LogRecord, Text};
use pasta_ipc::{
    DatapathToSupervisor, InitToSupervisor, MonitorToSupervisor, SendError, SupervisorToDatapath,
    SupervisorToMonitor,
};
use seccomp::Confined;
use std::collections::VecDeque;
use std::io;
use std::time::Instant;

/// Exit status after an error.
const FAILED: i32 = 1;

/// Whether we lead our session. When its terminal hangs up, the kernel signals only the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// We lead it.
    Ours,
    /// Another process leads it, and passes SIGHUP on.
    Inherited,
}

/// What is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// COMMAND, in a namespace of its own.
    Command(Session),
    /// A namespace that exists.
    Existing,
}

/// What follows where COMMAND has lost the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MonitorLoss {
    /// Traffic continues as it is.
    Tolerated,
    /// Everything is ended (`--strict-sandbox`): nobody looks any more at what is forwarded where.
    Fatal,
}

/// How we are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// With this exit status.
    Status(i32),
    /// Of this signal, of which COMMAND has died: the caller is to see what it would see without us.
    Signal(Signal),
}

/// What the shell is to carry out.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    /// Pass a signal on to COMMAND.
    Pass(Signal),
    /// Stop by this signal; go on, and COMMAND with us, when somebody has us continue.
    Stop(Signal),
    /// Ask the monitor to end.
    StopMonitor,
    /// Ask the datapath to end.
    StopDatapath,
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
    /// Write the datapath's counters.
    Statistics(Text<1024>),
    /// Write a helper's line.
    Relay(Helper, LogRecord),
    /// End with this status, and the helpers with us.
    End(Ending),
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
    attachment: Attachment,
    monitor_loss: MonitorLoss,
    monitor: HelperState,
    datapath: HelperState,
    /// The signal of which COMMAND has died.
    killed_by: Option<Signal>,
    /// Whether we were stopped with COMMAND, and it has not reported yet that it goes on.
    continues: bool,
}

/// Supervises until COMMAND or the namespace has ended, and returns the status to end with.
///
/// # Errors
///
/// If waiting for events fails; the helpers have been killed then.
pub(crate) fn run(
    _: Confined,
    mut children: Children,
    (mut resolvers, mut control): (Resolvers, Option<Control>),
    (attachment, monitor_loss, mut terminal): (Attachment, MonitorLoss, Option<Terminal>),
    log: &mut Log,
) -> io::Result<i32> {
    let own = children.own_process();
    let (monitor, datapath) = (HelperState::default(), HelperState::default());
    let (killed_by, continues) = (None, false);
    let mut supervision =
        Supervision { attachment, monitor_loss, monitor, datapath, killed_by, continues };
    let mut askers = Askers::default();
    loop {
        let now = Instant::now();
        let of_control = control.as_ref().and_then(Control::next_deadline);
        let deadlines = [resolvers.next_deadline(), of_control, askers.next_deadline()];
        let limit = deadlines.into_iter().flatten().min();
        let limit = limit.map(|at| at.saturating_duration_since(now));
        let mut events = match children.next(limit) {
            Ok(events) => events,
            Err(error) => {
                children.tear_down();
                return Err(error);
            }
        };
        follow(&mut resolvers, &children, log);
        if let Some(control) = &mut control {
            let status = || resolvers.status();
            let (children, askers) = (&mut children, &mut askers);
            serve(control, &mut events, status, children, askers, log);
        } else {
            let answers = events.iter().filter(|event| is_status(event));
            for _ in answers {
                askers.answered();
            }
        }
        let monitor_is_gone =
            |event: &Event| matches!(event, Event::HelperEnded(Helper::Monitor, _));
        if events.iter().any(monitor_is_gone) {
            askers.clear();
        }
        if askers.is_late(Instant::now()) {
            log.warn("pasta-monitor has not answered for five seconds: it is stopped, or hangs");
        }
        for action in events.into_iter().flat_map(|event| supervision.handle(event)) {
            match action {
                Action::Pass(signal) => children.pass_on(signal),
                Action::Stop(signal) => {
                    own.stop_by(signal);
                    let ground = terminal.as_mut().map(Terminal::update);
                    children.continue_command(ground.unwrap_or(TerminalGround::Background));
                }
                Action::StopMonitor => children.stop_monitor(),
                Action::StopDatapath => children.stop_datapath(),
                Action::KillHelpers => children.kill_helpers(),
                Action::RequestStatus => {
                    // Without the monitor the status is shorter.
                    match askers.have_room().then(|| children.request_status()) {
                        Some(Ok(())) => askers.add(Asker::Log, now),
                        Some(Err(_)) | None => {
                            log.status("cannot ask the monitor");
                            log.status(&resolvers.status());
                        }
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
                Action::Statistics(line) => log.statistics(&line),
                Action::Relay(helper, record) => log.relay(helper, &record),
                Action::End(ending) => {
                    if let Some(line) = control.as_ref().and_then(Control::remove_socket) {
                        log.notice(&line);
                    }
                    // We end even if this fails.
                    let last = children.shut_down_datapath().unwrap_or_default();
                    for event in last {
                        if let Event::Datapath(DatapathToSupervisor::Log(record)) = event {
                            log.relay(Helper::Datapath, &record);
                        }
                    }
                    if let Some(terminal) = &terminal {
                        terminal.take_back();
                    }
                    // Whoever attaches next must not find our tap there, and no process of ours is left to
                    // a process 1 that may not reap.
                    children.tear_down();
                    return Ok(match ending {
                        Ending::Status(status) => status,
                        Ending::Signal(signal) => {
                            own.die_of(signal);
                            // It is ignored here, as the caller wants.
                            termination::interrupted(signal)
                        }
                    });
                }
            }
        }
    }
}

/// Whether it is an answer of the monitor's to who has asked for its status.
fn is_status(event: &Event) -> bool {
    matches!(event, Event::Monitor(MonitorToSupervisor::Status(_), _))
}

/// Serves the clients of the control socket, and has it take in `events`; statuses that it has asked for are taken
/// out.
fn serve(
    control: &mut Control,
    events: &mut Vec<Event>,
    resolvers: impl Fn() -> String,
    children: &mut Children,
    askers: &mut Askers,
    log: &mut Log,
) {
    let now = Instant::now();
    let mut actions = VecDeque::new();
    let mut left = Vec::new();
    for event in events.drain(..) {
        match event {
            Event::Monitor(MonitorToSupervisor::Status(status), fds) => {
                match askers.answered() {
                    Some(Asker::Control) => control.monitor_status(status),
                    // That of the start too.
                    Some(Asker::Log) | None => {
                        left.push(Event::Monitor(MonitorToSupervisor::Status(status), fds));
                    }
                }
            }
            event => {
                actions.extend(control.note(now, &event));
                left.push(event);
            }
        }
    }
    *events = left;
    actions.extend(control.serve(now, resolvers));
    while let Some(action) = actions.pop_front() {
        let sent = match &action {
            ControlAction::ToMonitor(message) => {
                let sent = children.ask_monitor(message);
                if matches!(message, SupervisorToMonitor::StatusWanted) && sent.is_ok() {
                    askers.add(Asker::Control, now);
                }
                sent
            }
            ControlAction::ToDatapath(message) => children.ask_datapath(message),
            ControlAction::Log(level, line) => {
                log.write(*level, line);
                Ok(())
            }
        };
        if sent.is_err() {
            actions.extend(control.not_sent(now, &action));
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
            Event::Signal(received) => match self.attachment {
                Attachment::Command(session) => {
                    passed_on(received, session).map(Action::Pass).into_iter().collect()
                }
                Attachment::Existing if received.is_stop() => vec![Action::Stop(Signal::SIGTSTP)],
                Attachment::Existing => received
                    .for_command()
                    .map(|_| Action::End(Ending::Status(0)))
                    .into_iter()
                    .collect(),
            },
            Event::NamespaceEnded => {
                let text = "the namespace has ended".to_owned();
                vec![Action::Log(LogLevel::Info, text), Action::End(Ending::Status(0))]
            }
            Event::Monitor(MonitorToSupervisor::Status(status), _) => {
                let lines = status.lines.as_slice().iter().map(|line| line.as_str().to_owned());
                vec![Action::Status(lines.collect())]
            }
            Event::Init(InitToSupervisor::Killed(number), _) => {
                self.killed_by = Signal::try_from(number).ok().filter(|signal| ends_us(*signal));
                Vec::new()
            }
            // Until COMMAND goes on with us, this is of a stop that was over before.
            Event::Init(InitToSupervisor::Stopped(_), _) if self.continues => Vec::new(),
            Event::Init(InitToSupervisor::Stopped(number), _) => {
                let signal = Signal::try_from(number).ok().filter(|signal| stops(*signal));
                self.continues = signal.is_some();
                signal.map(Action::Stop).into_iter().collect()
            }
            Event::Init(InitToSupervisor::Continued, _) => {
                self.continues = false;
                Vec::new()
            }
            // It sends nothing else after COMMAND was started.
            Event::Init(..) => Vec::new(),
            // Those belong to the start.
            Event::CallerGone | Event::DatapathStatusFile(_) => Vec::new(),
            Event::InitEnded(termination) => {
                let status = Ending::Status(termination.as_exit_status());
                vec![Action::End(self.killed_by.map_or(status, Ending::Signal))]
            }
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
            Event::Datapath(DatapathToSupervisor::Statistics(line)) => {
                vec![Action::Statistics(line)]
            }
            Event::Datapath(DatapathToSupervisor::Failed(why)) => {
                self.failed(Helper::Datapath, why.to_string());
                Vec::new()
            }
            // The monitor has said so in the log. How the datapath ends tells whether the tap went because
            // of that, or was removed or moved away.
            Event::Monitor(MonitorToSupervisor::TapGone, _)
                if self.attachment == Attachment::Existing =>
            {
                vec![Action::StopDatapath]
            }
            // Messages of start-up: `peer.rs` allows none of them twice.
            Event::Monitor(..) | Event::Datapath(_) => Vec::new(),
            Event::Violation(helper, why) => {
                self.monitor = HelperState::Dismissed;
                self.datapath = HelperState::Dismissed;
                let text = format!("{}: {why}: the namespace has no network", helper.name());
                let then = match self.attachment {
                    Attachment::Command(_) => Action::KillHelpers,
                    Attachment::Existing => Action::End(Ending::Status(FAILED)),
                };
                vec![Action::Log(LogLevel::Error, text), then]
            }
            Event::HelperEnded(helper, termination) => self.ended(helper, termination),
        }
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
            _ if self.attachment == Attachment::Existing => "the namespace has no network any more",
            Helper::Monitor if self.monitor_loss == MonitorLoss::Fatal => {
                "everything is ended (--strict-sandbox)"
            }
            Helper::Monitor => "traffic continues, changes of the host's network are not followed",
            Helper::Datapath => "the namespace has no network",
        };
        let why = match std::mem::replace(self.state(helper), HelperState::Dismissed) {
            HelperState::Dismissed => return Vec::new(),
            HelperState::Working => format!("{} {termination}", helper.name()),
            HelperState::Failed(why) => format!("{} {termination}: {why}", helper.name()),
        };
        let line = Action::Log(LogLevel::Error, format!("{why}: {consequence}"));
        if self.attachment == Attachment::Existing {
            // The datapath ends by itself when the tap is removed, or because we asked it to.
            return match (helper, termination) {
                (Helper::Datapath, Termination::Exited(0)) => vec![Action::End(Ending::Status(0))],
                _ => vec![line, Action::End(Ending::Status(FAILED))],
            };
        }
        if helper == Helper::Monitor {
            return match self.monitor_loss {
                MonitorLoss::Tolerated => vec![line],
                MonitorLoss::Fatal => vec![line, Action::End(Ending::Status(FAILED))],
            };
        }
        self.monitor = HelperState::Dismissed;
        vec![line, Action::StopMonitor]
    }
}

/// Whether we die of `signal` if COMMAND has: those that a user sends to stop a program.
fn ends_us(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM | Signal::SIGHUP)
}

/// Whether `signal` stops a process: what process 1 reports is no way to end us.
fn stops(signal: Signal) -> bool {
    use Signal::{SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    matches!(signal, SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU)
}

/// The signal to pass on to COMMAND, unless the terminal has sent it there too.
fn passed_on(received: ReceivedSignal, session: Session) -> Option<Signal> {
    let signal = received.signal.filter(|_| received.is_stop()).or(received.for_command())?;
    let command_has_it = match (received.sender, session, signal) {
        (Sender::Terminal, Session::Ours, Signal::SIGHUP) => false,
        (sender, _, _) => sender == Sender::Terminal,
    };
    (!command_has_it).then_some(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervision(session: Session) -> Supervision {
        of(Attachment::Command(session))
    }

    fn of(attachment: Attachment) -> Supervision {
        let (monitor, datapath) = (HelperState::Working, HelperState::Working);
        let (monitor_loss, killed_by, continues) = (MonitorLoss::Tolerated, None, false);
        Supervision { attachment, monitor_loss, monitor, datapath, killed_by, continues }
    }

    #[test]
    fn we_stop_as_the_command_was_and_of_nothing_else() {
        let reported = |signal: i32| {
            supervision(Session::Inherited)
                .handle(Event::Init(InitToSupervisor::Stopped(signal), Vec::new()))
        };
        for name in [Signal::SIGSTOP, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU] {
            assert_eq!(reported(name as i32), [Action::Stop(name)]);
        }
        for number in [Signal::SIGKILL as i32, Signal::SIGTERM as i32, 0, -1, 999] {
            assert_eq!(reported(number), []);
        }
    }

    #[test]
    fn stop_that_was_over_when_we_were_continued_is_no_reason_to_stop_again() {
        let mut supervision = supervision(Session::Inherited);
        let mut handle = |message| supervision.handle(Event::Init(message, Vec::new()));
        let stopped = || InitToSupervisor::Stopped(Signal::SIGTSTP as i32);
        assert_eq!(handle(stopped()), [Action::Stop(Signal::SIGTSTP)]);
        assert_eq!(handle(stopped()), []);
        assert_eq!(handle(InitToSupervisor::Continued), []);
        assert_eq!(handle(stopped()), [Action::Stop(Signal::SIGTSTP)]);
    }

    #[test]
    fn request_to_stop_is_the_commands_and_ours_where_there_is_none() {
        let handle = |attachment, sender| of(attachment).handle(signal(Signal::SIGTSTP, sender));
        let command = Attachment::Command(Session::Inherited);
        assert_eq!(handle(command, Sender::Process), [Action::Pass(Signal::SIGTSTP)]);
        assert_eq!(handle(command, Sender::Terminal), []);
        for sender in [Sender::Process, Sender::Terminal, Sender::Outside] {
            let stop = [Action::Stop(Signal::SIGTSTP)];
            assert_eq!(handle(Attachment::Existing, sender), stop);
        }
    }

    #[test]
    fn attached_it_ends_in_order_with_the_namespace_and_at_a_signal() {
        for name in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            for sender in [Sender::Process, Sender::Terminal, Sender::Outside] {
                let actions = of(Attachment::Existing).handle(signal(name, sender));
                assert_eq!(actions, [Action::End(Ending::Status(0))]);
            }
        }
        let gone = || Event::Monitor(MonitorToSupervisor::TapGone, Vec::new());
        assert_eq!(of(Attachment::Existing).handle(gone()), [Action::StopDatapath]);
        let ended = Event::HelperEnded(Helper::Datapath, Termination::Exited(0));
        assert_eq!(of(Attachment::Existing).handle(ended), [Action::End(Ending::Status(0))]);
        assert_eq!(supervision(Session::Inherited).handle(gone()), []);
        let actions = of(Attachment::Existing).handle(Event::NamespaceEnded);
        assert_eq!(actions.last(), Some(&Action::End(Ending::Status(0))));
        let own = signal(Signal::SIGUSR1, Sender::Process);
        assert_eq!(of(Attachment::Existing).handle(own), [Action::RequestStatus]);
    }

    #[test]
    fn of_what_a_user_stops_programs_with_we_die_as_the_command_did() {
        for (signal, ending) in [
            (Signal::SIGINT, Ending::Signal(Signal::SIGINT)),
            (Signal::SIGTERM, Ending::Signal(Signal::SIGTERM)),
            (Signal::SIGSEGV, Ending::Status(139)),
            (Signal::SIGKILL, Ending::Status(137)),
        ] {
            let mut supervision = supervision(Session::Inherited);
            let message = InitToSupervisor::Killed(signal as i32);
            assert_eq!(supervision.handle(Event::Init(message, Vec::new())), []);
            let status = 128 + signal as i32;
            let ended = Event::InitEnded(Termination::Exited(status));
            assert_eq!(supervision.handle(ended), [Action::End(ending)]);
        }
    }

    #[test]
    fn attached_the_end_of_a_helper_is_an_error_and_the_end() {
        for helper in [Helper::Monitor, Helper::Datapath] {
            let ended = Event::HelperEnded(helper, Termination::Killed(Signal::SIGKILL));
            let actions = of(Attachment::Existing).handle(ended);
            assert_eq!(
                (lines(&actions), actions.last()),
                (1, Some(&Action::End(Ending::Status(FAILED))))
            );
            let actions = of(Attachment::Existing).handle(Event::Violation(helper, "x".into()));
            assert_eq!(
                (lines(&actions), actions.last()),
                (1, Some(&Action::End(Ending::Status(FAILED))))
            );
        }
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
    fn end_of_the_monitor_is_the_end_where_the_sandbox_is_strict() {
        let ended = |termination| Event::HelperEnded(Helper::Monitor, termination);
        let mut tolerant = supervision(Session::Inherited);
        let actions = tolerant.handle(ended(Termination::Exited(3)));
        assert_eq!((actions.len(), lines(&actions)), (1, 1));
        let mut strict = supervision(Session::Inherited);
        strict.monitor_loss = MonitorLoss::Fatal;
        let actions = strict.handle(ended(Termination::Exited(3)));
        let line = "pasta-monitor ended with status 3: everything is ended (--strict-sandbox)";
        let line = Action::Log(LogLevel::Error, line.into());
        assert_eq!(actions, [line, Action::End(Ending::Status(FAILED))]);
        // One that we have stopped ourselves is no loss.
        let mut strict = supervision(Session::Inherited);
        strict.monitor_loss = MonitorLoss::Fatal;
        strict.handle(Event::HelperEnded(Helper::Datapath, Termination::Exited(3)));
        assert_eq!(strict.handle(ended(Termination::Exited(0))), []);
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
        assert_eq!(
            supervision.handle(Event::InitEnded(Termination::Exited(7))),
            [Action::End(Ending::Status(7))]
        );
        let killed = Event::InitEnded(Termination::Killed(Signal::SIGKILL));
        assert_eq!(supervision.handle(killed), [Action::End(Ending::Status(137))]);
    }
}
