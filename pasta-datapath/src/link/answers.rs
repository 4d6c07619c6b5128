//! What the namespace was answered when it asked who has an address, so that it learns when that changes.
//!
//! The answer depends on the host's neighbours, on the gateway and on what is mapped, all of which change while the
//! namespace keeps what it has learned. Whose answer would be another one is announced: by ARP (RFC 5227, section 3)
//! or an unsolicited advertisement (RFC 4861, section 7.2.6). Frames to a former link-layer address come to us all the
//! same, so an announcement that is lost costs nothing but the sight of the real router.
//!
//! Limits: the last 64 addresses that were asked for. For the first ones of more nothing is announced.

use pasta_ipc::types::MacAddr;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Addresses whose answers are kept; chosen: more routers and neighbours than one namespace uses.
const MOST: usize = 64;

/// The last answers.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    given: VecDeque<(IpAddr, MacAddr)>,
}

impl Answers {
    /// With room for all that is kept.
    pub fn new() -> Self {
        Self { given: VecDeque::with_capacity(MOST) }
    }

    /// Notes that `address` is at `mac`, as the namespace has learned.
    pub fn note(&mut self, address: IpAddr, mac: MacAddr) {
        if let Some(known) = self.given.iter_mut().find(|(it, _)| *it == address) {
            known.1 = mac;
            return;
        }
        if self.given.len() >= MOST {
            self.given.pop_front();
        }
        self.given.push_back((address, mac));
    }

    /// Takes in what would be answered now; gives the addresses with another answer than before. Those that are not
    /// answered any more are forgotten.
    pub fn update(&mut self, answer: impl Fn(IpAddr) -> Option<MacAddr>) -> Vec<(IpAddr, MacAddr)> {
        let mut changed = Vec::new();
        self.given.retain_mut(|(address, mac)| {
            let Some(now) = answer(*address) else { return false };
            if std::mem::replace(mac, now) != now {
                changed.push((*address, now));
            }
            true
        });
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::try_from([2, 0, 0, 0, 0, last]).unwrap()
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn what_would_be_answered_otherwise_is_a_change_once() {
        let mut answers = Answers::new();
        answers.note(address(1), mac(1));
        answers.note(address(2), mac(1));
        assert_eq!(answers.update(|_| Some(mac(1))), []);
        let answer = |it| Some(if it == address(2) { mac(7) } else { mac(1) });
        assert_eq!(answers.update(answer), [(address(2), mac(7))]);
        assert_eq!(answers.update(answer), []);
        // Learned meanwhile by asking again.
        answers.note(address(1), mac(9));
        assert_eq!(answers.update(|_| Some(mac(9))), [(address(2), mac(9))]);
    }

    #[test]
    fn who_is_not_answered_any_more_is_forgotten() {
        let mut answers = Answers::new();
        answers.note(address(1), mac(1));
        assert_eq!(answers.update(|_| None), []);
        assert_eq!(answers.update(|_| Some(mac(2))), []);
    }

    #[test]
    fn the_last_ones_are_kept() {
        let mut answers = Answers::new();
        let room = answers.given.capacity();
        (0..100).for_each(|n| answers.note(address(n), mac(1)));
        let changed = answers.update(|_| Some(mac(2)));
        let last: Vec<_> = (36..100).map(|n| (address(n), mac(2))).collect();
        assert_eq!(changed, last);
        assert_eq!(answers.given.capacity(), room, "nothing is allocated for a question");
    }
}
