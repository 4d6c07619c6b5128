use super::*;
use pasta_ipc::start::{Captured, CopyAddresses, CopyRoutes, DnsList, SearchList};
use pasta_ipc::types::TapOffloads;

fn options(line: &str) -> Result<Options, InvalidOptions> {
    let line = crate::cli::parse(line.split(' ').map(OsString::from)).unwrap();
    Options::from_line(line, Some("/bin/zsh".into()))
}

fn refusal(line: &str) -> String {
    options(line).unwrap_err().to_string()
}

const SERVED: PerFamily<Service, Service> = PerFamily { ipv4: Service::On, ipv6: Service::On };

fn monitor(line: &str) -> MonitorStart {
    options(line).unwrap().monitor_start(&SERVED, &Forwards::default(), None, None)
}

fn datapath(line: &str) -> DatapathStart {
    let tap = TapInfo {
        name: "tap0".to_owned().try_into().unwrap(),
        mac: MacAddr::OURS_BY_DEFAULT,
        offloads: TapOffloads::Tcp,
    };
    options(line).unwrap().datapath_start(
        &SERVED,
        Some(tap),
        Captured::No,
        System::fallback().ephemeral,
    )
}

fn shown<T: fmt::Display>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

#[test]
fn level_of_the_log_follows_from_target_and_file() {
    for (line, level) in [
        ("pasta 12", LogLevel::Info),
        ("pasta -q --netns x", LogLevel::Warn),
        ("pasta -l /tmp/x -- ls", LogLevel::Info),
        ("pasta -l /tmp/x -d 12", LogLevel::Debug),
    ] {
        assert_eq!(options(line).unwrap().log.level, level, "{line}");
    }
    let refused = "--stats writes to standard error: it needs the foreground (-f)";
    assert_eq!(refusal("pasta --stats 1 12"), refused);
    assert!(options("pasta -f --stats 1 12").is_ok());
    assert!(options("pasta --stats 1 -- ls").is_ok());
}

#[test]
fn protocols_that_are_off_forward_no_port() {
    let start = datapath("pasta --no-tcp --no-icmp -- ls");
    assert_eq!(
        (start.services.protocols.tcp, start.services.protocols.udp),
        (Service::Off, Service::On)
    );
    assert_eq!(
        (start.services.protocols.icmp, start.services.responders.ndp),
        (Service::Off, Service::Off)
    );
    let options = options("pasta --no-tcp -t none -u 53 -T none").unwrap();
    let rules = options.forwards(&SERVED, System::fallback()).unwrap();
    let transports = rules.inbound.iter().chain(&rules.outbound).map(|it| it.transport());
    assert!(transports.into_iter().all(|it| it == pasta_ipc::types::Transport::Udp));
    let refused = "-t forwards what --no-tcp switches off";
    assert_eq!(refusal("pasta -t 22 --no-tcp"), refused);
    assert_eq!(refusal("pasta --no-udp -U auto"), "-U forwards what --no-udp switches off");
}

#[test]
fn resolvers_for_clients_add_up_and_none_clears_what_came_before() {
    let line =
        "pasta --dns-forward 192.0.2.53 -D 192.0.2.1 -D none -D 2001:db8::1 -S a.example -S b.";
    let start = datapath(line);
    assert_eq!(start.ipv4.dns_forward, None);
    let DnsList::Given(dns) = &start.services.clients.dns else { panic!() };
    assert_eq!(shown(dns.as_slice()), ["2001:db8::1"]);
    let SearchList::Given(search) = &start.services.clients.search else { panic!() };
    assert_eq!(shown(search.as_slice()), ["a.example", "b"]);
    let many = options("pasta -D 192.0.2.1 -D 192.0.2.2 -D 192.0.2.3 -D 192.0.2.4").unwrap();
    assert!(many.warnings[0].contains("192.0.2.4"), "{:?}", many.warnings);
    assert_eq!(datapath("pasta").services.clients.dns, DnsList::Host);
}

#[test]
fn router_advertisements_are_for_namespaces_that_are_not_configured() {
    let is_on = |line| datapath(line).services.responders.router_advertisement == Service::On;
    assert!(is_on("pasta"));
    assert!(!is_on("pasta --config-net"));
    assert!(!is_on("pasta --no-ra"));
}

#[test]
fn copying_less_needs_a_namespace_to_configure() {
    assert_eq!(refusal("pasta --no-copy-routes"), "--no-copy-routes needs --config-net");
    let start = monitor("pasta --config-net --no-copy-addrs");
    assert_eq!(start.copy.addresses, CopyAddresses::PrimaryOnly);
    assert_eq!(start.copy.routes, CopyRoutes::All);
}

#[test]
fn interfaces_of_host_sockets_are_templates_and_make_following_stick() {
    let start = monitor("pasta --outbound-if4 eth0");
    assert_eq!(start.ipv4.template, Some("eth0".to_owned().try_into().unwrap()));
    assert_eq!(start.following.follow, Follow::Sticky);
    let start = datapath("pasta --outbound-if6 eth1");
    assert_eq!(start.ipv6.outbound_interface, Some("eth1".to_owned().try_into().unwrap()));
    assert_eq!(start.ipv4.outbound_interface, None);
}

#[test]
fn netmask_belongs_to_the_ipv4_address_before_it() {
    let start = monitor("pasta -a 10.0.0.1 -n 24 -a 2001:db8::1 -a 192.0.2.7 -a 10.0.0.9/30");
    let wanted = ["10.0.0.1/24", "192.0.2.7/24", "10.0.0.9/30"];
    assert_eq!(shown(start.ipv4.addresses.as_slice()), wanted);
    assert_eq!(shown(start.ipv6.addresses.as_slice()), ["2001:db8::1/64"]);
    let start = monitor("pasta -a 10.0.0.1 -a 2001:db8::1/112 -n 255.255.0.0");
    assert_eq!(shown(start.ipv4.addresses.as_slice()), ["10.0.0.1/16"]);
    assert_eq!(shown(start.ipv6.addresses.as_slice()), ["2001:db8::1/112"]);
}

#[test]
fn netmask_before_the_only_address_means_that_one() {
    let start = monitor("pasta -n 20 -a 10.0.0.1");
    assert_eq!(shown(start.ipv4.addresses.as_slice()), ["10.0.0.1/20"]);
}

#[test]
fn address_without_length_or_netmask_has_the_prefix_of_its_class() {
    let start = monitor("pasta -a 10.0.2.100 -a 172.16.0.1 -a 192.168.1.1");
    let wanted = ["10.0.2.100/8", "172.16.0.1/16", "192.168.1.1/24"];
    assert_eq!(shown(start.ipv4.addresses.as_slice()), wanted);
}

#[test]
fn two_prefixes_for_one_address_are_refused_in_either_order() {
    let wanted = "address 10.0.0.1/24 has a prefix length already, and -n gives another";
    assert_eq!(refusal("pasta -a 10.0.0.1/24 -n 24"), wanted);
    assert_eq!(refusal("pasta -n 24 -a 10.0.0.1/24"), wanted);
    assert_eq!(refusal("pasta -n 24"), "a netmask (-n) needs an IPv4 address (-a)");
}

#[test]
fn values_are_kept_for_each_family() {
    let start = monitor("pasta -g 10.0.0.2 -g fe80::1 -g 10.0.0.2");
    assert_eq!(start.ipv4.gateway, Some(Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(start.ipv6.gateway, "fe80::1".parse().ok());
    let start = datapath("pasta -o 127.0.0.1 -o 2001:db8::1 --dns-host ::1");
    assert_eq!(start.ipv4.outbound, Some(Ipv4Addr::LOCALHOST));
    assert_eq!(start.ipv6.outbound, "2001:db8::1".parse().ok());
    assert_eq!((start.ipv4.dns_host, start.ipv6.dns_host), (None, Some(Ipv6Addr::LOCALHOST)));
}

#[test]
fn gateway_leads_to_loopback_by_default() {
    let loopback = |line| {
        let start = datapath(line);
        (start.ipv4.host_loopback, start.ipv6.host_loopback)
    };
    let four = HostLoopback::Address(Ipv4Addr::new(10, 0, 0, 9));
    let none = (HostLoopback::None, HostLoopback::None);
    assert_eq!(loopback("pasta"), (HostLoopback::Gateway, HostLoopback::Gateway));
    assert_eq!(loopback("pasta --no-map-gw"), none);
    assert_eq!(loopback("pasta --map-host-loopback none"), none);
    assert_eq!(loopback("pasta --map-host-loopback 10.0.0.9"), (four, HostLoopback::Gateway));
    let line = "pasta --map-host-loopback 10.0.0.9 --no-map-gw";
    assert_eq!(loopback(line), (four, HostLoopback::None));
    let line = "pasta --map-host-loopback 10.0.0.9 --map-host-loopback none";
    assert_eq!(loopback(line), none);
    let line = "pasta --map-host-loopback none --map-host-loopback 10.0.0.9";
    assert_eq!(loopback(line), (four, HostLoopback::None));
}

#[test]
fn exposure_names_what_leads_to_the_hosts_loopback_and_into_the_namespace() {
    let exposure = |line: &str| {
        let options = options(line).unwrap();
        let forwards = options.forwards(&SERVED, System::fallback()).unwrap();
        options.exposure(&SERVED, &forwards, Some(HostSockets::InReach))
    };
    let closed = "pasta -t none -u none -T none -U none --no-map-gw";
    let wanted = [
        "127.0.0.1 of the host: not mapped to an address",
        "::1 of the host: not mapped to an address",
        "ports of the host's loopback, from the namespace's loopback: none",
        "ports of the namespace, from the host and whoever reaches it: none",
    ];
    assert_eq!(exposure(closed), wanted);
    let mapped = exposure(&format!("{closed} --map-host-loopback 10.0.0.9"));
    assert_eq!(mapped[0], "127.0.0.1 of the host: reachable at 10.0.0.9");
    let by_default = exposure("pasta --no-map-gw");
    for (line, part) in [(2, "TCP 1-49151 while somebody listens there"), (3, "UDP 1024-49151")] {
        assert!(by_default[line].contains(part), "{by_default:?}");
    }
    assert!(exposure("pasta")[1].ends_with("reachable at the gateway's address"));
    let named = exposure("pasta -T none -U none -u none -t 127.0.0.1/8080:80");
    assert!(named[3].ends_with(": TCP 8080 at 127.0.0.1"), "{named:?}");
    let one = exposure("pasta -t none -u none --no-host-loopback");
    assert_eq!(one, wanted);
}

#[test]
fn automatic_rules_that_are_off_are_no_exposure() {
    let exposure = |line: &str, reach| {
        let options = options(line).unwrap();
        let forwards = options.forwards(&SERVED, System::fallback()).unwrap();
        options.exposure(&SERVED, &forwards, reach)[2].clone()
    };
    let out_of_reach = Some(HostSockets::OutOfReach);
    let off = exposure("pasta", out_of_reach);
    assert!(off.contains("loopback: none; automatic rules are off"), "{off}");
    let named = exposure("pasta -T 8080 -U auto", out_of_reach);
    assert!(named.contains("loopback: TCP 8080; automatic rules are off"), "{named}");
    // Where there are none, they are not off.
    let without = exposure("pasta -T 8080 -U none", out_of_reach);
    assert!(without.ends_with("loopback: TCP 8080"), "{without}");
    let unknown = exposure("pasta", None);
    assert!(unknown.contains("TCP 1-49151") && unknown.contains("may be off"), "{unknown}");
    let without = exposure("pasta -T none -U none", None);
    assert!(without.ends_with("loopback: none"), "{without}");
}

#[test]
fn guest_address_map_is_cleared_for_both_families_by_none() {
    let line = "pasta --map-guest-addr 10.0.0.9 --map-guest-addr fd00::9";
    let start = datapath(line);
    assert!(start.ipv4.guest_address.is_some() && start.ipv6.guest_address.is_some());
    let start = datapath(&format!("{line} --map-guest-addr none"));
    assert_eq!((start.ipv4.guest_address, start.ipv6.guest_address), (None, None));
}

#[test]
fn mtu_is_the_default_the_kernels_or_the_given_one() {
    let mtu = |line| {
        let options = options(line).unwrap();
        (options.interface.mtu.map(Mtu::get), options.warnings)
    };
    assert_eq!(mtu("pasta"), (Some(65520), vec![]));
    assert_eq!(mtu("pasta -m 0"), (None, vec![]));
    assert_eq!(mtu("pasta -m 1280"), (Some(1280), vec![]));
    let warning = "MTU 1279 is too small for IPv6 (smallest is 1280)".to_owned();
    assert_eq!(mtu("pasta -m 1279"), (Some(1279), vec![warning]));
    assert_eq!(mtu("pasta -4 -m 1279"), (Some(1279), vec![]));
    let warning = "MTU 67 is too small to be set (smallest is 68): it is left alone".to_owned();
    assert_eq!(mtu("pasta -m 67"), (None, vec![warning]));
}

#[test]
fn missing_family_is_an_error_only_if_asked_for() {
    let services = |line, ipv4, ipv6| {
        options(line)
            .unwrap()
            .services(KernelFamilies { ipv4, ipv6 })
            .map(|(services, warnings)| (services.ipv4, services.ipv6, warnings.len()))
    };
    let (on, off) = (Service::On, Service::Off);
    assert_eq!(services("pasta", true, true), Ok((on, on, 0)));
    assert_eq!(services("pasta", true, false), Ok((on, off, 1)));
    assert_eq!(services("pasta -4", true, false), Ok((on, off, 0)));
    assert_eq!(services("pasta -6 -6", true, true), Ok((off, on, 0)));
    assert!(services("pasta -6", true, false).is_err());
    assert!(services("pasta -4", false, true).is_err());
    assert!(services("pasta", false, false).is_err());
}

#[test]
fn last_of_debug_and_quiet_wins() {
    for (line, level) in [
        ("pasta", LogLevel::Notice),
        ("pasta -q", LogLevel::Warn),
        ("pasta -d", LogLevel::Debug),
        ("pasta -q -d", LogLevel::Debug),
        ("pasta -d -q", LogLevel::Warn),
        ("pasta --trace -d", LogLevel::Trace),
        ("pasta --trace -q", LogLevel::Warn),
        ("pasta --trace -q -d", LogLevel::Debug),
    ] {
        let options = options(line).unwrap();
        assert_eq!(options.log.level, level, "{line}");
        assert_eq!(
            options.monitor_start(&SERVED, &Forwards::default(), None, None).log_level,
            level,
            "{line}"
        );
    }
}

#[test]
fn notice_is_for_whoever_gets_an_interface_that_is_not_configured() {
    for line in ["pasta", "pasta ls", "pasta 12", "pasta -d --netns x", "pasta -q -d ls"] {
        let notice = options(line).unwrap().notice().unwrap_or_default();
        assert!(notice.contains("--config-net"), "{line}");
    }
    for line in ["--config-net", "-q", "-q 12", "--splice-only", "-F 3"] {
        assert_eq!(options(&format!("pasta {line}")).unwrap().notice(), None, "{line}");
    }
}

#[test]
fn explanation_is_text_or_json() {
    let explain = |line| options(line).unwrap().reports.explain;
    assert_eq!(explain("pasta ls"), None);
    assert_eq!(explain("pasta --explain 12"), Some(DocumentForm::Text));
    assert_eq!(explain("pasta --json --explain"), Some(DocumentForm::Json));
    assert_eq!(refusal("pasta --json"), "--json needs --explain");
}

#[test]
fn deprecated_option_is_accepted_with_a_warning() {
    let warnings = options("pasta -e --config-net").unwrap().warnings;
    assert_eq!(warnings, ["option '--stderr' is deprecated and has no effect"]);
}

#[test]
fn options_of_rootlesskit_reach_the_helpers() {
    let line = "pasta --stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
                --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only ls";
    let start = monitor(line);
    assert_eq!(start.link.configure, Configure::Namespace);
    assert_eq!(start.link.name.as_ref().map(IfName::as_str), Some("tap0"));
    assert_eq!(shown(start.ipv4.addresses.as_slice()), ["10.0.2.100/24"]);
    assert_eq!(start.ipv4.gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
    let start = datapath(line);
    assert_eq!(start.ipv4.dns_forward, Some(Ipv4Addr::new(10, 0, 2, 3)));
    assert_eq!(start.ipv4.host_loopback, HostLoopback::None);
}

#[test]
fn more_addresses_than_a_message_holds_are_refused() {
    let many = (1..66).fold("pasta".to_owned(), |line, n| format!("{line} -a 10.0.0.{n}/8"));
    assert_eq!(refusal(&many), "-a: more than 64 addresses of one family");
}
