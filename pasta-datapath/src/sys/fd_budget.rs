//! How many descriptors there may be, and who may have the last of them.

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
        assert_eq!((budget.left(40), budget.left(100), budget.left(101)), (60, 0, 0));
    }
}
