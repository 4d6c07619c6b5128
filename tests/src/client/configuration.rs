//! What a link is configured with by those that answer there: requests as clients send them, and the
//! answers in words.
//!
//! | question | does |
//! | --- | --- |
//! | `link dhcp LINK discover` | looks for a server |
//! | `link dhcp LINK reboot ADDRESS` | asks for ADDRESS once more, as after a start |
//! | `link dhcp LINK renew ADDRESS` | extends the lease of ADDRESS |
//! | `link dhcpv6 LINK solicit` | looks for a server |
//! | `link dhcpv6 LINK rebind ADDRESS` | extends the lease of ADDRESS with any server |
//! | `link routers LINK` | asks for routers |
//!
//! All fail with `ETIMEDOUT` for silence.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::packet::{self, MacAddress};
use super::{Arguments, Facts};
use crate::Outcome;

/// A transaction; which does not matter.
const XID: &[u8] = b"xid!";

/// A request, and how to read the answers.
pub struct Question {
    /// The frame.
    pub frame: Vec<u8>,
    /// Gives what a frame says, if it is an answer.
    pub read: fn(&[u8]) -> Option<Facts>,
}

/// The DHCP client's question in `arguments`, from `mac`.
///
/// # Errors
///
/// If it is none.
pub fn dhcp(arguments: &mut Arguments<'_>, mac: MacAddress) -> Outcome<Question> {
    let kind = arguments.word("message")?;
    let (number, wanted, present) = match kind {
        "discover" => (1, None, Ipv4Addr::UNSPECIFIED),
        "reboot" => (3, Some(arguments.value("IPv4 address")?), Ipv4Addr::UNSPECIFIED),
        "renew" => (3, None, arguments.value("IPv4 address")?),
        other => return Err(format!("no DHCP message {other}").into()),
    };
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(XID);
    message[12..16].copy_from_slice(&Ipv4Addr::octets(&present));
    message[28..34].copy_from_slice(&mac);
    message.extend([99, 130, 83, 99, 53, 1, number]);
    if let Some(wanted) = wanted {
        message.extend([50, 4]);
        message.extend(Ipv4Addr::octets(&wanted));
    }
    message.extend([55, 6, 1, 3, 6, 26, 119, 121, 255]);
    let ends = ((present, 68), (Ipv4Addr::BROADCAST, 67));
    let frame = packet::datagram_v4(mac, packet::BROADCAST, ends, &message);
    Ok(Question { frame, read: read_dhcp })
}

fn read_dhcp(frame: &[u8]) -> Option<Facts> {
    let message = packet::payload_v4(frame, 68)?;
    if message.get(4..8)? != XID {
        return None;
    }
    let mut facts = Facts::new();
    let yours = address_v4(message.get(16..20)?)?;
    let mut rest = message.get(240..)?;
    while let [code, len, more @ ..] = rest {
        if *code == 255 {
            break;
        }
        let (value, more) = more.split_at_checked(usize::from(*len))?;
        rest = more;
        let number = || value.iter().fold(0_u64, |sum, it| (sum << 8) | u64::from(*it));
        let addresses = || {
            let all: Option<Vec<_>> = value.chunks(4).map(address_v4).collect();
            Some(all?.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        facts.push(match code {
            1 => format!("mask {}", addresses()?),
            3 => format!("router {}", addresses()?),
            6 => format!("dns {}", addresses()?),
            12 => format!("host {}", value.escape_ascii()),
            26 => format!("mtu {}", number()),
            51 => format!("lease {}", number()),
            53 => format!(
                "{} {yours}",
                ["discover", "offer", "", "", "ack", "nak"]
                    .get(usize::from(*value.first()?) - 1)?
            ),
            54 => format!("server {}", addresses()?),
            58 => format!("renewal {}", number()),
            119 => format!("search {}", value.escape_ascii()),
            other => format!("option {other}"),
        });
    }
    Some(facts)
}

fn address_v4(octets: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

fn address_v6(octets: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(octets).ok().map(Ipv6Addr::from)
}

/// The DHCPv6 client's question in `arguments`, from `source` at `mac`.
///
/// # Errors
///
/// If it is none.
pub fn dhcpv6(
    arguments: &mut Arguments<'_>,
    mac: MacAddress,
    source: Ipv6Addr,
) -> Outcome<Question> {
    let kind = arguments.word("message")?;
    let (number, address) = match kind {
        "solicit" => (1, None),
        "rebind" => (6, Some(arguments.value::<Ipv6Addr>("IPv6 address")?)),
        other => return Err(format!("no DHCPv6 message {other}").into()),
    };
    let inside = match address {
        Some(address) => [&[0, 5, 0, 24][..], &address.octets(), &[0; 8]].concat(),
        None => Vec::new(),
    };
    let len = u8::try_from(12 + inside.len())?;
    let message = [
        &[number, XID[0], XID[1], XID[2], 0, 1, 0, 10, 0, 3, 0, 1][..],
        &mac,
        &[0, 3, 0, len, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &inside,
    ];
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    let to = [0x33, 0x33, 0, 1, 0, 2];
    let ends = ((source, 546), (group, 547));
    let frame = packet::datagram_v6(mac, to, ends, &message.concat());
    Ok(Question { frame, read: read_dhcpv6 })
}

fn read_dhcpv6(frame: &[u8]) -> Option<Facts> {
    let message = packet::payload_v6(frame, 546)?;
    if message.get(1..4)? != &XID[..3] {
        return None;
    }
    let mut facts = vec![match message.first()? {
        2 => "advertise".to_owned(),
        7 => "reply".to_owned(),
        _ => return None,
    }];
    options_v6(message.get(4..)?, &mut facts)?;
    Some(facts)
}

fn options_v6(mut rest: &[u8], facts: &mut Facts) -> Option<()> {
    while let [_, code, high, low, more @ ..] = rest {
        let (value, more) =
            more.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        rest = more;
        match code {
            3 => options_v6(value.get(12..)?, facts)?,
            5 => facts.push(format!(
                "address {} {}/{}",
                address_v6(value.get(..16)?)?,
                number(value, 16)?,
                number(value, 20)?
            )),
            13 => facts.push(format!("status {}", value.get(1)?)),
            23 => facts.push(format!("dns {}", address_v6(value.get(..16)?)?)),
            24 => facts.push(format!("search {}", value.escape_ascii())),
            _ => {}
        }
    }
    Some(())
}

fn number(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

/// A router solicitation from `source` at `mac`.
pub fn routers(mac: MacAddress, source: Ipv6Addr) -> Question {
    Question { frame: packet::router_solicitation(mac, source), read: read_advertisement }
}

fn read_advertisement(frame: &[u8]) -> Option<Facts> {
    let message = packet::icmpv6_message(frame).filter(|it| it.first() == Some(&134))?;
    let lifetime = u16::from_be_bytes([*message.get(6)?, *message.get(7)?]);
    let managed = if message.get(5)? & 0x80 == 0 { "" } else { " managed" };
    let mut facts = vec![format!("router {lifetime}{managed}")];
    let mut rest = message.get(16..)?;
    while let [kind, units, ..] = rest {
        let (option, more) = rest.split_at_checked(usize::from(*units) * 8)?;
        rest = more;
        match kind {
            3 => facts.push(format!(
                "prefix {}/{} {}/{}",
                address_v6(option.get(16..32)?)?,
                option.get(2)?,
                number(option, 8)?,
                number(option, 4)?
            )),
            5 => facts.push(format!("mtu {}", number(option, 4)?)),
            25 => facts.push(format!(
                "dns {} {}",
                number(option, 4)?,
                address_v6(option.get(8..24)?)?
            )),
            31 => facts.push(format!(
                "search {} {}",
                number(option, 4)?,
                option.get(8..)?.escape_ascii()
            )),
            _ => {}
        }
    }
    Some(facts)
}
