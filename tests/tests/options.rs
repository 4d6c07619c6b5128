//! Options that switch things off, say where flows leave by, or hand files over.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use tests::harness::{self, Case};
use tests::lab::machine::Machine;
use tests::lab::pasta::{NO_PORTS, Pasta, Running};
use tests::lab::session::Session;
use tests::lab::{DATAPATH, Family, Lab, UPLINK, process, service, wait};
use tests::netlink::Netlink;
use tests::{Outcome, case, sys};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, without_tcp_the_rest_works),
        case!(families, without_udp_the_rest_works),
        case!(lab, without_icmp_there_is_no_echo_and_no_ipv6_neighbour),
        case!(families, interface_that_is_missing_fails_closed),
        case!(families, interface_that_is_named_carries_the_flow),
        case!(lab, address_that_the_host_lacks_is_listened_on_with_freebind),
        case!(lab, less_is_copied_if_asked_for),
        case!(families, capture_has_packets_of_a_wire),
        case!(lab, capture_that_cannot_be_written_stops_nothing),
        case!(lab, full_capture_ends_and_the_network_stays),
        case!(lab, counters_are_shown_while_there_is_traffic),
        case!(lab, tap_that_is_handed_over_is_used_as_it_is),
        case!(lab, log_file_keeps_its_size_and_standard_error_has_warnings_only),
        case!(lab, start_without_a_network_is_one_line),
        case!(lab, interface_that_lacks_something_is_one_line),
        case!(lab, root_is_told_whom_it_becomes),
        case!(families, source_address_that_the_host_lacks_is_warned_of),
        case!(lab, host_name_is_the_one_that_was_asked_for),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// What a start writes to standard error, without options and with `-q`.
fn said(pasta: &Pasta<'_>) -> Outcome<[String; 2]> {
    let said =
        |pasta: &Pasta<'_>| -> Outcome<String> { Ok(pasta.run(["true"])?.expect_code(0)?.errors) };
    Ok([said(pasta)?, said(&pasta.clone().with(["-q"]))?])
}

/// One line that says this; none with `-q`.
fn assert_noticed(pasta: &Pasta<'_>, text: &str) -> Outcome {
    let [plain, quiet] = said(pasta)?;
    assert!(plain.contains(text), "{pasta:?}: {plain}");
    assert_eq!((plain.lines().count(), quiet.as_str()), (1, ""), "{pasta:?}: {plain}");
    Ok(())
}

fn start_without_a_network_is_one_line(lab: &Lab) -> Outcome {
    let pasta = lab.pasta().configured();
    assert_eq!(said(&pasta)?, ["", ""]);
    lab.remove_uplink()?;
    assert_noticed(&pasta, "the host has no network: the namespace reaches the host only")?;
    assert_noticed(&lab.pasta(), "the host has no network: the namespace reaches the host only")?;
    let waiting = pasta.with(["--bind-wait", "20"]);
    assert_noticed(&waiting, "the host has no network, 20 ms after the start (--bind-wait)")
}

fn interface_that_lacks_something_is_one_line(lab: &Lab) -> Outcome {
    lab.on_host(|netlink| Ok(netlink.add_veth("spare", "far-end", lab.remote().as_fd())?))?;
    let up = |netlink: &Netlink| -> Outcome<u32> {
        let index = netlink.link("spare")?.index;
        netlink.set_up(index, true)?;
        Ok(index)
    };
    let pasta = lab.pasta().configured().with(["-i", "spare"]);
    assert_noticed(&pasta, "interface \"spare\" is down")?;
    lab.on_host(up)?;
    assert_noticed(&pasta, "interface \"spare\" has no carrier")?;
    lab.on_remote(|there| Ok(there.set_up(there.link("far-end")?.index, true)?))?;
    lab.on_host(|netlink| netlink.wait_until_running(up(netlink)?))?;
    // With IPv6 it makes itself an address, which leads nowhere else.
    assert_noticed(&pasta.with(["-4"]), "interface \"spare\" has no address")
}

fn root_is_told_whom_it_becomes(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let root = lab.pasta().configured().as_root();
    assert_noticed(&root, "started by root, COMMAND and pasta run as user 65534, group 65534")?;
    assert_eq!(said(&root.with(["--runas", "60700"]))?, ["", ""]);
    Ok(())
}

fn source_address_that_the_host_lacks_is_warned_of(lab: &Lab, family: Family) -> Outcome {
    let missing = match family {
        Family::V4 => "192.0.2.99",
        Family::V6 => "2001:db8::99",
    };
    let pasta = lab.pasta().configured();
    let wanted = format!("the host does not have {missing} (-o)");
    for said in said(&pasta.clone().with(["-o", missing]))? {
        assert!(said.contains(&wanted) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(said(&pasta.clone().with(["-o", missing, "--freebind"]))?, ["", ""]);
    assert_eq!(said(&pasta.with(["-o", &family.host().to_string()]))?, ["", ""]);
    Ok(())
}

fn tcp(lab: &Lab, inside: &mut Session, family: Family) -> Outcome<bool> {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let reply = inside.ask(["tcp", "connect-within", &echo.endpoint(), "1000"])?;
    Ok(reply.result.is_ok())
}

fn udp(lab: &Lab, inside: &mut Session, family: Family) -> Outcome<bool> {
    let echo = lab.remote().udp_echo(family.internet())?;
    inside.must(["udp", "open", "one", &echo.endpoint()])?;
    Ok(inside.ask(["udp", "exchange", "one", "1000"])?.result.is_ok())
}

fn ping(inside: &mut Session, family: Family) -> Outcome<bool> {
    let to = family.internet().to_string();
    Ok(inside.ask(["ping", &to, "1", "56", "1000"])?.result.is_ok())
}

fn without_tcp_the_rest_works(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["--no-tcp"]).session()?;
    assert!(!tcp(lab, &mut inside, family)?);
    assert!(udp(lab, &mut inside, family)? && ping(&mut inside, family)?);
    Ok(())
}

fn without_udp_the_rest_works(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["--no-udp"]).session()?;
    assert!(!udp(lab, &mut inside, family)?);
    assert!(tcp(lab, &mut inside, family)? && ping(&mut inside, family)?);
    Ok(())
}

fn without_icmp_there_is_no_echo_and_no_ipv6_neighbour(lab: &Lab) -> Outcome {
    let mut inside = lab.pasta().configured().with(["--no-icmp"]).session()?;
    assert!(!ping(&mut inside, Family::V4)? && !ping(&mut inside, Family::V6)?);
    assert!(tcp(lab, &mut inside, Family::V4)?);
    assert!(!tcp(lab, &mut inside, Family::V6)?, "neighbours are not resolved");
    Ok(())
}

/// The option that names the interface of a family.
fn interface_option(family: Family) -> &'static str {
    match family {
        Family::V4 => "--outbound-if4",
        Family::V6 => "--outbound-if6",
    }
}

fn interface_that_is_missing_fails_closed(lab: &Lab, family: Family) -> Outcome {
    let words = [interface_option(family), "nowhere0", "-i", UPLINK];
    let mut inside = lab.pasta().configured().with(words).session()?;
    assert!(!tcp(lab, &mut inside, family)? && !udp(lab, &mut inside, family)?);
    let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
    assert!(tcp(lab, &mut inside, other)?);
    Ok(())
}

fn interface_that_is_named_carries_the_flow(lab: &Lab, family: Family) -> Outcome {
    let words = [interface_option(family), UPLINK];
    let mut inside = lab.pasta().configured().with(words).session()?;
    assert!(tcp(lab, &mut inside, family)? && udp(lab, &mut inside, family)?);
    assert!(ping(&mut inside, family)?);
    Ok(())
}

fn address_that_the_host_lacks_is_listened_on_with_freebind(lab: &Lab) -> Outcome {
    let words = ["-t", "192.0.2.200/8000", "-u", "192.0.2.200/8000"];
    let refused = lab.pasta().configured().with(words).run(["true"])?.expect_code(1)?;
    assert!(refused.errors.contains("192.0.2.200"), "{refused:?}");
    let free = lab.pasta().configured().with(words).with(["--freebind"]);
    free.run(["true"])?.expect_code(0)?;
    Ok(())
}

fn less_is_copied_if_asked_for(lab: &Lab) -> Outcome {
    let second: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    lab.on_host(|netlink| Ok(netlink.add_address(netlink.link(UPLINK)?.index, second, 24)?))?;
    let shown = |words: &[&str]| -> Outcome<bool> {
        let mut inside = lab.pasta().configured().with(words).session()?;
        Ok(inside.must(["show"])?.iter().any(|line| line.contains("192.0.2.77")))
    };
    assert!(shown(&[])?);
    assert!(!shown(&["--no-copy-addrs"])?);
    lab.pasta().with(["--no-copy-addrs"]).run(["true"])?.expect_code(1)?;
    Ok(())
}

/// The packets of a capture.
fn packets(octets: &[u8]) -> Outcome<Vec<&[u8]>> {
    let word = |at: usize| -> Outcome<u32> {
        Ok(u32::from_ne_bytes(octets.get(at..at + 4).ok_or("cut short")?.try_into()?))
    };
    assert_eq!((word(0)?, word(20)?), (0xa1b2_c3d4, 1));
    let (mut at, mut found) = (24, Vec::new());
    while at < octets.len() {
        let (kept, length) = (word(at + 8)? as usize, word(at + 12)? as usize);
        assert_eq!(kept, length);
        found.push(octets.get(at + 16..at + 16 + kept).ok_or("cut short")?);
        at += 16 + kept;
    }
    Ok(found)
}

/// The one's complement sum over 16-bit words (RFC 1071).
fn sum(octets: &[u8]) -> u32 {
    let words =
        octets.chunks(2).map(|it| u32::from(it[0]) << 8 | u32::from(*it.get(1).unwrap_or(&0)));
    words.sum()
}

/// Whether the TCP or UDP checksum of a packet is right; nothing for another packet.
fn is_right(packet: &[u8]) -> Option<bool> {
    let (addresses, transport, protocol) = match packet.get(12..14)? {
        [0x08, 0x00] => {
            let length = usize::from(packet[14] & 15) * 4;
            (&packet[26..34], &packet[14 + length..], packet[23])
        }
        [0x86, 0xdd] => (&packet[22..54], &packet[54..], packet[20]),
        _ => return None,
    };
    if protocol != 6 && protocol != 17 {
        return None;
    }
    let mut total = sum(addresses) + u32::from(protocol) + transport.len() as u32 + sum(transport);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    Some(total == 0xffff)
}

fn capture_has_packets_of_a_wire(lab: &Lab, family: Family) -> Outcome {
    let words = ["-p", "/tmp/capture", "--mtu", "1500"];
    let mut inside = lab.pasta().configured().with(words).session()?;
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "300000"])?;
    let datagrams = lab.remote().udp_echo(family.internet())?;
    inside.must(["udp", "echo", &datagrams.endpoint(), "1", "1000"])?;
    inside.end(0)?.expect_code(0)?;

    let octets = fs::read("/tmp/capture")?;
    let packets = packets(&octets)?;
    let checked: Vec<bool> = packets.iter().filter_map(|it| is_right(it)).collect();
    assert!(checked.iter().all(|right| *right), "{} packets", checked.len());
    assert!(packets.iter().all(|it| it.len() <= 1514), "super-frames are resolved");
    let carried: usize = packets.iter().map(|it| it.len()).sum();
    assert!(carried > 600_000, "both directions: {carried} octets");
    Ok(())
}

fn capture_that_cannot_be_written_stops_nothing(lab: &Lab) -> Outcome {
    let words = ["-p", "/no/such/directory/capture"];
    let finished = lab.pasta().configured().with(words).run(["true"])?.expect_code(0)?;
    assert!(finished.errors.contains("/no/such/directory/capture"), "{finished:?}");
    Ok(())
}

fn full_capture_ends_and_the_network_stays(lab: &Lab) -> Outcome {
    lab.needs_helpers()?;
    let options = Some("size=64k,mode=777");
    mount(Some("small"), "/mnt", Some("tmpfs"), MsFlags::empty(), options)?;
    let mut inside = lab.pasta().configured().with(["-p", "/mnt/capture"]).session()?;
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    for _ in 0..3 {
        inside.must(["tcp", "echo", &echo.endpoint(), "1", "300000"])?;
    }
    assert!(process::only(DATAPATH)?.runs());
    let finished = inside.end(0)?.expect_code(0)?;
    assert_eq!(finished.errors.matches("not captured any more").count(), 1, "{finished:?}");
    assert!(fs::metadata("/mnt/capture")?.len() <= 64 * 1024);
    Ok(())
}

fn counters_are_shown_while_there_is_traffic(lab: &Lab) -> Outcome {
    let mut inside = lab.pasta().configured().with(["--stats", "1"]).session()?;
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    let errors = inside.running().errors_so_far();
    wait::until("the counters", || {
        inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"]).ok()?;
        errors.text().contains("status: counters: frames from tap").then_some(())
    })
}

fn tap_that_is_handed_over_is_used_as_it_is(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let container = Machine::new()?;
    let tap = container.run(|| {
        let device = File::options().read(true).write(true).open("/dev/net/tun")?;
        sys::make_tap(&device, "given0")?;
        Ok(OwnedFd::from(device))
    })?;
    fcntl(&tap, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let number = tap.as_raw_fd().to_string();
    let words = ["-f", "-F", &number, "--netns", "/tmp/given", "-P", "/tmp/ready", "--config-net"];
    container.name(Path::new("/tmp/given"))?;
    let command =
        lab.pasta().as_root().with(NO_PORTS).with(words).command(std::iter::empty::<&str>());
    let running = Running::start(command)?;
    drop(tap);
    wait::until("the PID file", || {
        fs::read_to_string("/tmp/ready").is_ok_and(|text| text.ends_with('\n')).then_some(())
    })?;
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    let to: std::net::SocketAddr = echo.endpoint().parse()?;
    container.run(|| {
        let netlink = Netlink::open()?;
        let link = netlink.link("given0")?.index;
        assert!(netlink.addresses()?.iter().all(|it| it.link != link), "it is not configured");
        netlink.add_address(link, Family::V4.host(), 24)?;
        netlink.set_up(link, true)?;
        netlink.add_default_route(link, Family::V4.gateway())?;
        std::net::TcpStream::connect(to)?;
        Ok(())
    })?;
    running.signal(nix::sys::signal::Signal::SIGTERM)?;
    running.finish()?.expect_code(0)?;
    Ok(())
}

fn log_file_keeps_its_size_and_standard_error_has_warnings_only(lab: &Lab) -> Outcome {
    let words = ["-l", "/tmp/pasta.log", "--log-size", "40960", "--trace"];
    let mut inside = lab.pasta().configured().with(words).session()?;
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    wait::until("the removal of old lines", || {
        inside.must(["tcp", "echo", &echo.endpoint(), "1", "100"]).ok()?;
        let text = fs::read_to_string("/tmp/pasta.log").ok()?;
        text.contains("older lines were removed").then_some(())
    })?;
    let finished = inside.end(0)?.expect_code(0)?;
    let length = fs::metadata("/tmp/pasta.log")?.len();
    assert!((20_000..=40_960).contains(&length), "{length} octets");
    assert_eq!(finished.errors, "");
    Ok(())
}

fn host_name_is_the_one_that_was_asked_for(lab: &Lab) -> Outcome {
    let finished = lab.pasta().with(["-H", "box.example"]).run(["uname", "-n"])?.expect_code(0)?;
    assert_eq!(finished.output, ["box.example"]);
    Ok(())
}
