//! The retransmission timeout (RFC 6298).

use std::time::Duration;

/// Before the first measurement (RFC 6298, section 2.1).
const INITIAL: Duration = Duration::from_secs(1);
/// Lower bound. RFC 6298 asks for a second; Linux uses 200 ms (`TCP_RTO_MIN`), and so do we: both
/// ends of this link are on one machine.
const MIN: Duration = Duration::from_millis(200);
/// Upper bound (RFC 6298, section 2.5: at least 60 s; Linux: `TCP_RTO_MAX`).
const MAX: Duration = Duration::from_secs(120);

/// Estimates the round trip time to the namespace and gives the retransmission timeout, with exponential
/// back-off.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetransmissionTimeout {
    /// Smoothed round trip and its variation; none before the first measurement.
    estimate: Option<(Duration, Duration)>,
    /// How often the timeout was doubled since an acknowledgement made progress.
    doublings: u32,
}

impl RetransmissionTimeout {
    /// Takes in a measured round trip of a segment that was sent once (Karn's algorithm).
    pub fn measured(&mut self, rtt: Duration) {
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((srtt, rttvar)) => {
                (srtt * 7 / 8 + rtt / 8, rttvar * 3 / 4 + srtt.abs_diff(rtt) / 4)
            }
        });
    }

    /// An acknowledgement made progress: back-off ends.
    pub fn progressed(&mut self) {
        self.doublings = 0;
    }

    /// The timeout has passed without one.
    pub fn expired(&mut self) {
        self.doublings = self.doublings.saturating_add(1);
    }

    /// How often in a row it has passed.
    pub fn expirations(&self) -> u32 {
        self.doublings
    }

    /// The present timeout.
    pub fn current(&self) -> Duration {
        let base = self.estimate.map_or(INITIAL, |(srtt, rttvar)| srtt + rttvar * 4).max(MIN);
        base.saturating_mul(1 << self.doublings.min(16)).min(MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_wait_is_a_second_and_then_follows_the_round_trip() {
        let mut rto = RetransmissionTimeout::default();
        assert_eq!(rto.current(), Duration::from_secs(1));
        rto.measured(Duration::from_millis(300));
        assert_eq!(rto.current(), Duration::from_millis(900));
        for _ in 0..100 {
            rto.measured(Duration::from_micros(50));
        }
        assert_eq!(rto.current(), MIN);
    }

    #[test]
    fn each_expiry_doubles_up_to_the_bound_and_progress_ends_it() {
        let mut rto = RetransmissionTimeout::default();
        rto.measured(Duration::ZERO);
        rto.expired();
        assert_eq!(rto.current(), MIN * 2);
        for _ in 0..100 {
            rto.expired();
        }
        assert_eq!(rto.current(), MAX);
        rto.progressed();
        assert_eq!(rto.current(), MIN);
    }
}
