//! Netlink events → "look again".
//!
//! An event never says what to do. It is decoded whole, compared with what was read last, and if it
//! differs, the side it came from is to be read again. What cannot be of interest the kernel drops. Bursts
//! are gathered for some milliseconds. When the kernel says that events were lost, what is queued is
//! taken out first, and then everything is read again.

use crate::decode::{Notice, decode_notice};
use crate::filter::pass_all;
use crate::sys;
use crate::time::Instant;
use libc::sock_filter as Instruction;
use netlink_packet_core::{NLM_F_MULTIPART, NetlinkBuffer};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sys::socket::{NetlinkAddr, recvfrom};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// A batch ends when nothing came for so long.
const QUIET: Duration = Duration::from_millis(10);
/// A batch ends at the latest so long after its first event, however many follow.
const LONGEST: Duration = Duration::from_millis(50);
/// Room for one datagram. The kernel sends one message in each, and the longest are of links; chosen
/// far beyond these.
const ROOM: usize = 64 * 1024;
/// Datagrams that are read before anything else gets its turn.
const TURN: usize = 256;
/// The same while events are lost. Chosen: some times as many as the kernel queues (212,992 octets, of which each takes
/// 768 at least).
const LONG_TURN: usize = 1024;

/// The groups subscribed to on the host (`RTNLGRP_*`, `linux/rtnetlink.h`): links, neighbours, addresses, routes
/// and rules of both families, nexthops.
pub const HOST: [u32; 9] = [1, 3, 5, 7, 8, 9, 11, 19, 32];
/// The groups subscribed to in the namespace: links, addresses and routes.
pub const NAMESPACE: [u32; 5] = [1, 5, 7, 9, 11];

/// A socket that receives the events of one network namespace.
#[derive(Debug)]
pub struct Events {
    socket: AsyncFd<OwnedFd>,
    /// The kernel has dropped events, and may go on: the queue was not seen empty since.
    overrun: bool,
}

/// Events taken from the socket.
#[derive(Debug, Default)]
pub struct ReceivedEvents {
    /// Events that were understood, in order.
    pub notices: Vec<Notice>,
    /// Whether the kernel had to drop events.
    pub overrun: bool,
    /// How many messages could not be read.
    pub bad: u64,
    /// Whether there may be more at once.
    pub more: bool,
}

impl ReceivedEvents {
    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.bad == 0 && !self.overrun
    }
}

impl Events {
    /// Subscribes `socket`, a netlink socket of the namespace to be watched, to `groups`; what `filter` drops is
    /// not received from the first event on. Must be called inside the runtime.
    ///
    /// # Errors
    ///
    /// What `setsockopt(2)` and `bind(2)` report, or `epoll_ctl(2)`.
    pub fn subscribe(socket: OwnedFd, groups: &[u32], filter: &[Instruction]) -> io::Result<Self> {
        // Without one, everything is received.
        let _ = sys::attach_filter(&socket, filter);
        let mut socket: Socket = sys::plain_netlink_socket(socket);
        socket.bind_auto()?;
        for group in groups {
            match socket.add_membership(*group) {
                // A kernel without nexthop objects or without a family has no such group.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => result?,
            }
        }
        Ok(Self { socket: sys::watch_owned(sys::owned(socket))?, overrun: false })
    }

    /// From now on receives only what `filter` lets pass. Where the kernel does not take it, everything is received.
    /// What has changed before has to be read.
    ///
    /// # Errors
    ///
    /// What `setsockopt(2)` reports; everything is received then, or what was before.
    pub fn restrict(&self, filter: &[Instruction]) -> io::Result<()> {
        let refused = sys::attach_filter(self.socket.get_ref(), filter);
        refused.or_else(|error| {
            sys::attach_filter(self.socket.get_ref(), &pass_all())?;
            Err(error)
        })
    }

    /// Waits until there may be an event. Nothing is lost if this is dropped while it waits.
    ///
    /// # Errors
    ///
    /// What the runtime reports.
    pub async fn wait(&self) -> io::Result<()> {
        self.socket.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Receives queued events, without waiting.
    ///
    /// # Errors
    ///
    /// What `recvfrom(2)` reports, overruns apart; the socket is of no further use then.
    pub fn receive(&mut self) -> io::Result<ReceivedEvents> {
        let received = ReceivedEvents::all(self.overrun, |octets| {
            let (len, from) = recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), octets)?;
            Ok((len, from.map(|it| it.pid())))
        })?;
        self.overrun = received.overrun && received.more;
        if !received.more {
            self.clear_ready();
        }
        Ok(received)
    }

    fn clear_ready(&self) {
        use std::task::{Context, Poll, Waker};
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(mut ready)) = self.socket.poll_read_ready(&mut context) {
            ready.clear_ready();
        }
    }
}

impl ReceivedEvents {
    /// Takes in what `receive` gives, datagram by datagram with their senders, until there is nothing
    /// or others are to have their turn.
    ///
    /// The kernel says once that it drops events, and then drops all until the queue is empty: whoever read the host
    /// before that would miss what changes after. So a turn is longer from then on, as long as the queue can be; but
    /// once the queue is empty, a storm fills it again while it is read. What is left at the end of a turn counts as an
    /// `overrun` in the next one too, until the queue is seen empty.
    fn all(
        overrun: bool,
        mut receive: impl FnMut(&mut [u8]) -> Result<(usize, Option<u32>), Errno>,
    ) -> Result<Self, Errno> {
        let mut received = Self { overrun, ..Self::default() };
        let mut octets = vec![0; ROOM];
        let mut read = 0;
        while read < if received.overrun { LONG_TURN } else { TURN } {
            read += 1;
            match receive(&mut octets) {
                Ok((len, from)) => received.take(from, octets.get(..len).unwrap_or_default()),
                Err(Errno::EAGAIN) => return Ok(received),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => received.overrun = true,
                Err(errno) => return Err(errno),
            }
        }
        received.more = true;
        Ok(received)
    }

    /// Takes in one datagram of `sender`. Only the kernel, which is 0, has something to say here.
    fn take(&mut self, sender: Option<u32>, octets: &[u8]) {
        match sender {
            Some(0) => self.read(octets),
            _ => self.bad += 1,
        }
    }

    /// Takes in the messages of one datagram.
    fn read(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let Ok((header, payload, rest)) = split_message(octets) else {
                self.bad += 1;
                return;
            };
            octets = rest;
            // A part of a dump is no event.
            if header.1 & NLM_F_MULTIPART != 0 {
                continue;
            }
            match decode_notice(header.0, payload) {
                Ok(Some(notice)) => self.notices.push(notice),
                Ok(None) => {}
                Err(_) => self.bad += 1,
            }
        }
    }
}

/// A message: its type and flags, its payload, and the octets after it.
type Split<'a> = ((u16, u16), &'a [u8], &'a [u8]);

/// Takes one message off the front of `octets`.
fn split_message(octets: &[u8]) -> Result<Split<'_>, ()> {
    let message = NetlinkBuffer::new_checked(&octets).map_err(|_| ())?;
    let length = usize::try_from(message.length()).map_err(|_| ())?;
    let payload = octets.get(16..length).ok_or(())?;
    let rest = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
    Ok(((message.message_type(), message.flags()), payload, rest))
}

/// Gathers a burst of events into one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    span: Option<(Instant, Instant)>,
}

impl Batch {
    /// A relevant event was received at `now`.
    pub fn add(&mut self, now: Instant) {
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// When to look, if there is anything to look at.
    pub fn due(&self) -> Option<Instant> {
        self.span.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }

    /// Ends the batch if it is due at `now`; gives when its last event was received.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        self.span.take().map(|(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::START + Duration::from_millis(ms)
    }

    #[test]
    fn a_batch_ends_when_it_is_quiet_or_long_enough() {
        let mut batch = Batch::default();
        assert_eq!(batch.due(), None);
        batch.add(at(0));
        batch.add(at(5));
        assert_eq!(batch.due(), Some(at(15)));
        assert_eq!(batch.take(at(14)), None);
        assert_eq!(batch.take(at(15)), Some(at(5)));
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn a_storm_does_not_put_the_look_off_for_ever() {
        let mut batch = Batch::default();
        for ms in 0..49 {
            batch.add(at(ms));
            assert_eq!(batch.take(at(ms)), None);
        }
        assert_eq!(batch.due(), Some(at(50)));
    }

    #[test]
    fn messages_cut_short_are_counted_and_say_nothing() {
        // `struct nlmsghdr` of RTM_NEWADDR that claims more than there is, and one of a header only.
        let claims = [100, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 24, 0, 0];
        let empty = [16, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for octets in [&claims[..], &empty, &claims[..7]] {
            let mut received = ReceivedEvents::default();
            received.read(octets);
            assert_eq!((received.notices.len(), received.bad), (0, 1), "{octets:?}");
        }
    }

    /// A message of type `kind` as the kernel sends it: `struct nlmsghdr`, then `payload`.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut octets = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend([0; 10]);
        octets.extend(payload);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    /// `struct ifaddrmsg` of an IPv4 address on link 2, then attributes (`struct nlattr`).
    fn address(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut octets = vec![2, 24, 0, 0, 2, 0, 0, 0];
        octets.extend(crate::decode::testing::attributes(attributes));
        octets
    }

    // linux/rtnetlink.h, linux/if_addr.h.
    const NEW_ADDRESS: u16 = 20;
    const DELETED_ADDRESS: u16 = 21;
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    const CACHE_INFO: u16 = 6;
    const FLAGS: u16 = 8;

    /// Receives `before` events, then a loss if `lost`, then `after` events. What is not received is left.
    fn receive(before: usize, lost: bool, after: usize) -> (ReceivedEvents, usize) {
        receive_in(false, before, lost, after)
    }

    /// The same where a turn `overrun` has gone before.
    fn receive_in(
        overrun: bool,
        before: usize,
        lost: bool,
        after: usize,
    ) -> (ReceivedEvents, usize) {
        let good = message(NEW_ADDRESS, &address(&[(LOCAL, &[192, 0, 2, 7])]));
        let events = (0..before).map(|_| true);
        let losses = lost.then_some(false);
        let mut script: Vec<_> = events.chain(losses).chain((0..after).map(|_| true)).collect();
        script.reverse();
        let received = ReceivedEvents::all(overrun, |octets| match script.pop() {
            Some(true) => {
                octets[..good.len()].copy_from_slice(&good);
                Ok((good.len(), Some(0)))
            }
            Some(false) => Err(Errno::ENOBUFS),
            None => Err(Errno::EAGAIN),
        });
        (received.unwrap(), script.len())
    }

    #[test]
    fn a_turn_ends_before_the_queue_does() {
        let (received, left) = receive(TURN + 40, false, 0);
        assert_eq!((received.notices.len(), received.more, received.overrun), (TURN, true, false));
        assert_eq!(left, 40);
    }

    #[test]
    fn s53_the_queue_is_emptied_when_events_were_lost() {
        for before in [0, 1, TURN - 1] {
            let (received, left) = receive(before, true, TURN);
            assert_eq!((received.notices.len(), left), (before + TURN, 0), "{before} before");
            assert!(received.overrun && !received.more);
        }
    }

    #[test]
    fn storm_that_refills_the_queue_has_its_turns_and_is_an_overrun_to_its_end() {
        // Each turn has an end, however much there is.
        let (received, left) = receive(0, true, 10 * LONG_TURN);
        assert_eq!((received.overrun, received.more), (true, true));
        assert_eq!(left, 10 * LONG_TURN - (LONG_TURN - 1));
        // What is dropped meanwhile is not said again: the next turns count as lossy, to the empty queue.
        let (received, left) = receive_in(true, 2 * LONG_TURN, false, 0);
        assert_eq!((received.overrun, received.more, left), (true, true, LONG_TURN));
        let (received, left) = receive_in(true, LONG_TURN - 1, false, 0);
        assert_eq!((received.overrun, received.more, left), (true, false, 0));
    }

    #[test]
    fn s06_malformed_address_messages_are_counted_and_change_nothing() {
        let good = address(&[(LOCAL, &[192, 0, 2, 7])]);
        let malformed = [
            good[..7].to_vec(),
            good[..good.len() - 1].to_vec(),
            address(&[]),
            address(&[(LOCAL, &[192, 0, 2])]),
            address(&[(LOCAL, &[192, 0, 2, 7, 0])]),
            address(&[(ADDRESS, &[0; 16])]),
            address(&[(LOCAL, &[192, 0, 2, 7]), (FLAGS, &[0, 0])]),
            address(&[(LOCAL, &[192, 0, 2, 7]), (CACHE_INFO, &[0; 3])]),
        ];
        let without_link = address(&[(LOCAL, &[192, 0, 2, 7])]);
        let without_link: Vec<_> = [&[2, 24, 0, 0, 0, 0, 0, 0], &without_link[8..]].concat();
        for kind in [NEW_ADDRESS, DELETED_ADDRESS] {
            for payload in malformed.iter().chain([&without_link]) {
                let mut received = ReceivedEvents::default();
                received.take(Some(0), &message(kind, payload));
                assert_eq!((received.notices.len(), received.bad), (0, 1), "{kind}: {payload:?}");
            }
            // The well-formed one is a notice, by itself and after such a one.
            let mut received = ReceivedEvents::default();
            received.take(Some(0), &[message(kind, &malformed[3]), message(kind, &good)].concat());
            assert_eq!((received.notices.len(), received.bad), (1, 1));
        }
    }

    #[test]
    fn s06_only_the_kernel_is_believed() {
        let good = message(DELETED_ADDRESS, &address(&[(LOCAL, &[192, 0, 2, 7])]));
        for sender in [None, Some(1), Some(u32::MAX)] {
            let mut received = ReceivedEvents::default();
            received.take(sender, &good);
            assert_eq!((received.notices.len(), received.bad), (0, 1), "{sender:?}");
        }
    }
}
