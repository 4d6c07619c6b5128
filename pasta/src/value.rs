//! The values that options take: one parser each, from text to a type that proves the check.

use pasta_ipc::types::{IfName, Ipv4Net, Ipv6Net, MacAddr};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::{IntErrorKind, NonZeroU32};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

/// Largest MTU that `-m` takes: a frame of 65535 octets less the Ethernet header of 14.
pub(crate) const MAX_MTU: u16 = 65521;

/// Smallest size of a log file, in octets. Chosen: what the C program takes as smallest.
const MIN_LOG_SIZE: u64 = 40_960;

/// Directory of named network namespaces (ip-netns(8)).
const NAMED_NAMESPACES: &str = "/run/netns";

/// Length of an IPv6 prefix where `-a` gives none (RFC 7421: what links have).
const DEFAULT_IPV6_PREFIX: u8 = 64;

/// A value that an option does not take. The text is a whole line without the program's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidValue(pub(crate) String);

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidValue {}

fn invalid<T>(what: &str, text: &str) -> Result<T, InvalidValue> {
    Err(InvalidValue(format!("invalid {what}: '{text}'")))
}

/// An address of `-a`, with the length of its prefix if one was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressValue {
    /// IPv4, also when written as `::ffff:a.b.c.d`.
    V4(Ipv4Addr, Option<u8>),
    /// IPv6, with the default length where none was given.
    V6(Ipv6Net),
}

/// What `--map-host-loopback` and `--map-guest-addr` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressOrNone {
    /// For the family of this address.
    Address(IpAddr),
    /// For neither family.
    None,
}

/// A user or a group for `--runas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NameOrId {
    /// A number.
    Id(u32),
    /// A name, not looked up yet.
    Name(String),
}

/// What `--runas` takes: `UID`, `UID:GID`, `LOGIN` or `LOGIN:GROUP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunAs {
    /// The user.
    pub(crate) user: NameOrId,
    /// The group; none: the number of a numeric user, or the primary group of a login.
    pub(crate) group: Option<NameOrId>,
}

/// A host or domain name of at most 253 octets, in labels of 1 to 63.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DomainName(String);

impl DomainName {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An unsigned number as C writes it: decimal, octal after `0`, hexadecimal after `0x`. One that does not
/// fit counts as the largest, which is too large for all that is read so.
fn c_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    match u64::from_str_radix(digits, radix) {
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(u64::MAX),
        number => number.ok(),
    }
}

/// `-m`: octets, 0 to [`MAX_MTU`].
pub(crate) fn mtu(text: &str) -> Result<u16, InvalidValue> {
    let Some(value) = c_number(text) else { return invalid("MTU", text) };
    match u16::try_from(value) {
        Ok(octets) if octets <= MAX_MTU => Ok(octets),
        _ => Err(InvalidValue(format!("MTU {text} too large (largest is {MAX_MTU})"))),
    }
}

/// `-i`, `-I`: a name that the kernel would take for an interface.
pub(crate) fn interface(text: &str) -> Result<IfName, InvalidValue> {
    IfName::try_from(text.to_owned())
        .map_err(|error| InvalidValue(format!("invalid interface name: '{text}': {error}")))
}

/// `-M`, `--ns-mac-addr`: exactly `xx:xx:xx:xx:xx:xx`, a unicast address.
pub(crate) fn mac(text: &str) -> Result<MacAddr, InvalidValue> {
    let octet = |part: &str| {
        let two_digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        two_digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    match octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok()) {
        Some(octets) => MacAddr::try_from(octets)
            .map_err(|error| InvalidValue(format!("invalid MAC address: '{text}': {error}"))),
        None => invalid("MAC address", text),
    }
}

/// `-a`: a unicast address, with or without a prefix length.
pub(crate) fn address(text: &str) -> Result<AddressValue, InvalidValue> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let Ok(ip) = address.parse::<IpAddr>() else { return invalid("address", text) };
    let len = match len.map(decimal_u8) {
        Some(None) => return invalid("prefix length in address", text),
        Some(Some(len)) => Some(len),
        None => None,
    };
    match ip {
        IpAddr::V4(ip) if is_unicast_v4(ip) && !ip.is_loopback() => match len {
            Some(33..) => invalid("prefix length in address", text),
            len => Ok(AddressValue::V4(ip, len)),
        },
        IpAddr::V6(ip) => match (ip.to_ipv4_mapped(), len) {
            // The length of a mapped address counts its first 96 bits too.
            (Some(ip), None | Some(96..=128)) if is_unicast_v4(ip) && !ip.is_loopback() => {
                Ok(AddressValue::V4(ip, len.map(|len| len.saturating_sub(96))))
            }
            (None, len) if is_unicast_v6(ip) && !ip.is_loopback() => {
                match Ipv6Net::new(ip, len.unwrap_or(DEFAULT_IPV6_PREFIX)) {
                    Ok(net) => Ok(AddressValue::V6(net)),
                    Err(_) => invalid("prefix length in address", text),
                }
            }
            _ => invalid("address", text),
        },
        IpAddr::V4(_) => invalid("address", text),
    }
}

/// `-n`: the length of an IPv4 prefix, or a mask whose ones are all in front.
pub(crate) fn netmask(text: &str) -> Result<u8, InvalidValue> {
    if let Some(len @ ..=32) = decimal_u8(text) {
        return Ok(len);
    }
    let Ok(mask) = text.parse::<Ipv4Addr>() else { return invalid("netmask", text) };
    let bits = mask.to_bits();
    // At most 32 ones, so it always fits.
    let len = u8::try_from(bits.leading_ones()).unwrap_or(32);
    if bits.count_ones() == u32::from(len) { Ok(len) } else { invalid("netmask", text) }
}

/// `-g`, `--dns-forward` and addresses that are mapped: unicast and not loopback.
pub(crate) fn peer(what: &'static str, text: &str) -> Result<IpAddr, InvalidValue> {
    match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if is_unicast(ip) && !ip.is_loopback() => Ok(ip),
        _ => invalid(what, text),
    }
}

/// `--dns-host`: a unicast address, loopback included.
pub(crate) fn dns_host(text: &str) -> Result<IpAddr, InvalidValue> {
    match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if is_unicast(ip) => Ok(ip),
        _ => invalid("DNS address", text),
    }
}

/// `-o`: an address that host sockets can be bound to. IPv4 loopback is one; IPv6 loopback is not,
/// nor is an IPv4-mapped IPv6 address.
pub(crate) fn outbound(text: &str) -> Result<IpAddr, InvalidValue> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if is_unicast_v4(ip) => Ok(ip.into()),
        Ok(IpAddr::V6(ip))
            if is_unicast_v6(ip) && !ip.is_loopback() && ip.to_ipv4_mapped().is_none() =>
        {
            Ok(ip.into())
        }
        _ => invalid("outbound address", text),
    }
}

/// `--map-host-loopback`, `--map-guest-addr`: an address or `none`.
pub(crate) fn mapped(text: &str) -> Result<AddressOrNone, InvalidValue> {
    match text {
        "none" => Ok(AddressOrNone::None),
        text => peer("address to map", text).map(AddressOrNone::Address),
    }
}

/// `--runas`.
pub(crate) fn run_as(text: &str) -> Result<RunAs, InvalidValue> {
    let half = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
        // The largest number means "leave as it is" to the kernel.
        true => part.parse().ok().filter(|id| *id != u32::MAX).map(NameOrId::Id),
        false => Some(NameOrId::Name(part.to_owned())),
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    match (half(user), group.map(half)) {
        (Some(user), None) => Ok(RunAs { user, group: None }),
        (Some(user), Some(Some(group))) => Ok(RunAs { user, group: Some(group) }),
        _ => invalid("user", text),
    }
}

/// `--netns`: a path, or the name of a namespace that ip-netns(8) has made.
pub(crate) fn network_namespace(text: &str) -> PathBuf {
    if text.contains('/') { text.into() } else { Path::new(NAMED_NAMESPACES).join(text) }
}

/// `-F`: the number of a descriptor that is not standard output or error.
pub(crate) fn descriptor(text: &str) -> Result<RawFd, InvalidValue> {
    match c_number(text).and_then(|number| RawFd::try_from(number).ok()) {
        Some(number) if number == 0 || number > 2 => Ok(number),
        _ => invalid("descriptor number", text),
    }
}

/// `--log-size`, in octets.
pub(crate) fn log_size(text: &str) -> Result<u64, InvalidValue> {
    match c_number(text) {
        Some(octets) if (MIN_LOG_SIZE..=i64::MAX.unsigned_abs()).contains(&octets) => Ok(octets),
        Some(_) => Err(InvalidValue(format!(
            "invalid log size: '{text}' (smallest is {MIN_LOG_SIZE} octets)"
        ))),
        None => invalid("log size", text),
    }
}

/// `--stats`, in seconds.
pub(crate) fn stats(text: &str) -> Result<NonZeroU32, InvalidValue> {
    let number = c_number(text).and_then(|number| u32::try_from(number).ok());
    number.and_then(NonZeroU32::new).map_or_else(|| invalid("interval in seconds", text), Ok)
}

/// `-D`: a unicast address, loopback included, or `none`.
pub(crate) fn dns_server(text: &str) -> Result<AddressOrNone, InvalidValue> {
    match text {
        "none" => Ok(AddressOrNone::None),
        text => dns_host(text).map(AddressOrNone::Address),
    }
}

/// `-S`: a domain, or `none`.
pub(crate) fn search(text: &str) -> Result<Option<DomainName>, InvalidValue> {
    if text == "none" { Ok(None) } else { domain("search domain", text).map(Some) }
}

/// `-H`, `--fqdn`, `-S`: a name that DNS can carry.
pub(crate) fn domain(what: &'static str, text: &str) -> Result<DomainName, InvalidValue> {
    match pasta::resolv_conf::domain_name(text) {
        Some(name) => Ok(DomainName(name.to_owned())),
        None => invalid(what, text),
    }
}

/// The prefix that an IPv4 address had before there were prefixes (RFC 791, section 3.2): `-a`
/// without a length.
pub(crate) fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        [192..=223, ..] => 24,
        _ => 32,
    }
}

/// Joins an IPv4 address and a length already known to fit.
pub(crate) fn ipv4_net(address: Ipv4Addr, prefix: u8) -> Result<Ipv4Net, InvalidValue> {
    Ipv4Net::new(address, prefix).map_err(|error| InvalidValue(format!("{address}: {error}")))
}

fn decimal_u8(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_unicast_v4(ip),
        IpAddr::V6(ip) => is_unicast_v6(ip),
    }
}

fn is_unicast_v4(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast()
}

fn is_unicast_v6(ip: Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast()
}

/// The least ABI of Landlock that `--strict-sandbox` asks for if none is named: it has all that is used.
pub(crate) const STRICT_ABI: u32 = 6;

/// Value of `--strict-sandbox`: the least ABI of Landlock.
///
/// # Errors
///
/// Anything but nothing and `abi:N`.
pub(crate) fn strictness(value: Option<&str>) -> Result<u32, InvalidValue> {
    let Some(text) = value else { return Ok(STRICT_ABI) };
    let number = text.strip_prefix("abi:").and_then(|number| number.parse().ok());
    let number = number.filter(|number| *number > 0);
    number.ok_or_else(|| InvalidValue("it takes abi:N, N from 1 up, or nothing".into()))
}

/// Value of `--audit`.
///
/// # Errors
///
/// Anything but nothing and `json`.
pub(crate) fn audit_form(value: Option<&str>) -> Result<DocumentForm, InvalidValue> {
    match value {
        None => Ok(DocumentForm::Text),
        Some("json") => Ok(DocumentForm::Json),
        Some(_) => Err(InvalidValue("it takes json or nothing".into())),
    }
}

/// How a document is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentForm {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn v6(text: &str, prefix: u8) -> AddressValue {
        AddressValue::V6(Ipv6Net::new(text.parse().unwrap(), prefix).unwrap())
    }

    #[test]
    fn mtu_is_read_in_every_base_of_c() {
        for (text, octets) in
            [("1500", 1500), ("0x5dc", 1500), ("02734", 1500), ("0", 0), ("65521", 65521)]
        {
            assert_eq!(mtu(text), Ok(octets), "{text}");
        }
        for text in ["65522", "0xffff", "99999999999999999999999"] {
            let wanted = format!("MTU {text} too large (largest is 65521)");
            assert_eq!(mtu(text).unwrap_err().to_string(), wanted);
        }
        for text in ["", "x", "-1", "+1", "08", "0x", "12k", " 1"] {
            assert_eq!(mtu(text).unwrap_err().to_string(), format!("invalid MTU: '{text}'"));
        }
    }

    #[test]
    fn address_keeps_its_length_and_a_mapped_one_is_ipv4() {
        assert_eq!(address("10.0.2.100"), Ok(AddressValue::V4(v4("10.0.2.100"), None)));
        assert_eq!(address("10.0.2.100/24"), Ok(AddressValue::V4(v4("10.0.2.100"), Some(24))));
        assert_eq!(
            address("::ffff:192.0.2.1/120"),
            Ok(AddressValue::V4(v4("192.0.2.1"), Some(24)))
        );
        assert_eq!(address("2001:db8::5"), Ok(v6("2001:db8::5", 64)));
        assert_eq!(address("2001:db8::5/112"), Ok(v6("2001:db8::5", 112)));
    }

    #[test]
    fn addresses_that_are_not_unicast_are_refused() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "10.0.2",
            "10.0.2.100x",
            "",
            "none",
            "fe80::1%eth0",
        ] {
            assert_eq!(address(text).unwrap_err().0, format!("invalid address: '{text}'"));
        }
        for text in
            ["10.0.2.1/33", "10.0.2.1/", "10.0.2.1/x", "10.0.2.1/-1", "2001:db8::1/129", "::5/999"]
        {
            let wanted = format!("invalid prefix length in address: '{text}'");
            assert_eq!(address(text).unwrap_err().0, wanted);
        }
        assert!(address("::ffff:192.0.2.1/24").is_err());
    }

    #[test]
    fn netmask_is_a_length_or_ones_followed_by_zeros() {
        assert_eq!(netmask("24"), Ok(24));
        assert_eq!(netmask("255.255.255.0"), Ok(24));
        assert_eq!(netmask("255.255.255.255"), Ok(32));
        assert_eq!(netmask("0.0.0.0"), Ok(0));
        for text in ["33", "255.0.255.0", "0.0.0.255", "", "x", "ffff::"] {
            assert_eq!(netmask(text).unwrap_err().0, format!("invalid netmask: '{text}'"));
        }
    }

    #[test]
    fn mac_address_is_seventeen_characters_and_unicast() {
        assert_eq!(mac("02:00:00:00:00:0A").unwrap().octets(), [2, 0, 0, 0, 0, 10]);
        for text in ["2:0:0:0:0:a", "02-00-00-00-00-0a", "02:00:00:00:00", "+2:00:00:00:00:0a", ""]
        {
            assert_eq!(mac(text).unwrap_err().0, format!("invalid MAC address: '{text}'"));
        }
        assert!(
            mac("01:00:5e:00:00:01")
                .unwrap_err()
                .0
                .starts_with("invalid MAC address: '01:00:5e:00:00:01': ")
        );
    }

    #[test]
    fn outbound_takes_ipv4_loopback_and_no_ipv6_special_address() {
        assert!(outbound("127.0.0.1").is_ok());
        assert!(outbound("192.0.2.1").is_ok());
        assert!(outbound("2001:db8::1").is_ok());
        for text in ["::1", "::ffff:192.0.2.1", "ff02::1", "::", "0.0.0.0", "224.0.0.1", "x"] {
            assert_eq!(
                outbound(text).unwrap_err().0,
                format!("invalid outbound address: '{text}'")
            );
        }
    }

    #[test]
    fn gateway_is_no_loopback_zero_or_broadcast() {
        assert!(peer("gateway address", "10.0.2.2").is_ok());
        assert!(peer("gateway address", "fe80::1").is_ok());
        for text in ["127.0.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "ff02::2", "gw"] {
            let wanted = format!("invalid gateway address: '{text}'");
            assert_eq!(peer("gateway address", text).unwrap_err().0, wanted);
        }
    }

    #[test]
    fn resolver_may_be_loopback_and_a_mapped_address_may_be_none() {
        assert!(dns_host("127.0.0.53").is_ok());
        assert!(dns_host("::1").is_ok());
        assert_eq!(dns_host("0.0.0.0").unwrap_err().0, "invalid DNS address: '0.0.0.0'");
        assert_eq!(mapped("none"), Ok(AddressOrNone::None));
        assert_eq!(mapped("127.0.0.1").unwrap_err().0, "invalid address to map: '127.0.0.1'");
    }

    #[test]
    fn run_as_takes_numbers_and_names_on_either_side() {
        let id = NameOrId::Id;
        let name = |text: &str| NameOrId::Name(text.to_owned());
        assert_eq!(run_as("0"), Ok(RunAs { user: id(0), group: None }));
        assert_eq!(run_as("1000:100"), Ok(RunAs { user: id(1000), group: Some(id(100)) }));
        assert_eq!(run_as("a:b"), Ok(RunAs { user: name("a"), group: Some(name("b")) }));
        for text in ["", ":", "1:", ":1", "4294967295", "99999999999"] {
            assert_eq!(run_as(text).unwrap_err().0, format!("invalid user: '{text}'"));
        }
    }

    #[test]
    fn class_decides_where_no_length_is_given() {
        for (address, prefix) in [
            ("10.1.2.3", 8),
            ("127.255.0.1", 8),
            ("128.0.0.1", 16),
            ("191.9.9.9", 16),
            ("192.0.2.1", 24),
            ("223.1.1.1", 24),
            ("240.0.0.1", 32),
        ] {
            assert_eq!(class_prefix(v4(address)), prefix, "{address}");
        }
    }
}
