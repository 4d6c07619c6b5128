//! The text of resolv.conf(5): its `nameserver`, `search` and `domain` lines.

use pasta_ipc::types::{IfName, Resolver, Text};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The resolvers, in the order of the file.
    pub servers: Vec<Resolver>,
    /// The domains that names are searched in.
    pub search: Vec<Text<253>>,
}

/// Reads `text`. Lines that are not understood are skipped, as the C library does, and so are search
/// domains that DNS cannot carry. Of several `search` and `domain` lines the last is in force. `name`
/// finds the name of an interface that is given by number.
pub fn parse(text: &str, name: impl Fn(u32) -> Option<String>) -> ResolvConf {
    let servers = text.lines().filter_map(|line| server(line, &name)).collect();
    let search = text.lines().filter_map(search).next_back().unwrap_or_default();
    ResolvConf { servers, search }
}

/// The value of a line that starts with `keyword`, which blanks follow.
fn value<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    line.strip_prefix(keyword)?.strip_prefix([' ', '\t'])
}

fn search(line: &str) -> Option<Vec<Text<253>>> {
    let (list, most) = match value(line, "search") {
        Some(list) => (list, usize::MAX),
        None => (value(line, "domain")?, 1),
    };
    let names = list.split_ascii_whitespace().take(most);
    Some(names.filter_map(domain_name).map(Text::truncated).collect())
}

/// Longest name in text (RFC 1035, section 3.1, less the length of the root label and the first length octet).
pub const MAX_NAME: usize = 253;

/// Longest label of a name (RFC 1035, section 3.1).
const MAX_LABEL: usize = 63;

/// `text` as a name that DNS can carry, without the dot at its end; none if it is none.
pub fn domain_name(text: &str) -> Option<&str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |label: &str| (1..=MAX_LABEL).contains(&label.len());
    let printable = name.bytes().all(|octet| octet.is_ascii_graphic());
    (printable && name.len() <= MAX_NAME && name.split('.').all(fits)).then_some(name)
}

fn server(line: &str, name: &impl Fn(u32) -> Option<String>) -> Option<Resolver> {
    let value = value(line, "nameserver")?.split_ascii_whitespace().next()?;
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
    let address = match address.parse::<IpAddr>().ok()?.to_canonical() {
        // A destination that is unspecified is this host (ip(7)), and answers come from its loopback address.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Some(Resolver { address, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<(String, Option<String>)> {
        parse(text, |index| (index == 2).then(|| "eth0".to_owned()))
            .servers
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

    fn search_list(text: &str) -> Vec<String> {
        parse(text, |_| None).search.iter().map(|it| it.as_str().to_owned()).collect()
    }

    #[test]
    fn last_search_or_domain_line_is_in_force() {
        assert_eq!(search_list("search a.example b.example.\n"), ["a.example", "b.example"]);
        assert_eq!(search_list("search a.example\ndomain\tb.example c.example\n"), ["b.example"]);
        assert_eq!(search_list("domain b.example\nsearch a.example\n"), ["a.example"]);
        assert_eq!(search_list("search a.example\nsearch\nsearch \n"), [""; 0]);
        assert_eq!(search_list("searching a.example\n#search b.example"), [""; 0]);
    }

    #[test]
    fn search_domains_that_dns_cannot_carry_are_skipped() {
        let label = "x".repeat(64);
        let text = format!("search . a..example {label}.example ok.example");
        assert_eq!(search_list(&text), ["ok.example"]);
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

    #[test]
    fn unspecified_address_is_the_host_itself() {
        assert_eq!(
            servers("nameserver 0.0.0.0\nnameserver ::"),
            [plain("127.0.0.1"), plain("::1")]
        );
    }
}
