//! What of the host's loopback the namespace reaches, by each address and each way to spell it, under each option
//! that has to do with it; and that frames and remote hosts do not get further.
//!
//! The services of the host are on 127.0.0.1, ::1 and all addresses. What they are asked by is noted by each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use nix::sys::socket::{MsgFlags, send};
use tests::client::packet::{self, MacAddress};
use tests::harness::{self, Case};
use tests::lab::service::{self, Service};
use tests::lab::{Family, Lab, Session, UPLINK, address, wait};
use tests::{Outcome, case, sys};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, loopback_is_reached_as_the_options_say_and_no_further),
        case!(lab, frames_for_loopback_reach_nothing),
        case!(lab, frames_from_loopback_reach_nothing),
        case!(families, services_in_the_namespace_never_see_a_remote_host_as_loopback),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// Attempts that must not get through end after this many milliseconds.
const BRIEFLY: &str = "200";

/// What the options under test leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    /// The host's loopback by the gateway's address.
    gateway: bool,
    /// By [`Family::unused`].
    named: bool,
    /// Ports of the host's loopback at the namespace's.
    ports: bool,
}

const NOTHING: Open = Open { gateway: false, named: false, ports: false };

/// The destinations of one family, and by which of the ways each leads to the host's loopback.
fn destinations(family: Family, open: Open) -> Vec<(IpAddr, bool)> {
    let mut all = vec![
        (family.gateway(), open.gateway),
        (family.unused(), open.named),
        (family.loopback(), open.ports),
        // Of the namespace by itself, which has the host's address too.
        (family.any(), open.ports),
        (family.host(), false),
    ];
    match family {
        Family::V4 => all.extend([
            (Ipv4Addr::new(127, 0, 0, 2).into(), false),
            (Ipv4Addr::new(127, 255, 255, 254).into(), false),
            (Ipv4Addr::new(0, 0, 0, 1).into(), false),
            (Ipv4Addr::new(169, 254, 1, 1).into(), false),
            (Ipv4Addr::BROADCAST.into(), false),
            (Ipv4Addr::new(224, 0, 0, 1).into(), false),
            // The same spelt as IPv6, for a socket of both families.
            (mapped(Family::V4.gateway()), open.gateway),
            (mapped(Family::V4.loopback()), open.ports),
            (mapped(Family::V4.any()), open.ports),
            (mapped(Ipv4Addr::new(127, 0, 0, 2).into()), false),
        ]),
        Family::V6 => all.extend([
            (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0x7f00, 1)), false),
            (IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x7f00, 1)), false),
            (IpAddr::V6(Ipv6Addr::new(0x2002, 0x7f00, 1, 0, 0, 0, 0, 1)), false),
        ]),
    }
    all
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        other => other,
    }
}

/// Services of the host, at ports that are none that the kernel picks: automatic rules leave those out.
struct Services {
    tcp: Service,
    udp: Service,
    everywhere: Service,
}

impl Services {
    fn on(lab: &Lab, family: Family) -> Outcome<Self> {
        let second = u16::from(family == Family::V6) * 10;
        let at = |address, port| SocketAddr::new(address, port + second);
        Ok(Self {
            tcp: lab.host().tcp_at(at(family.loopback(), 8101), service::echo)?,
            udp: lab.host().udp_at(at(family.loopback(), 8102), service::udp_echo)?,
            everywhere: lab.host().tcp_at(at(family.any(), 8103), service::echo)?,
        })
    }

    fn were_left_alone(&self) -> bool {
        [&self.tcp, &self.udp, &self.everywhere].iter().all(|it| it.was_left_alone())
    }
}

/// Whether a connection and a datagram to `address` are answered.
fn reached(inside: &mut Session, address: IpAddr, services: &Services) -> Outcome<[bool; 2]> {
    let tcp = address::endpoint(address, services.tcp.port());
    // Ports of the namespace's loopback accept before it is known whether anybody is on the other side.
    let tcp = inside.ask(["tcp", "connect-within", &tcp, BRIEFLY])?.result.is_ok()
        && inside.ask(["tcp", "open", "one", &tcp])?.result.is_ok()
        && inside.ask(["tcp", "exchange", "one", "1", "10"])?.result.is_ok();
    let udp = address::endpoint(address, services.udp.port());
    let udp = match inside.ask(["udp", "open", "one", &udp])?.result {
        Ok(_) => inside.ask(["udp", "exchange", "one", BRIEFLY])?.result.is_ok(),
        Err(_) => false,
    };
    Ok([tcp, udp])
}

fn loopback_is_reached_as_the_options_say_and_no_further(lab: &Lab) -> Outcome {
    let all = [Services::on(lab, Family::V4)?, Services::on(lab, Family::V6)?];
    let named = [Family::V4.unused().to_string(), Family::V6.unused().to_string()];
    let named = ["--map-host-loopback", &named[0], "--map-host-loopback", &named[1]];
    let defaults = Open { gateway: true, named: false, ports: true };
    let table: [(&[&str], Open); 9] = [
        (&[], defaults),
        (&["-T", "none", "-U", "none"], Open { ports: false, ..defaults }),
        (&["-T", "8101,8111", "-U", "8102,8112"], defaults),
        (&["--no-map-gw"], Open { gateway: false, ..defaults }),
        (&["--no-map-gw", "-T", "none", "-U", "none"], NOTHING),
        (&["--map-host-loopback", "none"], Open { gateway: false, ..defaults }),
        (&named, Open { gateway: false, named: true, ..defaults }),
        (&["--no-host-loopback"], NOTHING),
        (&["--splice-only"], Open { gateway: false, ..defaults }),
    ];
    for (options, open) in table {
        let mut inside = lab.pasta().configured().with(options).session()?;
        for (family, services) in [Family::V4, Family::V6].into_iter().zip(&all) {
            if open.ports {
                // Automatic ports come by and by; once they are there, what is closed is closed.
                wait::until("the ports of the host", || {
                    let reached = reached(&mut inside, family.loopback(), services);
                    reached.map(|it| (it == [true; 2]).then_some(())).transpose()
                })??;
            }
            for (address, wanted) in destinations(family, open) {
                let reached = reached(&mut inside, address, services)?;
                assert_eq!(reached, [wanted; 2], "{options:?} {address}: TCP, UDP");
            }
        }
        inside.end(0)?.expect_code(0)?;
        if open == NOTHING {
            assert!(all.iter().all(Services::were_left_alone), "{options:?}");
        }
        // What they have noted so far is accounted for.
        for service in all.iter().flat_map(|it| [&it.tcp, &it.udp, &it.everywhere]) {
            while !service.was_left_alone() {}
        }
    }
    Ok(())
}

/// Sends a SYN and a datagram from `source` to `destination`, to each port of the services.
fn carry(
    inside: &mut Session,
    source: IpAddr,
    destination: IpAddr,
    services: &Services,
) -> Outcome {
    let from = SocketAddr::new(source, 40_000);
    for (protocol, service) in
        [("tcp", &services.tcp), ("udp", &services.udp), ("tcp", &services.everywhere)]
    {
        let to = SocketAddr::new(destination, service.port());
        inside.must(["link", "carry", UPLINK, protocol, &from.to_string(), &to.to_string()])?;
    }
    Ok(())
}

/// Sends these, then what is answered: frames are taken in order.
fn carry_all(lab: &Lab, ends: impl Fn(Family) -> Vec<(IpAddr, IpAddr)>) -> Outcome {
    let all = [Services::on(lab, Family::V4)?, Services::on(lab, Family::V6)?];
    let mut inside = lab.session()?;
    for (family, services) in [Family::V4, Family::V6].into_iter().zip(&all) {
        for (source, destination) in ends(family) {
            carry(&mut inside, source, destination, services)?;
        }
        let other = lab.remote().tcp(family.internet(), service::echo)?;
        inside.must(["tcp", "echo", &other.endpoint(), "1", "1000"])?;
        assert!(services.were_left_alone(), "{family:?}");
        // The same by a way that there is does arrive.
        carry(&mut inside, family.host(), family.gateway(), services)?;
        services.udp.next_peer()?;
    }
    Ok(())
}

fn frames_for_loopback_reach_nothing(lab: &Lab) -> Outcome {
    carry_all(lab, |family| {
        let to: Vec<IpAddr> = match family {
            Family::V4 => ["127.0.0.1", "127.5.6.7", "0.0.0.0", "0.1.2.3", "255.255.255.255"]
                .iter()
                .filter_map(|it| it.parse().ok())
                .collect(),
            Family::V6 => ["::1", "::", "::ffff:127.0.0.1", "::ffff:192.0.2.1", "ff02::1"]
                .iter()
                .filter_map(|it| it.parse().ok())
                .collect(),
        };
        assert_eq!(to.len(), 5);
        to.into_iter().map(|to| (family.host(), to)).collect()
    })
}

fn frames_from_loopback_reach_nothing(lab: &Lab) -> Outcome {
    carry_all(lab, |family| {
        let from = match family {
            Family::V4 => ["127.0.0.1", "0.0.0.0", "224.0.0.1"],
            Family::V6 => ["::1", "::", "::ffff:127.0.0.1"],
        };
        let from: Vec<IpAddr> = from.iter().filter_map(|it| it.parse().ok()).collect();
        assert_eq!(from.len(), 3);
        from.into_iter().map(|from| (from, family.gateway())).collect()
    })
}

fn services_in_the_namespace_never_see_a_remote_host_as_loopback(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let options = ["-t", "8000", "-u", "8000", "--host-lo-to-ns-lo"];
    let mut inside = lab.pasta().configured().with(options).session()?;
    let service = address::endpoint(family.any(), 8000);
    inside.must(["serve", "udp", "echo", &service, "echo"])?;
    let to = SocketAddr::new(family.host(), 8000);
    let mac: MacAddress =
        lab.on_host(|netlink| Ok(netlink.link(UPLINK)?.mac.as_slice().try_into()?))?;

    // Forged ones first, then one that is right.
    let octets = match family {
        Family::V4 => ["127.0.0.1", "127.5.6.7", "0.0.0.0", "192.0.2.2"],
        // The kernel takes the mapped ones.
        Family::V6 => ["::1", "::", "::ffff:127.0.0.1", "::ffff:198.51.100.1"],
    };
    lab.on_remote(|netlink| {
        let link = netlink.link("uplink")?;
        let own = link.mac.as_slice().try_into()?;
        let socket = sys::packet_socket(link.index)?;
        for from in octets {
            let ends = (SocketAddr::new(from.parse()?, 40_000), to);
            let frame = packet::datagram(own, mac, ends, b"forged").ok_or("two families")?;
            send(socket.as_raw_fd(), &frame, MsgFlags::empty())?;
        }
        Ok(())
    })?;
    let seen = service::ask(lab.remote(), family.internet(), to, b"right")?;
    // The first that it has seen.
    assert_eq!(inside.must(["serve", "report", "echo"])?, [seen.to_string()]);
    inside.end(0)?.expect_code(0)?;
    Ok(())
}
