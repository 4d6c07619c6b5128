//! Responders: they answer what the namespace asks for itself, from state alone and without a socket. Who has an
//! address is answered by ARP ([`arp`]) and neighbour discovery ([`ndp`]).
//!
//! A namespace whose interface is configured from inside learns its configuration here: by DHCP
//! ([`dhcpv4`]), DHCPv6 ([`dhcpv6`]) or router advertisements ([`ra`]). All offer the same, which is what the
//! namespace was assigned ([`offer`]), and keep nothing of any client: who asks twice is answered alike.
//!
//! The host's changes reach such a namespace by lifetimes. A lease is short while there is no network and renewed
//! each minute while there is one, so that a client is back soon; an address that is no
//! longer assigned is refused; what goes is advertised as deprecated at once.
//!
//! Answers are written into buffers that were zero, never into the frame that is answered.

pub mod arp;
pub mod dhcpv4;
pub mod dhcpv6;
pub mod ndp;
pub mod offer;
pub mod ra;

use crate::nat::Nat;
use crate::time::Instant;
use offer::{Offer, Terms};
use pasta_ipc::start::{ClientOptions, Responders};
use pasta_ipc::types::{NetworkSnapshot, ResolverSnapshot, Service};
use ra::RouterAdvertiser;

/// The state that answers are made from.
#[derive(Debug)]
pub struct Responder {
    services: Responders,
    terms: Terms,
    network: Option<NetworkSnapshot>,
    offer: Offer,
    /// What is advertised when.
    pub advertiser: RouterAdvertiser,
}

impl Responder {
    /// With the `services` and `options` of the command line. Nothing is offered yet. `seed` is where
    /// random times come from.
    pub fn new(services: Responders, options: ClientOptions, seed: u64) -> Self {
        let advertiser = RouterAdvertiser::new(options.lifetimes, seed);
        let terms = Terms { options, search: Vec::new() };
        Self { services, terms, network: None, offer: Offer::default(), advertiser }
    }

    /// One that answers neighbour solicitations, and nothing else.
    pub fn of_neighbours() -> Self {
        let (dhcp, dhcpv6, router_advertisement) = (Service::Off, Service::Off, Service::Off);
        let services = Responders { ndp: Service::On, dhcp, dhcpv6, router_advertisement };
        Self::new(services, ClientOptions::default(), 0)
    }

    /// Which protocols are answered.
    pub fn services(&self) -> Responders {
        self.services
    }

    /// What is offered.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Takes in what the network is like.
    pub fn update_network(&mut self, now: Instant, nat: &Nat, network: &NetworkSnapshot) {
        self.network = Some(network.clone());
        self.update(now, nat);
    }

    /// Takes in the host's resolvers, which `nat` has taken in.
    pub fn update_resolvers(&mut self, now: Instant, nat: &Nat, resolvers: &ResolverSnapshot) {
        self.terms.search = resolvers.search.as_slice().to_vec();
        self.update(now, nat);
    }

    fn update(&mut self, now: Instant, nat: &Nat) {
        let Some(network) = &self.network else { return };
        self.offer = Offer::new(&self.terms, nat, network);
        if self.services.router_advertisement == Service::On {
            self.advertiser.update(now, &self.offer, self.services.dhcpv6);
        }
    }
}
