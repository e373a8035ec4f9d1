//! Interfaces (linux/if_link.h).

use std::collections::BTreeMap;

use ephport_core::InterfaceName;

use super::list;
use crate::netlink::{CodecError, NetlinkError, Reader, Socket};
use crate::uapi::{
    ARPHRD_LOOPBACK, IFLA_ALT_IFNAME, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_PROP_LIST,
    RTM_GETLINK, RTM_NEWLINK,
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
    /// Whether it is a dummy interface.
    pub(super) is_dummy: bool,
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
    reader.slice(WHAT, IFINFOMSG_LEN - 8)?;
    let (mut name, mut alternative_names, mut is_dummy) = (None, Vec::new(), false);
    for attr in reader.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            IFLA_IFNAME => name = Some(written(attr.value)),
            IFLA_LINKINFO => {
                for attr in attr.nested() {
                    let attr = attr?;
                    is_dummy |= attr.attribute_type == IFLA_INFO_KIND
                        && attr.value.strip_suffix(b"\0").unwrap_or(attr.value) == b"dummy";
                }
            }
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
    Ok(name.map(|name| (index, Link { name, alternative_names, is_loopback, is_dummy })))
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
