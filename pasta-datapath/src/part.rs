//! Parts of slices whose bounds hold by construction.
//!
//! A bound that does not hold is a mistake of ours, never one of the input: with debug assertions, as in tests and
//! under the fuzzers, it panics. Otherwise the part is empty, and the process goes on.

#![forbid(unsafe_code)]

use std::slice::SliceIndex;

/// The part `range` of `whole`, which reaches that far.
#[inline]
pub fn part<T, R: SliceIndex<[T], Output = [T]>>(whole: &[T], range: R) -> &[T] {
    let part = whole.get(range);
    debug_assert!(part.is_some(), "a part outside of its slice of {}", whole.len());
    part.unwrap_or_default()
}

/// As [`part`], to write to.
#[inline]
pub fn part_mut<T, R: SliceIndex<[T], Output = [T]>>(whole: &mut [T], range: R) -> &mut [T] {
    let len = whole.len();
    let part = whole.get_mut(range);
    debug_assert!(part.is_some(), "a part outside of its slice of {len}");
    part.unwrap_or_default()
}
