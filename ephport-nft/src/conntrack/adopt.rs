//! Connections of this host's sockets that conntrack does not know yet.
//!
//! Conntrack works in a network namespace only once a rule needs it. Connections that were opened before have no
//! entry. Conntrack picks one up at its next packet and regards the sender as the side that opened it; a UDP
//! connection is then translated like a new one. [`adopt`] adds the entry that conntrack would have if it
//! had seen the connection from its start: not translated, and opened by the right side.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use ephport_core::{Family, Protocol};

use super::renumber::tcp;
use super::{Connections, ConntrackError, Filter, Layer4, Sent, TcpState, Tuple, header};
use crate::netlink::{Errno, NfGenMsg, Transport, Writer, exchange};
use crate::nftables::value;
use crate::sock_diag::{InetSocket, SocketState, Tags};
use crate::uapi::{
    CTA_PROTOINFO, CTA_PROTOINFO_SCTP, CTA_PROTOINFO_SCTP_STATE, CTA_PROTOINFO_SCTP_VTAG_ORIGINAL,
    CTA_PROTOINFO_SCTP_VTAG_REPLY, CTA_STATUS, CTA_TIMEOUT, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY,
    IPCTNL_MSG_CT_NEW, IPS_ASSURED, IPS_CONFIRMED, IPS_SEEN_REPLY, NLM_F_CREATE, NLM_F_EXCL,
    NLM_F_REQUEST, SCTP_CONNTRACK_COOKIE_WAIT, SCTP_CONNTRACK_ESTABLISHED,
};

/// The messages in one datagram: the answers to all of them fit in the socket's receive buffer.
const MESSAGES: usize = 100;

/// The seconds for which conntrack keeps an idle UDP connection with traffic in both directions
/// (`nf_conntrack_udp_timeout_stream`). The next packet sets the host's own timeout.
const UDP_TIMEOUT: u32 = 120;

/// The same for an SCTP association (`nf_conntrack_sctp_timeout_established`); SCTP sends something every 30 seconds.
const SCTP_TIMEOUT: u32 = 210;

/// An entry to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The direction of the packet that opened the connection.
    original: Tuple,
    /// What conntrack knows of the connection besides.
    progress: Progress,
}

/// How far a connection is, by its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Tcp(TcpState),
    /// The tags of the packets in the original direction and in the other one.
    Sctp {
        is_open: bool,
        vtags: [u32; 2],
    },
    /// UDP and UDP-Lite have no state.
    Datagrams,
}

/// Adds an entry for each connection of `sockets` that has none, and returns the count of new entries.
///
/// # Errors
/// [`ConntrackError`]; some entries may be added then, which are without effect for a host that does not use
/// conntrack.
pub fn adopt(
    transport: &mut impl Transport,
    sockets: &[InetSocket],
) -> Result<usize, ConntrackError> {
    let mut entries = entries(sockets);
    if entries.is_empty() {
        return Ok(0);
    }
    let mut known = HashSet::new();
    for connection in Connections::with_transport(&mut *transport, Filter::default())? {
        let connection = connection?;
        known.extend([connection.original, connection.reply]);
    }
    entries.retain(|entry| {
        !known.contains(&entry.original) && !known.contains(&entry.original.reversed())
    });
    add(transport, &entries)
}

/// The numbers of the TCP, UDP, SCTP and UDP-Lite connections that conntrack knows, without those on loopback.
///
/// # Errors
/// [`ConntrackError`]
pub fn tracked_ids(transport: &mut impl Transport) -> Result<Vec<u32>, ConntrackError> {
    let mut ids = Vec::new();
    for connection in Connections::with_transport(transport, Filter::default())? {
        let connection = connection?;
        let has_ports = Sent::from_connection(&connection).is_some();
        let is_loopback = connection.original.source.is_loopback();
        ids.extend(connection.id.filter(|_| has_ports && !is_loopback));
    }
    Ok(ids)
}

/// The entries for the connections of `sockets`.
fn entries(sockets: &[InetSocket]) -> Vec<Entry> {
    let is_server = |socket: &InetSocket| match socket.protocol {
        Protocol::Tcp | Protocol::Sctp => socket.state == SocketState::LISTEN,
        _ => socket.remote.is_none(),
    };
    let servers: HashSet<_> = sockets
        .iter()
        .filter(|socket| is_server(socket))
        .map(|socket| (socket.protocol, socket.local.port()))
        .collect();
    let entry = |socket: &InetSocket| {
        let (local, remote) = (socket.local, socket.remote?);
        let is_outside =
            |ip: IpAddr| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast();
        let is_remote =
            is_outside(local.ip()) && is_outside(remote.ip()) && local.ip() != remote.ip();
        let is_opened_by_remote = servers.contains(&(socket.protocol, local.port()));
        let progress = match (socket.protocol, socket.tags) {
            (Protocol::Tcp, _) => Progress::Tcp(tcp_state(socket.state)?),
            (Protocol::Sctp, Some(tags)) => sctp(socket.state, tags, is_opened_by_remote)?,
            (Protocol::Sctp, None) => return None,
            _ => Progress::Datagrams,
        };
        let sent = Tuple::new(socket.protocol, local, remote);
        let original = if is_opened_by_remote { sent.reversed() } else { sent };
        is_remote.then_some(Entry { original, progress })
    };
    sockets.iter().filter_map(entry).collect()
}

/// Conntrack's state for a socket's; `None` for a socket without a connection that continues.
fn tcp_state(state: SocketState) -> Option<TcpState> {
    Some(match state {
        SocketState::ESTABLISHED => TcpState::Established,
        SocketState::SYN_SENT => TcpState::SynSent,
        SocketState::SYN_RECV => TcpState::SynRecv,
        SocketState::FIN_WAIT1 | SocketState::FIN_WAIT2 => TcpState::FinWait,
        SocketState::CLOSE_WAIT => TcpState::CloseWait,
        SocketState::CLOSING | SocketState::LAST_ACK => TcpState::LastAck,
        _ => return None,
    })
}

/// The progress of an SCTP association; `None` for one that has ended. Each packet has the tag of its receiver.
fn sctp(state: SocketState, tags: Tags, is_opened_by_remote: bool) -> Option<Progress> {
    let is_open = state != SocketState::SYN_SENT;
    let vtags = [tags.remote, tags.local];
    let vtags = if is_opened_by_remote { [vtags[1], vtags[0]] } else { vtags };
    (state != SocketState::CLOSE).then_some(Progress::Sctp { is_open, vtags })
}

fn add(transport: &mut impl Transport, entries: &[Entry]) -> Result<usize, ConntrackError> {
    let mut added = 0;
    for entries in entries.chunks(MESSAGES) {
        let mut w = Writer::new();
        for (entry, seq) in entries.iter().zip(1..) {
            entry.write(&mut w, seq);
        }
        added += entries.len();
        for answer in exchange(transport, &w.finish()?)? {
            match answer.errno {
                None => {}
                // Its next packet was faster.
                Some(Errno::EEXIST) => added -= 1,
                Some(Errno::EPERM) => return Err(ConntrackError::NotPermitted),
                Some(errno) => return Err(ConntrackError::Add { errno }),
            }
        }
    }
    Ok(added)
}

impl Entry {
    /// The seconds until the entry expires without packets: the kernel's default of the state.
    fn timeout(&self) -> u32 {
        match self.progress {
            Progress::Datagrams => UDP_TIMEOUT,
            Progress::Sctp { is_open: true, .. } => SCTP_TIMEOUT,
            Progress::Sctp { is_open: false, .. } => 3,
            Progress::Tcp(TcpState::Established) => 5 * 24 * 3600,
            Progress::Tcp(TcpState::SynSent | TcpState::FinWait) => 120,
            Progress::Tcp(TcpState::LastAck) => 30,
            Progress::Tcp(_) => 60,
        }
    }

    fn write(&self, w: &mut Writer, seq: u32) {
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
        let family = value::nfproto(Family::of(self.original.source));
        // An unanswered opening segment is the only packet so far.
        let status = match self.progress {
            Progress::Tcp(TcpState::SynSent) | Progress::Sctp { is_open: false, .. } => {
                IPS_CONFIRMED
            }
            _ => IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED,
        };
        w.message(header(IPCTNL_MSG_CT_NEW, flags, seq), |w| {
            w.raw(&NfGenMsg::new(family).to_bytes());
            w.nested(CTA_TUPLE_ORIG, |w| self.original.write(w, false));
            w.nested(CTA_TUPLE_REPLY, |w| self.original.reversed().write(w, false));
            w.u32_be(CTA_STATUS, status);
            w.u32_be(CTA_TIMEOUT, self.timeout());
            match self.progress {
                Progress::Tcp(state) => tcp(w, state),
                Progress::Sctp { is_open, vtags } => write_sctp(w, is_open, vtags),
                Progress::Datagrams => {}
            }
        });
    }
}

/// The kernel drops the association's chunks as invalid if they have other tags.
fn write_sctp(w: &mut Writer, is_open: bool, [original, reply]: [u32; 2]) {
    let state = if is_open { SCTP_CONNTRACK_ESTABLISHED } else { SCTP_CONNTRACK_COOKIE_WAIT };
    w.nested(CTA_PROTOINFO, |w| {
        w.nested(CTA_PROTOINFO_SCTP, |w| {
            w.u8(CTA_PROTOINFO_SCTP_STATE, state);
            w.u32_be(CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, original);
            w.u32_be(CTA_PROTOINFO_SCTP_VTAG_REPLY, reply);
        });
    });
}

impl Tuple {
    /// The packets between two ports, in the default zone.
    fn new(protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            source: source.ip(),
            destination: destination.ip(),
            protocol: protocol.number(),
            layer4: Layer4::Ports { source: source.port(), destination: destination.port() },
            zone: 0,
        }
    }

    /// The opposite direction without translation.
    pub(super) fn reversed(self) -> Self {
        let layer4 = match self.layer4 {
            Layer4::Ports { source, destination } => {
                Layer4::Ports { source: destination, destination: source }
            }
            other => other,
        };
        Self { source: self.destination, destination: self.source, layer4, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Connection;
    use crate::netlink::{Header, Messages, NetlinkError};
    use crate::uapi::NLMSG_ERROR;

    fn socket(
        protocol: Protocol,
        local: &str,
        remote: Option<&str>,
        state: SocketState,
    ) -> InetSocket {
        InetSocket {
            protocol,
            local: local.parse().unwrap(),
            remote: remote.map(|remote| remote.parse().unwrap()),
            state,
            uid: 0,
            inode: 1,
            tags: None,
        }
    }

    /// `SOURCE:PORT -> DESTINATION:PORT` of the original directions.
    fn originals(sockets: &[InetSocket]) -> Vec<String> {
        let text = |Entry { original, .. }: &Entry| {
            let ports = [original.source_port(), original.destination_port()];
            let [source, destination] = ports.map(Option::unwrap);
            format!("{}:{source} -> {}:{destination}", original.source, original.destination)
        };
        entries(sockets).iter().map(text).collect()
    }

    #[test]
    fn listeners_tell_who_opened_a_connection() {
        use Protocol::{Tcp, Udp};
        let (established, listen) = (SocketState::ESTABLISHED, SocketState::LISTEN);
        let sockets = [
            socket(Tcp, "0.0.0.0:2222", None, listen),
            socket(Tcp, "192.0.2.1:2222", Some("198.51.100.1:50000"), established),
            socket(Tcp, "192.0.2.1:40000", Some("198.51.100.1:443"), established),
            socket(Udp, "[::]:5000", None, SocketState::CLOSE),
            socket(Udp, "[2001:db8::1]:5000", Some("[2001:db8::2]:6000"), established),
            socket(Udp, "192.0.2.1:2222", Some("198.51.100.1:53"), established),
        ];
        let expected = [
            "198.51.100.1:50000 -> 192.0.2.1:2222",
            "192.0.2.1:40000 -> 198.51.100.1:443",
            "2001:db8::2:6000 -> 2001:db8::1:5000",
            "192.0.2.1:2222 -> 198.51.100.1:53",
        ];
        assert_eq!(originals(&sockets), expected);
    }

    #[test]
    fn sockets_without_a_remote_connection_have_no_entry() {
        use Protocol::{Tcp, Udp};
        let established = SocketState::ESTABLISHED;
        let sockets = [
            socket(Tcp, "127.0.0.1:40000", Some("127.0.0.1:443"), established),
            socket(Tcp, "192.0.2.1:40000", Some("192.0.2.1:443"), established),
            socket(Tcp, "192.0.2.1:40000", Some("192.0.2.2:443"), SocketState::TIME_WAIT),
            socket(Udp, "192.0.2.1:5353", Some("224.0.0.251:5353"), established),
            socket(Udp, "0.0.0.0:68", None, SocketState::CLOSE),
        ];
        assert_eq!(originals(&sockets), [""; 0]);
    }

    #[test]
    fn associations_have_the_tags_of_their_directions() {
        let tags = Some(Tags { local: 17, remote: 18 });
        let association = |local, remote, state| InetSocket {
            tags,
            ..socket(Protocol::Sctp, local, Some(remote), state)
        };
        let established = SocketState::ESTABLISHED;
        let sockets = [
            socket(Protocol::Sctp, "0.0.0.0:36412", None, SocketState::LISTEN),
            association("192.0.2.1:36412", "198.51.100.1:5000", established),
            association("192.0.2.1:5000", "198.51.100.1:36412", established),
            association("192.0.2.1:5001", "198.51.100.1:36412", SocketState::SYN_SENT),
            association("192.0.2.1:5002", "198.51.100.1:36412", SocketState::CLOSE),
        ];
        let progress: Vec<_> = entries(&sockets).iter().map(|entry| entry.progress).collect();
        let expected = [(true, [17, 18]), (true, [18, 17]), (false, [18, 17])];
        assert_eq!(progress, expected.map(|(is_open, vtags)| Progress::Sctp { is_open, vtags }));
    }

    #[test]
    fn entries_are_read_as_written() {
        let sockets = [
            socket(
                Protocol::Tcp,
                "192.0.2.1:40000",
                Some("198.51.100.1:443"),
                SocketState::SYN_SENT,
            ),
            socket(
                Protocol::Udp,
                "[2001:db8::1]:40000",
                Some("[2001:db8::2]:53"),
                SocketState::ESTABLISHED,
            ),
        ];
        let statuses = [IPS_CONFIRMED, IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED];
        for (entry, status) in entries(&sockets).iter().zip(statuses) {
            let mut w = Writer::new();
            entry.write(&mut w, 7);
            let bytes = w.finish().unwrap();
            let message = Messages::new(&bytes).next().unwrap().unwrap();
            let read = Connection::read(message.body).unwrap();
            let progress = read.tcp_state.map_or(Progress::Datagrams, Progress::Tcp);
            assert_eq!((read.original, progress), (entry.original, entry.progress));
            assert_eq!(read.reply, entry.original.reversed());
            assert_eq!((read.status.0, read.timeout), (status, Some(120)));
        }
    }
    /// A kernel with this answer to each new entry.
    struct Kernel {
        errno: Errno,
        answers: Vec<Vec<u8>>,
    }

    impl Transport for Kernel {
        fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
            for message in Messages::new(datagram) {
                let seq = message?.header.seq;
                let mut w = Writer::new();
                w.message(Header { message_type: NLMSG_ERROR, flags: 0, seq }, |w| {
                    w.raw(&(-self.errno.raw()).to_ne_bytes());
                    w.message(header(IPCTNL_MSG_CT_NEW, 0, seq), |_| {});
                });
                self.answers.push(w.finish()?);
            }
            Ok(())
        }

        fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
            Ok(self.answers.pop())
        }

        fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
            Err(NetlinkError::Silent { seconds: 0 })
        }
    }

    #[test]
    fn known_connections_are_not_added() {
        let remote = Some("198.51.100.1:443");
        let socket = socket(Protocol::Tcp, "192.0.2.1:40000", remote, SocketState::ESTABLISHED);
        let entries = entries(&vec![socket; 250]);
        let add = |errno| add(&mut Kernel { errno, answers: Vec::new() }, &entries);
        assert_eq!(add(Errno::EEXIST), Ok(0));
        assert_eq!(add(Errno::EPERM), Err(ConntrackError::NotPermitted));
        let full = add(Errno::ENOMEM).unwrap_err();
        assert_eq!(full, ConntrackError::Add { errno: Errno::ENOMEM });
        let message =
            "cannot add a connection to the connection tracking table (ENOMEM: Out of memory)";
        assert_eq!(full.to_string(), message);
    }
}
