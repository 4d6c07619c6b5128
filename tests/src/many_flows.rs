//! Many TCP flows served by one thread, since thousands of threads would distort the measurement.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::Outcome;
use crate::lab::service::CHUNK;

/// Most events taken at once.
const EVENTS: usize = 256;

/// The token of a listening socket.
const LISTENER: u64 = u64::MAX;

/// What this end of each connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It reads all that comes.
    Sink,
    /// It writes all that goes.
    Source,
}

/// What each connection has carried, in octets, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Vec<Arc<AtomicU64>>>>);

impl Tally {
    fn join(&self) -> Arc<AtomicU64> {
        let octets = Arc::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&octets));
        octets
    }

    /// What each has carried.
    pub fn each(&self) -> Vec<u64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|octets| octets.load(Ordering::Relaxed)).collect()
    }

    /// What each has carried; forgets those that there are.
    pub fn take(&self) -> Vec<u64> {
        let each = self.each();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        each
    }
}

/// Connections and what they have carried.
#[derive(Debug)]
pub struct ManyFlows {
    epoll: Epoll,
    role: Role,
    /// None: has ended.
    connections: Vec<Option<(TcpStream, Arc<AtomicU64>)>>,
    tally: Tally,
    /// A source ends when it has carried so much.
    length: u64,
    octets: Vec<u8>,
}

impl ManyFlows {
    /// No connection yet.
    ///
    /// # Errors
    ///
    /// What `epoll_create1(2)` reports.
    pub fn new(role: Role, tally: Tally) -> Outcome<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self {
            epoll,
            role,
            connections: Vec::new(),
            tally,
            length: u64::MAX,
            octets: vec![0x5a; CHUNK],
        })
    }

    /// Adds a connection.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn add(&mut self, stream: TcpStream) -> Outcome {
        stream.set_nonblocking(true)?;
        let wanted = match self.role {
            Role::Sink => EpollFlags::EPOLLIN,
            Role::Source => EpollFlags::EPOLLOUT,
        };
        self.epoll.add(&stream, EpollEvent::new(wanted, self.connections.len() as u64))?;
        self.connections.push(Some((stream, self.tally.join())));
        Ok(())
    }

    /// Carries octets until `time` is over.
    ///
    /// # Errors
    ///
    /// What `epoll_wait(2)` reports, and when a connection has ended.
    pub fn run(&mut self, time: Duration) -> Outcome {
        let start = Instant::now();
        while let Some(left) = time.checked_sub(start.elapsed()) {
            for event in self.wait(EpollTimeout::try_from(left)?)? {
                if !self.serve(event) {
                    return Err("a connection has ended".into());
                }
            }
        }
        Ok(())
    }

    /// As a source, sends `length` octets on each connection and then closes it.
    ///
    /// # Errors
    ///
    /// What `epoll_wait(2)` reports, and when a connection has ended otherwise.
    pub fn send(mut self, length: u64) -> Outcome {
        self.length = length;
        let mut left = self.connections.len();
        while left > 0 {
            let ended = self.wait(EpollTimeout::NONE)?.filter(|event| !self.serve(*event)).count();
            left -= ended;
        }
        if self.tally.take().iter().all(|octets| *octets == length) {
            Ok(())
        } else {
            Err("a connection has ended".into())
        }
    }

    fn wait(&self, timeout: EpollTimeout) -> Outcome<impl Iterator<Item = u64> + use<>> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        Ok(events.into_iter().take(count).map(|event| event.data()))
    }

    /// Carries octets once; says whether the connection goes on.
    fn serve(&mut self, index: u64) -> bool {
        let Some(connection) =
            usize::try_from(index).ok().and_then(|at| self.connections.get_mut(at))
        else {
            return false;
        };
        let Some((stream, octets)) = connection else { return false };
        let left = self.length - octets.load(Ordering::Relaxed);
        let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let part = self.octets.get_mut(..part).unwrap_or_default();
        let carried = match self.role {
            Role::Sink => stream.read(part),
            Role::Source => stream.write(part),
        };
        match carried {
            Ok(0) => {}
            Ok(count) => {
                octets.fetch_add(count as u64, Ordering::Relaxed);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(_) => {}
        }
        *connection = None;
        false
    }
}

/// Serves all connections to `listener` in a thread, for as long as the process lives.
///
/// # Errors
///
/// What the kernel reports.
pub fn serve(listener: TcpListener, role: Role) -> Outcome<Tally> {
    let tally = Tally::default();
    let mut many_flows = ManyFlows::new(role, tally.clone())?;
    listener.set_nonblocking(true)?;
    many_flows.epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    thread::Builder::new().name("many-flows".to_owned()).spawn(move || {
        while let Ok(events) = many_flows.wait(EpollTimeout::NONE) {
            for event in events {
                if event != LISTENER {
                    many_flows.serve(event);
                    continue;
                }
                // Whoever came before is another measurement.
                if many_flows.connections.iter().all(Option::is_none) {
                    many_flows.connections.clear();
                }
                while let Ok((stream, _)) = listener.accept() {
                    if many_flows.add(stream).is_err() {
                        return;
                    }
                }
            }
        }
    })?;
    Ok(tally)
}
