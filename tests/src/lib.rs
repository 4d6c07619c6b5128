//! The lab and the harness of the whole-program tests, and the client that runs in the namespace.
//!
//! # The lab
//!
//! A test of the whole program needs a machine with a network, a far side that answers, and a way
//! to see what arrived. All of it is made here from namespaces, with no tool from outside: not
//! `ip`, not `iptables`, not `ping`. Each test is a process of its own (see [`harness`]) that enters
//! new namespaces, builds the network below, runs `pasta` as an ordinary user and talks to a client
//! that `pasta` runs as COMMAND.
//!
//! ```text
//!  namespace of pasta        host network namespace          remote network namespace
//!  ┌───────────────┐         ┌──────────────────────┐        ┌─────────────────────────┐
//!  │  lab-client   │──tap────│ pasta    lo services │        │ services: echo, source, │
//!  │  (COMMAND)    │         │          eth0 ───────┼──veth──┼ uplink    sink, reset   │
//!  └───────────────┘         └──────────────────────┘        └─────────────────────────┘
//!                             192.0.2.2, 2001:db8::2          192.0.2.1, fe80::1 (router)
//!                                                             "the internet": see lab::address
//! ```
//!
//! The lab works as root and as an ordinary user who may make user namespaces. What it cannot do
//! where it runs becomes a skipped test with a reason, never a passed one.
//!
//! - [`lab`] has the namespaces, the network, the services and the running `pasta`.
//! - [`client`] is what `lab-client` can do; one line asks, a few lines answer.
//! - [`harness`] runs the cases of one test file, each in a process of its own.
//! - [`histories`] lets things happen at random and holds what comes of it against the rules.
//! - [`pattern`] are the octets that transfers are made of, and their verification.
//! - [`mod@bench`] is what benchmarks share.
//! - [`netlink`] builds networks and reads them back.

pub mod bench;
pub mod client;
pub mod datagrams;
pub mod harness;
pub mod histories;
pub mod lab;
pub mod many_flows;
pub mod netlink;
pub mod pattern;
pub mod sys;

/// An error of any kind, for tests and the code around them: it is only ever printed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a test or a step of one gives.
pub type Outcome<T = ()> = Result<T, Failure>;
