//! What the namespace sends to groups and to everybody ends at the link (docs/decisions/0030), and what the log says of
//! echo that is not permitted.

mod fake;

use fake::Socket;
use fake::rig::{Rig, datagram, echo_request, key};
use nix::errno::Errno;
use pasta_datapath::counters::DropReason;
use pasta_datapath::nat::Protocol;

/// Ends of multicast DNS, SSDP, and what goes to everybody.
const GROUPS: [[&str; 2]; 6] = [
    ["192.0.2.7:5353", "224.0.0.251:5353"],
    ["192.0.2.7:1900", "239.255.255.250:1900"],
    ["192.0.2.7:9", "255.255.255.255:9"],
    ["[2001:db8::7]:5353", "[ff02::fb]:5353"],
    ["[fe80::7]:5353", "[ff02::fb]:5353"],
    ["[2001:db8::7]:9", "[ff0e::1]:9"],
];

#[test]
fn nothing_leaves_for_a_group_or_for_everybody_and_nobody_answers() {
    for [here, group] in GROUPS {
        let mut rig = Rig::<Socket>::new();
        let (udp, mut echo) = (key(Protocol::Udp, here, group), key(Protocol::Echo, here, group));
        echo.remote.set_port(0);
        rig.frames(&[datagram(&udp, b"who is there"), echo_request(&echo, &[0, 1, b'x'])]);
        assert!(rig.stack.sockets().opened.is_empty(), "{group}");
        assert_eq!((rig.received().len(), rig.stack.flows().table.len()), (0, 0), "{group}");
        assert_eq!(rig.dropped(DropReason::ImpossibleDestination), 2, "{group}");
    }
}

#[test]
fn nothing_comes_in_by_the_name_of_a_group() {
    for [here, group] in GROUPS {
        let mut rig = Rig::<Socket>::new();
        rig.frames(&[datagram(&key(Protocol::Udp, group, here), b"I am here")]);
        assert!(rig.stack.sockets().opened.is_empty(), "{group}");
        assert_eq!(rig.dropped(DropReason::ImpossibleSource), 1, "{group}");
    }
}

#[test]
fn log_names_the_range_of_groups_where_that_forbids_ping_and_not_where_a_route_does() {
    const DENIED: Result<pasta_datapath::sockets::Progress, Errno> = Err(Errno::EACCES);
    for [here, remote] in
        [["192.0.2.7:1", "198.51.100.1:0"], ["[2001:db8::7]:1", "[2001:db8:1::1]:0"]]
    {
        for (answers, expected) in [(&[DENIED, DENIED][..], 1), (&[DENIED], 0)] {
            let mut rig = Rig::<Socket>::new();
            let echo = key(Protocol::Echo, here, remote);
            for _ in 0..2 {
                rig.stack.sockets().answers.extend(answers.iter().copied());
                rig.frames(&[echo_request(&echo, &[0, 1, b'x'])]);
            }
            let lines = std::iter::from_fn(|| rig.stack.log().take());
            let named =
                lines.filter(|(_, line)| line.contains("net.ipv4.ping_group_range")).count();
            assert_eq!(named, expected, "{remote}");
            assert_eq!(rig.received().len(), 2, "the namespace learns it each time");
        }
    }
}
