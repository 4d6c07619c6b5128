//! Floods of datagrams, to be measured: as many as go, over one flow or several, with one call for each or with one
//! for many (`UDP_SEGMENT` and `UDP_GRO`, udp(7)).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

use crate::Outcome;
use crate::lab::wait::PATIENCE;

/// How often the clock is read: once in that many sends.
const SENDS_BETWEEN_LOOKS: u32 = 16;

/// Most datagrams and octets of one call (`UDP_MAX_SEGMENTS`, include/linux/udp.h, before Linux 6.9).
const MOST: usize = 64;
const MOST_OCTETS: usize = 65_000;

/// How many calls there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// One for each datagram.
    Single,
    /// One for as many as the kernel takes.
    Grouped,
}

impl Calls {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Grouped => "grouped",
        }
    }
}

impl FromStr for Calls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Single, Self::Grouped]
            .into_iter()
            .find(|it| it.name() == text)
            .ok_or_else(|| format!("{text}: neither single nor grouped"))
    }
}

/// What flows are to carry.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Octets of a datagram.
    pub size: usize,
    /// For how long.
    pub time: Duration,
    /// With which calls.
    pub calls: Calls,
    /// How many flows, in turn.
    pub flows: usize,
}

impl Flood {
    /// The question to a [`source`].
    pub fn question(&self) -> String {
        let Self { size, time, calls, flows } = self;
        format!("{size} {} {} {flows}", time.as_millis(), calls.name())
    }

    /// Reads such a question.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn from_question(text: &str) -> Outcome<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let [size, time, calls, flows] = words[..] else {
            return Err(format!("not a question: {text}").into());
        };
        let time = Duration::from_millis(time.parse()?);
        Ok(Self { size: size.parse()?, time, calls: calls.parse()?, flows: flows.parse()? })
    }

    /// How many datagrams leave with one call.
    fn group(&self) -> usize {
        match self.calls {
            Calls::Single => 1,
            Calls::Grouped => (MOST_OCTETS / self.size.max(1)).clamp(1, MOST),
        }
    }

    /// Sends, `by` its number each flow in turn; gives how many datagrams the kernel took.
    ///
    /// # Errors
    ///
    /// What `send` fails with; a full queue costs datagrams and nothing else.
    pub fn send(&self, send: impl Fn(usize, &[u8]) -> io::Result<usize>) -> Outcome<u64> {
        let octets = vec![0x5a; self.size * self.group()];
        let (start, mut sent, mut flow) = (Instant::now(), 0, 0);
        while start.elapsed() < self.time {
            for _ in 0..SENDS_BETWEEN_LOOKS {
                match send(flow, &octets) {
                    Ok(_) => sent += self.group() as u64,
                    Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            flow = (flow + 1) % self.flows;
        }
        Ok(sent)
    }

    /// Prepares a socket to send.
    ///
    /// # Errors
    ///
    /// What the socket reports.
    pub fn prepare_to_send(&self, socket: &UdpSocket) -> Outcome {
        let size = match self.calls {
            Calls::Single => 0,
            Calls::Grouped => i32::try_from(self.size)?,
        };
        Ok(setsockopt(socket, sockopt::UdpGsoSegment, &size)?)
    }

    /// Counts what arrives at `sockets` until nothing has come for `quiet`, with the time from first to last.
    ///
    /// # Errors
    ///
    /// What the sockets report, and a datagram of another size.
    pub fn receive(&self, sockets: &[UdpSocket], quiet: Duration) -> Outcome<(u64, Duration)> {
        let mut octets = vec![0; usize::from(u16::MAX)];
        let (mut count, mut first, mut last) = (0, None, Instant::now());
        // The first one may take as long as anything.
        let mut patience = PATIENCE;
        while let Some(arrived) = self.next(sockets, patience, &mut octets)? {
            last = Instant::now();
            match first {
                Some(_) => count += arrived,
                None => first = Some(last),
            }
            patience = quiet;
        }
        Ok((count, last - first.ok_or("no datagram came")?))
    }

    /// How many datagrams have come, as soon as there are any; none if they do not come in time.
    fn next(
        &self,
        sockets: &[UdpSocket],
        patience: Duration,
        octets: &mut [u8],
    ) -> Outcome<Option<u64>> {
        // One socket can wait by itself, and costs one call for each read.
        if let [socket] = sockets {
            socket.set_read_timeout(Some(patience))?;
            return match socket.recv(octets) {
                Ok(length) => Ok(Some(self.datagrams_of(length)?)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let fds = sockets.iter().map(AsFd::as_fd);
        let mut waiting: Vec<_> = fds.map(|it| PollFd::new(it, PollFlags::POLLIN)).collect();
        if poll(&mut waiting, PollTimeout::try_from(patience)?)? == 0 {
            return Ok(None);
        }
        let mut count = 0;
        for (socket, ready) in sockets.iter().zip(&waiting) {
            if ready.any().unwrap_or_default() {
                count += self.drain(socket, octets)?;
            }
        }
        Ok(Some(count))
    }

    /// Reads as many as come in a row from one socket, but leaves others their turn.
    fn drain(&self, socket: &UdpSocket, octets: &mut [u8]) -> Outcome<u64> {
        let mut count = 0;
        for _ in 0..MOST {
            match recv(socket.as_raw_fd(), octets, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => count += self.datagrams_of(length)?,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(count)
    }

    /// How many datagrams one read of this length is.
    fn datagrams_of(&self, length: usize) -> Outcome<u64> {
        if length == 0 || length % self.size != 0 {
            return Err(format!("a datagram of {length} octets").into());
        }
        Ok((length / self.size) as u64)
    }
}

/// Prepares a socket to receive datagrams of any flow.
///
/// # Errors
///
/// What the socket reports.
pub fn prepare_to_receive(socket: &UdpSocket, calls: Calls) -> Outcome {
    Ok(setsockopt(socket, sockopt::UdpGroSegment, &(calls == Calls::Grouped))?)
}

/// A service that sends what it is asked for once as many have asked as the question says; its report is how many it
/// has sent.
pub fn source() -> impl Fn(&UdpSocket, SocketAddr, &[u8]) -> Outcome<String> + Send + 'static {
    let asked = Mutex::new(Vec::new());
    move |socket, peer, question| {
        let flood = Flood::from_question(std::str::from_utf8(question)?)?;
        let mut peers = asked.lock().map_err(|_| "a question was not answered")?;
        peers.push(peer);
        if peers.len() < flood.flows {
            return Ok("waits for others".to_owned());
        }
        let peers = std::mem::take(&mut *peers);
        flood.prepare_to_send(socket)?;
        let sent = flood.send(|flow, octets| match socket.send_to(octets, peers[flow]) {
            // A client that has gone costs datagrams and nothing else.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(0),
            other => other,
        });
        Ok(format!("sent {}", sent?))
    }
}
