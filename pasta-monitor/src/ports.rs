#![forbid(unsafe_code)]
//! Who listens on the host and in the namespace: which sockets count, and when to look again.
//!
//! The kernel tells nobody that a socket began to listen, so it is asked now and then for all that
//! do ([`sock_diag`]): often enough for a new port to be reached at once, and seldom enough to cost
//! next to nothing where there are thousands.

pub mod sock_diag;

use crate::time::Instant;
use pasta_ipc::port_forward::{FamilyPorts, LoopbackTarget, PortSide, PortSnapshot};
use pasta_ipc::types::{Family, Generation, Transport};
use sock_diag::{Listening, Malformed, Part};
use std::fmt;
use std::time::Duration;

/// Between two looks, as long as they are cheap; chosen: a new port is to be reached within 200 ms.
const INTERVAL: Duration = Duration::from_millis(150);
/// How many times as long as a look took, the next one is away: looking takes 1 % of a core, however many
/// sockets there are.
const SHARE: u32 = 100;

/// The number of the link `lo` in every network namespace.
const LOOPBACK_DEVICE: u32 = 1;

/// What is asked for in one look, in this order.
const QUESTIONS: [(Transport, Family); 4] = [
    (Transport::Tcp, Family::V4),
    (Transport::Tcp, Family::V6),
    (Transport::Udp, Family::V4),
    (Transport::Udp, Family::V6),
];

/// Whether what listens there can be reached from the other side.
///
/// The namespace's is reached under its addresses, or on its loopback if local connections are led
/// there; what is bound to `lo` is ours, a way out. The host's is reached on its loopback only.
pub fn counts(side: PortSide, loopback: LoopbackTarget, socket: &Listening) -> bool {
    let address = socket.address.to_canonical();
    let on_loopback = address.is_loopback();
    match side {
        PortSide::Namespace => {
            socket.device != LOOPBACK_DEVICE
                && (!on_loopback || loopback == LoopbackTarget::Loopback)
        }
        PortSide::Host => {
            let reached = socket.device == 0 || socket.device == LOOPBACK_DEVICE;
            reached && (on_loopback || address.is_unspecified())
        }
    }
}

/// When to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    next: Option<Instant>,
}

impl Pace {
    /// The first look is due at `now`.
    pub fn begin(&mut self, now: Instant) {
        self.next = Some(now);
    }

    /// When to look next; none before [`Pace::begin`].
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Notes a look that began at `begun` and took `cost` of a processor's time.
    pub fn looked(&mut self, begun: Instant, cost: Duration) {
        self.next = Some(begun + cost.saturating_mul(SHARE).max(INTERVAL));
    }
}

/// A look at one side, as far as it has come.
#[derive(Debug)]
pub struct Look {
    side: PortSide,
    loopback: LoopbackTarget,
    /// Questions of [`QUESTIONS`] that are answered.
    answered: usize,
    /// Names the question that is on its way.
    sequence: u32,
    /// Whether what is collected came in one datagram, and so is of one moment.
    whole: bool,
    datagrams: usize,
    found: FamilyPorts,
    published: [Published; 2],
}

/// What there is of one transport.
#[derive(Debug, Default)]
struct Published {
    generation: Generation,
    /// What the last look found, and what was said of it.
    found: FamilyPorts,
    said: Option<FamilyPorts>,
    behind: bool,
    /// The kernel does not say; it is asked no more.
    given_up: bool,
}

/// Where a look stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More of the answer is to come.
    More,
    /// The next question is to be asked.
    Ask,
    /// All are answered.
    Over,
}

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookError {
    /// The kernel refuses to say it of this transport, with this errno; it is asked no more about it.
    Refused(Transport, i32),
    /// Its answer makes no sense; the look is over.
    Malformed(Malformed),
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(transport, errno) => {
                write!(f, "{transport}: {}", nix::errno::Errno::from_raw(*errno).desc())
            }
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for LookError {}

impl Look {
    /// Nothing is known of `side`.
    pub fn new(side: PortSide, loopback: LoopbackTarget) -> Self {
        Self {
            side,
            loopback,
            answered: QUESTIONS.len(),
            sequence: 0,
            whole: true,
            datagrams: 0,
            found: FamilyPorts::default(),
            published: [Published::default(), Published::default()],
        }
    }

    /// Begins anew; whatever answers come to earlier questions are not taken in.
    pub fn begin(&mut self) {
        self.answered = 0;
        self.start_transport();
    }

    fn start_transport(&mut self) {
        self.found = FamilyPorts::default();
        self.whole = true;
    }

    /// The next question, if there is one.
    pub fn question(&mut self) -> Option<[u8; sock_diag::REQUEST_LEN]> {
        let (transport, family) = loop {
            let (transport, family) = *QUESTIONS.get(self.answered)?;
            if !self.published(transport).given_up {
                break (transport, family);
            }
            self.answered += 1;
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.datagrams = 0;
        Some(sock_diag::request(family, transport, self.sequence))
    }

    /// Takes in a datagram of the answer.
    ///
    /// # Errors
    ///
    /// [`LookError`]; what was published before stays.
    pub fn take_in(&mut self, octets: &[u8]) -> Result<Progress, LookError> {
        let mut sockets = false;
        for part in sock_diag::parts(octets, self.sequence) {
            match part.map_err(LookError::Malformed)? {
                Part::Socket(socket) => {
                    sockets = true;
                    if socket.port != 0 && counts(self.side, self.loopback, &socket) {
                        for family in socket.families() {
                            self.found.get_mut(family).insert(socket.port);
                        }
                    }
                }
                Part::Refused(errno) => return Err(self.refused(errno)),
                Part::Done => return Ok(self.next_question()),
            }
        }
        if sockets {
            self.datagrams += 1;
            self.whole &= self.datagrams < 2;
        }
        Ok(Progress::More)
    }

    fn published(&mut self, transport: Transport) -> &mut Published {
        let [tcp, udp] = &mut self.published;
        match transport {
            Transport::Tcp => tcp,
            Transport::Udp => udp,
        }
    }

    fn refused(&mut self, errno: i32) -> LookError {
        let transport = QUESTIONS.get(self.answered).map_or(Transport::Udp, |it| it.0);
        self.published(transport).given_up = true;
        self.start_transport();
        LookError::Refused(transport, errno)
    }

    fn next_question(&mut self) -> Progress {
        let transport = QUESTIONS.get(self.answered).map(|it| it.0);
        self.answered += 1;
        let next = QUESTIONS.get(self.answered).map(|it| it.0);
        if let Some(transport) = transport.filter(|_| next != transport) {
            self.conclude(transport);
            self.start_transport();
        }
        if next.is_some() { Progress::Ask } else { Progress::Over }
    }

    /// Publishes what was found of `transport`, if it has changed.
    ///
    /// While sockets end, a list in several datagrams may lack one that is there. So after such a look
    /// a port is gone only if the look before lacked it as well.
    fn conclude(&mut self, transport: Transport) {
        let found = std::mem::take(&mut self.found);
        let whole = self.whole;
        let published = self.published(transport);
        let mut there = found.clone();
        if !whole {
            for family in Family::BOTH {
                let before = published.found.get(family).iter();
                before.for_each(|port| there.get_mut(family).insert(port));
            }
        }
        published.found = found;
        if published.said.as_ref() != Some(&there) {
            published.said = Some(there);
            published.generation = published.generation.next();
            published.behind = true;
        }
    }

    /// The next snapshot to send, until [`Look::sent`] is called for its transport.
    pub fn pending(&self) -> Option<PortSnapshot> {
        let transports = [Transport::Tcp, Transport::Udp].into_iter().zip(&self.published);
        let mut behind = transports.filter(|(_, published)| published.behind);
        let (transport, published) = behind.next()?;
        let ports = published.said.clone()?;
        Some(PortSnapshot { generation: published.generation, side: self.side, transport, ports })
    }

    /// What the last look found of TCP and of UDP; none before the first, or where the kernel does not say.
    pub fn said(&self) -> Option<(&FamilyPorts, &FamilyPorts)> {
        let [tcp, udp] = &self.published;
        Some((tcp.said.as_ref()?, udp.said.as_ref()?))
    }

    /// Whether a snapshot is still to be sent.
    pub fn is_behind(&self) -> bool {
        self.published.iter().any(|published| published.behind)
    }

    /// Notes that the snapshot of `transport` has been sent.
    pub fn sent(&mut self, transport: Transport) {
        self.published(transport).behind = false;
    }
}

#[cfg(test)]
mod tests;
