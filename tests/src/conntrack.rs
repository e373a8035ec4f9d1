//! Entries of conntrack that no packet made, written over ctnetlink.

use std::net::{IpAddr, SocketAddr};

use ephport_nft::conntrack::{Layer4, Tuple};
use ephport_nft::netlink::{Header, NfGenMsg, Socket, Writer, exchange};
use ephport_nft::uapi::{
    CTA_NAT_PROTO, CTA_NAT_SRC, CTA_NAT_V4_MAXIP, CTA_NAT_V4_MINIP, CTA_NAT_V6_MAXIP,
    CTA_NAT_V6_MINIP, CTA_PROTONAT_PORT_MAX, CTA_PROTONAT_PORT_MIN, CTA_STATUS, CTA_TIMEOUT,
    CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, IPCTNL_MSG_CT_NEW, IPS_CONFIRMED, NFNL_SUBSYS_CTNETLINK,
    NFPROTO_IPV4, NFPROTO_IPV6, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST,
};

use super::Host;

/// A UDP connection of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The source before NAT.
    pub source: SocketAddr,
    /// The source after NAT; the same for a connection that is not translated.
    pub sent: SocketAddr,
    /// The destination.
    pub destination: SocketAddr,
}

/// The entries in one datagram.
const PER_DATAGRAM: usize = 200;

/// The seconds until the entries expire.
const TIMEOUT: u32 = 600;

/// Inserts `entries` into the connection tracking table of `host`.
///
/// # Panics
/// When the kernel refuses one.
pub fn insert(host: &Host, entries: impl Iterator<Item = Entry> + Send) {
    host.run(|| {
        let mut socket = Socket::netfilter().expect("a socket");
        let mut entries = entries.peekable();
        while entries.peek().is_some() {
            let mut w = Writer::new();
            for (entry, seq) in entries.by_ref().take(PER_DATAGRAM).zip(1..) {
                write(&mut w, &entry, seq);
            }
            let answers = exchange(&mut socket, &w.finish().expect("small")).expect("answers");
            for answer in answers {
                assert_eq!(answer.errno, None, "{answer:?}");
            }
        }
    });
}

fn write(w: &mut Writer, entry: &Entry, seq: u32) {
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    let message_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW;
    let family = if entry.source.is_ipv4() { NFPROTO_IPV4 } else { NFPROTO_IPV6 };
    let tuple = |from: SocketAddr, to: SocketAddr| Tuple {
        source: from.ip(),
        destination: to.ip(),
        protocol: 17,
        layer4: Layer4::Ports { source: from.port(), destination: to.port() },
        zone: 0,
    };
    w.message(Header { message_type, flags, seq }, |w| {
        w.raw(&NfGenMsg::new(family).to_bytes());
        let (source, destination) = (entry.source, entry.destination);
        w.nested(CTA_TUPLE_ORIG, |w| tuple(source, destination).write(w, false));
        w.nested(CTA_TUPLE_REPLY, |w| tuple(destination, source).write(w, false));
        w.u32_be(CTA_STATUS, IPS_CONFIRMED);
        w.u32_be(CTA_TIMEOUT, TIMEOUT);
        if entry.sent != source {
            w.nested(CTA_NAT_SRC, |w| write_nat(w, entry.sent));
        }
    });
}

fn write_nat(w: &mut Writer, sent: SocketAddr) {
    match sent.ip() {
        IpAddr::V4(address) => {
            w.bytes(CTA_NAT_V4_MINIP, &address.octets());
            w.bytes(CTA_NAT_V4_MAXIP, &address.octets());
        }
        IpAddr::V6(address) => {
            w.bytes(CTA_NAT_V6_MINIP, &address.octets());
            w.bytes(CTA_NAT_V6_MAXIP, &address.octets());
        }
    }
    w.nested(CTA_NAT_PROTO, |w| {
        w.bytes(CTA_PROTONAT_PORT_MIN, &sent.port().to_be_bytes());
        w.bytes(CTA_PROTONAT_PORT_MAX, &sent.port().to_be_bytes());
    });
}
