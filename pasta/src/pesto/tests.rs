use super::arguments::{ChangeLine, Command, Condition, Format, parse};
use super::edit::{Edit, Table, apply};
use crate::ports::spec::Spec;
use crate::ports::{PortOption, requested};
use pasta_ipc::control::RequestedForward;
use std::ffi::OsString;
use std::time::Duration;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn edits(line: &str) -> Vec<Edit> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    ChangeLine::read(&words).unwrap().edits
}

fn of(lines: &[(PortOption, &str)]) -> Vec<RequestedForward> {
    let asked = |(option, text): &(PortOption, &str)| {
        requested(*option, &Spec::parse(*option, text).unwrap()).unwrap()
    };
    lines.iter().flat_map(asked).collect()
}

fn state() -> Vec<RequestedForward> {
    of(&[(PortOption::TcpIn, "8080:80"), (PortOption::UdpIn, "53"), (PortOption::TcpOut, "auto")])
}

fn shown(forwards: &[RequestedForward]) -> Vec<String> {
    forwards.iter().map(ToString::to_string).collect()
}

fn after(line: &str) -> Result<Vec<String>, String> {
    apply(state(), &edits(line)).map(|it| shown(&it))
}

#[test]
fn plain_option_replaces_both_protocols_of_its_table_once() {
    let wanted = ["-T auto", "-t 1", "-t 2"];
    assert_eq!(after("-t 1 -t 2").unwrap(), wanted);
    let wanted = ["-t 8080:80", "-u 53", "-U 7"];
    assert_eq!(after("-U 7").unwrap(), wanted);
    assert_eq!(after("-t none").unwrap(), ["-T auto"]);
}

#[test]
fn additions_and_deletions_are_made_in_order() {
    let wanted = ["-t 8080:80", "-u 53", "-T auto", "-t 9000-9001"];
    assert_eq!(after("-A -t 9000-9001").unwrap(), wanted);
    assert_eq!(after("-D -t 8080:80 -A -t 8080:81").unwrap(), ["-u 53", "-T auto", "-t 8080:81"]);
    assert_eq!(after("-D -T auto").unwrap(), ["-t 8080:80", "-u 53"]);
    assert_eq!(after("-C HOST -A -t 1").unwrap(), ["-T auto", "-t 1"]);
    assert_eq!(
        after("--add --tcp-ports=1 --clear SPLICE").unwrap(),
        ["-t 8080:80", "-u 53", "-t 1"]
    );
}

#[test]
fn what_is_not_there_or_there_already_is_an_error() {
    assert!(after("-D -t 8080").unwrap_err().contains("not found"), "it leads elsewhere");
    assert!(after("-D -u 8080:80").unwrap_err().contains("not found"));
    assert!(after("-A -u 53").unwrap_err().contains("conflict"));
}

#[test]
fn lists_are_apart_so_that_each_port_can_be_deleted() {
    let forwards = of(&[(PortOption::TcpIn, "22,25,2000-5000,~3000-3010")]);
    assert_eq!(shown(&forwards), ["-t 22", "-t 25", "-t 2000-2999", "-t 3011-5000"]);
    let left = apply(forwards, &edits("-D -t 25")).unwrap();
    assert_eq!(shown(&left), ["-t 22", "-t 2000-2999", "-t 3011-5000"]);
}

#[test]
fn what_is_shown_can_be_read_again() {
    for text in [
        "22",
        "22:23",
        "22-80:32-90",
        "127.0.0.1/80",
        "192.0.2.1%eth0/22",
        "%eth0/22",
        "::1/auto",
        "auto",
        "all",
        "0.0.0.0/8080:10.89.0.7/80",
        "127.0.0.9/all:10.89.0.7",
        "127.0.0.9/all:10.89.0.7,auto",
        "8000-8010,auto",
        "~20000-20010",
        "0.0.0.0/8080-8081:10.89.0.7",
    ] {
        let forwards = of(&[(PortOption::TcpIn, text)]);
        for forward in forwards {
            let again = forward.to_string();
            let again = again.strip_prefix("-t ").unwrap();
            assert_eq!(of(&[(PortOption::TcpIn, again)]), [forward], "{text}: {again}");
        }
    }
}

#[test]
fn command_lines_are_read_as_the_c_programs() {
    let path = "/run/s";
    let show = parse(&words("/run/s")).unwrap();
    let edits = Vec::new();
    let (shows, keeps_rest) = (false, false);
    assert_eq!(show, Command::Ports { path: path.into(), edits, shows, keeps_rest });
    let Ok(Command::Ports { edits, shows: true, .. }) = parse(&words("-sAt80 /run/s -u 1")) else {
        panic!()
    };
    assert_eq!(edits.len(), 2);
    let Ok(Command::Ports { edits, .. }) = parse(&words("-C HOST -- /run/s")) else { panic!() };
    assert_eq!(edits, [Edit::Clear(Table::Host)]);
    for wrong in ["", "-t", "-t 0 /s", "-C NONE /s", "-x /s", "/s /t", "--tcp /s", "--add=1 /s"] {
        assert!(parse(&words(wrong)).is_err(), "{wrong}");
    }
    // A socket may have any name.
    let named = parse(&words("status")).unwrap();
    assert!(matches!(named, Command::Ports { path, .. } if path.as_os_str() == "status"));
}

#[test]
fn words_come_before_the_path_and_have_options_of_their_own() {
    let status = parse(&words("status --json /run/s")).unwrap();
    assert_eq!(status, Command::Status { path: "/run/s".into(), format: Format::Json });
    let flows = parse(&words("flows /run/s -n 999")).unwrap();
    assert_eq!(flows, Command::Flows { path: "/run/s".into(), count: 64, format: Format::Text });
    let wait = parse(&words("wait --generation 3 --timeout=5 /run/s")).unwrap();
    let (condition, timeout) = (Condition::Generation(3), Duration::from_secs(5));
    assert_eq!(wait, Command::Wait { path: "/run/s".into(), condition, timeout });
    for wrong in ["wait /run/s", "status", "status --bound /s", "metrics", "wait --generation x /s"]
    {
        let is_path = matches!(parse(&words(wrong)), Ok(Command::Ports { .. }));
        assert!(parse(&words(wrong)).is_err() || is_path, "{wrong}");
    }
}
