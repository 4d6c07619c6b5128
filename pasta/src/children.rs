//! The processes that this one has started; [`Children::next`] waits for all of them and for signals.
//!
//! This module decides nothing: it turns what happens into [`Event`]s, and orders them so that the
//! messages of a process come before its end.

mod clients;
mod reaping;

use crate::background::Caller;
use crate::bound_listeners::BoundListeners;
use crate::helper_link::{Amount, Clock, HelperLink, Kind, Reception, receive};
use crate::intake::Intake;
use crate::log::Helper;
use crate::namespace::InitProcess;
use crate::namespace_watch::NamespaceWatch;
use crate::own_process::OwnProcess;
use crate::signals::ReceivedSignal;
use crate::sys::{self, Child};
use crate::termination::Termination;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitPidFlag;
use nix::unistd::Pid;
use pasta_ipc::channel::{Channel, Received, SendError};
use pasta_ipc::message::{Hello, TerminalGround};
use pasta_ipc::start::TapUse;
use pasta_ipc::types::LogLevel;
use pasta_ipc::{
    DatapathToSupervisor, InitToSupervisor, IsolationToSupervisor, MonitorToSupervisor,
    SupervisorToDatapath, SupervisorToInit, SupervisorToIsolation, SupervisorToMonitor,
};
use reaping::{ended, reap, take_ended};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a channel to a helper may stay full during start-up. Chosen: a helper reads at once, so only
/// one that hangs reaches this.
const SEND_TIMEOUT_MS: u16 = 5000;
/// How long the datapath may take to close its listeners at the end. Chosen: it takes less than a
/// millisecond unless it hangs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);
/// Interval of retries where the kernel reports no event.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A signal was received.
    Signal(ReceivedSignal),
    /// A message of process 1 of the namespace.
    Init(InitToSupervisor, Vec<OwnedFd>),
    /// It ended.
    InitEnded(Termination),
    /// The namespace that we are attached to has ended. Once.
    NamespaceEnded,
    /// The process that waits for our start has ended.
    CallerGone,
    /// A message of the monitor, with its descriptors.
    Monitor(MonitorToSupervisor, Vec<OwnedFd>),
    /// A message of the datapath.
    Datapath(DatapathToSupervisor),
    /// What the kernel tells others about the datapath: its `/proc/PID/status`.
    DatapathStatusFile(OwnedFd),
    /// A helper broke the protocol; nothing more is received from it.
    Violation(Helper, String),
    /// A helper ended.
    HelperEnded(Helper, Termination),
}

/// The source of a wake-up, in the order of handling: messages before the end of their sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
enum Token {
    Signals,
    Caller,
    InitChannel,
    MonitorChannel,
    DatapathChannel,
    Isolation,
    Resolvers,
    Control,
    Namespace,
    Init,
    Monitor,
    Datapath,
    Predecessor,
}

impl Token {
    const ALL: [Self; 13] = [
        Self::Signals,
        Self::Caller,
        Self::InitChannel,
        Self::MonitorChannel,
        Self::DatapathChannel,
        Self::Isolation,
        Self::Resolvers,
        Self::Control,
        Self::Namespace,
        Self::Init,
        Self::Monitor,
        Self::Datapath,
        Self::Predecessor,
    ];
}

/// The channel of a datapath that isolates itself.
type IsolationChannel = Channel<SupervisorToIsolation, IsolationToSupervisor>;

/// The processes, their channels, and our signals.
#[derive(Debug)]
pub(crate) struct Children {
    epoll: Epoll,
    signals: SignalFd,
    init: Option<InitProcess>,
    /// Whether process 1 has closed its channel.
    init_closed: bool,
    /// The watch on the namespace that we are attached to, until it has ended.
    namespace: Option<NamespaceWatch>,
    monitor: HelperLink<SupervisorToMonitor, MonitorToSupervisor>,
    datapath: HelperLink<SupervisorToDatapath, DatapathToSupervisor>,
    /// Receives the datapath's new process id: isolating itself replaces its process.
    isolation: Option<IsolationChannel>,
    /// The datapath's first process.
    predecessor: Option<Child>,
    own: OwnProcess,
    clock: Clock,
}

/// The helpers as they were started.
#[derive(Debug)]
pub(crate) struct StartedHelpers {
    /// The monitor.
    pub(crate) monitor: (Child, Channel<SupervisorToMonitor, MonitorToSupervisor>),
    /// The datapath, in its first process.
    pub(crate) datapath: (Child, Channel<SupervisorToDatapath, DatapathToSupervisor>),
    /// The channel on which it reports its second process.
    pub(crate) isolation: IsolationChannel,
}

impl Children {
    /// Sends `Hello` to the helpers, whose log has this level, and watches them and our signals.
    ///
    /// # Errors
    ///
    /// What epoll(7) and signalfd(2) report.
    pub(crate) fn new(started: StartedHelpers, level: LogLevel) -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let children = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            signals: SignalFd::with_flags(&crate::inherited::handled_signals(), flags)?,
            init: None,
            init_closed: false,
            namespace: None,
            monitor: HelperLink::new(started.monitor, level),
            datapath: HelperLink::new(started.datapath, level),
            isolation: Some(started.isolation),
            predecessor: None,
            own: OwnProcess::open()?,
            clock: Clock::start(),
        };
        children.watch(&children.signals, Token::Signals)?;
        children.watch_helper(&children.monitor, Token::Monitor, Token::MonitorChannel)?;
        children.watch_helper(&children.datapath, Token::Datapath, Token::DatapathChannel)?;
        if let Some(channel) = &children.isolation {
            children.watch(channel, Token::Isolation)?;
        }
        // Fails if it has ended, which is an event.
        let _ = children.monitor.send(&SupervisorToMonitor::Hello(Hello::OURS), &[]);
        let _ = children.datapath.send(&SupervisorToDatapath::Hello(Hello::OURS), &[]);
        Ok(children)
    }

    /// Watches process 1 of the namespaces.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn watch_init(&mut self, init: InitProcess) -> io::Result<()> {
        let init = self.init.insert(init);
        let event = |token| EpollEvent::new(EpollFlags::EPOLLIN, token as u64);
        self.epoll.add(&init.channel, event(Token::InitChannel))?;
        self.epoll.add(&init.child.pidfd, event(Token::Init))?;
        Ok(())
    }

    /// Watches the channel to the process that waits for our start.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn watch_caller(&self, caller: &Caller) -> io::Result<()> {
        self.watch(caller, Token::Caller)
    }

    /// Watches it no more: it ends now that all is ready.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn forget_caller(&self, caller: &Caller) -> io::Result<()> {
        Ok(self.epoll.delete(caller)?)
    }

    /// Watches the namespace that we are attached to.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn watch_namespace(&mut self, namespace: NamespaceWatch) -> io::Result<()> {
        if let Some(fd) = namespace.as_fd() {
            self.watch(fd, Token::Namespace)?;
        }
        self.namespace = Some(namespace);
        Ok(())
    }

    /// Sends `Start` to the monitor.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn start_monitor(
        &mut self,
        message: &SupervisorToMonitor,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        let tap = match message {
            SupervisorToMonitor::Start(start) => start.link.tap,
            _ => TapUse::Make,
        };
        self.monitor.handshake.started(tap);
        self.monitor.send(message, fds)
    }

    /// Sends `Start` to the datapath.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn start_datapath(
        &mut self,
        message: &SupervisorToDatapath,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        self.datapath.handshake.started(TapUse::Make);
        self.datapath.send(message, fds)
    }

    /// Sends the bound listeners to the datapath, and waits while the channel is full.
    ///
    /// # Errors
    ///
    /// [`SendError`]; `WouldBlock` if it does not read for five seconds.
    pub(crate) fn send_listeners(&self, listeners: &BoundListeners) -> Result<(), SendError> {
        for (addresses, sockets) in listeners.batches() {
            let message = SupervisorToDatapath::Listeners(addresses);
            loop {
                match self.datapath.send(&message, &sockets) {
                    Err(SendError::WouldBlock) => self.wait_until_writable()?,
                    // More descriptors are in flight than `RLIMIT_NOFILE` allows (unix(7)).
                    Err(SendError::Io(error))
                        if error.raw_os_error() == Some(libc::ETOOMANYREFS) =>
                    {
                        std::thread::sleep(RETRY_INTERVAL);
                    }
                    other => {
                        other?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn wait_until_writable(&self) -> Result<(), SendError> {
        let Some(channel) = &self.datapath.channel else { return Err(SendError::Closed) };
        let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(SEND_TIMEOUT_MS)) {
            Ok(0) => Err(SendError::WouldBlock),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(SendError::Io(errno.into())),
        }
    }

    /// Sends another message to the datapath.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn send_to_datapath(&self, message: &SupervisorToDatapath) -> Result<(), SendError> {
        self.datapath.send(message, &[])
    }

    /// Requests the monitor's status.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn request_status(&mut self) -> Result<(), SendError> {
        self.monitor.send(&SupervisorToMonitor::StatusWanted, &[])?;
        self.monitor.handshake.status_requested();
        Ok(())
    }

    /// Asks the monitor to read everything again.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn request_refresh(&self) -> Result<(), SendError> {
        self.monitor.send(&SupervisorToMonitor::ResyncWanted, &[])
    }

    /// Asks the monitor to end, or kills it if that cannot be sent.
    pub(crate) fn stop_monitor(&self) {
        if self.monitor.send(&SupervisorToMonitor::Shutdown, &[]).is_err() {
            self.monitor.kill();
        }
    }

    /// Asks the datapath to end. If that cannot be sent, it has ended, which is an event.
    pub(crate) fn stop_datapath(&self) {
        let _ = self.datapath.send(&SupervisorToDatapath::Shutdown, &[]);
    }

    /// Asks the datapath to end and waits until it has closed its listeners, for [`SHUTDOWN_TIMEOUT`] at
    /// most, so that a process started next can bind the ports. The kernel then needs longer to remove
    /// the tap, which is not waited for. Returns the events of that time.
    ///
    /// # Errors
    ///
    /// As [`Children::next`].
    pub(crate) fn shut_down_datapath(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        if self.datapath.send(&SupervisorToDatapath::Shutdown, &[]).is_err() {
            return Ok(events);
        }
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        while self.datapath.channel.is_some() && self.datapath.child.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            events.extend(self.next(Some(left))?);
        }
        Ok(events)
    }

    /// The process of a helper, once it is final.
    pub(crate) fn pid(&self, helper: Helper) -> Option<Pid> {
        let child = match helper {
            Helper::Monitor => self.monitor.child.as_ref(),
            // It may change while the channel is open.
            Helper::Datapath if self.isolation.is_some() => None,
            Helper::Datapath => self.datapath.child.as_ref(),
        };
        child.map(|child| child.pid)
    }

    /// Lets COMMAND start.
    ///
    /// # Errors
    ///
    /// If process 1 has ended.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        let init = self.init.as_ref().ok_or(io::ErrorKind::NotFound)?;
        init.channel.send(&SupervisorToInit::Release).map_err(io::Error::other)?;
        Ok(())
    }

    /// Has COMMAND go on that was stopped, and gives it the terminal if that is ours.
    pub(crate) fn continue_command(&self, ground: TerminalGround) {
        if let Some(init) = &self.init {
            // Fails if it has ended, which is an event.
            let _ = init.channel.send(&SupervisorToInit::Continue(ground));
        }
    }

    /// This process.
    pub(crate) fn own_process(&self) -> OwnProcess {
        self.own.clone()
    }

    /// Sends `signal` to process 1, which passes it on to COMMAND.
    pub(crate) fn pass_on(&self, signal: Signal) {
        if let Some(init) = &self.init {
            // Fails if it has ended, which is an event.
            let _ = sys::pidfd_send_signal(&init.child.pidfd, signal);
        }
    }

    /// Kills both helpers without waiting: when the datapath ends, the kernel needs tens of milliseconds
    /// to remove the tap.
    pub(crate) fn kill_helpers(&self) {
        self.monitor.kill();
        self.datapath.kill();
        if let Some(predecessor) = &self.predecessor {
            // As in `HelperLink::kill`.
            let _ = sys::pidfd_send_signal(&predecessor.pidfd, Signal::SIGKILL);
        }
    }

    /// Kills everything that was started, and waits for it. For a start that has failed.
    pub(crate) fn tear_down(mut self) {
        self.kill_helpers();
        // A helper that is being started by root may not be signalled before it has changed to our user;
        // it ends by itself when its channel is closed.
        self.monitor.channel = None;
        self.datapath.channel = None;
        // After the first process of the datapath has ended, the id of the second, if any, is in the channel.
        self.wait_for_helpers();
        self.receive_successor(&mut Vec::new());
        self.kill_helpers();
        self.pass_on(Signal::SIGKILL);
        self.wait_for_helpers();
        if let Some(init) = &self.init {
            reap(&init.child, WaitPidFlag::empty());
        }
    }

    fn wait_for_helpers(&self) {
        let children = [&self.monitor.child, &self.datapath.child, &self.predecessor];
        for child in children.into_iter().flatten() {
            reap(child, WaitPidFlag::empty());
        }
    }

    /// Wakes [`Children::next`] when `resolvers` becomes readable, without an event.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn watch_resolvers(&self, resolvers: BorrowedFd<'_>) -> io::Result<()> {
        self.watch(resolvers, Token::Resolvers)
    }

    /// Waits until something happens, for `limit` at most.
    ///
    /// # Errors
    ///
    /// What epoll(7) and read(2) report.
    pub(crate) fn next(&mut self, limit: Option<Duration>) -> io::Result<Vec<Event>> {
        let mut woken = [EpollEvent::empty(); Token::ALL.len()];
        let now = Instant::now();
        let look = self.namespace.as_ref().and_then(NamespaceWatch::next_deadline);
        let until_look = look.map(|at| at.saturating_duration_since(now));
        let intakes = [self.monitor.intake.closed_until(), self.datapath.intake.closed_until()];
        let until_open = intakes.into_iter().flatten().min();
        let until_open = until_open.map(|at| at.saturating_sub(self.clock.now()));
        let limit = limit.into_iter().chain(until_look).chain(until_open).min();
        // Rounded up, so that the deadline has passed when we wake; a day at most.
        let timeout = limit.map_or(EpollTimeout::NONE, |limit| {
            let ms = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(86_400_000);
            EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::ZERO)
        });
        let count = match self.epoll.wait(&mut woken, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut tokens: Vec<u64> = woken.iter().take(count).map(EpollEvent::data).collect();
        tokens.sort_unstable();
        let mut events = Vec::new();
        self.reopen_channels()?;
        if look.is_some_and(|at| at <= Instant::now()) {
            tokens.push(Token::Namespace as u64);
        }
        for token in Token::ALL {
            if tokens.contains(&(token as u64)) {
                self.handle(token, &mut events)?;
            }
        }
        Ok(events)
    }

    fn handle(&mut self, token: Token, events: &mut Vec<Event>) -> io::Result<()> {
        match token {
            Token::Signals => {
                while let Some(info) = self.signals.read_signal()? {
                    events.push(Event::Signal(ReceivedSignal::from(&info)));
                }
            }
            // It sends nothing: only its end wakes us.
            Token::Caller => events.push(Event::CallerGone),
            Token::InitChannel => self.receive_from_init(events)?,
            Token::MonitorChannel => self.receive_from_monitor(Amount::Turn, events)?,
            Token::DatapathChannel => self.receive_from_datapath(Amount::Turn, events)?,
            Token::Isolation => self.receive_successor(events),
            // Their owners check them after each wake-up.
            Token::Resolvers | Token::Control => {}
            Token::Namespace => {
                // It is watched no more once it has ended: dropping closes what epoll knows of it.
                if let Some(mut namespace) = self.namespace.take() {
                    if namespace.has_ended(Instant::now()) {
                        events.push(Event::NamespaceEnded);
                    } else {
                        self.namespace = Some(namespace);
                    }
                }
            }
            Token::Init => {
                self.receive_from_init(events)?;
                let ended = self.init.as_ref().and_then(|init| ended(&init.child));
                if let Some(termination) = ended {
                    self.init = None;
                    events.push(Event::InitEnded(termination));
                }
            }
            Token::Monitor => {
                self.receive_from_monitor(Amount::All, events)?;
                if let Some(termination) = take_ended(&mut self.monitor.child) {
                    events.push(Event::HelperEnded(Helper::Monitor, termination));
                }
            }
            Token::Datapath => {
                self.receive_successor(events);
                self.receive_from_datapath(Amount::All, events)?;
                if let Some(termination) = take_ended(&mut self.datapath.child) {
                    events.push(Event::HelperEnded(Helper::Datapath, termination));
                }
            }
            // The datapath is its successor.
            Token::Predecessor => drop(take_ended(&mut self.predecessor)),
        }
        Ok(())
    }

    fn receive_from_init(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        while let Some(init) = &self.init {
            match receive(&init.channel, |_| Ok(())) {
                Reception::Message(Received { message, fds }) => {
                    events.push(Event::Init(message, fds));
                }
                Reception::WouldBlock => break,
                // The pidfd reports its end; the channel would only wake us again.
                Reception::Closed => {
                    if !std::mem::replace(&mut self.init_closed, true) {
                        self.epoll.delete(&init.channel)?;
                    }
                    break;
                }
                Reception::Violation(why) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        Ok(())
    }

    fn receive_from_monitor(&mut self, amount: Amount, events: &mut Vec<Event>) -> io::Result<()> {
        let batch = self.monitor.receive(
            (amount, &self.clock),
            |handshake, message| handshake.monitor(message),
            |message| match message {
                MonitorToSupervisor::Log(record) => Kind::Line(record.level),
                MonitorToSupervisor::Status(_) | MonitorToSupervisor::ForwardsTaken { .. } => {
                    Kind::Answer
                }
                _ => Kind::Other,
            },
        );
        let messages = batch.messages.into_iter();
        events.extend(messages.map(|it| Event::Monitor(it.message, it.fds)));
        events.extend(batch.violation.map(|why| Event::Violation(Helper::Monitor, why)));
        self.close_channel(Token::MonitorChannel)
    }

    fn receive_from_datapath(&mut self, amount: Amount, events: &mut Vec<Event>) -> io::Result<()> {
        let batch = self.datapath.receive(
            (amount, &self.clock),
            |handshake, message| handshake.datapath(message),
            |message| match message {
                DatapathToSupervisor::Log(record) => Kind::Line(record.level),
                DatapathToSupervisor::Status(_) | DatapathToSupervisor::Changed(_) => Kind::Answer,
                _ => Kind::Other,
            },
        );
        events.extend(batch.messages.into_iter().map(|it| Event::Datapath(it.message)));
        events.extend(batch.violation.map(|why| Event::Violation(Helper::Datapath, why)));
        self.close_channel(Token::DatapathChannel)
    }

    /// Watches the channel of a helper no more while no message of it is received.
    fn close_channel(&self, token: Token) -> io::Result<()> {
        match self.channel_and_intake(token) {
            (Some(channel), intake) if intake.closed_until().is_some() => {
                match self.epoll.delete(channel) {
                    // It is closed already.
                    Err(Errno::ENOENT) => Ok(()),
                    deleted => Ok(deleted?),
                }
            }
            _ => Ok(()),
        }
    }

    /// Watches channels again of which messages may be received again.
    fn reopen_channels(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        for token in [Token::MonitorChannel, Token::DatapathChannel] {
            let (channel, intake) = self.channel_and_intake(token);
            if intake.closed_until().is_none_or(|until| until > now) {
                continue;
            }
            if let Some(channel) = channel {
                self.watch(channel, token)?;
            }
            match token {
                Token::MonitorChannel => self.monitor.intake.reopen(),
                _ => self.datapath.intake.reopen(),
            }
        }
        Ok(())
    }

    fn channel_and_intake(&self, token: Token) -> (Option<BorrowedFd<'_>>, &Intake) {
        match token {
            Token::MonitorChannel => {
                (self.monitor.channel.as_ref().map(AsFd::as_fd), &self.monitor.intake)
            }
            _ => (self.datapath.channel.as_ref().map(AsFd::as_fd), &self.datapath.intake),
        }
    }

    /// Reads the id of the datapath's second process, and its status file, until both processes have
    /// closed the channel. The senders are trusted: they are not confined yet and have read nothing from
    /// outside.
    fn receive_successor(&mut self, events: &mut Vec<Event>) {
        while let Some(channel) = &self.isolation {
            match receive(channel, |_| Ok(())) {
                Reception::Message(Received { message, fds }) => match message {
                    IsolationToSupervisor::Successor(pid) => {
                        self.follow(Pid::from_raw(pid.into()), events);
                    }
                    IsolationToSupervisor::StatusFile => {
                        events.extend(fds.into_iter().map(Event::DatapathStatusFile));
                    }
                },
                Reception::WouldBlock => return,
                // If it has ended, that is the event.
                Reception::Closed => self.isolation = None,
                Reception::Violation(why) => {
                    self.isolation = None;
                    events.push(Event::Violation(Helper::Datapath, why));
                }
            }
        }
    }

    /// Goes on with the datapath's second process `pid`.
    fn follow(&mut self, pid: Pid, events: &mut Vec<Event>) {
        // Without a PID namespace of its own the process stays the same.
        if self.datapath.child.as_ref().is_some_and(|child| child.pid == pid) {
            return;
        }
        let followed = sys::pidfd_open(pid).and_then(|pidfd| {
            self.watch(&pidfd, Token::Datapath)?;
            if let Some(predecessor) = &self.datapath.child {
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Predecessor as u64);
                self.epoll.modify(&predecessor.pidfd, &mut event)?;
            }
            Ok(Child { pid, pidfd })
        });
        match followed {
            Ok(child) => self.predecessor = self.datapath.child.replace(child),
            Err(error) => {
                let why = format!("process {pid} cannot be watched: {error}");
                events.push(Event::Violation(Helper::Datapath, why));
            }
        }
    }

    fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token as u64))?)
    }

    fn watch_helper<Out, In>(
        &self,
        helper: &HelperLink<Out, In>,
        process: Token,
        channel: Token,
    ) -> io::Result<()> {
        if let Some(child) = &helper.child {
            self.watch(&child.pidfd, process)?;
        }
        match &helper.channel {
            Some(open) => self.watch(open, channel),
            None => Ok(()),
        }
    }
}
