//! The way to the namespace: what it is sent is checked against all that it may rely on.

use super::octet;
use pasta_datapath::flow::tcp::relay::QUANTUM;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header, ToSend};
use pasta_datapath::wire::vnet::Segmentation;
use pasta_datapath::wire::window::{Mss, WindowScale};

/// How many segments without payload one turn may send: an answer, a FIN, its retransmission, three
/// acknowledgements.
const BARE_SEGMENTS: usize = 6;

/// What was advertised to the namespace, and what it has advertised.
#[derive(Debug)]
pub(super) struct Tap {
    irs: Seq,
    iss: Seq,
    /// Shift counts of our windows and of the namespace's.
    scale: WindowScale,
    their_scale: WindowScale,
    /// Most octets in one segment.
    pub(super) mss: Mss,
    /// The end of what was ever sent.
    highest: Seq,
    /// What the namespace has acknowledged of it.
    acknowledged: Seq,
    /// The namespace's window at its largest, and its end.
    their_window: u32,
    their_edge: Seq,
    /// The number of our FIN.
    fin: Option<Seq>,
    /// The last acknowledgement number sent, and the largest that may be.
    acked: Option<Seq>,
    acceptable: Seq,
    /// The right edge of the advertised window, at its largest.
    edge: Option<Seq>,
    /// Of these turns: octets, segments without, whether the last of all was a reset.
    octets: usize,
    bare: usize,
    was_reset: bool,
}

impl Tap {
    pub(super) fn new(irs: Seq, iss: Seq, scale: WindowScale, their_scale: WindowScale) -> Self {
        Self {
            irs,
            iss,
            scale,
            their_scale,
            mss: Mss::MAX,
            highest: iss,
            acknowledged: iss,
            their_window: 0,
            their_edge: iss + 1,
            fin: None,
            acked: None,
            acceptable: irs + 1,
            edge: None,
            octets: 0,
            bare: 0,
            was_reset: false,
        }
    }

    /// The end of what was ever sent.
    pub(super) fn highest(&self) -> Seq {
        self.highest
    }

    /// What the namespace has acknowledged of it.
    pub(super) fn acknowledged(&self) -> Seq {
        self.acknowledged
    }

    /// The namespace sends a segment that may move its window: one that does not acknowledge more than
    /// was sent. Segments come in any order, so that any window may count from any acknowledgement.
    pub(super) fn receives(&mut self, header: &ToSend) {
        let ToSend { ack, flags, window, .. } = *header;
        if flags.contains(Flags::ACK) && !ack.after(self.highest) {
            self.acknowledged = self.acknowledged.latest(ack);
            self.their_window = self.their_window.max((window << self.their_scale).octets());
            self.their_edge = self.their_edge.latest(self.acknowledged + self.their_window);
        }
    }

    /// The socket has accepted so many octets, and perhaps the end of the stream; it never had room for more
    /// than `room`.
    pub(super) fn accepted(&mut self, octets: u32, and_end: bool, room: u32) {
        self.acceptable = self.irs + 1 + octets + u32::from(and_end);
        assert!(self.acked.is_none_or(|ack| !ack.after(self.acceptable)), "not accepted yet");
        let most = self.acceptable + room;
        assert!(self.edge.is_none_or(|edge| !edge.after(most)), "more is advertised than there is");
    }

    /// Turns begin.
    pub(super) fn begin(&mut self) {
        (self.octets, self.bare, self.was_reset) = (0, 0, false);
    }

    /// So many turns have ended, and perhaps the connection has not.
    pub(super) fn check_turns(&self, turns: usize, goes_on: bool) {
        let Self { octets, bare, .. } = *self;
        assert!(octets <= turns * QUANTUM, "{octets} octets in {turns} turns");
        assert!(bare <= turns * BARE_SEGMENTS, "{bare} segments without payload");
        assert!(!self.was_reset || !goes_on, "sent a reset and goes on");
    }

    /// The far end has sent so many octets, and FIN if `has_ended`.
    pub(super) fn check_end(&self, arrived: u32, has_ended: bool) {
        if let Some(fin) = self.fin {
            assert!(has_ended, "the stream is ended before its end has come");
            assert_eq!(fin, self.iss + 1 + arrived, "FIN is not behind the last octet");
        }
    }

    fn check_receiving_half(&mut self, header: &Header) {
        if let Some(acked) = self.acked {
            assert!(!header.ack.before(acked), "acknowledgement went back");
        }
        self.acked = Some(header.ack);
        let is_syn = header.flags.contains(Flags::SYN);
        let scale = if is_syn { WindowScale::NONE } else { self.scale };
        let edge = header.ack + (header.window << scale);
        // A SYN that is retransmitted cannot advertise more than its unscaled field.
        if let Some(before) = self.edge.filter(|_| !is_syn) {
            // A window is advertised in units: its end may be rounded down by less than one.
            assert!(
                before.distance_from(edge) < 1 << self.scale.shift(),
                "the advertised window has shrunk"
            );
        }
        self.edge = Some(self.edge.map_or(edge, |before| before.latest(edge)));
    }

    fn check_payload(&self, seq: Seq, payload: &[u8]) {
        let place = u32::try_from(seq - (self.iss + 1));
        let Ok(place) = place else { panic!("payload before the stream") };
        for (place, sent) in (place..).zip(payload) {
            assert_eq!(*sent, octet(place), "at {place} of the stream");
        }
    }

    /// The namespace is sent this, which the kernel cuts into segments.
    pub(super) fn sent(&mut self, header: &Header, cut: Segmentation, payload: &[u8]) {
        assert!(!self.was_reset, "sent something behind a reset");
        self.octets += payload.len();
        self.bare += usize::from(payload.is_empty());
        let has = |flag| header.flags.contains(flag);
        assert!(has(Flags::ACK));
        if has(Flags::RST) {
            self.was_reset = true;
            assert!(payload.is_empty());
            return;
        }
        self.check_receiving_half(header);
        let size = match cut {
            Segmentation::Tcp(size) => usize::from(size),
            Segmentation::None | Segmentation::Udp(_) => payload.len(),
        };
        assert!(size <= usize::from(self.mss), "{size} octets in one segment");
        if has(Flags::SYN) {
            assert_eq!(header.seq, self.iss);
        } else if !payload.is_empty() || has(Flags::FIN) {
            self.check_payload(header.seq, payload);
        }
        // Fits: checked against a frame's size.
        let len = payload.len() as u32 + u32::from(has(Flags::SYN)) + u32::from(has(Flags::FIN));
        let end = header.seq + len;
        if len > 0 {
            assert!(!end.after(self.their_edge), "sent behind the namespace's window");
        }
        if has(Flags::FIN) {
            let fin = end - 1;
            assert!(self.fin.is_none_or(|before| before == fin), "the stream's end has moved");
            let is_behind = self.fin.is_some() || !fin.before(self.highest);
            assert!(is_behind, "FIN is in front of what was sent");
            self.fin = Some(fin);
        }
        assert!(self.fin.is_none_or(|fin| !end.after(fin + 1)), "sent behind the stream's end");
        self.highest = self.highest.latest(end);
    }
}
