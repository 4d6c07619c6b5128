//! Ports that are taken on the host, read from /proc/net (proc_pid_net(5)).
//!
//! A listener on `::` counts for both families; the files do not say which ones take IPv6 only.

use pasta_ipc::types::Transport;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// State of a listening TCP socket (`TCP_LISTEN`, `net/tcp_states.h`).
const LISTEN: &str = "0A";

/// Addresses and ports that sockets are bound to.
#[derive(Debug, Default)]
pub(super) struct PortsInUse(Vec<(Transport, IpAddr, u16)>);

impl PortsInUse {
    /// Reads the files; one that cannot be read has nothing in it.
    pub(super) fn read() -> Self {
        let mut all = Self::default();
        for (name, transport) in [
            ("tcp", Transport::Tcp),
            ("tcp6", Transport::Tcp),
            ("udp", Transport::Udp),
            ("udp6", Transport::Udp),
        ] {
            let text = std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            all.add(&text, transport);
        }
        all
    }

    /// These.
    #[cfg(test)]
    pub(super) fn of(sockets: &[(Transport, &str, u16)]) -> Self {
        let parsed = |it: &(Transport, &str, u16)| (it.0, it.1.parse().unwrap(), it.2);
        Self(sockets.iter().map(parsed).collect())
    }

    /// Whether a listener on this port, of `address` or all, would meet another.
    pub(super) fn takes(&self, transport: Transport, address: Option<IpAddr>, port: u16) -> bool {
        self.0.iter().any(|(of, taken, number)| {
            *of == transport && *number == port && address.is_none_or(|it| meet(*taken, it))
        })
    }

    /// Takes in one file. A line that is not understood is left out.
    fn add(&mut self, text: &str, transport: Transport) {
        for line in text.lines().skip(1) {
            let mut words = line.split_ascii_whitespace().skip(1);
            let (Some(local), _, Some(state)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            if transport == Transport::Udp || state == LISTEN {
                self.0.extend(endpoint(local).map(|(address, port)| (transport, address, port)));
            }
        }
    }
}

fn meet(taken: IpAddr, wanted: IpAddr) -> bool {
    let any = |it: IpAddr, other: IpAddr| {
        it.is_unspecified() && (it.is_ipv6() || it.is_ipv4() == other.is_ipv4())
    };
    taken == wanted
        || any(taken, wanted)
        || (wanted.is_unspecified() && wanted.is_ipv4() == taken.is_ipv4())
}

/// An address in words of 32 bits in the host's order, each in hexadecimal, and a port.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = address.as_bytes().chunks(8).map(|word| {
        u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok().map(u32::to_ne_bytes)
    });
    let octets = words.collect::<Option<Vec<_>>>()?.concat();
    if let Ok(octets) = <[u8; 4]>::try_from(octets.as_slice()) {
        return Some((Ipv4Addr::from(octets).into(), port));
    }
    let octets = <[u8; 16]>::try_from(octets).ok()?;
    Some((Ipv6Addr::from(octets).to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn listeners_of_the_host_are_found() {
        let tcp = TcpListener::bind("127.0.0.5:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.5:0").unwrap();
        let ports = PortsInUse::read();
        let here = Some(IpAddr::from([127, 0, 0, 5]));
        let port = tcp.local_addr().unwrap().port();
        assert!(ports.takes(Transport::Tcp, here, port) && ports.takes(Transport::Tcp, None, port));
        assert!(!ports.takes(Transport::Tcp, Some(IpAddr::from([127, 0, 0, 6])), port));
        assert!(ports.takes(Transport::Udp, here, udp.local_addr().unwrap().port()));
    }

    #[test]
    fn wildcards_meet_every_address_of_their_family() {
        let ports =
            |address: &str| PortsInUse(vec![(Transport::Tcp, address.parse().unwrap(), 80)]);
        for (taken, wanted, meets) in [
            ("0.0.0.0", "192.0.2.1", true),
            ("0.0.0.0", "::1", false),
            ("::", "192.0.2.1", true),
            ("::1", "::", true),
            ("::1", "0.0.0.0", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let wanted = wanted.parse().unwrap();
            assert_eq!(
                ports(taken).takes(Transport::Tcp, Some(wanted), 80),
                meets,
                "{taken} {wanted}"
            );
        }
    }

    #[test]
    fn what_is_no_line_of_a_socket_is_left_out() {
        let mut ports = PortsInUse::default();
        ports.add(
            "head\n 0: x 0:0 0A\n 1:\n 2: 0:1:2 0:0 0A\n 3: 00000000:0050 0:0 01\n",
            Transport::Tcp,
        );
        assert!(ports.0.is_empty(), "{ports:?}");
    }
}
