use super::*;
use proptest::prelude::*;

/// The defaults of Linux.
fn system() -> System {
    System {
        unprivileged_start: 1024,
        namespace_start: 1,
        ephemeral: PortRange::new(32768, 60999).unwrap(),
    }
}

/// The rules of a line of port options; options that are not given are `none`.
fn forwards(line: &str) -> Result<Forwards, String> {
    let mut specs = Vec::new();
    let mut words = line.split(' ');
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        let option = PortOption::ALL.into_iter().find(|option| option.name() == name).unwrap();
        specs.push((option, Spec::parse(option, value).map_err(|error| error.to_string())?));
    }
    for option in PortOption::ALL {
        if !specs.iter().any(|(given, _)| *given == option) {
            specs.push((option, Spec::parse(option, "none").unwrap()));
        }
    }
    build_rules(&specs, Service::On, Service::On, system()).map_err(|conflict| conflict.to_string())
}

/// A rule in short: listen address, ports, target, effort.
fn short(rule: &ForwardRule) -> String {
    let listen = rule.listen().map_or_else(String::new, |it| it.to_string());
    let interface = rule.interface().map_or_else(String::new, |it| format!("%{it}"));
    let target = rule.target().map_or_else(String::new, |it| format!("{it}/"));
    let first = rule.target_port(rule.ports().first()).unwrap();
    let effort = match rule.effort() {
        Effort::Explicit => "",
        Effort::BestEffort => " best",
        Effort::Auto => " auto",
    };
    format!("{listen}{interface}/{}:{target}{first}{effort}", rule.ports())
}

fn tcp_in(value: &str) -> Vec<String> {
    let forwards = forwards(&format!("-t {value}")).unwrap();
    assert!(forwards.outbound.is_empty());
    forwards.inbound.iter().map(short).collect()
}

fn error(line: &str) -> String {
    forwards(line).unwrap_err()
}

#[test]
fn ports_and_ranges_lead_to_themselves_or_elsewhere() {
    assert_eq!(tcp_in("22"), ["/22:22"]);
    assert_eq!(tcp_in("22:23"), ["/22:23"]);
    assert_eq!(tcp_in("22,25"), ["/22:22", "/25:25"]);
    assert_eq!(tcp_in("22-80:32-90"), ["/22-80:32"]);
    assert_eq!(tcp_in("8080-8080:80-80"), ["/8080:80"]);
    assert_eq!(tcp_in("+22"), ["/22:22"]);
}

#[test]
fn listening_is_limited_to_addresses_and_interfaces() {
    assert_eq!(tcp_in("192.0.2.1/22"), ["192.0.2.1/22:22"]);
    assert_eq!(tcp_in("192.0.2.1%eth0/22"), ["192.0.2.1%eth0/22:22"]);
    assert_eq!(tcp_in("%eth0/22"), ["%eth0/22:22"]);
    assert_eq!(tcp_in("*/22"), ["/22:22"]);
    assert_eq!(tcp_in("*%eth0/22"), ["%eth0/22:22"]);
    assert_eq!(tcp_in("/8000"), ["/8000:8000"]);
    assert_eq!(tcp_in("2001:db8::1/22"), ["2001:db8::1/22:22"]);
    assert_eq!(tcp_in("[2001:db8::1]/22"), ["2001:db8::1/22:22"]);
    assert_eq!(tcp_in("0.0.0.0/22"), ["0.0.0.0/22:22"]);
    assert_eq!(tcp_in("::/22"), ["::/22:22"]);
}

#[test]
fn targets_may_have_addresses_where_the_listener_has_one_of_their_family() {
    assert_eq!(tcp_in("0.0.0.0/8080:10.89.0.7/80"), ["0.0.0.0/8080:10.89.0.7/80"]);
    assert_eq!(tcp_in("0.0.0.0/8080:10.89.0.7"), ["0.0.0.0/8080:10.89.0.7/8080"]);
    assert_eq!(tcp_in("::/80:[2001:db8::7]/8080"), ["::/80:2001:db8::7/8080"]);
    assert_eq!(tcp_in("::/80:2001:db8::7/8080"), ["::/80:2001:db8::7/8080"]);
    assert_eq!(tcp_in("::/80-82:2001:db8::7"), ["::/80-82:2001:db8::7/80"]);
    let all = tcp_in("127.0.0.9/all:10.89.0.7");
    assert_eq!(
        all,
        ["127.0.0.9/1024-32767:10.89.0.7/1024 best", "127.0.0.9/61000-65535:10.89.0.7/61000 best"]
    );
    assert!(error("-t 8000:192.0.2.2/80").contains("needs one to listen on"));
    assert!(error("-t 0.0.0.0/80:2001:db8::7/80").contains("another family"));
    assert!(error("-t 0.0.0.0/80:224.0.0.1").contains("nobody can be reached"));
}

#[test]
fn exclusions_split_ranges() {
    let split = ["/2000-2999:2000", "/3011-5000:3011"];
    assert_eq!(tcp_in("2000-5000,~3000-3010"), split);
    assert_eq!(tcp_in("~3000-3010,2000-5000"), split);
    assert_eq!(tcp_in("2000-2002:3000-3002,~2001"), ["/2000:3000", "/2002:3002"]);
    assert_eq!(tcp_in("~20000-20010")[0], "/1024-19999:1024 best");
}

#[test]
fn all_and_auto_leave_out_ephemeral_and_low_ports() {
    let (low, high) = ("/1024-32767:1024", "/61000-65535:61000");
    assert_eq!(tcp_in("all"), [format!("{low} best"), format!("{high} best")]);
    assert_eq!(tcp_in("auto"), [format!("{low} auto"), format!("{high} auto")]);
    assert_eq!(tcp_in("all,auto"), tcp_in("auto"));
    assert_eq!(tcp_in("::1/auto")[0], "::1/1024-32767:1024 auto");
    // A range that is named may hold both, and is automatic as a whole.
    assert_eq!(tcp_in("1000-40000"), ["/1000-40000:1000"]);
    assert_eq!(tcp_in("8000-8010,auto"), ["/8000-8010:8000 auto"]);
    let with_low = forwards("-t all").unwrap();
    assert_eq!(with_low.remarks.len(), 1);
    assert!(with_low.remarks[0].contains("1-1023"), "{:?}", with_low.remarks);
    assert!(forwards("-t auto").unwrap().remarks.is_empty());
}

#[test]
fn low_ports_of_the_namespace_are_among_all_and_auto() {
    let low = ["/1-32767:1"];
    // Those of clients of DHCP and DHCPv6 are not.
    let low_udp = ["/1-67:1", "/69-545:69", "/547-32767:547"];
    let cases = [
        ("-T auto", "auto", &low[..]),
        ("-T all", "best", &low),
        ("-U auto", "auto", &low_udp),
        ("-U all", "best", &low_udp),
    ];
    for (line, effort, expected) in cases {
        let forwards = forwards(line).unwrap();
        let rules: Vec<_> = forwards.outbound.iter().map(short).collect();
        for rule in expected {
            assert!(rules.contains(&format!("{rule} {effort}")), "{line}: {rules:?}");
        }
        assert!(forwards.remarks.is_empty(), "{line}");
    }
    let named = forwards("-U 68").unwrap();
    assert_eq!(short(&named.outbound[0]), "/68:68");
}

#[test]
fn named_ports_and_all_stand_together() {
    let both = ["/8000:80", "/1024-7999:1024 best", "/8001-32767:8001 best"];
    assert_eq!(tcp_in("8000:80,all")[..3], both);
    let forwards = |line| forwards(line).unwrap().inbound.iter().map(short).collect::<Vec<_>>();
    assert_eq!(forwards("-t 8000:80 -t all")[..3], both);
    let other_order = forwards("-t all -t 8000:80");
    assert!(other_order.contains(&"/8000:80".to_owned()), "{other_order:?}");
    assert!(other_order.contains(&"/8001-32767:8001 best".to_owned()), "{other_order:?}");
    assert_eq!(forwards("-t auto -t auto"), forwards("-t auto"));
}

#[test]
fn two_rules_that_name_a_port_conflict() {
    for line in [
        "-t 8000 -t 8000",
        "-t 8000-8010 -t 8005:80",
        "-t 8000,8000",
        "-t 192.0.2.1/8000 -t 8000",
        "-t 192.0.2.1/8000 -t 0.0.0.0/8000",
        "-t %eth0/8000 -t 8000",
    ] {
        assert!(error(line).starts_with("conflict: '-t "), "{line}");
    }
    for line in [
        "-t 127.0.0.1/8000 -t 192.0.2.2/8000",
        "-t 0.0.0.0/8000 -t ::/8000",
        "-t %eth0/8000 -t %eth1/8000",
        "-t 8000 -u 8000",
        "-t 8000 -T 8000",
    ] {
        assert!(forwards(line).is_ok(), "{line}");
    }
}

#[test]
fn none_takes_nothing_back() {
    assert!(error("-t 8000 -t none").contains("'-t none' after"));
    assert_eq!(forwards("-t none -t 8000").unwrap().inbound.len(), 1);
    assert!(forwards("-u 8000 -t none").is_ok());
    assert!(error("-t 8000,none").contains("'none' stands alone"));
}

#[test]
fn what_is_not_given_is_automatic() {
    let forwards = build_rules(&[], Service::On, Service::On, system()).unwrap();
    let transports = |rules: &[ForwardRule]| {
        let mut all: Vec<_> = rules.iter().map(ForwardRule::transport).collect();
        all.dedup();
        all
    };
    assert_eq!(transports(&forwards.inbound), [Transport::Tcp, Transport::Udp]);
    assert_eq!(transports(&forwards.outbound), [Transport::Tcp, Transport::Udp]);
    assert_eq!(forwards.watched(), PortWatch { namespace: Watched::Yes, host: Watched::Yes });
    let explicit = super::tests::forwards("-t 80").unwrap();
    assert_eq!(explicit.watched(), PortWatch::default());
}

#[test]
fn outbound_rules_listen_on_loopback_only() {
    let rules = forwards("-T 8000:80 -U 53").unwrap().outbound;
    assert_eq!(rules.iter().map(short).collect::<Vec<_>>(), ["/8000:80", "/53:53"]);
    assert!(error("-T 127.0.0.1/8000").contains("take no address"));
    assert!(error("-T 8000:192.0.2.1/80").contains("needs one to listen on"));
}

#[test]
fn address_of_a_family_that_is_off_is_refused() {
    let spec = Spec::parse(PortOption::TcpIn, "192.0.2.1/80").unwrap();
    let specs = [(PortOption::TcpIn, spec)];
    let conflict = build_rules(&specs, Service::Off, Service::On, system()).unwrap_err();
    assert_eq!(conflict.to_string(), "'-t 192.0.2.1/80': IPv4 is switched off");
}

#[test]
fn too_many_rules_are_refused() {
    let list: Vec<String> = (0..256).map(|n| (2000 + 2 * n).to_string()).collect();
    assert!(error(&format!("-t {}", list.join(","))).starts_with("more than 255 rules"));
    assert!(forwards(&format!("-t {}", list[1..].join(","))).is_ok());
}

#[test]
fn errors_show_the_value_and_the_part_that_is_wrong() {
    for (value, text) in [
        ("", "'': no ports"),
        ("192.0.2.1/", "'192.0.2.1/': no ports"),
        ("8000,", "'8000,': '': nothing between two commas"),
        ("0", "'0': there is no port 0"),
        ("127.0.0.1:8080:80", "'127.0.0.1:8080:80': an address to listen on ends with a slash"),
        ("[::1]:8080:80", "'[::1]:8080:80': an address to listen on ends with a slash"),
        (
            "80,10.0.0.1:81",
            "'80,10.0.0.1:81': '10.0.0.1:81': an address to listen on ends with a slash",
        ),
        ("65536", "'65536': not a port"),
        ("ssh", "'ssh': not a port"),
        ("0x50", "'0x50': not a port"),
        ("80 ", "'80 ': not a port"),
        ("22,8000-7000", "'22,8000-7000': '8000-7000': the lower port comes first"),
        ("8000-8002:9000", "'8000-8002:9000': as many ports are needed"),
        ("8000-8002:9000-9001", "'8000-8002:9000-9001': as many ports are needed"),
        ("8000:ssh", "'8000:ssh': 'ssh': not a port, a range or an address"),
        ("192.0.2.300/80", "'192.0.2.300/80': '192.0.2.300': not an address"),
        ("eth0/80", "'eth0/80': 'eth0': not an address"),
        ("%/80", "'%/80': '': not the name of an interface"),
        ("~", "'~': '': not a port"),
    ] {
        let error = Spec::parse(PortOption::TcpIn, value).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

#[test]
fn values_of_container_engines_are_accepted() {
    for line in [
        "-t 8080-8080:80-80 -u none -T none -U none",
        "-t 127.0.0.1/8080-8090:80-90 -u none -T none -U none",
        "-t auto -u auto",
        "-t [::1]/8080:80 -t 127.0.0.1/8080:80",
    ] {
        assert!(forwards(line).is_ok(), "{line}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_or_gives_rules_without_overlap(text in "[-0-9a-z,:/~%*.\\[\\] +]{0,24}") {
        for option in PortOption::ALL {
            let Ok(spec) = Spec::parse(option, &text) else { continue };
            let Ok(forwards) = build_rules(&[(option, spec)], Service::On, Service::On, system()) else {
                continue;
            };
            let rules = match option.direction() {
                Direction::Inbound => &forwards.inbound,
                Direction::Outbound => &forwards.outbound,
            };
            let rules: Vec<_> =
                rules.iter().filter(|rule| rule.transport() == option.transport()).collect();
            for (n, rule) in rules.iter().enumerate() {
                for other in &rules[n + 1..] {
                    prop_assert!(!rule.ports().overlaps(other.ports()), "{rule:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn cut_removes_ports_and_keeps_the_targets_of_others(
        first in 1_u16..=65000,
        len in 0_u16..500,
        hole in 1_u16..=65500,
        hole_len in 0_u16..30,
    ) {
        let (last, hole_last) = (first.saturating_add(len), hole.saturating_add(hole_len));
        let text = format!("{first}-{last}:{first}-{last},~{hole}-{hole_last}");
        let spec = Spec::parse(PortOption::TcpIn, &text).unwrap();
        let forwards =
            build_rules(&[(PortOption::TcpIn, spec)], Service::On, Service::On, system()).unwrap();
        let rules: Vec<_> =
            forwards.inbound.iter().filter(|rule| rule.effort() == Effort::Explicit).collect();
        for port in first..=last {
            let lead: Vec<_> = rules.iter().filter_map(|rule| rule.target_port(port)).collect();
            let excluded = (hole..=hole_last).contains(&port);
            // A list of exclusions only means every port.
            if !rules.is_empty() {
                prop_assert_eq!(lead, if excluded { vec![] } else { vec![port] });
            }
        }
    }
}
