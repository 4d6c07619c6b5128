//! Lists and texts with a bound that is checked while they are decoded.

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

/// A list of at most `N` elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Bounded<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Bounded<T, N> {
    /// Keeps the first `N` elements of `items`, and says whether that was all of them.
    pub fn truncated(items: impl IntoIterator<Item = T>) -> (Self, Completeness) {
        let mut items = items.into_iter();
        let kept: Vec<T> = items.by_ref().take(N).collect();
        let rest = items.next();
        let completeness =
            if rest.is_none() { Completeness::Complete } else { Completeness::Truncated };
        (Self(kept), completeness)
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> TryFrom<Vec<T>> for Bounded<T, N> {
    type Error = TooMany;

    fn try_from(items: Vec<T>) -> Result<Self, TooMany> {
        if items.len() > N { Err(TooMany) } else { Ok(Self(items)) }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<T, const N: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for BoundedVisitor<T, N> {
            type Value = Bounded<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                if seq.size_hint().is_some_and(|claimed| claimed > N) {
                    return Err(de::Error::custom(TooMany));
                }
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == N {
                        return Err(de::Error::custom(TooMany));
                    }
                    items.push(item);
                }
                Ok(Bounded(items))
            }
        }

        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

/// Whether a bounded list holds all there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completeness {
    /// Nothing was left out.
    Complete,
    /// There were more than the bound allows; the rest was left out.
    Truncated,
}

/// More elements than a bounded list may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many elements")
    }
}

impl std::error::Error for TooMany {}

/// UTF-8 text of at most `N` octets.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const N: usize>(String);

impl<const N: usize> Text<N> {
    /// Keeps what fits of `text`, cut at a character boundary.
    pub fn truncated(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text.get(..end).unwrap_or_default().to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Text<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > N { Err(de::Error::custom("text too long")) } else { Ok(Self(text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(Text::<3>::truncated("aéé").as_str(), "aé");
        assert_eq!(Text::<2>::truncated("aé").as_str(), "a");
    }

    #[test]
    fn truncation_of_a_list_is_said() {
        let (list, completeness) = Bounded::<u8, 2>::truncated([1, 2, 3]);
        assert_eq!((list.as_slice(), completeness), (&[1, 2][..], Completeness::Truncated));
        let (_, completeness) = Bounded::<u8, 3>::truncated([1, 2, 3]);
        assert_eq!(completeness, Completeness::Complete);
    }
}
