//! The clients of the control socket: connections, messages and bounds; it decides nothing.
//!
//! | what | bound | when it is reached |
//! | --- | --- | --- |
//! | clients | [`CLIENTS`] | the one that was idle longest goes; if none is idle, the new one is refused |
//! | requests of a client | one | the next is read when the answer has left |
//! | requests in a time | [`REQUESTS`] | the next is read later |
//! | an answer that is not read | [`PATIENCE`] | the client goes |
//!
//! Nothing here waits: a client that is slow, says half or floods costs memory and time of this process up to these
//! bounds, and the datapath nothing.

use super::socket::ControlSocket;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{SockFlag, accept4, getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use pasta_ipc::channel::{Channel, ReceiveError, SendError, expect_hello};
use pasta_ipc::message::Hello;
use pasta_ipc::rate::TokenBucket;
use pasta_ipc::types::Text;
use pasta_ipc::{ClientToSupervisor, SupervisorToClient};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Clients at once; chosen: more than people and programs that look at one instance.
const CLIENTS: usize = 16;
/// How long an answer may wait for a client to read; chosen: a program that is stopped for a moment is served.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests of a client in a second, and at once; chosen: more than a program makes that waits for each answer.
const REQUESTS: (u32, u32) = (2000, 64);
/// How long nobody is accepted after descriptors have run out; chosen.
const PAUSE: Duration = Duration::from_secs(1);
/// The token of the listener; clients count from 1.
const LISTENER: u64 = 0;

/// The name of a client, used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientId(pub(crate) u64);

/// Who a client is, as the kernel noted when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
}

/// What has come.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A request; the client is sent its answer with [`Server::answer`].
    Request(ClientId, Peer, ClientToSupervisor),
    /// A client has gone.
    Gone(ClientId),
    /// A line for the log.
    Refused(String),
}

/// The clients.
#[derive(Debug)]
pub(crate) struct Server {
    socket: ControlSocket,
    epoll: Epoll,
    /// The user that may ask, beside root.
    uid: u32,
    clients: BTreeMap<ClientId, Client>,
    last: ClientId,
    /// Until when nobody is accepted: descriptors have run out.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    channel: Channel<SupervisorToClient, ClientToSupervisor>,
    peer: Peer,
    phase: Phase,
    /// Parts of an answer that the socket had no room for.
    outbox: VecDeque<SupervisorToClient>,
    /// When it last took or sent something.
    active: Instant,
    /// When it came, and how many requests it may make since.
    came: Instant,
    bucket: TokenBucket,
    interest: EpollFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `Hello` is due.
    New,
    /// It may ask.
    Idle,
    /// It waits for an answer, of which all parts are in the outbox or out once it is [`Phase::Idle`] again.
    Waiting,
    /// It is sent what is in the outbox, and goes.
    Leaving,
}

/// Whether more parts of an answer follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// They do.
    More,
    /// This is the last one.
    Last,
}

impl Server {
    /// Serves `socket`. After this nothing is opened but clients.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn new(socket: ControlSocket) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(socket.listener(), EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        let (uid, clients, last) = (geteuid().as_raw(), BTreeMap::new(), ClientId(LISTENER));
        Ok(Self { socket, epoll, uid, clients, last, paused_until: None })
    }

    /// Readable when there is something to do.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The socket's file.
    pub(crate) fn socket(&self) -> &ControlSocket {
        &self.socket
    }

    /// When a client is to be looked at although nothing comes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let clients = self.clients.values().filter_map(Client::deadline);
        clients.chain(self.paused_until).min()
    }

    /// Takes what has come; of each client one request at most.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Incoming> {
        let mut incoming = Vec::new();
        if self.paused_until.take_if(|until| *until <= now).is_some() {
            self.watch_listener(EpollFlags::EPOLLIN);
        }
        let mut woken = [EpollEvent::empty(); CLIENTS + 1];
        // With a signal it is tried again at once.
        let count = self.epoll.wait(&mut woken, EpollTimeout::ZERO).unwrap_or_default();
        for event in woken.iter().take(count) {
            match event.data() {
                LISTENER => self.accept(now, &mut incoming),
                id => self.client_event(now, ClientId(id), event.events(), &mut incoming),
            }
        }
        let late = |client: &Client| client.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<_> = self.clients.iter().filter(|it| late(it.1)).map(|it| *it.0).collect();
        for id in late {
            let gone = self.clients.get(&id).is_some_and(|it| !it.outbox.is_empty());
            if gone {
                self.drop_client(id, &mut incoming);
            } else {
                self.update_interest(now, id);
            }
        }
        incoming
    }

    fn watch_listener(&self, flags: EpollFlags) {
        let mut event = EpollEvent::new(flags, LISTENER);
        // It was added; this fails only where memory has run out.
        let _ = self.epoll.modify(self.socket.listener(), &mut event);
    }

    fn accept(&mut self, now: Instant, incoming: &mut Vec<Incoming>) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // One at a time: epoll tells again.
        let accepted = match accept4(self.socket.listener().as_raw_fd(), flags) {
            #[expect(unsafe_code, reason = "accept4 gives a number")]
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
            Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
            // It would wake us without end: it waits, and with it the others.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                self.watch_listener(EpollFlags::empty());
                self.paused_until = Some(now + PAUSE);
                return;
            }
            // It has gone.
            Err(_) => return,
        };
        let peer = match getsockopt(&accepted, PeerCredentials) {
            Ok(peer) => Peer { uid: peer.uid(), pid: peer.pid() },
            Err(errno) => {
                let why = format!("control: who a client is cannot be found out: {}", errno.desc());
                return incoming.push(Incoming::Refused(why));
            }
        };
        let channel: Channel<SupervisorToClient, ClientToSupervisor> = accepted.into();
        let refuse = |channel: &Channel<SupervisorToClient, _>, why: &str| {
            // If it cannot be sent, the end of the connection says it.
            let _ = channel.send(&SupervisorToClient::Hello(Hello::OURS));
            let _ = channel.send(&SupervisorToClient::Refused(Text::truncated(why)));
        };
        if peer.uid != self.uid && peer.uid != 0 {
            refuse(&channel, "only root and the user that pasta runs as may ask");
            let why = format!("control: process {} of user {} is refused", peer.pid, peer.uid);
            return incoming.push(Incoming::Refused(why));
        }
        if self.clients.len() == CLIENTS {
            let idle = |client: &&(&ClientId, &Client)| {
                matches!(client.1.phase, Phase::New | Phase::Idle | Phase::Leaving)
            };
            let oldest = self.clients.iter().collect::<Vec<_>>();
            let oldest = oldest.iter().filter(idle).min_by_key(|(_, client)| client.active);
            match oldest.map(|(id, _)| **id) {
                Some(id) => self.drop_client(id, incoming),
                None => return refuse(&channel, "as many clients are served as may be at once"),
            }
        }
        self.last = ClientId(self.last.0 + 1);
        let interest = EpollFlags::EPOLLIN;
        if self.epoll.add(&channel, EpollEvent::new(interest, self.last.0)).is_err() {
            return;
        }
        // Fails if it has gone, which is an event.
        let _ = channel.send(&SupervisorToClient::Hello(Hello::OURS));
        let (phase, outbox) = (Phase::New, VecDeque::new());
        let bucket = TokenBucket::new(REQUESTS.0, REQUESTS.1);
        let (active, came) = (now, now);
        let client = Client { channel, peer, phase, outbox, active, came, bucket, interest };
        self.clients.insert(self.last, client);
    }

    fn client_event(
        &mut self,
        now: Instant,
        id: ClientId,
        events: EpollFlags,
        incoming: &mut Vec<Incoming>,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if events.contains(EpollFlags::EPOLLOUT) {
            client.send(now);
        }
        let reads = matches!(client.phase, Phase::New | Phase::Idle)
            && client.interest.contains(EpollFlags::EPOLLIN);
        let ended = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        if ended && !reads {
            // It does not wait for its answer any more.
            return self.drop_client(id, incoming);
        }
        if reads && (ended || events.contains(EpollFlags::EPOLLIN)) {
            match client.receive(now) {
                Ok(Some(message)) => incoming.push(Incoming::Request(id, client.peer, message)),
                Ok(None) => {}
                Err(ReceiveError::WouldBlock) if !ended => {}
                Err(ReceiveError::Violation(why)) => {
                    let shown: String = why.chars().take(200).collect();
                    let Peer { uid, pid } = client.peer;
                    let line = format!("control: process {pid} of user {uid}: {shown}");
                    incoming.push(Incoming::Refused(line));
                    client.outbox.push_back(SupervisorToClient::Refused(Text::truncated(&why)));
                    client.phase = Phase::Leaving;
                    client.send(now);
                }
                Err(_) => return self.drop_client(id, incoming),
            }
        }
        self.update_interest(now, id);
        if self.clients.get(&id).is_some_and(Client::is_over) {
            self.drop_client(id, incoming);
        }
    }

    /// Sends a part of an answer.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        id: ClientId,
        message: SupervisorToClient,
        part: Part,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.outbox.is_empty() {
            client.active = now;
        }
        client.outbox.push_back(message);
        if part == Part::Last {
            client.phase = Phase::Idle;
        }
        client.send(now);
        self.update_interest(now, id);
    }

    fn drop_client(&mut self, id: ClientId, incoming: &mut Vec<Incoming>) {
        // Closing makes epoll forget it.
        if self.clients.remove(&id).is_some() {
            incoming.push(Incoming::Gone(id));
        }
    }

    fn update_interest(&mut self, now: Instant, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let mut wanted = EpollFlags::empty();
        if !client.outbox.is_empty() {
            wanted |= EpollFlags::EPOLLOUT;
        } else if client.may_ask(now) {
            wanted |= EpollFlags::EPOLLIN;
        }
        if wanted != client.interest {
            let mut event = EpollEvent::new(wanted, id.0);
            // It is open, so this fails only where memory has run out; then it is looked at late.
            if self.epoll.modify(&client.channel, &mut event).is_ok() {
                client.interest = wanted;
            }
        }
    }
}

impl Client {
    /// When it is to be looked at although nothing comes.
    fn deadline(&self) -> Option<Instant> {
        if !self.outbox.is_empty() {
            return Some(self.active + PATIENCE);
        }
        let pauses = matches!(self.phase, Phase::New | Phase::Idle)
            && !self.interest.contains(EpollFlags::EPOLLIN);
        pauses.then(|| self.may_ask_at(self.active))
    }

    /// When it may ask again, at `now` or later.
    fn may_ask_at(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.came);
        // Of a copy: it has not asked yet.
        match { self.bucket }.take(since) {
            Ok(()) => now,
            Err(ready) => self.came + ready,
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::New | Phase::Idle) && self.may_ask_at(now) <= now
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::Leaving && self.outbox.is_empty()
    }

    /// Receives one message; none if it was `Hello`.
    fn receive(&mut self, now: Instant) -> Result<Option<ClientToSupervisor>, ReceiveError> {
        let message = self.channel.receive()?.message;
        self.active = now;
        // It was looked at before.
        let _ = self.bucket.take(now.saturating_duration_since(self.came));
        match (self.phase, message) {
            (Phase::New, ClientToSupervisor::Hello(hello)) => {
                expect_hello(Some(hello))?;
                self.phase = Phase::Idle;
                Ok(None)
            }
            (Phase::New, _) => {
                Err(ReceiveError::Violation("first message is not Hello".to_owned()))
            }
            (_, ClientToSupervisor::Hello(_)) => {
                Err(ReceiveError::Violation("Hello a second time".to_owned()))
            }
            (_, message) => {
                self.phase = Phase::Waiting;
                Ok(Some(message))
            }
        }
    }

    /// Sends what is in the outbox, as far as there is room.
    fn send(&mut self, now: Instant) {
        while let Some(message) = self.outbox.front() {
            match self.channel.send(message) {
                Ok(()) => self.active = now,
                Err(SendError::WouldBlock) => return,
                // A state with very many exclusions is longer than a message may be.
                Err(SendError::Io(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    let why = Text::truncated("the answer is longer than a message may be");
                    self.outbox = VecDeque::from([SupervisorToClient::Refused(why)]);
                    self.phase = Phase::Leaving;
                    continue;
                }
                // It has gone, which is an event.
                Err(SendError::Closed | SendError::Io(_)) => {
                    self.outbox.clear();
                    self.phase = Phase::Leaving;
                    return;
                }
            }
            self.outbox.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
