//! SCTP associations as `sctp_diag` lists them (net/sctp/diag.c, linux/sctp.h).
//!
//! An association has several addresses on each side, so that one message is several [`InetSocket`]s: one for each
//! pair of addresses between which packets may be sent.

use std::net::{IpAddr, SocketAddr};

use super::{InetSocket, SocketState};
use crate::netlink::{Attr, CodecError, Reader};
use crate::uapi::{AF_INET, AF_INET6, INET_DIAG_INFO, INET_DIAG_LOCALS, INET_DIAG_PEERS};

/// The verification tags of an association (RFC 9260 §3.1): each packet has that of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// The tag of the packets to this host.
    pub local: u32,
    /// The tag of the packets to the remote side; 0 before its answer.
    pub remote: u32,
}

/// Calls `visit` with each pair of addresses of the association that these attributes describe; `socket` has its
/// ports. A message without remote addresses is an endpoint, which is visited as it is.
pub(super) fn visit_pairs(
    socket: InetSocket,
    attrs: Reader<'_>,
    visit: &mut impl FnMut(InetSocket),
) -> Result<(), CodecError> {
    let (mut locals, mut remotes, mut tags) = (Vec::new(), None, None);
    for attr in attrs.attrs() {
        let attr = attr?;
        match attr.attribute_type {
            INET_DIAG_LOCALS => locals = addresses(attr)?,
            INET_DIAG_PEERS => remotes = Some(addresses(attr)?),
            INET_DIAG_INFO => tags = Some(read_tags(attr)?),
            _ => {}
        }
    }
    let (Some(remotes), Some(remote)) = (remotes, socket.remote) else {
        // A socket that was accepted has the remote address of its association, which is another message.
        visit(InetSocket { remote: None, ..socket });
        return Ok(());
    };
    let state = state(socket.state.0);
    let pairs = locals.iter().flat_map(|local| remotes.iter().map(move |remote| (local, remote)));
    for (from, to) in pairs.filter(|(from, to)| from.is_ipv4() == to.is_ipv4()) {
        let local = SocketAddr::new(*from, socket.local.port());
        let remote = Some(SocketAddr::new(*to, remote.port()));
        visit(InetSocket { local, remote, state, tags, ..socket });
    }
    Ok(())
}

/// An array of `struct sockaddr_storage`.
fn addresses(attr: Attr<'_>) -> Result<Vec<IpAddr>, CodecError> {
    const WHAT: &str = "sockaddr_storage";
    const LEN: usize = 128;
    let read = |bytes: &[u8]| {
        let mut reader = Reader::new(bytes);
        let family = reader.u16_ne(WHAT)?;
        let _port: [u8; 2] = reader.array(WHAT)?;
        match u8::try_from(family) {
            Ok(AF_INET) => Ok(IpAddr::from(reader.array::<4>(WHAT)?)),
            Ok(AF_INET6) => {
                let _flow_information: [u8; 4] = reader.array(WHAT)?;
                Ok(IpAddr::from(reader.array::<16>(WHAT)?).to_canonical())
            }
            _ => Err(CodecError::Value { what: "family of an address", value: family.into() }),
        }
    };
    attr.value.chunks_exact(LEN).map(read).collect()
}

/// The tags in a `struct sctp_info`, whose numbers have the host's byte order.
fn read_tags(attr: Attr<'_>) -> Result<Tags, CodecError> {
    const WHAT: &str = "sctp_info";
    let mut reader = Reader::new(attr.value);
    let local = reader.u32_ne(WHAT)?;
    // From the state to the remote side's window.
    let _other: [u8; 44] = reader.array(WHAT)?;
    Ok(Tags { local, remote: reader.u32_ne(WHAT)? })
}

/// The state of TCP for one of `enum sctp_state` (linux/sctp.h has no names for them).
fn state(number: u8) -> SocketState {
    match number {
        1 | 2 => SocketState::SYN_SENT,  // COOKIE_WAIT, COOKIE_ECHOED
        3 => SocketState::ESTABLISHED,   // ESTABLISHED
        4 | 5 => SocketState::FIN_WAIT1, // SHUTDOWN_PENDING, SHUTDOWN_SENT
        6 => SocketState::CLOSE_WAIT,    // SHUTDOWN_RECEIVED
        7 => SocketState::LAST_ACK,      // SHUTDOWN_ACK_SENT
        _ => SocketState::CLOSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;
    use ephport_core::Protocol;

    fn storage(address: &str) -> Vec<u8> {
        let mut bytes = match address.parse().unwrap() {
            IpAddr::V4(address) => {
                [&u16::from(AF_INET).to_ne_bytes()[..], &[0; 2], &address.octets()].concat()
            }
            IpAddr::V6(address) => {
                [&u16::from(AF_INET6).to_ne_bytes()[..], &[0; 6], &address.octets()].concat()
            }
        };
        bytes.resize(128, 0);
        bytes
    }

    fn info(local: u32, remote: u32) -> Vec<u8> {
        [&local.to_ne_bytes()[..], &[0; 44], &remote.to_ne_bytes(), &[0; 60]].concat()
    }

    fn socket(state: u8) -> InetSocket {
        InetSocket {
            protocol: Protocol::Sctp,
            local: "192.0.2.1:5000".parse().unwrap(),
            remote: Some("198.51.100.1:36412".parse().unwrap()),
            state: SocketState(state),
            uid: 0,
            inode: 7,
            tags: None,
        }
    }

    fn visited(state: u8, attrs: impl FnOnce(&mut Writer)) -> Result<Vec<InetSocket>, CodecError> {
        let mut w = Writer::new();
        attrs(&mut w);
        let bytes = w.finish().unwrap();
        let mut found = Vec::new();
        visit_pairs(socket(state), Reader::new(&bytes), &mut |socket| found.push(socket))?;
        Ok(found)
    }

    #[test]
    fn associations_have_each_pair_of_one_family() {
        let found = visited(3, |w| {
            w.bytes(INET_DIAG_INFO, &info(17, 18));
            let locals = ["192.0.2.1", "10.0.0.1", "2001:db8::1"].map(storage).concat();
            w.bytes(INET_DIAG_LOCALS, &locals);
            w.bytes(INET_DIAG_PEERS, &["198.51.100.1", "2001:db8::2"].map(storage).concat());
        });
        let pairs: Vec<_> = found
            .unwrap()
            .iter()
            .map(|socket| {
                assert_eq!(socket.tags, Some(Tags { local: 17, remote: 18 }));
                assert_eq!(socket.state, SocketState::ESTABLISHED);
                format!("{} {}", socket.local, socket.remote.unwrap())
            })
            .collect();
        let expected = [
            "192.0.2.1:5000 198.51.100.1:36412",
            "10.0.0.1:5000 198.51.100.1:36412",
            "[2001:db8::1]:5000 [2001:db8::2]:36412",
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn endpoints_have_no_remote_address() {
        let found = visited(SocketState::LISTEN.0, |w| {
            w.bytes(INET_DIAG_LOCALS, &storage("192.0.2.1"));
        });
        let found = found.unwrap();
        assert_eq!((found.len(), found[0].remote, found[0].state), (1, None, SocketState::LISTEN));
    }

    #[test]
    fn states_have_those_of_tcp() {
        let expected = [
            SocketState::CLOSE,
            SocketState::SYN_SENT,
            SocketState::SYN_SENT,
            SocketState::ESTABLISHED,
            SocketState::FIN_WAIT1,
            SocketState::FIN_WAIT1,
            SocketState::CLOSE_WAIT,
            SocketState::LAST_ACK,
            SocketState::CLOSE,
        ];
        assert_eq!((0..9).map(state).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn short_attributes_are_errors() {
        let short = visited(3, |w| w.bytes(INET_DIAG_INFO, &info(17, 18)[..48]));
        assert!(short.is_err());
        let mut unknown = storage("192.0.2.1");
        unknown[..2].copy_from_slice(&99_u16.to_ne_bytes());
        let unknown = visited(3, |w| w.bytes(INET_DIAG_PEERS, &unknown));
        let error = CodecError::Value { what: "family of an address", value: 99 };
        assert_eq!(unknown, Err(error));
    }
}
