use super::super::Options;
use std::ffi::OsString;

fn refusal(line: &str) -> Option<String> {
    let words = ["pasta"].into_iter().chain(line.split_ascii_whitespace()).map(OsString::from);
    let line = crate::cli::parse(words).unwrap();
    Options::from_line(line, None).err().map(|error| error.to_string())
}

/// Each pair is refused in either order, by a line with both names.
fn assert_excluded(one: &str, other: &str, rest: &str) {
    let name = |option: &str| option.split(' ').next().unwrap_or_default().to_owned();
    for line in [format!("{rest} {one} {other}"), format!("{rest} {other} {one}")] {
        let text = refusal(&line).unwrap_or_else(|| panic!("accepted: {line}"));
        assert!(text.contains(&name(one)) && text.contains(&name(other)), "{line}: {text}");
        assert!(!text.contains('\n'), "{line}: {text}");
    }
    for alone in [one, other] {
        assert_eq!(refusal(&format!("{rest} {alone}")), None, "{alone}");
    }
}

#[test]
fn a_family_excludes_what_is_of_the_other() {
    assert_excluded("-4", "-6", "");
    for option in ["-a", "-g", "-o", "-D", "--dns-host", "--map-host-loopback"] {
        assert_excluded("-6", &format!("{option} 192.0.2.1"), "");
        assert_excluded("-4", &format!("{option} 2001:db8::1"), "");
    }
    for option in ["--dns-forward", "--map-guest-addr"] {
        assert_excluded("-4", &format!("{option} 2001:db8::1"), "");
    }
    assert_excluded("-6", "--outbound-if4 eth0", "");
    assert_excluded("-4", "--outbound-if6 eth0", "");
    for option in ["-D none", "--map-host-loopback none", "--map-guest-addr none"] {
        assert_eq!(refusal(&format!("-4 {option}")), None);
        assert_eq!(refusal(&format!("-6 {option}")), None);
    }
}

#[test]
fn splice_only_excludes_what_is_about_an_interface() {
    for option in [
        "-a 192.0.2.1",
        "-a 2001:db8::1",
        "-g 192.0.2.1",
        "-i eth0",
        "-I tap9",
        "-m 1500",
        "-m auto",
        "-M 02:00:00:00:00:01",
        "--ns-mac-addr 02:00:00:00:00:01",
        "-o 192.0.2.1",
        "-p /tmp/x",
        "--outbound-if4 eth0",
        "--outbound-if6 eth0",
        "-F 3",
        "-D 192.0.2.1",
        "-S example.org",
        "--dhcp-dns",
        "--dhcp-search",
        "--fqdn a.example",
        "--map-host-loopback 192.0.2.1",
        "--dns-forward 2001:db8::1",
        "--map-guest-addr 2001:db8::1",
        "--dns-host 192.0.2.1",
        "--settle 1",
        "--hold 1",
        "--bind-wait 1",
    ] {
        assert_excluded("--splice-only", option, "");
    }
    for option in ["--follow roam", "--linger 1", "--rename never", "--no-copy-routes"] {
        assert_excluded("--splice-only", option, "--config-net");
    }
    assert_excluded("--splice-only", "--no-splice", "");
    for option in ["-t 80", "-T 80", "--host-lo-to-ns-lo", "--no-tcp", "--no-dhcp", "--follow off"]
    {
        assert_eq!(refusal(&format!("--splice-only {option}")), None, "{option}");
    }
}

#[test]
fn other_pairs_that_contradict() {
    for option in ["--settle 1", "--hold 1"] {
        assert_excluded("--follow off", option, "");
    }
    for option in ["--linger 1", "--rename never"] {
        assert_excluded("--follow off", option, "--config-net");
    }
    assert_excluded("-F 3", "-I tap9", "");
    assert_excluded("-F 3", "--ns-mac-addr 02:00:00:00:00:01", "");
    assert_excluded("-D none", "--dhcp-dns", "");
    assert_excluded("-S none", "--dhcp-search", "");
    assert_excluded("--no-splice", "--host-lo-to-ns-lo", "");
}

#[test]
fn one_gateway_for_each_family() {
    assert_excluded("-g 192.0.2.1", "-g 192.0.2.2", "");
    assert_excluded("-g fe80::1", "-g fe80::2", "");
    assert_eq!(refusal("-g 192.0.2.1 -g fe80::1 -g 192.0.2.1"), None);
}

#[test]
fn following_needs_a_namespace_to_configure() {
    for option in
        ["--follow roam", "--follow sticky", "--follow once", "--linger 1", "--rename auto"]
    {
        let text = refusal(option).unwrap();
        let name = option.split(' ').next().unwrap();
        assert!(text.contains(name) && text.contains("--config-net"), "{text}");
        assert_eq!(refusal(&format!("--config-net {option}")), None);
    }
    assert_eq!(refusal("--follow off"), None);
    let text = refusal("--no-netns-quit ls").unwrap();
    assert!(text.contains("--no-netns-quit") && text.contains("COMMAND"), "{text}");
    assert_eq!(refusal("--no-netns-quit 12"), None);
}

/// As recorded from Podman, Buildah and rootlesskit, with what their users can add.
#[test]
fn no_known_caller_is_refused() {
    let podman = "-t 8080-8080:80-80 -u 127.0.0.1/5353-5353:53-53 --dns-forward 169.254.1.1 -T none \
                  -U none --no-map-gw --quiet --netns /x --map-guest-addr 169.254.1.2";
    for added in [
        "",
        "-4",
        "-6",
        "--splice-only",
        "-a 10.0.2.1 -n 24 -g 10.0.2.2",
        "-6 -a fd00::1 -g fd00::2",
        "-I eth9",
        "-m 1500",
        "--ns-mac-addr 02:00:00:00:00:01",
        "-i eth0",
        "--follow off",
        "-4 -4",
        "-g 10.0.2.2 -g 10.0.2.2",
        "-d",
        "-l /tmp/log",
    ] {
        assert_eq!(refusal(&format!("--config-net {added} {podman}")), None, "{added}");
    }
    let bridge = "--config-net --pid /x --dns-forward 169.254.1.1 -t none -u none -T none -U none \
                  --no-map-gw --quiet --netns /x --map-guest-addr 169.254.1.2";
    let rootlesskit = "--foreground --stderr --ns-ifname=tap0 --mtu=65520 --no-dhcp --no-ra \
                       --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 \
                       --ipv4-only --tcp-ports=none --udp-ports=none 12";
    let detached = "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
                    --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only \
                    --tcp-ports=auto --udp-ports=auto --host-lo-to-ns-lo --userns=/x --netns=/y";
    let scripts = "--config-net -t none -u none -T none -U none --no-map-gw --quiet -- ls";
    for line in [bridge, rootlesskit, detached, scripts, "-f -- ls", "--map-host-loopback none"] {
        assert_eq!(refusal(line), None, "{line}");
    }
}

#[test]
fn no_way_to_the_hosts_loopback_excludes_each() {
    for option in ["--map-host-loopback 192.0.2.9", "-T 80", "-U auto", "-T all"] {
        assert_excluded("--no-host-loopback", option, "");
    }
    for option in ["--map-host-loopback none", "-T none", "-U none", "--no-map-gw", "-t 80"] {
        assert_eq!(refusal(&format!("--no-host-loopback {option}")), None, "{option}");
        assert_eq!(refusal(&format!("{option} --no-host-loopback")), None, "{option}");
    }
}
