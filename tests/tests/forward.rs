//! Which address a destination of the namespace becomes on the host, and from where it is reached.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::{Family, Lab, Session, UPLINK, address, service};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, gateway_leads_to_the_hosts_loopback),
        case!(families, no_map_gw_closes_the_hosts_loopback),
        case!(families, no_host_loopback_closes_every_way_to_it),
        case!(lab, no_map_gw_leads_to_the_router_itself),
        case!(families, map_host_loopback_none_closes_the_hosts_loopback),
        case!(families, map_host_loopback_names_the_address_instead_of_the_gateway),
        case!(families, map_guest_addr_leads_to_the_hosts_own_address),
        case!(families, hosts_other_addresses_are_reached_unchanged),
        case!(families, dns_forward_leads_to_dns_host_on_port_53_alone),
        case!(families, dns_forward_leads_to_the_first_nameserver_by_default),
        case!(families, outbound_address_is_the_source_that_the_far_side_sees),
        case!(families, outbound_address_that_is_not_there_lets_nothing_out),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// Attempts that must not get through end after this many milliseconds.
const BRIEFLY: &str = "1000";

/// A connection of the namespace to `address` fails, whatever the reason.
fn stays_closed(inside: &mut Session, address: IpAddr, port: u16) -> Outcome {
    let endpoint = address::endpoint(address, port);
    let reply = inside.ask(["tcp", "connect-within", &endpoint, BRIEFLY])?;
    assert!(reply.result.is_err(), "{endpoint} was reached: {reply:?}");
    Ok(())
}

fn gateway_leads_to_the_hosts_loopback(lab: &Lab, family: Family) -> Outcome {
    let tcp = lab.host().tcp(family.loopback(), service::echo)?;
    let udp = lab.host().udp_echo(family.loopback())?;
    let mut inside = lab.session()?;

    let gateway = family.gateway();
    inside.must(["tcp", "echo", &address::endpoint(gateway, tcp.port()), "1", "100000"])?;
    inside.must(["udp", "echo", &address::endpoint(gateway, udp.port()), "64"])?;

    assert_eq!(tcp.next_peer()?.ip(), family.loopback());
    assert_eq!(udp.next_peer()?.ip(), family.loopback());
    Ok(())
}

fn no_map_gw_closes_the_hosts_loopback(lab: &Lab, family: Family) -> Outcome {
    let service = lab.host().tcp(family.loopback(), service::echo)?;
    let mut inside = lab.pasta().configured().with(["--no-map-gw"]).session()?;

    stays_closed(&mut inside, family.gateway(), service.port())?;

    assert!(service.was_left_alone());
    Ok(())
}

fn no_host_loopback_closes_every_way_to_it(lab: &Lab, family: Family) -> Outcome {
    let service = lab.host().tcp(family.loopback(), service::echo)?;
    let port = service.port().to_string();
    let mut inside = lab.pasta().configured().with(["-T", &port]).session()?;
    for address in [family.gateway(), family.loopback()] {
        inside.must(["tcp", "echo", &address::endpoint(address, service.port()), "1", "1000"])?;
        service.next_peer()?;
    }
    inside.end(0)?;
    let closed = lab.pasta().configured().with(["--no-host-loopback", "--sandbox-report"]);
    let mut inside = closed.session()?;

    for address in [family.gateway(), family.loopback()] {
        stays_closed(&mut inside, address, service.port())?;
    }

    assert!(service.was_left_alone());
    let report = inside.end(0)?.errors;
    for line in ["of the host: not mapped to an address", "from the namespace's loopback: none"] {
        assert!(report.contains(line), "{report}");
    }
    Ok(())
}

fn no_map_gw_leads_to_the_router_itself(lab: &Lab) -> Outcome {
    let router = lab.remote().tcp(Family::V4.gateway(), service::echo)?;
    let mut inside = lab.pasta().configured().with(["--no-map-gw"]).session()?;

    inside.must(["tcp", "echo", &router.endpoint(), "1", "1000"])?;

    assert_eq!(router.next_peer()?.ip(), Family::V4.host());
    Ok(())
}

fn map_host_loopback_none_closes_the_hosts_loopback(lab: &Lab, family: Family) -> Outcome {
    let service = lab.host().tcp(family.loopback(), service::echo)?;
    let mut inside = lab.pasta().configured().with(["--map-host-loopback", "none"]).session()?;

    stays_closed(&mut inside, family.gateway(), service.port())?;

    assert!(service.was_left_alone());
    Ok(())
}

fn map_host_loopback_names_the_address_instead_of_the_gateway(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let tcp = lab.host().tcp(family.loopback(), service::echo)?;
    let udp = lab.host().udp_echo(family.loopback())?;
    let mapped = family.unused();
    let option = ["--map-host-loopback", &mapped.to_string()];
    let mut inside = lab.pasta().configured().with(option).session()?;

    inside.must(["tcp", "echo", &address::endpoint(mapped, tcp.port()), "1", "1000"])?;
    inside.must(["udp", "echo", &address::endpoint(mapped, udp.port()), "64"])?;
    assert_eq!(tcp.next_peer()?.ip(), family.loopback());

    stays_closed(&mut inside, family.gateway(), tcp.port())?;
    assert!(tcp.was_left_alone());
    Ok(())
}

fn map_guest_addr_leads_to_the_hosts_own_address(lab: &Lab, family: Family) -> Outcome {
    let service = lab.host().tcp(family.host(), service::echo)?;
    let mapped = family.unused();
    let option = ["--map-guest-addr", &mapped.to_string()];
    let mut inside = lab.pasta().configured().with(option).session()?;

    inside.must(["tcp", "echo", &address::endpoint(mapped, service.port()), "1", "1000"])?;

    assert_eq!(service.next_peer()?.ip(), family.host());
    Ok(())
}

fn hosts_other_addresses_are_reached_unchanged(lab: &Lab, family: Family) -> Outcome {
    let prefix = address::prefix_length(family);
    let other = family.unused();
    lab.on_host(|netlink| Ok(netlink.add_address(netlink.link("lo")?.index, other, prefix)?))?;
    let service = lab.host().tcp(other, service::echo)?;
    let mut inside = lab.session()?;

    inside.must(["tcp", "echo", &service.endpoint(), "1", "1000"])?;
    Ok(())
}

/// A name server, both ways, on port 53 of `address` of the remote machine.
fn name_server(lab: &Lab, address: IpAddr) -> Outcome<(service::Service, service::Service)> {
    let port = SocketAddr::new(address, 53);
    Ok((lab.remote().udp_at(port, service::udp_echo)?, lab.remote().tcp_at(port, service::echo)?))
}

fn dns_forward_leads_to_dns_host_on_port_53_alone(lab: &Lab, family: Family) -> Outcome {
    let (udp, tcp) = name_server(lab, family.internet_second())?;
    let other = lab.remote().tcp(family.internet_second(), service::echo)?;
    let forward = family.unused();
    let options = [
        "--dns-forward",
        &forward.to_string(),
        "--dns-host",
        &family.internet_second().to_string(),
    ];
    let mut inside = lab.pasta().configured().with(options).session()?;

    inside.must(["udp", "echo", &address::endpoint(forward, 53), "64"])?;
    inside.must(["tcp", "echo", &address::endpoint(forward, 53), "1", "1000"])?;
    assert_eq!(udp.next_peer()?.ip(), family.host());
    assert_eq!(tcp.next_peer()?.ip(), family.host());

    stays_closed(&mut inside, forward, other.port())?;
    assert!(other.was_left_alone());
    Ok(())
}

fn dns_forward_leads_to_the_first_nameserver_by_default(lab: &Lab, family: Family) -> Outcome {
    let (udp, _tcp) = name_server(lab, family.internet_second())?;
    let (first, second) = (family.internet_second(), family.internet());
    lab.write_resolv_conf(&format!("# made by a test\nnameserver {first}\nnameserver {second}\n"))?;
    let forward = family.unused();
    let option = ["--dns-forward", &forward.to_string()];
    let mut inside = lab.pasta().configured().with(option).session()?;

    inside.must(["udp", "echo", &address::endpoint(forward, 53), "64"])?;

    assert_eq!(udp.next_peer()?.ip(), family.host());
    Ok(())
}

fn outbound_address_is_the_source_that_the_far_side_sees(lab: &Lab, family: Family) -> Outcome {
    let (second, prefix) = (family.host_second(), address::prefix_length(family));
    lab.on_host(|netlink| Ok(netlink.add_address(netlink.link(UPLINK)?.index, second, prefix)?))?;
    let tcp = lab.remote().tcp(family.internet(), service::echo)?;
    let udp = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.pasta().configured().with(["-o", &second.to_string()]).session()?;

    inside.must(["tcp", "echo", &tcp.endpoint(), "1", "1000"])?;
    inside.must(["udp", "echo", &udp.endpoint(), "64"])?;

    assert_eq!(tcp.next_peer()?.ip(), second);
    assert_eq!(udp.next_peer()?.ip(), second);
    Ok(())
}

fn outbound_address_that_is_not_there_lets_nothing_out(lab: &Lab, family: Family) -> Outcome {
    let tcp = lab.remote().tcp(family.internet(), service::echo)?;
    let udp = lab.remote().udp_echo(family.internet())?;
    let absent = family.host_second().to_string();
    let mut inside = lab.pasta().configured().with(["-o", &absent]).session()?;

    stays_closed(&mut inside, family.internet(), tcp.port())?;
    let reply = inside.ask(["udp", "silence", &udp.endpoint(), "300"])?;

    assert!(tcp.was_left_alone(), "a connection went out by another address");
    assert!(udp.was_left_alone(), "a datagram went out by another address: {reply:?}");
    Ok(())
}
