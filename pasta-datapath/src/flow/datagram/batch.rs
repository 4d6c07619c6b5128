//! Several datagrams in one call, both ways. Only what is there already is gathered; nothing waits.
//!
//! To a socket, datagrams of equal size that were read in one batch leave in one call, cut by the kernel
//! (`UDP_SEGMENT`, [`Gso`]). From a socket, what the kernel has not joined itself (`UDP_GRO`) is joined here
//! ([`ReadBatch`]), for one super-frame or one call.

use super::{Datagram, DatagramSocket, MAX_GROUP, MAX_GROUP_OCTETS, NotSent, ReadDatagrams};
use crate::counters::DropReason;
use crate::flow::Next;
use crate::link::writer::{FrameDevice, FrameWriter, Path};
use crate::nat::Protocol;
use crate::part::{part, part_mut};
use crate::wire::ip::Handling;
use crate::wire::udp;
use nix::errno::Errno;
use pasta_ipc::types::Mtu;
use std::io::IoSlice;
use std::net::SocketAddr;

/// Whether groups of datagrams can be sent in one call on a path, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    cuts: bool,
}

impl Gso {
    /// Nothing is known yet; the kernel cuts UDP alone.
    pub fn new(protocol: Protocol) -> Self {
        Self { cuts: protocol == Protocol::Udp }
    }

    /// Sends `group` in order by `send`, which takes slices and, for several datagrams, their size; calls
    /// `failed` for each that did not leave.
    pub fn send(
        &mut self,
        group: &[Datagram<'_>],
        send: impl Fn(&[IoSlice<'_>], Option<u16>) -> Result<(), Errno>,
        mut failed: impl FnMut(&Datagram<'_>, NotSent),
    ) {
        let mut rest = group;
        while let Some((first, _)) = rest.split_first() {
            let count = if self.cuts { group_len(rest) } else { 1 };
            let (now_sent, later) = rest.split_at(count.clamp(1, rest.len()));
            rest = later;
            if now_sent.len() > 1 {
                let mut slices = [IoSlice::new(&[]); MAX_GROUP];
                slices.iter_mut().zip(now_sent).for_each(|(s, d)| *s = IoSlice::new(d.payload));
                let slices = part(&slices, ..now_sent.len());
                match send_again(slices, u16::try_from(first.payload.len()).ok(), &send) {
                    Ok(()) => continue,
                    // The path cannot cut: one by one, for good.
                    Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => self.cuts = false,
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
    match send_again(&[IoSlice::new(datagram.payload)], Some(size), send) {
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
    send_again(&[IoSlice::new(payload)], None, send).map_err(not_sent)
}

/// Sends, and once more where the error may be one that an earlier datagram earned: asking has cleared it, and the
/// socket's queue says more of it. Not what says that the socket is full, or that several cannot be cut.
fn send_again(
    slices: &[IoSlice<'_>],
    segment_size: Option<u16>,
    send: &impl Fn(&[IoSlice<'_>], Option<u16>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    match send(slices, segment_size) {
        full @ Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => full,
        uncut @ Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) if segment_size.is_some() => {
            uncut
        }
        Err(_) => send(slices, segment_size),
        Ok(()) => Ok(()),
    }
}

fn not_sent(errno: Errno) -> NotSent {
    match errno {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => NotSent::Dropped(DropReason::SocketFull),
        errno => NotSent::Refused(errno),
    }
}

/// Datagrams of one size and one origin `K` that were read one after the other to the front of a buffer, to be
/// handed on in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadBatch<K> {
    /// Whose they are; none while there are none.
    of: Option<K>,
    /// Size of the first, and of all but the last.
    size: usize,
    len: usize,
    count: usize,
    /// Datagrams larger than this are by themselves.
    most: usize,
    /// How they were carried, all alike.
    handling: Handling,
}

impl<K: Copy + PartialEq> ReadBatch<K> {
    /// Nothing is read; only datagrams of at most `most` octets are joined.
    pub fn new(most: usize) -> Self {
        let handling = Handling::TO_NAMESPACE;
        Self { of: None, size: 0, len: 0, count: 0, most, handling }
    }

    /// Where the next datagram is read: behind those that are there.
    pub fn free<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        part_mut(buffer, self.len..)
    }

    /// Takes in what was read behind the others. Hands those on if it cannot join them, and all if nothing can
    /// follow.
    pub fn add(
        &mut self,
        of: K,
        read: ReadDatagrams,
        buffer: &mut [u8],
        mut hand_on: impl FnMut(K, ReadDatagrams, &[u8]),
    ) {
        let too_large = read.len > self.most;
        let alone = read.segment_size.is_some() || read.truncated || read.len == 0 || too_large;
        let joins = !alone
            && self.of == Some(of)
            && self.handling == read.handling
            && read.len <= self.size
            && self.len + read.len <= MAX_GROUP_OCTETS;
        if !joins {
            let start = self.len;
            self.flush(buffer, &mut hand_on);
            if alone {
                return hand_on(of, read, part(buffer, start..start + read.len));
            }
            buffer.copy_within(start..start + read.len, 0);
            (self.of, self.size, self.handling) = (Some(of), read.len, read.handling);
        }
        self.len += read.len;
        self.count += 1;
        // Only the last one may be shorter; the next read has room for any datagram.
        let room = buffer.len() >= self.len + usize::from(u16::MAX);
        if read.len < self.size || self.count >= MAX_GROUP || !room {
            self.flush(buffer, hand_on);
        }
    }

    /// Hands on what is there.
    pub fn flush(&mut self, buffer: &[u8], hand_on: impl FnOnce(K, ReadDatagrams, &[u8])) {
        let Self { of, size, len, count, handling, .. } =
            std::mem::replace(self, Self::new(self.most));
        let Some(of) = of else { return };
        let segment_size = if count > 1 { u16::try_from(size).ok() } else { None };
        let read = ReadDatagrams { len, segment_size, truncated: false, handling };
        hand_on(of, read, part(buffer, ..len));
    }
}

/// What reading a socket came to.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Whether there may be more.
    pub next: Next,
    /// Reads that gave something of the peer's.
    pub datagrams: u64,
    /// Datagrams of others than the peer, which are gone.
    pub strangers: u64,
}

impl Drained {
    /// There was nothing to read.
    pub const NOTHING: Self = Self { next: Next::Wait, datagrams: 0, strangers: 0 };
}

/// Reads `socket` until it is empty, `reads` times at most, and hands on what comes, datagrams of one size and no
/// more than `most` octets together.
pub fn read_all<K: DatagramSocket>(
    (socket, peer): (&K, SocketAddr),
    reads: usize,
    most: usize,
    buffer: &mut [u8],
    mut hand_on: impl FnMut(ReadDatagrams, &[u8]),
) -> Drained {
    let mut batch = ReadBatch::new(most);
    let mut drained = Drained { next: Next::More, datagrams: 0, strangers: 0 };
    for _ in 0..reads {
        let read = match socket.receive(peer, batch.free(buffer)) {
            Ok(read) => read,
            Err(Errno::EAGAIN) => {
                drained.next = Next::Wait;
                break;
            }
            Err(Errno::EPROTO) => {
                drained.strangers += 1;
                continue;
            }
            // An error that an earlier datagram earned, or that was queued with more detail; reading has
            // cleared it.
            Err(_) => continue,
        };
        drained.datagrams += 1;
        batch.add((), read, buffer, |(), read, octets| hand_on(read, octets));
    }
    batch.flush(buffer, |(), read, octets| hand_on(read, octets));
    drained
}

/// Moves what was read from a host socket to the tap; what is larger than its MTU in fragments.
pub fn write_to_tap<D: FrameDevice>(
    tap: &mut FrameWriter<'_, D>,
    path: &mut Path,
    mtu: Mtu,
    read: ReadDatagrams,
    octets: &[u8],
) {
    let size = read.segment_size.map_or(octets.len(), usize::from);
    path.carry(read.handling);
    if read.truncated {
        tap.counters.drop(DropReason::TooLarge);
        return;
    }
    if size > largest_payload(path, mtu) {
        for piece in octets.chunks(size) {
            if piece.len() > largest_payload(path, mtu) {
                tap.write_large_udp(path, mtu, piece);
            } else {
                tap.write_udp(path, None, piece);
            }
        }
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
pub fn largest_payload(path: &Path, mtu: Mtu) -> usize {
    let headers = if path.source().is_ipv4() { 28 } else { 48 };
    usize::from(path.mtu(mtu)).saturating_sub(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(len: usize) -> ReadDatagrams {
        ReadDatagrams {
            len,
            segment_size: None,
            truncated: false,
            handling: Handling::TO_NAMESPACE,
        }
    }

    /// What is handed on of datagrams that are read one after the other, each of an origin.
    fn handed_on(most: usize, reads: &[(char, ReadDatagrams)]) -> Vec<(char, ReadDatagrams)> {
        let (mut batch, mut buffer) = (ReadBatch::new(most), vec![0; 200_000]);
        let mut handed = Vec::new();
        let mut sent = 0_u8;
        let mut got = 0_u8;
        let mut take = |of, read: ReadDatagrams, octets: &[u8]| {
            assert_eq!(octets.len(), read.len);
            for datagram in octets.chunks(read.segment_size.map_or(read.len.max(1), usize::from)) {
                assert!(datagram.iter().all(|octet| *octet == got), "out of order");
                got = got.wrapping_add(1);
            }
            got = got.wrapping_add(u8::from(octets.is_empty()));
            handed.push((of, read));
        };
        for (of, read) in reads {
            batch.free(&mut buffer)[..read.len].fill(sent);
            sent = sent.wrapping_add(1);
            batch.add(*of, *read, &mut buffer, &mut take);
        }
        batch.flush(&buffer, &mut take);
        handed
    }

    fn joined(len: usize, size: u16) -> ReadDatagrams {
        ReadDatagrams { segment_size: Some(size), ..datagram(len) }
    }

    #[test]
    fn datagrams_of_one_size_and_origin_join_and_a_shorter_one_is_the_last() {
        let reads = [100, 100, 99, 100].map(|len| ('a', datagram(len)));
        let expected = [('a', joined(299, 100)), ('a', datagram(100))];
        assert_eq!(handed_on(usize::MAX, &reads), expected);
    }

    #[test]
    fn others_larger_ones_and_empty_ones_do_not_join() {
        let reads = [('a', 100), ('b', 100), ('b', 101), ('b', 0), ('b', 100)]
            .map(|(of, len)| (of, datagram(len)));
        assert_eq!(handed_on(usize::MAX, &reads), reads);
    }

    #[test]
    fn datagrams_that_were_carried_otherwise_do_not_join() {
        let marked = ReadDatagrams {
            handling: Handling { traffic_class: 1, ..Handling::TO_NAMESPACE },
            ..datagram(100)
        };
        let reads = [('a', datagram(100)), ('a', marked), ('a', datagram(100))];
        assert_eq!(handed_on(usize::MAX, &reads), reads);
        let both = ReadDatagrams { handling: marked.handling, ..joined(200, 100) };
        assert_eq!(handed_on(usize::MAX, &[('a', marked); 2]), [('a', both)]);
    }

    #[test]
    fn what_is_too_large_is_handed_on_by_itself() {
        let reads = [('a', datagram(1500)), ('a', datagram(1500)), ('a', datagram(100))];
        assert_eq!(handed_on(1472, &reads), reads);
    }

    #[test]
    fn groups_are_bounded_in_number_and_octets() {
        for (len, most) in [(1, MAX_GROUP), (1400, MAX_GROUP_OCTETS / 1400)] {
            let handed = handed_on(usize::MAX, &vec![('a', datagram(len)); 2 * most]);
            assert_eq!(handed, [('a', joined(len * most, len as u16)); 2]);
        }
    }

    #[test]
    fn a_path_that_cannot_cut_gets_datagrams_one_by_one_for_good() {
        use std::cell::RefCell;
        let calls = RefCell::new(Vec::new());
        let send = |slices: &[IoSlice<'_>], size: Option<u16>| {
            calls.borrow_mut().push((slices.len(), size));
            if size.is_some() { Err(Errno::EIO) } else { Ok(()) }
        };
        let group = [Datagram { payload: &[7; 10], segment_size: None }; 3];
        let mut gso = Gso::new(Protocol::Udp);
        gso.send(&group, send, |_, _| panic!("sent"));
        gso.send(&group[..2], send, |_, _| panic!("sent"));
        let single = (1, None);
        assert_eq!(calls.into_inner(), [(3, Some(10)), single, single, single, single, single]);
    }

    #[test]
    fn error_of_an_earlier_datagram_does_not_lose_the_next() {
        use Errno::{ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, EPROTO};
        use std::cell::Cell;
        let several = Datagram { payload: &[7; 10], segment_size: Some(5) };
        let datagram = Datagram { segment_size: None, ..several };
        for errno in [ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, EPROTO] {
            let pending = Cell::new(true);
            let send = |_: &[IoSlice<'_>], _: Option<u16>| match pending.replace(false) {
                true => Err(errno),
                false => Ok(()),
            };
            assert_eq!(send_one(&datagram, &send), Ok(()), "{errno}");
            pending.set(true);
            assert_eq!(send_one(&several, &send), Ok(()), "{errno}");
            pending.set(true);
            let mut gso = Gso::new(Protocol::Udp);
            gso.send(&[datagram; 3], send, |_, why| panic!("{errno}: {why:?}"));
        }
        let full = |_: &[IoSlice<'_>], _: Option<u16>| Err(Errno::EAGAIN);
        assert_eq!(send_one(&datagram, &full), Err(NotSent::Dropped(DropReason::SocketFull)));
    }
}
