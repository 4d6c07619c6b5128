//! What the namespace has sent of its stream, in whatever order.

use super::PAYLOAD;

/// Octets that were sent, and where the stream may end.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Whether the octet at each place was sent; nothing behind `PAYLOAD` can be in order.
    is_sent: Vec<bool>,
    /// All in front of this was.
    in_order: usize,
    /// Places that a FIN was sent for.
    ends: Vec<u32>,
}

impl Stream {
    /// The namespace sends so many octets at `place`, and perhaps FIN behind them.
    pub(super) fn sent(&mut self, place: u32, octets: u32, fin: bool) {
        if fin {
            self.ends.push(place.wrapping_add(octets));
        }
        // Places in front of the stream are large numbers; what is in it of such a segment is its end.
        let (from, octets) = match place.checked_add(octets) {
            Some(_) => (place as usize, octets as usize),
            None => (0, place.wrapping_add(octets) as usize),
        };
        let to = (from + octets).min(PAYLOAD);
        if from >= to {
            return;
        }
        self.is_sent.resize(self.is_sent.len().max(to), false);
        self.is_sent[from..to].fill(true);
        let rest = &self.is_sent[self.in_order..];
        self.in_order += rest.iter().take_while(|is_sent| **is_sent).count();
    }

    /// How much of it was sent without a hole.
    pub(super) fn in_order(&self) -> u32 {
        // At most `PAYLOAD`.
        self.in_order as u32
    }

    /// Whether a FIN was sent for this place.
    pub(super) fn may_end_at(&self, place: u32) -> bool {
        self.ends.contains(&place)
    }
}
