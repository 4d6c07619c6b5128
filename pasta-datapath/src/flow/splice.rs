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

use crate::flow::Next;
use crate::sys::pipe::{Pipe, Pipes};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A read of this many octets or more is the beginning of a stream; chosen: below it two copies cost
/// less than the calls that a pipe takes.
pub const SMALL: usize = 16 * 1024;

/// Small reads in a row that end a stream; chosen: a stream has a few now and then.
const PATIENCE: u8 = 8;

/// Octets that a direction moves in a turn of the loop before others go first.
const SHARE: usize = 512 * 1024;

/// One of the two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was accepted.
    Initiating,
    /// The one that we connected.
    Target,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Initiating => Self::Target,
            Self::Target => Self::Initiating,
        }
    }
}

/// What was read and could not be written.
#[derive(Debug)]
enum Held {
    Nothing,
    Pipe(Pipe),
    /// Where no pipe was to be had; at most [`SMALL`].
    Octets(Vec<u8>),
}

/// One direction.
#[derive(Debug)]
struct Half {
    held: Held,
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

impl Half {
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
enum Target {
    /// There is none yet: one that lives in the namespace was asked for.
    Wanted,
    Connecting(OwnedFd),
    Connected(OwnedFd),
}

/// A local connection: an accepted socket and the one that it is joined to.
#[derive(Debug)]
pub struct SpliceFlow {
    initiating: OwnedFd,
    target: Target,
    destination: SocketAddr,
    otherwise: Option<SocketAddr>,
    forth: Half,
    back: Half,
}

impl SpliceFlow {
    /// A flow of an accepted socket to `destination`, for which there is no socket yet; `otherwise` is
    /// tried where that refuses.
    pub fn new(
        initiating: OwnedFd,
        destination: SocketAddr,
        otherwise: Option<SocketAddr>,
    ) -> Self {
        let (forth, back) = (Half::new(), Half::new());
        Self { initiating, target: Target::Wanted, destination, otherwise, forth, back }
    }

    /// Whether a socket for [`SpliceFlow::destination`] is still to be had.
    pub fn wants_socket(&self) -> bool {
        matches!(self.target, Target::Wanted)
    }

    /// What the target's socket is connected to.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Gives the flow its target's socket, which has begun to connect or is connected.
    pub fn set_target(&mut self, socket: OwnedFd, connected: bool) {
        self.target =
            if connected { Target::Connected(socket) } else { Target::Connecting(socket) };
    }

    /// Turns to the other destination, if there is one; a new socket is wanted then.
    pub fn try_otherwise(&mut self) -> bool {
        let Some(otherwise) = self.otherwise.take() else { return false };
        self.destination = otherwise;
        self.target = Target::Wanted;
        true
    }

    /// Whether the target's socket is connecting.
    pub fn is_connecting(&self) -> bool {
        matches!(self.target, Target::Connecting(_))
    }

    /// Notes that the target's socket is connected.
    pub fn connected(&mut self) {
        self.target = match std::mem::replace(&mut self.target, Target::Wanted) {
            Target::Connecting(socket) => Target::Connected(socket),
            other => other,
        };
    }

    /// Whether either direction has moved much of late.
    pub fn is_stream(&self) -> bool {
        self.forth.bulk > 0 || self.back.bulk > 0
    }

    /// A socket of the flow.
    pub fn socket(&self, side: Side) -> Option<BorrowedFd<'_>> {
        match (side, &self.target) {
            (Side::Initiating, _) => Some(self.initiating.as_fd()),
            (Side::Target, Target::Connecting(fd) | Target::Connected(fd)) => Some(fd.as_fd()),
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

    fn from(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Initiating => &mut self.forth,
            Side::Target => &mut self.back,
        }
    }

    /// Moves what can be moved; `scratch` is of at least [`SMALL`] octets.
    pub fn run(&mut self, pipes: &mut Pipes, scratch: &mut [u8]) -> Next {
        let Target::Connected(target) = &self.target else { return Next::Wait };
        let (a, b) = (self.initiating.as_fd(), target.as_fd());
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
    pub fn release(&mut self, pipes: &mut Pipes) {
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

impl Half {
    fn pump(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        pipes: &mut Pipes,
        scratch: &mut [u8],
    ) -> Result<Pumped, Errno> {
        let mut moved = 0;
        loop {
            moved += self.write_held(to, pipes)?;
            if !matches!(self.held, Held::Nothing) {
                return Ok(Pumped::Blocked);
            }
            if self.ended && !self.shut {
                self.shut = true;
                // Fails only where the connection is gone, which shows as its error.
                let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
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
    fn write_held(&mut self, to: BorrowedFd<'_>, pipes: &mut Pipes) -> Result<usize, Errno> {
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
                if pipe.octets() == 0
                    && let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing)
                {
                    pipes.give_back(pipe);
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

    fn read_into_pipe(
        &mut self,
        from: BorrowedFd<'_>,
        mut pipe: Pipe,
        pipes: &mut Pipes,
    ) -> Result<(), Errno> {
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
    fn pass_on(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        pipes: &mut Pipes,
        scratch: &mut [u8],
    ) -> Result<usize, Errno> {
        let len = SMALL.min(scratch.len());
        let buffer = scratch.get_mut(..len).unwrap_or_default();
        let octets = match retry(|| recv(from.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)) {
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
        let read = buffer.get(..octets).unwrap_or_default();
        let sent = if self.writable { send_some(to, read, &mut self.writable)? } else { 0 };
        let rest = read.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            self.writable = false;
            self.hold(rest, pipes);
        }
        Ok(sent)
    }

    fn hold(&mut self, octets: &[u8], pipes: &mut Pipes) {
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
fn send_some(to: BorrowedFd<'_>, octets: &[u8], writable: &mut bool) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match retry(|| send(to.as_raw_fd(), octets, flags)) {
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

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
