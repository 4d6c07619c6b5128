//! The capture: any frame, with or without a virtio-net header, in any pieces, becomes records that a reader takes.
//!
//! - the file is a header and whole records, each with as many octets as it says, none longer than the limit;
//! - a frame gives no more octets than its payload and one set of headers for each packet, and no packet is longer
//!   than the frame;
//! - payload is neither lost nor made: that of all packets together is that of the frame, in order.

use crate::input::Input;
use pasta_datapath::capture::packets::Resolver;
use pasta_datapath::capture::{Capture, Header};
use pasta_datapath::wire::vnet;
use std::io::{IoSlice, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Frames of one input: what fits the buffer of a socket.
const FRAMES: usize = 4;
/// Octets of the file's header and of a record's.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Reads `octets` as frames, each with its pieces.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let header = if input.bit() { Header::VirtioNet } else { Header::None };
    let Ok((writer, mut reader)) = UnixStream::pair() else { return };
    let mut capture = Capture::new(writer.into(), header);
    let mut packets = Vec::new();
    for _ in 0..FRAMES {
        let len = usize::from(input.u16() % 4096);
        let (whole, rest) = input.rest().split_at(len.min(input.rest().len()));
        input = Input::new(rest);
        let cut = usize::from(input.octet()).min(whole.len());
        let (first, second) = whole.split_at(cut);
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        let found = resolved(&pieces, header, whole);
        if packets.iter().chain(&found).map(|it: &Vec<u8>| it.len() + RECORD_HEADER).sum::<usize>()
            > 60_000
        {
            // More than fits the socket; it was looked at all the same.
            break;
        }
        capture.frame(&pieces, Duration::from_micros(u64::from(input.u32()) << 24));
        packets.extend(found);
        if input.is_empty() {
            break;
        }
    }
    capture.flush();
    assert_eq!(capture.take_failure(), None);
    drop(capture);
    let mut file = Vec::new();
    if reader.read_to_end(&mut file).is_ok() {
        check_file(&file, &packets);
    }
}

/// The packets of one frame, which are no more than it stands for.
fn resolved(pieces: &[IoSlice<'_>], header: Header, whole: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut resolver) = (Vec::new(), Resolver::default());
    resolver.resolve(pieces, header, |packet| packets.push(packet.to_vec()));
    let frame = match header {
        Header::VirtioNet => whole.get(vnet::LEN..).unwrap_or_default(),
        Header::None => whole,
    };
    assert!(!packets.is_empty(), "a frame without a record");
    assert!(packets.iter().all(|packet| packet.len() <= frame.len()));
    assert!(packets.len() <= frame.len().max(1), "{} packets", packets.len());
    if let [packet] = &packets[..] {
        assert_eq!(packet.len(), frame.len());
        return packets;
    }
    // Headers are of one length, the first packet's payload is the longest, and the parts add up.
    let total: usize = packets.iter().map(Vec::len).sum();
    let headers = (total - frame.len()) / (packets.len() - 1);
    assert_eq!(headers * (packets.len() - 1), total - frame.len(), "headers of several lengths");
    let payload: Vec<u8> = packets.iter().flat_map(|it| it[headers..].iter().copied()).collect();
    assert!(payload == frame[headers..], "another payload");
    packets
}

fn check_file(file: &[u8], packets: &[Vec<u8>]) {
    let word = |at: usize| -> usize {
        let octets: [u8; 4] = file[at..at + 4].try_into().unwrap_or_default();
        u32::from_ne_bytes(octets) as usize
    };
    assert_eq!((word(0), word(16), word(20)), (0xa1b2_c3d4, 65_535, 1));
    let mut at = FILE_HEADER;
    for packet in packets {
        assert!(word(at + 4) < 1_000_000, "no part of a second");
        let (kept, length) = (word(at + 8), word(at + 12));
        assert_eq!((kept, length), (packet.len().min(65_535), packet.len()));
        at += RECORD_HEADER;
        assert!(file[at..at + kept] == packet[..kept]);
        at += kept;
    }
    assert_eq!(at, file.len(), "octets behind the last record");
}
