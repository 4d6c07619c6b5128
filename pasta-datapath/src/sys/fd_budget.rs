//! How many descriptors there may be, and who may have the last of them.

/// Descriptors kept for other things than flows where there are many, and at least. Chosen: our own are ten, and
/// some are held for a moment only.
const RESERVED: usize = 64;
const LEAST_RESERVED: usize = 16;

/// The limit on descriptors, without those that are kept for other things than flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdBudget {
    limit: usize,
}

impl FdBudget {
    /// With `limit` descriptors in all.
    pub fn new(limit: usize) -> Self {
        Self { limit }
    }

    /// What the process's own limit leaves: where that is low, a quarter is kept.
    pub fn of_process(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let reserved = (limit / 4).clamp(LEAST_RESERVED, RESERVED);
        Self::new(limit.saturating_sub(reserved).max(LEAST_RESERVED))
    }

    /// Descriptors in all.
    pub fn limit(self) -> usize {
        self.limit
    }

    /// How many sockets may be in stock, for flows to come.
    pub fn stock(self) -> usize {
        self.limit / 4
    }

    /// Descriptors that are left while `held` are held or on their way.
    pub fn left(self, held: usize) -> usize {
        self.limit.saturating_sub(held)
    }

    /// Whether there may be another listener beside `listeners`: they take half of the descriptors at most, so
    /// that rules for all ports leave some for what comes to them.
    pub fn allows_listener(self, listeners: usize) -> bool {
        listeners < self.limit / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_take_half_of_the_descriptors_at_most() {
        let budget = FdBudget::new(100);
        assert!(budget.allows_listener(49) && !budget.allows_listener(50));
        assert_eq!(budget.stock(), 25);
        assert_eq!((budget.left(40), budget.left(100), budget.left(101)), (60, 0, 0));
    }

    #[test]
    fn low_limit_leaves_most_to_flows() {
        let limits =
            [(0, 16), (64, 48), (80, 60), (128, 96), (1024, 960), (1 << 20, (1 << 20) - 64)];
        for (limit, left) in limits {
            assert_eq!(FdBudget::of_process(limit).limit(), left, "{limit}");
        }
    }
}
