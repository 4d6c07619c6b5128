//! The options about following the host's network while the program runs.

use crate::value::InvalidValue;
use pasta_ipc::types::{Follow, Following, MtuSource, Rename, Tunnels};

/// What one of these options says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
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

/// What `wishes` add up to, the later ones winning. An interface that was named (`-i`) is a statement:
/// unless asked to, we do not move away from it.
pub(crate) fn following(wishes: &[Wish], is_named: bool) -> Following {
    let mut sum = Following::default();
    if is_named {
        sum.follow = Follow::Sticky;
    }
    for wish in wishes {
        match *wish {
            Wish::Follow(follow) => sum.follow = follow,
            Wish::Settle(ms) => sum.settle_ms = ms,
            Wish::Hold(ms) => sum.hold_ms = ms,
            Wish::Linger(ms) => sum.linger_ms = ms,
            Wish::Tunnels(tunnels) => sum.tunnels = tunnels,
            Wish::BindWait(ms) => sum.bind_wait_ms = ms,
            Wish::Rename(rename) => sum.rename = rename,
            Wish::Mtu(source) => sum.mtu_source = source,
        }
    }
    sum
}

/// `--follow`
pub(crate) fn follow(text: &str) -> Result<Wish, InvalidValue> {
    let words = [
        ("roam", Follow::Roam),
        ("sticky", Follow::Sticky),
        ("once", Follow::Once),
        ("off", Follow::Off),
    ];
    one_of("follow", text, &words).map(Wish::Follow)
}

/// `--settle`
pub(crate) fn settle(text: &str) -> Result<Wish, InvalidValue> {
    number("settle", text).map(Wish::Settle)
}

/// `--hold`
pub(crate) fn hold(text: &str) -> Result<Wish, InvalidValue> {
    match text {
        "inf" => Ok(Wish::Hold(None)),
        text => number("hold", text).map(Some).map(Wish::Hold),
    }
}

/// `--linger`, which is in seconds.
pub(crate) fn linger(text: &str) -> Result<Wish, InvalidValue> {
    let ms = number("linger", text)?.checked_mul(1000);
    ms.map(Wish::Linger).ok_or_else(|| invalid("linger", text))
}

/// `--tunnels`
pub(crate) fn tunnels(text: &str) -> Result<Wish, InvalidValue> {
    let words = [("avoid", Tunnels::Avoid), ("allow", Tunnels::Allow), ("never", Tunnels::Never)];
    one_of("tunnels", text, &words).map(Wish::Tunnels)
}

/// `--bind-wait`
pub(crate) fn bind_wait(text: &str) -> Result<Wish, InvalidValue> {
    number("bind-wait", text).map(Wish::BindWait)
}

/// `--rename`
pub(crate) fn rename(text: &str) -> Result<Wish, InvalidValue> {
    let words = [("auto", Rename::Auto), ("never", Rename::Never)];
    one_of("rename", text, &words).map(Wish::Rename)
}

fn one_of<T: Copy>(option: &str, text: &str, words: &[(&str, T)]) -> Result<T, InvalidValue> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| invalid(option, text))
}

fn number(option: &str, text: &str) -> Result<u32, InvalidValue> {
    // `parse` would take a sign too.
    let digits = text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| invalid(option, text))
}

fn invalid(option: &str, text: &str) -> InvalidValue {
    InvalidValue(format!("invalid value of option '--{option}': '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_interface_is_stuck_to_unless_told_otherwise() {
        assert_eq!(following(&[], false), Following::default());
        assert_eq!(following(&[], true).follow, Follow::Sticky);
        assert_eq!(following(&[Wish::Follow(Follow::Roam)], true).follow, Follow::Roam);
    }

    #[test]
    fn times_are_read_in_their_units() {
        assert_eq!(settle("250"), Ok(Wish::Settle(250)));
        assert_eq!(linger("30"), Ok(Wish::Linger(30_000)));
        assert_eq!(hold("inf"), Ok(Wish::Hold(None)));
        assert_eq!(hold("0"), Ok(Wish::Hold(Some(0))));
        for wrong in ["", "-1", "+1", "1s", "4294967296", "infinite"] {
            assert!(hold(wrong).is_err(), "{wrong}");
        }
        assert!(linger("4294968").is_err());
    }

    #[test]
    fn other_words_than_those_of_the_option_are_refused_by_name() {
        let text = follow("always").map_err(|error| error.to_string());
        assert_eq!(text, Err("invalid value of option '--follow': 'always'".into()));
        assert!(tunnels("roam").is_err());
        assert!(rename("").is_err());
    }
}
