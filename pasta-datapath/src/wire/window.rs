//! Windows and segment sizes, which headers carry in 16 bits (RFC 9293, sections 3.1 and 3.7.1; RFC 7323,
//! section 2).

use super::seq::Seq;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{Add, Shl, Shr};

/// A window as a header carries it, not scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireWindow(u16);

impl WireWindow {
    /// The largest.
    pub const MAX: Self = Self(u16::MAX);
    /// A closed window.
    pub const ZERO: Self = Self(0);

    /// The window that the field means, in a segment with another scale than none.
    pub const fn scaled(self, scale: WindowScale) -> Window {
        Window((self.0 as u32) << scale.0)
    }
}

impl From<u16> for WireWindow {
    fn from(field: u16) -> Self {
        Self(field)
    }
}

impl From<WireWindow> for u16 {
    fn from(window: WireWindow) -> Self {
        window.0
    }
}

impl Shl<WindowScale> for WireWindow {
    type Output = Window;

    fn shl(self, scale: WindowScale) -> Window {
        self.scaled(scale)
    }
}

/// A window in octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window(u32);

impl Window {
    /// A closed window.
    pub const ZERO: Self = Self(0);

    /// A window of so many octets.
    pub const fn new(octets: u32) -> Self {
        Self(octets)
    }

    /// Its size in octets.
    pub const fn octets(self) -> u32 {
        self.0
    }

    /// Its size in octets, cut to what a header with `scale` can express.
    #[must_use]
    pub const fn whole(self, scale: WindowScale) -> Self {
        Self(self.0 >> scale.0 << scale.0)
    }
}

impl Shr<WindowScale> for Window {
    type Output = WireWindow;

    /// The largest field that does not exceed the window.
    fn shr(self, scale: WindowScale) -> WireWindow {
        WireWindow(u16::try_from(self.0 >> scale.0).unwrap_or(u16::MAX))
    }
}

impl Add<Window> for Seq {
    type Output = Self;

    /// The right edge of a window that begins here.
    fn add(self, window: Window) -> Self {
        self + window.0
    }
}

/// The shift count of a window: 14 at most (RFC 7323, section 2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowScale(u8);

impl WindowScale {
    /// Windows are as the header has them.
    pub const NONE: Self = Self(0);
    /// The largest.
    pub const MAX: Self = Self(14);

    /// What the option says; more than 14 counts as 14.
    pub const fn new(shift: u8) -> Self {
        if shift > Self::MAX.0 { Self::MAX } else { Self(shift) }
    }

    /// The shift count.
    pub const fn shift(self) -> u8 {
        self.0
    }
}

/// Largest payload of a segment, in octets. It is not zero, so that payload can be divided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mss(NonZeroU16);

impl Mss {
    /// MSS of a peer that names none (RFC 9293, section 3.7.1), IPv4 and IPv6 alike for simplicity: the
    /// smaller one is always safe.
    pub const DEFAULT: Self = Self::new(536);
    /// No limit but that of the field.
    pub const MAX: Self = Self(NonZeroU16::MAX);

    /// What the option says; zero counts as one.
    pub const fn new(octets: u16) -> Self {
        match NonZeroU16::new(octets) {
            Some(octets) => Self(octets),
            None => Self(NonZeroU16::MIN),
        }
    }

    /// What fits packets of `mtu` octets, without options, for the family of `peer`.
    pub fn fitting(mtu: u16, peer: IpAddr) -> Self {
        let headers = if peer.is_ipv4() { 40 } else { 60 };
        Self::new(mtu.saturating_sub(headers))
    }

    /// The size in octets.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<Mss> for u32 {
    fn from(mss: Mss) -> Self {
        Self::from(mss.get())
    }
}

impl From<Mss> for usize {
    fn from(mss: Mss) -> Self {
        Self::from(mss.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_and_window_are_joined_by_the_scale() {
        let scale = WindowScale::new(8);
        assert_eq!(WireWindow::from(3) << scale, Window::new(768));
        assert_eq!(Window::new(1000) >> scale, WireWindow::from(3));
        assert_eq!(Window::new(1000).whole(scale), Window::new(768));
        assert_eq!(Window::new(u32::MAX) >> WindowScale::NONE, WireWindow::MAX);
        assert_eq!(WireWindow::MAX << WindowScale::MAX, Window::new(0x3fff_c000));
    }

    #[test]
    fn options_are_limited_to_what_they_may_be() {
        assert_eq!(WindowScale::new(200), WindowScale::MAX);
        assert_eq!(Mss::new(0).get(), 1);
    }
}
