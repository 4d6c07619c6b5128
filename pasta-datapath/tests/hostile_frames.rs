//! Frames that no decent kernel sends, through classification: the fuzz target's kept inputs, and good
//! frames with bits turned over, ends cut off, and lengths and virtio-net headers that lie.

#![expect(unreachable_pub, reason = "files of the fuzz crate, whose public items these are there")]

#[path = "../../fuzz/src/frames.rs"]
mod frames;
#[path = "../../fuzz/src/ethernet_frame.rs"]
mod invariants;

use pasta_datapath::link::classify::{Framing, classify};
use pasta_datapath::wire::checksum::{Sum, pseudo_header};
use pasta_datapath::wire::ip::{parse_ipv4, parse_ipv6};
use pasta_datapath::wire::{ethernet, vnet};
use std::path::Path;

const SEED: u64 = 0x7061_7374_6121;
const MUTATED: usize = 200_000;

/// Where the network header begins.
const NETWORK: usize = vnet::LEN + ethernet::LEN;

/// xorshift64: small, fixed, good enough to choose octets.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A number that checks like to get wrong, or any.
    fn lie(&mut self) -> u16 {
        let any = self.next() as u16;
        [0, 1, 7, 8, 19, 20, 0x7fff, 0xffff, any, any & 0xff][self.below(10)]
    }
}

#[test]
fn corpus_of_the_fuzz_target_holds_all_invariants() {
    let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/ethernet_frame"));
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        invariants::check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}

#[test]
fn good_frames_are_understood() {
    for (name, octets) in frames::good() {
        let classified = classify(&octets, Framing::Vnet);
        assert!(classified.is_ok(), "{name}: {classified:?}");
    }
}

#[test]
fn mutated_frames_hold_all_invariants() {
    println!("seed {SEED:#x}");
    let good = frames::good();
    let mut random = Random(SEED);
    let mut understood = 0;
    for _ in 0..MUTATED {
        let (_, octets) = &good[random.below(good.len())];
        let mut octets = octets.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut random, &mut octets);
        }
        invariants::check(&octets);
        understood += usize::from(classify(&octets, Framing::Vnet).is_ok());
    }
    // Neither all good nor all bad: the mutations reach both sides of the checks.
    println!("{understood} of {MUTATED} were understood");
    assert!((MUTATED / 20..MUTATED / 20 * 19).contains(&understood), "{understood}");
}

fn mutate(random: &mut Random, octets: &mut Vec<u8>) {
    match random.below(9) {
        0 => {
            let at = random.below(octets.len());
            if let Some(octet) = octets.get_mut(at) {
                *octet ^= 1 << random.below(8);
            }
        }
        1 => octets.truncate(random.below(octets.len() + 1)),
        2 => octets.extend((0..random.below(16)).map(|n| n as u8)),
        // Lengths: IPv4's total, its header's, IPv6's payload, and whatever else is there.
        3 => put(octets, NETWORK + 2, random.lie().to_be_bytes()),
        4 => put(octets, NETWORK, [0x40 | random.below(16) as u8]),
        5 => put(octets, NETWORK + 4, random.lie().to_be_bytes()),
        6 => put(octets, NETWORK + random.below(60), random.lie().to_be_bytes()),
        7 => lie_in_virtio_net_header(random, octets),
        _ => finish_checksums(octets),
    }
}

fn put<const N: usize>(octets: &mut [u8], at: usize, value: [u8; N]) {
    octets.iter_mut().skip(at).zip(value).for_each(|(octet, value)| *octet = value);
}

fn lie_in_virtio_net_header(random: &mut Random, octets: &mut [u8]) {
    let flags = random.below(4) as u8;
    let kind = [0, 1, 3, 4, 5, 0x81, 0x85, 0xff][random.below(8)];
    put(octets, 0, [flags, kind]);
    for field in [2, 4, 6, 8] {
        put(octets, field, random.lie().to_ne_bytes());
    }
}

/// Makes good what an earlier mutation broke, so that it is not a checksum that stops the next stage:
/// that of the IPv4 header, then that of the transport.
fn finish_checksums(octets: &mut [u8]) {
    let Some(network) = octets.get_mut(NETWORK..) else { return };
    if network.first().is_some_and(|first| first >> 4 == 4) {
        let len = usize::from(network[0] & 0x0f) * 4;
        put(network, 10, [0, 0]);
        let sum = network.get(..len).map_or(0, |header| Sum::default().octets(header).checksum());
        put(network, 10, sum.to_be_bytes());
    }
    let network = &*network;
    let Ok(packet) = parse_ipv4(network).or_else(|_| parse_ipv6(network)) else { return };
    let (at, has_pseudo_header) = match packet.protocol {
        6 => (16, true),
        17 => (6, true),
        58 => (2, true),
        1 => (2, false),
        _ => return,
    };
    let start = NETWORK + packet.payload.as_ptr().addr() - network.as_ptr().addr();
    let transport = start..start + packet.payload.len();
    let len = packet.payload.len() as u16;
    let pseudo = if has_pseudo_header {
        pseudo_header(packet.source, packet.destination, packet.protocol, len)
    } else {
        Sum::default()
    };
    let transport = &mut octets[transport];
    put(transport, at, [0, 0]);
    let checksum = pseudo.octets(transport).checksum();
    put(transport, at, checksum.to_be_bytes());
}
