//! The control socket: forwarded ports that change at run time, the status, and who may ask.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use tests::harness::{self, Case};
use tests::lab::pasta::{NO_PORTS, as_ordinary_user, contained_session};
use tests::lab::service::exchange;
use tests::lab::{Family, Lab, Session, process, wait};
use tests::{Outcome, case};

/// Where the socket is.
const SOCKET: &str = "/tmp/control.sock";

fn main() -> ExitCode {
    let cases: &[Case] = &[
        case!(families, port_is_opened_and_closed_at_run_time),
        case!(families, port_of_the_namespace_is_opened_at_run_time),
        case!(families, ports_of_an_attached_namespace_change),
        case!(families, automatic_ports_can_be_asked_for_later),
        case!(lab, change_that_cannot_be_made_changes_nothing),
        case!(lab, address_of_a_port_changes_in_place),
        case!(lab, ten_thousand_changes_lose_no_flow_and_leave_no_listener),
        case!(lab, status_says_why_a_port_cannot_be_reached),
        case!(lab, status_is_found_by_process_and_waited_for),
        case!(lab, status_names_a_helper_that_has_ended),
        case!(lab, second_instance_is_refused_and_a_dead_ones_socket_replaced),
        case!(lab, other_users_are_refused),
        case!(lab, clients_that_stall_cost_nobody_anything),
        case!(lab, socket_of_roots_instance_serves_its_user_and_root),
    ];
    harness::main(env!("CARGO_BIN_EXE_lab-client"), cases)
}

/// A session with a control socket and no ports but those of `options`.
fn session(lab: &Lab, options: &[&str]) -> Outcome<Session> {
    let mut all = vec!["-c", SOCKET];
    all.extend_from_slice(options);
    for option in ["-t", "-u", "-T", "-U"] {
        if !options.contains(&option) {
            all.extend([option, "none"]);
        }
    }
    let session = lab.pasta().configured().with(all).session()?;
    pesto(lab, &["wait", "--ready", SOCKET])?;
    Ok(session)
}

fn pesto_command(lab: &Lab, words: &[&str]) -> Command {
    let mut command = Command::new(lab.program("pesto"));
    command.args(words).env_clear().current_dir("/").stdin(Stdio::null());
    as_ordinary_user(&mut command, lab.power());
    command
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Runs `pesto`, which has to succeed; gives what it prints.
fn pesto(lab: &Lab, words: &[&str]) -> Outcome<String> {
    let Output { status, stdout, stderr } = pesto_command(lab, words).output()?;
    match status.success() {
        true => Ok(text(&stdout)),
        false => Err(format!("pesto {words:?}: {status}: {}", text(&stderr)).into()),
    }
}

/// Runs `pesto`, which has to fail with status 1; gives why.
fn pesto_fails(lab: &Lab, words: &[&str]) -> Outcome<String> {
    let Output { status, stdout, stderr } = pesto_command(lab, words).output()?;
    match status.code() {
        Some(1) => Ok(text(&stderr)),
        _ => Err(format!("pesto {words:?}: {status}: {}{}", text(&stdout), text(&stderr)).into()),
    }
}

fn serves_echo(inside: &mut Session, family: Family, port: u16) -> Outcome {
    let at = SocketAddr::new(family.any(), port).to_string();
    inside.must(["serve", "tcp", &format!("echo{port}"), &at, "echo"])?;
    Ok(())
}

fn connect(lab: &Lab, to: SocketAddr) -> Outcome<TcpStream> {
    lab.remote().run(|| {
        let stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        Ok(stream)
    })
}

fn is_refused(lab: &Lab, to: SocketAddr) -> bool {
    let refused = lab.remote().run(|| match TcpStream::connect(to) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("not refused: {other:?}").into()),
    });
    refused.is_ok()
}

fn port_is_opened_and_closed_at_run_time(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab, &["-t", "8000"])?;
    serves_echo(&mut inside, family, 8000)?;
    let to = |port| SocketAddr::new(family.host(), port);
    let mut old = connect(lab, to(8000))?;
    exchange(&mut old)?;
    assert!(is_refused(lab, to(8001)));

    pesto(lab, &["-A", "-t", "8001:8000", SOCKET])?;
    let mut new = connect(lab, to(8001))?;
    exchange(&mut new)?;

    pesto(lab, &["-D", "-t", "8001:8000", "-t", "8000", SOCKET])?;
    assert!(is_refused(lab, to(8000)) && is_refused(lab, to(8001)));
    // Flows live on.
    exchange(&mut old)?;
    exchange(&mut new)?;
    inside.end(0)?;
    assert!(!Path::new(SOCKET).exists(), "the socket is removed at the end");
    Ok(())
}

fn port_of_the_namespace_is_opened_at_run_time(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab, &[])?;
    let service = lab.host().tcp(family.loopback(), tests::lab::service::echo)?;
    let port = service.address().port();
    let at = SocketAddr::new(family.loopback(), port).to_string();
    inside.ask(["tcp", "echo", &at, "1", "100"])?.failure("ECONNREFUSED")?;
    pesto(lab, &["-A", "-T", &port.to_string(), SOCKET])?;
    inside.must(["tcp", "echo", &at, "1", "100"])?;
    pesto(lab, &["-C", "SPLICE", SOCKET])?;
    inside.ask(["tcp", "echo", &at, "1", "100"])?.failure("ECONNREFUSED")
}

fn ports_of_an_attached_namespace_change(lab: &Lab, family: Family) -> Outcome {
    let mut inside = contained_session(lab)?;
    let id = inside.running().pid().to_string();
    let pasta = lab.pasta().configured().with(NO_PORTS);
    // In the background, from another directory than where it ends up.
    pasta.with(["-c", SOCKET]).attach([&id])?.expect_code(0)?;
    pesto(lab, &["wait", "--ready", "--timeout", "5", SOCKET])?;
    serves_echo(&mut inside, family, 8000)?;
    pesto(lab, &["-t", "8000", SOCKET])?;
    exchange(&mut connect(lab, SocketAddr::new(family.host(), 8000))?)?;
    inside.end(0)?;
    wait::until("the removal of the socket", || (!Path::new(SOCKET).exists()).then_some(()))
}

fn automatic_ports_can_be_asked_for_later(lab: &Lab, family: Family) -> Outcome {
    let mut inside = session(lab, &[])?;
    serves_echo(&mut inside, family, 8000)?;
    let to = SocketAddr::new(family.host(), 8000);
    assert!(is_refused(lab, to));
    pesto(lab, &["-A", "-t", "auto", SOCKET])?;
    let mut stream = wait::until("the port that is listened on inside", || connect(lab, to).ok())?;
    exchange(&mut stream)?;
    pesto(lab, &["-D", "-t", "auto", SOCKET])?;
    assert!(is_refused(lab, to));
    exchange(&mut stream)
}

fn change_that_cannot_be_made_changes_nothing(lab: &Lab) -> Outcome {
    let mut inside = session(lab, &["-t", "8000"])?;
    serves_echo(&mut inside, Family::V4, 8000)?;
    let taken = lab.host().tcp_at("0.0.0.0:8002".parse()?, tests::lab::service::echo)?;
    let before = pesto(lab, &[SOCKET])?;
    let why = pesto_fails(lab, &["-A", "-t", "8001", "-t", "8002", "-D", "-t", "8000", SOCKET])?;
    assert!(why.contains("'-t 8002': port 8002: Address already in use"), "{why}");
    assert_eq!(pesto(lab, &[SOCKET])?, before);
    assert!(is_refused(lab, SocketAddr::new(Family::V4.host(), 8001)));
    exchange(&mut connect(lab, SocketAddr::new(Family::V4.host(), 8000))?)?;
    // The rest, if asked for.
    let why = pesto_fails(lab, &["-k", "-A", "-t", "8001:8000", "-t", "8002", SOCKET])?;
    assert!(why.contains("left out: '-t 8002'"), "{why}");
    exchange(&mut connect(lab, SocketAddr::new(Family::V4.host(), 8001))?)?;
    let why = pesto_fails(lab, &["-A", "-t", "80", SOCKET])?;
    assert!(why.contains("net.ipv4.ip_unprivileged_port_start"), "{why}");
    let why = pesto_fails(lab, &["-A", "-t", "8001:9", SOCKET])?;
    assert!(why.contains("conflict"), "{why}");
    drop(taken);
    Ok(())
}

fn address_of_a_port_changes_in_place(lab: &Lab) -> Outcome {
    let mut inside = session(lab, &["-t", "8000"])?;
    serves_echo(&mut inside, Family::V4, 8000)?;
    let host = Family::V4.host();
    let mut old = connect(lab, SocketAddr::new(host, 8000))?;
    exchange(&mut old)?;
    // No two sockets can have the port, so the one is closed for the other.
    pesto(lab, &["-t", &format!("{host}/8000"), SOCKET])?;
    exchange(&mut connect(lab, SocketAddr::new(host, 8000))?)?;
    assert!(is_refused(lab, SocketAddr::new(Family::V6.host(), 8000)));
    // And back again, if the other cannot be had.
    let why = pesto_fails(lab, &["-t", "192.0.2.250/8000", SOCKET])?;
    assert!(why.contains("the host does not have this address"), "{why}");
    exchange(&mut connect(lab, SocketAddr::new(host, 8000))?)?;
    exchange(&mut old)
}

/// TCP and UDP sockets of the host that listen on all ports from 7000 to 7999.
fn listeners(lab: &Lab) -> Outcome<usize> {
    lab.host().run(|| {
        let mut count = 0;
        for file in ["tcp", "tcp6", "udp", "udp6"] {
            let table = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
            for line in table.lines().skip(1) {
                let words: Vec<_> = line.split_whitespace().collect();
                let port = words.get(1).and_then(|it| it.rsplit_once(':'));
                let port = port.and_then(|(_, it)| u16::from_str_radix(it, 16).ok());
                let listens = file.starts_with("udp") || words.get(3) == Some(&"0A");
                count += usize::from(listens && port.is_some_and(|it| (7000..8000).contains(&it)));
            }
        }
        Ok(count)
    })
}

/// Changes that are made.
const CHANGES: u16 = 10_000;

fn ten_thousand_changes_lose_no_flow_and_leave_no_listener(lab: &Lab) -> Outcome {
    let mut inside = session(lab, &["-t", "7000"])?;
    serves_echo(&mut inside, Family::V4, 7000)?;
    let to = SocketAddr::new(Family::V4.host(), 7000);
    let mut stream = connect(lab, to)?;
    exchange(&mut stream)?;
    let before = listeners(lab)?;
    assert_eq!(before, 1);

    // Half of them open a port, the other half close it again; some cannot be made.
    let _taken = lab.host().tcp_at("0.0.0.0:7999".parse()?, tests::lab::service::echo)?;
    let mut changes = String::new();
    for n in 0..CHANGES / 2 {
        let port = 7001 + n % 500;
        let option = if n % 3 == 0 { "-u" } else { "-t" };
        let failing = if n % 100 == 0 { " -t 7999" } else { "" };
        writeln!(changes, "-A {option} {port}:7000{failing}")?;
        match failing {
            "" => writeln!(changes, "-D {option} {port}:7000")?,
            _ => writeln!(changes, "-A -U {port} -D -U {port}")?,
        }
    }
    let mut batch = pesto_command(lab, &["batch", SOCKET]);
    let mut batch =
        batch.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut input = batch.stdin.take().ok_or("no standard input")?;
    let ended = AtomicBool::new(false);
    let (exchanges, output) = std::thread::scope(|scope| -> Outcome<(usize, Output)> {
        scope.spawn(|| {
            // Fails if it has ended, which is seen by its output.
            let _ = input.write_all(changes.as_bytes());
            drop(input);
        });
        let traffic = scope.spawn(|| {
            let mut exchanges = 0;
            while !ended.load(Ordering::Relaxed) {
                exchange(&mut stream).map_err(|error| error.to_string())?;
                exchanges += 1;
            }
            Ok::<_, String>(exchanges)
        });
        let output = batch.wait_with_output();
        ended.store(true, Ordering::Relaxed);
        let exchanges = traffic.join().map_err(|_| "the traffic ended")??;
        Ok((exchanges, output?))
    })?;
    let answers = text(&output.stdout);
    let count = |word: &str| answers.lines().filter(|line| line.starts_with(word)).count();
    let failing = usize::from(CHANGES / 2).div_ceil(100);
    assert_eq!((count("ok "), count("error ")), (usize::from(CHANGES) - failing, failing));
    assert!(exchanges > 100, "{exchanges} exchanges beside the changes");
    // The one of the other program is on the host too.
    assert_eq!(listeners(lab)?, before + 1, "{}", pesto(lab, &["status", SOCKET])?);
    exchange(&mut connect(lab, to)?)
}

fn status_says_why_a_port_cannot_be_reached(lab: &Lab) -> Outcome {
    let mut inside = session(lab, &["-t", "8000,8001:8000"])?;
    serves_echo(&mut inside, Family::V4, 8001)?;
    let line = |what: &str| -> Outcome<String> {
        let status = pesto(lab, &["status", SOCKET])?;
        let line = status.lines().find(|line| line.contains(what)).map(str::to_owned);
        line.ok_or_else(|| format!("no line with {what}: {status}").into())
    };
    let closed = line("-t 8000:")?;
    assert!(
        closed.contains("nobody listens on port 8000 in the namespace, 0 accepted"),
        "{closed}"
    );
    serves_echo(&mut inside, Family::V4, 8000)?;
    let open = line("-t 8001:8000:")?;
    assert!(
        open.contains("open, port 8000 in the namespace is listened on for IPv4 only"),
        "{open}"
    );
    let mut stream = connect(lab, SocketAddr::new(Family::V4.host(), 8001))?;
    exchange(&mut stream)?;
    assert!(line("-t 8001:8000:")?.contains("1 accepted"));
    assert!(line("  IPv4")?.contains("bound to"), "{}", line("  IPv4")?);
    let flows = pesto(lab, &["flows", "--json", SOCKET])?;
    assert!(flows.contains("\"kind\":\"tcp\"") && flows.contains(":8000\""), "{flows}");
    assert!(flows.contains("\"to_namespace\":8,\"from_namespace\":8"), "{flows}");
    drop(stream);
    let metrics = pesto(lab, &["metrics", SOCKET])?;
    assert!(metrics.contains("\npasta_flows_total ") && metrics.ends_with("# EOF\n"), "{metrics}");
    let json = pesto(lab, &["status", "--json", SOCKET])?;
    assert!(
        json.contains("\"list\":\"-t 8001:8000\"") && json.contains("\"accepted\":1"),
        "{json}"
    );
    pesto(lab, &["resync", SOCKET])?;
    Ok(())
}

fn status_is_found_by_process_and_waited_for(lab: &Lab) -> Outcome {
    let mut inside = session(lab, &[])?;
    pesto(lab, &["wait", "--bound", SOCKET])?;
    pesto(lab, &["wait", "--generation", "1", SOCKET])?;
    let why = pesto_fails(lab, &["wait", "--generation", "99", "--timeout", "0", SOCKET])?;
    assert!(why.contains("timed out after"), "{why}");
    let id = inside.running().pid().to_string();
    let status = lab.pasta().attach(["status", &id])?.expect_code(0)?;
    assert!(status.output.iter().any(|line| line.contains(&format!("process {id}"))), "{status:?}");
    let none = lab.pasta().attach(["status", "1"])?.expect_code(1)?;
    assert!(none.errors.contains("pasta: "), "{none:?}");
    Ok(())
}

fn status_names_a_helper_that_has_ended(lab: &Lab) -> Outcome {
    let _inside = session(lab, &["-t", "8000"])?;
    process::only("pasta-monitor")?.signal(nix::sys::signal::Signal::SIGKILL)?;
    wait::until("the end of the monitor in the status", || {
        let status = pesto(lab, &["status", SOCKET]).ok()?;
        status.contains("pasta-monitor has ended").then_some(())
    })?;
    // What needs it is refused, the rest goes on.
    let why = pesto_fails(lab, &["-A", "-T", "9000", SOCKET])?;
    assert!(why.contains("pasta-monitor has ended"), "{why}");
    pesto(lab, &["-A", "-t", "8001", SOCKET])?;
    process::only("pasta-datapath")?.signal(nix::sys::signal::Signal::SIGKILL)?;
    wait::until("the end of the datapath in the answer", || {
        let why = pesto_fails(lab, &["-A", "-t", "8002", SOCKET]).ok()?;
        why.contains("pasta-datapath has ended").then_some(())
    })?;
    assert!(pesto(lab, &["status", SOCKET])?.contains("no network"));
    Ok(())
}

fn second_instance_is_refused_and_a_dead_ones_socket_replaced(lab: &Lab) -> Outcome {
    let mut inside = session(lab, &[])?;
    let second = lab.pasta().with(["-c", SOCKET]).run(["true"])?.expect_code(1)?;
    assert!(second.errors.contains("another instance is listening there"), "{second:?}");
    pesto(lab, &["status", SOCKET])?;
    let pid = nix::unistd::Pid::from_raw(inside.running().pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    drop(inside);
    assert!(std::fs::symlink_metadata(SOCKET)?.file_type().is_socket(), "it was left behind");
    let why = pesto_fails(lab, &["status", SOCKET])?;
    assert!(why.contains("no instance is listening there"), "{why}");
    process::wait_until_none_left()?;
    let again = session(lab, &[])?;
    pesto(lab, &["status", SOCKET])?;
    again.end(0)?;
    Ok(())
}

fn other_users_are_refused(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let _inside = session(lab, &[])?;
    let mode = std::fs::metadata(SOCKET)?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let as_user = |user: u32| {
        let mut command = pesto_command(lab, &["status", SOCKET]);
        command.uid(user).gid(user).output()
    };
    assert!(text(&as_user(4242)?.stderr).contains("Permission denied"));
    // Where the mode lets them connect, they are asked who they are.
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o666))?;
    let other = as_user(4242)?;
    assert!(text(&other.stderr).contains("only root and the user"), "{other:?}");
    assert!(as_user(0)?.status.success());
    Ok(())
}

fn clients_that_stall_cost_nobody_anything(lab: &Lab) -> Outcome {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, send, socket};
    use std::os::fd::AsRawFd;
    let mut inside = session(lab, &["-t", "8000"])?;
    serves_echo(&mut inside, Family::V4, 8000)?;
    let mut stream = connect(lab, SocketAddr::new(Family::V4.host(), 8000))?;
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o666))?;
    let mut stalled = Vec::new();
    for n in 0_u8..40 {
        let client =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_NONBLOCK, None)?;
        // Some wait in the backlog, and some are refused: all the same.
        let connected = nix::sys::socket::connect(client.as_raw_fd(), &UnixAddr::new(SOCKET)?);
        if connected.is_ok() {
            // Nothing, half of something, or what makes no sense, and as much as there is room for.
            for _ in 0..usize::from(n % 4) * 100 {
                let octets = [n, 0xff, 0, 1];
                let _ = send(
                    client.as_raw_fd(),
                    octets.get(..usize::from(n % 5)).unwrap_or_default(),
                    MsgFlags::MSG_NOSIGNAL,
                );
            }
        }
        stalled.push(client);
    }
    for _ in 0..20 {
        exchange(&mut stream)?;
        pesto(lab, &["-A", "-t", "8001", SOCKET])?;
        pesto(lab, &["-D", "-t", "8001", SOCKET])?;
    }
    pesto(lab, &["status", SOCKET])?;
    drop(stalled);
    inside.end(0)?;
    Ok(())
}

fn socket_of_roots_instance_serves_its_user_and_root(lab: &Lab) -> Outcome {
    lab.needs_root()?;
    let user = tests::lab::USER.to_string();
    let mut inside = contained_session(lab)?;
    let id = inside.running().pid().to_string();
    let pasta = lab.pasta().configured().with(NO_PORTS).as_root();
    pasta.with(["--runas", &user, "-c", SOCKET]).attach([&id])?.expect_code(0)?;
    pesto(lab, &["-A", "-t", "8001", SOCKET])?;
    let status = pesto_command(lab, &["status", SOCKET]).uid(0).gid(0).output()?;
    assert!(status.status.success(), "{status:?}");
    inside.end(0)?;
    wait::until("the removal of the socket", || (!Path::new(SOCKET).exists()).then_some(()))
}
