//! `show`: the links, addresses and routes of the namespace, one fact each.
//!
//! ```text
//! link eth0 up mtu 65520 mac 02:00:00:00:00:01
//! address 192.0.2.2/24 on eth0
//! route default via 192.0.2.1 on eth0
//! ```

use super::Facts;
use crate::Outcome;
use crate::netlink::{Mac, Netlink};

/// Lists everything.
///
/// # Errors
///
/// What the kernel reports.
pub fn answer() -> Outcome<Facts> {
    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    let name = |index: u32| {
        links.iter().find(|link| link.index == index).map_or("?", |link| link.name.as_str())
    };
    let mut facts = Facts::new();
    for link in &links {
        let state = if link.up { "up" } else { "down" };
        facts.push(format!("link {} {state} mtu {} mac {}", link.name, link.mtu, Mac(&link.mac)));
    }
    for address in netlink.addresses()? {
        let tentative = if address.tentative { " tentative" } else { "" };
        facts.push(format!(
            "address {}/{} on {}{tentative}",
            address.address,
            address.prefix,
            name(address.link)
        ));
    }
    for route in netlink.routes()? {
        let family = if route.ipv6 { "default6" } else { "default4" };
        let to = route.destination.map_or_else(|| family.to_owned(), |(a, p)| format!("{a}/{p}"));
        let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        facts.push(format!("route {to}{via} on {}", route.link.map_or("?", name)));
    }
    Ok(facts)
}
