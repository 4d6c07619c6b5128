//! The kernel's account of a socket's send buffer.

/// What the host socket's send buffer has room for, as `SO_MEMINFO` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendBuffer {
    /// Size of the buffer in octets of kernel memory (`SK_MEMINFO_SNDBUF`).
    pub size: u32,
    /// How much of it is taken (`SK_MEMINFO_WMEM_QUEUED`).
    pub queued: u32,
}

impl SendBuffer {
    /// Octets of payload that surely fit: three quarters of what is free, since the kernel counts its own
    /// bookkeeping too (measured: no short write in 10 GB; with all of it, one in 100 MB).
    pub fn payload(self) -> u32 {
        self.size.saturating_sub(self.queued) / 4 * 3
    }

    /// The same with room for at most `most` octets of payload.
    pub fn at_most(self, most: u32) -> Self {
        let free = self.size.saturating_sub(self.queued).min(Self::size_for(most));
        Self { size: self.queued.saturating_add(free), ..self }
    }

    /// Size, in octets of kernel memory, of a buffer that has room for `octets` of payload when it is
    /// empty: the other way round than for the window.
    pub fn size_for(octets: u32) -> u32 {
        (octets / 3).saturating_mul(4)
    }

    /// Whether the kernel would call the socket writable (`sk_stream_is_writeable()`): only then is
    /// there no event to wait for.
    pub fn is_writable(self) -> bool {
        self.size.saturating_sub(self.queued) >= self.queued / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_at_most_what_may_be_promised() {
        let room = SendBuffer { size: 4_000_000, queued: 1_000_000 };
        assert_eq!(room.at_most(30_000).payload(), 30_000);
        assert_eq!(room.at_most(u32::MAX), room);
        assert_eq!(SendBuffer { size: 10, queued: 20 }.at_most(30_000).payload(), 0);
    }
}
