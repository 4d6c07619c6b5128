//! What the namespace looks like from inside: links, addresses and routes.

use std::os::fd::AsFd;
use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::{Family, Lab, Session, UPLINK, address, service};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, namespace_looks_like_the_host),
        case!(lab, network_is_ready_before_the_first_instruction_of_the_command),
        case!(lab, without_config_net_the_link_is_down_and_bare),
        case!(families, one_family_alone_leaves_the_other_out),
        case!(lab, link_has_the_name_the_mtu_and_the_address_that_were_asked_for),
        case!(families, address_and_gateway_of_the_command_line_win),
        case!(lab, netmask_may_be_given_apart),
        case!(lab, interface_option_chooses_the_template),
        case!(lab, interface_that_is_not_there_gives_local_mode),
        case!(lab, host_without_network_gives_local_mode),
        case!(families, local_mode_reaches_the_hosts_loopback),
        case!(lab, explicit_address_wins_over_local_mode),
        case!(families, small_mtu_carries_large_transfers),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// What the client sees, as lines; see `client::show` for their form.
fn show(inside: &mut Session) -> Outcome<Vec<String>> {
    inside.must(["show"])
}

/// Asserts that `wanted` are among `facts`.
fn has(facts: &[String], wanted: &[&str]) {
    for line in wanted {
        assert!(facts.iter().any(|fact| fact == line), "no {line:?} in {facts:#?}");
    }
}

/// The lines that begin like this.
fn beginning<'a>(facts: &'a [String], start: &str) -> Vec<&'a str> {
    facts.iter().filter(|fact| fact.starts_with(start)).map(String::as_str).collect()
}

/// The lines about addresses that are neither of the loopback link nor link-local.
fn addresses(facts: &[String]) -> Vec<&str> {
    let all = beginning(facts, "address ").into_iter();
    all.filter(|fact| !fact.ends_with("on lo") && !fact.contains("fe80::")).collect()
}

fn namespace_looks_like_the_host(lab: &Lab) -> Outcome {
    let mut inside = lab.session()?;

    let facts = show(&mut inside)?;

    has(&facts, &["address 127.0.0.1/8 on lo", "route default4 via 192.0.2.1 on eth0"]);
    has(&facts, &["route default6 via fe80::1 on eth0"]);
    assert_eq!(
        addresses(&facts),
        ["address 192.0.2.2/24 on eth0", "address 2001:db8::2/64 on eth0"]
    );
    assert_eq!(beginning(&facts, "link eth0 up mtu 65520 mac ").len(), 1, "{facts:#?}");
    assert_eq!(beginning(&facts, "link lo up ").len(), 1, "{facts:#?}");
    Ok(())
}

fn network_is_ready_before_the_first_instruction_of_the_command(lab: &Lab) -> Outcome {
    let finished = lab.pasta().configured().run(["lab-client", "show"])?.expect_code(0)?;

    has(
        &finished.output,
        &[
            "- address 192.0.2.2/24 on eth0",
            "- address 2001:db8::2/64 on eth0",
            "- route default4 via 192.0.2.1 on eth0",
            "- route default6 via fe80::1 on eth0",
        ],
    );
    Ok(())
}

fn without_config_net_the_link_is_down_and_bare(lab: &Lab) -> Outcome {
    let mut inside = lab.pasta().session()?;

    let facts = show(&mut inside)?;

    assert_eq!(beginning(&facts, "link eth0 down ").len(), 1, "{facts:#?}");
    assert_eq!(beginning(&facts, "link lo up ").len(), 1, "{facts:#?}");
    assert_eq!(addresses(&facts), Vec::<&str>::new());
    Ok(())
}

fn one_family_alone_leaves_the_other_out(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let gone = lab.remote().tcp(family.other().internet(), service::echo)?;
    let mut inside = lab.pasta().configured().with([family.only_option()]).session()?;

    let facts = show(&mut inside)?;
    let shown = addresses(&facts);
    assert_eq!(shown.len(), 1, "{facts:#?}");
    assert!(shown[0].contains(&format!(" {}/", family.host())), "{facts:#?}");

    inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    let other = inside.ask(["tcp", "connect-within", &gone.endpoint(), "1000"])?;
    assert!(other.result.is_err(), "{other:?}");
    assert!(gone.was_left_alone());
    Ok(())
}

fn link_has_the_name_the_mtu_and_the_address_that_were_asked_for(lab: &Lab) -> Outcome {
    let options = ["-I", "wire7", "-m", "1400", "--ns-mac-addr", "02:11:22:33:44:55"];
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    let mut inside = lab.pasta().configured().with(options).session()?;

    has(&show(&mut inside)?, &["link wire7 up mtu 1400 mac 02:11:22:33:44:55"]);
    inside.must(["tcp", "echo", &echo.endpoint(), "1", "1000"])?;
    Ok(())
}

fn address_and_gateway_of_the_command_line_win(lab: &Lab, family: Family) -> Outcome {
    let loopback = lab.host().tcp(family.loopback(), service::echo)?;
    let outside = lab.remote().tcp(family.internet(), service::echo)?;
    let (option, gateway, shown, route) = match family {
        Family::V4 => (
            "10.1.2.3/24",
            "10.1.2.1",
            "address 10.1.2.3/24 on eth0",
            "route default4 via 10.1.2.1 on eth0",
        ),
        Family::V6 => (
            "2001:db8:77::3/64",
            "2001:db8:77::1",
            "address 2001:db8:77::3/64 on eth0",
            "route default6 via 2001:db8:77::1 on eth0",
        ),
    };
    let pasta = lab.pasta().configured().with(["-a", option, "-g", gateway]);
    let mut inside = pasta.session()?;

    has(&show(&mut inside)?, &[shown, route]);
    // The host's own source address, whatever the namespace's is.
    inside.must(["tcp", "echo", &outside.endpoint(), "1", "1000"])?;
    assert_eq!(outside.next_peer()?.ip(), family.host());
    let mapped = address::endpoint(gateway.parse()?, loopback.port());
    inside.must(["tcp", "echo", &mapped, "1", "1000"])?;
    Ok(())
}

fn netmask_may_be_given_apart(lab: &Lab) -> Outcome {
    let options = ["-a", "10.1.2.3", "-n", "255.255.240.0", "-g", "10.1.2.1"];
    let mut inside = lab.pasta().configured().with(options).session()?;

    has(&show(&mut inside)?, &["address 10.1.2.3/20 on eth0"]);
    Ok(())
}

fn interface_option_chooses_the_template(lab: &Lab) -> Outcome {
    lab.on_host(|netlink| {
        netlink.add_veth("spare", "far-end", lab.remote().as_fd())?;
        let index = netlink.link("spare")?.index;
        netlink.set_up(index, true)?;
        netlink.add_address(index, "203.0.113.130".parse()?, 25)?;
        lab.on_remote(|there| Ok(there.set_up(there.link("far-end")?.index, true)?))?;
        netlink.wait_until_running(index)
    })?;
    let mut inside = lab.pasta().configured().with(["-4", "-i", "spare"]).session()?;

    let facts = show(&mut inside)?;

    assert_eq!(addresses(&facts), ["address 203.0.113.130/25 on spare"]);
    Ok(())
}

fn interface_that_is_not_there_gives_local_mode(lab: &Lab) -> Outcome {
    let mut inside = lab.pasta().configured().with(["-i", "absent"]).session()?;

    let facts = show(&mut inside)?;

    assert_eq!(beginning(&facts, "address 169.254.2.1/16 on ").len(), 1, "{facts:#?}");
    Ok(())
}

fn host_without_network_gives_local_mode(lab: &Lab) -> Outcome {
    lab.remove_uplink()?;
    let mut inside = lab.session()?;

    let facts = show(&mut inside)?;

    has(&facts, &["address 169.254.2.1/16 on tap0", "route default4 via 169.254.2.2 on tap0"]);
    assert_eq!(addresses(&facts), ["address 169.254.2.1/16 on tap0"]);
    assert_eq!(beginning(&facts, "route default6"), Vec::<&str>::new(), "waits for IPv6 in vain");
    Ok(())
}

fn local_mode_reaches_the_hosts_loopback(lab: &Lab, family: Family) -> Outcome {
    lab.remove_uplink()?;
    let tcp = lab.host().tcp(family.loopback(), service::echo)?;
    let udp = lab.host().udp_echo(family.loopback())?;
    let mut inside = lab.session()?;

    let gateway = match family {
        Family::V4 => "169.254.2.2".parse()?,
        Family::V6 => "fe80::1".parse()?,
    };
    let at = |port| address::endpoint_on(gateway, port, "tap0");
    inside.must(["tcp", "echo", &at(tcp.port()), "1", "100000"])?;
    inside.must(["udp", "echo", &at(udp.port()), "64"])?;
    Ok(())
}

fn explicit_address_wins_over_local_mode(lab: &Lab) -> Outcome {
    lab.remove_uplink()?;
    let options = ["-a", "10.0.2.100", "-n", "24", "-g", "10.0.2.2"];
    let loopback = lab.host().tcp(Family::V4.loopback(), service::echo)?;
    let mut inside = lab.pasta().configured().with(options).session()?;

    let facts = show(&mut inside)?;

    assert_eq!(addresses(&facts), ["address 10.0.2.100/24 on tap0"]);
    has(&facts, &["route default4 via 10.0.2.2 on tap0"]);
    let gateway = address::endpoint("10.0.2.2".parse()?, loopback.port());
    inside.must(["tcp", "echo", &gateway, "1", "1000"])?;
    Ok(())
}

fn small_mtu_carries_large_transfers(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut inside = lab.pasta().configured().with(["-m", "1400", "-I", UPLINK]).session()?;

    inside.must(["tcp", "echo", &echo.endpoint(), "1", "8000000"])?;
    Ok(())
}
