//! TCP headers (RFC 9293, section 3.1) and the options of a SYN that we act on.

use super::{Malformed, take_u16};
use crate::part::part;
use crate::wire::seq::Seq;
use crate::wire::window::{Mss, WindowScale, WireWindow};

/// Length of the header that we write on segments without options.
pub const LEN: usize = 20;
/// Length of the options we write on a SYN: MSS, SACK permitted, no-operation, window scale, padding.
pub const SYN_OPTIONS_LEN: usize = 12;
/// Most blocks of a SACK option: what fits beside nothing else (RFC 2018, section 3).
pub const MAX_SACK_BLOCKS: usize = 4;
/// Length of the longest options we write.
pub const MAX_OPTIONS_LEN: usize = 4 + 8 * MAX_SACK_BLOCKS;
/// Where the checksum is in the header.
pub const CHECKSUM_OFFSET: u16 = 16;

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
    pub window: WireWindow,
    /// Largest segment the sender takes, from a SYN.
    pub mss: Option<Mss>,
    /// Shift count of the sender's window, from a SYN.
    pub window_scale: Option<WindowScale>,
    /// Whether the sender understands SACK, from a SYN.
    pub sack_permitted: bool,
}

impl Header {
    /// Whether this is a SYN that asks for a connection.
    pub fn is_opening(&self) -> bool {
        let has = |flags| self.flags.contains(flags);
        has(Flags::SYN) && !has(Flags::ACK) && !has(Flags::RST)
    }
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
    let options = if flags.contains(Flags::SYN) { options } else { &[] };
    let (mss, window_scale, sack_permitted) = syn_options(options)?;
    let header = Header {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
        seq: Seq::from(u32::from_be_bytes([q0, q1, q2, q3])),
        ack: Seq::from(u32::from_be_bytes([a0, a1, a2, a3])),
        flags,
        window: WireWindow::from(u16::from_be_bytes([w0, w1])),
        mss,
        window_scale,
        sack_permitted,
    };
    Ok((header, payload))
}

/// Finds MSS, window scale and SACK permitted (RFC 9293 section 3.2, RFC 7323 section 2.2, RFC 2018
/// section 2).
fn syn_options(mut options: &[u8]) -> Result<(Option<Mss>, Option<WindowScale>, bool), Malformed> {
    let (mut mss, mut scale, mut sack) = (None, None, false);
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
            [2, 4, value @ ..] => mss = take_u16(value).map(|(mss, _)| Mss::new(mss)),
            [3, 3, shift] => scale = Some(WindowScale::new(*shift)),
            [4, 2] => sack = true,
            // Shorter than its own two octets: the next step would not advance.
            [] | [_] => return Err(Malformed),
            _ => {}
        }
        options = rest;
    }
    Ok((mss, scale, sack))
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
    pub window: WireWindow,
    /// Options of a SYN.
    pub syn: Option<SynOptions>,
    /// SACK and D-SACK blocks; not on a SYN.
    pub sack: SackBlocks,
}

/// Blocks of a SACK option, left and right edge: octets received out of order, or a duplicate (D-SACK).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); MAX_SACK_BLOCKS],
    count: usize,
}

impl SackBlocks {
    /// No block.
    pub const NONE: Self =
        Self { blocks: [(Seq::const_from(0), Seq::const_from(0)); MAX_SACK_BLOCKS], count: 0 };

    /// Adds a block; more than [`MAX_SACK_BLOCKS`] are left out.
    pub fn push(&mut self, from: Seq, to: Seq) {
        if let Some(slot) = self.blocks.get_mut(self.count) {
            *slot = (from, to);
            self.count += 1;
        }
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        part(&self.blocks, ..self.count)
    }

    /// Length of the option with padding in front; zero without a block.
    fn len(&self) -> usize {
        if self.count == 0 { 0 } else { 4 + 8 * self.count }
    }
}

/// Options on a SYN of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    /// Largest segment we take.
    pub mss: Mss,
    /// Our shift count; none if the peer offered none.
    pub window_scale: Option<WindowScale>,
    /// Whether we say that we understand SACK.
    pub sack_permitted: bool,
}

impl ToSend {
    /// Length of the header with its options.
    pub fn header_len(&self) -> usize {
        LEN + if self.syn.is_some() { SYN_OPTIONS_LEN } else { self.sack.len() }
    }

    /// Writes the header, with a checksum field of `checksum`, to the front of `octets`.
    pub fn write(&self, source: u16, destination: u16, checksum: u16, octets: &mut [u8]) {
        let len = self.header_len();
        let mut all = [0; LEN + MAX_OPTIONS_LEN];
        let (header, options) = all.split_at_mut(LEN);
        let [s0, s1] = source.to_be_bytes();
        let [d0, d1] = destination.to_be_bytes();
        let [q0, q1, q2, q3] = u32::from(self.seq).to_be_bytes();
        let [a0, a1, a2, a3] = u32::from(self.ack).to_be_bytes();
        let [w0, w1] = u16::from(self.window).to_be_bytes();
        let [c0, c1] = checksum.to_be_bytes();
        // In words of four octets; at most 14.
        let offset = ((len / 4) as u8) << 4;
        let flags = self.flags.0;
        let fixed: [u8; LEN] =
            [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, c0, c1, 0, 0];
        header.copy_from_slice(&fixed);
        if let Some(syn) = self.syn {
            let [m0, m1] = syn.mss.get().to_be_bytes();
            // What the peer did not offer is left out: no-operations in its place.
            let [k0, k1] = if syn.sack_permitted { [4, 2] } else { [1, 1] };
            let [x0, x1, x2] = syn.window_scale.map_or([1, 1, 1], |scale| [3, 3, scale.shift()]);
            let written = [2, 4, m0, m1, k0, k1, 1, x0, x1, x2, 1, 1];
            options.iter_mut().zip(written).for_each(|(to, from)| *to = from);
        } else if self.sack.count > 0 {
            let head = [1, 1, 5, (self.sack.len() - 2) as u8];
            let numbers = self.sack.as_slice().iter().flat_map(|(from, to)| [*from, *to]);
            let numbers = numbers.flat_map(|seq| u32::from(seq).to_be_bytes());
            options
                .iter_mut()
                .zip(head.into_iter().chain(numbers))
                .for_each(|(to, from)| *to = from);
        }
        octets.iter_mut().zip(all.iter().take(len)).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(window_scale: Option<WindowScale>) -> ToSend {
        ToSend {
            seq: Seq::from(7),
            ack: Seq::from(u32::MAX),
            flags: Flags::SYN.with(Flags::ACK),
            window: WireWindow::MAX,
            syn: Some(SynOptions { mss: Mss::new(65480), window_scale, sack_permitted: true }),
            sack: SackBlocks::default(),
        }
    }

    #[test]
    fn header_reads_back_with_and_without_scale() {
        for scale in [Some(WindowScale::new(8)), None] {
            let mut octets = [0xff; 40];
            syn(scale).write(80, 1024, 0x1234, &mut octets);
            let (read, payload) = split(&octets).unwrap();
            assert_eq!((read.source, read.destination), (80, 1024));
            assert_eq!((read.seq, read.ack), (Seq::from(7), Seq::from(u32::MAX)));
            assert_eq!((read.mss, read.window_scale), (Some(Mss::new(65480)), scale));
            assert_eq!(read.window, WireWindow::MAX);
            assert!(read.sack_permitted);
            assert_eq!(payload.len(), 8);
        }
    }

    #[test]
    fn options_outside_a_syn_are_not_read() {
        let mut octets = [0; 32];
        let mut written = syn(Some(WindowScale::new(3)));
        written.flags = Flags::ACK;
        written.write(1, 2, 0, &mut octets);
        let (read, _) = split(&octets).unwrap();
        assert_eq!((read.mss, read.window_scale), (None, None));
    }

    #[test]
    fn blocks_are_written_as_the_rfc_draws_them() {
        let mut written = ToSend { flags: Flags::ACK, syn: None, ..syn(None) };
        written.sack.push(Seq::from(0x0102_0304), Seq::from(0x0506_0708));
        written.sack.push(Seq::from(9), Seq::from(10));
        let mut octets = [0xff; 60];
        written.write(80, 1024, 0, &mut octets);
        assert_eq!(written.header_len(), 40);
        assert_eq!(octets[12], 0xa0);
        let option = [1, 1, 5, 18, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 10];
        assert_eq!(octets[20..40], option);
        for n in 0..5 {
            written.sack.push(Seq::from(n), Seq::from(n + 1));
        }
        assert_eq!(written.sack.as_slice().len(), MAX_SACK_BLOCKS);
        written.write(80, 1024, 0, &mut octets);
        assert_eq!((octets[12] >> 4) as usize * 4, LEN + MAX_OPTIONS_LEN);
        assert!(split(&octets).is_ok());
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
        assert_eq!(split(&octets).unwrap().0.window_scale, Some(WindowScale::MAX));
    }
}
