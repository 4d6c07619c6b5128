//! Watches the listening ports of both sides, and publishes them to the datapath.

use crate::run::clock::{Clock, processor_time};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use pasta_ipc::port_forward::{LoopbackTarget, PortSide, PortWatch, Watched};
use pasta_ipc::status::ListeningPorts;
use pasta_ipc::{MonitorToDatapath, SendError};
use pasta_monitor::log::Log;
use pasta_monitor::peer::ToDatapath;
use pasta_monitor::ports::{Look, LookError, Pace, Progress};
use pasta_monitor::time::Instant;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Room for an answer of the kernel's, which makes them no longer than 32 KiB (`netlink_dump()` in
/// `net/netlink/af_netlink.c`).
const ROOM: usize = 64 * 1024;

/// Octets of answers that are taken in at once, before everything else has its turn; chosen: some
/// hundreds of sockets, less than half a millisecond.
const TURN: usize = 64 * 1024;

/// Octets of answers after which a look at a side that is not watched is given up; chosen: some ten thousand sockets.
const WHOLE_LOOK: usize = 4 * 1024 * 1024;

/// Opens a socket that lists the sockets of the network namespace we are in.
///
/// # Errors
///
/// What `socket(2)` reports.
pub(super) fn open_here() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let protocol = SockProtocol::NetlinkSockDiag;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?)
}

/// Looks at the sides that are watched, one after the other.
#[derive(Debug)]
pub(super) struct Watcher {
    sides: Vec<Side>,
    /// Which of them is looked at now.
    current: Option<usize>,
    /// Whether [`Watcher::begin`] was called.
    begun_once: bool,
    pace: Pace,
    clock: Clock,
    /// When the look began, and what of a processor's time it has taken.
    begun: Instant,
    cost: Duration,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Side {
    name: &'static str,
    side: PortSide,
    socket: OwnedFd,
    look: Look,
    /// Whether it is looked at now and then, and snapshots of it are sent.
    watched: Watched,
    /// A failure was logged, and there was no success since.
    failed: bool,
}

/// Why a look came to nothing.
#[derive(Debug)]
enum Failure {
    Socket(Errno),
    Look(LookError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(errno) => f.write_str(errno.desc()),
            Self::Look(error) => error.fmt(f),
        }
    }
}

impl Watcher {
    /// Watches the sides of `watch`, once [`Watcher::begin`] is called; there is a socket for each that is looked at,
    /// now or later.
    pub(super) fn new(
        loopback: LoopbackTarget,
        watch: PortWatch,
        namespace: Option<OwnedFd>,
        host: Option<OwnedFd>,
    ) -> Self {
        let side = |name, side, watched, socket: Option<OwnedFd>| {
            let look = Look::new(side, loopback);
            socket.map(|socket| Side { name, side, socket, look, watched, failed: false })
        };
        let namespace = side("namespace", PortSide::Namespace, watch.namespace, namespace);
        let host = side("host", PortSide::Host, watch.host, host);
        Self {
            sides: namespace.into_iter().chain(host).collect(),
            current: None,
            begun_once: false,
            pace: Pace::default(),
            clock: Clock::default(),
            begun: Instant::START,
            cost: Duration::ZERO,
            buffer: vec![0; ROOM],
        }
    }

    /// From now on it looks.
    pub(super) fn begin(&mut self) {
        self.begun_once = true;
        self.pace.begin(self.clock.now());
    }

    /// From now on these sides are watched, and looked at at once if they were not.
    pub(super) fn watch(&mut self, watch: PortWatch) {
        let mut is_new = false;
        for side in &mut self.sides {
            let wanted = match side.side {
                PortSide::Namespace => watch.namespace,
                PortSide::Host => watch.host,
            };
            is_new |= wanted == Watched::Yes && side.watched == Watched::No;
            side.watched = wanted;
        }
        if is_new && self.begun_once {
            self.pace.begin(self.clock.now());
        }
    }

    /// Who listens on `side`: what is known of a side that is watched, and otherwise what a look at it gives, which
    /// takes some milliseconds where there are thousands of sockets.
    pub(super) fn listening(&mut self, side: PortSide, log: &Log) -> Option<ListeningPorts> {
        let busy = self.current.and_then(|n| self.sides.get(n)).map(|it| it.side);
        let side = self.sides.iter_mut().find(|it| it.side == side)?;
        if side.watched == Watched::No && busy != Some(side.side) {
            side.look.begin();
            let mut progress = side.ask();
            let mut octets = 0;
            while octets < WHOLE_LOOK {
                match progress {
                    Ok(Progress::Over) => break,
                    Ok(_) => {
                        progress = side.go_on(&mut self.buffer).map(|(len, progress)| {
                            octets += len;
                            progress
                        });
                    }
                    Err(failure) => {
                        side.complain(&failure, log);
                        break;
                    }
                }
            }
        }
        let (tcp, udp) = side.look.said()?;
        Some(ListeningPorts::new(tcp, udp))
    }

    /// Waits until there is something to do.
    pub(super) async fn wait(&self) {
        // The kernel answers while it is asked, so within a look there is nothing to wait for.
        if self.current.is_none() {
            let is_watched = self.sides.iter().any(|it| it.watched == Watched::Yes);
            self.clock.wait_until(self.pace.due().filter(|_| is_watched)).await;
        }
    }

    /// Goes on with a look, or begins one, for no longer than a turn; and publishes changes.
    pub(super) fn act(&mut self, datapath: &ToDatapath, log: &Log) {
        let before = processor_time();
        if self.current.is_none() {
            self.begun = self.clock.now();
            self.cost = Duration::ZERO;
            self.current = Some(0);
            self.ask_first(log);
        }
        let mut taken = 0;
        while taken < TURN {
            let Some(side) = self.current.and_then(|n| self.sides.get_mut(n)) else { break };
            match side.go_on(&mut self.buffer) {
                Ok((octets, Progress::More | Progress::Ask)) => taken += octets,
                Ok((_, Progress::Over)) => {
                    side.failed = false;
                    self.next_side(log);
                }
                Err(failure) => {
                    side.complain(&failure, log);
                    self.next_side(log);
                }
            }
        }
        self.cost += processor_time().saturating_sub(before);
        if self.current.is_none() {
            self.pace.looked(self.begun, self.cost);
        }
        self.catch_up(datapath);
    }

    fn next_side(&mut self, log: &Log) {
        self.current = self.current.map(|n| n + 1);
        self.ask_first(log);
    }

    /// Begins to look at the current side, or the next one that can be asked.
    fn ask_first(&mut self, log: &Log) {
        while let Some(n) = self.current {
            let Some(side) = self.sides.get_mut(n) else {
                self.current = None;
                return;
            };
            if side.watched == Watched::Yes {
                side.look.begin();
                match side.ask() {
                    Ok(Progress::Over) => {}
                    Ok(_) => return,
                    Err(failure) => side.complain(&failure, log),
                }
            }
            self.current = Some(n + 1);
        }
    }

    /// Whether a snapshot is still to be sent.
    pub(super) fn is_behind(&self) -> bool {
        let mut watched = self.sides.iter().filter(|it| it.watched == Watched::Yes);
        watched.any(|side| side.look.is_behind())
    }

    /// Sends pending snapshots until the channel is full. Then only the newest is kept.
    pub(super) fn catch_up(&mut self, datapath: &ToDatapath) {
        for side in self.sides.iter_mut().filter(|it| it.watched == Watched::Yes) {
            while let Some(snapshot) = side.look.pending() {
                let transport = snapshot.transport;
                let message = MonitorToDatapath::Ports(Box::new(snapshot));
                // That the datapath is gone shows on the next receive.
                if matches!(datapath.send(&message), Err(SendError::WouldBlock)) {
                    return;
                }
                side.look.sent(transport);
            }
        }
    }
}

impl Side {
    /// Asks the next question, if there is one.
    fn ask(&mut self) -> Result<Progress, Failure> {
        let Some(question) = self.look.question() else { return Ok(Progress::Over) };
        let sent = send(self.socket.as_raw_fd(), &question, MsgFlags::MSG_DONTWAIT);
        sent.map_err(Failure::Socket)?;
        Ok(Progress::More)
    }

    /// Takes in one datagram, and asks the next question after the last of an answer. Says how many
    /// octets came.
    fn go_on(&mut self, buffer: &mut [u8]) -> Result<(usize, Progress), Failure> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let len = recv(self.socket.as_raw_fd(), buffer, flags).map_err(Failure::Socket)?;
        let octets = buffer.get(..len).ok_or(Failure::Socket(Errno::EMSGSIZE))?;
        let progress = match self.look.take_in(octets).map_err(Failure::Look)? {
            Progress::Ask => self.ask()?,
            other => other,
        };
        Ok((len, progress))
    }

    /// Logs a failure, unless it is one of several in a row.
    fn complain(&mut self, failure: &Failure, log: &Log) {
        if !self.failed {
            log.warn(&format!("cannot find out who listens in the {}: {failure}", self.name));
        }
        self.failed = true;
    }
}

#[cfg(test)]
mod tests;
