//! Octets → numbers, addresses and choices, for targets whose input is more than one buffer.
//!
//! Each value is a fixed number of octets in the order they are asked for, so that an input can be
//! written by hand and a changed octet changes one value. Behind the end everything is zero.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is left of the input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Starts at the front of `octets`.
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next `N` octets, filled up with zeros.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        array.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
        self.0 = rest;
        array
    }

    /// One octet.
    pub fn octet(&mut self) -> u8 {
        let [octet] = self.array();
        octet
    }

    /// The lowest bit of one octet.
    pub fn bit(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    /// Two octets, big endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// Four octets, big endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// One of a few IPv4 addresses that rules speak of, or any.
    pub fn ipv4(&mut self) -> Ipv4Addr {
        match self.octet() % 16 {
            0 => Ipv4Addr::LOCALHOST,
            1 => Ipv4Addr::UNSPECIFIED,
            2 => Ipv4Addr::BROADCAST,
            3 => Ipv4Addr::new(224, 0, 0, 1),
            4 => Ipv4Addr::new(127, 0, 0, 53),
            5 => Ipv4Addr::new(169, 254, 1, 1),
            6 => Ipv4Addr::new(0, 0, 0, 1),
            7 => Ipv4Addr::new(192, 0, 2, 1),
            8 => Ipv4Addr::new(192, 0, 2, 7),
            9 => Ipv4Addr::new(198, 51, 100, 1),
            _ => Ipv4Addr::from(self.array::<4>()),
        }
    }

    /// One of a few IPv6 addresses that rules speak of, or any.
    pub fn ipv6(&mut self) -> Ipv6Addr {
        match self.octet() % 16 {
            0 => Ipv6Addr::LOCALHOST,
            1 => Ipv6Addr::UNSPECIFIED,
            2 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            3 => Ipv4Addr::LOCALHOST.to_ipv6_mapped(),
            4 => Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(),
            5 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            6 => Ipv6Addr::new(0xfebf, 0xffff, 0, 0, 0, 0, 0, 1),
            7 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            8 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
            9 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
            _ => Ipv6Addr::from(self.array::<16>()),
        }
    }

    /// An address of either family.
    pub fn ip(&mut self) -> IpAddr {
        if self.bit() { self.ipv6().into() } else { self.ipv4().into() }
    }
}
