//! System calls and nothing else: descriptors, buffers, options. What needs `unsafe` is in one file.

pub mod epoll;
pub mod fd_budget;
pub mod host;
pub mod listen_socket;
pub mod pipe;
pub mod pktinfo;
#[expect(unsafe_code, reason = "system calls that no dependency wraps without an allocation")]
mod raw;
pub mod send_buffer;
pub mod send_option;
pub mod socket;
pub mod tap;

pub use raw::*;
