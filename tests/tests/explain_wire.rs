//! `explain` against the wire: random connections under random documents, on a host with a bridge that filters, a VRF,
//! IPsec policies, an FTP helper and the chains of other tools. What the kernel lacks is skipped here and required
//! in the kernels of `tests/kernels`.

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ephport_core::strategies::{ports, wide_documents};
use ephport_core::{
    Address, Document, Families, Origin, OutInterfaces, Policy, Port, PortRange, PortSet,
};
use ephport_nft::{Client, Explanation, Plan, host};
use ephport_tests::random::samples;
use ephport_tests::tool::{is_able, nft_load, ok, tool};
use ephport_tests::wire::{Capture, Packet, Raw, Sender, plain, tcp, udp};
use ephport_tests::{Host, Protocol, Server, apply, connect_within, of_family};
use proptest::prelude::*;

const DOCUMENTS: usize = 80;
const FLOWS: usize = 50;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The hosts. The interfaces and addresses are those of [`wide_documents`]: the router has the uplink `eth0`, the
/// bridge `eth1` with the ports `p0` and `p1`, the network of the client behind `wg0`, and `wg-home` in a VRF.
struct Site {
    client: Host,
    machine: Host,
    router: Host,
    server: Host,
    has_vrf: bool,
    /// Whether an IPv4 address in the VRF is a local one for nft's fib, as in Linux 6.17 and not in 5.10.
    sees_vrf: bool,
    has_ipsec: bool,
}

/// A helper, before the rules that use it: Linux 5.10 does not find it in the same transaction.
const HELPER: &str = "table inet helpers {\n ct helper ftp { type \"ftp\" protocol tcp; }\n}";

/// The source of the connections that a chain before ours translates, and their port then.
const EARLY: (&str, u16) = ("10.9.9.9", 61_999);

/// The other tools: marks, a helper, a NAT chain before ours, a published port, Docker's masquerade, and accounting.
const OTHERS: &str = r#"
table inet mangle {
  chain pre { type filter hook prerouting priority mangle; th sport 20000-29999 meta mark set 0x101; }
  chain out { type route hook output priority mangle; th sport 20000-29999 meta mark set 0x101; }
}
table inet helpers {
  chain pre { type filter hook prerouting priority 0; tcp dport 21 ct helper set "ftp"; }
  chain out { type filter hook output priority 0; tcp dport 21 ct helper set "ftp"; }
}
table inet early {
  chain post { type nat hook postrouting priority 50; ip saddr 10.9.9.9 oifname "eth0" meta l4proto { tcp, udp } masquerade to :61999; }
}
table ip nat {
  chain PREROUTING { type nat hook prerouting priority dstnat; iifname "eth0" tcp dport 8080 dnat to 192.0.2.2:80; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 192.0.2.0/24 oifname "eth0" rt ipsec missing masquerade; }
}
table inet account {
  chain post { type filter hook postrouting priority 400; counter; }
}
"#;

impl Site {
    fn new() -> Self {
        let [client, machine, router, server] =
            ["client", "machine", "router", "server"].map(|name| Host::new(name).unwrap());
        router.forward().unwrap();
        client.link("eth0", &router, "wg0").unwrap();
        router.link("eth0", &server, "eth0").unwrap();
        machine.link("eth0", &router, "p0").unwrap();
        router.link("p1", &server, "eth1").unwrap();
        router.link("wg-home", &server, "eth2").unwrap();
        ok(&router, "ip link add eth1 type bridge");
        for line in
            ["ip link set p0 master eth1", "ip link set p1 master eth1", "ip link set eth1 up"]
        {
            ok(&router, line);
        }
        let has_vrf = is_able(&router, "ip link add vrf0 type vrf table 10");
        if has_vrf {
            ok(&router, "ip link set vrf0 up");
            ok(&router, "ip link set wg-home master vrf0");
        }
        for (host, link, addresses) in [
            (&client, "eth0", ["192.0.2.2/24", "2001:db8::2/64"]),
            (&router, "wg0", ["192.0.2.254/24", "2001:db8::fe/64"]),
            (&router, "eth0", ["203.0.113.1/24", "2001:db8:0:1::1/64"]),
            (&server, "eth0", ["203.0.113.9/24", "2001:db8:0:1::9/64"]),
            (&machine, "eth0", ["198.18.0.2/24", "2001:db8:18::2/64"]),
            (&router, "eth1", ["198.18.0.1/24", "2001:db8:18::1/64"]),
            (&server, "eth1", ["198.18.0.9/24", "2001:db8:18::9/64"]),
            (&server, "eth2", ["198.19.0.9/24", "2001:db8:19::9/64"]),
        ] {
            for address in addresses {
                host.address(link, address).unwrap();
            }
        }
        // In a VRF, the local route to an address is in the VRF's table, where the lab does not look for it.
        for address in ["198.19.0.1/24", "2001:db8:19::1/64"] {
            ok(&router, &format!("ip address add {address} dev wg-home"));
        }
        for (host, v4, v6) in [
            (&client, "192.0.2.254", "2001:db8::fe"),
            (&router, "203.0.113.9", "2001:db8:0:1::9"),
            (&machine, "198.18.0.9", "2001:db8:18::9"),
        ] {
            host.route("default", v4).unwrap();
            host.route("default", v6).unwrap();
        }
        // Beyond the bridge, from the router and the client.
        ok(&router, "ip route add 198.18.128.0/17 via 198.18.0.9");
        ok(&router, "ip route add 2001:db8:1818::/48 via 2001:db8:18::9");
        if has_vrf {
            ok(&router, "ip route add default via 198.19.0.9 table 10");
            ok(&router, "ip -6 route add default via 2001:db8:19::9 table 10");
        }
        for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            router.sysctl(&format!("net/bridge/{name}"), "1").unwrap();
        }
        let has_ipsec = protect(&router, &server);
        let sees_vrf = has_vrf;
        let mut site = Self { client, machine, router, server, has_vrf, sees_vrf, has_ipsec };
        site.await_neighbours();
        site.sees_vrf = has_vrf && site.counts_vrf();
        nft_load(&site.router, HELPER);
        nft_load(&site.router, OTHERS);
        site
    }

    /// Waits until packets arrive on every way: the link addresses are known then.
    fn await_neighbours(&self) {
        let on_each = |round: u16| {
            WAYS.into_iter().zip(1000 * round..).map(|(way, port)| Drawn::udp(way, port))
        };
        for round in 1..60 {
            let drawn: Vec<_> = on_each(round).filter(|drawn| self.has(drawn.way)).collect();
            if send(self, &drawn, u16::MAX).iter().all(Option::is_some) {
                return;
            }
        }
        panic!("no packet arrives on some way");
    }

    /// Whether a rule on local sources counts what an IPv4 socket in the VRF sends. A kernel where it does not is
    /// reported: to rules, that socket is another host's.
    fn counts_vrf(&self) -> bool {
        let probe = "table inet probe {\n counter seen { }\n chain post {\n \
                       type filter hook postrouting priority 0;\n \
                       oifname \"wg-home\" ip saddr 198.19.0.1 fib saddr type local counter name seen\n }\n}\n";
        nft_load(&self.router, probe);
        let vrf = WAYS.into_iter().find(|way| way.from == From::Vrf).unwrap();
        assert!(send(self, &[Drawn::udp(vrf, 999)], u16::MAX)[0].is_some(), "the packet arrives");
        let counted = ok(&self.router, "nft list counter inet probe seen");
        ok(&self.router, "nft delete table inet probe");
        let is_seen = !counted.contains("packets 0 ");
        if !is_seen {
            // The test harness does not capture this.
            let skipped =
                "skipped: IPv4 sockets in a VRF, whose address is not local to nft's fib here";
            let _ = writeln!(std::io::stderr(), "{skipped}");
        }
        is_seen
    }

    /// Whether this kernel has the way, and its rules know the sender.
    fn has(&self, way: Way) -> bool {
        let is_ipv4 = !way.source.contains(':');
        let has_vrf = if is_ipv4 { self.sees_vrf } else { self.has_vrf };
        (has_vrf || way.from != From::Vrf) && (self.has_ipsec || !way.words.contains("ipsec"))
    }
}

/// IPsec from one of the client's addresses to a part of the server's networks; false if the kernel has no ESP.
fn protect(router: &Host, server: &Host) -> bool {
    for host in [router, server] {
        let state = "ip xfrm state add src 203.0.113.1 dst 203.0.113.9 proto esp spi 0x1000 mode tunnel auth hmac(sha256) \
                     0x0000000000000000000000000000000000000000000000000000000000000001 enc cbc(aes) \
                     0x00000000000000000000000000000002";
        if !is_able(host, state) {
            return false;
        }
    }
    let selector = "src 192.0.2.200/32 dst 198.51.100.128/25";
    let template = "tmpl src 203.0.113.1 dst 203.0.113.9 proto esp mode tunnel";
    ok(router, &format!("ip xfrm policy add {selector} dir out {template}"));
    ok(server, &format!("ip xfrm policy add {selector} dir in {template} level use"));
    true
}

/// A way on which a connection is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    from: From,
    source: &'static str,
    destination: &'static str,
    /// The words of the flow after its ends.
    words: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Client,
    Machine,
    Router,
    Vrf,
}

const fn way(
    from: From,
    source: &'static str,
    destination: &'static str,
    words: &'static str,
) -> Way {
    Way { from, source, destination, words }
}

const WAYS: [Way; 27] = [
    way(From::Client, "192.0.2.1", "203.0.113.9", "oif eth0 iif wg0"),
    way(From::Client, "192.0.2.2", "198.51.100.9", "oif eth0 iif wg0"),
    way(From::Client, "192.0.2.200", "198.51.100.9", "oif eth0 iif wg0"),
    way(From::Client, "192.0.2.200", "198.51.100.200", "oif eth0 iif wg0 ipsec"),
    way(From::Client, "10.9.9.9", "198.51.100.9", "oif eth0 iif wg0"),
    way(From::Client, "2001:db8::1", "2001:db8:0:1::9", "oif eth0 iif wg0"),
    way(From::Client, "2001:db8::2", "2001:db8:1:1::9", "oif eth0 iif wg0"),
    way(From::Client, "fd00::7", "2001:db8:1:1::9", "oif eth0 iif wg0"),
    way(From::Client, "192.0.2.2", "198.18.128.9", "oif eth1 iif wg0"),
    way(From::Client, "2001:db8::2", "2001:db8:1818::9", "oif eth1 iif wg0"),
    way(From::Machine, "198.18.0.2", "198.51.100.9", "oif eth1 bridged"),
    way(From::Machine, "192.0.2.1", "203.0.113.9", "oif eth1 bridged"),
    way(From::Machine, "192.0.2.2", "198.51.100.200", "oif eth1 bridged"),
    way(From::Machine, "2001:db8::2", "2001:db8:1:1::9", "oif eth1 bridged"),
    way(From::Router, "203.0.113.1", "203.0.113.9", "oif eth0"),
    way(From::Router, "203.0.113.1", "198.51.100.9", "oif eth0"),
    way(From::Router, "192.0.2.254", "198.51.100.200", "oif eth0 other-source"),
    way(From::Router, "198.18.0.1", "198.51.100.9", "oif eth0 other-source"),
    way(From::Router, "2001:db8:0:1::1", "2001:db8:1:1::9", "oif eth0"),
    way(From::Router, "2001:db8::fe", "2001:db8:0:1::9", "oif eth0 other-source"),
    way(From::Router, "198.18.0.1", "198.18.128.9", "oif eth1"),
    way(From::Router, "203.0.113.1", "198.18.128.9", "oif eth1 other-source"),
    way(From::Router, "203.0.113.1", "203.0.113.255", "oif eth0 broadcast"),
    way(From::Router, "2001:db8:18::1", "2001:db8:1818::9", "oif eth1"),
    way(From::Vrf, "198.19.0.1", "203.0.113.9", "oif wg-home"),
    way(From::Vrf, "198.19.0.1", "198.51.100.9", "oif wg-home"),
    // What a socket in a VRF sends over IPv6 has the VRF as its input interface in postrouting.
    way(From::Vrf, "2001:db8:19::1", "2001:db8:1:1::9", "oif wg-home iif vrf0"),
];

/// The router's address that masquerade gives, by output interface and family.
fn router_address(way: &Way, family_of: IpAddr) -> IpAddr {
    let (v4, v6) = match way.words.split(' ').nth(1) {
        Some("eth0") => ("203.0.113.1", "2001:db8:0:1::1"),
        Some("eth1") => ("198.18.0.1", "2001:db8:18::1"),
        _ => ("198.19.0.1", "2001:db8:19::1"),
    };
    of_family(family_of, v4.parse().unwrap(), v6.parse().unwrap())
}

/// A connection to open.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    way: Way,
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    flags: u8,
}

fn connections() -> impl Strategy<Value = Drawn> {
    let kind =
        prop::sample::select(vec![(UDP, 0), (UDP, 0), (TCP, 0x02), (TCP, 0x02), (TCP, 0x10)]);
    let source = prop_oneof![2 => ports().prop_map(Port::get), 1 => 20_000..30_000u16, 1 => 49_000..65_000u16];
    (prop::sample::select(WAYS.to_vec()), source, ports(), kind).prop_map(
        |(way, sport, dport, (protocol, flags))| Drawn {
            way,
            source: SocketAddr::new(way.source.parse().unwrap(), sport),
            destination: SocketAddr::new(way.destination.parse().unwrap(), dport.get()),
            protocol,
            flags,
        },
    )
}

impl Drawn {
    fn udp(way: Way, port: u16) -> Self {
        let source = SocketAddr::new(way.source.parse().unwrap(), port);
        let destination = SocketAddr::new(way.destination.parse().unwrap(), 53);
        Self { way, source, destination, protocol: UDP, flags: 0 }
    }

    fn flow(&self) -> String {
        let Self { way, source, destination, protocol, flags } = self;
        let protocol = if *protocol == TCP { "tcp" } else { "udp" };
        let mid_stream = if *flags == 0x10 { " mid-stream" } else { "" };
        // Bridged frames pass prerouting too.
        let mark = if (20_000..30_000).contains(&source.port()) { " mark 0x101" } else { "" };
        format!("{protocol} {source} -> {destination} {}{mark}{mid_stream}", way.words)
    }

    fn packet(&self, tag: [u16; 2]) -> Raw {
        let tag: Vec<u8> = [MARK, tag[0], tag[1]].into_iter().flat_map(u16::to_be_bytes).collect();
        let transport = match self.protocol {
            TCP => tcp(self.source, self.destination, self.flags, &tag),
            _ => udp(self.source, self.destination, &tag),
        };
        let to = self.destination.ip();
        Raw {
            name: String::new(),
            to,
            bytes: plain(self.source.ip(), to, self.protocol, &transport),
        }
    }
}

/// The first two bytes of the payload of a packet that opens a connection. The round and the number follow.
const MARK: u16 = 0xe907;

/// The number of the connection that a captured packet opens, if it is of this round: one of the round before may
/// be late.
fn number(packet: &Packet, round: u16) -> Option<usize> {
    let header = match packet.protocol {
        TCP => 20,
        UDP => 8,
        _ => return None,
    };
    let words = packet.transport.get(header..header + 6)?.chunks_exact(2);
    let words = words.map(|word| u16::from_be_bytes([word[0], word[1]]));
    match words.collect::<Vec<_>>().as_slice() {
        [MARK, of, number] if *of == round => Some(usize::from(*number)),
        _ => None,
    }
}

const TRANSLATED: &str = "translated, but explained as not translated";

/// Whether a connection gets another port of the router without our table too, which the next document installs
/// anew.
fn by_others(site: &Site, drawn: &Drawn) -> bool {
    for line in ["nft delete table inet ephport", "conntrack -F"] {
        let words: Vec<_> = line.split(' ').collect();
        let _ = tool(&site.router, words[0], &words[1..], "");
    }
    let router = router_address(&drawn.way, drawn.source.ip());
    let seen = send(site, &[*drawn], u16::MAX).pop().flatten();
    seen.is_some_and(|seen| seen.ip() == router && seen.port() != drawn.source.port())
}

/// The disagreement of an explanation with what was seen, if there is one.
fn disagreement(
    explained: &Explanation<'_>,
    drawn: &Drawn,
    seen: Option<SocketAddr>,
) -> Option<&'static str> {
    if !explained.agrees {
        return Some("policies and program disagree");
    }
    if drawn.way.source == EARLY.0 {
        return misjudged_early(explained, drawn, seen);
    }
    let dropped = explained
        .enforcement
        .as_ref()
        .map_or(PortSet::EMPTY, |enforcement| enforcement.dropped.clone());
    let Some(seen) = seen else {
        return dropped.is_empty().then_some("not sent, but explained as permitted");
    };
    let Ok(port) = Port::new(seen.port()) else { return Some("port 0") };
    if dropped.contains(port) {
        return Some("sent, but explained as dropped");
    }
    let router = router_address(&drawn.way, drawn.source.ip());
    let Some(matched) = &explained.evaluation.matched else {
        // Docker's rule may translate the address.
        let is_other =
            drawn.source.is_ipv4() && router.to_string() == "203.0.113.1" && seen.ip() == router;
        let is_same = seen == drawn.source || is_other && seen.port() == drawn.source.port();
        return (!is_same).then_some(TRANSLATED);
    };
    let address = match matched.translation.address {
        Address::Keep => drawn.source.ip(),
        Address::Fixed(fixed) => fixed,
        _ => router,
    };
    if address != seen.ip() {
        return Some("another address");
    }
    match matched.translation.keep {
        Some(own) => (own != port).then_some("the own port is not kept"),
        None => (!matched.translation.ports.contains(port)).then_some("another port"),
    }
}

/// The disagreement for a connection that another tool's chain translates before ours: only enforcement decides.
fn misjudged_early(
    explained: &Explanation<'_>,
    drawn: &Drawn,
    seen: Option<SocketAddr>,
) -> Option<&'static str> {
    let early = SocketAddr::new(router_address(&drawn.way, drawn.source.ip()), EARLY.1);
    let port = Port::new(EARLY.1).ok()?;
    let enforcement = explained.enforcement.as_ref();
    let is_sent = enforcement.is_none_or(|enforcement| enforcement.permitted.contains(port));
    (seen != is_sent.then_some(early)).then_some("not as the chain before ours translates it")
}

/// Sends the connections; the source with which each arrived.
fn send(site: &Site, drawn: &[Drawn], round: u16) -> Vec<Option<SocketAddr>> {
    let mut capture = Capture::start(&site.server);
    let senders = [&site.client, &site.machine, &site.router].map(Sender::new);
    let vrf = Sender::new(&site.router);
    if site.has_vrf {
        vrf.bind_device("vrf0");
    }
    for (number, drawn) in drawn.iter().enumerate() {
        let sender = match drawn.way.from {
            From::Client => &senders[0],
            From::Machine => &senders[1],
            From::Router => &senders[2],
            From::Vrf => &vrf,
        };
        // A drop is EPERM.
        let _ = sender.send(&drawn.packet([round, u16::try_from(number).unwrap()]));
    }
    let mut seen = vec![None; drawn.len()];
    for packet in capture.packets() {
        let (Some(number), Some(port)) = (number(&packet, round), packet.source_port) else {
            continue;
        };
        if let Some(seen) = seen.get_mut(number) {
            *seen = Some(SocketAddr::new(packet.source, port));
        }
    }
    seen
}

/// The policies, some with fewer conditions: few connections meet all conditions of most policies.
fn widened(document: &Document, number: usize) -> Document {
    let widen = |policy: &Policy| {
        let mut spec = policy.spec().clone();
        spec.enforce |= number.is_multiple_of(2);
        if !number.is_multiple_of(4) {
            spec.scope.out_interfaces = OutInterfaces::Any;
            spec.scope.except_interfaces.clear();
            spec.scope.destination_ports = PortRange::ALL.into();
            spec.scope.families = Families::Both;
            spec.source_ports = PortRange::EPHEMERAL.into();
        }
        if number % 4 > 1 {
            spec.scope.sources.clear();
            spec.scope.destinations.clear();
            spec.scope.mark = None;
        }
        if number % 4 > 2 {
            spec.scope.in_interfaces.clear();
            spec.scope.origin = Origin::Both;
        }
        Policy::new(spec).unwrap_or_else(|_| policy.clone())
    };
    Document::new(document.policies().iter().map(widen).collect()).unwrap()
}

/// Applies a document; the plan that explains it.
fn applied(site: &Site, document: &Document) -> Plan {
    let plan = Plan::new(document.policies(), &site.router.run(host::facts).unwrap()).unwrap();
    apply(&site.router, &plan.table);
    plan
}

#[test]
fn explanations_of_random_connections_agree_with_the_wire() {
    let site = Site::new();
    let facts = site.router.run(host::facts).unwrap();
    let mut client = site.router.run(Client::open).unwrap();
    let others: Vec<_> = client.interferences(&facts).unwrap();
    let others: Vec<_> = others.iter().map(|other| (other.name(), other.table.as_str())).collect();
    assert_eq!(others, [("earlier-nat", "early")]);
    let mut faults: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut count, mut translated, mut dropped) = (0, 0, 0);
    let all = samples(&connections(), DOCUMENTS * FLOWS);
    let documents = samples(&wide_documents(), DOCUMENTS);
    for (number, (document, drawn)) in documents.iter().zip(all.chunks(FLOWS)).enumerate() {
        // Policies that are remapped may exclude each other when widened.
        let widened = widened(document, number);
        let is_possible = Plan::new(widened.policies(), &facts).is_ok();
        let document = if is_possible { &widened } else { document };
        let plan = applied(&site, document);
        // A permitted port is free at a destination that no other connection has.
        let mut destinations = HashSet::new();
        let is_sent = |drawn: &&Drawn| {
            site.has(drawn.way) && destinations.insert((drawn.destination, drawn.protocol))
        };
        let drawn: Vec<_> = drawn.iter().filter(is_sent).copied().collect();
        assert!(tool(&site.router, "conntrack", &["-F"], "").success);
        let round = u16::try_from(number).unwrap();
        for (drawn, seen) in drawn.iter().zip(send(&site, &drawn, round)) {
            let flow = drawn.flow();
            let explained = plan.explain(&flow.parse().unwrap()).unwrap();
            count += 1;
            translated += u32::from(explained.evaluation.matched.is_some());
            dropped += u32::from(seen.is_none());
            let fault = disagreement(&explained, drawn, seen);
            // Docker's masquerade keeps the port only if the kernel finds it free.
            let fault = fault.filter(|fault| *fault != TRANSLATED || !by_others(&site, drawn));
            if let Some(fault) = fault {
                let known = tool(&site.router, "conntrack", &["-L"], "").out;
                let port = format!("sport={} ", drawn.source.port());
                let known: Vec<_> = known.lines().filter(|line| line.contains(&port)).collect();
                let text = format!(
                    "{flow}: seen {seen:?}\n{:?}\n{}\n{}",
                    explained.enforcement,
                    document.to_toml(),
                    known.join("\n")
                );
                faults.entry(fault).or_default().push(text);
            }
        }
    }
    let some: Vec<_> =
        faults.iter().map(|(fault, all)| (fault, all.len(), &all[..all.len().min(2)])).collect();
    assert!(faults.is_empty(), "{count} connections: {some:#?}");
    assert!(count > 2000 && translated > 500 && dropped > 50, "{count} {translated} {dropped}");
}

#[test]
fn explanations_of_expected_connections_agree_with_the_wire() {
    let site = Site::new();
    let server = SocketAddr::new("203.0.113.9".parse().unwrap(), 21);
    let _control = Server::start(&site.server, 21).unwrap();
    let _data = Server::start(&site.server, 35_001).unwrap();
    let timeout = Duration::from_millis(300);
    for flags in ["", "enforce = true", "enforce = true\nexpected-connections = \"drop\""] {
        let policy = "[[policy]]\nname = \"p\"\nout-interfaces = [\"eth0\"]\nto-ports = \"49152-61000\"\n\
                      address = \"masquerade\"\n";
        let plan = applied(&site, &format!("{policy}{flags}\n").parse().unwrap());
        let control =
            site.client.run(|| connect_within(timeout, Protocol::Tcp, 0, server)).unwrap();
        control.exchange(b"\r\n").unwrap();
        for port in [40_000, 50_000, 500] {
            // The server echoes this, which makes it an answer (RFC 959).
            control.exchange(b"227 Entering Passive Mode (203,0,113,9,136,185)\r\n").unwrap();
            let source = SocketAddr::new("192.0.2.2".parse().unwrap(), port);
            let data = SocketAddr::new(server.ip(), 35_001);
            let result = site.client.run(|| connect_within(timeout, Protocol::Tcp, source, data));
            let flow = format!("tcp {source} -> {data} oif eth0 iif wg0 expected");
            let explained = plan.explain(&flow.parse().unwrap()).unwrap();
            assert!(explained.evaluation.matched.is_none() && explained.agrees);
            let is_dropped = explained.enforcement.is_some_and(|enforcement| enforcement.drops_all);
            match result {
                Ok(connection) => {
                    assert!(!is_dropped && connection.seen.port() == port, "{}", connection.seen);
                }
                Err(error) => assert!(is_dropped, "{port} {flags}: {error}"),
            }
        }
    }
}
