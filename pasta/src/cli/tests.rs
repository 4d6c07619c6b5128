use super::*;
use crate::value::AddressValue;
use pasta_ipc::types::IfName;
use std::net::Ipv4Addr;

fn read(line: &str) -> Result<Line, Stop> {
    parse(line.split(' ').map(OsString::from))
}

fn settings(line: &str) -> Vec<Setting> {
    read(line).unwrap().settings
}

fn words(line: &str) -> Vec<String> {
    let words = read(line).unwrap().words;
    words.into_iter().map(|word| word.into_string().unwrap()).collect()
}

/// The first line of a refusal.
fn refusal(line: &str) -> String {
    match read(line) {
        Err(Stop::Refused(text)) => text.lines().next().unwrap().to_owned(),
        other => panic!("{line}: {other:?}"),
    }
}

fn v4(octets: [u8; 4], len: Option<u8>) -> Setting {
    Setting::Address(AddressValue::V4(Ipv4Addr::from(octets), len))
}

#[test]
fn every_option_has_names_of_its_own() {
    for (index, entry) in table::entries().enumerate() {
        for other in table::entries().take(index) {
            assert_ne!(entry.long, other.long);
            assert!(entry.short.is_none() || entry.short != other.short, "{:?}", entry.short);
        }
        assert!(entry.short.is_none_or(|letter| letter.is_ascii_alphanumeric()));
    }
}

#[test]
fn a_value_is_written_in_four_ways() {
    for line in ["pasta -m 1500", "pasta -m1500", "pasta --mtu 1500", "pasta --mtu=1500"] {
        assert_eq!(settings(line), [Setting::Mtu(1500)], "{line}");
    }
}

#[test]
fn short_options_are_grouped_and_the_last_may_take_a_value() {
    let wanted = [Setting::Foreground, Setting::Ipv4Only, Setting::Mtu(1400)];
    assert_eq!(settings("pasta -f4m1400"), wanted);
    assert_eq!(settings("pasta -f4m 1400"), wanted);
}

#[test]
fn unique_prefix_of_a_long_option_is_accepted() {
    assert_eq!(settings("pasta --config"), [Setting::ConfigureNamespace]);
    assert_eq!(settings("pasta --addr=10.0.0.1/8"), [v4([10, 0, 0, 1], Some(8))]);
    assert!(matches!(settings("pasta --map-guest none")[..], [Setting::MapGuestAddress(_)]));
}

#[test]
fn options_come_in_the_order_in_which_they_were_given() {
    let wanted =
        [v4([10, 0, 0, 1], None), Setting::Netmask(24), v4([10, 0, 0, 2], None), Setting::Quiet];
    assert_eq!(settings("pasta -a 10.0.0.1 -n 24 -a 10.0.0.2 -q"), wanted);
    assert_eq!(
        settings("pasta -4 -6 -4"),
        [Setting::Ipv4Only, Setting::Ipv6Only, Setting::Ipv4Only]
    );
}

#[test]
fn options_of_the_command_are_never_eaten() {
    for line in [
        "pasta sh -c --version",
        "pasta -- sh -c --version",
        "pasta --config-net sh -c --version",
        "pasta --config-net -- sh -c --version",
    ] {
        assert_eq!(words(line), ["sh", "-c", "--version"], "{line}");
    }
    assert_eq!(words("pasta ls -- -d"), ["ls", "--", "-d"]);
    assert_eq!(words("pasta -- --mtu"), ["--mtu"]);
    assert_eq!(words("pasta --config-net"), [""; 0]);
}

#[test]
fn a_value_may_look_like_an_option() {
    assert_eq!(refusal("pasta -a -4"), "pasta: option '-a': invalid address: '-4'");
    assert_eq!(refusal("pasta -a --"), "pasta: option '-a': invalid address: '--'");
    let name = IfName::try_from("--version".to_owned()).unwrap();
    assert_eq!(settings("pasta -I --version"), [Setting::TapName(name)]);
}

#[test]
fn errors_have_the_texts_that_callers_match() {
    for (line, wanted) in [
        ("pasta --nonsense", "pasta: unrecognized option '--nonsense'"),
        ("/usr/bin/pasta --nonsense=5 -4", "pasta: unrecognized option '--nonsense'"),
        ("/usr/bin/pasta -m 70000", "pasta: option '-m': MTU 70000 too large (largest is 65521)"),
        ("pasta --config-net --nonsense -- ls", "pasta: unrecognized option '--nonsense'"),
        ("pasta -x", "pasta: invalid option -- 'x'"),
        ("pasta -4x", "pasta: invalid option -- 'x'"),
        ("pasta -m", "pasta: option '--mtu' requires an argument"),
        ("pasta --map-guest-addr", "pasta: option '--map-guest-addr' requires an argument"),
        ("pasta --debug=1", "pasta: option '--debug' doesn't allow an argument"),
        (
            "pasta --ipv",
            "pasta: option '--ipv' is ambiguous; possibilities: '--ipv4-only' '--ipv6-only'",
        ),
        ("pasta -m 70000", "pasta: option '-m': MTU 70000 too large (largest is 65521)"),
        ("pasta --mtu=", "pasta: option '--mtu': invalid MTU: ''"),
        (
            "pasta -a 10.0.0.1/40",
            "pasta: option '-a': invalid prefix length in address: '10.0.0.1/40'",
        ),
        (
            "pasta -I sixteen-chars-xx",
            "pasta: option '-I': invalid interface name: 'sixteen-chars-xx': not an interface name (1 to 15 characters, no blank, '/' or ':')",
        ),
    ] {
        assert_eq!(refusal(line), wanted, "{line}");
    }
}

#[test]
fn one_line_after_an_error_of_grammar_names_the_help() {
    let text =
        "pasta: unrecognized option '--nonsense'\nTry 'pasta --help' for the list of options.\n";
    assert_eq!(read("pasta --nonsense"), Err(Stop::Refused(text.into())));
    assert_eq!(
        read("pasta -m x"),
        Err(Stop::Refused("pasta: option '-m': invalid MTU: 'x'\n".into()))
    );
}

#[test]
fn slips_of_those_who_know_another_program_are_named() {
    for (line, wanted) in [
        (
            "pasta --publish 8080:80 ls",
            "pasta: unrecognized option '--publish'\n\
             Here '-t HOST:NAMESPACE' forwards a TCP port and '-u' a UDP port, as in '-t 8080:80'.\n\
             Try 'pasta --help' for the list of options.\n",
        ),
        (
            "pasta --config_net",
            "pasta: unrecognized option '--config_net'\nThere is '--config-net'.\n\
             Try 'pasta --help' for the list of options.\n",
        ),
    ] {
        assert_eq!(read(line), Err(Stop::Refused(wanted.into())), "{line}");
    }
    assert_eq!(
        refusal("pasta -it ls"),
        "pasta: '-it' would be the interface 't' ('-i t'); COMMAND has pasta's terminal without an option"
    );
    for ports in ["8080:80", "127.0.0.1:8080:80", "8080:80/tcp", "[::1]:53:53/udp"] {
        let answer = refusal(&format!("pasta -p {ports} ls"));
        assert!(answer.contains("-t HOST:NAMESPACE"), "{answer}");
    }
    for path in ["8080", "./8080:80", "a:80", "8080:", "frames.pcap", "c:1/x"] {
        assert_eq!(settings(&format!("pasta -p {path}")).len(), 1, "{path}");
    }
}

#[test]
fn files_are_paths_of_any_octets_and_namespaces_have_short_names() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"/tmp/\xff".to_vec());
    let control = Setting::ControlSocket("/run/x.sock".into());
    assert_eq!(settings("pasta -c /run/x.sock"), vec![control.clone()]);
    assert_eq!(settings("pasta --conf-path=/run/x.sock"), [control]);
    let line = parse(["pasta".into(), "-P".into(), odd.clone()]).unwrap();
    assert_eq!(line.settings, [Setting::PidFile(odd.into())]);
    let named = |line| settings(line);
    assert_eq!(named("pasta --netns x"), [Setting::NetworkNamespace("/run/netns/x".into())]);
    assert_eq!(named("pasta --netns ./x"), [Setting::NetworkNamespace("./x".into())]);
}

#[test]
fn ports_are_read_where_they_stand_and_errors_name_option_and_value() {
    for line in [
        "pasta -t 8000 -- ls",
        "pasta -tnone",
        "pasta --udp-ports=auto",
        "pasta --tcp-ports [::1]/80:8080 -T 80 -U none --no-splice",
    ] {
        assert!(read(line).is_ok(), "{line}");
    }
    assert_eq!(
        refusal("pasta -t 22,8000-7000"),
        "pasta: option '-t': invalid value: '22,8000-7000': '8000-7000': the lower port comes first"
    );
    assert_eq!(
        refusal("pasta --udp-ns=x"),
        "pasta: option '--udp-ns': invalid value: 'x': not a port (1 to 65535), range, 'all', 'auto' or 'none'"
    );
}

#[test]
fn the_other_mode_is_refused_by_name() {
    assert_eq!(refusal("pasta -1"), "pasta: option '--one-off' is for passt mode only");
    assert_eq!(
        refusal("pasta --vhost-user"),
        "pasta: option '--vhost-user' is for passt mode only"
    );
    assert_eq!(settings("pasta --repair-path none"), [Setting::Ignored]);
    let refused = refusal("pasta --repair-path /run/x");
    assert_eq!(refused, "pasta: option '--repair-path' is for passt mode only");
}

#[test]
fn version_is_printed_at_once_but_not_after_an_error() {
    let wanted = Stop::Answer(format!("pasta {}\n", env!("CARGO_PKG_VERSION")));
    for line in [
        "pasta --version",
        "pasta --vers --nonsense",
        "pasta --config-net -a 10.0.0.1/24 -n 8 --version",
        "pasta -fd --version -- ls",
        "pasta --host-lo-to-ns-lo --version",
    ] {
        assert_eq!(read(line), Err(wanted.clone()), "{line}");
    }
    assert_eq!(refusal("pasta --nonsense --version"), "pasta: unrecognized option '--nonsense'");
    assert_eq!(refusal("pasta -m x --version"), "pasta: option '-m': invalid MTU: 'x'");
}

#[test]
fn help_shows_what_works_and_nothing_else() {
    let (Err(Stop::Answer(help)), Err(Stop::Answer(short))) =
        (read("pasta --help"), read("pasta -h"))
    else {
        panic!()
    };
    assert_eq!(help, short);
    for entry in table::entries() {
        let shown = help.lines().any(|line| {
            line.split([' ', ',', '[']).any(|word| word == format!("--{}", entry.long))
        });
        assert_eq!(shown, !entry.help.is_empty(), "{}", entry.long);
    }
}

#[test]
fn values_are_taken_as_getopt_takes_them() {
    // After a letter an equals sign is part of the value, and a word of one dash is no option.
    assert_eq!(refusal("pasta -m=1500"), "pasta: option '-m': invalid MTU: '=1500'");
    assert_eq!(refusal("pasta --mtu=1=2"), "pasta: option '--mtu': invalid MTU: '1=2'");
    assert_eq!(refusal("pasta -4=x"), "pasta: invalid option -- '='");
    assert_eq!(words("pasta -4 - -x"), ["-", "-x"]);
    assert_eq!(refusal("pasta -4\u{e9}"), "pasta: invalid option -- '\u{e9}'");
}

#[test]
fn words_of_the_command_need_not_be_utf_8_but_values_do() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![0xff]);
    let line = parse(["pasta".into(), odd()]).unwrap();
    assert_eq!(line.words, [odd()]);
    let refused = parse(["pasta".into(), "-m".into(), odd()]);
    assert_eq!(refused, Err(Stop::Refused("pasta: option '-m': its value is not UTF-8\n".into())));
    assert!(parse(["pasta".into(), OsString::from_vec(b"-\xff".to_vec())]).is_err());
}

proptest::proptest! {
    #[test]
    fn any_words_are_parsed_without_panic(words: Vec<Vec<u8>>) {
        use std::os::unix::ffi::OsStringExt;
        let _ = parse(words.into_iter().map(OsString::from_vec));
    }
}

#[test]
fn value_that_may_be_left_out_comes_after_an_equals_sign() {
    let settings = |line| read(line).unwrap().settings;
    assert_eq!(settings("pasta --strict-sandbox"), [Setting::StrictSandbox(6)]);
    assert_eq!(settings("pasta --strict-sandbox=abi:4"), [Setting::StrictSandbox(4)]);
    // A word after it is no value.
    assert_eq!(settings("pasta --strict-sandbox 12"), [Setting::StrictSandbox(6)]);
    for line in
        ["pasta --strict-sandbox=", "pasta --strict-sandbox=6", "pasta --strict-sandbox=abi:0"]
    {
        assert_eq!(
            refusal(line),
            "pasta: option '--strict-sandbox': it takes abi:N, N from 1 up, or nothing",
            "{line}"
        );
    }
    assert_eq!(
        refusal("pasta --audit=yaml 1"),
        "pasta: option '--audit': it takes json or nothing"
    );
}
