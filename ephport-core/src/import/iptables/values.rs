//! Ports, networks, addresses, protocols and interfaces in the spelling of iptables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::reason::{Invalid, SkipReason, Unsupported};
use crate::net::family::Family;
use crate::net::interface::{InterfaceError, InterfaceName, InterfacePattern};
use crate::net::mark::{Mark, MarkError};
use crate::net::port::{Port, PortError, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, ProtocolError};
use crate::policy::Address;
use crate::policy::scope::OutInterfaces;

/// The most characters of an interface name, a `+` at its end included (IFNAMSIZ less one).
const MAX_INTERFACE_LEN: usize = 15;

/// The most ports of a multiport match; a range counts as two (XT_MULTI_PORTS).
const MAX_PORTS: usize = 15;

/// Protocols by the names of /etc/protocols that a rule may have, beside those of [`Protocol`].
const OTHER_PROTOCOLS: [(&str, u8); 9] = [
    ("igmp", 2),
    ("dccp", 33),
    ("ddp", 37),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ospf", 89),
    ("mh", 135),
    ("all", 0),
];

/// The ports of `--to-ports` and `--to-source`: `PORT` or `FIRST-LAST`.
pub(super) fn target_ports(option: &'static str, text: &str) -> Result<PortRange, SkipReason> {
    if is_name(text) {
        return Err(service(option, text));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(option, text, first)?, number(option, text, last)?);
    range(option, text, first, last)
}

/// The ports of `--sport` and `--dport`: `PORT`, or `FIRST:LAST` of which either may be missing.
pub(super) fn port_range(option: &'static str, text: &str) -> Result<PortSet, SkipReason> {
    let (first, last) = match text.split_once(':') {
        None => (text, text),
        Some((first, last)) => (
            if first.is_empty() { "0" } else { first },
            if last.is_empty() { "65535" } else { last },
        ),
    };
    matched_ports(option, text, first, last).map(PortSet::from)
}

/// The ports of multiport: a list of `PORT` and `FIRST:LAST`.
pub(super) fn port_list(option: &'static str, text: &str) -> Result<PortSet, SkipReason> {
    let parts = || text.split(',').map(|part| part.split_once(':').unwrap_or((part, part)));
    let count: usize = text.split(',').map(|part| 1 + usize::from(part.contains(':'))).sum();
    if count > MAX_PORTS {
        return Err(Invalid::TooManyPorts { option }.into());
    }
    parts().map(|(first, last)| matched_ports(option, text, first, last)).collect()
}

/// A range without port 0, which iptables accepts as a port.
fn matched_ports(
    option: &'static str,
    text: &str,
    first: &str,
    last: &str,
) -> Result<PortRange, SkipReason> {
    if let Some(name) = [first, last].into_iter().find(|part| is_name(part)) {
        return Err(service(option, name));
    }
    let (first, last) = (number(option, text, first)?, number(option, text, last)?);
    range(option, text, first.max(last.min(1)), last)
}

/// A range of a rule: iptables refuses one that is reversed, and accepts port 0, which no policy
/// can name.
fn range(option: &'static str, text: &str, first: u16, last: u16) -> Result<PortRange, SkipReason> {
    let range = Port::new(first).and_then(|first| PortRange::new(first, Port::new(last)?));
    range.map_err(|error| {
        let text = text.into();
        if first > last {
            Invalid::Ports { option, text, error }.into()
        } else {
            Unsupported::Ports { option, text, error }.into()
        }
    })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn service(option: &'static str, text: &str) -> SkipReason {
    Unsupported::Service { option, text: text.into() }.into()
}

/// The port `part` of the value `text`.
fn number(option: &'static str, text: &str, part: &str) -> Result<u16, SkipReason> {
    let error = match c_number(part) {
        Some(number) => match u16::try_from(number) {
            Ok(number) => return Ok(number),
            Err(_) => PortError::TooLarge { text: part.into() },
        },
        None if part.is_empty() => PortError::NotANumber { text: text.into() },
        None => PortError::NotANumber { text: part.into() },
    };
    Err(Invalid::Ports { option, text: text.into(), error }.into())
}

/// A number as C reads it (strtoul with base 0): decimal, `0x` hexadecimal, or `0` octal.
///
/// A number of more than 64 bits is the largest.
fn c_number(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}

/// The mark of `--mark`: `VALUE` or `VALUE/MASK`; `None` for every mark.
pub(super) fn mark(option: &'static str, text: &str) -> Result<Option<Mark>, SkipReason> {
    let (value, mask) = text.split_once('/').map_or((text, None), |(v, m)| (v, Some(m)));
    let number = |part: &str| {
        let number = c_number(part).and_then(|number| u32::try_from(number).ok());
        let error = || MarkError::NotANumber { text: part.into() };
        number.ok_or_else(|| Invalid::Mark { option, error: error() })
    };
    let (value, mask) = (number(value)?, mask.map_or(Ok(u32::MAX), number)?);
    if mask == 0 && value == 0 {
        return Ok(None);
    }
    Mark::new(value, mask).map(Some).map_err(|error| Unsupported::Mark { option, error }.into())
}

/// Whether `--icmp-type` matches echo requests by this value.
pub(super) fn is_echo_request(text: &str) -> bool {
    const NAMES: [&str; 5] = ["8", "8/0", "echo-request", "ping", "any"];
    NAMES.contains(&text.to_ascii_lowercase().as_str())
}

/// A rule number of a chain, from 1.
pub(super) fn rule_number(text: &str) -> Result<usize, Invalid> {
    let number = c_number(text).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| Invalid::RuleNumber { word: text.into() })
}

/// The protocol of `-p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedProtocol {
    All,
    Number(u8),
    /// A name that only the machine's /etc/protocols may know.
    Unknown,
}

impl NamedProtocol {
    /// The protocol with this name or number.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let number = if let Some(number) = c_number(text) {
            let unknown = |_| ProtocolError::Unknown { text: text.into() };
            Some(u8::try_from(number).map_err(unknown).map_err(Invalid::Protocol)?)
        } else {
            let name = text.to_ascii_lowercase();
            let known = name.parse().ok().map(Protocol::number);
            let other = || OTHER_PROTOCOLS.iter().find(|(other, _)| *other == name);
            known.or_else(|| other().map(|(_, number)| *number))
        };
        Ok(match number {
            Some(0) => Self::All,
            Some(number) => Self::Number(number),
            None => Self::Unknown,
        })
    }

    /// The number, if it is the one of a protocol.
    pub(super) fn number(self) -> Option<u8> {
        match self {
            Self::Number(number) => Some(number),
            Self::All | Self::Unknown => None,
        }
    }

    /// Whether a rule with this protocol may name the ports to translate to.
    pub(super) fn has_target_ports(self) -> bool {
        matches!(self, Self::Number(1 | 6 | 17 | 33 | 132))
    }

    /// Whether a rule with this protocol may have a multiport match.
    pub(super) fn has_port_list(self) -> bool {
        matches!(self, Self::Number(6 | 17 | 33 | 132 | 136))
    }

    /// Why no policy translates the ports of the protocol that was written so, if none does.
    pub(super) fn unsupported(self, text: &str) -> Option<Unsupported> {
        let number = match self {
            Self::All => return None,
            Self::Number(number) => number,
            Self::Unknown => 0,
        };
        if Protocol::from_number(number).is_some() {
            return None;
        }
        let name = OTHER_PROTOCOLS.iter().find(|(_, other)| *other == number && number > 0);
        let error = name.and_then(|(name, _)| name.parse::<Protocol>().err());
        let error = error.filter(|error| !matches!(error, ProtocolError::Unknown { .. }));
        let unknown = || ProtocolError::Unknown { text: text.into() };
        Some(Unsupported::Protocol(error.unwrap_or_else(unknown)))
    }
}

/// The interfaces of `-o`: a name, a prefix before `+`, or `+` for all.
pub(super) fn out_interfaces(
    option: &'static str,
    text: &str,
) -> Result<OutInterfaces, SkipReason> {
    if text.is_empty() {
        return Err(Invalid::Interface { option, error: InterfaceError::Empty }.into());
    }
    if text.len() > MAX_INTERFACE_LEN {
        let error = InterfaceError::TooLong { text: text.into(), len: text.len() };
        return Err(Invalid::Interface { option, error }.into());
    }
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Unsupported::NotUtf8 { option }.into());
    }
    let pattern = match text.strip_suffix('+') {
        Some("") => return Ok(OutInterfaces::Any),
        Some(prefix) => format!("{prefix}*").parse::<InterfacePattern>(),
        None => text.parse::<InterfaceName>().map(InterfacePattern::Name),
    };
    match pattern.map_err(|error| Unsupported::Interface { option, error })? {
        InterfacePattern::Name(name) if name.is_loopback() => Err(Unsupported::Loopback.into()),
        pattern => Ok(OutInterfaces::Matching(pattern.into())),
    }
}

/// The networks of `-s` and `-d`, joined by commas; with a mask, a prefix length or neither.
pub(super) fn networks(
    option: &'static str,
    text: &str,
    family: Family,
) -> Result<Vec<IpNet>, SkipReason> {
    text.split(',').map(|part| network(option, part, text, family)).collect()
}

fn network(
    option: &'static str,
    part: &str,
    whole: &str,
    family: Family,
) -> Result<IpNet, SkipReason> {
    let (address, mask) = part.split_once('/').map_or((part, None), |(a, m)| (a, Some(m)));
    let (parsed, example): (Option<Result<IpNet, ()>>, _) = match family {
        Family::Ipv4 => (ipv4_network(address, mask), "10.0.0.0/8"),
        Family::Ipv6 => (ipv6_network(address, mask), "2001:db8::/32"),
    };
    let is_host = !address.contains(':') && address.contains(|c: char| c.is_ascii_alphabetic());
    match parsed {
        Some(Ok(net)) => Ok(net),
        None if !is_host => Err(Invalid::Network { option, text: whole.into(), example }.into()),
        _ => Err(Unsupported::Network { option, text: whole.into(), example }.into()),
    }
}

/// `Some(Err)` for a mask that is not a prefix.
fn ipv4_network(address: &str, mask: Option<&str>) -> Option<Result<IpNet, ()>> {
    let mut octets = [0; 4];
    let mut parts = address.split('.');
    for (octet, part) in octets.iter_mut().zip(parts.by_ref()) {
        *octet = u8::try_from(c_number(part)?).ok()?;
    }
    if parts.next().is_some() {
        return None;
    }
    let len = match mask {
        None => 32,
        Some(mask) => match c_number(mask) {
            Some(len) => u8::try_from(len).ok()?,
            None => match ipnet::ipv4_mask_to_prefix(mask.parse().ok()?) {
                Ok(len) => len,
                Err(_) => return Some(Err(())),
            },
        },
    };
    let net = Ipv4Net::new(Ipv4Addr::from(octets), len).ok()?;
    Some(Ok(net.trunc().into()))
}

/// `Some(Err)` for a mask that is not a prefix.
fn ipv6_network(address: &str, mask: Option<&str>) -> Option<Result<IpNet, ()>> {
    let address: Ipv6Addr = address.parse().ok()?;
    let len = match mask {
        None => 128,
        Some(mask) => match c_number(mask) {
            Some(len) => u8::try_from(len).ok()?,
            None => match ipnet::ipv6_mask_to_prefix(mask.parse().ok()?) {
                Ok(len) => len,
                Err(_) => return Some(Err(())),
            },
        },
    };
    let net = Ipv6Net::new(address, len).ok()?;
    Some(Ok(net.trunc().into()))
}

/// The value of `--to-source`.
#[derive(Debug)]
pub(super) struct ToSource {
    /// The packet's own address when none is given; `None` is a range of them.
    pub(super) address: Option<Address>,
    pub(super) ports: Option<PortRange>,
}

impl ToSource {
    /// Reads `[ADDRESS[-ADDRESS]][:PORT[-PORT]]`, for IPv6 with the addresses in brackets when
    /// ports follow.
    pub(super) fn parse(text: &str, family: Family) -> Result<Self, SkipReason> {
        let (addresses, ports) = match family {
            Family::Ipv4 => text.split_once(':').map_or((text, None), |(a, p)| (a, Some(p))),
            Family::Ipv6 => ipv6_parts(text).ok_or_else(|| not_an_address(text, family))?,
        };
        let ports = ports.map(|ports| target_ports("--to-source", ports)).transpose()?;
        let address = match addresses.split_once('-') {
            None if addresses.is_empty() && ports.is_some() => Some(Address::Keep),
            None => Some(Address::Fixed(address(addresses, text, family)?)),
            Some((first, last)) => {
                let (first, last) = (address(first, text, family)?, address(last, text, family)?);
                (first == last).then_some(Address::Fixed(first))
            }
        };
        Ok(Self { address, ports })
    }
}

/// Addresses, and ports if there are any.
fn ipv6_parts(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (addresses, ports) = rest.split_once(']')?;
        return match ports {
            "" => Some((addresses, None)),
            ports => ports.strip_prefix(':').map(|ports| (addresses, Some(ports))),
        };
    }
    match text.strip_prefix(':') {
        Some(ports) if !ports.starts_with(':') => Some(("", Some(ports))),
        _ => Some((text, None)),
    }
}

fn address(text: &str, whole: &str, family: Family) -> Result<IpAddr, Invalid> {
    let address = text.parse().ok().filter(|address| Family::of(*address) == family);
    address.ok_or_else(|| not_an_address(whole, family))
}

fn not_an_address(text: &str, family: Family) -> Invalid {
    let example = match family {
        Family::Ipv4 => "192.0.2.1:1024-2047",
        Family::Ipv6 => "[2001:db8::1]:1024-2047",
    };
    Invalid::Address { text: text.into(), example }
}
