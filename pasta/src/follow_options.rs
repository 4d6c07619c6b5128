//! The options about following the host's network (`--follow` and related ones).

use crate::value::InvalidValue;
use pasta_ipc::start::{Follow, Following, MtuSource, Rename, Tunnels};

/// The value of one of these options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowOption {
    /// `--follow`
    Follow(Follow),
    /// `--settle`, in milliseconds.
    Settle(u32),
    /// `--hold`, in milliseconds; none for ever.
    Hold(Option<u32>),
    /// `--linger`, in milliseconds.
    Linger(u32),
    /// `--tunnels`
    Tunnels(Tunnels),
    /// `--bind-wait`, in milliseconds.
    BindWait(u32),
    /// `--rename`
    Rename(Rename),
    /// `--mtu`: whether it is `auto`.
    Mtu(MtuSource),
}

/// Combines `follow_options`; the last of each kind wins. With `-i` the default is sticky: the template
/// stays the interface that was named.
pub(crate) fn following(follow_options: &[FollowOption], is_named: bool) -> Following {
    let mut sum = Following::default();
    if is_named {
        sum.follow = Follow::Sticky;
    }
    for option in follow_options {
        match *option {
            FollowOption::Follow(follow) => sum.follow = follow,
            FollowOption::Settle(ms) => sum.settle_ms = ms,
            FollowOption::Hold(ms) => sum.hold_ms = ms,
            FollowOption::Linger(ms) => sum.linger_ms = ms,
            FollowOption::Tunnels(tunnels) => sum.tunnels = tunnels,
            FollowOption::BindWait(ms) => sum.bind_wait_ms = ms,
            FollowOption::Rename(rename) => sum.rename = rename,
            FollowOption::Mtu(source) => sum.mtu_source = source,
        }
    }
    sum
}

/// `--follow`
pub(crate) fn follow(text: &str) -> Result<FollowOption, InvalidValue> {
    let words = [
        ("roam", Follow::Roam),
        ("sticky", Follow::Sticky),
        ("once", Follow::Once),
        ("off", Follow::Off),
    ];
    one_of(text, &words).map(FollowOption::Follow)
}

/// `--settle`
pub(crate) fn settle(text: &str) -> Result<FollowOption, InvalidValue> {
    number(text).map(FollowOption::Settle)
}

/// `--hold`
pub(crate) fn hold(text: &str) -> Result<FollowOption, InvalidValue> {
    match text {
        "inf" => Ok(FollowOption::Hold(None)),
        text => number(text).map(Some).map(FollowOption::Hold),
    }
}

/// `--linger`, which is in seconds.
pub(crate) fn linger(text: &str) -> Result<FollowOption, InvalidValue> {
    let ms = number(text)?.checked_mul(1000);
    ms.map(FollowOption::Linger).ok_or_else(|| invalid(text))
}

/// `--tunnels`
pub(crate) fn tunnels(text: &str) -> Result<FollowOption, InvalidValue> {
    let words = [("avoid", Tunnels::Avoid), ("allow", Tunnels::Allow), ("never", Tunnels::Never)];
    one_of(text, &words).map(FollowOption::Tunnels)
}

/// `--bind-wait`
pub(crate) fn bind_wait(text: &str) -> Result<FollowOption, InvalidValue> {
    number(text).map(FollowOption::BindWait)
}

/// `--rename`
pub(crate) fn rename(text: &str) -> Result<FollowOption, InvalidValue> {
    let words = [("auto", Rename::Auto), ("never", Rename::Never)];
    one_of(text, &words).map(FollowOption::Rename)
}

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, InvalidValue> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| invalid(text))
}

fn number(text: &str) -> Result<u32, InvalidValue> {
    // `parse` would accept a sign too.
    let digits = text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| invalid(text))
}

fn invalid(text: &str) -> InvalidValue {
    InvalidValue(format!("invalid value: '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_interface_is_sticky_by_default() {
        assert_eq!(following(&[], false), Following::default());
        assert_eq!(following(&[], true).follow, Follow::Sticky);
        assert_eq!(following(&[FollowOption::Follow(Follow::Roam)], true).follow, Follow::Roam);
    }

    #[test]
    fn times_are_read_in_their_units() {
        assert_eq!(settle("250"), Ok(FollowOption::Settle(250)));
        assert_eq!(linger("30"), Ok(FollowOption::Linger(30_000)));
        assert_eq!(hold("inf"), Ok(FollowOption::Hold(None)));
        assert_eq!(hold("0"), Ok(FollowOption::Hold(Some(0))));
        for wrong in ["", "-1", "+1", "1s", "4294967296", "infinite"] {
            assert!(hold(wrong).is_err(), "{wrong}");
        }
        assert!(linger("4294968").is_err());
    }

    #[test]
    fn unknown_words_are_refused() {
        let text = follow("always").map_err(|error| error.to_string());
        assert_eq!(text, Err("invalid value: 'always'".into()));
        assert!(tunnels("roam").is_err());
        assert!(rename("").is_err());
    }
}
