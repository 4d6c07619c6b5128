//! TCP headers (RFC 9293, section 3.1) and the options of a SYN that we act on.

use super::{Malformed, take_u16};
use crate::tcp::seq::Seq;

/// Length of the header that we write on segments without options.
pub const LEN: usize = 20;
/// Length of the options we write on a SYN: MSS, no-operation, window scale.
pub const SYN_OPTIONS_LEN: usize = 8;
/// Where the checksum is in the header.
pub const CHECKSUM_OFFSET: u16 = 16;

/// MSS of a peer that names none (RFC 9293, section 3.7.1), IPv4 and IPv6 alike for simplicity: the
/// smaller one is always safe.
pub const DEFAULT_MSS: u16 = 536;

/// Largest shift count of a window (RFC 7323, section 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Control bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(0x10);

    /// Flags from the octet on the wire.
    pub fn from_octet(octet: u8) -> Self {
        Self(octet)
    }

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A header, read; the options are those of a SYN and `None` elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number of the first octet, or of the SYN.
    pub seq: Seq,
    /// Next number expected from the other side; meaningful with [`Flags::ACK`].
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// Window as written, not scaled.
    pub window: u16,
    /// Largest segment the sender takes, from a SYN.
    pub mss: Option<u16>,
    /// Shift count of the sender's window, from a SYN; more than 14 counts as 14.
    pub window_scale: Option<u8>,
}

/// Splits a segment into header and payload.
///
/// # Errors
///
/// [`Malformed`] if header or options do not fit.
pub fn split(octets: &[u8]) -> Result<(Header, &[u8]), Malformed> {
    let (&[s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _], _) =
        octets.split_first_chunk::<LEN>().ok_or(Malformed)?;
    let header_len = usize::from(offset >> 4) * 4;
    let (header, payload) = octets.split_at_checked(header_len).ok_or(Malformed)?;
    let options = header.get(LEN..).ok_or(Malformed)?;
    let flags = Flags::from_octet(flags);
    let (mss, window_scale) =
        if flags.contains(Flags::SYN) { syn_options(options)? } else { (None, None) };
    let header = Header {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
        seq: Seq::from(u32::from_be_bytes([q0, q1, q2, q3])),
        ack: Seq::from(u32::from_be_bytes([a0, a1, a2, a3])),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        mss,
        window_scale,
    };
    Ok((header, payload))
}

/// Finds MSS and window scale (RFC 9293 section 3.2, RFC 7323 section 2.2).
fn syn_options(mut options: &[u8]) -> Result<(Option<u16>, Option<u8>), Malformed> {
    let (mut mss, mut scale) = (None, None);
    while let Some((&kind, rest)) = options.split_first() {
        if kind == 0 {
            break;
        }
        if kind == 1 {
            options = rest;
            continue;
        }
        let (&len, _) = rest.split_first().ok_or(Malformed)?;
        let (option, rest) = options.split_at_checked(usize::from(len)).ok_or(Malformed)?;
        match option {
            [2, 4, value @ ..] => mss = take_u16(value).map(|(mss, _)| mss),
            [3, 3, shift] => scale = Some((*shift).min(MAX_WINDOW_SCALE)),
            // Shorter than its own two octets: the next step would not advance.
            [] | [_] => return Err(Malformed),
            _ => {}
        }
        options = rest;
    }
    Ok((mss, scale))
}

/// A header to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToSend {
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// Window as written.
    pub window: u16,
    /// MSS and window scale, on a SYN.
    pub syn: Option<SynOptions>,
}

/// Options on a SYN of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    /// Largest segment we take.
    pub mss: u16,
    /// Our shift count; none if the peer offered none.
    pub window_scale: Option<u8>,
}

impl ToSend {
    /// Length of the header with its options.
    pub fn header_len(&self) -> usize {
        LEN + if self.syn.is_some() { SYN_OPTIONS_LEN } else { 0 }
    }

    /// Writes the header, with a checksum field of `checksum`, to the front of `octets`.
    pub fn write(&self, source: u16, destination: u16, checksum: u16, octets: &mut [u8]) {
        let len = self.header_len();
        let mut fixed = [0; LEN + SYN_OPTIONS_LEN];
        let (header, options) = fixed.split_at_mut(LEN);
        let [s0, s1] = source.to_be_bytes();
        let [d0, d1] = destination.to_be_bytes();
        let [q0, q1, q2, q3] = u32::from(self.seq).to_be_bytes();
        let [a0, a1, a2, a3] = u32::from(self.ack).to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        let [c0, c1] = checksum.to_be_bytes();
        let offset = if self.syn.is_some() { 0x70 } else { 0x50 };
        header.copy_from_slice(&[
            s0,
            s1,
            d0,
            d1,
            q0,
            q1,
            q2,
            q3,
            a0,
            a1,
            a2,
            a3,
            offset,
            self.flags.0,
            w0,
            w1,
            c0,
            c1,
            0,
            0,
        ]);
        if let Some(syn) = self.syn {
            let [m0, m1] = syn.mss.to_be_bytes();
            // Without a scale of the peer's, ours is left out: no-operation in its place.
            let scale = syn.window_scale.map_or([1, 1, 1], |shift| [3, 3, shift]);
            options.copy_from_slice(&[2, 4, m0, m1, 1, scale[0], scale[1], scale[2]]);
        }
        octets.iter_mut().zip(fixed.iter().take(len)).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(window_scale: Option<u8>) -> ToSend {
        ToSend {
            seq: Seq::from(7),
            ack: Seq::from(u32::MAX),
            flags: Flags::SYN.with(Flags::ACK),
            window: 65535,
            syn: Some(SynOptions { mss: 65480, window_scale }),
        }
    }

    #[test]
    fn header_reads_back_with_and_without_scale() {
        for scale in [Some(8), None] {
            let mut octets = [0xff; 40];
            syn(scale).write(80, 1024, 0x1234, &mut octets);
            let (read, payload) = split(&octets).unwrap();
            assert_eq!((read.source, read.destination), (80, 1024));
            assert_eq!((read.seq, read.ack), (Seq::from(7), Seq::from(u32::MAX)));
            assert_eq!((read.mss, read.window_scale), (Some(65480), scale));
            assert_eq!(read.window, 65535);
            assert_eq!(payload.len(), 12);
        }
    }

    #[test]
    fn options_outside_a_syn_are_not_read() {
        let mut octets = [0; 28];
        let mut written = syn(Some(3));
        written.flags = Flags::ACK;
        written.write(1, 2, 0, &mut octets);
        let (read, _) = split(&octets).unwrap();
        assert_eq!((read.mss, read.window_scale), (None, None));
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        for options in [[2, 9, 0, 0], [9, 1, 0, 0], [9, 0, 0, 0], [1, 1, 1, 2]] {
            let mut octets = [0; 24];
            octets[12] = 0x60;
            octets[13] = 2;
            octets[20..].copy_from_slice(&options);
            assert_eq!(split(&octets), Err(Malformed), "{options:?}");
        }
        let mut octets = [0; 20];
        octets[12] = 0x60;
        assert_eq!(split(&octets), Err(Malformed));
        octets[12] = 0x40;
        assert_eq!(split(&octets), Err(Malformed));
    }

    #[test]
    fn shift_count_beyond_fourteen_counts_as_fourteen() {
        let mut octets = [0; 24];
        (octets[12], octets[13]) = (0x60, 2);
        octets[20..].copy_from_slice(&[3, 3, 200, 0]);
        assert_eq!(split(&octets).unwrap().0.window_scale, Some(14));
    }
}
