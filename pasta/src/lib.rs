//! The parts of `pasta` that are of use without it: the grammar of forwarded ports, for fuzzing.

pub mod ports;
