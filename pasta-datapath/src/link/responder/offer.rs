//! What clients in the namespace are offered, put together whenever something changes. Names and addresses
//! are encoded here, so that nothing is left to do for a request but to copy.

use crate::nat::Nat;
use crate::wire::domain;
use pasta_ipc::start::{ClientOptions, DnsList, Lifetimes, SearchList};
use pasta_ipc::types::{AssignedAddress, FamilyState, MAX_SEARCH, Mtu, NetworkSnapshot, Text};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A time without end, in DHCP (RFC 2131, section 3.3), DHCPv6 (RFC 8415, section 7.7) and router
/// advertisements (RFC 4861, section 4.6.2).
pub const INFINITE: u32 = u32::MAX;
/// Seconds that a lease lasts while the host has a network. Chosen: a client that cannot ask for a while,
/// because we or the machine are stopped, keeps what it has.
const LEASE: u32 = 3600;
/// Seconds after which a client renews its lease at the latest (T1), and so finds that the host has another
/// network. Chosen: one exchange a minute costs nothing on a link that is no wire.
const RENEWAL: u32 = 60;
/// Seconds that a lease lasts while the host has none. Chosen: a client is back 30 seconds after there is
/// one, for it renews at half the time.
pub const SHORT_LEASE: u32 = 60;

/// Our IPv4 address where nothing else says one: the gateway of local mode.
const LOCAL_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);

/// Most resolvers of one family that are offered; the C library asks no more than three in all.
const MAX_RESOLVERS: usize = 3;
/// Most octets of search domains; chosen: they fit an advertisement beside all else, and an answer of DHCP.
const MAX_SEARCH_OCTETS: usize = 496;

/// What clients are offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// To DHCP clients; none: there is no address for them.
    pub ipv4: Option<Ipv4Offer>,
    /// To DHCPv6 clients, and in router advertisements; none: IPv6 is not served.
    pub ipv6: Option<Ipv6Offer>,
    /// The MTU that the interface is to have; none: as it is.
    pub mtu: Option<Mtu>,
    /// Names.
    pub names: Names,
}

/// What DHCP clients are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv4Offer {
    /// The addresses, the first is for those who want no certain one. There is one.
    pub addresses: Vec<AssignedAddress<Ipv4Addr>>,
    /// Ours, which is the server's identifier.
    pub server: Ipv4Addr,
    /// The default router.
    pub router: Option<Ipv4Addr>,
    /// Resolvers, one after the other.
    pub resolvers: Vec<u8>,
    /// Seconds that a lease lasts.
    pub lease: u32,
}

/// What DHCPv6 clients are offered, and who listens to router advertisements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Offer {
    /// The addresses; the first is the one for DHCPv6 clients. None in local mode.
    pub addresses: Vec<AssignedAddress<Ipv6Addr>>,
    /// Our link-local address.
    pub server: Ipv6Addr,
    /// Whether we are a default router.
    pub default_router: bool,
    /// Resolvers, one after the other.
    pub resolvers: Vec<u8>,
    /// Seconds that a lease lasts.
    pub lease: u32,
}

/// Names that clients are offered; empty: none is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Search domains.
    pub search: Vec<u8>,
    /// The same with pointers for common endings.
    pub search_compressed: Vec<u8>,
    /// The client's host name.
    pub host_name: String,
    /// The client's fully qualified domain name, as text and as DNS has it.
    pub fqdn: (String, Vec<u8>),
}

/// What the command line and the supervisor say of an offer.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The command line.
    pub options: ClientOptions,
    /// The host's search domains.
    pub search: Vec<Text<253>>,
}

impl Offer {
    /// The offer under `terms`, by the present state of the network.
    pub fn new(terms: &Terms, nat: &Nat, network: &NetworkSnapshot) -> Self {
        let (options, of_host) = (&terms.options, nat.offered_resolvers());
        let resolvers: &[IpAddr] = match &options.dns {
            DnsList::Given(list) => list.as_slice(),
            DnsList::Host => &of_host,
        };
        let resolvers = if options.advertise_dns { resolvers } else { &[] };
        let lease = |state| match (options.lifetimes, state) {
            (Lifetimes::Unlimited, _) => INFINITE,
            (Lifetimes::Limited, FamilyState::Bound) => LEASE,
            (Lifetimes::Limited, _) => SHORT_LEASE,
        };
        let is_served = |address: IpAddr, state| nat.serves(address) && state != FamilyState::Off;

        let family = &network.ipv4;
        let served = is_served(Ipv4Addr::UNSPECIFIED.into(), family.state);
        let server = family.our_address.unwrap_or(LOCAL_GATEWAY);
        let ipv4 = Ipv4Offer {
            addresses: family.assigned.as_slice().to_vec(),
            server,
            router: family.default_route.then_some(family.gateway.unwrap_or(server)),
            resolvers: octets(resolvers, |it| match it {
                IpAddr::V4(it) => Some(it.octets()),
                IpAddr::V6(_) => None,
            }),
            lease: lease(family.state),
        };
        let ipv4 = Some(ipv4).filter(|it| served && !it.addresses.is_empty());

        let family = &network.ipv6;
        let served = is_served(Ipv6Addr::UNSPECIFIED.into(), family.state);
        let ipv6 = served.then(|| Ipv6Offer {
            addresses: family.assigned.as_slice().to_vec(),
            server: nat.our_link_local(),
            default_router: family.default_route,
            resolvers: octets(resolvers, |it| match it {
                IpAddr::V4(_) => None,
                IpAddr::V6(it) => Some(it.octets()),
            }),
            lease: lease(family.state),
        });
        Self { ipv4, ipv6, mtu: network.offered_mtu, names: Names::new(terms) }
    }
}

/// After how many seconds a lease of `lease` seconds is renewed (T1).
pub fn renewal(lease: u32) -> u32 {
    match lease {
        INFINITE => INFINITE,
        seconds => (seconds / 2).min(RENEWAL),
    }
}

/// How many seconds the lease of a client lasts that knows nothing of T1 and renews after half of it, where others have
/// `lease` seconds.
pub fn lease_without_renewal(lease: u32) -> u32 {
    match lease {
        INFINITE => INFINITE,
        seconds => seconds.min(2 * RENEWAL),
    }
}

/// The first resolvers of one family.
fn octets<const N: usize>(of: &[IpAddr], typed: impl Fn(IpAddr) -> Option<[u8; N]>) -> Vec<u8> {
    of.iter().filter_map(|it| typed(*it)).take(MAX_RESOLVERS).flatten().collect()
}

impl Names {
    fn new(terms: &Terms) -> Self {
        let options = &terms.options;
        let search = match &options.search {
            SearchList::Given(list) => list.as_slice(),
            SearchList::Host => &terms.search,
        };
        let search = if options.advertise_search { search } else { &[] };
        let mut room = MAX_SEARCH_OCTETS;
        let fitting = |it: &&str| {
            // The length of the first label, and the root.
            let rest = room.checked_sub(it.len() + 2);
            room = rest.unwrap_or(room);
            rest.is_some()
        };
        let search = search.iter().take(MAX_SEARCH).map(Text::as_str);
        let search: Vec<&str> = search.take_while(fitting).collect();
        let text = |name: &Option<Text<253>>| {
            name.as_ref().map_or_else(String::new, |it| it.as_str().to_owned())
        };
        let fqdn = text(&options.fqdn);
        Self {
            search: domain::encode_list(search.iter().copied()),
            search_compressed: domain::encode_compressed(search),
            host_name: text(&options.host_name),
            fqdn: (fqdn.clone(), domain::encode(&fqdn)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::start::{FamilyPolicy, HostLoopback};
    use pasta_ipc::types::{
        AddressLosses, Bounded, Completeness, FamilySnapshot, Generation, Prefix, Service,
    };

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn nat() -> Nat {
        fn policy<A>() -> FamilyPolicy<A> {
            FamilyPolicy {
                service: Service::On,
                host_loopback: HostLoopback::Gateway,
                guest_address: None,
                dns_forward: None,
                dns_host: None,
                outbound: None,
                outbound_interface: None,
            }
        }
        Nat::new(policy(), policy())
    }

    /// A network with one IPv4 address, and IPv6 without any.
    fn network(state: FamilyState, gateway: Option<Ipv4Addr>) -> NetworkSnapshot {
        let assigned = Bounded::truncated([Prefix::new(ADDRESS, 24).unwrap().into()]).0;
        let (default_route, our_address) = (true, gateway);
        let ipv4 = FamilySnapshot {
            state,
            assigned,
            default_route,
            gateway,
            our_address,
            ..FamilySnapshot::off()
        };
        NetworkSnapshot {
            generation: Generation(1),
            ipv4,
            ipv6: FamilySnapshot { state, ..FamilySnapshot::off() },
            mtu: None,
            offered_mtu: None,
            losses: AddressLosses(0),
            completeness: Completeness::Complete,
        }
    }

    fn text(name: &str) -> Text<253> {
        Text::truncated(name)
    }

    #[test]
    fn leases_are_short_while_there_is_no_network_and_endless_where_nothing_is_followed() {
        let lease = |lifetimes, state| {
            let options = ClientOptions { lifetimes, ..ClientOptions::default() };
            let terms = Terms { options, ..Terms::default() };
            let offer = Offer::new(&terms, &nat(), &network(state, None));
            (offer.ipv4.map(|it| it.lease), offer.ipv6.map(|it| it.lease))
        };
        let both = |seconds| (Some(seconds), Some(seconds));
        assert_eq!(lease(Lifetimes::Limited, FamilyState::Bound), both(3600));
        assert_eq!(lease(Lifetimes::Limited, FamilyState::Held), both(60));
        assert_eq!(lease(Lifetimes::Limited, FamilyState::Local), both(60));
        assert_eq!(lease(Lifetimes::Unlimited, FamilyState::Held), both(u32::MAX));
        assert_eq!(lease(Lifetimes::Limited, FamilyState::Off), (None, None));
    }

    #[test]
    fn a_lease_is_renewed_after_half_of_it_and_each_minute_at_least() {
        let times = [SHORT_LEASE, 100, LEASE, INFINITE].map(renewal);
        assert_eq!(times, [30, 50, 60, INFINITE]);
        let times = [SHORT_LEASE, LEASE, INFINITE].map(lease_without_renewal);
        assert_eq!(times, [60, 120, INFINITE]);
        assert_eq!(times.map(|it| it / 2), times.map(renewal).map(|it| it.min(INFINITE / 2)));
    }

    #[test]
    fn without_a_gateway_of_the_hosts_we_are_the_router_at_an_address_of_our_own() {
        let ours = |gateway| {
            let network = network(FamilyState::Bound, gateway);
            let offer = Offer::new(&Terms::default(), &nat(), &network).ipv4.unwrap();
            (offer.server, offer.router)
        };
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(ours(Some(gateway)), (gateway, Some(gateway)));
        assert_eq!(ours(None), (LOCAL_GATEWAY, Some(LOCAL_GATEWAY)));
    }

    #[test]
    fn names_and_resolvers_are_offered_as_the_command_line_says() {
        let dns: Vec<IpAddr> = vec![[192, 0, 2, 53].into(), Ipv6Addr::LOCALHOST.into()];
        let mut options = ClientOptions {
            dns: DnsList::Given(dns.try_into().unwrap()),
            ..ClientOptions::default()
        };
        let offered = |options: &ClientOptions| {
            let terms = Terms { options: options.clone(), search: vec![text("host.example")] };
            let offer = Offer::new(&terms, &nat(), &network(FamilyState::Bound, None));
            (offer.ipv4.unwrap().resolvers, offer.ipv6.unwrap().resolvers, offer.names.search)
        };
        assert_eq!(offered(&options), (Vec::new(), Vec::new(), Vec::new()));
        (options.advertise_dns, options.advertise_search) = (true, true);
        let (ipv4, ipv6) = (vec![192, 0, 2, 53], Ipv6Addr::LOCALHOST.octets().to_vec());
        let search = domain::encode("host.example");
        assert_eq!(offered(&options), (ipv4.clone(), ipv6.clone(), search));
        options.search = SearchList::Given(vec![text("given.example")].try_into().unwrap());
        assert_eq!(offered(&options), (ipv4, ipv6, domain::encode("given.example")));
    }

    #[test]
    fn search_domains_are_cut_where_an_advertisement_has_no_room() {
        let names: Vec<_> = (0..16).map(|n| text(&format!("{n}.{}", "x".repeat(50)))).collect();
        let options = ClientOptions { advertise_search: true, ..ClientOptions::default() };
        let terms = Terms { options, search: names };
        let offer = Offer::new(&terms, &nat(), &network(FamilyState::Bound, None));
        let (len, one) =
            (offer.names.search.len(), domain::encode(&format!("0.{}", "x".repeat(50))));
        assert!(len <= MAX_SEARCH_OCTETS && len > MAX_SEARCH_OCTETS - one.len() - 1, "{len}");
    }
}
