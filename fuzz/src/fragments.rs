//! Fragments of many packets in any order, with overlaps and lies, while time goes by.
//!
//! Invariants: a packet that is handed on has every octet of its sender at its place, from the first to the end that a
//! fragment named; nothing is handed on of which fragments contradict each other; what is held stays within its bounds
//! and is given up in time.

use crate::input::Input;
use pasta_datapath::counters::Counters;
use pasta_datapath::link::classify::Framing;
use pasta_datapath::link::reassembly::{MAX_OCTETS, MAX_PACKETS, Reassembly};
use pasta_datapath::time::Instant;
use pasta_datapath::wire::ethernet;
use pasta_datapath::wire::ip::{Handling, PROTOCOL_UDP, Packet, Piece, read_ipv4, read_ipv6};
use pasta_ipc::types::MacAddr;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The longest that a packet waits.
const LONGEST: Duration = Duration::from_secs(60);

/// One packet of a sender: its address, and the number of the packet.
type Name = (IpAddr, u32);

/// What was taken of a packet since it began: offset, length, and whether others follow.
type Taken = BTreeMap<Name, Vec<(usize, usize, bool)>>;

/// Reads `octets` as fragments and pauses.
///
/// # Panics
///
/// If an invariant is broken.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let mut run =
        Run { reassembly: Reassembly::default(), taken: Taken::new(), now: Instant::START };
    while !input.is_empty() {
        match input.octet() {
            200.. => run.wait(Duration::from_millis(input.u16().into())),
            sender => run.add(sender, &mut input),
        }
        let (packets, cost) = run.reassembly.held();
        assert!(packets <= MAX_PACKETS && cost <= MAX_OCTETS, "{packets} packets, {cost} octets");
        assert_eq!(packets == 0, run.reassembly.deadline().is_none());
        assert!(run.reassembly.deadline().is_none_or(|due| due <= run.now + LONGEST));
    }
    run.wait(LONGEST);
    assert_eq!(run.reassembly.held(), (0, 0), "something is kept for ever");
}

struct Run {
    reassembly: Reassembly,
    taken: Taken,
    now: Instant,
}

/// The octet at `offset` of a packet.
fn octet_at((_, number): Name, offset: usize) -> u8 {
    (number as usize).wrapping_mul(31).wrapping_add(offset.wrapping_mul(7)) as u8
}

impl Run {
    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        while let Some(partial) = self.reassembly.next_expired(self.now) {
            assert!(partial.offending().is_none() || !partial.is_empty());
            self.reassembly.keep_buffers(partial);
        }
        assert!(self.reassembly.deadline().is_none_or(|due| due > self.now));
    }

    fn add(&mut self, sender: u8, input: &mut Input<'_>) {
        let ends: [IpAddr; 2] = match sender & 1 {
            0 => [Ipv4Addr::from([192, 0, 2, sender]), Ipv4Addr::LOCALHOST].map(IpAddr::V4),
            _ => [Ipv6Addr::from(u128::from(sender)), Ipv6Addr::LOCALHOST].map(IpAddr::V6),
        };
        let [source, destination] = ends;
        let (identification, fields) = (u32::from(input.octet()), input.u16());
        let (offset, more) = (usize::from(fields & !7), fields & 1 == 1);
        // Mostly what a sender would cut; the rest, anything.
        let units = usize::from(input.octet());
        let len = if fields & 2 == 0 { units * 8 } else { units * 257 };
        let name = (source, identification);
        let payload: Vec<u8> = (offset..offset + len).map(|at| octet_at(name, at)).collect();
        let (protocol, handling) = (PROTOCOL_UDP, Handling::DEFAULT);
        let packet = Packet { source, destination, protocol, handling, payload: &payload };
        let piece = Piece { identification, offset, more };
        let Ok(mac) = MacAddr::try_from([2, 0, 0, 0, 0, 1]) else { return };
        let (sender, mut counters) = ((mac, Framing::Plain), Counters::default());
        let added = self.reassembly.add(self.now, sender, (&packet, piece), &mut counters);
        let taken = self.taken.entry(name).or_default();
        match added {
            Ok(None) => taken.push((offset, len, more)),
            Ok(Some(frame)) => {
                taken.push((offset, len, more));
                let end = taken.iter().filter(|(_, _, more)| !more).map(|it| it.0 + it.1).max();
                self.taken.remove(&name);
                check_whole(name, end, &frame);
                self.reassembly.reuse(frame);
            }
            Err(_) => {}
        }
    }
}

/// Whether `frame` is the packet `name`, which ends at `end`.
fn check_whole(name: Name, end: Option<usize>, frame: &[u8]) {
    let network = frame.get(ethernet::LEN..).unwrap_or_default();
    let read = if name.0.is_ipv4() { read_ipv4(network) } else { read_ipv6(network) };
    let Ok((packet, None)) = read else { panic!("not whole: {read:?}") };
    assert_eq!((packet.source, packet.protocol), (name.0, PROTOCOL_UDP));
    // An end that was named for a packet of the same number before may have been another one.
    assert!(end.is_some_and(|end| packet.payload.len() <= end), "an end that nobody named");
    for (at, octet) in packet.payload.iter().enumerate() {
        assert_eq!(*octet, octet_at(name, at), "octet {at}");
    }
}
