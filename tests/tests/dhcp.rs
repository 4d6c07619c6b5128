//! What the namespace is offered to configure itself with: by DHCP, DHCPv6 and router advertisements, as the
//! host's network is and as it changes. Times are only deadlines.

use std::net::IpAddr;
use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::address::prefix_length;
use tests::lab::admin::{Admin, Way, index_of};
use tests::lab::{Family, Lab, Session, UPLINK, service, wait};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(lab, dhcp_offers_what_the_host_has),
        case!(lab, dhcpv6_offers_what_the_host_has),
        case!(lab, router_advertisement_says_what_the_host_has),
        case!(lab, the_kernel_configures_itself_and_reaches_the_network),
        case!(lab, what_is_switched_off_is_silent),
        case!(lab, a_namespace_that_is_configured_is_sent_no_advertisement),
        case!(lab, s29_a_prefix_that_goes_is_deprecated_at_once),
        case!(lab, s46_a_lease_of_local_mode_is_short_and_then_refused),
        case!(lab, s46_a_lease_of_dhcpv6_moves_to_the_new_address),
        case!(lab, s34_resolvers_and_search_list_are_offered_as_they_change),
        case!(lab, s66_without_following_leases_have_no_end),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// A namespace whose link is up and not configured.
fn unconfigured(lab: &Lab, options: &[&str]) -> Outcome<Session> {
    let mut session = lab.pasta().with(options).session()?;
    let name = link(&mut session)?;
    session.must(["link", "set", &name, "up"])?;
    if !options.contains(&"-4") {
        wait::until("the link-local address", || {
            let facts = session.must(["show"]).ok()?;
            facts.iter().any(|it| it.starts_with("address fe80:")).then_some(())
        })?;
    }
    Ok(session)
}

/// The name of the tap, which is that of local mode where the session began so.
fn link(session: &mut Session) -> Outcome<String> {
    let facts = session.must(["show"])?;
    let names = facts.iter().filter_map(|it| it.strip_prefix("link ")?.split(' ').next());
    Ok(names.filter(|it| *it != "lo").map(str::to_owned).next().ok_or("no tap")?)
}

fn ask(session: &mut Session, question: &[&str]) -> Outcome<Vec<String>> {
    let name = link(session)?;
    let words = ["link", question[0], &name].into_iter().chain(question[1..].iter().copied());
    session.must(words)
}

/// Asks until an answer has each of these facts.
fn answers(session: &mut Session, question: &[&str], wanted: &[&str]) -> Outcome {
    let mut last = Vec::new();
    let waited = wait::until("the answer", || {
        last = ask(session, question).ok()?;
        wanted.iter().all(|it| last.iter().any(|fact| fact == it)).then_some(())
    });
    waited.map_err(|error| format!("{error}: {last:#?} without {wanted:#?}").into())
}

fn on_host(lab: &Lab, change: impl FnOnce(&Admin) -> Outcome + Send) -> Outcome {
    lab.host().run(|| change(&Admin::open()?))
}

fn default(family: Family) -> Outcome<Way> {
    Ok(Way::default(index_of(UPLINK)?, family.gateway(), 0))
}

/// Takes address and default route of `family` away.
fn go_offline(lab: &Lab, family: Family) -> Outcome {
    on_host(lab, |admin| {
        let _ = admin.delete_route(default(family)?);
        admin.delete_address(index_of(UPLINK)?, family.host(), prefix_length(family))
    })
}

fn come_online(lab: &Lab, family: Family) -> Outcome {
    on_host(lab, |admin| {
        admin.add_address(index_of(UPLINK)?, family.host(), prefix_length(family))?;
        admin.add_route(default(family)?)
    })
}

const OFFERS: [&str; 10] = [
    "--dhcp-dns",
    "--dhcp-search",
    "-D",
    "192.0.2.53",
    "-D",
    "2001:db8::53",
    "-S",
    "a.example",
    "-H",
    "box",
];

fn dhcp_offers_what_the_host_has(lab: &Lab) -> Outcome {
    let mut inside = unconfigured(lab, &OFFERS)?;
    let family = Family::V4;
    let offer = [
        format!("offer {}", family.host()),
        format!("server {}", family.gateway()),
        "lease 3600".to_owned(),
        "renewal 60".to_owned(),
        "mask 255.255.255.0".to_owned(),
        format!("router {}", family.gateway()),
        "dns 192.0.2.53".to_owned(),
        "mtu 65520".to_owned(),
        "search \\x01a\\x07example\\x00".to_owned(),
        "host box".to_owned(),
    ];
    let offer: Vec<&str> = offer.iter().map(String::as_str).collect();
    answers(&mut inside, &["dhcp", "discover"], &offer)?;

    let ack = format!("ack {}", family.host());
    let host = family.host().to_string();
    answers(&mut inside, &["dhcp", "reboot", &host], &[&ack])?;
    answers(&mut inside, &["dhcp", "renew", &host], &[&ack])?;
    answers(&mut inside, &["dhcp", "renew", "203.0.113.9"], &["nak 0.0.0.0"])?;
    // The link can have the MTU that is offered.
    let facts = inside.must(["show"])?;
    assert!(facts.iter().any(|it| it.contains(" mtu 65520 mac ")), "{facts:#?}");
    Ok(())
}

fn dhcpv6_offers_what_the_host_has(lab: &Lab) -> Outcome {
    let mut inside = unconfigured(lab, &OFFERS)?;
    let address = format!("address {} 3600/3600", Family::V6.host());
    let offer =
        ["advertise", address.as_str(), "dns 2001:db8::53", "search \\x01a\\x07example\\x00"];
    answers(&mut inside, &["dhcpv6", "solicit"], &offer)
}

fn router_advertisement_says_what_the_host_has(lab: &Lab) -> Outcome {
    let mut inside = unconfigured(lab, &OFFERS)?;
    let said = [
        "router 1800 managed",
        "prefix 2001:db8::/64 3600/7200",
        "mtu 65520",
        "dns 1800 2001:db8::53",
    ];
    answers(&mut inside, &["routers"], &said)
}

fn the_kernel_configures_itself_and_reaches_the_network(lab: &Lab) -> Outcome {
    let family = Family::V6;
    let echo = lab.remote().udp_at((family.internet(), 7).into(), service::udp_echo)?;
    let mut inside = unconfigured(lab, &["-6"])?;
    let mut last = Vec::new();
    wait::until("an address and a default route", || {
        last = inside.must(["show"]).ok()?;
        let address =
            |it: &String| it.starts_with("address 2001:db8::") && !it.ends_with("tentative");
        let has_address = last.iter().any(address);
        (has_address && last.iter().any(|it| it.starts_with("route default6"))).then_some(())
    })
    .map_err(|error| format!("{error}: {last:#?}"))?;
    inside.must(["udp", "echo", &echo.endpoint(), "64"])?;
    Ok(())
}

fn what_is_switched_off_is_silent(lab: &Lab) -> Outcome {
    let all = ["--no-dhcp", "--no-dhcpv6", "--no-ra"];
    let questions: [&[&str]; 3] = [&["dhcp", "discover"], &["dhcpv6", "solicit"], &["routers"]];
    for (option, off) in all.into_iter().zip(questions) {
        let mut inside = unconfigured(lab, &[option])?;
        for question in questions {
            let name = link(&mut inside)?;
            let words =
                ["link", question[0], &name].into_iter().chain(question[1..].iter().copied());
            let reply = inside.ask(words)?;
            if question == off {
                reply.failure("ETIMEDOUT")?;
            } else {
                reply.success()?;
            }
        }
    }
    Ok(())
}

fn a_namespace_that_is_configured_is_sent_no_advertisement(lab: &Lab) -> Outcome {
    let mut inside = lab.pasta().configured().session()?;
    inside.ask(["link", "routers", UPLINK])?.failure("ETIMEDOUT")?;
    // DHCP is answered all the same.
    answers(&mut inside, &["dhcp", "discover"], &[&format!("offer {}", Family::V4.host())])
}

fn s29_a_prefix_that_goes_is_deprecated_at_once(lab: &Lab) -> Outcome {
    let mut inside = unconfigured(lab, &["-6"])?;
    answers(&mut inside, &["routers"], &["prefix 2001:db8::/64 3600/7200"])?;
    let new: IpAddr = "2001:db8:99::7".parse()?;
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_address(link, new, 64)?;
        admin.delete_address(link, Family::V6.host(), prefix_length(Family::V6))
    })?;
    let mut last = Vec::new();
    wait::until("the new prefix and the end of the old", || {
        last = ask(&mut inside, &["routers"]).ok()?;
        let has = |start: &str| last.iter().any(|it| it.starts_with(start));
        (has("prefix 2001:db8:99::/64 3600/7200") && has("prefix 2001:db8::/64 0/7")).then_some(())
    })
    .map_err(|error| format!("{error}: {last:#?}"))?;
    // The kernel was sent an advertisement that it did not ask for.
    wait::until("the new address", || {
        last = inside.must(["show"]).ok()?;
        last.iter().any(|it| it.starts_with("address 2001:db8:99:")).then_some(())
    })
    .map_err(|error| format!("{error}: {last:#?}").into())
}

fn s46_a_lease_of_local_mode_is_short_and_then_refused(lab: &Lab) -> Outcome {
    go_offline(lab, Family::V4)?;
    go_offline(lab, Family::V6)?;
    let mut inside = unconfigured(lab, &["-4"])?;
    let local = ["offer 169.254.2.1", "lease 60", "renewal 30", "router 169.254.2.2"];
    answers(&mut inside, &["dhcp", "discover"], &local)?;

    come_online(lab, Family::V4)?;

    answers(&mut inside, &["dhcp", "renew", "169.254.2.1"], &["nak 0.0.0.0"])?;
    let offer = format!("offer {}", Family::V4.host());
    answers(&mut inside, &["dhcp", "discover"], &[&offer, "lease 3600"])
}

fn s46_a_lease_of_dhcpv6_moves_to_the_new_address(lab: &Lab) -> Outcome {
    let mut inside = unconfigured(lab, &["-6"])?;
    let host = Family::V6.host().to_string();
    answers(&mut inside, &["dhcpv6", "rebind", &host], &[&format!("address {host} 3600/3600")])?;
    on_host(lab, |admin| {
        let link = index_of(UPLINK)?;
        admin.add_address(link, "2001:db8:99::7".parse()?, 64)?;
        admin.delete_address(link, Family::V6.host(), prefix_length(Family::V6))
    })?;
    let (old, new) = (format!("address {host} 0/0"), "address 2001:db8:99::7 3600/3600");
    answers(&mut inside, &["dhcpv6", "rebind", &host], &[&old, new])
}

fn s34_resolvers_and_search_list_are_offered_as_they_change(lab: &Lab) -> Outcome {
    lab.write_resolv_conf("nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a\n")?;
    let mut inside = unconfigured(lab, &["--dhcp-dns", "--dhcp-search"])?;
    let search = |name| format!("search \\x01{name}\\x00");
    answers(&mut inside, &["dhcp", "discover"], &["dns 192.0.2.53", &search("a")])?;
    answers(&mut inside, &["dhcpv6", "solicit"], &["dns 2001:db8::53", &search("a")])?;

    lab.write_resolv_conf("search b\nnameserver 192.0.2.54\nnameserver 2001:db8::54\n")?;

    answers(&mut inside, &["dhcp", "discover"], &["dns 192.0.2.54", &search("b")])?;
    answers(&mut inside, &["dhcpv6", "solicit"], &["dns 2001:db8::54", &search("b")])?;
    // What went is taken back.
    let said = ["dns 1800 2001:db8::54", "dns 0 2001:db8::53"];
    answers(&mut inside, &["routers"], &said)?;

    // A resolver that only the host reaches is offered at the gateway, which leads there.
    lab.write_resolv_conf("nameserver 127.0.0.53\n")?;
    let gateway = format!("dns {}", Family::V4.gateway());
    answers(&mut inside, &["dhcp", "discover"], &[&gateway])
}

fn s66_without_following_leases_have_no_end(lab: &Lab) -> Outcome {
    let mut inside = unconfigured(lab, &["--follow", "off"])?;
    answers(&mut inside, &["dhcp", "discover"], &["lease 4294967295"])?;
    let address = format!("address {} 4294967295/4294967295", Family::V6.host());
    answers(&mut inside, &["dhcpv6", "solicit"], &[&address])?;
    let said = ["router 65535 managed", "prefix 2001:db8::/64 4294967295/4294967295"];
    answers(&mut inside, &["routers"], &said)
}
