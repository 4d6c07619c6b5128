#![allow(unsafe_code)]
//! The entry point that the C library calls.

use std::ffi::{c_char, c_int};

/// Called once, at the start; std finds the arguments by itself.
// SAFETY: no other item of the program is called `main`: `no_main` keeps std from making one. The
// signature is the one that the C library calls.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    c_int::from(!super::run())
}
