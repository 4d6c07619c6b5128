//! The capture file (`-p`): every frame of the tap in the classic pcap format
//! (draft-ietf-opsawg-pcap, section 4).
//!
//! The launcher opens the file; this process can only append to it. What the kernel is to do with a
//! frame, or has yet to do, is resolved first ([`packets`]): a super-frame becomes the packets it stands
//! for, and checksums are complete. So programs that read captures see what a wire would carry.
//!
//! A file that cannot be written (full disk, a limit on file sizes) ends the capture, with one line for
//! the log: a record that was cut short must stay the last one.

pub mod packets;

use crate::part::part;
use nix::errno::Errno;
use nix::unistd::write;
use packets::Resolver;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Written when so many octets are waiting. Chosen: a super-frame and more.
const FLUSH_AT: usize = 128 * 1024;

/// Most octets of a packet that are kept; the largest frame is shorter.
const SNAPLEN: u32 = 65_535;

/// The link type `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

/// The header of the file: magic number for microseconds, version 2.4, time zone and accuracy of 0.
/// Octets are in the order of the machine, by which readers know it.
fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    let (magic, rest) = header.split_at_mut(4);
    magic.copy_from_slice(&0xa1b2_c3d4_u32.to_ne_bytes());
    let (version, rest) = rest.split_at_mut(4);
    let (major, minor) = version.split_at_mut(2);
    major.copy_from_slice(&2_u16.to_ne_bytes());
    minor.copy_from_slice(&4_u16.to_ne_bytes());
    let (snaplen, link) = rest.split_at_mut(8).1.split_at_mut(4);
    snaplen.copy_from_slice(&SNAPLEN.to_ne_bytes());
    link.copy_from_slice(&ETHERNET.to_ne_bytes());
    header
}

/// Whether frames have a virtio-net header in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// They have.
    VirtioNet,
    /// They are bare.
    None,
}

/// The capture file.
#[derive(Debug)]
pub struct Capture {
    /// None after an error.
    file: Option<OwnedFd>,
    header: Header,
    resolver: Resolver,
    waiting: Vec<u8>,
    failure: Option<Errno>,
}

impl Capture {
    /// Begins a capture in `file`, which is empty.
    pub fn new(file: OwnedFd, header: Header) -> Self {
        let mut waiting = Vec::with_capacity(2 * FLUSH_AT);
        waiting.extend_from_slice(&file_header());
        Self { file: Some(file), header, resolver: Resolver::default(), waiting, failure: None }
    }

    /// Appends a frame as it was read or written, in pieces, at the time `now` since 1970.
    pub fn frame(&mut self, pieces: &[IoSlice<'_>], now: Duration) {
        if self.file.is_none() {
            return;
        }
        let waiting = &mut self.waiting;
        self.resolver.resolve(pieces, self.header, |packet| record(waiting, packet, now));
        if self.waiting.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Writes what is waiting.
    pub fn flush(&mut self) {
        let Some(file) = &self.file else { return };
        let mut rest = self.waiting.as_slice();
        while !rest.is_empty() {
            match write(file, rest) {
                Ok(count @ 1..) => rest = part(rest, count..),
                Ok(0) | Err(Errno::EAGAIN) => self.failure = Some(Errno::ENOSPC),
                Err(Errno::EINTR) => {}
                Err(errno) => self.failure = Some(errno),
            }
            if self.failure.is_some() {
                self.file = None;
                break;
            }
        }
        self.waiting.clear();
    }

    /// Why the capture has ended, once.
    pub fn take_failure(&mut self) -> Option<Errno> {
        self.failure.take()
    }
}

/// Appends the record of one packet.
fn record(out: &mut Vec<u8>, packet: &[u8], now: Duration) {
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let kept = length.min(SNAPLEN);
    // The field has 32 bits, which wrap in 2106.
    let seconds = (now.as_secs() & u64::from(u32::MAX)) as u32;
    for word in [seconds, now.subsec_micros(), kept, length] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(packet.get(..kept as usize).unwrap_or(packet));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{Read, Seek};

    fn word(octets: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn file_has_its_header_and_a_record_for_each_frame() {
        let path = std::env::temp_dir().join(format!("pasta-capture-{}", std::process::id()));
        let mut file = fs::File::create_new(&path).unwrap();
        let mut reader = fs::File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut capture = Capture::new(file.try_clone().unwrap().into(), Header::None);
        let now = Duration::new(1_700_000_000, 123_456_789);
        capture.frame(&[IoSlice::new(&[1; 60]), IoSlice::new(&[2; 4])], now);
        capture.frame(&[IoSlice::new(&[3; 42])], now);
        capture.flush();
        assert_eq!(capture.take_failure(), None);
        file.rewind().unwrap();
        let mut octets = Vec::new();
        reader.read_to_end(&mut octets).unwrap();
        assert_eq!(
            (word(&octets, 0), word(&octets, 16), word(&octets, 20)),
            (0xa1b2_c3d4, 65_535, 1)
        );
        assert_eq!((word(&octets, 24), word(&octets, 28)), (1_700_000_000, 123_456));
        assert_eq!((word(&octets, 32), word(&octets, 36)), (64, 64));
        assert_eq!(octets[40..104], [[1; 60].as_slice(), &[2; 4]].concat());
        assert_eq!(word(&octets, 104 + 8), 42);
        assert_eq!(octets.len(), 104 + 16 + 42);
    }

    #[test]
    fn full_disk_ends_the_capture_and_is_reported_once() {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut capture = Capture::new(full.into(), Header::None);
        capture.frame(&[IoSlice::new(&[1; 60])], Duration::ZERO);
        capture.flush();
        assert_eq!(capture.take_failure(), Some(Errno::ENOSPC));
        for _ in 0..10_000 {
            capture.frame(&[IoSlice::new(&[1; 60])], Duration::ZERO);
        }
        capture.flush();
        assert_eq!(capture.take_failure(), None);
        assert!(capture.waiting.is_empty());
    }
}
