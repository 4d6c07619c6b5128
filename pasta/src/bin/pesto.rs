//! `pesto`: see [`pasta::pesto`].

use std::ffi::OsString;

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    std::process::exit(pasta::pesto::run(&arguments));
}
