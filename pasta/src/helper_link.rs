//! A helper as the supervisor holds it: its process, its channel, and how far they have come.

use crate::intake::{IN_A_TURN, Intake, Verdict};
use crate::peer::Handshake;
use crate::sys::{self, Child};
use nix::sys::signal::Signal;
use pasta_ipc::channel::{Channel, ReceiveError, Received, SendError};
use pasta_ipc::message::Message;
use pasta_ipc::types::LogLevel;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// A helper's process, channel and handshake.
#[derive(Debug)]
pub(crate) struct HelperLink<Out, In> {
    /// Its process, until it has ended.
    pub(crate) child: Option<Child>,
    /// Its channel, until that is closed.
    pub(crate) channel: Option<Channel<Out, In>>,
    /// Which messages it may send.
    pub(crate) handshake: Handshake,
    /// How many of them.
    pub(crate) intake: Intake,
}

impl<Out: Message, In: Message> HelperLink<Out, In> {
    /// A helper that was just started, whose log has this level.
    pub(crate) fn new((child, channel): (Child, Channel<Out, In>), level: LogLevel) -> Self {
        let (handshake, intake) = (Handshake::default(), Intake::new(level));
        Self { child: Some(child), channel: Some(channel), handshake, intake }
    }

    /// Receives what has come and the handshake allows: as much as it may say in a turn, or, once it has ended,
    /// all that it has said.
    pub(crate) fn receive(
        &mut self,
        (amount, clock): (Amount, &Clock),
        allowed: impl Fn(&mut Handshake, &In) -> Result<(), String>,
        kind: impl Fn(&In) -> Kind,
    ) -> Batch<In> {
        let mut messages = Vec::new();
        while amount == Amount::All || messages.len() < IN_A_TURN {
            let Some(channel) = &self.channel else { break };
            let now = clock.now();
            if amount == Amount::Turn {
                match self.intake.next(now) {
                    Verdict::Receive => {}
                    Verdict::Wait(_) => break,
                    Verdict::Excess => {
                        self.channel = None;
                        let why = "sends messages without end".to_owned();
                        return Batch { messages, violation: Some(why) };
                    }
                }
            }
            let (handshake, intake) = (&mut self.handshake, &self.intake);
            let mut counts = true;
            let received = receive(channel, |message| {
                match kind(message) {
                    Kind::Line(level) if !intake.allows(level) => {
                        return Err("sends log lines that nobody asked for".into());
                    }
                    kind => counts = kind != Kind::Answer,
                }
                allowed(handshake, message)
            });
            match received {
                Reception::Message(message) => {
                    if counts {
                        self.intake.took(now);
                    }
                    messages.push(message);
                }
                Reception::WouldBlock => {
                    self.intake.is_drained();
                    break;
                }
                Reception::Closed => self.channel = None,
                Reception::Violation(why) => {
                    self.channel = None;
                    return Batch { messages, violation: Some(why) };
                }
            }
        }
        Batch { messages, violation: None }
    }

    /// Sends a message with its descriptors.
    ///
    /// # Errors
    ///
    /// [`SendError`]; `Closed` also once we have closed it.
    pub(crate) fn send(&self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        match &self.channel {
            Some(channel) => channel.send_with(message, fds),
            None => Err(SendError::Closed),
        }
    }

    /// Ends the process.
    pub(crate) fn kill(&self) {
        if let Some(child) = &self.child {
            // Fails if it has ended.
            let _ = sys::pidfd_send_signal(&child.pidfd, Signal::SIGKILL);
        }
    }
}

/// What matters of a message for how many may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A line of the log.
    Line(LogLevel),
    /// We have asked for it.
    Answer,
    /// Neither.
    Other,
}

/// How much is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// What a turn allows.
    Turn,
    /// All that is there: the sender has ended.
    All,
}

/// What was received from a helper, and how it broke the protocol after that.
#[derive(Debug)]
pub(crate) struct Batch<In> {
    /// The messages.
    pub(crate) messages: Vec<Received<In>>,
    /// What was wrong with the next one.
    pub(crate) violation: Option<String>,
}

/// Time since the start, as [`Intake`] counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// One that starts.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    pub(crate) fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What came of receiving one message.
pub(crate) enum Reception<In> {
    /// It came, and it may.
    Message(Received<In>),
    /// There is none.
    WouldBlock,
    /// The other end is closed.
    Closed,
    /// It may not be sent, or not at this time.
    Violation(String),
}

/// Receives one message and checks that it is allowed at this time.
pub(crate) fn receive<Out: Message, In: Message>(
    channel: &Channel<Out, In>,
    allowed: impl FnOnce(&In) -> Result<(), String>,
) -> Reception<In> {
    match channel.receive() {
        Ok(received) => match allowed(&received.message) {
            Ok(()) => Reception::Message(received),
            Err(why) => Reception::Violation(why),
        },
        Err(ReceiveError::WouldBlock) => Reception::WouldBlock,
        Err(ReceiveError::Closed) => Reception::Closed,
        Err(ReceiveError::Violation(why)) => Reception::Violation(why),
        Err(ReceiveError::Io(error)) => Reception::Violation(format!("cannot receive: {error}")),
    }
}
