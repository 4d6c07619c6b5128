//! The shell around the logic: descriptors, system calls, buffers.

pub mod envelope;
pub mod epoll;
pub mod listeners;
pub mod pipes;
pub mod sockets;
pub mod tap;
