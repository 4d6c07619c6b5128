//! Echo requests of the namespace.

use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::{Family, Lab, UPLINK, address};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, echo_of_every_size_is_answered_unchanged),
        case!(families, echo_larger_than_the_namespaces_mtu_is_answered_unchanged),
        case!(families, without_ping_sockets_one_line_says_what_to_change),
        case!(families, gateway_answers_an_echo),
        case!(families, silent_host_does_not_answer_an_echo),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn echo_of_every_size_is_answered_unchanged(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    for size in ["0", "1", "56", "1400", "8000"] {
        let facts = inside.must(["ping", &family.internet().to_string(), "3", size])?;
        assert_eq!(facts, ["answered 3"]);
    }
    Ok(())
}

fn echo_larger_than_the_namespaces_mtu_is_answered_unchanged(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.pasta().configured().with(["--mtu", "1500"]).session()?;

    for size in ["1472", "1473", "8000", "60000"] {
        inside.must(["ping", &family.internet().to_string(), "3", size])?;
    }
    Ok(())
}

fn without_ping_sockets_one_line_says_what_to_change(lab: &Lab, family: Family) -> Outcome {
    // Of a user namespace only groups that are mapped could be named, and ours is one.
    lab.needs_root()?;
    lab.host().run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0")?))?;
    let echo = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.session()?;

    for _ in 0..2 {
        let pinged = inside.ask(["ping", &family.internet().to_string(), "1", "56", "500"])?;
        assert!(pinged.result.is_err(), "{pinged:?}");
    }
    inside.must(["udp", "echo", &echo.endpoint(), "1000"])?;
    let errors = inside.end(0)?.errors;
    let lines = errors.lines().filter(|line| line.contains("net.ipv4.ping_group_range")).count();
    assert_eq!(lines, 1, "{errors}");
    Ok(())
}

fn gateway_answers_an_echo(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    inside.must(["ping", &address::zoned(family.gateway(), UPLINK), "3", "56"])?;
    Ok(())
}

fn silent_host_does_not_answer_an_echo(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    let silent = family.silent().to_string();
    inside.ask(["ping", &silent, "1", "56", "500"])?.failure("ETIMEDOUT")
}
