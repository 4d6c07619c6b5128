//! TCP between the namespace and the network, through the tap.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};
use tests::harness::{self, Case};
use tests::lab::{DATAPATH, Family, Lab, Skip, address, process, service, wait};
use tests::many_flows::{self, Role};
use tests::pattern::Pattern;
use tests::{Outcome, case};

/// Large against every buffer on the way, in octets.
const LARGE: u64 = 64 << 20;

/// A file of today, in octets; without optimisation it would take too long.
const HUGE: u64 = if cfg!(debug_assertions) { LARGE } else { 1 << 30 };

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, large_download_arrives_unchanged),
        case!(families, large_upload_arrives_unchanged),
        case!(families, both_directions_carry_data_at_the_same_time),
        case!(families, answer_arrives_after_the_namespace_has_finished_sending),
        case!(families, octets_arrive_after_the_far_side_has_finished_sending),
        case!(families, closed_port_is_refused),
        case!(families, unreachable_host_is_reported_as_such),
        case!(families, connection_to_a_silent_host_is_neither_refused_nor_accepted),
        case!(families, reset_by_the_far_side_reaches_the_namespace),
        case!(families, what_the_far_side_sent_before_its_reset_comes_first),
        case!(families, reset_by_the_namespace_reaches_the_far_side),
        case!(families, thousand_flows_at_once_all_carry_their_own_octets),
        case!(families, more_flows_than_the_taps_queue_holds_frames_all_get_through),
        case!(families, slow_reader_in_the_namespace_loses_nothing),
        case!(families, slow_reader_at_the_far_side_loses_nothing),
        case!(families, what_the_host_lets_wait_unsent_has_no_part_in_windows),
        case!(families, many_small_messages_keep_their_order),
        case!(families, nothing_stalls_while_the_processors_have_other_work),
        case!(lab, lack_of_descriptors_refuses_new_flows_and_leaves_old_ones_alone),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

fn large_download_arrives_unchanged(lab: &Lab, family: Family) -> Outcome {
    let source = lab.remote().tcp(family.internet(), service::source(Pattern::new(1), HUGE))?;
    let mut inside = lab.session()?;

    let facts = inside.must(["tcp", "fetch", &source.endpoint(), "1", &HUGE.to_string()])?;

    assert_eq!(facts, [format!("verified {HUGE}")]);
    assert_eq!(source.next_peer()?.ip(), family.host(), "the far side sees the host's address");
    Ok(())
}

fn large_upload_arrives_unchanged(lab: &Lab, family: Family) -> Outcome {
    let sink = lab.remote().tcp(family.internet(), service::sink(Pattern::new(2)))?;
    let mut inside = lab.session()?;

    let facts = inside.must(["tcp", "send", &sink.endpoint(), "2", &HUGE.to_string()])?;

    assert_eq!(facts, [format!("verified {HUGE}")]);
    assert_eq!(sink.next_report()?, format!("verified {HUGE}"));
    Ok(())
}

fn both_directions_carry_data_at_the_same_time(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut inside = lab.session()?;

    inside.must(["tcp", "echo", &echo.endpoint(), "3", &LARGE.to_string()])?;
    Ok(())
}

fn answer_arrives_after_the_namespace_has_finished_sending(lab: &Lab, family: Family) -> Outcome {
    // Nothing is answered before the end of the question has come.
    let late = lab.remote().tcp(family.internet(), |stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question)?;
        service::send_pattern(stream, Pattern::new(4), question.len() as u64)?;
        stream.shutdown(Shutdown::Write)?;
        Ok(question.len().to_string())
    })?;
    let mut inside = lab.session()?;

    inside.must(["tcp", "echo", &late.endpoint(), "4", "3000000"])?;

    assert_eq!(late.next_report()?, "3000000");
    Ok(())
}

fn octets_arrive_after_the_far_side_has_finished_sending(lab: &Lab, family: Family) -> Outcome {
    let brief = lab.remote().tcp(family.internet(), |stream| {
        service::send_pattern(stream, Pattern::new(5), 1000)?;
        stream.shutdown(Shutdown::Write)?;
        Ok(service::verify_pattern(stream, Pattern::new(6))?.to_string())
    })?;
    let mut inside = lab.session()?;

    let facts = inside.must(["tcp", "last-word", &brief.endpoint(), "6", "3000000"])?;

    assert_eq!(facts, ["read 1000"]);
    assert_eq!(brief.next_report()?, "3000000");
    Ok(())
}

fn closed_port_is_refused(lab: &Lab, family: Family) -> Outcome {
    let port = lab.remote().closed_port(family.internet())?;
    let mut inside = lab.session()?;

    let closed = address::endpoint(family.internet(), port);
    inside.ask(["tcp", "connect", &closed])?.failure("ECONNREFUSED")
}

fn unreachable_host_is_reported_as_such(lab: &Lab, family: Family) -> Outcome {
    let mut inside = lab.session()?;

    let nowhere = address::endpoint(family.unreachable(), 80);
    inside.ask(["tcp", "connect", &nowhere])?.failure(family.unreachable_error())
}

fn connection_to_a_silent_host_is_neither_refused_nor_accepted(
    lab: &Lab,
    family: Family,
) -> Outcome {
    let mut inside = lab.session()?;

    let silent = address::endpoint(family.silent(), 80);
    inside.ask(["tcp", "connect-within", &silent, "1500"])?.failure("TimedOut")
}

fn reset_by_the_far_side_reaches_the_namespace(lab: &Lab, family: Family) -> Outcome {
    let rude = lab.remote().tcp(family.internet(), service::reset)?;
    let mut inside = lab.session()?;

    inside.ask(["tcp", "provoke", &rude.endpoint()])?.failure("ECONNRESET")
}

/// A server that answers before it has read everything ends with a reset right behind its answer.
fn what_the_far_side_sent_before_its_reset_comes_first(lab: &Lab, family: Family) -> Outcome {
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let rude = lab.remote().tcp(family.internet(), move |stream| {
        may_go.lock().map_err(|_| "a thread panicked")?.recv()?;
        stream.write_all(b"no!")?;
        setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        Ok("reset".to_owned())
    })?;
    let mut inside = lab.session()?;
    inside.must(["tcp", "open", "talk", &rude.endpoint()])?;

    // Both are there when the datapath looks: the host no longer lists the connection.
    let datapath = process::only(DATAPATH)?;
    datapath.signal(Signal::SIGSTOP)?;
    go.send(())?;
    let table = match family {
        Family::V4 => "/proc/thread-self/net/tcp",
        Family::V6 => "/proc/thread-self/net/tcp6",
    };
    let port: u16 = rude.endpoint().rsplit(':').next().ok_or("no port")?.parse()?;
    let port_field = format!(":{port:04X} ");
    lab.host().run(|| {
        wait::until("the end of the host's connection", || {
            fs::read_to_string(table).ok().filter(|text| !text.contains(&port_field)).map(drop)
        })
    })?;
    datapath.signal(Signal::SIGCONT)?;

    for _ in b"no!" {
        inside.must(["tcp", "read", "talk"])?;
    }
    inside.ask(["tcp", "read", "talk"])?.failure("ECONNRESET")
}

fn reset_by_the_namespace_reaches_the_far_side(lab: &Lab, family: Family) -> Outcome {
    let victim = lab.remote().tcp(family.internet(), |stream| {
        let error = stream.read(&mut [0]).err().ok_or("no error")?;
        Ok(format!("{:?}", error.kind()))
    })?;
    let mut inside = lab.session()?;
    inside.must(["tcp", "open", "victim", &victim.endpoint()])?;

    inside.must(["tcp", "drop", "victim", "reset"])?;

    assert_eq!(victim.next_report()?, "ConnectionReset");
    Ok(())
}

fn thousand_flows_at_once_all_carry_their_own_octets(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut inside = lab.session()?;

    let facts = inside.must(["tcp", "flows", &echo.endpoint(), "1000", "20000"])?;

    assert_eq!(facts, ["whole 1000"]);
    Ok(())
}

/// Flows that lose their frames every time, since others fill the queue, would take minutes.
fn more_flows_than_the_taps_queue_holds_frames_all_get_through(
    lab: &Lab,
    family: Family,
) -> Outcome {
    /// More than any window that there is at first.
    const LENGTH: u64 = 150_000;
    let most = usize::try_from(process::raise_descriptors()?)?;
    let count = 6000;
    if most < count + 1000 {
        return Err(Skip::new(format!("{most} descriptors are not enough")).into());
    }
    let listener = lab.remote().run(|| Ok(TcpListener::bind((family.internet(), 0))?))?;
    listen(&listener, Backlog::new(4095)?)?;
    let to = listener.local_addr()?;
    let tally = many_flows::serve(listener, Role::Sink)?;
    let mut inside = lab.session()?;

    let to = address::endpoint(to.ip(), to.port());
    inside.must(["tcp", "many", &to, &count.to_string(), &LENGTH.to_string()])?;

    wait::until("all octets to arrive", || {
        (tally.each().iter().filter(|octets| **octets == LENGTH).count() == count).then_some(())
    })
}

fn slow_reader_in_the_namespace_loses_nothing(lab: &Lab, family: Family) -> Outcome {
    let source = lab.remote().tcp(family.internet(), service::source(Pattern::new(7), LARGE))?;
    let mut inside = lab.session()?;

    inside.must(["tcp", "fetch", &source.endpoint(), "7", &LARGE.to_string(), "late"])?;
    Ok(())
}

fn slow_reader_at_the_far_side_loses_nothing(lab: &Lab, family: Family) -> Outcome {
    let slow = lab.remote().tcp(family.internet(), |stream| {
        service::wait_until_filled(stream)?;
        service::sink(Pattern::new(8))(stream)
    })?;
    let mut inside = lab.session()?;

    inside.must(["tcp", "send", &slow.endpoint(), "8", &LARGE.to_string()])?;

    assert_eq!(slow.next_report()?, format!("verified {LARGE}"));
    Ok(())
}

/// With `net.ipv4.tcp_notsent_lowat` a socket takes less than its buffer has room for, unless its
/// own option says otherwise.
fn what_the_host_lets_wait_unsent_has_no_part_in_windows(lab: &Lab, family: Family) -> Outcome {
    let setting = "/proc/sys/net/ipv4/tcp_notsent_lowat";
    lab.host().run(|| Ok(fs::write(setting, "16384")?))?;
    let sink = lab.remote().tcp(family.internet(), service::sink(Pattern::new(3)))?;
    let mut inside = lab.pasta().configured().with(["-d"]).session()?;

    inside.must(["tcp", "send", &sink.endpoint(), "3", &LARGE.to_string()])?;

    let backlog = inside.end(0)?.expect_code(0)?.backlog_octets()?;
    assert!(backlog < LARGE / 64, "{backlog}");
    Ok(())
}

fn many_small_messages_keep_their_order(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut inside = lab.session()?;
    inside.must(["tcp", "open", "talk", &echo.endpoint()])?;

    for length in (1..400).chain([1000, 1448, 1460, 4000, 65536]) {
        inside.must(["tcp", "exchange", "talk", "9", &length.to_string()])?;
    }
    Ok(())
}

fn nothing_stalls_while_the_processors_have_other_work(lab: &Lab, family: Family) -> Outcome {
    let echo = lab.remote().tcp(family.internet(), service::echo)?;
    let mut inside = lab.session()?;
    let done = AtomicBool::new(false);

    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism()?.get() {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let facts = inside.must(["tcp", "flows", &echo.endpoint(), "128", "200000"]);
        let large = inside.must(["tcp", "echo", &echo.endpoint(), "11", "30000000"]);
        done.store(true, Ordering::Relaxed);
        assert_eq!(facts?, ["whole 128"]);
        large.map(drop)
    })
}

fn lack_of_descriptors_refuses_new_flows_and_leaves_old_ones_alone(lab: &Lab) -> Outcome {
    /// What each process may have open: more than the lab itself needs, far less than usual.
    const LIMIT: u64 = 200;
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, LIMIT)?;
    let echo = lab.remote().tcp(Family::V4.internet(), service::echo)?;
    let mut inside = lab.session()?;

    let mut refused = None;
    let mut opened = 0;
    while refused.is_none() && opened < LIMIT {
        let answer = inside.ask(["tcp", "open", &format!("c{opened}"), &echo.endpoint()])?;
        match answer.result {
            Ok(_) => opened += 1,
            Err(_) => refused = Some(answer),
        }
    }
    refused.ok_or("nobody was refused")?.failure("ECONNREFUSED")?;
    assert!(opened > LIMIT / 2, "only {opened} connections");
    for name in ["c0", &format!("c{}", opened - 1)] {
        inside.must(["tcp", "exchange", name, "1", "100000"])?;
    }

    // One that ends makes room for another.
    inside.must(["tcp", "drop", "c1"])?;
    wait::until("room for a connection", || {
        inside.ask(["tcp", "open", "new", &echo.endpoint()]).ok()?.result.ok()
    })?;
    inside.must(["tcp", "exchange", "new", "2", "1000"])?;
    let finished = inside.end(0)?.expect_code(0)?;
    assert_eq!(finished.errors.matches("new flows are refused").count(), 1, "{finished:?}");
    Ok(())
}
