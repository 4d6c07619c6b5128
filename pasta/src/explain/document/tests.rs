use super::*;
use crate::options::{Options, PerFamily};
use pasta::ports::System;
use pasta_ipc::start::Captured;
use pasta_ipc::types::{
    Bounded, ExplainedRoute, ExplainedTemplate, IfName, Mtu, PortRange, Service, Text, Transport,
};
use std::ffi::OsString;

const SERVED: PerFamily<Service, Service> = PerFamily { ipv4: Service::On, ipv6: Service::On };

fn explanation() -> Explanation {
    let gateway = Some(IpAddr::from([192, 0, 2, 1]));
    let off = FamilyExplanation {
        state: FamilyState::Off,
        template: None,
        candidates: Text::default(),
        addresses: Bounded::default(),
        gateway: None,
        routes: Bounded::default(),
        more_routes: 0,
    };
    let route = ExplainedRoute { destination: Text::truncated("0.0.0.0/0"), gateway, metric: 100 };
    let template = ExplainedTemplate {
        name: Text::truncated("eth0"),
        index: 2,
        primary: IpAddr::from([192, 0, 2, 7]),
    };
    Explanation {
        tap_name: IfName::try_from("eth0".to_owned()).unwrap(),
        mtu: Some(Mtu::DEFAULT),
        ipv4: FamilyExplanation {
            state: FamilyState::Bound,
            template: Some(template),
            candidates: Text::truncated("eth0(2) metric 100; not: none"),
            addresses: Bounded::truncated([Text::truncated("192.0.2.7/24")]).0,
            gateway,
            routes: Bounded::truncated([route]).0,
            more_routes: 0,
        },
        ipv6: off,
        left_out: 0,
    }
}

fn document(line: &str, in_use: &PortsInUse) -> Value {
    let line = crate::cli::parse(line.split(' ').map(OsString::from)).unwrap();
    let options = Options::from_line(line, Some("/bin/sh".into())).unwrap();
    let forwards = options.forwards(&SERVED, System::fallback()).unwrap();
    of(&Facts {
        target: &options.target,
        monitor: &options.monitor_start(&SERVED, &forwards, None, None),
        datapath: &options.datapath_start(
            &SERVED,
            None,
            Captured::No,
            System::fallback().ephemeral,
        ),
        explanation: &explanation(),
        resolvers: &[Resolver { address: IpAddr::from([127, 0, 0, 53]), interface: None }],
        forwards: &forwards,
        in_use,
        unprivileged_start: 1024,
        keeps_net_admin: options.changes_namespace(),
        identity: None,
        remarks: vec!["a remark"],
    })
}

fn parsed(line: &str, in_use: &PortsInUse) -> serde_json::Value {
    serde_json::from_str(&document(line, in_use).to_json()).unwrap()
}

#[test]
fn start_with_a_command_is_explained() {
    let json = parsed(
        "pasta --config-net --dns-forward 10.0.2.3 -t 80,8080:81 -u none -T 443 -U none ls -l",
        &PortsInUse::of(&[(Transport::Tcp, "0.0.0.0", 8080)]),
    );
    assert_eq!(json["target"]["command"], serde_json::json!(["ls", "-l"]));
    assert_eq!(json["interface"]["name"], "eth0");
    assert_eq!(json["interface"]["mtu"], 65520);
    let ipv4 = &json["ipv4"];
    assert_eq!(ipv4["template"]["name"], "eth0");
    assert_eq!(ipv4["addresses"], serde_json::json!(["192.0.2.7/24"]));
    assert_eq!(ipv4["routes"][0]["via"], "192.0.2.1");
    assert_eq!(ipv4["host_loopback_at"], "192.0.2.1");
    assert_eq!(json["ipv6"], serde_json::json!({ "state": "off" }));
    assert_eq!(json["dns"]["queries_taken_at"], serde_json::json!(["10.0.2.3"]));
    assert_eq!(json["dns"]["forwarded_to"], serde_json::json!(["127.0.0.53"]));
    assert_eq!(json["dns"]["host_resolvers"], serde_json::json!(["127.0.0.53"]));
    let rules = json["ports"]["to_namespace"].as_array().unwrap();
    let of = |port: &str| rules.iter().find(|rule| rule["ports"] == port).unwrap();
    assert_eq!(of("80")["not_permitted"], serde_json::json!(["80"]));
    assert!(of("80")["taken"].is_null());
    assert_eq!(of("8080")["taken"], serde_json::json!(["8080"]));
    assert_eq!(of("8080")["to_port"], 81);
    assert_eq!(json["ports"]["to_host_loopback"][0]["ports"], "443");
    let kept = serde_json::json!(["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"]);
    assert_eq!(json["confinement"]["pasta-monitor"]["capabilities"], kept);
    assert_eq!(json["confinement"]["pasta-datapath"]["capabilities"], serde_json::json!([]));
    assert_eq!(json["remarks"], serde_json::json!(["a remark"]));
}

#[test]
fn what_is_not_done_is_not_shown() {
    let json =
        parsed("pasta --no-map-gw -t none -u none -T none -U none 12", &PortsInUse::default());
    assert_eq!(json["target"]["network_namespace"], "/proc/12/ns/net");
    assert_eq!(json["interface"]["configured"], false);
    let ipv4 = &json["ipv4"];
    assert!(ipv4.get("addresses").is_none() && ipv4["host_loopback_at"].is_null(), "{ipv4}");
    assert_eq!(json["ports"]["to_namespace"], serde_json::json!([]));
    assert_eq!(json["confinement"]["pasta-monitor"]["capabilities"], serde_json::json!([]));

    let json = parsed("pasta --splice-only ls", &PortsInUse::default());
    assert_eq!(json["interface"], serde_json::json!({ "made": false }));
    assert!(json.get("ipv4").is_none() && json.get("dns").is_none());
}

#[test]
fn long_lists_of_ports_are_ranges_in_their_order() {
    let taken: Vec<_> = (8000..9000).map(|port| (Transport::Tcp, "::", port)).collect();
    let json = parsed("pasta -t 7999-9000 ls", &PortsInUse::of(&taken));
    let rule = &json["ports"]["to_namespace"][0];
    assert_eq!(rule["ports"], PortRange::new(7999, 9000).unwrap().to_string());
    assert_eq!(rule["taken"], serde_json::json!(["8000-8999"]));
}

#[test]
fn text_shows_each_part_on_lines_of_its_own() {
    let text = document("pasta --config-net ls", &PortsInUse::default()).to_text();
    for line in [
        "target\n  kind                 command\n",
        "interface\n  made                 yes\n  name                 eth0\n",
        "  template\n    name               eth0\n    index              2\n",
        "  routes               to 0.0.0.0/0, via 192.0.2.1, metric 100\n",
        "  pasta-monitor\n    capabilities       CAP_NET_ADMIN CAP_NET_BIND_SERVICE\n",
        "ipv6\n  state                off\n",
        "remarks                a remark\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
