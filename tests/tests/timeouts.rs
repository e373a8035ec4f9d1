//! `timeouts` with real packets: the seconds that conntrack has for each state, by `conntrack -L`.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ephport_cli::Exit;
use ephport_nft::netlink::{Header, NfGenMsg, Socket, Writer, exchange};
use ephport_nft::uapi::{
    CTA_TIMEOUT_UDP_REPLIED, CTA_TIMEOUT_UDP_UNREPLIED, NFPROTO_IPV4, NLA_F_NESTED, NLM_F_ACK,
    NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST,
};
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6, ephport,
    ephport_ok, of_family,
};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

/// Timeouts that no host has, far from each other. The kernel can shorten those of TCP to 300 seconds: docs/policy.md.
const ALL: &str = "udp-unreplied=1000,udp-replied=2000,udp-53-unreplied=3000,udp-53-replied=4000,\
                   tcp-syn-sent=5000,tcp-time-wait=6000,tcp-close=150";

const PORT: u16 = 443;
const DNS: u16 = 53;

/// The longest time from a packet to the reading of its connection, in seconds.
const LATE: u64 = 100;

/// How long a test waits for a state of a connection.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection of conntrack's table.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    seconds: u64,
    /// The state of a TCP connection.
    state: Option<String>,
}

/// The connection from this source port to this destination port.
fn entry(router: &Host, server: IpAddr, source: u16, destination: u16) -> Option<Entry> {
    let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
    let listed = tool(router, "conntrack", &["-L", "-f", family], "").out;
    let (sport, dport) = (format!("sport={source}"), format!("dport={destination}"));
    let line = listed.lines().find(|line| {
        let mut words = line.split(' ');
        words.any(|word| word == sport) && words.next() == Some(&dport)
    })?;
    let mut words = line.split_whitespace().skip(2);
    let seconds = words.next()?.parse().ok()?;
    let state = words.next().filter(|word| !word.contains('=')).map(Into::into);
    Some(Entry { seconds, state })
}

/// Waits until the connection has this state and so many seconds left.
fn await_timeout(
    router: &Host,
    (server, source, destination): (IpAddr, u16, u16),
    state: Option<&str>,
    seconds: u64,
    mut again: impl FnMut(),
) {
    let start = Instant::now();
    loop {
        let found = entry(router, server, source, destination);
        let is_so = found.as_ref().is_some_and(|found| {
            found.state.as_deref() == state
                && (seconds.saturating_sub(LATE)..=seconds).contains(&found.seconds)
        });
        if is_so {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{source} -> {destination}: {found:?}, not {seconds}");
        again();
        thread::sleep(Duration::from_millis(50));
    }
}

/// The hosts that connect, each with its address.
fn clients(net: &Routed, server: IpAddr) -> [(&Host, IpAddr); 2] {
    [
        (&net.client, of_family(server, CLIENT_V4, CLIENT_V6)),
        (&net.router, of_family(server, ROUTER_V4, ROUTER_V6)),
    ]
}

fn udp(host: &Host, at: IpAddr, port: u16) -> UdpSocket {
    host.run(|| UdpSocket::bind((at, port))).unwrap()
}

/// A UDP connection: its timeout before the reply, and when both sides go on.
fn check_udp(net: &Routed, (host, at): (&Host, IpAddr), server: IpAddr, port: u16, all: [u64; 2]) {
    let listener = udp(&net.server, server, port);
    let client = udp(host, at, 0);
    let from = client.local_addr().unwrap().port();
    let to = SocketAddr::new(server, port);
    client.send_to(b"?", to).unwrap();
    let key = (server, from, port);
    await_timeout(&net.router, key, None, all[0], || {});
    let exchange = || {
        let mut bytes = [0; 4];
        let (_, seen) = listener.recv_from(&mut bytes).unwrap();
        listener.send_to(b"!", seen).unwrap();
        client.recv(&mut bytes).unwrap();
        client.send_to(b"?", to).unwrap();
    };
    // The first two seconds after a reply have the timeout of no reply.
    exchange();
    await_timeout(&net.router, key, None, all[0], || {});
    await_timeout(&net.router, key, None, all[1], exchange);
}

/// TCP connections that nobody answers, that both sides close, and that one side resets.
fn check_tcp(net: &Routed, (host, at): (&Host, IpAddr), server: IpAddr, all: [u64; 3]) {
    let listener = net.server.run(|| TcpListener::bind((server, 0))).unwrap();
    let to = listener.local_addr().unwrap();
    let connect = || host.run(|| TcpStream::connect(to)).unwrap();
    let [mut closed, reset] = [connect(), connect()];
    let ports = [&closed, &reset].map(|stream| stream.local_addr().unwrap().port());
    drop((listener.accept().unwrap(), listener.accept().unwrap()));
    closed.shutdown(std::net::Shutdown::Write).unwrap();
    closed.read_exact(&mut [0]).unwrap_err();
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&reset, Linger, &now).unwrap();
    drop(reset);
    for (port, state, seconds) in [(ports[0], "TIME_WAIT", all[1]), (ports[1], "CLOSE", all[2])] {
        await_timeout(&net.router, (server, port, to.port()), Some(state), seconds, || {});
    }
    // No host has this address.
    let nobody =
        of_family(server, "203.0.113.77".parse().unwrap(), "2001:db8:2::77".parse().unwrap());
    let patience = Duration::from_millis(100);
    let to = SocketAddr::new(nobody, 9 + u16::from(at == ROUTER_V4 || at == ROUTER_V6));
    host.run(|| TcpStream::connect_timeout(&to, patience)).unwrap_err();
    let listed = || {
        let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
        let all = tool(&net.router, "conntrack", &["-L", "-f", family], "").out;
        let port = format!("dport={} ", to.port());
        let line = all.lines().find(|line| line.contains(&port)).map(String::from);
        line.unwrap_or_else(|| panic!("no connection to {to}: {all}"))
    };
    let line = listed();
    let words: Vec<_> = line.split_whitespace().collect();
    let seconds: u64 = words[2].parse().unwrap();
    assert_eq!(words[3], "SYN_SENT", "{line}");
    assert!((all[0] - LATE..=all[0]).contains(&seconds), "{line}");
}

/// The timeouts of the policy, whoever connects, in both families.
fn check_all(flags: &str) {
    let net = Routed::new().unwrap();
    ephport_ok(&net.router, &format!("apply {flags} --timeouts {ALL}"));
    for server in [SERVER_V4, SERVER_V6] {
        for client in clients(&net, server) {
            check_udp(&net, client, server, PORT, [1000, 2000]);
            check_udp(&net, client, server, DNS, [3000, 4000]);
            check_tcp(&net, client, server, [5000, 6000, 150]);
        }
    }
}

#[test]
fn connections_have_the_timeouts_of_their_policy() {
    check_all("--to-ports 49152-61000");
}

#[test]
fn timeouts_work_with_many_ranges_and_enforcement() {
    check_all("--to-ports 2000-2099,3000-3099,4000-4099 --enforce");
}

#[test]
fn timeouts_work_with_remap() {
    check_all("--to-ports 2000-2099,3000-3099 --spread remap --address masquerade");
}

#[test]
fn timeouts_work_with_blocks() {
    let net = Routed::new().unwrap();
    let blocks = "--blocks 10.77.1.2=20000-20999 --blocks 10.77.1.3=30000-30999";
    ephport_ok(&net.router, &format!("apply {blocks} --timeouts {ALL}"));
    check_udp(&net, (&net.client, CLIENT_V4), SERVER_V4, DNS, [3000, 4000]);
    check_tcp(&net, (&net.client, CLIENT_V4), SERVER_V4, [5000, 6000, 150]);
}

/// The timeout of a new UDP connection from this port, before a reply.
fn unreplied(net: &Routed, host: &Host, at: IpAddr, from: u16, port: u16) -> (UdpSocket, u64) {
    let client = udp(host, at, from);
    let from = client.local_addr().unwrap().port();
    let server = of_family(at, SERVER_V4, SERVER_V6);
    client.send_to(b"?", (server, port)).unwrap();
    let found = entry(&net.router, server, from, port).expect("a connection");
    (client, found.seconds)
}

/// Whether these are the seconds of a connection with this timeout.
fn is_of(seconds: u64, timeout: u64) -> bool {
    (timeout.saturating_sub(LATE)..=timeout).contains(&seconds)
}

#[test]
fn connections_out_of_scope_keep_the_hosts_timeouts() {
    let net = Routed::new().unwrap();
    let flags = "--to-ports 49152-61000 -p udp --ipv4 --exempt-sport 40000 --dport 53,443";
    let timeouts = "--timeouts udp-unreplied=1000,udp-53-unreplied=3000";
    ephport_ok(&net.router, &format!("apply {flags} {timeouts}"));
    let seconds = |at, from, port| unreplied(&net, &net.client, at, from, port).1;
    assert!(is_of(seconds(CLIENT_V4, 0, PORT), 1000));
    assert!(is_of(seconds(CLIENT_V4, 0, DNS), 3000));
    for (at, from, port) in [(CLIENT_V4, 0, 80), (CLIENT_V4, 40_000, DNS), (CLIENT_V6, 0, DNS)] {
        assert!(seconds(at, from, port) <= 30, "{at}:{from} -> {port}");
    }
}

#[test]
fn each_policy_has_its_own_timeouts() {
    let net = Routed::new().unwrap();
    let file = ephport_tests::PolicyFile::new(
        "[[policy]]\nname = \"a\"\norigin = \"local\"\nto-ports = \"2000-2999\"\n\
         timeouts = { udp-unreplied = 1000 }\n\
         [[policy]]\nname = \"b\"\nin-interfaces = [\"lan0\"]\nto-ports = \"3000-3999\"\n\
         [policy.timeouts]\nudp-unreplied = 2000\n",
    );
    ephport_ok(&net.router, &format!("apply {}", file.path()));
    assert!(is_of(unreplied(&net, &net.router, ROUTER_V4, 0, PORT).1, 1000));
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, 2000));
}

/// New connections have the new timeouts. Those that are open have the host's from their next packet on.
#[test]
fn other_timeouts_apply_to_new_connections() {
    let net = Routed::new().unwrap();
    let apply = |timeouts: &str| {
        ephport_ok(&net.router, &format!("apply --to-ports 49152-61000 --timeouts {timeouts}"))
    };
    let new = || unreplied(&net, &net.client, CLIENT_V4, 0, PORT);
    apply("udp-unreplied=1000");
    let (open, seconds) = new();
    assert!(is_of(seconds, 1000));
    let printed = apply("udp-unreplied=2000");
    assert!(printed.starts_with("updated table"), "{printed}");
    assert!(is_of(new().1, 2000));
    let from = open.local_addr().unwrap().port();
    assert!(entry(&net.router, SERVER_V4, from, PORT).unwrap().seconds > 800);
    open.send_to(b"?", (SERVER_V4, PORT)).unwrap();
    assert!(entry(&net.router, SERVER_V4, from, PORT).unwrap().seconds <= 30);
    apply("none");
    assert!(new().1 <= 30);
    let listed = tool(&net.router, "nft", &["list", "ruleset"], "").out;
    assert!(!listed.contains("ct timeout"), "{listed}");
}

#[test]
fn map_e_has_short_timeouts_for_dns_only() {
    let net = Routed::new().unwrap();
    let map_e = "apply --map-e psid=52,psid-len=8,offset=4";
    let printed = ephport_ok(&net.router, map_e);
    assert!(printed.contains("timeouts        udp-53-unreplied 2 s, udp-53-replied 2 s"));
    assert!(unreplied(&net, &net.client, CLIENT_V4, 0, DNS).1 <= 2);
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, 30));
    let seconds = unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1;
    assert!((10..=30).contains(&seconds), "{seconds}");
    ephport_ok(&net.router, &format!("{map_e} --timeouts none"));
    let seconds = unreplied(&net, &net.client, CLIENT_V4, 0, DNS).1;
    assert!((10..=30).contains(&seconds), "{seconds}");
}

const EARLIER: &str = "table inet other {
    ct timeout theirs {
        protocol udp
        policy = { unreplied : 9000, replied : 9000 }
    }
    chain c {
        type filter hook prerouting priority -150;
        udp dport 443 ct timeout set \"theirs\"
    }
}";

/// The table `EARLIER` with its chain in postrouting, after ephport's.
fn later() -> String {
    EARLIER.replace("prerouting priority -150", "postrouting priority 150")
}

/// Whether the first of two assignments stays, by plain nft: docs/kernels.md.
fn first_stays(net: &Routed) -> bool {
    nft_load(&net.router, EARLIER);
    nft_load(&net.router, &later().replace("inet other", "inet plain").replace("9000", "7000"));
    let (_, seconds) = unreplied(net, &net.client, CLIENT_V4, 0, PORT);
    ok(&net.router, "nft delete table inet plain");
    ok(&net.router, "nft delete table inet other");
    assert!(is_of(seconds, 9000) || is_of(seconds, 7000), "{seconds}");
    is_of(seconds, 9000)
}

#[test]
fn timeouts_of_other_tables_are_named() {
    let net = Routed::new().unwrap();
    let (theirs, ours) = if first_stays(&net) { (1000, 9000) } else { (9000, 1000) };
    let line = "--to-ports 49152-61000 --timeouts udp-unreplied=1000";
    nft_load(&net.router, EARLIER);
    let without = ephport(&net.router, "apply --to-ports 49152-61000");
    assert_eq!(without.err, "");
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, 9000));
    let applied = ephport(&net.router, &format!("apply {line}"));
    let earlier = "warning: chain c of table inet other assigns timeouts too: connections that ephport \
                   translates get those of their policy instead; on Linux 7.3 they keep the chain's\n";
    assert_eq!((applied.exit, applied.err.as_str()), (Exit::Success, earlier));
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, ours));
    let status = ephport(&net.router, "status");
    assert_eq!((status.exit, status.err.as_str()), (Exit::Success, earlier));
    assert!(status.out.contains("udp: unreplied 1000 s"), "{}", status.out);
    ok(&net.router, "nft delete table inet other");
    nft_load(&net.router, &later());
    let warning = "warning: chain c of table inet other assigns timeouts too, after ephport's: connections \
                   that it matches keep its timeouts; on Linux 7.3 those of their policy\n";
    assert_eq!(ephport(&net.router, "status").err, warning);
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, theirs));
    let doctor = ephport(&net.router, &format!("doctor {line}")).out;
    assert!(doctor.contains("other-timeouts") && doctor.contains("fix: "), "{doctor}");
}

/// Adds timeouts for UDP over IPv4 that iptables can name, as nfct of conntrack-tools does
/// (linux/netfilter/nfnetlink_cttimeout.h).
fn add_timeout(router: &Host, name: &str, seconds: u32) {
    const NFNL_SUBSYS_CTNETLINK_TIMEOUT: u16 = 8;
    const IPCTNL_MSG_TIMEOUT_NEW: u16 = 0;
    const CTA_TIMEOUT_NAME: u16 = 1;
    const CTA_TIMEOUT_L3PROTO: u16 = 2;
    const CTA_TIMEOUT_L4PROTO: u16 = 3;
    const CTA_TIMEOUT_DATA: u16 = 4;
    let message_type = NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8 | IPCTNL_MSG_TIMEOUT_NEW;
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
    let mut w = Writer::new();
    w.message(Header { message_type, flags, seq: 1 }, |w| {
        w.raw(&NfGenMsg::new(NFPROTO_IPV4).to_bytes());
        w.string(CTA_TIMEOUT_NAME, name);
        w.u16_be(CTA_TIMEOUT_L3PROTO, NFPROTO_IPV4.into());
        w.u8(CTA_TIMEOUT_L4PROTO, 17);
        w.nested(CTA_TIMEOUT_DATA | NLA_F_NESTED, |w| {
            w.u32_be(CTA_TIMEOUT_UDP_UNREPLIED, seconds);
            w.u32_be(CTA_TIMEOUT_UDP_REPLIED, seconds);
        });
    });
    let request = w.finish().unwrap();
    let answers = router.run(|| exchange(&mut Socket::netfilter().unwrap(), &request).unwrap());
    assert_eq!(answers.iter().find_map(|answer| answer.errno), None);
}

#[test]
fn timeouts_of_iptables_are_named() {
    let net = Routed::new().unwrap();
    add_timeout(&net.router, "long", 9000);
    ok(&net.router, "iptables-nft -t raw -A PREROUTING -p udp --dport 443 -j CT --timeout long");
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, 9000));
    let line = "apply --to-ports 49152-61000 --timeouts udp-unreplied=1000";
    let warned = ephport(&net.router, line).err;
    assert!(warned.contains("chain PREROUTING of table ip raw assigns timeouts too"), "{warned}");
    assert!(is_of(unreplied(&net, &net.client, CLIENT_V4, 0, PORT).1, 1000));
}

#[test]
fn listing_of_nft_loads_as_the_same_table() {
    let net = Routed::new().unwrap();
    let line = format!("--to-ports 2000-2999,5000-5999 --timeouts {ALL}");
    ephport_ok(&net.router, &format!("apply {line}"));
    for shows in ["nft list table inet ephport", "show"] {
        let text = match shows {
            "show" => ephport_ok(&net.router, &format!("show {line}")),
            nft => ok(&net.router, nft),
        };
        ok(&net.router, "nft flush ruleset");
        nft_load(&net.router, &text);
        let diff = ephport(&net.router, &format!("diff {line}"));
        assert_eq!(diff.exit, Exit::Success, "{shows}: {}", diff.out);
    }
}

#[test]
fn changes_of_timeouts_are_drift() {
    let net = Routed::new().unwrap();
    let line = "--to-ports 49152-61000 -p udp --timeouts udp-unreplied=1000";
    ephport_ok(&net.router, &format!("apply {line}"));
    let listed = ok(&net.router, "nft list table inet ephport");
    let sentences = |text: &str| {
        ok(&net.router, "nft flush ruleset");
        nft_load(&net.router, text);
        let diff = ephport(&net.router, &format!("diff {line}"));
        assert_eq!(diff.exit, Exit::Differs);
        let told = diff.out.lines().skip(1).take_while(|line| !line.is_empty());
        told.map(|line| line.trim().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        sentences(&listed.replace("unreplied : 1000", "unreplied : 7")),
        [
            "ct timeout default/udp.unreplied-1000: timeouts unreplied 7 s, expected unreplied 1000 s"
        ]
    );
    let assigned = "ct timeout set \"default/udp.unreplied-1000\" ";
    assert_eq!(
        sentences(&listed.replace(assigned, "")),
        ["policy default, rule 5 of postrouting: timeouts none, expected `ct timeout set \
             \"default/udp.unreplied-1000\"`"]
    );
    let foreign =
        "table inet ephport {\n ct timeout f {\n protocol tcp\n policy = { close : 3 }\n }";
    assert_eq!(
        sentences(&listed.replace("table inet ephport {", foreign)),
        ["ct timeout f belongs to no policy"]
    );
    ephport_ok(&net.router, &format!("apply {line}"));
    assert_eq!(ephport(&net.router, &format!("diff {line}")).exit, Exit::Success);
}
