//! Another translated port for a connection that is open.
//!
//! The kernel cannot change the translation of an entry, so the entry is replaced: the new one has the same
//! original direction, and with it the same connection continues.

use std::net::IpAddr;

use ephport_core::Family;

use super::{Connection, ConntrackError, Layer4, TcpState, Tuple, header};
use crate::netlink::{Errno, NfGenMsg, Transport, Writer, exchange};
use crate::nftables::value;
use crate::uapi::{
    CTA_ID, CTA_MARK, CTA_NAT_DST, CTA_NAT_PROTO, CTA_NAT_SRC, CTA_NAT_V4_MAXIP, CTA_NAT_V4_MINIP,
    CTA_NAT_V6_MAXIP, CTA_NAT_V6_MINIP, CTA_PROTOINFO, CTA_PROTOINFO_TCP,
    CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY, CTA_PROTOINFO_TCP_STATE,
    CTA_PROTONAT_PORT_MAX, CTA_PROTONAT_PORT_MIN, CTA_STATUS, CTA_TIMEOUT, CTA_TUPLE_ORIG,
    CTA_TUPLE_REPLY, CTA_ZONE, IP_CT_TCP_FLAG_BE_LIBERAL, IP_CT_TCP_FLAG_CLOSE_INIT,
    IP_CT_TCP_FLAG_SACK_PERM, IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW, IPS_ASSURED, IPS_CONFIRMED,
    IPS_SEEN_REPLY, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST,
};

/// The messages in one datagram: the answers to all of them fit in the socket's receive buffer.
const MESSAGES: usize = 100;

/// A connection, and the port to which its source is translated from now on; `None` ends it.
pub type Renumbered = (Connection, Option<u16>);

/// Gives each connection another translated port, and returns how many continue.
///
/// All old entries are deleted first: the new port of one may be the old one of another. A connection that
/// conntrack began anew in between keeps what it got.
///
/// # Errors
/// [`ConntrackError`]; some connections may have their new port then.
pub fn renumber(
    transport: &mut impl Transport,
    connections: &[Renumbered],
) -> Result<usize, ConntrackError> {
    let all: Vec<_> = connections.iter().map(|(connection, _)| connection).collect();
    send(transport, &all, |w, connection, seq| delete(w, connection, seq))?;
    let new = connections.iter().filter_map(|(connection, port)| Some((connection, (*port)?)));
    send(transport, &new.collect::<Vec<_>>(), |w, (connection, port), seq| {
        create(w, connection, *port, seq);
    })
}

/// Sends a message for each item; how many the kernel did not refuse.
fn send<I>(
    transport: &mut impl Transport,
    items: &[I],
    write: impl Fn(&mut Writer, &I, u32),
) -> Result<usize, ConntrackError> {
    let mut accepted = items.len();
    for items in items.chunks(MESSAGES) {
        let mut w = Writer::new();
        items.iter().zip(1..).for_each(|(item, seq)| write(&mut w, item, seq));
        for answer in exchange(transport, &w.finish()?)? {
            match answer.errno {
                None => {}
                // One that ended by itself is not found, one that began anew exists.
                Some(Errno::ENOENT | Errno::EEXIST) => accepted -= 1,
                Some(Errno::EPERM) => return Err(ConntrackError::NotPermitted),
                Some(errno) => return Err(ConntrackError::Add { errno }),
            }
        }
    }
    Ok(accepted)
}

fn delete(w: &mut Writer, connection: &Connection, seq: u32) {
    let Connection { original, reply, id, .. } = connection;
    w.message(header(IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST, seq), |w| {
        w.raw(&NfGenMsg::new(value::nfproto(Family::of(original.source))).to_bytes());
        w.nested(CTA_TUPLE_ORIG, |w| original.write(w, false));
        zone(w, reply);
        if let Some(id) = id {
            w.u32_be(CTA_ID, *id);
        }
    });
}

fn create(w: &mut Writer, connection: &Connection, port: u16, seq: u32) {
    let Connection { original, reply, status, tcp_state, timeout, mark, .. } = connection;
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    w.message(header(IPCTNL_MSG_CT_NEW, flags, seq), |w| {
        w.raw(&NfGenMsg::new(value::nfproto(Family::of(original.source))).to_bytes());
        w.nested(CTA_TUPLE_ORIG, |w| original.write(w, false));
        w.nested(CTA_TUPLE_REPLY, |w| original.reversed().write(w, false));
        zone(w, reply);
        w.u32_be(CTA_STATUS, IPS_CONFIRMED | status.0 & (IPS_SEEN_REPLY | IPS_ASSURED));
        w.u32_be(CTA_TIMEOUT, timeout.unwrap_or(DEFAULT_TIMEOUT));
        w.u32_be(CTA_MARK, *mark);
        if let (true, Layer4::Ports { source, .. }) = (status.is_destination_nat(), reply.layer4) {
            w.nested(CTA_NAT_DST, |w| translation(w, reply.source, source));
        }
        w.nested(CTA_NAT_SRC, |w| translation(w, reply.destination, port));
        if let Some(state) = tcp_state {
            tcp(w, *state);
        }
    });
}

/// The seconds for an entry that a flow table forwarded.
const DEFAULT_TIMEOUT: u32 = 120;

fn zone(w: &mut Writer, reply: &Tuple) {
    if reply.zone != 0 {
        w.bytes(CTA_ZONE, &reply.zone.to_be_bytes());
    }
}

/// A single address and port.
fn translation(w: &mut Writer, address: IpAddr, port: u16) {
    let ends = match address {
        IpAddr::V4(_) => [CTA_NAT_V4_MINIP, CTA_NAT_V4_MAXIP],
        IpAddr::V6(_) => [CTA_NAT_V6_MINIP, CTA_NAT_V6_MAXIP],
    };
    for end in ends {
        w.bytes(end, &value::address_bytes(address));
    }
    w.nested(CTA_NAT_PROTO, |w| {
        for end in [CTA_PROTONAT_PORT_MIN, CTA_PROTONAT_PORT_MAX] {
            w.bytes(end, &port.to_be_bytes());
        }
    });
}

/// As for a connection that conntrack picks up (`tcp_new`): its windows are unknown. Without the flag of a
/// connection that is being closed, conntrack would take a new connection with the same ports for this one.
pub(super) fn tcp(w: &mut Writer, state: TcpState) {
    let mut flags = IP_CT_TCP_FLAG_SACK_PERM | IP_CT_TCP_FLAG_BE_LIBERAL;
    if state.is_closing() {
        flags |= IP_CT_TCP_FLAG_CLOSE_INIT;
    }
    w.nested(CTA_PROTOINFO, |w| {
        w.nested(CTA_PROTOINFO_TCP, |w| {
            w.u8(CTA_PROTOINFO_TCP_STATE, state.number());
            w.bytes(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &[flags, flags]);
            w.bytes(CTA_PROTOINFO_TCP_FLAGS_REPLY, &[flags, flags]);
        });
    });
}
