#![forbid(unsafe_code)]
//! Neighbour unreachability detection: whether the namespace's addresses still are where frames for them go.
//!
//! The namespace's users may give the tap another link-layer address, or make it a port of a bridge, and a kernel
//! takes no frame for the old one. It says nothing either, so what the host's side sends is lost until the
//! namespace opens something itself. A kernel's neighbour table asks again then (RFC 4861, section 7.3, and ARP
//! alike), and so do we, for whatever is carried:
//!
//! | state | | next |
//! | --- | --- | --- |
//! | reachable | nothing that was sent is unanswered | delay, when something is sent |
//! | delay | sent, and no frame came from the address since | probe, after a moment |
//! | probe | asked | again after a second, three times; then reachable, which is to say stale |
//!
//! Any frame from the address is an answer, since it says where that is; with another link-layer address than
//! before, all flows to the address go there. Unlike a kernel, we ask everybody at once and not first the address that is known: there
//! is one machine on the link. Nothing is given up: frames go on to where they went.

use crate::time::Instant;
use pasta_ipc::types::MacAddr;
use std::net::IpAddr;
use std::time::Duration;

/// How long what was sent is unanswered before a question. Chosen: half of TCP's first timeout, so that the first
/// retransmission goes to the right place. A kernel waits for 5 s (`DELAY_FIRST_PROBE_TIME`), on links where
/// questions cost something.
const DELAY: Duration = Duration::from_millis(500);
/// As that, for answers; and after an answered question: `DELAY_FIRST_PROBE_TIME` (RFC 4861, section 10).
const QUIET: Duration = Duration::from_secs(5);
/// Between two questions: `RETRANS_TIMER` (RFC 4861, section 10).
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// How often in a row: `MAX_MULTICAST_SOLICIT`.
const MAX_MULTICAST_SOLICIT: u8 = 3;

/// Between two changes of where the flows of an address go: each looks at all flows. Chosen: as often as is asked.
const MOVE_INTERVAL: Duration = RETRANS_TIMER;

/// Addresses that are kept; one more takes the place of the one used longest ago. Chosen: more than connections
/// come in to.
const MOST: usize = 16;

/// What speaks for a frame that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Something was sent.
    Sent,
    /// An answer was sent: there may be nothing to say to it.
    Reply,
    /// It was sent before, and a timeout has passed since.
    Retransmitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reachable,
    Delay { due: Instant },
    Probe { due: Instant, asked: u8 },
}

#[derive(Clone, Debug)]
struct Entry {
    address: IpAddr,
    /// Where it is.
    mac: MacAddr,
    state: State,
    last_used: Instant,
    last_asked: Option<Instant>,
    /// Before this nothing is asked for what is only not answered.
    quiet_until: Instant,
    /// When its flows are to go to another place, and when they last changed that.
    move_due: Option<Instant>,
    last_moved: Option<Instant>,
}

impl Entry {
    /// It is at `mac`; flows that go elsewhere are moved, but not often.
    fn set_mac(&mut self, now: Instant, mac: MacAddr) {
        if mac != self.mac {
            self.mac = mac;
            self.move_flows(now);
        }
    }

    fn move_flows(&mut self, now: Instant) {
        let due = self.last_moved.map_or(now, |moved| now.max(moved + MOVE_INTERVAL));
        self.move_due.get_or_insert(due);
    }
}

/// The namespace's addresses that frames go to.
#[derive(Clone, Debug, Default)]
pub struct Reachability {
    entries: Vec<Entry>,
}

impl Reachability {
    /// Whether an answer of any address is awaited.
    #[inline]
    pub fn awaits(&self) -> bool {
        self.entries.iter().any(|it| it.state != State::Reachable)
    }

    fn find(&mut self, address: IpAddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|it| it.address == address)
    }

    /// Where `address` is, if it is known.
    pub fn mac_of(&self, address: IpAddr) -> Option<MacAddr> {
        Some(self.entries.iter().find(|it| it.address == address)?.mac)
    }

    /// Takes in that `address` is at `mac`, which it says unasked.
    pub fn learn(&mut self, now: Instant, address: IpAddr, mac: MacAddr) {
        if let Some(entry) = self.find(address) {
            entry.set_mac(now, mac);
        }
    }

    /// All that is at `before` is at `mac`.
    pub fn learn_all(&mut self, now: Instant, before: MacAddr, mac: MacAddr) {
        self.entries
            .iter_mut()
            .filter(|it| it.mac == before)
            .for_each(|entry| entry.set_mac(now, mac));
    }

    /// Notes that a frame has gone to `address` at `mac`.
    #[inline]
    pub fn used(&mut self, now: Instant, address: IpAddr, mac: MacAddr, why: Use) {
        if self.find(address).is_none() {
            self.add(now, address, mac);
        }
        let Some(entry) = self.find(address) else { return };
        entry.last_used = now;
        if why == Use::Retransmitted && mac != entry.mac {
            entry.move_flows(now);
        }
        let soonest = entry.last_asked.map_or(now, |asked| now.max(asked + RETRANS_TIMER));
        let due = match why {
            Use::Sent => (now + DELAY).max(entry.quiet_until).max(soonest),
            Use::Reply => (now + QUIET).max(entry.quiet_until).max(soonest),
            Use::Retransmitted => soonest,
        };
        match entry.state {
            State::Reachable => entry.state = State::Delay { due },
            State::Delay { due: before } => entry.state = State::Delay { due: due.min(before) },
            State::Probe { .. } => {}
        }
    }

    fn add(&mut self, now: Instant, address: IpAddr, mac: MacAddr) {
        if self.entries.len() >= MOST {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, it)| it.last_used);
            if let Some((place, _)) = oldest {
                self.entries.swap_remove(place);
            }
        }
        self.entries.push(Entry {
            address,
            mac,
            state: State::Reachable,
            last_used: now,
            last_asked: None,
            quiet_until: now,
            move_due: None,
            last_moved: None,
        });
    }

    /// Takes in a frame from `address` at `mac`; gives whether it is one that was awaited.
    pub fn answered(&mut self, now: Instant, address: IpAddr, mac: MacAddr) -> bool {
        let Some(entry) = self.find(address).filter(|it| it.state != State::Reachable) else {
            return false;
        };
        if let State::Probe { .. } = entry.state {
            entry.quiet_until = now + QUIET;
        }
        entry.state = State::Reachable;
        entry.set_mac(now, mac);
        true
    }

    /// An address whose flows are to go to another place, and that place, if there is any.
    pub fn next_move(&mut self, now: Instant) -> Option<(IpAddr, MacAddr)> {
        self.entries.iter_mut().find_map(|entry| {
            entry.move_due.take_if(|due| *due <= now)?;
            entry.last_moved = Some(now);
            Some((entry.address, entry.mac))
        })
    }

    /// When [`Reachability::next_question`] or [`Reachability::next_move`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let question = |it: &Entry| match it.state {
            State::Reachable => None,
            State::Delay { due } | State::Probe { due, .. } => Some(due),
        };
        self.entries.iter().flat_map(|it| [question(it), it.move_due]).flatten().min()
    }

    /// An address that is to be asked for, if any is.
    pub fn next_question(&mut self, now: Instant) -> Option<IpAddr> {
        self.entries.iter_mut().find_map(|entry| {
            let asked = match entry.state {
                State::Delay { due } if due <= now => 0,
                State::Probe { due, asked } if due <= now => asked,
                _ => return None,
            };
            if asked == MAX_MULTICAST_SOLICIT {
                entry.state = State::Reachable;
                return None;
            }
            entry.state = State::Probe { due: now + RETRANS_TIMER, asked: asked + 1 };
            entry.last_asked = Some(now);
            Some(entry.address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::try_from([2, 0, 0, 0, 0, last]).unwrap()
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    const HERE: u8 = 7;

    fn sent(r: &mut Reachability, now: Instant, why: Use) {
        r.used(now, address(HERE), mac(1), why);
    }

    /// When a question is next asked, if one is to be.
    fn asked(r: &mut Reachability) -> Option<Instant> {
        loop {
            let due = r.deadline()?;
            if let Some(it) = r.next_question(due) {
                assert_eq!(it, address(HERE));
                return Some(due);
            }
        }
    }

    #[test]
    fn what_is_not_answered_is_asked_for_three_times_and_then_not_before_it_is_used_again() {
        let (mut r, start) = (Reachability::default(), Instant::START);
        sent(&mut r, start, Use::Sent);
        let first = start + DELAY;
        for n in 0..3 {
            assert_eq!(asked(&mut r), Some(first + RETRANS_TIMER * n));
        }
        assert_eq!((asked(&mut r), r.awaits()), (None, false));
        let now = first + RETRANS_TIMER * 3;
        sent(&mut r, now, Use::Sent);
        assert_eq!(asked(&mut r), Some(now + DELAY));
    }

    #[test]
    fn any_frame_from_the_address_answers_and_nothing_is_asked() {
        let (mut r, start) = (Reachability::default(), Instant::START);
        sent(&mut r, start, Use::Sent);
        assert!(!r.answered(start, address(8), mac(1)) && r.awaits(), "another address");
        assert!(r.answered(start, address(HERE), mac(1)));
        assert_eq!((asked(&mut r), r.next_move(start)), (None, None));
    }

    #[test]
    fn retransmission_asks_at_once_and_questions_are_a_second_apart() {
        let (mut r, start) = (Reachability::default(), Instant::START);
        sent(&mut r, start, Use::Sent);
        sent(&mut r, start, Use::Retransmitted);
        assert_eq!(asked(&mut r), Some(start));
        r.answered(start, address(HERE), mac(1));
        sent(&mut r, start, Use::Retransmitted);
        assert_eq!(asked(&mut r), Some(start + RETRANS_TIMER));
    }

    #[test]
    fn one_who_never_answers_what_is_sent_is_asked_for_now_and_then() {
        let (mut r, mut now) = (Reachability::default(), Instant::START);
        let mut questions = 0;
        let until = now + Duration::from_secs(60);
        while now < until {
            sent(&mut r, now, Use::Sent);
            while r.next_question(now).is_some() {
                questions += 1;
                r.answered(now, address(HERE), mac(1));
            }
            now = now + Duration::from_millis(10);
        }
        assert_eq!(questions, 12);
    }

    #[test]
    fn nothing_has_to_be_said_to_an_answer_for_a_while() {
        let (mut r, start) = (Reachability::default(), Instant::START);
        sent(&mut r, start, Use::Reply);
        assert_eq!(r.deadline(), Some(start + QUIET));
        sent(&mut r, start, Use::Sent);
        assert_eq!(asked(&mut r), Some(start + DELAY));
    }

    #[test]
    fn flows_go_to_where_the_answer_came_from_but_not_to_and_fro() {
        let (mut r, start) = (Reachability::default(), Instant::START);
        sent(&mut r, start, Use::Sent);
        r.answered(start, address(HERE), mac(2));
        assert_eq!(r.next_move(start), Some((address(HERE), mac(2))));
        assert_eq!(r.next_move(start), None);
        r.learn(start, address(HERE), mac(3));
        r.learn(start, address(HERE), mac(4));
        assert_eq!((r.next_move(start), r.mac_of(address(HERE))), (None, Some(mac(4))));
        let later = start + MOVE_INTERVAL;
        assert_eq!(
            (r.deadline(), r.next_move(later)),
            (Some(later), Some((address(HERE), mac(4))))
        );
        // One that still goes elsewhere is noticed.
        sent(&mut r, later, Use::Retransmitted);
        assert_eq!(r.next_move(later + MOVE_INTERVAL), Some((address(HERE), mac(4))));
    }

    #[test]
    fn what_is_at_one_place_moves_together() {
        let (mut r, start) = (Reachability::default(), Instant::START);
        for (n, at) in [(1, 1), (2, 1), (3, 9)] {
            r.used(start, address(n), mac(at), Use::Sent);
        }
        r.learn_all(start, mac(1), mac(2));
        let at = [1, 2, 3].map(|n| r.mac_of(address(n)));
        assert_eq!(at, [Some(mac(2)), Some(mac(2)), Some(mac(9))]);
    }

    #[test]
    fn addresses_are_bounded_and_the_one_used_longest_ago_goes() {
        let mut r = Reachability::default();
        for n in 0..=MOST as u8 {
            r.used(Instant::from_nanos(n.into()), address(n), mac(1), Use::Sent);
        }
        assert_eq!((r.entries.len(), r.mac_of(address(0))), (MOST, None));
        assert_eq!(r.mac_of(address(1)), Some(mac(1)));
    }
}
