//! The namespace's TCP.

use pasta_datapath::time::Instant;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header};
use pasta_datapath::wire::window::{Mss, WindowScale};
use std::time::Duration;

const PEER_RTO: Duration = Duration::from_millis(250);

/// How many values of MSS a cookie can stand for, and which of them ours does: the one that makes the most
/// numbers look like others.
const COOKIE_INDICES: u32 = 4;
const COOKIE_INDEX: u32 = 3;
/// How long a cookie is taken.
const COOKIE_AGE: Duration = Duration::from_secs(120);

/// A segment on the link.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

/// The namespace's TCP: go-back-N, a fixed time-out, no delayed acknowledgements.
pub(super) struct Peer {
    pub(super) out: Vec<u8>,
    pub(super) iss: Seq,
    pub(super) acked: u32,
    pub(super) sent: u32,
    pub(super) highest_sent: u32,
    pub(super) window: u32,
    pub(super) scale: WindowScale,
    pub(super) duplicates: u32,
    pub(super) expected: Option<Seq>,
    pub(super) received: Vec<u8>,
    pub(super) fin_received: bool,
    pub(super) fin_allowed: bool,
    pub(super) paused: bool,
    pub(super) mss: u16,
    pub(super) timer: Option<Instant>,
    pub(super) retransmitted: usize,
    pub(super) vanished: bool,
    pub(super) reset: bool,
    /// Acknowledges something else than our SYN, once.
    pub(super) old_connection: bool,
    /// Our SYN was answered by one of its own.
    pub(super) answered_syn: bool,
    /// It answers with a SYN cookie and keeps nothing.
    pub(super) cookie: Option<Cookie>,
}

/// A listener that answers with SYN cookies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookie {
    /// How many segments find no place in its queue and are dropped.
    pub(super) drops: u32,
    /// The other end's initial number and when it came, which a kernel has hidden in the cookie.
    pub(super) answered: Option<(Seq, Instant)>,
}

impl Peer {
    /// Numbers on the wire count from the SYN; octet 0 has number iss + 1.
    pub(super) fn seq(&self, octets: u32) -> Seq {
        self.iss + 1 + octets
    }

    pub(super) fn len(&self) -> u32 {
        self.out.len() as u32
    }

    pub(super) fn is_done(&self) -> bool {
        self.fin_received && self.acked == self.len() + 1
    }

    pub(super) fn advertised(&self) -> u16 {
        if self.paused { 0 } else { 60_000 }
    }

    pub(super) fn ack(&self) -> Segment {
        self.segment(self.seq(self.sent), Flags::ACK, &[])
    }

    pub(super) fn segment(&self, seq: Seq, flags: Flags, payload: &[u8]) -> Segment {
        let header = Header {
            source: 1024,
            destination: 80,
            seq,
            ack: self.expected.unwrap_or_default(),
            flags,
            window: self.advertised().into(),
            mss: None,
            window_scale: None,
            sack_permitted: false,
        };
        Segment { header, payload: payload.to_vec() }
    }

    pub(super) fn syn(&self, flags: Flags) -> Segment {
        let mut syn = self.segment(self.iss, flags, &[]);
        syn.header.mss = Some(Mss::new(self.mss));
        syn.header.window_scale = Some(WindowScale::NONE);
        syn
    }

    /// What the window and the data allow.
    pub(super) fn send(&mut self, now: Instant) -> Vec<Segment> {
        let mut segments = Vec::new();
        if self.expected.is_none() || self.vanished {
            return segments;
        }
        let edge = self.acked + self.window;
        while self.sent < self.len() && self.sent < edge {
            let end = self.len().min(edge).min(self.sent + u32::from(self.mss));
            let payload = &self.out[self.sent as usize..end as usize];
            segments.push(self.segment(self.seq(self.sent), Flags::ACK, payload));
            if self.sent < self.highest_sent {
                self.retransmitted += 1;
            }
            self.sent = end;
        }
        if self.sent == self.len() && self.fin_allowed {
            segments.push(self.segment(self.seq(self.sent), Flags::ACK.with(Flags::FIN), &[]));
            self.sent += 1;
        }
        self.highest_sent = self.highest_sent.max(self.sent);
        if self.sent > self.acked && self.timer.is_none() {
            self.timer = Some(now + PEER_RTO);
        }
        segments
    }

    pub(super) fn receive(&mut self, now: Instant, segment: &Segment) -> Vec<Segment> {
        if self.vanished || self.reset {
            return Vec::new();
        }
        let header = &segment.header;
        if header.flags.contains(Flags::RST) {
            // One for the old connection ends that.
            self.reset = !std::mem::take(&mut self.old_connection);
            return Vec::new();
        }
        let mut answers = Vec::new();
        let first_syn = header.flags.contains(Flags::SYN) && !header.flags.contains(Flags::ACK);
        if first_syn && self.old_connection {
            return vec![self.segment(self.iss + 77, Flags::ACK, &[])];
        }
        if let Some(mut cookie) = self.cookie {
            if first_syn {
                cookie.answered = Some((header.seq, now));
                self.cookie = Some(cookie);
                self.answered_syn = true;
                self.scale = header.window_scale.unwrap_or(WindowScale::NONE);
                let mut syn = self.syn(Flags::SYN.with(Flags::ACK));
                syn.header.ack = header.seq + 1;
                return vec![syn];
            }
            let Some((irs, at)) = cookie.answered else { return answers };
            // With another number than the first the cookie seems to be one of another MSS.
            let index = COOKIE_INDEX.wrapping_sub((header.seq - 1).distance_from(irs));
            let known = now.since(at) < COOKIE_AGE && header.ack == self.iss + 1;
            if !known || header.seq.before(irs) || index >= COOKIE_INDICES {
                let reset = self.segment(header.ack, Flags::RST, &[]);
                self.reset = true;
                return vec![reset];
            }
            if cookie.drops > 0 {
                cookie.drops -= 1;
                self.cookie = Some(cookie);
                return answers;
            }
            self.cookie = None;
            self.expected = Some(header.seq);
            self.window = (header.window << self.scale).octets();
        }
        if first_syn && self.expected.is_none_or(|expected| expected == header.seq + 1) {
            self.expected = Some(header.seq + 1);
            self.window = header.window.scaled(WindowScale::NONE).octets();
            self.scale = header.window_scale.unwrap_or(WindowScale::NONE);
            self.answered_syn = true;
            return vec![self.syn(Flags::SYN.with(Flags::ACK))];
        }
        let Some(expected) = self.expected else {
            if header.flags.contains(Flags::SYN) {
                self.expected = Some(header.seq + 1);
                self.window = header.window.scaled(WindowScale::NONE).octets();
                self.timer = None;
                self.scale = header.window_scale.unwrap_or(WindowScale::NONE);
                answers.push(self.ack());
                answers.extend(self.send(now));
            }
            return answers;
        };
        let occupies = segment.payload.len() as u32
            + u32::from(header.flags.contains(Flags::FIN))
            + u32::from(header.flags.contains(Flags::SYN));
        if header.seq.before(expected) && occupies == 0 {
            // A probe; RFC 9293 wants an answer.
            answers.push(self.ack());
        }
        let acked = header.ack.distance_from(self.seq(0));
        let window = (header.window << self.scale).octets();
        if header.ack.after(self.seq(self.acked)) {
            self.acked = acked;
            self.sent = self.sent.max(acked);
            self.duplicates = 0;
            self.timer = (self.sent > self.acked).then_some(now + PEER_RTO);
        } else if acked == self.acked && occupies == 0 && window == self.window && self.sent > acked
        {
            self.duplicates += 1;
            if self.duplicates == 3 {
                self.sent = self.acked;
            }
        }
        self.window = window;
        if occupies > 0 {
            if header.seq == expected && !self.paused {
                self.received.extend(&segment.payload);
                self.fin_received |= header.flags.contains(Flags::FIN);
                self.expected = Some(expected + occupies);
            }
            answers.push(self.ack());
        }
        answers.extend(self.send(now));
        answers
    }

    pub(super) fn timeout(&mut self, now: Instant) -> Vec<Segment> {
        match self.timer {
            Some(due) if due <= now && self.expected.is_some() => {
                self.sent = self.acked;
                self.timer = Some(now + PEER_RTO);
                self.retransmitted += 1;
                self.send(now)
            }
            _ => Vec::new(),
        }
    }
}
