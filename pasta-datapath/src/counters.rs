//! One counter for each fate of a frame. Nothing is dropped without one of these.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a frame, or what it asked for, was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// All reasons, in the order they are shown.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Name in the log and in the status.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// Too short, or lengths, checksums or fields contradict each other.
    Malformed = "malformed",
    /// Neither ARP, IPv4 nor IPv6, or a protocol over these that is not carried.
    Unsupported = "unsupported protocol",
    /// The family is switched off.
    FamilyOff = "family off",
    /// The protocol is switched off, or nobody is to answer.
    ProtocolOff = "protocol off",
    /// A fragment whose packet was not whole in time.
    FragmentsLate = "fragments late",
    /// A fragment that overlaps another one of its packet, or contradicts it; then all of that packet.
    FragmentConflict = "fragment conflict",
    /// A fragment that came twice.
    FragmentDuplicate = "fragment duplicate",
    /// A fragment whose packet had to go for others, or has too many.
    FragmentsEvicted = "fragments evicted",
    /// A source that no host may use: loopback, multicast, broadcast, unspecified.
    ImpossibleSource = "impossible source",
    /// A destination that is not carried: loopback, multicast, broadcast, unspecified, port 0.
    ImpossibleDestination = "impossible destination",
    /// Neighbour requests that are not to be answered: for the asker itself, or probes. Answers of
    /// which nothing is learned.
    NeighbourNotOurs = "neighbour request not ours",
    /// A request that we are not to answer: of a client that has chosen another server, or needs no answer.
    NotAnswered = "request not answered",
    /// Refused by address policy or because the host has no way there; the sender got an ICMP error.
    Unreachable = "unreachable",
    /// The flow table is full.
    TableFull = "flow table full",
    /// Too many flows are yet to be opened; the namespace sends this again.
    NewFlowsFull = "too many new flows at once",
    /// Sockets have run out, or the kernel refused one.
    NoSocket = "no socket",
    /// The host socket did not take a datagram: its buffer is full.
    SocketFull = "socket full",
    /// No room to keep what has come in order for a socket that does not take it: its flow ended.
    BacklogFull = "backlog full",
    /// The tap did not take a frame.
    TapFull = "tap full",
    /// A connection or datagram for the namespace, which has no address, or we none to send it from.
    NoAddress = "no address for arrival",
    /// There is no tap.
    NoTap = "no tap",
    /// A datagram from the host is larger than what the tap carries.
    TooLarge = "too large for tap",
    /// A segment or datagram for no flow, and none that opens one.
    NoFlow = "no flow",
}

/// Counts of drops, and of frames that went through.
#[derive(Clone, Debug)]
pub struct Counters {
    drops: [u64; DropReason::ALL.len()],
    /// Frames read from the tap.
    pub from_tap: u64,
    /// Frames written to the tap.
    pub to_tap: u64,
    /// Octets of them.
    pub octets_to_tap: u64,
    /// Packets to the tap that may be fragmented there, however many are in one frame; they are numbered by it.
    pub datagrams_to_tap: u64,
    /// Frames of datagrams read from the tap.
    pub datagrams_out: u64,
    /// Reads of sockets that gave datagrams.
    pub datagrams_in: u64,
    /// Flows opened.
    pub flows: u64,
    /// Flows that had to go for others.
    pub evicted: u64,
    /// Flows that were reset because the namespace was about to lose their address.
    pub left: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: [0; DropReason::ALL.len()],
            from_tap: 0,
            to_tap: 0,
            octets_to_tap: 0,
            datagrams_to_tap: 0,
            datagrams_out: 0,
            datagrams_in: 0,
            flows: 0,
            evicted: 0,
            left: 0,
        }
    }
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += 1;
        }
    }

    /// The counts by name, without the drops.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        let Self { from_tap, to_tap, octets_to_tap, flows, evicted, left, .. } = self;
        [
            ("frames from tap", *from_tap),
            ("frames to tap", *to_tap),
            ("octets to tap", *octets_to_tap),
            ("flows", *flows),
            ("flows evicted", *evicted),
            ("flows reset with their address", *left),
        ]
    }

    /// How many were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_tap, to_tap, flows, evicted, .. } = self;
        write!(f, "frames from tap {from_tap}, to tap {to_tap}, flows {flows}, ")?;
        write!(f, "evicted {evicted}; dropped:")?;
        let mut none = true;
        for reason in DropReason::ALL {
            let count = self.dropped(*reason);
            if count > 0 {
                none = false;
                write!(f, " {} {count},", reason.name())?;
            }
        }
        if none { f.write_str(" none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let mut counters = Counters::default();
        for (n, reason) in DropReason::ALL.iter().enumerate() {
            for _ in 0..=n {
                counters.drop(*reason);
            }
        }
        for (n, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(counters.dropped(*reason), n as u64 + 1);
        }
        let last = DropReason::ALL.len();
        let name = DropReason::ALL[last - 1].name();
        assert!(counters.to_string().contains(&format!("{name} {last}")));
    }
}
