//! The JSON of `aws ec2 describe-network-acls` (EC2 API, `NetworkAcl` and `NetworkAclEntry`).

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Action, Entry, Location, NaclError, NetworkAcl, NetworkAcls, Traffic};
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;

/// Names of protocols that other tools write for their numbers.
const NAMES: [(&str, u8); 6] =
    [("icmp", 1), ("gre", 47), ("esp", 50), ("ah", 51), ("icmpv6", 58), ("ipv6-icmp", 58)];

/// A value that is written as an object: serde's own structs accept arrays as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    network_acls: Option<Vec<Object<RawAcl>>>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawAcl {
    network_acl_id: Option<String>,
    entries: Option<Vec<Object<RawEntry>>>,
    associations: Option<Vec<Object<RawAssociation>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawAssociation {
    subnet_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawEntry {
    rule_number: Option<u32>,
    egress: Option<bool>,
    cidr_block: Option<String>,
    ipv6_cidr_block: Option<String>,
    protocol: Option<String>,
    port_range: Option<Object<RawPortRange>>,
    rule_action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPortRange {
    from: Option<i64>,
    to: Option<i64>,
}

/// The network ACLs of the document; at least one.
pub(super) fn read(text: &str) -> Result<NetworkAcls, NaclError> {
    let is_list = text.trim_start().starts_with('[');
    let (raw, has_more) = if is_list {
        (parse::<Vec<Object<RawAcl>>>(text)?, false)
    } else {
        let Object(document) = parse::<Object<Document>>(text)?;
        let has_more = document.next_token.is_some_and(|token| !token.is_empty());
        if let Some(acls) = document.network_acls {
            (acls, has_more)
        } else {
            let acl = parse::<Object<RawAcl>>(text)?;
            (Vec::from_iter(acl.0.network_acl_id.is_some().then_some(acl)), has_more)
        }
    };
    if raw.is_empty() {
        return Err(NaclError::NoAcl);
    }
    let checked = raw
        .iter()
        .enumerate()
        .map(|(acl, Object(raw))| raw.checked(Location { is_list, acl, entry: None }));
    Ok(NetworkAcls { acls: checked.collect::<Result<_, _>>()?, has_more })
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, NaclError> {
    serde_json::from_str(text).map_err(|error| NaclError::Json {
        line: error.line(),
        column: error.column(),
        problem: error.to_string().into(),
    })
}

impl RawAcl {
    fn checked(&self, location: Location) -> Result<NetworkAcl, NaclError> {
        let id = required(self.network_acl_id.as_deref(), location, "NetworkAclId")?;
        let raw = required(self.entries.as_deref(), location, "Entries")?;
        let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
        for (index, Object(entry)) in raw.iter().enumerate() {
            let location = Location { entry: Some(index), ..location };
            if required(entry.egress, location, "Egress")? {
                outbound.push(entry.action(location)?);
            } else {
                inbound.push(entry.checked(location)?);
            }
        }
        let associations = self.associations.iter().flatten();
        let subnets = associations.filter_map(|Object(of)| of.subnet_id.as_deref());
        Ok(NetworkAcl {
            subnets: subnets.map(Into::into).collect(),
            denies_outbound: !outbound.is_empty() && !outbound.contains(&Action::Allow),
            ..NetworkAcl::new(id, inbound)
        })
    }
}

impl RawEntry {
    fn checked(&self, location: Location) -> Result<Entry, NaclError> {
        Ok(Entry {
            number: required(self.rule_number, location, "RuleNumber")?,
            remote: self.remote(location)?,
            traffic: self.traffic(location)?,
            action: self.action(location)?,
        })
    }

    fn remote(&self, location: Location) -> Result<IpNet, NaclError> {
        match (&self.cidr_block, &self.ipv6_cidr_block) {
            (Some(_), Some(_)) => Err(NaclError::TwoNetworks { location }),
            (Some(text), None) => {
                network::<Ipv4Net>(text, location, "CidrBlock", "10.0.0.0/16").map(IpNet::V4)
            }
            (None, Some(text)) => {
                network::<Ipv6Net>(text, location, "Ipv6CidrBlock", "2001:db8::/32").map(IpNet::V6)
            }
            (None, None) => Err(NaclError::Missing { location, field: "CidrBlock" }),
        }
    }

    fn traffic(&self, location: Location) -> Result<Traffic, NaclError> {
        let text = required(self.protocol.as_deref(), location, "Protocol")?;
        let name = text.to_ascii_lowercase();
        if matches!(name.as_str(), "-1" | "all") {
            return Ok(Traffic::All);
        }
        let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let named = named.or_else(|| name.parse().ok().map(Protocol::number));
        let Some(number) = text.parse::<u8>().ok().or(named) else {
            return Ok(Traffic::Unknown(text.into()));
        };
        // AWS compares the ports of these two only (EC2 API, CreateNetworkAclEntry, Protocol).
        let has_ports = [Protocol::Tcp, Protocol::Udp].map(Protocol::number).contains(&number);
        let ports = match &self.port_range {
            Some(Object(range)) if has_ports => range.checked(location)?,
            _ => PortRange::ALL.into(),
        };
        Ok(Traffic::Protocol { number, ports })
    }

    fn action(&self, location: Location) -> Result<Action, NaclError> {
        match required(self.rule_action.as_deref(), location, "RuleAction")? {
            "allow" => Ok(Action::Allow),
            "deny" => Ok(Action::Deny),
            text => Err(NaclError::Action { location, text: text.into() }),
        }
    }
}

impl RawPortRange {
    /// The ports without 0, which AWS accepts as a port; so 0 to 0 is none.
    fn checked(&self, location: Location) -> Result<PortSet, NaclError> {
        let from = required(self.from, location, "PortRange.From")?;
        let to = required(self.to, location, "PortRange.To")?;
        let wrong = |_| NaclError::PortRange { location, from, to };
        let (first, last) =
            (u16::try_from(from).map_err(wrong)?, u16::try_from(to).map_err(wrong)?);
        if first > last {
            return Err(NaclError::PortRange { location, from, to });
        }
        let ends = Port::new(first.max(1)).ok().zip(Port::new(last).ok());
        let range = ends.and_then(|(first, last)| PortRange::new(first, last).ok());
        Ok(range.map_or(PortSet::EMPTY, PortSet::from))
    }
}

fn required<T>(value: Option<T>, location: Location, field: &'static str) -> Result<T, NaclError> {
    value.ok_or(NaclError::Missing { location, field })
}

fn network<T: FromStr>(
    text: &str,
    location: Location,
    field: &'static str,
    example: &'static str,
) -> Result<T, NaclError> {
    text.parse().map_err(|_| NaclError::Network { location, field, text: text.into(), example })
}
