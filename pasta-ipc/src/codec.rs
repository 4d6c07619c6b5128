//! Octets ↔ message. The only file that knows the encoding library.
//!
//! The encoding is bincode's standard configuration (variable-length integers, little endian). The
//! library is unmaintained upstream (RUSTSEC-2025-0141), which is why nothing outside this file names
//! it: replacing it is a change to this file and to the frozen encodings in `message`'s tests.

use crate::message::Message;
use std::fmt;

/// Why octets are not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The encoding is broken, a value is out of range, or a bound is exceeded.
    Malformed(String),
    /// A message was there, but octets follow it.
    TrailingOctets(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed message: {why}"),
            Self::TrailingOctets(n) => write!(f, "{n} octets after the end of a message"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A message that does not fit its direction's limit. Bounded types make this a programming mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("message exceeds its direction's limit")
    }
}

impl std::error::Error for TooLarge {}

/// Encodes `message` to the front of `buffer` and returns how many octets it took.
///
/// # Errors
///
/// [`TooLarge`] if it does not fit `buffer` or the limit of its direction.
pub fn encode<M: Message>(message: &M, buffer: &mut [u8]) -> Result<usize, TooLarge> {
    let room = buffer.len().min(M::LIMIT);
    let buffer = buffer.get_mut(..room).ok_or(TooLarge)?;
    bincode::serde::encode_into_slice(message, buffer, bincode::config::standard())
        .map_err(|_| TooLarge)
}

/// Decodes the one message that `octets` are.
///
/// # Errors
///
/// [`DecodeError`] if they are not exactly one valid message.
pub fn decode<M: Message>(octets: &[u8]) -> Result<M, DecodeError> {
    // The library's own limit bounds what it may allocate, whatever lengths the octets claim; the
    // channel has refused longer datagrams already. Every direction's limit is below this one.
    const LIMIT: usize = 64 * 1024;
    if octets.len() > M::LIMIT {
        return Err(DecodeError::Malformed("longer than the direction's limit".into()));
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (message, consumed) = bincode::serde::decode_from_slice(octets, config)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match octets.len().saturating_sub(consumed) {
        0 => Ok(message),
        surplus => Err(DecodeError::TrailingOctets(surplus)),
    }
}
