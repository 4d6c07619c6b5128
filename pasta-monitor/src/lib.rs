//! Netlink and the namespace: the process of pasta that parses no frame.
//!
//! The monitor reconciles; it does not patch. It reads what the host has, decides what the namespace
//! should look like, reads what the namespace has, and carries out the difference. While it runs, an
//! event on either side only means that this is to be done again:
//!
//! ```text
//! HostView      what the host has                            host.rs
//! Policy        what the command line asks for               policy.rs
//! NamespaceView what the namespace has, and what is ours     namespace.rs
//!
//! candidates(HostView, Policy)         -> Candidates candidate.rs  what could be the template
//! Tracker::advance(now, HostView, ..)  -> Binding    bind.rs       which of them is, over time
//! wanted(HostView, Policy, Template)   -> Wanted     desired.rs    what a family should have
//! State::handle(now, Event)            -> Desired    reduce.rs     what the namespace should have
//! plan(Desired, NamespaceView)         -> Plan       plan.rs       the smallest list of changes
//! snapshot(Bindings, Desired, View)    -> Snapshot   publish.rs    what the datapath needs to know
//! Refresh::begin_host(now), ..         -> Reading    refresh.rs    what is to be read again, and when
//! Pass::next(now, State, Input)        -> Step       reconcile.rs  the steps of one pass
//! Interest::of(HostView, Bindings)     -> Interest   interest.rs   which events can matter
//! program(Interest)                    -> Program    filter.rs     the kernel's filter for these
//! ```
//!
//! These are pure: values in, values out, nothing that can block or fail. Around them is a thin shell:
//!
//! - [`decode`] turns octets of the kernel into typed values, whole or not at all;
//! - [`netlink`] carries requests and answers, [`read`] makes the two views of dumps;
//! - [`watch`] receives events and batches bursts of them;
//! - [`ports`] finds out who listens on either side, [`sockets`] decides which sockets inside the namespace the datapath gets;
//! - [`apply`] carries out a plan, [`tap`] makes the link, [`log`] and [`peer`] talk to the other two
//!   processes.
//!
//! What we put into the namespace carries a number of our own ([`namespace::TAG`]), so what is ours is
//! read back from the kernel and nothing that the namespace's users configured is ever in a plan.
//!
//! Limits: 4096 links, 4096 routes and, for each link and family, 64 addresses are read of the host;
//! 64 addresses and 256 routes for each family are reproduced (chosen: far beyond real templates, and
//! small enough to be read at once).

pub mod apply;
pub mod bind;
pub mod candidate;
pub mod change;
pub mod decode;
pub mod desired;
pub mod explain;
pub mod far;
pub mod filter;
pub mod host;
pub mod interest;
pub mod log;
pub mod namespace;
pub mod neighbours;
pub mod net;
pub mod netlink;
pub mod op;
pub mod packet_sockets;
pub mod peer;
pub mod plan;
pub mod policy;
pub mod ports;
pub mod publish;
pub mod read;
pub mod reconcile;
pub mod record;
pub mod reduce;
pub mod refresh;
pub mod sockets;
pub mod status;
pub mod sys;
pub mod tap;
pub mod time;
pub mod unbound;
pub mod watch;
