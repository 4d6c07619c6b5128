//! What a batch of frames has for the flows that it touches. It remembers places in the buffer of frames and not
//! slices, so that its memory serves batch after batch.

use crate::flow::FlowId;
use crate::flow::datagram::Sender;
use crate::link::classify::ErrorReport;
use std::ops::Range;

/// The part of a frame that is for a flow: from here to there in the buffer of frames.
type Place = Range<usize>;

/// What to take of a segment, which may be nothing.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) flow: FlowId,
    /// Its position among all, so that those of one flow stay in order.
    position: usize,
    pub(super) payload: Place,
}

/// A datagram, or several of one size.
#[derive(Clone, Debug)]
pub(super) struct Datagrams {
    pub(super) flow: FlowId,
    pub(super) sender: Sender,
    pub(super) payload: Place,
    pub(super) segment_size: Option<u16>,
}

/// What the flows of a batch get when all its frames are read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    segments: Vec<Segment>,
    datagrams: Vec<Datagrams>,
    error_reports: Vec<(FlowId, ErrorReport)>,
}

impl Batch {
    /// Forgets all, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.datagrams.clear();
        self.error_reports.clear();
    }

    #[inline]
    pub(super) fn add_segment(&mut self, flow: FlowId, payload: Place) {
        let position = self.segments.len();
        self.segments.push(Segment { flow, position, payload });
    }

    pub(super) fn add_datagrams(&mut self, datagrams: Datagrams) {
        self.datagrams.push(datagrams);
    }

    pub(super) fn add_error_report(&mut self, flow: FlowId, report: ErrorReport) {
        self.error_reports.push((flow, report));
    }

    /// The segments of each flow, in order, `most` at a time.
    pub(super) fn segments(&mut self, most: usize) -> impl Iterator<Item = &[Segment]> {
        self.segments.sort_unstable_by_key(|segment| (segment.flow, segment.position));
        let of_one = self.segments.chunk_by(|one, other| one.flow == other.flow);
        of_one.flat_map(move |segments| segments.chunks(most))
    }

    /// Datagrams of one flow that came one after the other, `most` at a time.
    pub(super) fn datagrams(&self, most: usize) -> impl Iterator<Item = &[Datagrams]> {
        let alike = |one: &Datagrams, other: &Datagrams| {
            one.flow == other.flow && one.sender == other.sender
        };
        self.datagrams.chunk_by(alike).flat_map(move |datagrams| datagrams.chunks(most))
    }

    /// Errors for packets of ours, in order.
    pub(super) fn error_reports(&self) -> &[(FlowId, ErrorReport)] {
        &self.error_reports
    }
}

/// Where `part` is in `whole`, of which it is a part.
#[inline]
pub(super) fn place_of(part: &[u8], whole: &[u8]) -> Place {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    start..start.wrapping_add(part.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::table::FlowTable;

    #[test]
    fn segments_are_grouped_by_flow_and_stay_in_order() {
        let mut table = FlowTable::new(2);
        let [one, other] = [(); 2].map(|()| table.insert_nameless(()).unwrap());
        let mut batch = Batch::default();
        for (flow, at) in [(other, 0), (one, 10), (other, 20), (other, 30)] {
            batch.add_segment(flow, at..at + 1);
        }
        let groups: Vec<_> = batch
            .segments(2)
            .map(|group| {
                (group[0].flow, group.iter().map(|it| it.payload.start).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(groups, [(one, vec![10]), (other, vec![0, 20]), (other, vec![30])]);
    }

    #[test]
    fn place_of_a_part_leads_back_to_it() {
        let whole: Vec<u8> = (0..100).collect();
        for part in [&whole[10..20], &whole[..0], &whole[99..], &whole[..]] {
            assert_eq!(whole.get(place_of(part, &whole)), Some(part));
        }
        assert_eq!(whole.get(place_of(&[1, 2], &whole)).unwrap_or_default().len() % 2, 0);
    }
}
