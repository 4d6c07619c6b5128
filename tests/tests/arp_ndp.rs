//! Address resolution as the namespace sees it, asked with frames of our own.

use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::{Family, Lab, Session, UPLINK};
use tests::{Outcome, case};

/// The address that `-M` gives to our end of the link.
const OURS: &str = "9a:55:9a:55:9a:01";

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, gateway_resolves_to_our_address),
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
