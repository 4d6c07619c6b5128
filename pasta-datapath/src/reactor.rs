//! The reactor: waits for events, reads batches, keeps the time, and calls the stack. It knows no protocol.
//!
//! Order of a turn: timers, messages, tap, host sockets, then flows that wait for more. A flow that has
//! used its quantum goes to the end of the run queue (round robin); a turn with a flow in it does not sleep,
//! and serves few of them, so that new arrivals of other flows are seen soon. The clock is read once a turn,
//! while busy polling (`busy_poll`), and around a yield (`yielding`). No buffer is allocated for a frame.

mod batch;
mod busy_poll;
mod statistics;
mod yielding;

use crate::control::{Monitor, PeerMessage, Supervisor};
use crate::counters::Counters;
use crate::flow::{Readiness, Side};
use crate::sys::epoll::{CAPACITY, Event, Poller};
use crate::sys::host::HostSockets;
use crate::sys::tap::Tap;
use crate::time::Instant;
use crate::token::Token;
use batch::{Expected, FrameBuffer};
use busy_poll::{BUSY_POLL_TIME, BusyPoll, Turn};
use nix::errno::Errno;
use pasta_ipc::types::LogLevel;
use pasta_ipc::{ReceiveError, SendError};
use seccomp::Confined;
use statistics::Statistics;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;
use yielding::{Moved, Yielding};

/// The stack over the host's kernel.
pub type Stack = crate::stack::Stack<HostSockets>;

/// Less than this for the namespace is little; chosen: what an exchange of messages may have.
const LITTLE: u64 = 16 * 1024;

/// When an answer that the supervisor's channel had no room for is tried again; chosen: it reads within this time.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Why the loop ended.
#[derive(Debug)]
pub enum Ended {
    /// The supervisor asked for it, or has gone.
    Asked,
    /// The tap was deleted or moved away.
    TapGone(Errno),
}

/// Why the loop could not go on.
#[derive(Debug)]
pub enum RunError {
    /// A peer broke the protocol.
    Peer(&'static str, ReceiveError),
    /// The kernel refused to wait.
    Wait(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(who, error) => write!(f, "{who}: {error}"),
            Self::Wait(error) => write!(f, "cannot wait for events: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// The stack, and what drives it.
#[derive(Debug)]
pub struct Reactor {
    stack: Stack,
    supervisor: Supervisor,
    monitor: Monitor,
    /// Whether the tap may have frames.
    tap_ready: bool,
    frames: FrameBuffer,
    busy_poll: BusyPoll,
    yielding: Yielding,
    events: Vec<Event>,
    statistics: Option<Statistics>,
    /// Whether answers to the supervisor wait for room in its channel.
    unsent: bool,
    started: std::time::Instant,
}

/// A poller that waits for the tap and for both peers.
///
/// # Errors
///
/// Where descriptors cannot be waited for.
pub fn poller(tap: &Tap, supervisor: &Supervisor, monitor: &Monitor) -> io::Result<Poller> {
    let poller = Poller::new()?;
    if let Some(tap) = tap.as_fd() {
        poller.add_level(tap, Token::Tap.into())?;
    }
    poller.add_level(supervisor.as_fd(), Token::Supervisor.into())?;
    if let Some(fd) = monitor.as_fd() {
        poller.add_level(fd, Token::Monitor.into())?;
    }
    Ok(poller)
}

impl Reactor {
    /// Drives `stack`, whose sockets are waited for by a [`poller`]; nothing is read yet.
    #[expect(clippy::disallowed_methods, reason = "the reactor reads the clock, once a turn")]
    pub fn new(stack: Stack, supervisor: Supervisor, monitor: Monitor) -> Self {
        Self {
            stack,
            supervisor,
            monitor,
            tap_ready: true,
            frames: FrameBuffer::new(),
            busy_poll: BusyPoll::new(),
            yielding: Yielding::default(),
            events: Vec::new(),
            statistics: None,
            unsent: false,
            started: std::time::Instant::now(),
        }
    }

    /// Shows the counters, at most every so many seconds.
    pub fn show_counters(&mut self, seconds: NonZeroU32) {
        self.statistics = Some(Statistics::new(seconds, self.now()));
    }

    /// The supervisor's channel, for what is said before the loop runs.
    pub fn supervisor(&mut self) -> &mut Supervisor {
        &mut self.supervisor
    }

    /// Takes in what was received before the loop runs.
    ///
    /// # Errors
    ///
    /// [`RunError::Peer`].
    pub fn handle_message(&mut self, message: PeerMessage) -> Result<(), RunError> {
        let now = self.now();
        let handled = self.stack.handle_message(now, message);
        self.send_requests(now);
        self.send_log();
        handled.map_err(|error| RunError::Peer("monitor", error))
    }

    /// Forwards frames until the supervisor asks it to stop; cannot be called by a process that is not confined.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub fn run(&mut self, _: &Confined) -> Result<Ended, RunError> {
        loop {
            if let Some(ended) = self.turn()? {
                let backlog = self.stack.flows().credit.backlog_total();
                let counters = self.stack.counters();
                let line = format!("datapath ends: backlog octets {backlog}, {counters}");
                self.supervisor.log(LogLevel::Info, || line);
                self.flush_capture();
                // Whoever waits for us waits for the ports, and not for the tap.
                self.stack.close_listeners();
                if matches!(ended, Ended::Asked) {
                    self.supervisor.hang_up();
                }
                return Ok(ended);
            }
        }
    }

    fn turn(&mut self) -> Result<Option<Ended>, RunError> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        self.wait(&mut events)?;
        let now = self.now();
        let Counters { octets_to_tap, datagrams_out, datagrams_in, .. } = *self.stack.counters();

        self.stack.fire_timers(now);
        // What is known of the network comes before the frames that may depend on it.
        let mut ended = None;
        for event in &events {
            match Token::from(event.token) {
                Token::Supervisor => ended = self.read_supervisor(now)?.or(ended),
                Token::Monitor => self.read_monitor(now)?,
                Token::Tap | Token::Listener(_) | Token::Flow(..) => {}
            }
        }
        let (mut near, mut far) = (false, false);
        self.tap_ready |= events.iter().any(|event| Token::from(event.token) == Token::Tap);
        if !self.tap_ready && events.len() < CAPACITY {
            self.stack.tap_is_empty();
        }
        if self.tap_ready {
            match self.read_tap(now) {
                Ok(few) => near = few,
                Err(errno) => return Ok(Some(Ended::TapGone(errno))),
            }
        }
        for event in &events {
            match Token::from(event.token) {
                Token::Tap | Token::Supervisor | Token::Monitor => {}
                Token::Listener(index) => {
                    if event.readiness.has(Readiness::FAILED) {
                        self.stack.listener_error(now, index);
                    }
                    far |= self.stack.listener_event(index) == Some(Side::Target);
                }
                Token::Flow(id, side) => {
                    match self.stack.socket_event(now, id, side, event.readiness) {
                        Some(Side::Initiating) => near = true,
                        Some(Side::Target) => far = true,
                        None => {}
                    }
                }
            }
        }
        self.events = events;
        self.stack.serve(now);
        self.send_requests(now);
        if self.stack.has_served_first_look() {
            self.supervisor.ports_open();
        }
        if let Some(changed) = self.stack.take_changed() {
            self.supervisor.changed(changed);
        }
        if let Some(status) = self.stack.take_status() {
            self.supervisor.status(status);
        }
        self.unsent = !self.supervisor.send_unsent();
        self.send_log();
        self.send_statistics(now);
        let counters = self.stack.counters();
        let little = counters.octets_to_tap - octets_to_tap < LITTLE;
        let moved = Moved {
            outwards: counters.datagrams_out - datagrams_out,
            inwards: counters.datagrams_in - datagrams_in,
        };
        self.busy_poll.note(match (near, far) {
            (true, false) => Turn::Near,
            (false, true) if little => Turn::Far,
            _ => Turn::Other,
        });
        let pauses = self.stack.pauses();
        if ended.is_none() && self.yielding.is_due(moved, self.tap_ready, pauses) {
            let start = self.now();
            thread::yield_now();
            self.yielding.yielded(self.now().since(start));
        }
        Ok(ended)
    }

    /// Waits for events, or looks for some if there is something else to do.
    fn wait(&mut self, events: &mut Vec<Event>) -> Result<(), RunError> {
        let busy = self.tap_ready || self.stack.is_busy();
        let now = self.now();
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            self.flush_capture();
            let statistics = self.statistics.as_ref().and_then(Statistics::deadline);
            let again = self.unsent.then_some(now + TRY_AGAIN);
            let deadlines = [self.stack.deadline(), statistics, again];
            deadlines.into_iter().flatten().min().map(|due| due.since(now))
        };
        if !busy && self.busy_poll.looks() {
            self.look(now, events)?;
        }
        if events.is_empty() {
            events.extend(self.stack.sockets().poller().wait(timeout).map_err(RunError::Wait)?);
        }
        Ok(())
    }

    /// Looks for events for a moment, since one is likely to come.
    fn look(&mut self, start: Instant, events: &mut Vec<Event>) -> Result<(), RunError> {
        let until = start + BUSY_POLL_TIME;
        loop {
            let poller = self.stack.sockets().poller();
            events.extend(poller.wait(Some(Duration::ZERO)).map_err(RunError::Wait)?);
            if !events.is_empty() {
                self.busy_poll.found();
                return Ok(());
            }
            if self.now() >= until {
                self.busy_poll.failed();
                return Ok(());
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the reactor reads the clock")]
    fn now(&self) -> Instant {
        let elapsed = std::time::Instant::now().duration_since(self.started);
        Instant::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reads a batch of frames and has it handled; gives whether it was small.
    fn read_tap(&mut self, now: Instant) -> Result<bool, Errno> {
        let stack = &mut self.stack;
        let expected = match self.busy_poll.follows_far() {
            true => Expected::LoneFrame,
            false => Expected::Frames,
        };
        let most = stack.frames_wanted(now);
        let read = self.frames.fill(most, expected, |free| stack.read_frame(free));
        self.tap_ready = read.may_have_more;
        stack.handle_frames(now, self.frames.octets(), self.frames.places());
        read.gone.map_or(Ok(read.is_small), Err)
    }

    fn read_supervisor(&mut self, now: Instant) -> Result<Option<Ended>, RunError> {
        let mut messages = Vec::new();
        let result = self.supervisor.receive(|message| messages.push(message));
        let mut ended = None;
        for message in messages {
            match message {
                PeerMessage::Shutdown => ended = Some(Ended::Asked),
                message => {
                    let handled = self.stack.handle_message(now, message);
                    handled.map_err(|error| RunError::Peer("supervisor", error))?;
                }
            }
        }
        match result {
            Ok(()) => Ok(ended),
            Err(ReceiveError::Closed) => Ok(Some(Ended::Asked)),
            Err(error) => Err(RunError::Peer("supervisor", error)),
        }
    }

    fn read_monitor(&mut self, now: Instant) -> Result<(), RunError> {
        let mut messages = Vec::new();
        let result = self.monitor.receive(now, |message| messages.push(message));
        for message in messages {
            let handled = self.stack.handle_message(now, message);
            handled.map_err(|error| RunError::Peer("monitor", error))?;
        }
        result.map_err(|error| RunError::Peer("monitor", error))
    }

    /// Asks the monitor for what is wanted of it, as far as it may be asked now.
    fn send_requests(&mut self, now: Instant) {
        while let Some(message) = self.stack.next_request() {
            match self.monitor.ask(&message) {
                Ok(()) => {}
                Err(SendError::WouldBlock) => return self.stack.not_sent(&message),
                Err(SendError::Closed | SendError::Io(_)) => return self.stack.monitor_gone(now),
            }
        }
    }

    fn send_statistics(&mut self, now: Instant) {
        let Some(statistics) = &mut self.statistics else { return };
        let counters = self.stack.counters();
        if let Some(line) = statistics.due(now, || counters.to_string()) {
            self.supervisor.statistics(line);
        }
    }

    /// Writes out what was captured.
    fn flush_capture(&mut self) {
        if let Some(errno) = self.stack.link().device.flush_capture() {
            let line = || format!("frames are not captured any more: {}", errno.desc());
            self.supervisor.log(LogLevel::Warn, line);
        }
    }

    fn send_log(&mut self) {
        while let Some((level, line)) = self.stack.log().take() {
            self.supervisor.log(level, || line);
        }
        self.supervisor.note_withheld(self.stack.log().take_withheld());
    }
}
