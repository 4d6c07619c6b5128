//! Local connections joined socket to socket, without frames.
//!
//! Each direction is by itself: octets move from one socket to the other until the first has ended, then
//! the other is shut down for writing. An error of either resets both.
//!
//! Small messages are received and sent, two calls and no pipe. Once a read fills [`SMALL`], octets go
//! through a borrowed pipe and are never copied to this process; a pipe is kept only while the output is
//! blocked. There is no time-out: both kernels keep their own.
//!
//! Readiness is edge-triggered: a direction goes on until a read or a write says that it cannot. A read
//! that came up short says so too, unless the stream has ended behind it.

pub mod pipes;

use crate::counters::DropReason;
use crate::flow::evict::Opener;
use crate::flow::{Context, Facts, FlowEvent, Next, Outcome, Readiness, Side, TargetSocket};
use crate::part::{part, part_mut};
use crate::sockets::{Interest, Progress, Sockets};
use crate::token::Token;
use nix::errno::Errno;
use pasta_ipc::types::Transport;
use pipes::{Pipes, Splicing};
use std::net::SocketAddr;

/// A read of this many octets or more is the beginning of a stream; chosen: below it two copies cost
/// less than the calls that a pipe takes.
pub const SMALL: usize = 16 * 1024;

/// Small reads in a row that end a stream; chosen: a stream has a few now and then.
const PATIENCE: u8 = 8;

/// Octets that a direction moves in a turn of the loop before others go first.
const SHARE: usize = 512 * 1024;

/// A stream socket of either end. None of the calls blocks.
pub trait StreamSocket {
    /// Takes octets off the receive queue; zero is the end of the stream.
    ///
    /// # Errors
    ///
    /// As recv(2), `EAGAIN` if nothing is waiting.
    fn read(&self, into: &mut [u8]) -> Result<usize, Errno>;

    /// Appends to the send buffer; a short count means that it is full.
    ///
    /// # Errors
    ///
    /// As send(2), `EAGAIN` if nothing fits.
    fn write(&self, octets: &[u8]) -> Result<usize, Errno>;

    /// Sends FIN behind what the send buffer holds.
    fn shut_down_write(&self);

    /// The error that the socket has come to, if any; asking clears it.
    fn take_error(&self) -> Option<Errno>;

    /// Makes closing the socket send a reset.
    fn reset_on_close(&self);

    /// The address that it is bound to.
    fn local_address(&self) -> Option<SocketAddr>;

    /// Octets that it has received, and that it has sent and its peer has acknowledged; none where nobody knows.
    fn carried(&self) -> Option<[u64; 2]> {
        None
    }
}

/// What was read and could not be written.
#[derive(Debug)]
enum Held<P> {
    Nothing,
    Pipe(P),
    /// Where no pipe was to be had; at most [`SMALL`].
    Octets(Vec<u8>),
}

/// One direction.
#[derive(Debug)]
struct Half<P> {
    held: Held<P>,
    /// The source may have something.
    readable: bool,
    /// The source's peer has sent FIN: a short read does not mean that nothing follows.
    hung_up: bool,
    /// All of the source was read.
    ended: bool,
    /// The destination may take something.
    writable: bool,
    /// The destination was shut down for writing.
    shut: bool,
    /// Reads through a pipe that may still be small before reads are taken to be small again; 0: they
    /// are.
    bulk: u8,
}

impl<P> Half<P> {
    fn new() -> Self {
        Self {
            held: Held::Nothing,
            readable: true,
            hung_up: false,
            ended: false,
            writable: true,
            shut: false,
            bulk: 0,
        }
    }
}

/// The socket towards the target.
#[derive(Debug)]
enum Target<K> {
    /// There is none yet: one that lives in the namespace was asked for.
    Wanted,
    Connecting(K),
    Connected(K),
}

/// A local connection: an accepted socket and the one that it is joined to.
#[derive(Debug)]
pub struct SpliceFlow<K, P> {
    initiating: K,
    target: Target<K>,
    destination: SocketAddr,
    otherwise: Option<SocketAddr>,
    opener: Opener,
    forth: Half<P>,
    back: Half<P>,
}

impl<K: StreamSocket, P: Splicing<K>> SpliceFlow<K, P> {
    /// A flow of an accepted socket to `destination`, for which there is no socket yet; `otherwise` is
    /// tried where that refuses.
    pub fn new(initiating: K, destination: SocketAddr, otherwise: Option<SocketAddr>) -> Self {
        let (forth, back) = (Half::new(), Half::new());
        let (target, opener) = (Target::Wanted, Opener::Host);
        Self { initiating, target, destination, otherwise, opener, forth, back }
    }

    /// The same, opened by the namespace instead of from the host's side.
    #[must_use]
    pub fn of_namespace(self) -> Self {
        Self { opener: Opener::Namespace, ..self }
    }

    /// Who has opened it.
    pub fn opener(&self) -> Opener {
        self.opener
    }

    /// Whether the namespace has opened it.
    pub fn is_of_namespace(&self) -> bool {
        self.opener == Opener::Namespace
    }

    /// Whether the target's socket is connected.
    pub fn is_connected(&self) -> bool {
        matches!(self.target, Target::Connected(_))
    }

    /// Whether a socket for [`SpliceFlow::destination`] is still to be had.
    pub fn wants_socket(&self) -> bool {
        matches!(self.target, Target::Wanted)
    }

    /// What the target's socket is connected to.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Turns to the other destination, if there is one; a new socket is wanted then.
    fn try_otherwise(&mut self) -> bool {
        let Some(otherwise) = self.otherwise.take() else { return false };
        self.destination = otherwise;
        self.target = Target::Wanted;
        true
    }

    /// Notes that the target's socket is connected.
    fn connected(&mut self) {
        self.target = match std::mem::replace(&mut self.target, Target::Wanted) {
            Target::Connecting(socket) => Target::Connected(socket),
            other => other,
        };
    }

    /// Takes in what happened to this flow and does all that follows from it now.
    pub fn on_event<S: Sockets<Socket = K, Pipe = P>>(
        &mut self,
        cx: &mut Context<'_, S>,
        event: FlowEvent<'_, K>,
    ) -> Outcome {
        match event {
            FlowEvent::Opened if self.wants_socket() => self.socket_wanted(),
            FlowEvent::Target(socket) => self.set_target(cx, socket),
            FlowEvent::Socket(side, readiness) => self.socket_event(cx, side, readiness),
            FlowEvent::Opened | FlowEvent::Turn => self.settle(cx.pipes, cx.scratch),
            FlowEvent::Abort => self.break_off(),
            FlowEvent::Evicted => Outcome::of(Next::Over),
            // Of other kinds of flows; it has no deadline.
            FlowEvent::Payloads(_)
            | FlowEvent::Datagrams(..)
            | FlowEvent::Arrived(..)
            | FlowEvent::Error(_)
            | FlowEvent::Reported(_)
            | FlowEvent::Deadline
            | FlowEvent::CreditFree => Outcome::of(Next::Wait),
        }
    }

    fn socket_wanted(&self) -> Outcome {
        let facts = Facts { socket_wanted: true, ..Facts::default() };
        Outcome { facts, ..Outcome::of(Next::Wait) }
    }

    fn set_target<S: Sockets<Socket = K, Pipe = P>>(
        &mut self,
        cx: &mut Context<'_, S>,
        given: TargetSocket<K>,
    ) -> Outcome {
        if !self.wants_socket() {
            return Outcome::of(Next::Wait);
        }
        let (socket, connected) = match given {
            TargetSocket::Host(connecting) => (connecting.socket, Ok(connecting.progress)),
            TargetSocket::Namespace(socket) => {
                let connected = cx.sockets.connect(&socket, Transport::Tcp, self.destination, 0);
                (socket, connected)
            }
        };
        let Ok(progress) = connected else { return self.target_failed(cx) };
        let watched = cx.sockets.watch(&socket, Token::Flow(cx.id, Side::Target), Interest::Stream);
        self.target = match progress {
            Progress::Connected => Target::Connected(socket),
            Progress::Connecting => Target::Connecting(socket),
        };
        if watched.is_err() { self.break_off() } else { self.settle(cx.pipes, cx.scratch) }
    }

    /// The target cannot be reached where it was looked for; there may be another place.
    fn target_failed<S: Sockets<Socket = K, Pipe = P>>(
        &mut self,
        cx: &mut Context<'_, S>,
    ) -> Outcome {
        if self.try_otherwise() {
            return self.socket_wanted();
        }
        cx.tap.counters.drop(DropReason::Unreachable);
        self.break_off()
    }

    fn socket_event<S: Sockets<Socket = K, Pipe = P>>(
        &mut self,
        cx: &mut Context<'_, S>,
        side: Side,
        readiness: Readiness,
    ) -> Outcome {
        let failed = readiness.has(Readiness::FAILED)
            && self.socket(side).is_some_and(|socket| socket.take_error().is_some());
        if side == Side::Target && matches!(self.target, Target::Connecting(_)) {
            if failed {
                return self.target_failed(cx);
            }
            if !readiness.has(Readiness::WRITABLE) {
                return Outcome::of(Next::Wait);
            }
            self.connected();
        } else if failed {
            return self.break_off();
        }
        if readiness.has(Readiness::ENDED) {
            self.hung_up(side);
        }
        if readiness.has(Readiness::READABLE) {
            self.readable(side);
        }
        if readiness.has(Readiness::WRITABLE) {
            self.writable(side);
        }
        self.settle(cx.pipes, cx.scratch)
    }

    fn settle(&mut self, pipes: &mut Pipes<P>, scratch: &mut [u8]) -> Outcome {
        match self.run(pipes, scratch) {
            Next::Reset => self.break_off(),
            next => Outcome::of(next),
        }
    }

    /// Resets both sides.
    fn break_off(&self) -> Outcome {
        for side in [Side::Initiating, Side::Target] {
            if let Some(socket) = self.socket(side) {
                socket.reset_on_close();
            }
        }
        Outcome::of(Next::Over)
    }

    /// The socket that was accepted.
    pub fn initiating(&self) -> &K {
        &self.initiating
    }

    /// Whether either direction has moved much of late.
    pub fn is_stream(&self) -> bool {
        self.forth.bulk > 0 || self.back.bulk > 0
    }

    /// A socket of the flow.
    pub fn socket(&self, side: Side) -> Option<&K> {
        match (side, &self.target) {
            (Side::Initiating, _) => Some(&self.initiating),
            (Side::Target, Target::Connecting(fd) | Target::Connected(fd)) => Some(fd),
            (Side::Target, Target::Wanted) => None,
        }
    }

    /// Notes that a socket can be read.
    pub fn readable(&mut self, side: Side) {
        self.from(side).readable = true;
    }

    /// Notes that a socket's peer has sent FIN.
    pub fn hung_up(&mut self, side: Side) {
        let half = self.from(side);
        half.readable = true;
        half.hung_up = true;
    }

    /// Notes that a socket can be written.
    pub fn writable(&mut self, side: Side) {
        self.from(side.other()).writable = true;
    }

    fn from(&mut self, side: Side) -> &mut Half<P> {
        match side {
            Side::Initiating => &mut self.forth,
            Side::Target => &mut self.back,
        }
    }

    /// Moves what can be moved; `scratch` is of at least [`SMALL`] octets.
    pub fn run(&mut self, pipes: &mut Pipes<P>, scratch: &mut [u8]) -> Next {
        let Target::Connected(target) = &self.target else { return Next::Wait };
        let (a, b) = (&self.initiating, target);
        let forth = self.forth.pump(a, b, pipes, scratch);
        let back = self.back.pump(b, a, pipes, scratch);
        match (forth, back) {
            (Err(_), _) | (_, Err(_)) => Next::Reset,
            _ if self.forth.shut && self.back.shut => Next::Over,
            (Ok(Pumped::More), _) | (_, Ok(Pumped::More)) => Next::More,
            (Ok(Pumped::Blocked), Ok(Pumped::Blocked)) => Next::Wait,
        }
    }

    /// Gives back what is borrowed, when the flow ends.
    pub fn release(&mut self, pipes: &mut Pipes<P>) {
        for half in [&mut self.forth, &mut self.back] {
            if let Held::Pipe(pipe) = std::mem::replace(&mut half.held, Held::Nothing) {
                pipes.give_back(pipe);
            }
        }
    }
}

/// How a direction stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// An event will tell when it can go on, or it is over.
    Blocked,
    /// Its share of this turn is used.
    More,
}

impl<P> Half<P> {
    fn pump<K: StreamSocket>(
        &mut self,
        from: &K,
        to: &K,
        pipes: &mut Pipes<P>,
        scratch: &mut [u8],
    ) -> Result<Pumped, Errno>
    where
        P: Splicing<K>,
    {
        let mut moved = 0;
        loop {
            moved += self.write_held(to, pipes)?;
            if !matches!(self.held, Held::Nothing) {
                return Ok(Pumped::Blocked);
            }
            if self.ended && !self.shut {
                self.shut = true;
                to.shut_down_write();
            }
            if self.ended || !self.readable {
                return Ok(Pumped::Blocked);
            }
            if moved >= SHARE {
                return Ok(Pumped::More);
            }
            let pipe = if self.bulk > 0 { pipes.borrow() } else { None };
            match pipe {
                Some(pipe) => self.read_into_pipe(from, pipe, pipes)?,
                None => moved += self.pass_on(from, to, pipes, scratch)?,
            }
        }
    }

    /// Writes what is held, as much as the destination takes.
    fn write_held<K: StreamSocket>(&mut self, to: &K, pipes: &mut Pipes<P>) -> Result<usize, Errno>
    where
        P: Splicing<K>,
    {
        if !self.writable {
            return Ok(0);
        }
        let mut written = 0;
        match &mut self.held {
            Held::Nothing => {}
            Held::Pipe(pipe) => {
                while pipe.octets() > 0 && self.writable {
                    match pipe.drain(to) {
                        Ok(octets) => written += octets,
                        Err(Errno::EAGAIN) => self.writable = false,
                        Err(errno) => return Err(errno),
                    }
                }
                if pipe.octets() == 0 {
                    if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
                        pipes.give_back(pipe);
                    }
                }
            }
            Held::Octets(octets) => {
                written = send_some(to, octets, &mut self.writable)?;
                octets.drain(..written);
                if octets.is_empty() {
                    self.held = Held::Nothing;
                }
            }
        }
        Ok(written)
    }

    fn read_into_pipe<K>(
        &mut self,
        from: &K,
        mut pipe: P,
        pipes: &mut Pipes<P>,
    ) -> Result<(), Errno>
    where
        P: Splicing<K>,
    {
        let filled = pipe.fill(from);
        match filled {
            Ok(octets @ 1..) => {
                self.bulk = if octets >= SMALL { PATIENCE } else { self.bulk - 1 };
                self.held = Held::Pipe(pipe);
                return Ok(());
            }
            Ok(_) => self.ended = true,
            Err(Errno::EAGAIN) => self.readable = false,
            Err(_) => {}
        }
        pipes.give_back(pipe);
        match filled {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Receives and sends; what the destination does not take is held.
    fn pass_on<K: StreamSocket>(
        &mut self,
        from: &K,
        to: &K,
        pipes: &mut Pipes<P>,
        scratch: &mut [u8],
    ) -> Result<usize, Errno>
    where
        P: Splicing<K>,
    {
        let len = SMALL.min(scratch.len());
        let buffer = part_mut(scratch, ..len);
        let octets = match from.read(buffer) {
            Ok(0) => {
                self.ended = true;
                return Ok(0);
            }
            Ok(octets) => octets,
            Err(Errno::EAGAIN) => {
                self.readable = false;
                return Ok(0);
            }
            Err(errno) => return Err(errno),
        };
        self.bulk = if octets >= SMALL { PATIENCE } else { 0 };
        self.readable = self.bulk > 0 || self.hung_up;
        let read = part(buffer, ..octets);
        let sent = if self.writable { send_some(to, read, &mut self.writable)? } else { 0 };
        let rest = part(read, sent..);
        if !rest.is_empty() {
            self.writable = false;
            self.hold(rest, pipes);
        }
        Ok(sent)
    }

    fn hold<K>(&mut self, octets: &[u8], pipes: &mut Pipes<P>)
    where
        P: Splicing<K>,
    {
        self.held = match pipes.borrow() {
            // An empty pipe takes sixteen times as much.
            Some(mut pipe) => match pipe.put(octets) {
                Ok(put) if put == octets.len() => Held::Pipe(pipe),
                _ => {
                    pipes.give_back(pipe);
                    Held::Octets(octets.to_vec())
                }
            },
            None => Held::Octets(octets.to_vec()),
        };
    }
}

/// Sends what fits; a short count or none at all means that the socket is full.
fn send_some<K: StreamSocket>(to: &K, octets: &[u8], writable: &mut bool) -> Result<usize, Errno> {
    match to.write(octets) {
        Ok(sent) => {
            *writable = sent == octets.len();
            Ok(sent)
        }
        Err(Errno::EAGAIN) => {
            *writable = false;
            Ok(0)
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests;
