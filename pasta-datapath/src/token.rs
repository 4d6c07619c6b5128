#![forbid(unsafe_code)]
//! What the kernel gives back with an event.

use crate::flow::{FlowId, Side};

/// Upper halves that no life of a flow reaches: [`FlowId::MAX_LIFE`] sees to that.
const FIXED: u64 = 0xffff_ffff << 32;
const LISTENER: u64 = 0xffff_fffe << 32;
/// The bit that says which socket of a flow; no table has as many places.
const TARGET: u64 = 1 << 31;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The tap.
    Tap,
    /// The supervisor's channel.
    Supervisor,
    /// The monitor's channel.
    Monitor,
    /// The slot of a listener.
    Listener(u32),
    /// A socket of a flow; flows with one socket have the initiating one.
    Flow(FlowId, Side),
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        match token {
            Token::Tap => FIXED,
            Token::Supervisor => FIXED | 1,
            Token::Monitor => FIXED | 2,
            Token::Listener(index) => LISTENER | Self::from(index),
            Token::Flow(id, Side::Initiating) => id.as_token(),
            Token::Flow(id, Side::Target) => id.as_token() | TARGET,
        }
    }
}

impl From<u64> for Token {
    fn from(number: u64) -> Self {
        match (number & FIXED, number & !FIXED) {
            (FIXED, 0) => Self::Tap,
            (FIXED, 1) => Self::Supervisor,
            (FIXED, _) => Self::Monitor,
            // The lower half has 32 bits.
            (LISTENER, index) => Self::Listener(index as u32),
            _ if number & TARGET == 0 => Self::Flow(FlowId::from_token(number), Side::Initiating),
            _ => Self::Flow(FlowId::from_token(number & !TARGET), Side::Target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::table::FlowTable;

    #[test]
    fn tokens_read_back_and_are_all_different() {
        let mut table = FlowTable::new(4);
        let mut tokens = vec![Token::Tap, Token::Supervisor, Token::Monitor];
        tokens.extend([0, 1, u32::MAX].map(Token::Listener));
        for n in 0..3 {
            let id = table.insert_nameless(n).unwrap();
            tokens.extend([Side::Initiating, Side::Target].map(|side| Token::Flow(id, side)));
        }
        let numbers: std::collections::BTreeSet<u64> =
            tokens.iter().map(|token| u64::from(*token)).collect();
        assert_eq!(numbers.len(), tokens.len());
        for token in tokens {
            assert_eq!(Token::from(u64::from(token)), token);
        }
    }
}
