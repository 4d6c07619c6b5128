//! UDP between the namespace and the network, through the tap.

use std::process::ExitCode;

use tests::harness::{self, Case};
use tests::lab::{Family, Lab, address};
use tests::{Outcome, case};

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, datagrams_of_every_size_come_back_unchanged),
        case!(families, closed_port_is_refused),
        case!(families, unreachable_host_is_reported_as_such),
        case!(families, silent_host_gives_no_answer_and_no_error),
        case!(families, far_side_sees_the_host_and_the_same_source_port),
        case!(families, one_source_port_talks_to_two_servers),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn datagrams_of_every_size_come_back_unchanged(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.session()?;

    let sizes = ["0", "1", "100", "1472", "9000", "60000"];
    let facts = inside.must([&["udp", "echo", &echo.endpoint()], &sizes[..]].concat())?;

    assert_eq!(facts, sizes.map(|size| format!("echoed {size}")));
    Ok(())
}

fn closed_port_is_refused(lab: &Lab, family: Family) -> Outcome {
    let port = lab.remote().closed_port(family.internet())?;
    let mut inside = lab.session()?;

    let closed = address::endpoint(family.internet(), port);
    inside.ask(["udp", "provoke", &closed])?.failure("ECONNREFUSED")
}

fn unreachable_host_is_reported_as_such(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    let nowhere = address::endpoint(family.unreachable(), 9);
    inside.ask(["udp", "provoke", &nowhere])?.failure(family.unreachable_error())
}

fn silent_host_gives_no_answer_and_no_error(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    let silent = address::endpoint(family.silent(), 9);
    inside.must(["udp", "silence", &silent, "500"])?;
    Ok(())
}

fn far_side_sees_the_host_and_the_same_source_port(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().udp_echo(family.internet())?;
    let mut inside = lab.session()?;

    inside.must(["udp", "from", "4242", &echo.endpoint()])?;

    let peer = echo.next_peer()?;
    assert_eq!((peer.ip(), peer.port()), (family.host(), 4242));
    Ok(())
}

fn one_source_port_talks_to_two_servers(lab: &Lab, family: Family) -> Outcome {
    let first = lab.remote().udp_echo(family.internet())?;
    let second = lab.remote().udp_echo(family.internet_second())?;
    let mut inside = lab.session()?;

    for echo in [&first, &second, &first] {
        inside.must(["udp", "from", "4242", &echo.endpoint()])?;
    }
    Ok(())
}
