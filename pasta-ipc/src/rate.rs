#![forbid(unsafe_code)]
//! How many messages a peer may send in a time, as a token bucket.
//!
//! A receiver that has had enough stops receiving: the channel fills, and a peer that behaves counts what it
//! cannot send. The bucket is kept as the moment when it would be full again (the generic cell rate algorithm,
//! ITU-T I.371), so there is nothing to refill. Time is a duration since a start that the caller chooses.

use std::time::Duration;

/// Allows `burst` messages at once and `per_second` in the long run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Time for which one message takes the bucket.
    interval: Duration,
    /// Time in which a bucket that is empty fills.
    depth: Duration,
    /// When it is full again.
    full_at: Duration,
}

impl TokenBucket {
    /// A full bucket. Zero counts as one in both.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, depth: interval * burst.max(1), full_at: Duration::ZERO }
    }

    /// Takes one message out.
    ///
    /// # Errors
    ///
    /// If there is none: the moment when there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.interval;
        match full_at.checked_sub(self.depth) {
            Some(ready) if ready > now => Err(ready),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// How long it takes from empty to full.
    pub fn depth(&self) -> Duration {
        self.depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut TokenBucket, now: Duration) -> usize {
        (0..1_000_000).take_while(|_| bucket.take(now).is_ok()).count()
    }

    #[test]
    fn burst_comes_at_once_and_the_rate_after_it() {
        let mut bucket = TokenBucket::new(100, 50);
        let start = Duration::from_secs(7);
        assert_eq!(taken(&mut bucket, start), 50);
        assert_eq!(bucket.take(start), Err(start + Duration::from_millis(10)));
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(10)), 1);
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(110)), 10);
        // However long nothing comes, there is never more than the burst.
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(86_400)), 50);
    }

    #[test]
    fn no_second_has_more_than_the_burst_and_the_rate() {
        let mut bucket = TokenBucket::new(1000, 20);
        let ticks = (0..2_000_u64).map(|tick| Duration::from_micros(tick * 500));
        let total: usize = ticks.map(|now| taken(&mut bucket, now)).sum();
        assert!((1000..=1020).contains(&total), "{total}");
    }

    #[test]
    fn clock_that_goes_back_gives_nothing_away() {
        let mut bucket = TokenBucket::new(10, 5);
        assert_eq!(taken(&mut bucket, Duration::from_secs(100)), 5);
        assert_eq!(taken(&mut bucket, Duration::from_secs(1)), 0);
    }
}
