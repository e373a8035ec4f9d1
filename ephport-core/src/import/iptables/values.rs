//! Ports, networks, addresses and interfaces, as iptables writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Refusal;
use crate::net::interface::{InterfaceName, InterfacePattern};
use crate::net::port::{Port, PortError, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, ProtocolError};
use crate::policy::Address;
use crate::policy::scope::{Family, OutInterfaces};

/// The ports of `--to-ports` and `--to-source`: `PORT` or `FIRST-LAST`.
pub(super) fn target_ports(option: &'static str, text: &str) -> Result<PortRange, Refusal> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |part: &str| at(option, text, Port::new(number(option, text, part)?));
    let range = PortRange::new(port(first)?, port(last)?);
    at(option, text, range)
}

/// The ports of `--sport`: `PORT`, or `FIRST:LAST` of which either may be left out.
pub(super) fn source_ports(text: &str) -> Result<PortSet, Refusal> {
    const OPTION: &str = "--sport";
    let (first, last) = match text.split_once(':') {
        None => (text, text),
        Some((first, last)) => (
            if first.is_empty() { "0" } else { first },
            if last.is_empty() { "65535" } else { last },
        ),
    };
    matched_ports(OPTION, text, first, last).map(PortSet::from)
}

/// The ports of multiport's `--sports`: a list of `PORT` and `FIRST:LAST`.
pub(super) fn multiport(text: &str) -> Result<PortSet, Refusal> {
    let range = |part: &str| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        matched_ports("--sports", text, first, last)
    };
    text.split(',').map(range).collect()
}

/// A range in which port 0, which iptables takes for a port, is left out.
fn matched_ports(
    option: &'static str,
    text: &str,
    first: &str,
    last: &str,
) -> Result<PortRange, Refusal> {
    let (first, last) = (number(option, text, first)?, number(option, text, last)?);
    let port = |number| at(option, text, Port::new(number));
    at(option, text, PortRange::new(port(first.max(last.min(1)))?, port(last)?))
}

fn at<T>(option: &'static str, text: &str, result: Result<T, PortError>) -> Result<T, Refusal> {
    result.map_err(|error| Refusal::Ports { option, text: text.into(), error })
}

/// The number `part` of the value `text`, as C writes it (strtoul with base 0): decimal, `0x`
/// hexadecimal, or `0` octal.
fn number(option: &'static str, text: &str, part: &str) -> Result<u16, Refusal> {
    if part.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(Refusal::Service { option, text: part.into() });
    }
    let (digits, radix) = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return at(option, text, Err(PortError::NotANumber { text: part.into() }));
    }
    let too_large = |_| PortError::TooLarge { text: part.into() };
    at(option, text, u16::from_str_radix(digits, radix).map_err(too_large))
}

/// The protocol of `-p`; `None` for all of them.
pub(super) fn protocol(text: &str) -> Result<Option<Protocol>, ProtocolError> {
    let text = text.to_ascii_lowercase();
    match decimal(&text) {
        Some(0) => Ok(None),
        Some(1) => "icmp".parse().map(Some),
        Some(33) => "dccp".parse().map(Some),
        Some(58) => "ipv6-icmp".parse().map(Some),
        Some(number) => match Protocol::from_number(number) {
            Some(protocol) => Ok(Some(protocol)),
            None => Err(ProtocolError::Unknown { text: text.into() }),
        },
        None if text == "all" => Ok(None),
        None => text.parse().map(Some),
    }
}

/// A small number that does not begin with a 0, which iptables would take for octal.
fn decimal(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text == "0" || !text.starts_with(['0', '+']))
}

/// The interfaces of `-o`: a name, a prefix before `+`, or `+` for all.
pub(super) fn out_interfaces(text: &str) -> Result<OutInterfaces, Refusal> {
    let pattern = match text.strip_suffix('+') {
        Some("") => return Ok(OutInterfaces::Any),
        Some(prefix) => format!("{prefix}*").parse::<InterfacePattern>(),
        None => text.parse::<InterfaceName>().map(InterfacePattern::Name),
    };
    match pattern.map_err(Refusal::Interface)? {
        InterfacePattern::Name(name) if name.is_loopback() => Err(Refusal::Loopback),
        pattern => Ok(OutInterfaces::Matching(pattern.into())),
    }
}

/// The networks of `-s` and `-d`, joined by commas; with a mask, a prefix length or neither.
pub(super) fn networks(
    option: &'static str,
    text: &str,
    family: Family,
) -> Result<Vec<IpNet>, Refusal> {
    let (read, example): (fn(&str) -> Option<IpNet>, _) = match family {
        Family::Ipv4 => (ipv4_network, "10.0.0.0/8"),
        Family::Ipv6 => (ipv6_network, "2001:db8::/32"),
    };
    let refused = || Refusal::Network { option, text: text.into(), example };
    text.split(',').map(|part| read(part).ok_or_else(refused)).collect()
}

fn ipv4_network(text: &str) -> Option<IpNet> {
    let Some((address, mask)) = text.split_once('/') else {
        return text.parse::<Ipv4Addr>().ok().map(|address| Ipv4Net::from(address).into());
    };
    // iptables reads 10/8 as 10.0.0.0/8.
    let missing = 3usize.saturating_sub(address.matches('.').count());
    let address: Ipv4Addr = format!("{address}{}", ".0".repeat(missing)).parse().ok()?;
    let net = match decimal(mask) {
        Some(len) => Ipv4Net::new(address, len).ok()?,
        None => Ipv4Net::with_netmask(address, mask.parse().ok()?).ok()?,
    };
    Some(net.trunc().into())
}

fn ipv6_network(text: &str) -> Option<IpNet> {
    let Some((address, mask)) = text.split_once('/') else {
        return text.parse::<Ipv6Addr>().ok().map(|address| Ipv6Net::from(address).into());
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let net = match decimal(mask) {
        Some(len) => Ipv6Net::new(address, len).ok()?,
        None => Ipv6Net::with_netmask(address, mask.parse().ok()?).ok()?,
    };
    Some(net.trunc().into())
}

/// What `--to-source` says.
#[derive(Debug)]
pub(super) struct ToSource {
    /// No address keeps the packet's own; `None` is a range of them.
    pub(super) address: Option<Address>,
    pub(super) ports: Option<PortRange>,
}

/// The value of `--to-source`: `[ADDRESS[-ADDRESS]][:PORT[-PORT]]`, for IPv6 with the addresses in
/// brackets when ports follow.
pub(super) fn to_source(text: &str, family: Family) -> Result<ToSource, Refusal> {
    let (addresses, ports) = match family {
        Family::Ipv4 => text.split_once(':').map_or((text, None), |(a, p)| (a, Some(p))),
        Family::Ipv6 => ipv6_parts(text).ok_or_else(|| not_an_address(text, family))?,
    };
    let ports = ports.map(|ports| target_ports("--to-source", ports)).transpose()?;
    let address = match addresses.split_once('-') {
        None if addresses.is_empty() => Some(Address::Keep),
        None => Some(Address::Fixed(address(addresses, text, family)?)),
        Some((first, last)) => {
            let (first, last) = (address(first, text, family)?, address(last, text, family)?);
            (first == last).then_some(Address::Fixed(first))
        }
    };
    Ok(ToSource { address, ports })
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

fn address(text: &str, whole: &str, family: Family) -> Result<IpAddr, Refusal> {
    let address = text.parse().ok().filter(|address| Family::of(*address) == family);
    address.ok_or_else(|| not_an_address(whole, family))
}

fn not_an_address(text: &str, family: Family) -> Refusal {
    let example = match family {
        Family::Ipv4 => "192.0.2.1:1024-2047",
        Family::Ipv6 => "[2001:db8::1]:1024-2047",
    };
    Refusal::Address { text: text.into(), example }
}
