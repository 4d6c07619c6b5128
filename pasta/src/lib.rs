//! The parts of `pasta` that the fuzzers use: the grammar of port forwards.

pub mod ports;
