//! The text of resolv.conf: whatever is in the file, what is taken from it is well formed and no more than the file has.

use pasta::resolv_conf::parse;
use std::net::IpAddr;

/// Reads `octets` as a file.
///
/// # Panics
///
/// If an invariant does not hold.
pub fn check(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let found = parse(&text, |index| (index < 8).then(|| format!("eth{index}")));
    let lines = text.lines().count();
    assert!(found.servers.len() <= lines, "more servers than lines");
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    for server in &found.servers {
        // Never in the spelling of the other family, and from a word of the file.
        assert_eq!(server.address, server.address.to_canonical());
        let is_named = |word: &&str| {
            let address = word.split('%').next().unwrap_or_default();
            let Ok(read) = address.parse::<IpAddr>().map(|it| it.to_canonical()) else {
                return false;
            };
            // That of this host may be written as any.
            let is_this_host = read.is_unspecified() && server.address.is_loopback();
            let is_one_family = read.is_ipv4() == server.address.is_ipv4();
            read == server.address || is_this_host && is_one_family
        };
        assert!(words.iter().any(is_named), "{} is not in the file", server.address);
        if let Some(interface) = &server.interface {
            let name = interface.as_str();
            assert!((1..16).contains(&name.len()), "{name:?}");
            assert!(!name.contains(['/', ' ', '\t']), "{name:?}");
        }
    }
    for name in &found.search {
        let name = name.as_str();
        assert!((1..=253).contains(&name.len()) && name.bytes().all(|it| it.is_ascii_graphic()));
        assert!(name.split('.').all(|label| (1..=63).contains(&label.len())), "{name}");
        assert!(words.iter().any(|word| word.trim_end_matches('.') == name), "{name} is not there");
    }
    // Reading it again, and with line ends of another kind, is the same.
    assert_eq!(parse(&text, |index| (index < 8).then(|| format!("eth{index}"))), found);
    let unix: Vec<&str> = text.lines().collect();
    let other = unix.join("\r\n");
    assert_eq!(parse(&other, |index| (index < 8).then(|| format!("eth{index}"))), found);
}
