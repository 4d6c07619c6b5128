//! TCP headers and the options of a SYN, against a second reading of RFC 9293.

use crate::input::Input;
use pasta_datapath::wire::Malformed;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{
    Flags, LEN, MAX_OPTIONS_LEN, SYN_OPTIONS_LEN, SackBlocks, SynOptions, ToSend, split,
};
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};

/// Reads `octets` as a segment, then as the fields of a header to write and read back.
///
/// # Panics
///
/// If options are read otherwise than by [`options`], or a header does not read back.
pub fn check(octets: &[u8]) {
    let header_len = octets.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let is_syn = octets.get(13).is_some_and(|flags| flags & 2 != 0);
    let in_header = octets.get(LEN..header_len);
    let expected = match in_header.ok_or(Malformed) {
        Ok(read) if is_syn => options(read),
        other => other.map(|_| (None, None, false)),
    };
    let read = split(octets);
    let options = |header: pasta_datapath::wire::tcp::Header| {
        (header.mss, header.window_scale, header.sack_permitted)
    };
    assert_eq!(read.map(|(header, _)| options(header)), expected);
    if let Ok((header, payload)) = read {
        assert_eq!(octets.get(header_len..), Some(payload));
        assert!(header.window_scale.is_none_or(|scale| scale <= WindowScale::MAX));
    }
    check_written(Input::new(octets));
}

/// MSS, shift count, and whether SACK is permitted; the last of each counts.
fn options(octets: &[u8]) -> Result<(Option<Mss>, Option<WindowScale>, bool), Malformed> {
    let (mut mss, mut shift, mut sack) = (None, None, false);
    let mut at = 0;
    while let Some(&kind) = octets.get(at) {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => match octets.get(at + 1) {
                Some(&len) if len >= 2 && at + usize::from(len) <= octets.len() => usize::from(len),
                _ => return Err(Malformed),
            },
        };
        match octets.get(at..at + len) {
            Some(&[2, _, high, low]) => mss = Some(Mss::new(u16::from_be_bytes([high, low]))),
            Some(&[3, _, count]) => shift = Some(WindowScale::new(count.min(14))),
            Some(&[4, _]) => sack = true,
            _ => {}
        }
        at += len;
    }
    Ok((mss, shift, sack))
}

fn check_written(mut input: Input<'_>) {
    let is_syn = input.bit();
    let scales = input.bit();
    let window_scale = scales.then(|| WindowScale::new(input.octet() % 15));
    let flags = if is_syn { Flags::SYN.with(Flags::ACK) } else { Flags::ACK };
    let mut sack = SackBlocks::default();
    for _ in 0..if is_syn { 0 } else { input.octet() % 6 } {
        sack.push(Seq::from(input.u32()), Seq::from(input.u32()));
    }
    let sack_permitted = input.bit();
    let header = ToSend {
        seq: Seq::from(input.u32()),
        ack: Seq::from(input.u32()),
        flags,
        window: WireWindow::from(input.u16()),
        syn: is_syn.then(|| SynOptions {
            mss: Mss::new(input.u16()),
            window_scale,
            sack_permitted,
        }),
        sack,
    };
    let (source, destination, checksum) = (input.u16(), input.u16(), input.u16());
    let mut octets = [0xff; LEN + MAX_OPTIONS_LEN];
    header.write(source, destination, checksum, &mut octets);
    let blocks = sack.as_slice().len();
    let len =
        LEN + if is_syn { SYN_OPTIONS_LEN } else { (4 + 8 * blocks) * usize::from(blocks > 0) };
    assert_eq!(header.header_len(), len);
    let written = octets.get(..len).unwrap_or_default();
    let Ok((read, payload)) = split(written) else { panic!("{header:?} does not read back") };
    assert!(payload.is_empty());
    assert_eq!((read.source, read.destination), (source, destination));
    assert_eq!((read.seq, read.ack), (header.seq, header.ack));
    assert_eq!((read.flags, read.window), (header.flags, header.window));
    assert_eq!(read.mss, header.syn.map(|syn| syn.mss));
    assert_eq!(read.window_scale, header.syn.and_then(|syn| syn.window_scale));
    assert_eq!(read.sack_permitted, header.syn.is_some_and(|syn| syn.sack_permitted));
}
