//! Address resolution as the namespace sees it, asked with frames of our own.

use std::net::IpAddr;
use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::admin::{Admin, index_of};
use tests::lab::{Family, Lab, Session, UPLINK, wait};
use tests::netlink::Mac;
use tests::{Outcome, case};

/// The address that `-M` gives to our end of the link.
const OURS: &str = "9a:55:9a:55:9a:01";

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, gateway_resolves_to_our_address),
        case!(families, without_the_mapping_the_real_router_is_seen),
        case!(families, mapped_addresses_are_ours_whatever_the_host_knows),
        case!(families, any_other_address_resolves_too),
        case!(families, own_address_of_the_namespace_is_not_claimed),
        case!(families, duplicate_address_detection_finds_no_duplicate),
        case!(families, kernel_of_the_namespace_resolves_by_itself),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn session(lab: &Lab) -> Outcome<Session> {
    lab.pasta().configured().with(["-M", OURS]).session()
}

/// How to ask who has an address.
const fn question(family: Family) -> &'static str {
    match family {
        Family::V4 => "arp",
        Family::V6 => "solicit",
    }
}

fn gateway_resolves_to_our_address(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab)?;

    let gateway = family.gateway().to_string();
    let facts = inside.must(["link", question(family), UPLINK, &gateway])?;

    assert_eq!(facts, [format!("mac {OURS}")]);
    Ok(())
}

/// The router's own link-layer address.
fn router(lab: &Lab) -> Outcome<String> {
    lab.on_remote(|netlink| Ok(Mac(&netlink.link("uplink")?.mac).to_string()))
}

/// Asks until the answer is `mac`.
fn resolves_to(inside: &mut Session, family: Family, target: IpAddr, mac: &str) -> Outcome {
    let mut last = Vec::new();
    let waited = wait::until("the link-layer address", || {
        last = inside.must(["link", question(family), UPLINK, &target.to_string()]).ok()?;
        (last == [format!("mac {mac}")]).then_some(())
    });
    waited.map_err(|error| format!("{error}: {last:?} instead of {mac}").into())
}

fn without_the_mapping_the_real_router_is_seen(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.pasta().configured().with(["-M", OURS, "--no-map-gw"]).session()?;
    // The host has to find its router before it knows it.
    inside.must(["udp", "echo", &echo.endpoint(), "64"])?;

    let router = router(lab)?;
    resolves_to(&mut inside, family, family.gateway(), &router)?;
    // Whom the host does not know is behind its router.
    resolves_to(&mut inside, family, family.unused(), &router)?;
    // Frames to there arrive as any others do.
    inside.must(["udp", "echo", &echo.endpoint(), "64"])?;

    // A router that is replaced is seen as the host sees it.
    let other = "02:00:00:00:00:77";
    let octets = [2, 0, 0, 0, 0, 0x77];
    lab.host().run(|| {
        let admin = Admin::open()?;
        admin.set_neighbour(index_of(UPLINK)?, family.gateway(), octets)
    })?;
    resolves_to(&mut inside, family, family.gateway(), other)
}

fn mapped_addresses_are_ours_whatever_the_host_knows(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    let neighbour = lab.remote().udp_echo(family.neighbour())?;
    let mut inside = session(lab)?;
    inside.must(["udp", "echo", &echo.endpoint(), "64"])?;
    if family == Family::V6 {
        // In IPv4 this is the router, and mapped.
        inside.must(["udp", "echo", &neighbour.endpoint(), "64"])?;
        resolves_to(&mut inside, family, family.neighbour(), &router(lab)?)?;
    }

    resolves_to(&mut inside, family, family.gateway(), OURS)
}

fn any_other_address_resolves_too(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab)?;

    let elsewhere = family.unused().to_string();
    let facts = inside.must(["link", question(family), UPLINK, &elsewhere])?;

    assert!(facts[0].starts_with("mac "), "{facts:?}");
    Ok(())
}

fn own_address_of_the_namespace_is_not_claimed(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab)?;

    // In IPv6 as duplicate address detection asks: a solicitation of one's own address with
    // another source is nothing that a node sends.
    let question = match family {
        Family::V4 => "arp",
        Family::V6 => "solicit-dad",
    };
    let own = family.host().to_string();
    inside.ask(["link", question, UPLINK, &own])?.failure("ETIMEDOUT")
}

fn duplicate_address_detection_finds_no_duplicate(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab)?;

    let question = match family {
        Family::V4 => "arp-probe",
        Family::V6 => "solicit-dad",
    };
    let own = family.host().to_string();
    inside.ask(["link", question, UPLINK, &own])?.failure("ETIMEDOUT")
}

fn kernel_of_the_namespace_resolves_by_itself(lab: &Lab, family: Family) -> Outcome {
    // A neighbour on the link: the namespace's kernel has to resolve it before it can send.
    let echo = lab.remote().udp_echo(family.neighbour())?;
    let mut inside = lab.pasta().configured().with(["--no-map-gw"]).session()?;

    inside.must(["udp", "echo", &echo.endpoint(), "64"])?;
    Ok(())
}
