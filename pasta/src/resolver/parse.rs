//! The text of resolv.conf(5): its `nameserver` lines.

use pasta_ipc::types::{IfName, Resolver};
use std::net::IpAddr;

/// The resolvers that `text` names, in its order. Lines that are not understood are skipped, as the
/// C library does. `name` finds the name of an interface that is given by number.
pub(super) fn parse(text: &str, name: impl Fn(u32) -> Option<String>) -> Vec<Resolver> {
    text.lines().filter_map(|line| server(line, &name)).collect()
}

fn server(line: &str, name: &impl Fn(u32) -> Option<String>) -> Option<Resolver> {
    // The keyword starts the line and is followed by blanks.
    let rest = line.strip_prefix("nameserver")?;
    let value = rest.strip_prefix([' ', '\t'])?.split_ascii_whitespace().next()?;
    let (address, zone) = match value.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (value, None),
    };
    let interface = zone.and_then(|zone| {
        let zone = match zone.parse::<u32>() {
            Ok(index) => name(index)?,
            Err(_) => zone.to_owned(),
        };
        IfName::try_from(zone).ok()
    });
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    Some(Resolver { address, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<(String, Option<String>)> {
        parse(text, |index| (index == 2).then(|| "eth0".to_owned()))
            .into_iter()
            .map(|r| (r.address.to_string(), r.interface.map(String::from)))
            .collect()
    }

    fn plain(address: &str) -> (String, Option<String>) {
        (address.to_owned(), None)
    }

    #[test]
    fn nameserver_lines_are_taken_in_their_order() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.53\n\
                    nameserver\t2001:db8::53  # why\noptions ndots:1\nnameserver 127.0.0.53";
        let wanted = [plain("192.0.2.53"), plain("2001:db8::53"), plain("127.0.0.53")];
        assert_eq!(servers(text), wanted);
    }

    #[test]
    fn scope_is_a_name_or_a_number() {
        let text = "nameserver fe80::1%wlan0\nnameserver fe80::2%2\nnameserver fe80::3%9\n";
        let scoped = |address: &str, name: &str| (address.to_owned(), Some(name.to_owned()));
        assert_eq!(
            servers(text),
            [scoped("fe80::1", "wlan0"), scoped("fe80::2", "eth0"), plain("fe80::3")]
        );
    }

    #[test]
    fn lines_that_are_not_understood_are_skipped() {
        for text in [
            "",
            "nameserver",
            "nameserver ",
            "nameservers 192.0.2.1",
            "nameserver192.0.2.1",
            " nameserver 192.0.2.1",
            "nameserver dns.example",
            "#nameserver 192.0.2.1",
        ] {
            assert_eq!(servers(text), [], "{text:?}");
        }
        assert_eq!(servers("nameserver 192.0.2.1\r\n"), [plain("192.0.2.1")]);
        assert_eq!(servers("nameserver ::ffff:192.0.2.1"), [plain("192.0.2.1")]);
    }
}
