//! The kernel's account of a socket's send buffer.

/// Size and use of a send buffer, as `SO_MEMINFO` reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendBuffer {
    /// Size of the buffer in octets of kernel memory (`SK_MEMINFO_SNDBUF`).
    pub size: u32,
    /// How much of it is in use (`SK_MEMINFO_WMEM_QUEUED`).
    pub queued: u32,
}

impl SendBuffer {
    /// Octets of payload that fit: three quarters of what is free, since the kernel counts its own
    /// bookkeeping too. With all of it a write comes up short now and then.
    pub fn payload(self) -> u32 {
        self.size.saturating_sub(self.queued) / 4 * 3
    }

    /// The same with free space for at most `most` octets of payload.
    pub fn at_most(self, most: u32) -> Self {
        let free = self.size.saturating_sub(self.queued).min(Self::size_for(most));
        Self { size: self.queued.saturating_add(free), ..self }
    }

    /// Size, in octets of kernel memory, of an empty buffer that `octets` of payload fit: the inverse of
    /// [`SendBuffer::payload`].
    pub fn size_for(octets: u32) -> u32 {
        (octets / 3).saturating_mul(4)
    }

    /// Whether the kernel calls the socket writable (`sk_stream_is_writeable()`): then it sends no event
    /// when the buffer drains.
    pub fn is_writable(self) -> bool {
        self.size.saturating_sub(self.queued) >= self.queued / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_bounded_by_the_largest_window() {
        let buffer = SendBuffer { size: 4_000_000, queued: 1_000_000 };
        assert_eq!(buffer.at_most(30_000).payload(), 30_000);
        assert_eq!(buffer.at_most(u32::MAX), buffer);
        assert_eq!(SendBuffer { size: 10, queued: 20 }.at_most(30_000).payload(), 0);
    }
}
