//! What happens on the link and needs no host socket: parsing and classification, ARP and NDP, and
//! ICMP errors.

pub mod classify;
pub mod icmp_error;
pub mod neighbour;
