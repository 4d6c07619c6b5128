//! Several datagrams in one call, both ways.

use super::{Datagram, MAX_GROUP, MAX_GROUP_OCTETS, NotSent};
use crate::counters::DropReason;
use crate::link::writer::{FrameWriter, Path};
use crate::sys::socket::ReadDatagrams;
use crate::sys::tap::Tap;
use crate::wire::udp;
use nix::errno::Errno;
use pasta_ipc::types::Mtu;
use std::cell::Cell;
use std::io::IoSlice;

/// Sends `group` in order by `send`, which takes slices and, for several datagrams, their size; calls
/// `failed` for each that did not leave. `groups` says whether the path can cut groups, as far as known.
pub fn send(
    groups: &Cell<bool>,
    group: &[Datagram<'_>],
    send: impl Fn(&[IoSlice<'_>], Option<u16>) -> Result<(), Errno>,
    mut failed: impl FnMut(&Datagram<'_>, NotSent),
) {
    let mut rest = group;
    while let Some((first, _)) = rest.split_first() {
        let count = if groups.get() { group_len(rest) } else { 1 };
        let (now_sent, later) = rest.split_at(count.clamp(1, rest.len()));
        rest = later;
        if now_sent.len() > 1 {
            let mut slices = [IoSlice::new(&[]); MAX_GROUP];
            slices.iter_mut().zip(now_sent).for_each(|(s, d)| *s = IoSlice::new(d.payload));
            let slices = slices.get(..now_sent.len()).unwrap_or_default();
            match send(slices, u16::try_from(first.payload.len()).ok()) {
                Ok(()) => continue,
                // The path cannot cut: one by one, for good.
                Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => groups.set(false),
                Err(_) => {}
            }
        }
        for datagram in now_sent {
            if let Err(why) = send_one(datagram, &send) {
                failed(datagram, why);
            }
        }
    }
}

/// How many datagrams at the front of `rest` can leave in one call.
fn group_len(rest: &[Datagram<'_>]) -> usize {
    let Some((first, others)) = rest.split_first() else { return 0 };
    let size = first.payload.len();
    if first.segment_size.is_some() || size == 0 {
        return 1;
    }
    let (mut count, mut octets) = (1, size);
    for datagram in others.iter().take(MAX_GROUP - 1) {
        let len = datagram.payload.len();
        let fits = len > 0 && len <= size && octets + len <= MAX_GROUP_OCTETS;
        if !fits || datagram.segment_size.is_some() {
            break;
        }
        count += 1;
        octets += len;
        // Only the last one may be shorter.
        if len < size {
            break;
        }
    }
    count
}

/// Sends one datagram, or what the kernel left in one.
///
/// # Errors
///
/// [`NotSent`].
pub fn send_one(
    datagram: &Datagram<'_>,
    send: &impl Fn(&[IoSlice<'_>], Option<u16>) -> Result<(), Errno>,
) -> Result<(), NotSent> {
    let Some(size) = datagram.segment_size else { return send_plain(datagram.payload, send) };
    match send(&[IoSlice::new(datagram.payload)], Some(size)) {
        Ok(()) => Ok(()),
        Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => {
            let mut pieces = datagram.payload.chunks(usize::from(size).max(1));
            pieces.try_for_each(|piece| send_plain(piece, send))
        }
        Err(errno) => Err(not_sent(errno)),
    }
}

fn send_plain(
    payload: &[u8],
    send: &impl Fn(&[IoSlice<'_>], Option<u16>) -> Result<(), Errno>,
) -> Result<(), NotSent> {
    let slices = [IoSlice::new(payload)];
    match send(&slices, None) {
        // An error that an earlier datagram earned; asking has cleared it.
        Err(Errno::ECONNREFUSED) => send(&slices, None),
        other => other,
    }
    .map_err(not_sent)
}

fn not_sent(errno: Errno) -> NotSent {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => NotSent::Dropped(DropReason::SocketFull),
        errno => NotSent::Refused(errno),
    }
}

/// Datagrams of one size that were read one after the other to the front of a buffer, to become one
/// frame. Only what is there already is gathered; nothing waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroBatch {
    len: usize,
    count: usize,
    /// Size of the first, and of all but the last.
    size: usize,
}

impl GroBatch {
    /// Octets gathered so far; the next datagram is read behind them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether another datagram may join, and any fits behind in `buffer`.
    pub fn has_room(&self, buffer: &[u8]) -> bool {
        self.count < MAX_GROUP && buffer.len() >= self.len + usize::from(u16::MAX)
    }

    /// Takes in what was `read` behind the others in `buffer`. Writes those to the tap first if it cannot
    /// join them, and all of them if nothing can join it.
    pub fn add(
        &mut self,
        read: ReadDatagrams,
        tap: &mut FrameWriter<'_, Tap>,
        path: &Path,
        mtu: Mtu,
        buffer: &mut [u8],
    ) {
        let too_large = read.len > largest_payload(path, mtu);
        let alone = read.segment_size.is_some() || read.truncated || read.len == 0 || too_large;
        let joins = !alone && read.len <= self.size && self.len + read.len <= MAX_GROUP_OCTETS;
        if !joins {
            let start = self.len;
            self.write(tap, path, mtu, buffer);
            if alone {
                let octets = buffer.get(start..start + read.len).unwrap_or_default();
                return write_to_tap(tap, path, mtu, read, octets);
            }
            buffer.copy_within(start..start + read.len, 0);
            self.size = read.len;
        }
        self.len += read.len;
        self.count += 1;
        // Only the last one may be shorter.
        if read.len < self.size {
            self.write(tap, path, mtu, buffer);
        }
    }

    /// Writes what is gathered in `buffer` to the tap.
    pub fn write(&mut self, tap: &mut FrameWriter<'_, Tap>, path: &Path, mtu: Mtu, buffer: &[u8]) {
        let Self { len, count, size } = std::mem::take(self);
        if count == 0 {
            return;
        }
        let segment_size = if count > 1 { u16::try_from(size).ok() } else { None };
        let read = ReadDatagrams { len, segment_size, truncated: false };
        write_to_tap(tap, path, mtu, read, buffer.get(..len).unwrap_or_default());
    }
}

/// Datagrams of one size and one origin `K` at the front of a buffer, to be sent on in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalesced<K> {
    /// Whose they are.
    pub of: K,
    size: usize,
    len: usize,
    count: usize,
}

impl<K: Copy + PartialEq> Coalesced<K> {
    /// The first one; none if nothing can join it: it is several already, empty, or cut short.
    pub fn first(of: K, read: ReadDatagrams) -> Option<Self> {
        let alone = read.segment_size.is_some() || read.truncated || read.len == 0;
        (!alone).then_some(Self { of, size: read.len, len: read.len, count: 1 })
    }

    /// Octets so far; the next datagram is read behind them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes in what was read behind the others, if it fits them.
    pub fn join(&mut self, of: K, read: ReadDatagrams) -> bool {
        let joins = of == self.of
            && !self.is_complete()
            && Self::first(of, read).is_some()
            && read.len <= self.size
            && self.len + read.len <= MAX_GROUP_OCTETS;
        if joins {
            self.len += read.len;
            self.count += 1;
        }
        joins
    }

    /// Whether no other can follow: there are as many as may be, or the last one is shorter.
    pub fn is_complete(&self) -> bool {
        self.count >= MAX_GROUP || self.len < self.size * self.count
    }

    /// All of them as one.
    pub fn read(&self) -> ReadDatagrams {
        let segment_size = if self.count > 1 { u16::try_from(self.size).ok() } else { None };
        ReadDatagrams { len: self.len, segment_size, truncated: false }
    }
}

/// Moves what was read from a host socket to the tap; larger than it carries is a counted drop.
pub fn write_to_tap(
    tap: &mut FrameWriter<'_, Tap>,
    path: &Path,
    mtu: Mtu,
    read: ReadDatagrams,
    octets: &[u8],
) {
    let size = read.segment_size.map_or(octets.len(), usize::from);
    if size > largest_payload(path, mtu) || read.truncated {
        tap.counters.drop(DropReason::TooLarge);
        return;
    }
    match read.segment_size {
        Some(size) if !tap.segments_udp() => {
            for piece in octets.chunks(usize::from(size).max(1)) {
                tap.write_udp(path, None, piece);
            }
        }
        // The kernel cuts up to what one packet can hold.
        Some(size) => {
            let max = path.max_transport() - udp::LEN;
            let whole = max - max % usize::from(size);
            for piece in octets.chunks(whole.max(1)) {
                let several = piece.len() > usize::from(size);
                tap.write_udp(path, several.then_some(size), piece);
            }
        }
        None => {
            tap.write_udp(path, None, octets);
        }
    }
}

/// Most octets of a datagram that fit a packet of the tap.
fn largest_payload(path: &Path, mtu: Mtu) -> usize {
    let headers = if path.source().is_ipv4() { 28 } else { 48 };
    usize::from(mtu.get()).saturating_sub(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(len: usize) -> ReadDatagrams {
        ReadDatagrams { len, segment_size: None, truncated: false }
    }

    #[test]
    fn datagrams_of_one_size_and_origin_join_and_a_shorter_one_is_the_last() {
        let mut joined = Coalesced::first('a', datagram(100)).unwrap();
        assert_eq!(joined.read(), datagram(100));
        assert!(!joined.join('b', datagram(100)), "another origin");
        assert!(!joined.join('a', datagram(101)), "larger");
        assert!(!joined.join('a', datagram(0)), "empty");
        assert!(joined.join('a', datagram(100)) && !joined.is_complete());
        assert!(joined.join('a', datagram(99)) && joined.is_complete());
        assert!(!joined.join('a', datagram(99)));
        let all = ReadDatagrams { len: 299, segment_size: Some(100), truncated: false };
        assert_eq!(joined.read(), all);
        assert_eq!(Coalesced::first('a', all), None);
    }

    #[test]
    fn groups_are_bounded_in_number_and_octets() {
        let mut small = Coalesced::first((), datagram(1)).unwrap();
        let mut large = Coalesced::first((), datagram(1400)).unwrap();
        let (mut smalls, mut larges) = (1, 1);
        while small.join((), datagram(1)) {
            smalls += 1;
        }
        while large.join((), datagram(1400)) {
            larges += 1;
        }
        assert_eq!((smalls, larges), (MAX_GROUP, MAX_GROUP_OCTETS / 1400));
    }
}
