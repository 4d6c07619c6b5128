//! Options that contradict each other: a table of pairs, each an error that names both.
//!
//! Of options that merely override each other the last one wins (`-d` and `-q`, `--userns` and
//! `--netns-only`, a second `--follow`), as callers combine a default of theirs with an option of a user's.
//! What Podman passes on every call must not be refused, whatever its user adds: `--config-net`,
//! `--dns-forward` and `--map-guest-addr` with IPv4 addresses, `--no-map-gw`.

use super::{InvalidOptions, refuse};
use crate::cli::Setting;
use crate::follow_options::FollowOption;
use crate::target::Target;
use crate::value::{AddressOrNone, AddressValue};
use pasta::ports::PortOption;
use pasta::ports::spec::List;
use pasta_ipc::start::Follow;
use std::net::IpAddr;

/// How an option is shown in an error, if a setting is one of those that are looked for.
type Find = fn(&Setting) -> Option<String>;

/// Two kinds of options that contradict each other, and why, where the names do not say it.
struct Pair {
    one: Find,
    other: Find,
    why: &'static str,
}

const PAIRS: &[Pair] = &[
    Pair { one: ipv4_only, other: ipv6_only, why: "" },
    Pair { one: ipv4_only, other: of_ipv6, why: "" },
    Pair { one: ipv6_only, other: of_ipv4, why: "" },
    Pair { one: splice_only, other: of_the_interface, why: "there is no interface" },
    Pair { one: given_tap, other: of_a_tap_that_is_made, why: "the tap is used as it is" },
    Pair { one: follow_off, other: of_following, why: "" },
    Pair { one: no_resolvers, other: advertises_resolvers, why: "" },
    Pair { one: no_host_loopback, other: leads_to_host_loopback, why: "" },
    Pair { one: no_search, other: advertises_search, why: "" },
];

/// Checks that no two of `settings` contradict each other.
///
/// # Errors
///
/// The line to print for the first pair that does.
pub(super) fn check(settings: &[Setting]) -> Result<(), InvalidOptions> {
    for Pair { one, other, why } in PAIRS {
        let found = |find: &Find| settings.iter().find_map(find);
        if let (Some(one), Some(other)) = (found(one), found(other)) {
            return exclude(&one, &other, why);
        }
    }
    check_gateways(settings)?;
    check_needs_configuration(settings)
}

/// As [`check`], of options that mean nothing with `target`.
///
/// # Errors
///
/// As [`check`].
pub(super) fn check_target(settings: &[Setting], target: &Target) -> Result<(), InvalidOptions> {
    match target {
        Target::Command(_) if settings.contains(&Setting::OutliveNamespace) => {
            refuse("--no-netns-quit needs a namespace to attach to: that of COMMAND ends with it")
        }
        _ => Ok(()),
    }
}

fn exclude(one: &str, other: &str, why: &str) -> Result<(), InvalidOptions> {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    refuse(format!("{one} and {other} exclude each other{why}"))
}

/// There is one default gateway for each family.
fn check_gateways(settings: &[Setting]) -> Result<(), InvalidOptions> {
    let mut before: Vec<IpAddr> = Vec::new();
    for setting in settings {
        let Setting::Gateway(address) = setting else { continue };
        let same_family = before.iter().find(|it| it.is_ipv4() == address.is_ipv4());
        match same_family {
            Some(first) if first != address => {
                return exclude(
                    &format!("-g {first}"),
                    &format!("-g {address}"),
                    "there is one default gateway for each family",
                );
            }
            _ => before.push(*address),
        }
    }
    Ok(())
}

/// Options that say how the configuration of the namespace follows the host need one.
fn check_needs_configuration(settings: &[Setting]) -> Result<(), InvalidOptions> {
    if settings.contains(&Setting::ConfigureNamespace) {
        return Ok(());
    }
    let needs = settings.iter().find_map(|setting| match setting {
        Setting::Following(FollowOption::Follow(Follow::Off)) => None,
        Setting::Following(FollowOption::Follow(_)) => Some("--follow"),
        Setting::Following(FollowOption::Linger(_)) => Some("--linger"),
        Setting::Following(FollowOption::Rename(_)) => Some("--rename"),
        _ => None,
    });
    match needs {
        Some(name) => refuse(format!(
            "{name} needs --config-net: without it the interface in the namespace is left alone"
        )),
        None => Ok(()),
    }
}

fn is(setting: &Setting, wanted: &Setting, name: &str) -> Option<String> {
    (setting == wanted).then(|| name.to_owned())
}

fn ipv4_only(setting: &Setting) -> Option<String> {
    is(setting, &Setting::Ipv4Only, "-4")
}

fn ipv6_only(setting: &Setting) -> Option<String> {
    is(setting, &Setting::Ipv6Only, "-6")
}

fn splice_only(setting: &Setting) -> Option<String> {
    is(setting, &Setting::SpliceOnly, "--splice-only")
}

fn no_resolvers(setting: &Setting) -> Option<String> {
    is(setting, &Setting::Dns(AddressOrNone::None), "-D none")
}

fn advertises_resolvers(setting: &Setting) -> Option<String> {
    is(setting, &Setting::AdvertiseDns, "--dhcp-dns")
}

fn no_host_loopback(setting: &Setting) -> Option<String> {
    is(setting, &Setting::NoHostLoopback, "--no-host-loopback")
}

/// What leads from the namespace to the host's loopback.
fn leads_to_host_loopback(setting: &Setting) -> Option<String> {
    match setting {
        Setting::MapHostLoopback(AddressOrNone::Address(address)) => {
            Some(format!("--map-host-loopback {address}"))
        }
        Setting::Ports(option @ (PortOption::TcpOut | PortOption::UdpOut), spec)
            if spec.list != List::None =>
        {
            Some(option.name().to_owned())
        }
        _ => None,
    }
}

fn no_search(setting: &Setting) -> Option<String> {
    is(setting, &Setting::Search(None), "-S none")
}

fn advertises_search(setting: &Setting) -> Option<String> {
    is(setting, &Setting::AdvertiseSearch, "--dhcp-search")
}

fn given_tap(setting: &Setting) -> Option<String> {
    matches!(setting, Setting::TapDescriptor(_)).then(|| "-F".to_owned())
}

/// An option with an address: its name, and the address.
fn address(setting: &Setting) -> Option<(&'static str, IpAddr)> {
    let mapped = |name, value: &AddressOrNone| match value {
        AddressOrNone::Address(address) => Some((name, *address)),
        AddressOrNone::None => None,
    };
    match setting {
        Setting::Address(AddressValue::V4(address, _)) => Some(("-a", (*address).into())),
        Setting::Address(AddressValue::V6(net)) => Some(("-a", net.address().into())),
        Setting::Gateway(address) => Some(("-g", *address)),
        Setting::Outbound(address) => Some(("-o", *address)),
        Setting::DnsHost(address) => Some(("--dns-host", *address)),
        Setting::DnsForward(address) => Some(("--dns-forward", *address)),
        Setting::Dns(value) => mapped("-D", value),
        Setting::MapHostLoopback(value) => mapped("--map-host-loopback", value),
        Setting::MapGuestAddress(value) => mapped("--map-guest-addr", value),
        _ => None,
    }
}

/// What callers add for IPv4 without a look at the family.
fn is_added_by_callers(setting: &Setting) -> bool {
    matches!(setting, Setting::DnsForward(IpAddr::V4(_)))
        || matches!(setting, Setting::MapGuestAddress(AddressOrNone::Address(IpAddr::V4(_))))
}

fn of_ipv4(setting: &Setting) -> Option<String> {
    match setting {
        Setting::OutboundInterface4(_) => Some("--outbound-if4".to_owned()),
        _ if is_added_by_callers(setting) => None,
        _ => {
            address(setting).filter(|(_, it)| it.is_ipv4()).map(|(name, it)| format!("{name} {it}"))
        }
    }
}

fn of_ipv6(setting: &Setting) -> Option<String> {
    match setting {
        Setting::OutboundInterface6(_) => Some("--outbound-if6".to_owned()),
        _ => {
            address(setting).filter(|(_, it)| it.is_ipv6()).map(|(name, it)| format!("{name} {it}"))
        }
    }
}

/// What is about the interface in the namespace, or about traffic through it.
fn of_the_interface(setting: &Setting) -> Option<String> {
    let name = match setting {
        _ if is_added_by_callers(setting) => return None,
        Setting::Template(_) => "-i",
        Setting::TapName(_) => "-I",
        Setting::Netmask(_) => "-n",
        Setting::Mtu(_) | Setting::Following(FollowOption::Mtu(_)) => "-m",
        Setting::OurMac(_) => "-M",
        Setting::TapMac(_) => "--ns-mac-addr",
        Setting::NoCopyRoutes => "--no-copy-routes",
        Setting::NoCopyAddresses => "--no-copy-addrs",
        Setting::OutboundInterface4(_) => "--outbound-if4",
        Setting::OutboundInterface6(_) => "--outbound-if6",
        Setting::Capture(_) => "-p",
        Setting::TapDescriptor(_) => "-F",
        Setting::AdvertiseDns => "--dhcp-dns",
        Setting::AdvertiseSearch => "--dhcp-search",
        Setting::Search(Some(_)) => "-S",
        Setting::Fqdn(_) => "--fqdn",
        Setting::Following(FollowOption::Follow(Follow::Off)) => return None,
        Setting::Following(FollowOption::Follow(_)) => "--follow",
        _ => return of_following(setting).or(address(setting).map(|(name, _)| name.to_owned())),
    };
    Some(name.to_owned())
}

/// How the host is followed.
fn of_following(setting: &Setting) -> Option<String> {
    let name = match setting {
        Setting::Following(FollowOption::Settle(_)) => "--settle",
        Setting::Following(FollowOption::Hold(_)) => "--hold",
        Setting::Following(FollowOption::Linger(_)) => "--linger",
        Setting::Following(FollowOption::Rename(_)) => "--rename",
        Setting::Following(FollowOption::BindWait(_)) => "--bind-wait",
        _ => return None,
    };
    Some(name.to_owned())
}

fn follow_off(setting: &Setting) -> Option<String> {
    let off = Setting::Following(FollowOption::Follow(Follow::Off));
    is(setting, &off, "--follow off")
}

/// Properties that a tap which is given has already.
fn of_a_tap_that_is_made(setting: &Setting) -> Option<String> {
    let name = match setting {
        Setting::TapName(_) => "-I",
        Setting::TapMac(_) => "--ns-mac-addr",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests;
