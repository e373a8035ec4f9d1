//! Interfaces (linux/if_link.h).

use std::collections::BTreeMap;

use ephport_core::InterfaceName;

use super::list;
use crate::netlink::{Attr, CodecError, NetlinkError, Reader, Socket};
use crate::uapi::{
    ARPHRD_LOOPBACK, IFF_UP, IFLA_ALT_IFNAME, IFLA_BR_NF_CALL_IP6TABLES, IFLA_BR_NF_CALL_IPTABLES,
    IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MASTER, IFLA_PROP_LIST,
    IFLA_VRF_TABLE, RTM_GETLINK, RTM_NEWLINK,
};

/// Length of `struct ifinfomsg`.
const IFINFOMSG_LEN: usize = 16;

/// An interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Its name; where a policy and nft cannot express it, escaped for a message.
    pub(super) name: Result<InterfaceName, Box<str>>,
    /// Its other names (`ip link property add altname`) that a policy can express.
    pub(super) alternative_names: Vec<InterfaceName>,
    /// Whether it is loopback.
    pub(super) is_loopback: bool,
    /// Whether it is up (`ip link set up`).
    pub(super) is_up: bool,
    /// Its kind, where policies depend on it.
    pub(super) kind: Kind,
    /// The index of the bridge, bond or VRF that it is a port of.
    pub(super) master: Option<u32>,
}

/// The kind of an interface (`IFLA_INFO_KIND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A dummy interface.
    Dummy,
    /// A VRF device, with its table.
    Vrf(Option<u32>),
    /// A bridge.
    Bridge {
        /// Whether its frames pass netfilter, whatever the sysctl.
        is_filtered: bool,
    },
    /// A WireGuard device.
    WireGuard,
    /// Any other.
    Other,
}

/// The interfaces by index.
pub(super) fn links(socket: &mut Socket) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let mut links = BTreeMap::new();
    list(socket, 1, RTM_GETLINK, IFINFOMSG_LEN, |message_type, body| {
        if message_type == RTM_NEWLINK {
            links.extend(link(body)?);
        }
        Ok(())
    })?;
    Ok(links)
}

/// The index and the interface of an `RTM_NEWLINK`.
fn link(body: &[u8]) -> Result<Option<(u32, Link)>, CodecError> {
    const WHAT: &str = "ifinfomsg";
    let mut reader = Reader::new(body);
    let [_family, _padding, low, high] = reader.array(WHAT)?;
    let device_type = u16::from_ne_bytes([low, high]);
    let index = reader.u32_ne(WHAT)?;
    let is_up = reader.u32_ne(WHAT)? & IFF_UP != 0;
    reader.slice(WHAT, IFINFOMSG_LEN - 12)?;
    let (mut name, mut alternative_names, mut kind) = (None, Vec::new(), Kind::Other);
    let mut master = None;
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            IFLA_IFNAME => name = Some(written(attr.value)),
            IFLA_MASTER => master = Some(attr.u32_ne()?),
            IFLA_LINKINFO => kind = link_kind(&attr)?,
            IFLA_PROP_LIST => {
                for attr in attr.nested() {
                    let attr = attr?;
                    if attr.attribute_type == IFLA_ALT_IFNAME {
                        alternative_names.extend(written(attr.value).ok());
                    }
                }
            }
            _ => {}
        }
    }
    let is_loopback = device_type == ARPHRD_LOOPBACK;
    let link = name.map(|name| Link { name, alternative_names, is_loopback, is_up, kind, master });
    Ok(link.map(|link| (index, link)))
}

/// The kind in an `IFLA_LINKINFO`.
fn link_kind(info: &Attr<'_>) -> Result<Kind, CodecError> {
    let (mut name, mut data) = (&b""[..], None);
    for attr in info.nested() {
        let attr = attr?;
        match attr.attribute_type {
            IFLA_INFO_KIND => name = attr.value.strip_suffix(b"\0").unwrap_or(attr.value),
            IFLA_INFO_DATA => data = Some(attr),
            _ => {}
        }
    }
    let mut attrs = Vec::new();
    for attr in data.into_iter().flat_map(Attr::nested) {
        attrs.push(attr?);
    }
    Ok(match name {
        b"dummy" => Kind::Dummy,
        b"wireguard" => Kind::WireGuard,
        b"vrf" => {
            let table = attrs.iter().find(|attr| attr.attribute_type == IFLA_VRF_TABLE);
            Kind::Vrf(table.copied().map(Attr::u32_ne).transpose()?)
        }
        b"bridge" => {
            let calls = [IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES];
            let is_call =
                |attr: &Attr<'_>| calls.contains(&attr.attribute_type) && attr.value == [1];
            Kind::Bridge { is_filtered: attrs.iter().any(is_call) }
        }
        _ => Kind::Other,
    })
}

/// A name as a policy has it, or escaped.
fn written(bytes: &[u8]) -> Result<InterfaceName, Box<str>> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let name = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    name.ok_or_else(|| bytes.escape_ascii().to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nft_cannot_express_are_escaped() {
        for (bytes, escaped) in [
            (&b"a\"b\0"[..], "a\\\"b"),
            (b"*", "*"),
            (b"lo*", "lo*"),
            (b"a\\b", "a\\\\b"),
            (b"\xff", "\\xff"),
        ] {
            assert_eq!(written(bytes), Err(escaped.into()));
        }
        assert!(written(b"eth0\0").is_ok_and(|name| name.as_str() == "eth0"));
    }
}
