//! The JSON of `aws ec2 describe-network-acls` (EC2 API, `NetworkAcl` and `NetworkAclEntry`).

use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::{Action, Entry, NaclError, NetworkAcl, Place, Traffic};
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::Protocol;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(default)]
    network_acls: Vec<RawAcl>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawAcl {
    network_acl_id: Option<String>,
    entries: Option<Vec<RawEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawEntry {
    rule_number: Option<u32>,
    egress: Option<bool>,
    cidr_block: Option<String>,
    ipv6_cidr_block: Option<String>,
    protocol: Option<String>,
    port_range: Option<RawPortRange>,
    rule_action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawPortRange {
    from: Option<i64>,
    to: Option<i64>,
}

/// The network ACLs of the document; at least one.
pub(super) fn read(text: &str) -> Result<Vec<NetworkAcl>, NaclError> {
    let document: Document = serde_json::from_str(text).map_err(|error| NaclError::Json {
        line: error.line(),
        column: error.column(),
        problem: error.to_string().into(),
    })?;
    if document.network_acls.is_empty() {
        return Err(NaclError::NoAcl);
    }
    document.network_acls.iter().enumerate().map(|(acl, raw)| raw.checked(acl)).collect()
}

impl RawAcl {
    fn checked(&self, acl: usize) -> Result<NetworkAcl, NaclError> {
        let place = Place { acl, entry: None };
        let id = required(self.network_acl_id.as_deref(), place, "NetworkAclId")?;
        let raw = required(self.entries.as_deref(), place, "Entries")?;
        let mut entries = Vec::new();
        for (index, entry) in raw.iter().enumerate() {
            let place = Place { entry: Some(index), ..place };
            if !required(entry.egress, place, "Egress")? {
                entries.push(entry.checked(place)?);
            }
        }
        Ok(NetworkAcl::new(id, entries))
    }
}

impl RawEntry {
    fn checked(&self, place: Place) -> Result<Entry, NaclError> {
        Ok(Entry {
            number: required(self.rule_number, place, "RuleNumber")?,
            remote: self.remote(place)?,
            traffic: self.traffic(place)?,
            action: self.action(place)?,
        })
    }

    fn remote(&self, place: Place) -> Result<IpNet, NaclError> {
        match (&self.cidr_block, &self.ipv6_cidr_block) {
            (Some(_), Some(_)) => Err(NaclError::TwoNetworks { place }),
            (Some(text), None) => {
                network::<Ipv4Net>(text, place, "CidrBlock", "10.0.0.0/16").map(IpNet::V4)
            }
            (None, Some(text)) => {
                network::<Ipv6Net>(text, place, "Ipv6CidrBlock", "2001:db8::/32").map(IpNet::V6)
            }
            (None, None) => Err(NaclError::Missing { place, field: "CidrBlock" }),
        }
    }

    fn traffic(&self, place: Place) -> Result<Traffic, NaclError> {
        let text = required(self.protocol.as_deref(), place, "Protocol")?;
        if text == "-1" {
            return Ok(Traffic::All);
        }
        let Ok(number) = text.parse::<u8>() else {
            return Ok(Traffic::Unknown(text.into()));
        };
        // AWS looks at the ports of these two alone (EC2 API, CreateNetworkAclEntry, Protocol).
        let has_ports = [Protocol::Tcp, Protocol::Udp].map(Protocol::number).contains(&number);
        let ports = match &self.port_range {
            Some(range) if has_ports => range.checked(place)?,
            _ => PortRange::ALL.into(),
        };
        Ok(Traffic::Protocol { number, ports })
    }

    fn action(&self, place: Place) -> Result<Action, NaclError> {
        match required(self.rule_action.as_deref(), place, "RuleAction")? {
            "allow" => Ok(Action::Allow),
            "deny" => Ok(Action::Deny),
            text => Err(NaclError::Action { place, text: text.into() }),
        }
    }
}

impl RawPortRange {
    /// The ports; 0, which AWS takes for a port, is left out, and so 0 to 0 is none.
    fn checked(&self, place: Place) -> Result<PortSet, NaclError> {
        let from = required(self.from, place, "PortRange.From")?;
        let to = required(self.to, place, "PortRange.To")?;
        let wrong = |_| NaclError::PortRange { place, from, to };
        let (first, last) =
            (u16::try_from(from).map_err(wrong)?, u16::try_from(to).map_err(wrong)?);
        if first > last {
            return Err(NaclError::PortRange { place, from, to });
        }
        let ends = Port::new(first.max(1)).ok().zip(Port::new(last).ok());
        let range = ends.and_then(|(first, last)| PortRange::new(first, last).ok());
        Ok(range.map_or(PortSet::EMPTY, PortSet::from))
    }
}

fn required<T>(value: Option<T>, place: Place, field: &'static str) -> Result<T, NaclError> {
    value.ok_or(NaclError::Missing { place, field })
}

fn network<T: FromStr>(
    text: &str,
    place: Place,
    field: &'static str,
    example: &'static str,
) -> Result<T, NaclError> {
    text.parse().map_err(|_| NaclError::Network { place, field, text: text.into(), example })
}
