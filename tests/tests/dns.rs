//! The host's resolvers, followed while the program runs. Cases are named after the scenarios of the
//! page on host changes; times are only deadlines, far beyond what the page specifies.

#[path = "dns/answers.rs"]
mod answers;
#[path = "dns/stub.rs"]
mod stub;

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::process::ExitCode;
use std::time::Duration;

use tests::harness::{self, Case};
use tests::lab::address::{self, prefix_length};
use tests::lab::service::{self, Service};
use tests::lab::{Family, Lab, Session, Skip, UPLINK, wait};
use tests::netlink::Netlink;
use tests::{Outcome, case};

use answers::*;
use stub::*;

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, s34_a_replaced_file_leads_to_another_server),
        case!(families, s34_a_socket_that_stays_open_asks_the_new_server),
        case!(families, s34_without_dns_forward_another_loopback_resolver_is_asked),
        case!(families, s35_what_only_the_stub_knows_is_no_change),
        case!(families, s36_links_and_directories_are_followed),
        case!(families, s37_a_file_that_is_half_written_says_nothing),
        case!(families, s38_the_first_resolver_of_all_is_asked_as_soon_as_it_is_there),
        case!(families, without_a_named_resolver_the_one_of_the_host_itself_is_asked),
        case!(families, s39_a_thousand_changes_take_no_descriptor),
        case!(lab, s40_a_resolver_on_a_link_is_found_by_name_again),
        case!(families, s66_without_following_the_first_server_stays),
        case!(families, the_next_server_is_asked_after_a_hard_error),
        case!(families, the_next_server_is_asked_where_the_first_is_silent),
        case!(families, a_family_without_resolvers_asks_those_of_the_other),
        case!(families, queries_by_tcp_and_to_the_port_of_tls_are_forwarded),
        case!(families, a_large_answer_passes_in_fragments),
        case!(families, the_next_server_is_asked_by_tcp_after_a_refusal),
        case!(families, a_query_under_way_is_answered_though_the_list_has_changed),
        case!(lab, names_resolve_at_the_stub_of_the_host_from_the_start),
        case!(lab, names_resolve_at_the_stub_of_the_host_when_attached),
        case!(lab, stub_that_is_started_later_is_found),
        case!(lab, host_moves_from_the_stub_to_a_server_and_back),
        case!(families, a_file_out_of_reach_is_one_warning_and_changes_nothing),
        case!(families, a_directory_that_comes_back_out_of_reach_leaves_the_last_server),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A server on port 53 of the remote machine.
fn server(lab: &Lab, address: IpAddr) -> Outcome<Service> {
    lab.remote().udp_at(SocketAddr::new(address, 53), service::udp_echo)
}

/// Replaces the host's file in one step.
fn replace(text: &str) -> Outcome {
    fs::write("/etc/resolv.conf.new", text)?;
    Ok(fs::rename("/etc/resolv.conf.new", RESOLV_CONF)?)
}

fn names(address: IpAddr) -> String {
    format!("# made by a test\nnameserver {address}\n")
}

/// A namespace whose queries to the address that comes with it are forwarded.
fn forwarding(lab: &Lab, family: Family, options: &[&str]) -> Outcome<(Session, String)> {
    let forward = family.unused();
    let option = ["--dns-forward", &forward.to_string()];
    let session = lab.pasta().configured().with(option).with(options).session()?;
    Ok((session, address::endpoint(forward, 53)))
}

/// Asks at `at` until `server` has received the query.
fn reaches(inside: &mut Session, at: &str, server: &Service) -> Outcome {
    wait::until(&format!("a query at {}", server.address()), || {
        inside.must(["udp", "echo", at, "64"]).ok()?;
        (!server.was_left_alone()).then_some(())
    })
}

/// Forgets what `server` has received so far.
fn forget(server: &Service) {
    while !server.was_left_alone() {}
}

fn s34_a_replaced_file_leads_to_another_server(lab: &Lab, family: Family) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (old, new) = (server(lab, first)?, server(lab, second)?);
    lab.write_resolv_conf(&names(first))?;
    let (mut inside, at) = forwarding(lab, family, &["-d"])?;
    reaches(&mut inside, &at, &old)?;
    assert!(new.was_left_alone());

    replace(&names(second))?;

    reaches(&mut inside, &at, &new)?;
    forget(&old);
    inside.must(["udp", "echo", &at, "64"])?;
    assert!(old.was_left_alone(), "the old server is still asked");
    let line = format!("host: dns {first} -> {second}, gen 2, ");
    assert_eq!(inside.running().errors().matches(&line).count(), 1);
    // The same content again is no change.
    replace(&names(second))?;
    lab.write_resolv_conf(&names(first))?;
    reaches(&mut inside, &at, &old)?;
    let line = format!("host: dns {second} -> {first}, gen 3, ");
    assert_eq!(inside.running().errors().matches(&line).count(), 1);
    Ok(())
}

fn s34_a_socket_that_stays_open_asks_the_new_server(lab: &Lab, family: Family) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (old, new) = (server(lab, first)?, server(lab, second)?);
    lab.write_resolv_conf(&names(first))?;
    let (mut inside, at) = forwarding(lab, family, &[])?;
    inside.must(["udp", "open", "kept", &at])?;
    inside.must(["udp", "exchange", "kept", "30000"])?;
    old.next_report()?;

    replace(&names(second))?;

    wait::until("a query at the new server", || {
        inside.must(["udp", "exchange", "kept", "30000"]).ok()?;
        (!new.was_left_alone()).then_some(())
    })
}

fn s34_without_dns_forward_another_loopback_resolver_is_asked(
    lab: &Lab,
    family: Family,
) -> Outcome {
    // Queries at the gateway's address lead to a resolver of the host's loopback.
    let (first, second): (IpAddr, IpAddr) = match family {
        Family::V4 => ("127.0.0.53".parse()?, "127.0.0.54".parse()?),
        Family::V6 => ("::1".parse()?, family.internet()),
    };
    let on_host = |address| lab.host().udp_at(SocketAddr::new(address, 53), service::udp_echo);
    let old = on_host(first)?;
    lab.write_resolv_conf(&names(first))?;
    let mut inside = lab.session()?;
    let at = address::endpoint(family.gateway(), 53);
    reaches(&mut inside, &at, &old)?;

    replace(&names(second))?;

    if family == Family::V4 {
        return reaches(&mut inside, &at, &on_host(second)?);
    }
    // A resolver elsewhere is reached as such, and back again is an ordinary change too.
    let new = server(lab, second)?;
    reaches(&mut inside, &address::endpoint(second, 53), &new)?;
    replace(&names(first))?;
    forget(&old);
    reaches(&mut inside, &at, &old)
}

fn s35_what_only_the_stub_knows_is_no_change(lab: &Lab, family: Family) -> Outcome {
    let stub = lab.host().udp_at(SocketAddr::new(family.loopback(), 53), service::udp_echo)?;
    fs::create_dir_all("/tmp/systemd/resolve")?;
    fs::write("/tmp/systemd/resolve/stub-resolv.conf", names(family.loopback()))?;
    fs::write("/tmp/systemd/resolve/resolv.conf", names(family.internet()))?;
    fs::remove_file(RESOLV_CONF)?;
    symlink("/tmp/systemd/resolve/stub-resolv.conf", RESOLV_CONF)?;
    let (mut inside, at) = forwarding(lab, family, &["-d"])?;
    reaches(&mut inside, &at, &stub)?;

    // A VPN is known to the stub alone; then something that shows when that has been dealt with.
    fs::write("/tmp/systemd/resolve/resolv.conf", names(family.internet_second()))?;
    fs::write("/tmp/systemd/resolve/stub-resolv.conf", names(family.loopback()))?;
    forget(&stub);
    reaches(&mut inside, &at, &stub)?;
    let later = server(lab, family.internet())?;
    fs::write("/tmp/systemd/resolve/stub-resolv.conf", names(family.internet()))?;
    reaches(&mut inside, &at, &later)?;
    let errors = inside.running().errors();
    assert_eq!(errors.matches("host: dns ").count(), 1, "{errors}");
    Ok(())
}

fn s36_links_and_directories_are_followed(lab: &Lab, family: Family) -> Outcome {
    let addresses = [family.internet(), family.internet_second(), family.neighbour()];
    let [first, second, third] = addresses;
    let servers = [server(lab, first)?, server(lab, second)?, server(lab, third)?];
    let [at_first, at_second, at_third] = &servers;
    for (directory, address) in [("/tmp/run/a", first), ("/tmp/run/b", second)] {
        fs::create_dir_all(directory)?;
        fs::write(format!("{directory}/resolv.conf"), names(address))?;
    }
    fs::remove_file(RESOLV_CONF)?;
    symlink("/tmp/run/a/resolv.conf", RESOLV_CONF)?;
    let (mut inside, at) = forwarding(lab, family, &[])?;
    reaches(&mut inside, &at, at_first)?;

    // The link is swapped.
    symlink("/tmp/run/b/resolv.conf", "/etc/new")?;
    fs::rename("/etc/new", RESOLV_CONF)?;
    reaches(&mut inside, &at, at_second)?;

    // What it leads to is edited in place.
    fs::write("/tmp/run/b/resolv.conf", names(third))?;
    reaches(&mut inside, &at, at_third)?;

    // Its directory is made anew.
    fs::remove_dir_all("/tmp/run/b")?;
    fs::create_dir("/tmp/run/b")?;
    forget(at_first);
    fs::write("/tmp/run/b/resolv.conf", names(first))?;
    reaches(&mut inside, &at, at_first)?;

    // And what was watched before is watched no more.
    fs::write("/tmp/run/a/resolv.conf", names(second))?;
    fs::write("/tmp/run/b/resolv.conf", names(third))?;
    forget(at_third);
    reaches(&mut inside, &at, at_third)
}

fn s37_a_file_that_is_half_written_says_nothing(lab: &Lab, family: Family) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (_old, new) = (server(lab, first)?, server(lab, second)?);
    lab.write_resolv_conf(&names(first))?;
    let (mut inside, at) = forwarding(lab, family, &["-d"])?;

    lab.write_resolv_conf("")?;
    // For less than the second that an empty file is not believed, every query is answered.
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        inside.must(["udp", "echo", &at, "64"])?;
    }
    lab.write_resolv_conf(&names(second))?;

    reaches(&mut inside, &at, &new)?;
    let errors = inside.running().errors();
    assert!(!errors.contains("-> none"), "{errors}");
    assert!(errors.contains(&format!("host: dns {first} -> {second}, gen 2, ")), "{errors}");
    Ok(())
}

fn s38_the_first_resolver_of_all_is_asked_as_soon_as_it_is_there(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let new = server(lab, family.internet())?;
    fs::remove_file(RESOLV_CONF)?;
    let (mut inside, at) = forwarding(lab, family, &["-d"])?;
    // Nobody is at the one that programs of the host would ask.
    inside.ask(["udp", "provoke", &at])?.failure("ECONNREFUSED")?;

    replace(&names(family.internet()))?;
    wait::until("an answer", || inside.must(["udp", "provoke", &at]).ok().map(drop))?;
    new.next_report()?;

    // What stays away for a second is gone.
    fs::remove_file(RESOLV_CONF)?;
    wait::until("the end of it", || {
        inside.running().errors().contains("-> none, gen 3").then_some(())
    })?;
    wait::until("a refusal", || {
        inside.ask(["udp", "provoke", &at]).ok()?.failure("ECONNREFUSED").ok()
    })
}

/// As programs of the host do (resolv.conf(5)).
fn without_a_named_resolver_the_one_of_the_host_itself_is_asked(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let local = lab.host().udp_at("127.0.0.1:53".parse()?, service::udp_echo)?;
    for text in ["# nobody\n", "nameserver 0.0.0.0\n", "nameserver 127.0.0.1\n"] {
        lab.write_resolv_conf(text)?;
        let (mut inside, at) = forwarding(lab, family, &[])?;
        inside.must(["udp", "echo", &at, "64"])?;
        local.next_report()?;
        inside.end(0)?;
    }
    Ok(())
}

fn s39_a_thousand_changes_take_no_descriptor(lab: &Lab, family: Family) -> Outcome {
    let (mut inside, at) = forwarding(lab, family, &[])?;
    let pid = inside.running().pid();
    let descriptors = || -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            found.push(fs::read_link(entry?.path())?.to_string_lossy().into_owned());
        }
        found.sort();
        Ok(found)
    };
    // Start-up is over when the first change has been followed.
    let first = server(lab, family.internet_second())?;
    replace(&names(family.internet_second()))?;
    reaches(&mut inside, &at, &first)?;
    let before = descriptors()
        .map_err(|error| Skip::new(format!("descriptors of pasta cannot be seen: {error}")))?;
    assert_eq!(before.iter().filter(|it| it.contains("inotify")).count(), 1, "{before:?}");

    for n in 0..1000_u16 {
        let address: IpAddr = match family {
            Family::V4 => [203, 0, (n >> 8) as u8, n as u8].into(),
            Family::V6 => format!("2001:db8:77::{n:x}").parse()?,
        };
        replace(&names(address))?;
    }
    let last = server(lab, family.internet())?;
    replace(&names(family.internet()))?;

    reaches(&mut inside, &at, &last)?;
    assert_eq!(descriptors()?, before);
    Ok(())
}

fn s40_a_resolver_on_a_link_is_found_by_name_again(lab: &Lab) -> Outcome {
    let family = Family::V6;
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let on_link = || {
        let index = lab.on_remote(|netlink| Ok(netlink.link("uplink")?.index))?;
        let at = SocketAddrV6::new(router, 53, 0, index);
        lab.remote().udp_at(at.into(), service::udp_echo)
    };
    let before = on_link()?;
    let index = lab.on_host(|netlink| Ok(netlink.link(UPLINK)?.index))?;
    lab.write_resolv_conf(&format!("nameserver {router}%{UPLINK}\n"))?;
    let (mut inside, at) = forwarding(lab, family, &["--hold", "inf"])?;
    reaches(&mut inside, &at, &before)?;

    lab.remove_uplink()?;
    inside.ask(["udp", "provoke", &at])?.failure("ENETUNREACH")?;
    lab.on_host(|netlink| {
        // Another link takes the number, where the kernel would give it out again.
        netlink.add_veth("other0", "other1", lab.remote().as_fd())?;
        netlink.add_veth(UPLINK, "uplink", lab.remote().as_fd())?;
        Ok(netlink.set_up(netlink.link(UPLINK)?.index, true)?)
    })?;
    lab.remote().run(|| {
        let netlink = Netlink::open()?;
        let link = netlink.link("uplink")?.index;
        netlink.set_up(link, true)?;
        Ok(netlink.add_address(link, router.into(), prefix_length(family))?)
    })?;
    assert_ne!(lab.on_host(|netlink| Ok(netlink.link(UPLINK)?.index))?, index);
    let again = on_link()?;
    wait::until("an answer", || {
        inside.ask(["udp", "echo", &at, "64"]).ok()?.result.ok()?;
        (!again.was_left_alone()).then_some(())
    })
}

fn s66_without_following_the_first_server_stays(lab: &Lab, family: Family) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (old, new) = (server(lab, first)?, server(lab, second)?);
    lab.write_resolv_conf(&names(first))?;
    let (mut inside, at) = forwarding(lab, family, &["--follow", "off"])?;

    replace(&names(second))?;
    // Longer than any following takes; what is not watched needs no time to be ignored.
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        inside.must(["udp", "echo", &at, "64"])?;
    }

    old.next_report()?;
    assert!(new.was_left_alone());
    Ok(())
}

fn the_next_server_is_asked_after_a_hard_error(lab: &Lab, family: Family) -> Outcome {
    // Nobody listens at the first one, and there is no way to the second.
    let (closed, no_way) = (family.internet(), family.unreachable());
    let third = server(lab, family.internet_second())?;
    let lines = [closed, no_way, family.internet_second()].map(|it| format!("nameserver {it}\n"));
    lab.write_resolv_conf(&lines.concat())?;
    let (mut inside, at) = forwarding(lab, family, &[])?;

    let mut refused = 0;
    wait::until("an answer of the third", || {
        match inside.ask(["udp", "provoke", &at]).ok()?.result {
            Err(_) => refused += 1,
            Ok(()) => return Some(()),
        }
        None
    })?;
    // Each was asked once.
    assert_eq!(refused, 2);
    third.next_report()?;
    Ok(())
}

fn the_next_server_is_asked_where_the_first_is_silent(lab: &Lab, family: Family) -> Outcome {
    let second = server(lab, family.internet_second())?;
    let lines = [family.silent(), family.internet_second()].map(|it| format!("nameserver {it}\n"));
    lab.write_resolv_conf(&lines.concat())?;
    let (mut inside, at) = forwarding(lab, family, &[])?;
    inside.must(["udp", "open", "client", &at])?;
    // As a client that waits for a second each time.
    wait::until("an answer of the second", || {
        inside.must(["udp", "exchange", "client", "1000"]).ok().map(drop)
    })?;
    second.next_report()?;
    Ok(())
}

fn a_family_without_resolvers_asks_those_of_the_other(lab: &Lab, family: Family) -> Outcome {
    let other = family.other();
    let server = server(lab, other.internet())?;
    lab.write_resolv_conf(&names(other.internet()))?;
    let (mut inside, at) = forwarding(lab, family, &[])?;
    reaches(&mut inside, &at, &server)
}

fn queries_by_tcp_and_to_the_port_of_tls_are_forwarded(lab: &Lab, family: Family) -> Outcome {
    let resolver = family.internet();
    lab.write_resolv_conf(&names(resolver))?;
    let (mut inside, _) = forwarding(lab, family, &[])?;
    for port in [53, 853] {
        let server = lab.remote().tcp_at(SocketAddr::new(resolver, port), service::echo)?;
        let at = address::endpoint(family.unused(), port);
        inside.must(["tcp", "echo", &at, "7", "1000"])?;
        server.next_report()?;
    }
    let server = lab.remote().udp_at(SocketAddr::new(resolver, 853), service::udp_echo)?;
    reaches(&mut inside, &address::endpoint(family.unused(), 853), &server)
}

fn a_file_out_of_reach_is_one_warning_and_changes_nothing(lab: &Lab, family: Family) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (old, new) = (server(lab, first)?, server(lab, second)?);
    lab.write_resolv_conf(&names(first))?;
    let (mut inside, at) = forwarding(lab, family, &[])?;
    if inside.running().errors().contains("landlock:") {
        return Err(Skip::new("this kernel has no Landlock").into());
    }

    fs::create_dir_all("/tmp/elsewhere")?;
    fs::write("/tmp/elsewhere/resolv.conf", names(second))?;
    symlink("/tmp/elsewhere/resolv.conf", "/etc/new")?;
    fs::rename("/etc/new", RESOLV_CONF)?;
    let warning = "host: dns: /tmp/elsewhere/resolv.conf cannot be read";
    wait::until("the warning", || inside.running().errors().contains(warning).then_some(()))?;
    fs::write("/tmp/elsewhere/resolv.conf", names(second))?;
    forget(&old);
    reaches(&mut inside, &at, &old)?;
    assert!(new.was_left_alone());

    // Back where it may be read, it is followed again.
    replace(&names(second))?;
    reaches(&mut inside, &at, &new)?;
    assert_eq!(inside.running().errors().matches(warning).count(), 1);
    Ok(())
}

fn a_directory_that_comes_back_out_of_reach_leaves_the_last_server(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let (first, second) = (family.internet(), family.internet_second());
    let (old, _new) = (server(lab, first)?, server(lab, second)?);
    // Right below the top: what is beside it is nothing to read.
    let make = |address| -> Outcome {
        fs::create_dir("/tmp/resolver")?;
        Ok(fs::write("/tmp/resolver/resolv.conf", names(address))?)
    };
    make(first)?;
    fs::remove_file(RESOLV_CONF)?;
    symlink("/tmp/resolver/resolv.conf", RESOLV_CONF)?;
    let (mut inside, at) = forwarding(lab, family, &["-d"])?;
    if inside.running().errors().contains("landlock:") {
        return Err(Skip::new("this kernel has no Landlock").into());
    }
    reaches(&mut inside, &at, &old)?;

    fs::remove_dir_all("/tmp/resolver")?;
    let said = |inside: &mut Session, line: &str| {
        wait::until(line, || inside.running().errors().contains(line).then_some(()))
    };
    said(&mut inside, &format!("host: dns {first} -> none, gen 2, "))?;
    make(second)?;

    said(&mut inside, "host: dns: /tmp/resolver/resolv.conf cannot be read")?;
    said(&mut inside, &format!("host: dns none -> {first}, gen 3, "))?;
    forget(&old);
    reaches(&mut inside, &at, &old)
}
