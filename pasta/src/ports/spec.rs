//! The grammar of the value of `-t`, `-u`, `-T` and `-U`.
//!
//! ```text
//! SPEC    = "none" | [LISTEN "/"] CHUNK {"," CHUNK}
//! LISTEN  = ["*" | ADDRESS] ["%" INTERFACE]
//! CHUNK   = "all" [":" ADDRESS] | "auto" | "~" RANGE | RANGE [":" TARGET]
//! TARGET  = ADDRESS "/" RANGE | ADDRESS | RANGE
//! RANGE   = PORT ["-" PORT]
//! ```
//!
//! An IPv6 address may stand in brackets. Ports are decimal, 1 to 65535. As in the C program, blanks and
//! a `+` before a number are ignored.

use super::PortOption;
use pasta_ipc::port_forward::Direction;
use pasta_ipc::types::{IfName, PortRange};
use std::fmt;
use std::net::IpAddr;

/// The value of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The original text.
    pub text: String,
    /// The address to listen on; none: any.
    pub listen: Option<IpAddr>,
    /// The interface to listen on; none: all.
    pub interface: Option<IfName>,
    /// The ports.
    pub list: List,
}

/// A list of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    /// `none`
    None,
    /// At least one.
    Ports(Vec<Chunk>),
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// `all`, with an address to go to.
    All(Option<IpAddr>),
    /// `auto`
    Auto,
    /// All but these.
    Except(PortRange),
    /// These.
    Ports(PortRange, Option<Target>),
}

/// The target of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The address; none: the default one.
    pub address: Option<IpAddr>,
    /// The first port; none: the same ports.
    pub first: Option<u16>,
}

/// Why a text is not a list of ports, with the part that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    text: String,
    part: String,
    kind: SpecErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpecErrorKind {
    Empty,
    EmptyPart,
    NoneWithOthers,
    NotAPort,
    PortZero,
    Reversed,
    Sizes,
    NotAnAddress,
    NotAnInterface,
    NotATarget,
    ListenBehindColon,
    TargetWithoutListen,
    TargetFamily,
    TargetAddress,
    ListenOutbound,
}

impl SpecErrorKind {
    fn text(self) -> &'static str {
        match self {
            Self::Empty => "no ports",
            Self::EmptyPart => "nothing between two commas",
            Self::NoneWithOthers => "'none' stands alone",
            Self::NotAPort => "not a port (1 to 65535), range, 'all', 'auto' or 'none'",
            Self::PortZero => "there is no port 0",
            Self::Reversed => "the lower port comes first",
            Self::Sizes => "as many ports are needed on both sides (8000-8002:9000-9002)",
            Self::NotAnAddress => "not an address to listen on",
            Self::NotAnInterface => "not the name of an interface",
            Self::ListenBehindColon => {
                "an address to listen on ends with a slash (127.0.0.1/8080:80, [::1]/8080:80)"
            }
            Self::NotATarget => "not a port, a range or an address to go to",
            Self::TargetWithoutListen => {
                "an address to go to needs one to listen on (0.0.0.0/8000:192.0.2.9)"
            }
            Self::TargetFamily => "the address to listen on is of another family",
            Self::TargetAddress => "nobody can be reached at that address",
            Self::ListenOutbound => {
                "-T and -U take no address: they listen on the namespace's loopback"
            }
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}': ", self.text)?;
        if self.part != self.text {
            write!(f, "'{}': ", self.part)?;
        }
        f.write_str(self.kind.text())
    }
}

impl std::error::Error for SpecError {}

type Parsed<T> = Result<T, (SpecErrorKind, String)>;

fn wrong<T>(kind: SpecErrorKind, part: &str) -> Parsed<T> {
    Err((kind, part.to_owned()))
}

impl Spec {
    /// Nothing is forwarded.
    pub fn none() -> Self {
        Self { text: "none".into(), listen: None, interface: None, list: List::None }
    }

    /// The value of an option that is not given.
    pub fn auto() -> Self {
        let list = List::Ports(vec![Chunk::Auto]);
        Self { text: "auto".into(), listen: None, interface: None, list }
    }

    /// Reads the value of `option`.
    ///
    /// # Errors
    ///
    /// [`SpecError`], which shows the value and the part that is wrong.
    pub fn parse(option: PortOption, text: &str) -> Result<Self, SpecError> {
        parse(option, text).map_err(|(kind, part)| SpecError { text: text.to_owned(), part, kind })
    }
}

fn parse(option: PortOption, text: &str) -> Parsed<Spec> {
    if text == "none" {
        let (listen, interface, list) = (None, None, List::None);
        return Ok(Spec { text: text.to_owned(), listen, interface, list });
    }
    let (listen, ports) = split_listen(text);
    if ports.is_empty() {
        return wrong(SpecErrorKind::Empty, text);
    }
    let (address, interface) = match listen {
        Some(listen) if option.direction() == Direction::Outbound => {
            return wrong(SpecErrorKind::ListenOutbound, listen);
        }
        Some(listen) => parse_listen(listen)?,
        None => (None, None),
    };
    let chunks = ports.split(',').map(parse_chunk).collect::<Parsed<Vec<_>>>()?;
    for chunk in &chunks {
        let target = match chunk {
            Chunk::All(target) => *target,
            Chunk::Ports(_, target) => target.and_then(|target| target.address),
            Chunk::Auto | Chunk::Except(_) => None,
        };
        if let Some(target) = target {
            check_target(target, address)?;
        }
    }
    let list = List::Ports(chunks);
    Ok(Spec { text: text.to_owned(), listen: address, interface, list })
}

/// Splits at the slash after LISTEN, if there is one. A slash may also be part of a target, after a
/// colon that follows a port.
fn split_listen(text: &str) -> (Option<&str>, &str) {
    let Some((before, after)) = text.split_once('/') else { return (None, text) };
    let begins_with_a_port = before.split_once(':').is_some_and(|(port, _)| {
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit() || b"-,~ +".contains(&b))
    });
    let is_chunk = begins_with_a_port || before.contains(',') || before.starts_with("all:");
    let is_address = before.parse::<IpAddr>().is_ok();
    if is_chunk && !is_address { (None, text) } else { (Some(before), after) }
}

fn parse_listen(text: &str) -> Parsed<(Option<IpAddr>, Option<IfName>)> {
    let (address, interface) = match text.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (text, None),
    };
    let address = match address {
        "" | "*" => None,
        address => match parse_address(address) {
            Some(address) => Some(address),
            None => return wrong(SpecErrorKind::NotAnAddress, address),
        },
    };
    let interface = match interface {
        None => None,
        Some(name) => match IfName::try_from(name.to_owned()) {
            Ok(name) => Some(name),
            Err(_) => return wrong(SpecErrorKind::NotAnInterface, name),
        },
    };
    Ok((address, interface))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}

fn parse_chunk(text: &str) -> Parsed<Chunk> {
    match text {
        "" => return wrong(SpecErrorKind::EmptyPart, text),
        "none" => return wrong(SpecErrorKind::NoneWithOthers, text),
        "auto" => return Ok(Chunk::Auto),
        "all" => return Ok(Chunk::All(None)),
        _ => {}
    }
    if let Some(range) = text.strip_prefix('~') {
        return parse_range(range).map(Chunk::Except);
    }
    let Some((ports, target)) = text.split_once(':') else {
        return Ok(Chunk::Ports(parse_range(text)?, None));
    };
    if ports == "all" {
        return match parse_address(target) {
            Some(address) => Ok(Chunk::All(Some(address))),
            None => wrong(SpecErrorKind::NotATarget, target),
        };
    }
    if parse_address(ports).is_some() || text.starts_with('[') {
        return wrong(SpecErrorKind::ListenBehindColon, text);
    }
    let ports = parse_range(ports)?;
    let (address, range) = match target.split_once('/') {
        Some((address, range)) => match parse_address(address) {
            Some(address) => (Some(address), Some(parse_range(range)?)),
            None => return wrong(SpecErrorKind::NotATarget, target),
        },
        None => match (parse_address(target), parse_range(target)) {
            (Some(address), _) => (Some(address), None),
            (None, Ok(range)) => (None, Some(range)),
            (None, Err((SpecErrorKind::NotAPort, _))) => {
                return wrong(SpecErrorKind::NotATarget, target);
            }
            (None, Err(error)) => return Err(error),
        },
    };
    if range.is_some_and(|range| range.count() != ports.count()) {
        return wrong(SpecErrorKind::Sizes, text);
    }
    let first = range.map(PortRange::first);
    Ok(Chunk::Ports(ports, Some(Target { address, first })))
}

fn parse_range(text: &str) -> Parsed<PortRange> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_port(first)?, parse_port(last)?),
        None => {
            let port = parse_port(text)?;
            (port, port)
        }
    };
    PortRange::new(first, last).or_else(|_| wrong(SpecErrorKind::Reversed, text))
}

fn parse_port(text: &str) -> Parsed<u16> {
    let digits = text.trim_start_matches([' ', '\t']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse() {
        Ok(0) if is_number => wrong(SpecErrorKind::PortZero, text),
        Ok(port) if is_number => Ok(port),
        _ => wrong(SpecErrorKind::NotAPort, text),
    }
}

fn check_target(target: IpAddr, listen: Option<IpAddr>) -> Parsed<()> {
    let text = target.to_string();
    match listen {
        None => wrong(SpecErrorKind::TargetWithoutListen, &text),
        Some(listen) if listen.is_ipv4() != target.is_ipv4() => {
            wrong(SpecErrorKind::TargetFamily, &text)
        }
        Some(_) if target.is_multicast() || target.is_unspecified() => {
            wrong(SpecErrorKind::TargetAddress, &text)
        }
        Some(_) => Ok(()),
    }
}
