//! Sequence numbers, which wrap (RFC 9293, section 3.4).

use std::ops::{Add, AddAssign, Sub};

/// A sequence number. Only numbers less than 2^31 apart can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(u32);

impl From<u32> for Seq {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<Seq> for u32 {
    fn from(seq: Seq) -> Self {
        seq.0
    }
}

impl Seq {
    /// A number known at compile time.
    pub const fn const_from(number: u32) -> Self {
        Self(number)
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

impl AddAssign<u32> for Seq {
    fn add_assign(&mut self, octets: u32) {
        *self = *self + octets;
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, octets: u32) -> Self {
        Self(self.0.wrapping_sub(octets))
    }
}

impl Sub for Seq {
    type Output = i32;

    /// How far `self` is after `earlier`; negative if it is before.
    fn sub(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0) as i32
    }
}

impl Seq {
    /// Whether this number comes before `other`.
    pub fn before(self, other: Self) -> bool {
        self - other < 0
    }

    /// Whether this number comes after `other`.
    pub fn after(self, other: Self) -> bool {
        self - other > 0
    }

    /// How far this number is after `earlier`; zero if it is not.
    pub fn distance_from(self, earlier: Self) -> u32 {
        u32::try_from(self - earlier).unwrap_or(0)
    }

    /// The later of the two.
    #[must_use]
    pub fn latest(self, other: Self) -> Self {
        if other.after(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let (old, new) = (Seq::from(u32::MAX - 1), Seq::from(3));
        assert!(old.before(new) && new.after(old));
        assert_eq!(new - old, 5);
        assert_eq!(new.distance_from(old), 5);
        assert_eq!(old.distance_from(new), 0);
        assert_eq!(old.latest(new), new);
        assert_eq!(old + 5, new);
        assert_eq!(new - 5, old);
    }
}
