//! Messages of a real kernel, and answers of scripted ones.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::uapi::{IPS_ASSURED, IPS_CONFIRMED, IPS_SEEN_REPLY, NLM_F_MULTI};

/// `conntrack -I` of Linux 6.18 and its answer to a dump.
const GOLDEN: [(&str, &str); 4] = [
    (
        "-p tcp -s 172.17.0.2 -d 203.0.113.9 --sport 40000 --dport 443 --state ESTABLISHED -t 100 \
         -u SEEN_REPLY,ASSURED --src-nat 192.0.2.1:1025 -m 7",
        "02000000340001801400018008000100ac11000208000200cb0071091c000280050001000600000006000200\
         9c4000000600030001bb0000340002801400018008000100cb00710908000200c00002011c00028005000100\
         060000000600020001bb00000600030004010000080003000000019e080008000000000708000c0019d00cf5\
         08000b00000000010800070000000063300004802c0001800500010003000000050002000000000005000300\
         00000000060004000a000000060005000a0000001c0018800800010000000000080002000000000008000300\
         00000000",
    ),
    (
        "-p udp -s fd00::2 -d 2001:db8::9 --sport 40000 --dport 53 -t 100 -w 5",
        "0a0000004c0001802c00018014000300fd0000000000000000000000000000021400040020010db800000000\
         00000000000000091c0002800500010011000000060002009c40000006000300003500004c0002802c000180\
         1400030020010db800000000000000000000000914000400fd0000000000000000000000000000021c000280\
         05000100110000000600020000350000060003009c4000000600120000050000080003000000000808000800\
         0000000008000c000da40e5e08000b000000000108000700000000631c001880080001000000000008000200\
         000000000800030000000000",
    ),
    (
        "-p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 77 -t 100 \
         --orig-zone 3",
        "020000004400018014000180080001000a000001080002000a00000224000280050001000100000006000400\
         004d00000500050008000000050006000000000006000300000300003c00028014000180080001000a000002\
         080002000a00000124000280050001000100000006000400004d000005000500000000000500060000000000\
         0800030000000008080008000000000008000c00e3105c3208000b000000000108000700000000631c001880\
         080001000000000008000200000000000800030000000000",
    ),
    (
        "-p icmpv6 -s fd00::1 -d fd00::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 78 -t 100",
        "0a000000540001802c00018014000300fd00000000000000000000000000000114000400fd00000000000000\
         000000000000000224000280050001003a00000006000700004e000005000800800000000500090000000000\
         540002802c00018014000300fd00000000000000000000000000000214000400fd0000000000000000000000\
         0000000124000280050001003a00000006000700004e00000500080081000000050009000000000008000300\
         00000008080008000000000008000c00ab1ef84e08000b000000000108000700000000631c00188008000100\
         0000000008000200000000000800030000000000",
    ),
];

fn golden(index: usize) -> Vec<u8> {
    let digits: Vec<u32> = GOLDEN[index].1.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let bytes = digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap());
    let bytes: Vec<_> = bytes.collect();
    // The family, the version and the resource; then attributes.
    [&bytes[..4], &as_sent_here(&bytes[4..])].concat()
}

/// The attributes of a little-endian kernel as the kernel of this machine sends them.
fn as_sent_here(mut attrs: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    while let [a, b, c, d, ..] = *attrs {
        let (len, attribute_type) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let value = &attrs[4..usize::from(len)];
        let is_nested = attribute_type & 0x8000 != 0;
        sent.extend([len.to_ne_bytes(), attribute_type.to_ne_bytes()].concat());
        sent.extend(if is_nested { as_sent_here(value) } else { value.to_vec() });
        sent.resize(sent.len().next_multiple_of(4), 0);
        attrs = attrs.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
    }
    sent
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn translated_tcp_connection_is_read() {
    let tuple = |source, destination, from, to| Tuple {
        source: ip(source),
        destination: ip(destination),
        protocol: 6,
        layer4: Layer4::Ports { source: from, destination: to },
        zone: 0,
    };
    let connection = Connection::read(&golden(0)).unwrap();
    assert_eq!(connection.original, tuple("172.17.0.2", "203.0.113.9", 40_000, 443));
    assert_eq!(connection.reply, tuple("203.0.113.9", "192.0.2.1", 443, 1025));
    assert!(connection.status.is_source_nat() && !connection.status.is_destination_nat());
    assert!(connection.status.has_reply() && connection.status.is_assured());
    assert_eq!(connection.tcp_state, Some(TcpState::Established));
    assert_eq!((connection.timeout, connection.mark), (Some(99), 7));
    assert_eq!(connection.id, Some(0x19d0_0cf5));
    assert_eq!(connection.reply.destination_port(), Some(1025));
    assert_eq!(connection.original.source_port(), Some(40_000));
}

#[test]
fn zones_are_of_both_or_one_direction() {
    let both = Connection::read(&golden(1)).unwrap();
    assert_eq!((both.original.zone, both.reply.zone), (5, 5));
    let original = Connection::read(&golden(2)).unwrap();
    assert_eq!((original.original.zone, original.reply.zone), (3, 0));
    assert!(!both.status.is_source_nat() && !both.status.has_reply());
}

#[test]
fn echo_identifiers_are_read() {
    for (index, id, types) in [(2, 77, [8, 0]), (3, 78, [128, 129])] {
        let connection = Connection::read(&golden(index)).unwrap();
        let [original, reply] = types.map(|icmp_type| Layer4::Icmp { id, icmp_type, code: 0 });
        assert_eq!((connection.original.layer4, connection.reply.layer4), (original, reply));
        assert_eq!(connection.original.source_port(), None);
    }
}

/// The body of a message about `connection`.
fn written(connection: &Connection) -> Vec<u8> {
    let mut w = Writer::new();
    connection.write(&mut w);
    w.finish().unwrap()
}

#[test]
fn truncated_messages_are_errors_or_shorter() {
    for index in 0..GOLDEN.len() {
        let body = golden(index);
        let whole = Connection::read(&body).unwrap();
        for cut in 0..body.len() {
            // A cut between two attributes is a message without the later ones.
            if let Ok(connection) = Connection::read(&body[..cut]) {
                assert_eq!(connection.original.layer4, whole.original.layer4, "{cut}");
                assert_eq!(connection.reply.layer4, whole.reply.layer4, "{cut}");
            }
        }
        assert!(Connection::read(&body[..100]).is_err());
    }
}

prop_compose! {
    fn tuples(is_ipv4: bool)(
        (source, destination) in any::<([u8; 16], [u8; 16])>(),
        protocol in any::<u8>(),
        kind in 0..3_u8,
        (a, b, icmp_type, code) in any::<(u16, u16, u8, u8)>(),
        zone in prop_oneof![Just(0_u16), any::<u16>()],
    ) -> Tuple {
        let address = |bytes: [u8; 16]| {
            if is_ipv4 {
                IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
            } else {
                IpAddr::from(bytes)
            }
        };
        let layer4 = match kind {
            0 => Layer4::Ports { source: a, destination: b },
            1 => Layer4::Icmp { id: a, icmp_type, code },
            _ => Layer4::Other,
        };
        Tuple { source: address(source), destination: address(destination), protocol, layer4, zone }
    }
}

fn connections() -> impl Strategy<Value = Connection> {
    let tuples = any::<bool>().prop_flat_map(|is_ipv4| (tuples(is_ipv4), tuples(is_ipv4)));
    let rest = any::<(u32, Option<u8>, Option<u32>, u32, Option<u32>)>();
    (tuples, rest).prop_map(|((original, reply), (status, tcp_state, timeout, mark, id))| {
        let tcp_state = tcp_state.map(TcpState::from_number);
        Connection { original, reply, status: Status(status), tcp_state, timeout, mark, id }
    })
}

proptest! {
    #[test]
    fn written_connections_are_read_back(connection in connections()) {
        prop_assert_eq!(Connection::read(&written(&connection)), Ok(connection));
    }

    #[test]
    fn changed_and_cut_messages_never_panic(
        index in 0..GOLDEN.len(),
        at in any::<prop::sample::Index>(),
        (byte, cut) in any::<(u8, prop::sample::Index)>(),
    ) {
        let mut body = golden(index);
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(cut.index(body.len()));
        if let Ok(connection) = Connection::read(&body) {
            prop_assert!(Connection::read(&written(&connection)).is_ok());
        }
    }
}

/// A kernel that answers any request with these datagrams.
struct Script(VecDeque<Vec<u8>>);

impl Transport for Script {
    fn send(&mut self, _datagram: &[u8]) -> Result<(), NetlinkError> {
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
        Ok(self.0.pop_front())
    }

    fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
        self.poll()?.ok_or(NetlinkError::Silent { seconds: 10 })
    }
}

fn datagram(messages: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut w = Writer::new();
    for (header, body) in messages {
        w.message(*header, |w| w.raw(body));
    }
    w.finish().unwrap()
}

fn entry(index: usize) -> (Header, Vec<u8>) {
    (header(IPCTNL_MSG_CT_NEW, NLM_F_MULTI, SEQ), golden(index))
}

fn end(kind: u16, code: i32) -> (Header, Vec<u8>) {
    let mut body = code.to_ne_bytes().to_vec();
    body.extend([0; 16]);
    (Header { message_type: kind, flags: NLM_F_MULTI, seq: SEQ }, body)
}

fn run(filter: Filter, datagrams: &[Vec<u8>]) -> Vec<Result<Connection, ConntrackError>> {
    let script = Script(datagrams.to_vec().into());
    Connections::with_transport(script, filter).unwrap().collect()
}

#[test]
fn dump_runs_over_datagrams_to_its_end() {
    let datagrams = [
        datagram(&[entry(0), entry(1)]),
        datagram(&[entry(2)]),
        datagram(&[entry(3), end(NLMSG_DONE, 0)]),
        datagram(&[entry(0)]),
    ];
    let found: Vec<_> =
        run(Filter::default(), &datagrams).into_iter().map(Result::unwrap).collect();
    let expected: Vec<_> = (0..4).map(|index| Connection::read(&golden(index)).unwrap()).collect();
    assert_eq!(found, expected);
}

#[test]
fn filter_is_applied_to_kernels_that_ignore_it() {
    let datagrams = [datagram(&[entry(0), entry(1), entry(2), entry(3), end(NLMSG_DONE, 0)])];
    let protocols = |filter| {
        let found = run(filter, &datagrams).into_iter();
        found.map(|connection| connection.unwrap().reply.protocol).collect::<Vec<_>>()
    };
    let all = Filter::default();
    assert_eq!(protocols(Filter { source_nat: true, ..all }), [6]);
    assert_eq!(protocols(Filter { zone: Some(5), ..all }), [17]);
    assert_eq!(protocols(Filter { zone: Some(0), ..all }), [6, 1, 58]);
    assert_eq!(protocols(Filter { family: Some(Family::Ipv4), ..all }), [6, 1]);
    assert_eq!(protocols(Filter { family: Some(Family::Ipv6), ..all }), [17, 58]);
}

#[test]
fn failed_dumps_end_with_an_error() {
    let eperm = Errno::EPERM.raw();
    let cases = [
        (datagram(&[end(NLMSG_ERROR, -eperm)]), ConntrackError::NotPermitted),
        (datagram(&[end(NLMSG_DONE, -eperm)]), ConntrackError::NotPermitted),
        (datagram(&[end(NLMSG_ERROR, -Errno::EINVAL.raw())]), ConntrackError::NoCtnetlink),
        (
            datagram(&[(Header { flags: NLM_F_DUMP_INTR, ..entry(0).0 }, golden(0))]),
            NetlinkError::Interrupted.into(),
        ),
    ];
    for (last, error) in cases {
        let found = run(Filter::default(), &[datagram(&[entry(0)]), last]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[1], Err(error));
    }
    // No end comes.
    let found = run(Filter::default(), &[datagram(&[entry(0)])]);
    assert_eq!(found[1], Err(NetlinkError::Silent { seconds: 10 }.into()));
}

#[test]
fn statistics_are_summed_over_processors() {
    let global = |entries: u32, max: u32| {
        let mut w = Writer::new();
        w.raw(&NfGenMsg::new(0).to_bytes());
        w.u32_be(1, entries);
        w.u32_be(2, max);
        (header(5, 0, 1), w.finish().unwrap())
    };
    let processor = |number: u32| {
        let mut w = Writer::new();
        w.raw(&NfGenMsg::new(0).to_bytes());
        for kind in 2..=15 {
            w.u32_be(kind, number * u32::from(kind));
        }
        (header(4, NLM_F_MULTI, 2), w.finish().unwrap())
    };
    let ack = |seq| {
        let (header, body) = end(NLMSG_ERROR, 0);
        (Header { seq, ..header }, body)
    };
    let done = (Header { message_type: NLMSG_DONE, flags: NLM_F_MULTI, seq: 2 }, vec![0; 4]);
    let datagrams = [
        datagram(&[global(4, 262_144)]),
        datagram(&[ack(1)]),
        datagram(&[processor(1), processor(u32::MAX / 15), done]),
    ];
    let statistics = Statistics::read_over(&mut Script(datagrams.to_vec().into())).unwrap();
    let sum = |kind: u64| kind + kind * u64::from(u32::MAX / 15);
    let expected = Statistics {
        entries: 4,
        max_entries: Some(262_144),
        found: sum(2),
        invalid: sum(4),
        insert_failed: sum(9),
        drop: sum(10),
        early_drop: sum(11),
    };
    assert_eq!(statistics, expected);
}

#[test]
fn errors_name_the_cause() {
    let cases = [
        (
            ConntrackError::NotPermitted,
            "permission denied: reading the connection tracking table requires CAP_NET_ADMIN",
        ),
        (ConntrackError::NoCtnetlink, "the kernel has no ctnetlink (CONFIG_NF_CT_NETLINK)"),
    ];
    for (error, message) in cases {
        assert_eq!(error.to_string(), message);
    }
    let error = ConntrackError::from(NetlinkError::Interrupted).to_string();
    assert!(error.starts_with("cannot read the connection tracking table: "), "{error}");
}

#[test]
fn status_bits_are_those_of_the_kernel() {
    let status = Connection::read(&golden(0)).unwrap().status;
    let expected = IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED | IPS_SRC_NAT;
    assert_eq!(status.0 & 0x3f, expected);
}
