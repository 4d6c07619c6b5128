//! Domain names as DNS writes them (RFC 1035, sections 3.1 and 4.1.4), for options that carry some.
//!
//! They are encoded when an offer is made, never for a request. Names that DNS cannot carry give nothing:
//! whoever takes names in, from the command line or from resolv.conf, has refused them.

/// Longest name in octets, lengths and root included.
const MAX_NAME: usize = 255;
/// Longest label in octets.
const MAX_LABEL: usize = 63;
/// A pointer's two upper bits; the other 14 are an offset.
const POINTER: u16 = 0xc000;

/// The labels of `name`, if DNS can carry it. A dot at the end says nothing more.
fn labels(name: &str) -> Option<Vec<&str>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let labels: Vec<&str> = name.split('.').collect();
    let fits = labels.iter().all(|it| (1..=MAX_LABEL).contains(&it.len()));
    (fits && name.len() + 2 <= MAX_NAME).then_some(labels)
}

fn push_label(octets: &mut Vec<u8>, label: &str) {
    // `labels` has checked the length.
    octets.push(label.len() as u8);
    octets.extend(label.as_bytes());
}

/// `name` without compression; nothing if DNS cannot carry it.
pub fn encode(name: &str) -> Vec<u8> {
    let Some(labels) = labels(name) else { return Vec::new() };
    let mut octets = Vec::new();
    labels.into_iter().for_each(|it| push_label(&mut octets, it));
    octets.push(0);
    octets
}

/// `names` one after the other, without compression (RFC 8415, section 10; RFC 8106, section 5.2).
pub fn encode_list<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    names.into_iter().flat_map(encode).collect()
}

/// `names` one after the other, each ending with a pointer to an earlier one where that is the same from
/// there on (RFC 3397, section 2).
pub fn encode_compressed<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut octets = Vec::new();
    // What follows each offset, as text.
    let mut known: Vec<(String, u16)> = Vec::new();
    for labels in names.into_iter().filter_map(labels) {
        let mut ended = false;
        for (n, label) in labels.iter().enumerate() {
            let rest = labels.iter().skip(n).copied().collect::<Vec<_>>().join(".");
            let rest = rest.to_ascii_lowercase();
            if let Some((_, offset)) = known.iter().find(|(name, _)| *name == rest) {
                octets.extend((POINTER | offset).to_be_bytes());
                ended = true;
                break;
            }
            if let Some(offset) = u16::try_from(octets.len()).ok().filter(|it| *it < POINTER) {
                // Fourteen bits hold an offset.
                known.extend((offset < 0x4000).then_some((rest, offset)));
            }
            push_label(&mut octets, label);
        }
        if !ended {
            octets.push(0);
        }
    }
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_with_their_lengths_in_front() {
        assert_eq!(encode("a.example"), b"\x01a\x07example\0");
        assert_eq!(encode("a.example."), b"\x01a\x07example\0");
        assert_eq!(encode_list(["a", "b.c"]), b"\x01a\0\x01b\x01c\0");
    }

    #[test]
    fn what_dns_cannot_carry_is_nothing() {
        let label = "x".repeat(64);
        let long = ["x".repeat(63).as_str(); 4].join(".");
        for name in ["", ".", "a..b", ".a", label.as_str(), long.as_str()] {
            assert_eq!(encode(name), b"", "{name:?}");
            assert_eq!(encode_compressed([name, "a"]), b"\x01a\0", "{name:?}");
        }
        let longest = long.strip_suffix("xx").unwrap();
        assert_eq!(encode(longest).len(), MAX_NAME);
    }

    #[test]
    fn common_endings_are_pointers() {
        // The example of RFC 3397, section 2.
        let names = ["eng.apple.com", "marketing.apple.com"];
        let wanted = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
        assert_eq!(encode_compressed(names), wanted);
        assert_eq!(encode_compressed(["A.example", "example", "a.EXAMPLE"]), {
            let mut wanted = b"\x01A\x07example\0".to_vec();
            wanted.extend([0xc0, 2, 0xc0, 0]);
            wanted
        });
    }
}
