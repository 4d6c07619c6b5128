//! The client that the tests run inside the namespace of `pasta`; see `tests::client`.
//!
//! It starts without the runtime of std, which would set the disposition of SIGPIPE to "ignore"
//! before anybody could see with which one `pasta` had started it.

#![no_main]

mod sys;

use std::io::{self, Write};

use tests::client::{Client, protocol};
use tests::lab::enter::{Owner, isolate};

/// Does what the command line asks; tells whether that worked.
fn run() -> bool {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut client = Client::default();
    // A namespace of its own first, for a program to attach to.
    let owner = match words.as_slice() {
        ["contained", "serve"] => Some(Owner::NewUserNamespace),
        ["unshared", "serve"] => Some(Owner::Ours),
        _ => None,
    };
    if let Err(error) = owner.map_or(Ok(()), isolate) {
        eprintln!("lab-client: {error}");
        return false;
    }
    if owner.is_some() || words == ["serve"] {
        return client.serve(io::stdin().lock(), io::stdout()).is_ok();
    }
    let answer = if words.is_empty() {
        // Started as a login shell is: the name it was called by is its only argument.
        Ok(std::env::args().take(1).map(|name| format!("called {name}")).collect())
    } else {
        client.answer(&words)
    };
    let worked = answer.is_ok();
    let written = io::stdout().write_all(protocol::write_answer(answer).as_bytes());
    worked && written.is_ok()
}
