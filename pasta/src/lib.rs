//! The parts of `pasta` that others use too: the grammar of port forwards and of resolv.conf (the fuzzers), errors
//! as people read them, and what a client of the control socket does (`pesto`, `pasta status`).

pub mod client;
pub mod document;
pub mod error_text;
pub mod pesto;
pub mod ports;
pub mod resolv_conf;
pub mod status_report;
