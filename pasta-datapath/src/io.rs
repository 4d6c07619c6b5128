//! The shell around the logic: descriptors, system calls, buffers.

pub mod epoll;
pub mod sockets;
pub mod tap;
