//! Ports in use: what `usage` counts of real connections, beside conntrack's own list.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ephport_cli::Exit;
use ephport_nft::conntrack::{Connections, Filter, Statistics};
use ephport_nft::netlink::{Header, NfGenMsg, Socket, Transport, Writer};
use ephport_nft::sock_diag::{self, SocketState};
use ephport_nft::uapi::{
    IPCTNL_MSG_CT_GET, NFNL_SUBSYS_CTNETLINK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE,
};
use ephport_tests::conntrack::{Entry, insert};
use ephport_tests::markdown::code_spans;
use ephport_tests::tool::{binary, nft_load, ok, tool};
use ephport_tests::{
    CLIENT_V4, Connection, Host, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6,
    Server, connect, connect_within, ephport, ephport_ok, host_with_uplink,
};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

const PORT: u16 = 443;
const SERVER: SocketAddr = SocketAddr::new(SERVER_V4, PORT);
const POLICY: &str = "--to-ports 49152-61000";

fn json(host: &Host, line: &str) -> Value {
    serde_json::from_str(&ephport_ok(host, line)).expect("JSON")
}

/// `count` connections of the client and as many of the router itself, which stay open.
fn open(net: &Routed, protocol: Protocol, count: u16, to: SocketAddr) -> Vec<Connection> {
    let hosts = [&net.client, &net.router];
    let ports = (0..count).flat_map(|number| hosts.map(|host| (host, 20_000 + number)));
    let connection = |(host, port): (&Host, u16)| host.run(|| connect(protocol, port, to));
    ports.map(|ports| connection(ports).expect("a connection")).collect()
}

#[test]
fn real_connections_are_counted_by_destination() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let enforced = format!("{POLICY} --address masquerade --enforce");
    ephport_ok(&net.router, &format!("apply {enforced}"));
    let ways = [
        (Protocol::Tcp, SERVER_V4, ROUTER_V4, 5),
        (Protocol::Udp, SERVER_V4, ROUTER_V4, 4),
        (Protocol::Tcp, SERVER_V6, ROUTER_V6, 3),
        (Protocol::Udp, SERVER_V6, ROUTER_V6, 2),
    ];
    let connections: Vec<_> = ways
        .iter()
        .flat_map(|(protocol, to, _, count)| open(&net, *protocol, *count, (*to, PORT).into()))
        .collect();
    let usage = json(&net.router, &format!("usage --json {enforced}"));
    let policy = &usage["policies"][0];
    assert_eq!(usage["version"], 1);
    assert_eq!(policy["connections"], connections.len());
    assert_eq!((&policy["outside"], &policy["drops"]), (&0.into(), &0.into()));
    let destinations = policy["destinations"].as_array().unwrap();
    for (found, (protocol, to, from, count)) in destinations.iter().zip(ways) {
        let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
        assert_eq!(found["protocol"], name);
        assert_eq!(found["address"], to.to_string());
        assert_eq!((&found["port"], &found["source"]), (&PORT.into(), &from.to_string().into()));
        assert_eq!((&found["ports"], &found["port_count"]), (&(2 * count).into(), &11_849.into()));
    }
    let mut seen: Vec<_> = connections.iter().map(|connection| connection.seen.port()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(policy["used_port_count"], seen.len());
    let ended = ephport(&net.router, &format!("usage --outside {enforced}"));
    assert_eq!(ended.exit, Exit::Success, "{}", ended.err);
    assert!(ended.out.starts_with("0 of 28 connections are outside"), "{}", ended.out);
}

#[test]
fn ports_of_the_hosts_own_sockets_count() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, &format!("apply {POLICY}"));
    // Kept by NAT, so that conntrack does not report it as translated.
    let _kept = net.router.run(|| connect(Protocol::Tcp, 50_000, SERVER)).unwrap();
    let usage = json(&net.router, &format!("usage --json {POLICY}"));
    let used = &usage["policies"][0]["used_ports"];
    assert_eq!(*used, serde_json::json!([{ "first": 50_000, "last": 50_000 }]));
}

#[test]
fn connections_outside_are_listed() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    // Loads conntrack without translating anything.
    nft_load(
        &net.router,
        "table ip t {\n chain c {\n type filter hook forward priority 0;\n ct state new counter\n }\n chain o {\n type filter hook output priority 0;\n ct state new counter\n }\n}\n",
    );
    let _before = net.router.run(|| connect(Protocol::Tcp, 40_000, SERVER)).unwrap();
    nft_load(
        &net.router,
        "table ip other {\n chain postrouting {\n \
         type nat hook postrouting priority 80; policy accept;\n \
         oifname \"wan0\" udp dport 443 masquerade to :2000-2999\n }\n}\n",
    );
    ephport_ok(&net.router, &format!("apply {POLICY}"));
    let _by_other = net.client.run(|| connect(Protocol::Udp, 40_000, SERVER)).unwrap();
    let _by_us = net.client.run(|| connect(Protocol::Tcp, 40_000, SERVER)).unwrap();
    // From outside, to a server of ours: its replies have any port.
    let _here = Server::start(&net.router, 8080).unwrap();
    let inbound = SocketAddr::new(ROUTER_V4, 8080);
    let _inbound = net.server.run(|| connect(Protocol::Tcp, 40_000, inbound)).unwrap();

    let ended = ephport(&net.router, &format!("usage --outside {POLICY}"));
    assert_eq!(ended.exit, Exit::Differs, "{}", ended.out);
    let mut lines: Vec<_> = ended.out.lines().collect();
    assert_eq!(lines.pop(), Some("2 of 3 connections are outside the ports of their policy"));
    lines.sort_unstable();
    let [local, other] = lines[..] else { panic!("{lines:?}") };
    assert_eq!(local, "tcp 203.0.113.1:40000 -> 203.0.113.9:443  policy default");
    assert!(other.starts_with("udp 203.0.113.1:2"), "{other}");
    let end = " -> 203.0.113.9:443  from 10.77.1.2:40000  policy default";
    assert!(other.ends_with(end), "{other}");

    let ended = ephport(&net.router, &format!("usage --outside --json {POLICY}"));
    assert_eq!(ended.exit, Exit::Differs);
    let document: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&document["version"], &document["connections"]), (&1.into(), &3.into()));
    let outside = document["outside"].as_array().unwrap();
    let udp = outside.iter().find(|outside| outside["protocol"] == "udp").unwrap();
    assert_eq!(udp["source"]["address"], CLIENT_V4.to_string());
    assert_eq!((&udp["is_translated"], &udp["source"]["port"]), (&true.into(), &40_000.into()));
}

#[test]
fn forwarded_connections_without_nat_are_reported() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    nft_load(
        &net.router,
        "table ip t {\n chain c {\n type filter hook forward priority 0;\n ct state new counter\n }\n}\n",
    );
    let _open = net.client.run(|| connect(Protocol::Tcp, 40_000, SERVER)).unwrap();
    let ended = ephport(&net.router, &format!("usage --outside {POLICY}"));
    assert_eq!(ended.exit, Exit::Success);
    assert!(ended.out.contains("1 more are forwarded without source NAT"), "{}", ended.out);
    let ended = ephport(&net.router, &format!("usage --outside {POLICY} -s 10.77.1.0/24"));
    assert_eq!(ended.exit, Exit::Differs, "{}", ended.out);
}

#[test]
fn full_ports_show_as_insert_failures() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, "apply --to-ports 50000-50003");
    let short = Duration::from_millis(200);
    let results: Vec<_> = (0..6)
        .map(|number| {
            net.client.run(|| connect_within(short, Protocol::Udp, 40_000 + number, SERVER))
        })
        .collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
    let usage = json(&net.router, "usage --json --to-ports 50000-50003");
    let destination = &usage["policies"][0]["destinations"][0];
    assert_eq!((&destination["ports"], &destination["ratio"]), (&4.into(), &1.0.into()));
    assert!(usage["conntrack"]["insert_failed"].as_u64().unwrap() >= 2, "{usage:#}");
    let text = ephport_ok(&net.router, "usage --to-ports 50000-50003");
    assert!(text.contains("  50000  ####\n"), "{text}");
    assert!(text.contains("  100.0 %          4/4  udp 203.0.113.9:443\n"), "{text}");
}

#[test]
fn enforcement_drops_are_counted() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    nft_load(
        &net.router,
        "table ip other {\n chain postrouting {\n \
         type nat hook postrouting priority 80; policy accept;\n \
         oifname \"wan0\" udp dport 443 masquerade to :2000-2999\n }\n}\n",
    );
    let enforced = format!("{POLICY} --enforce");
    let drops = |host: &Host| {
        json(host, &format!("usage --json {enforced}"))["policies"][0]["drops"].clone()
    };
    assert_eq!(drops(&net.router), Value::Null);
    ephport_ok(&net.router, &format!("apply {enforced}"));
    assert_eq!(drops(&net.router), 0);
    let short = Duration::from_millis(200);
    net.client.run(|| connect_within(short, Protocol::Udp, 40_000, SERVER)).unwrap_err();
    assert!(drops(&net.router).as_u64().unwrap() >= 1);
    let metrics = ephport_ok(&net.router, &format!("usage --openmetrics {enforced}"));
    assert!(metrics.contains("\nephport_enforced_drops_total{policy=\"default\"} "), "{metrics}");
    assert!(!metrics.contains("ephport_enforced_drops_total{policy=\"default\"} 0\n"), "{metrics}");
    assert!(metrics.contains("\nephport_policy_intact 1\n"), "{metrics}");
}

/// The metrics that only `guard` writes; `guard.rs` reads them.
const OF_GUARD: [&str; 3] =
    ["ephport_restores_total", "ephport_reloads_total", "ephport_table_owned"];

/// Each line of metrics is a comment or a sample of a metric that was declared just before.
#[test]
fn metrics_follow_the_exposition_format() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, &format!("apply {POLICY} --enforce"));
    let to =
        |number: u16| SocketAddr::new([198, 51, 100, number.to_be_bytes()[1] % 20].into(), PORT);
    insert(&host, (0..200).map(|number| entry([192, 0, 2, 2], number, to(number))));
    let text = ephport_ok(&host, &format!("usage --openmetrics {POLICY} --enforce"));
    let (mut name, mut samples) = ("", 0);
    let (body, end) = text.split_at(text.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            name = help.split(' ').next().unwrap();
            samples = 0;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let expected = if name.ends_with("_total") { "counter" } else { "gauge" };
            assert_eq!(kind, format!("{name} {expected}"));
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
            assert_eq!(sample.split('{').next(), Some(name), "{line}");
            samples += 1;
            assert!(samples <= 10, "{line}");
        }
    }
    let is_metric = |span: &&String| {
        span.starts_with("ephport_") && span.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())
    };
    for name in code_spans(include_str!("../../docs/metrics.md")).iter().filter(is_metric) {
        assert!(
            OF_GUARD.contains(&name.as_str()) || text.contains(&format!("# TYPE {name} ")),
            "{name}"
        );
    }
}

#[test]
fn pictures_are_plain_and_narrow() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 1024-29999,32768-65535");
    let to = SocketAddr::new([198, 51, 100, 1].into(), PORT);
    insert(&host, (0..20_000).map(|number| entry([192, 0, 2, 2], number, to)));
    let text = ephport_ok(&host, "usage --to-ports 1024-29999,32768-65535");
    assert!(text.is_ascii() && !text.contains('\x1b'), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    assert!(text.contains("20000/61744  udp 198.51.100.1:443"), "{text}");
}

#[test]
fn watch_repeats_until_its_pipe_closes() {
    struct Three(u32);
    impl std::io::Write for Three {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += u32::from(bytes.starts_with(b"policy default"));
            if self.0 > 3 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (host, _peer) = host_with_uplink();
    let mut out = Three(0);
    let args = ["ephport-nft", "usage", "--watch=1", "--to-ports", "49152-61000"];
    let exit = host.run(|| {
        let args = args.iter().map(Into::into);
        ephport_cli::run(args, &mut std::io::empty(), &mut out, &mut std::io::sink())
    });
    assert_eq!((exit, out.0), (Exit::Success, 4));
}

#[test]
fn without_privilege_the_error_names_the_capability() {
    let printed = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(binary_for_all())
        .args(["usage", "-o", "any", "--to-ports", "49152-61000"])
        .output()
        .unwrap();
    let error = String::from_utf8(printed.stderr).unwrap();
    assert_eq!(printed.status.code(), Some(1), "{error}");
    let expected = "error: permission denied: reading the connection tracking table requires \
                    CAP_NET_ADMIN; run as root, or in a user and network namespace of your own\n";
    assert_eq!(error, expected);
}

/// The binary where every user may run it.
fn binary_for_all() -> std::path::PathBuf {
    let copy = std::env::temp_dir().join(format!("ephport-nft-{}", std::process::id()));
    std::fs::copy(binary(), &copy).unwrap();
    copy
}

#[test]
fn sockets_of_the_host_are_listed() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let open = net.client.run(|| connect(Protocol::Tcp, 40_000, SERVER)).unwrap();
    let sockets = net.client.run(sock_diag::sockets).unwrap();
    let local = SocketAddr::new(CLIENT_V4, 40_000);
    let found = sockets.iter().find(|socket| socket.local == local).expect("the socket");
    assert_eq!((found.remote, found.state), (Some(SERVER), SocketState::ESTABLISHED));
    assert_eq!(open.local().unwrap(), local);
    let sockets = net.server.run(sock_diag::sockets).unwrap();
    let is_listening = |socket: &&sock_diag::InetSocket| {
        socket.local.port() == PORT && socket.state == SocketState::LISTEN
    };
    assert!(sockets.iter().any(|socket| is_listening(&socket)), "{sockets:?}");
    assert!(sockets.iter().any(|socket| socket.protocol == ephport_core::Protocol::Udp));
}

/// The entry of connection `number` from a source inside, with port 1024 + `number`.
fn entry(outside: [u8; 4], number: u16, destination: SocketAddr) -> Entry {
    let source = SocketAddr::new([10, 0, 0, 7].into(), 1024 + number);
    Entry { source, sent: SocketAddr::new(outside.into(), 1024 + number), destination }
}

/// The kernel's own dump, of which nothing is read.
fn bare_dump() {
    let mut socket = Socket::netfilter().unwrap();
    let mut w = Writer::new();
    let message_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
    let header = Header { message_type, flags: NLM_F_REQUEST | NLM_F_DUMP, seq: 1 };
    w.message(header, |w| w.raw(&NfGenMsg::new(0).to_bytes()));
    socket.send(&w.finish().unwrap()).unwrap();
    loop {
        let datagram = socket.receive().unwrap();
        let last_type = ephport_nft::netlink::Messages::new(&datagram).last().unwrap().unwrap();
        if last_type.header.message_type == NLMSG_DONE {
            return;
        }
    }
}

fn fastest(mut work: impl FnMut()) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..3).map(timed).min().unwrap_or_default()
}

/// 200,000 entries: the same as `conntrack -L` lists.
#[test]
fn large_tables_are_read_beside_conntrack() {
    const DESTINATIONS: u32 = 4;
    const EACH: u16 = 50_000;
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 1024-65535");
    let entries = (0..DESTINATIONS).flat_map(|server| {
        let to = SocketAddr::new([198, 51, 100, u8::try_from(server).unwrap()].into(), PORT);
        (0..EACH).map(move |number| entry([192, 0, 2, 2], number, to))
    });
    insert(&host, entries);

    let listed = tool(&host, "conntrack", &["-L", "--src-nat"], "");
    assert_eq!(listed.out.lines().count(), 200_000, "{}", listed.err);
    let usage = json(&host, "usage --json --to-ports 1024-65535");
    let policy = &usage["policies"][0];
    assert_eq!(
        (&policy["connections"], &policy["used_port_count"]),
        (&200_000.into(), &EACH.into())
    );
    for destination in policy["destinations"].as_array().unwrap() {
        let count = |text: &str| listed.out.lines().filter(|line| line.contains(text)).count();
        let address = destination["address"].as_str().unwrap();
        assert_eq!(destination["ports"], count(&format!(" dst={address} ")));
    }
}

/// The time and memory of `usage`, beside the kernel's own dump and `conntrack -L`. The table has many
/// destinations, so that not all of them are counted exactly.
#[test]
#[ignore = "measures: cargo test --release -p ephport-tests --test usage -- --ignored --nocapture"]
fn large_tables_cost_little_time_and_memory() {
    const ENTRIES: u32 = 250_000;
    const EACH: u16 = 3;
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, "apply --to-ports 1024-65535");
    let entries = (0..ENTRIES / u32::from(EACH)).flat_map(|server| {
        let to = SocketAddr::new(IpAddr::V4((0x0a80_0000 + server).into()), PORT);
        (0..EACH).map(move |number| entry([192, 0, 2, 2], number, to))
    });
    insert(&host, entries);
    let program = binary();
    let usage = ["usage", "--to-ports", "1024-65535"];
    let bare = fastest(|| host.run(bare_dump));
    let conntrack = fastest(|| drop(tool(&host, "conntrack", &["-L"], "")));
    let ours = fastest(|| drop(tool(&host, program.to_str().unwrap(), &usage, "")));
    let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    println!(
        "{ENTRIES} entries: dump {bare:?}, usage {ours:?} and {memory} KiB, conntrack -L {conntrack:?}"
    );
    assert!(ours < bare.mul_f64(1.3), "usage {ours:?}, dump {bare:?}");
    assert!(memory < 8 * 1024, "{memory} KiB");
}

#[test]
fn kernel_filters_and_counts_entries() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, &format!("apply {POLICY}"));
    let to = SocketAddr::new([198, 51, 100, 1].into(), PORT);
    insert(&host, (0..100).map(|number| entry([192, 0, 2, 2], number, to)));
    let plain = (0..50).map(|number| {
        let entry = entry([192, 0, 2, 2], 1000 + number, to);
        Entry { sent: entry.source, ..entry }
    });
    insert(&host, plain);
    let v6 = |number: u16| SocketAddr::new("2001:db8::7".parse().unwrap(), 1024 + number);
    let to = "[2001:db8::9]:443".parse().unwrap();
    insert(&host, (0..20).map(|n| Entry { source: v6(n), sent: v6(n), destination: to }));

    let all = Filter::default();
    let family = |family| Filter { family: Some(family), ..all };
    let cases = [
        (all, 170),
        (Filter { source_nat: true, ..all }, 100),
        (family(ephport_core::Family::Ipv4), 150),
        (family(ephport_core::Family::Ipv6), 20),
        (Filter { zone: Some(0), ..all }, 170),
        (Filter { zone: Some(9), ..all }, 0),
    ];
    for (filter, expected) in cases {
        let found = host.run(|| Connections::open(filter).unwrap().map(Result::unwrap).count());
        assert_eq!(found, expected, "{filter:?}");
    }
    let statistics = host.run(Statistics::read).unwrap();
    assert_eq!(statistics.entries, 170);
    assert!(statistics.max_entries.is_some());
    assert_eq!(ok(&host, "conntrack -C").trim(), "170");
}
