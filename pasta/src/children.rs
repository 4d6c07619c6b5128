//! The processes that this one has started, and everything it waits for, behind one `next`.
//!
//! Nothing is decided here: what happens becomes an [`Event`], in an order that lets a helper's last
//! words come before its end.

use crate::listeners::Listeners;
use crate::log::Helper;
use crate::namespace::{FirstProcess, Word};
use crate::peer::Talk;
use crate::signals::Arrived;
use crate::status::Ending;
use crate::sys::{self, Child};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, read};
use pasta_ipc::channel::{Channel, ReceiveError, Received, SendError};
use pasta_ipc::message::Hello;
use pasta_ipc::types::TapUse;
use pasta_ipc::{
    DatapathToSupervisor, Message, MonitorToSupervisor, SupervisorToDatapath, SupervisorToMonitor,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a helper may take to make room in its channel at the start; chosen: it reads at once, so
/// that only one that hangs reaches it.
const PATIENCE_MS: u16 = 5000;
/// How long the datapath may take to close its listeners at the end; chosen: it takes a fraction of a
/// millisecond unless it hangs.
const CLOSING: Duration = Duration::from_millis(200);
/// Between two looks where the kernel has no event for what is waited for.
const PAUSE: Duration = Duration::from_millis(1);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A signal came.
    Signal(Arrived),
    /// The first process of the namespaces said something.
    First(Word),
    /// It ended.
    FirstEnded(Ending),
    /// The monitor said something, with descriptors.
    Monitor(MonitorToSupervisor, Vec<OwnedFd>),
    /// The datapath said something.
    Datapath(DatapathToSupervisor),
    /// A helper broke the protocol; nothing more will be heard of it but its end.
    Violation(Helper, String),
    /// A helper ended.
    HelperEnded(Helper, Ending),
}

/// What a wake-up is about. Whose end it is comes after what they may have said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
enum Token {
    Signals,
    FirstSocket,
    MonitorChannel,
    DatapathChannel,
    DatapathPid,
    Resolvers,
    First,
    Monitor,
    Datapath,
    Forerunner,
}

impl Token {
    const ALL: [Self; 10] = [
        Self::Signals,
        Self::FirstSocket,
        Self::MonitorChannel,
        Self::DatapathChannel,
        Self::DatapathPid,
        Self::Resolvers,
        Self::First,
        Self::Monitor,
        Self::Datapath,
        Self::Forerunner,
    ];
}

/// The talk with a helper, and its process.
#[derive(Debug)]
struct HelperLink<Out, In> {
    child: Option<Child>,
    channel: Option<Channel<Out, In>>,
    talk: Talk,
}

impl<Out: Message, In: Message> HelperLink<Out, In> {
    fn new(child: Child, channel: Channel<Out, In>) -> Self {
        Self { child: Some(child), channel: Some(channel), talk: Talk::default() }
    }

    fn send(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        match &self.channel {
            Some(channel) => channel.send_with(message, fds),
            None => Err(SendError::Closed),
        }
    }

    fn kill(&self) {
        if let Some(child) = &self.child {
            // It may have ended by itself; then there is nothing to kill.
            let _ = sys::pidfd_send_signal(&child.pidfd, Signal::SIGKILL);
        }
    }
}

/// The processes, their channels, and our signals.
#[derive(Debug)]
pub(crate) struct Children {
    epoll: Epoll,
    signals: SignalFd,
    first: Option<FirstProcess>,
    released: bool,
    monitor: HelperLink<SupervisorToMonitor, MonitorToSupervisor>,
    datapath: HelperLink<SupervisorToDatapath, DatapathToSupervisor>,
    /// Where the datapath, which changes its process while it isolates itself, says its new number.
    datapath_pid: Option<OwnedFd>,
    /// The process that the datapath was before.
    forerunner: Option<Child>,
}

/// The helpers as they have just been started.
#[derive(Debug)]
pub(crate) struct Started {
    /// The monitor.
    pub(crate) monitor: (Child, Channel<SupervisorToMonitor, MonitorToSupervisor>),
    /// The datapath, in its first process.
    pub(crate) datapath: (Child, Channel<SupervisorToDatapath, DatapathToSupervisor>),
    /// The pipe from which its second process's number is read.
    pub(crate) datapath_pid: OwnedFd,
}

impl Children {
    /// Takes the helpers over, greets them and begins to watch them and our signals.
    ///
    /// # Errors
    ///
    /// What epoll(7) and signalfd(2) report.
    pub(crate) fn new(started: Started) -> io::Result<Self> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let children = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            signals: SignalFd::with_flags(&crate::caller::watched(), flags)?,
            first: None,
            released: false,
            monitor: HelperLink::new(started.monitor.0, started.monitor.1),
            datapath: HelperLink::new(started.datapath.0, started.datapath.1),
            datapath_pid: Some(started.datapath_pid),
            forerunner: None,
        };
        children.watch(&children.signals, Token::Signals)?;
        children.watch_helper(&children.monitor, Token::Monitor, Token::MonitorChannel)?;
        children.watch_helper(&children.datapath, Token::Datapath, Token::DatapathChannel)?;
        if let Some(pipe) = &children.datapath_pid {
            children.watch(pipe, Token::DatapathPid)?;
        }
        // A helper that is gone already shows by its end.
        let _ = children.monitor.send(&SupervisorToMonitor::Hello(Hello::OURS), &[]);
        let _ = children.datapath.send(&SupervisorToDatapath::Hello(Hello::OURS), &[]);
        Ok(children)
    }

    /// Takes over the first process of the namespaces.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn adopt(&mut self, first: FirstProcess) -> io::Result<()> {
        let first = self.first.insert(first);
        let event = |token| EpollEvent::new(EpollFlags::EPOLLIN, token as u64);
        self.epoll.add(first.as_fd(), event(Token::FirstSocket))?;
        self.epoll.add(&first.child.pidfd, event(Token::First))?;
        Ok(())
    }

    /// Tells the monitor to start.
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
            SupervisorToMonitor::Start(start) => start.tap,
            _ => TapUse::Make,
        };
        self.monitor.talk.started(tap);
        self.monitor.send(message, fds)
    }

    /// Tells the datapath to start.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn start_datapath(
        &mut self,
        message: &SupervisorToDatapath,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SendError> {
        self.datapath.talk.started(TapUse::Make);
        self.datapath.send(message, fds)
    }

    /// Hands listeners to the datapath, which reads them while we wait for room.
    ///
    /// # Errors
    ///
    /// [`SendError`]; `WouldBlock` if it does not read for five seconds.
    pub(crate) fn hand_over(&self, listeners: &Listeners) -> Result<(), SendError> {
        for (addresses, sockets) in listeners.batches() {
            let message = SupervisorToDatapath::Listeners(addresses);
            loop {
                match self.datapath.send(&message, &sockets) {
                    Err(SendError::WouldBlock) => self.wait_for_room()?,
                    // More descriptors are under way than we may have open (unix(7)).
                    Err(SendError::Io(error))
                        if error.raw_os_error() == Some(libc::ETOOMANYREFS) =>
                    {
                        std::thread::sleep(PAUSE);
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

    fn wait_for_room(&self) -> Result<(), SendError> {
        let Some(channel) = &self.datapath.channel else { return Err(SendError::Closed) };
        let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
            Ok(0) => Err(SendError::WouldBlock),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(SendError::Io(errno.into())),
        }
    }

    /// Says something more to the datapath.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn tell_datapath(&self, message: &SupervisorToDatapath) -> Result<(), SendError> {
        self.datapath.send(message, &[])
    }

    /// Asks the monitor for its status.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn ask_for_status(&mut self) -> Result<(), SendError> {
        self.monitor.send(&SupervisorToMonitor::StatusWanted, &[])?;
        self.monitor.talk.asked();
        Ok(())
    }

    /// Asks the monitor to look at everything again.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn ask_for_look(&self) -> Result<(), SendError> {
        self.monitor.send(&SupervisorToMonitor::LookWanted, &[])
    }

    /// Asks the monitor to end, or ends it if it does not listen.
    pub(crate) fn stop_monitor(&self) {
        if self.monitor.send(&SupervisorToMonitor::Shutdown, &[]).is_err() {
            self.monitor.kill();
        }
    }

    /// Asks the datapath to end and waits until it has closed its listeners, for [`CLOSING`] at most:
    /// whoever starts again at once is to find the ports free. What the kernel has to do for the tap
    /// then takes longer and is not waited for. Gives what happened meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Children::next`].
    pub(crate) fn close_ports(&mut self) -> io::Result<Vec<Event>> {
        let mut events = Vec::new();
        if self.datapath.send(&SupervisorToDatapath::Shutdown, &[]).is_err() {
            return Ok(events);
        }
        let deadline = Instant::now() + CLOSING;
        while self.datapath.channel.is_some() && self.datapath.child.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            events.extend(self.next(Some(left))?);
        }
        Ok(events)
    }

    /// The process of a helper, once it is its last one.
    pub(crate) fn pid(&self, helper: Helper) -> Option<Pid> {
        let child = match helper {
            Helper::Monitor => self.monitor.child.as_ref(),
            // As long as the pipe is there, it may still change.
            Helper::Datapath if self.datapath_pid.is_some() => None,
            Helper::Datapath => self.datapath.child.as_ref(),
        };
        child.map(|child| child.pid)
    }

    /// Lets COMMAND start.
    ///
    /// # Errors
    ///
    /// If its first process is gone.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        let first = self.first.as_ref().ok_or(io::ErrorKind::NotFound)?;
        first.release()?;
        self.released = true;
        self.epoll.delete(first.as_fd())?;
        Ok(())
    }

    /// Sends `signal` to the first process, which passes it on to COMMAND.
    pub(crate) fn pass_on(&self, signal: Signal) {
        if let Some(first) = &self.first {
            // One that has just ended shows as its end.
            let _ = sys::pidfd_send_signal(&first.child.pidfd, signal);
        }
    }

    /// Ends both helpers, at once and without waiting: when the datapath ends, the kernel takes the
    /// tap apart, which takes it tens of milliseconds that nobody here needs to wait for.
    pub(crate) fn kill_helpers(&self) {
        self.monitor.kill();
        self.datapath.kill();
        if let Some(forerunner) = &self.forerunner {
            // As in `HelperLink::kill`.
            let _ = sys::pidfd_send_signal(&forerunner.pidfd, Signal::SIGKILL);
        }
    }

    /// Ends everything that was started, and waits until it has ended: for a start that failed.
    pub(crate) fn tear_down(mut self) {
        self.kill_helpers();
        // One that root is just starting is not ours to signal until it has become the user that we
        // have become already; it ends by itself when nobody is there to talk to.
        self.monitor.channel = None;
        self.datapath.channel = None;
        // Once its first process has ended, no second one can appear; one that has says so here.
        self.wait_for_helpers();
        self.hear_datapath_pid(&mut Vec::new());
        self.kill_helpers();
        self.pass_on(Signal::SIGKILL);
        self.wait_for_helpers();
        if let Some(first) = &self.first {
            reap(&first.child, WaitPidFlag::empty());
        }
    }

    fn wait_for_helpers(&self) {
        let children = [&self.monitor.child, &self.datapath.child, &self.forerunner];
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
        // Rounded up, so that it is over when we wake; a day is as good as longer.
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
                    events.push(Event::Signal(Arrived::from(&info)));
                }
            }
            Token::FirstSocket => self.hear_first(events)?,
            Token::MonitorChannel => self.hear_monitor(events),
            Token::DatapathChannel => self.hear_datapath(events),
            Token::DatapathPid => self.hear_datapath_pid(events),
            // Who owns them looks after each wake-up.
            Token::Resolvers => {}
            Token::First => {
                self.hear_first(events)?;
                let ended = self.first.as_ref().and_then(|first| ended(&first.child));
                if let Some(ending) = ended {
                    self.first = None;
                    events.push(Event::FirstEnded(ending));
                }
            }
            Token::Monitor => {
                self.hear_monitor(events);
                if let Some(ending) = take_ended(&mut self.monitor.child) {
                    events.push(Event::HelperEnded(Helper::Monitor, ending));
                }
            }
            Token::Datapath => {
                self.hear_datapath_pid(events);
                self.hear_datapath(events);
                if let Some(ending) = take_ended(&mut self.datapath.child) {
                    events.push(Event::HelperEnded(Helper::Datapath, ending));
                }
            }
            // Its successor is the datapath now.
            Token::Forerunner => drop(take_ended(&mut self.forerunner)),
        }
        Ok(())
    }

    fn hear_first(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        while let Some(first) = self.first.as_ref().filter(|_| !self.released) {
            match first.hear() {
                Ok(Some(word)) => events.push(Event::First(word)),
                // Its end is heard of by its pidfd; the socket would only wake us again.
                Ok(None) => {
                    self.epoll.delete(first.as_fd())?;
                    self.released = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hear_monitor(&mut self, events: &mut Vec<Event>) {
        while let Some(channel) = &self.monitor.channel {
            let heard = hear(channel, |message| self.monitor.talk.monitor(message));
            match heard {
                Heard::Message(Received { message, fds }) => {
                    events.push(Event::Monitor(message, fds));
                }
                Heard::Nothing => return,
                Heard::End => self.monitor.channel = None,
                Heard::Violation(why) => {
                    self.monitor.channel = None;
                    events.push(Event::Violation(Helper::Monitor, why));
                }
            }
        }
    }

    fn hear_datapath(&mut self, events: &mut Vec<Event>) {
        while let Some(channel) = &self.datapath.channel {
            let heard = hear(channel, |message| self.datapath.talk.datapath(message));
            match heard {
                Heard::Message(received) => events.push(Event::Datapath(received.message)),
                Heard::Nothing => return,
                Heard::End => self.datapath.channel = None,
                Heard::Violation(why) => {
                    self.datapath.channel = None;
                    events.push(Event::Violation(Helper::Datapath, why));
                }
            }
        }
    }

    /// Learns the datapath's new number, once. Only a child of ours can be meant: the process that
    /// says it is not confined and has read nothing yet.
    fn hear_datapath_pid(&mut self, events: &mut Vec<Event>) {
        let Some(pipe) = &self.datapath_pid else { return };
        let mut octets = [0; 4];
        let said = match read(pipe, &mut octets) {
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Ok(4) => Some(Pid::from_raw(i32::from_ne_bytes(octets))),
            // It has ended before it could say: its end is the event.
            Ok(0) => None,
            _ => {
                let why = "no process number from its first process".into();
                events.push(Event::Violation(Helper::Datapath, why));
                None
            }
        };
        self.datapath_pid = None;
        let Some(pid) = said else { return };
        // Without a PID namespace of its own it has stayed what it was.
        if self.datapath.child.as_ref().is_some_and(|child| child.pid == pid) {
            return;
        }
        let followed = sys::pidfd_open(pid).and_then(|pidfd| {
            self.watch(&pidfd, Token::Datapath)?;
            if let Some(forerunner) = &self.datapath.child {
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Forerunner as u64);
                self.epoll.modify(&forerunner.pidfd, &mut event)?;
            }
            Ok(Child { pid, pidfd })
        });
        match followed {
            Ok(child) => self.forerunner = self.datapath.child.replace(child),
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

enum Heard<In> {
    Message(Received<In>),
    Nothing,
    End,
    Violation(String),
}

/// One message that is allowed at this time.
fn hear<Out: Message, In: Message>(
    channel: &Channel<Out, In>,
    allowed: impl FnOnce(&In) -> Result<(), String>,
) -> Heard<In> {
    match channel.receive() {
        Ok(received) => match allowed(&received.message) {
            Ok(()) => Heard::Message(received),
            Err(why) => Heard::Violation(why),
        },
        Err(ReceiveError::WouldBlock) => Heard::Nothing,
        Err(ReceiveError::Closed) => Heard::End,
        Err(ReceiveError::Violation(why)) => Heard::Violation(why),
        Err(ReceiveError::Io(error)) => Heard::Violation(format!("cannot receive: {error}")),
    }
}

/// How `child` ended, if it has; it is reaped then.
fn ended(child: &Child) -> Option<Ending> {
    reap(child, WaitPidFlag::WNOHANG)
}

/// As [`ended`], and forgets it: dropping its pidfd also ends the watching.
fn take_ended(child: &mut Option<Child>) -> Option<Ending> {
    let ending = child.as_ref().and_then(ended)?;
    *child = None;
    Some(ending)
}

fn reap(child: &Child, flags: WaitPidFlag) -> Option<Ending> {
    loop {
        match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED | flags) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(status) => return Some(Ending::from(status)),
            Err(Errno::EINTR) => {}
            // Reaped by somebody else: all that is known is that it is gone.
            Err(_) => return Some(Ending::Unknown),
        }
    }
}
