//! Port forwarding: which rules lead to which listeners, the listeners there are, and the pool of
//! sockets of the namespace.

pub mod listeners;
pub mod rules;
pub mod socket_pool;
