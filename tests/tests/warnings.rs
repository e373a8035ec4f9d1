//! What `apply` warns of and what `status` reports, each with its cause on a host.

use std::net::SocketAddr;

use ephport_cli::Exit;
use ephport_tests::tool::{is_able, nft_load, ok, tool};
use ephport_tests::{
    Host, Protocol, Routed, SERVER_V4, Server, ephport, ephport_ok, host_with_uplink, seen,
};
use serde_json::Value;

const LINE: &str = "--to-ports 49152-61000";

/// The kinds of the warnings of a command, which are the same in its document, on standard error as JSON and
/// on standard error as text.
fn warnings(host: &Host, line: &str) -> Vec<String> {
    let ended = ephport(host, &format!("{line} --json"));
    assert_eq!(ended.exit, Exit::Success, "{line}: {}", ended.err);
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    let kind = |warning: &Value| warning["kind"].as_str().unwrap().to_string();
    let kinds: Vec<_> = document["warnings"].as_array().unwrap().iter().map(kind).collect();
    let lines: Vec<Value> =
        ended.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(kind).collect::<Vec<_>>(), kinds, "{}", ended.err);
    let text = ephport(host, line);
    assert_eq!(text.err.lines().filter(|line| line.starts_with("warning: ")).count(), kinds.len());
    assert_eq!(text.err.lines().count(), kinds.len(), "{}", text.err);
    kinds
}

/// The one warning of `apply` with these flags, as text.
fn warning(host: &Host, flags: &str) -> String {
    let ended = ephport(host, &format!("apply {flags}"));
    assert_eq!(ended.exit, Exit::Success, "{flags}: {}", ended.err);
    let lines: Vec<_> = ended.err.lines().collect();
    let [line] = lines.as_slice() else { panic!("{flags}: {lines:#?}") };
    line.strip_prefix("warning: ").expect("a warning").to_string()
}

/// A router with `wan0` and a `lan0`, and nothing to warn of.
fn router() -> Routed {
    let net = Routed::new().unwrap();
    assert_eq!(warnings(&net.router, &format!("apply {LINE} --enforce")), [""; 0]);
    net
}

#[test]
fn b4_networks_with_own_routes_are_warned_of() {
    let net = router();
    for line in [
        "ip route add 10.2.0.0/16 via 203.0.113.9",
        "ip route add 10.3.0.0/16 dev wan0",
        "ip -6 route add fd00:2::/32 via 2001:db8:2::9",
    ] {
        ok(&net.router, line);
    }
    assert_eq!(
        warning(&net.router, LINE),
        "policy default: connections from other hosts to 10.2.0.0/16, 10.3.0.0/16, fd00:2::/32 (own route \
         by wan0) get an address of this host: except-destinations excludes networks that know the way back"
    );
    let except = "--except-destination 10.0.0.0/8,fd00::/8";
    for flags in [
        &format!("{LINE} {except}"),
        &format!("{LINE} --origin local"),
        &format!("{LINE} -d 198.51.100.0/24"),
        &format!("{LINE} -s 198.51.100.0/24"),
        &format!("{LINE} -o lan0"),
    ] {
        assert_eq!(warnings(&net.router, &format!("apply {flags}")), [""; 0], "{flags}");
    }
    // Every source gets another address with `masquerade`.
    let flags = format!("apply {LINE} -s 198.51.100.0/24 --address masquerade");
    assert_eq!(warnings(&net.router, &flags), ["routed-networks"]);
    net.router.sysctl("net/ipv4/ip_forward", "0").unwrap();
    net.router.sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();
    assert_eq!(warnings(&net.router, &format!("apply {LINE}")), [""; 0], "it forwards nothing");
}

#[test]
fn b4_routes_of_nexthops_and_tables_are_own_routes() {
    let net = router();
    ok(&net.router, "ip nexthop add id 7 via 203.0.113.9 dev wan0");
    ok(&net.router, "ip route add 10.2.0.0/16 nhid 7");
    ok(&net.router, "ip route add 10.3.0.0/16 via 203.0.113.9 table 100");
    net.router.sysctl("net/ipv4/nexthop_compat_mode", "0").unwrap();
    let text = warning(&net.router, LINE);
    assert!(text.contains("to 10.2.0.0/16, 10.3.0.0/16 (own route by wan0)"), "{text}");
}

#[test]
fn b4_routes_of_configuration_are_no_own_routes() {
    let net = router();
    for line in [
        "ip route add 10.9.0.2/32 via 203.0.113.9 proto dhcp",
        "ip route add 169.254.169.254/32 via 203.0.113.9",
        "ip route add 198.51.100.0/24 via 203.0.113.9",
        "ip route add 10.4.0.0/16 via 10.77.1.2",
        "ip route add blackhole 10.5.0.0/16",
        "ip address add 10.6.0.1/16 dev wan0",
    ] {
        ok(&net.router, line);
    }
    assert_eq!(warnings(&net.router, &format!("apply {LINE}")), [""; 0]);
}

#[test]
fn b7_kept_private_sources_are_warned_of() {
    let net = router();
    let keep = format!("{LINE} --address keep");
    assert_eq!(
        warning(&net.router, &keep),
        "policy default: address = \"keep\" applies to private sources of other hosts too, and replies to \
         these do not arrive from outside: use auto or masquerade, or origin = \"local\""
    );
    for more in ["--origin local", "-s 198.51.100.0/24", "-d 10.0.0.0/8", "--ipv6 -s 2001:db8::/32"]
    {
        assert_eq!(warnings(&net.router, &format!("apply {keep} {more}")), [""; 0], "{more}");
    }
    for more in ["-s 192.168.1.0/24", "-s 0.0.0.0/1", "--ipv6 -s fd00::/8", "-s 100.64.0.0/10"] {
        assert_eq!(warnings(&net.router, &format!("apply {keep} {more}")), ["private-sources"]);
    }
}

#[test]
fn b2_filtered_bridge_with_enforcement_is_warned_of() {
    let host = Host::new("host").unwrap();
    ok(&host, "ip link add br0 type bridge");
    ok(&host, "ip link set br0 up");
    ok(&host, "ip address add 192.0.2.2/24 dev br0");
    ok(&host, "ip route add default dev br0");
    let enforced = format!("apply {LINE} --enforce");
    host.sysctl("net/bridge/bridge-nf-call-iptables", "0").unwrap();
    host.sysctl("net/bridge/bridge-nf-call-ip6tables", "0").unwrap();
    assert_eq!(warnings(&host, &enforced), [""; 0]);
    host.sysctl("net/bridge/bridge-nf-call-ip6tables", "1").unwrap();
    assert_eq!(warnings(&host, &enforced), ["filtered-bridge"]);
    assert_eq!(warnings(&host, &format!("apply {LINE}")), [""; 0]);
    assert_eq!(warnings(&host, &format!("{enforced} --except-interface lo,br0 -o any")), [""; 0]);
    host.sysctl("net/bridge/bridge-nf-call-ip6tables", "0").unwrap();
    ok(&host, "ip link set br0 type bridge nf_call_iptables 1");
    assert_eq!(
        warning(&host, &format!("{LINE} --enforce")),
        "policy default: the frames of bridge br0 pass netfilter (bridge-nf-call-iptables): a frame that \
         another tool's NAT translates to a port that is not permitted is dropped"
    );
}

#[test]
fn b13_addresses_that_no_interface_has_are_warned_of() {
    let net = router();
    let absent = format!("{LINE} --address 203.0.113.77");
    assert_eq!(
        warning(&net.router, &absent),
        "policy default: no interface of this host has the address 203.0.113.77: replies arrive only if \
         other hosts route it to this one"
    );
    let status = ephport(&net.router, "status");
    assert_eq!(status.exit, Exit::Success);
    assert!(status.err.contains("no interface of this host has the address"), "{}", status.err);
    for (line, undo) in [
        ("ip address add 203.0.113.77/24 dev wan0", "ip address del 203.0.113.77/24 dev wan0"),
        ("ip route add local 203.0.113.64/27 dev lo", "ip route del local 203.0.113.64/27 dev lo"),
    ] {
        ok(&net.router, line);
        assert_eq!(warnings(&net.router, &format!("apply {absent}")), [""; 0], "{line}");
        assert_eq!(ephport(&net.router, "status").err, "");
        ok(&net.router, undo);
        // An address that is lost later.
        let status = ephport(&net.router, "status");
        assert!(status.err.contains("has the address 203.0.113.77"), "{}", status.err);
    }
    let blocks = "apply --blocks 10.0.0.0/30=64@203.0.113.78:1024-65535";
    assert_eq!(warnings(&net.router, blocks), ["no-address"]);
    let blocks = "apply --blocks 10.0.0.0/30=64@203.0.113.1:1024-65535";
    assert_eq!(warnings(&net.router, blocks), [""; 0]);
}

#[test]
fn b16_servers_that_send_first_are_warned_of() {
    let (host, _peer) = host_with_uplink();
    assert_eq!(warnings(&host, &format!("apply {LINE}")), [""; 0]);
    let socket = host.run(|| std::net::UdpSocket::bind("0.0.0.0:4500")).unwrap();
    assert_eq!(
        warning(&host, LINE),
        "policy default: IPsec NAT traversal of this host uses UDP port 4500, which is translated when \
         this host sends first: exempt-source-ports = \"4500\" keeps it"
    );
    for flags in [
        "--to-ports 49152-61000 --exempt-sport 4500",
        "--to-ports 49152-61000 --origin forwarded",
        "--to-ports 49152-61000 -p tcp",
        "--to-ports 4000-5000",
        "--to-ports 49152-61000 --sport 32768-61000",
    ] {
        assert_eq!(warnings(&host, &format!("apply {flags}")), [""; 0], "{flags}");
    }
    assert_eq!(warnings(&host, "apply --to-ports 4000-5000 --random"), ["server-port"]);
    drop(socket);
    let _wireguard = host.run(|| std::net::UdpSocket::bind("[::]:51820")).unwrap();
    assert_eq!(warnings(&host, &format!("apply {LINE}")), [""; 0], "it is permitted");
    assert_eq!(warnings(&host, "apply --to-ports 1024-9999"), ["server-port"]);
    // IKE's first port is privileged.
    let _ike = host.run(|| std::net::UdpSocket::bind("0.0.0.0:500")).unwrap();
    assert_eq!(warnings(&host, &format!("apply {LINE}")), [""; 0]);
    assert_eq!(warnings(&host, &format!("apply {LINE} --sport 1-65535")), ["server-port"]);
}

#[test]
fn services_on_remapped_ports_are_excluded() {
    let (host, _peer) = host_with_uplink();
    let apply = "apply --to-ports 2000-2009,3000-3009 --spread remap --address masquerade";
    assert_eq!(warnings(&host, apply), [""; 0]);
    let _service = host.run(|| std::net::TcpListener::bind("0.0.0.0:2000")).unwrap();
    let _local = host.run(|| std::net::TcpListener::bind("127.0.0.1:2001")).unwrap();
    assert_eq!(warnings(&host, apply), ["remap-excludes"]);
    assert_eq!(
        ephport(&host, apply).err,
        "warning: policy default: spread = remap excludes ports 2000: packets to services on \
         them would be rewritten\n"
    );
    assert_eq!(warnings(&host, &format!("{apply} --except-ports 2000")), [""; 0]);
}

#[test]
fn tables_that_forward_unseen_ports_are_named() {
    let (host, _peer) = host_with_uplink();
    let apply = "apply --to-ports 2000-2009,3000-3009 --spread remap --address masquerade";
    let chain = "add table ip o; add chain ip o c { type nat hook prerouting priority -100; }; add chain ip o d;";
    for (rules, expected) in [
        ("add rule ip o c tcp dport 80 dnat to 10.0.0.2; add rule ip o c accept", ""),
        // The addresses of others are not this host's.
        ("add rule ip o c ip daddr 10.96.0.0/12 dnat to 10.0.0.2", ""),
        ("add rule ip o c dnat to 10.0.0.2", "unseen-forwards"),
        (
            "add rule ip o c tcp dport 80 jump d; add rule ip o d dnat to 10.0.0.2",
            "unseen-forwards",
        ),
        ("add rule ip o c tcp dport != 80 dnat to 10.0.0.2", "unseen-forwards"),
        ("add rule ip o c tcp dport 2000-2005 redirect to :80", "remap-excludes"),
    ] {
        nft_load(&host, &format!("{chain} {rules}"));
        let found = warnings(&host, apply);
        assert_eq!(found.join(" "), expected, "{rules}");
        nft_load(&host, "delete table ip o");
    }
}

/// The tables of other tools, each with the warning of `apply` and the reason of `status`.
const OTHERS: [(&str, &[&str]); 7] = [
    (
        "table ip o { chain c { type nat hook postrouting priority 50; masquerade; }; }",
        &["earlier-nat"],
    ),
    (
        "table inet o { chain c { type filter hook prerouting priority raw; udp dport 9 notrack; }; }",
        &["notrack"],
    ),
    (
        "table ip6 o { chain d { notrack; }; chain c { type filter hook output priority raw; jump d; }; }",
        &["notrack"],
    ),
    (
        "table ip o { chain c { type filter hook postrouting priority 300; udp sport set 9; }; }",
        &["later-ports"],
    ),
    (
        "table inet o { chain d { tcp sport set 9; }; \
         chain c { type filter hook postrouting priority 150; jump d; }; }",
        &["later-ports"],
    ),
    ("table ip o { chain c { type filter hook input priority 300; udp sport set 9; }; }", &[]),
    (
        "table ip o { chain c { type filter hook postrouting priority 300; udp dport set 9; }; }",
        &[],
    ),
];

#[test]
fn rules_of_other_tables_that_win_are_reported() {
    for (table, kinds) in OTHERS {
        let (host, _peer) = host_with_uplink();
        nft_load(&host, table);
        assert_eq!(warnings(&host, &format!("apply {LINE}")), kinds, "{table}");
        assert_eq!(reasons(&host, "void"), kinds, "{table}");
        let status = ephport(&host, "status");
        let (exit, word) = match kinds {
            [] => (Exit::Success, "intact: "),
            _ => (Exit::Differs, "void: "),
        };
        assert_eq!(status.exit, exit, "{table}");
        assert!(status.out.starts_with(word), "{}", status.out);
    }
}

#[test]
fn egress_chains_that_write_ports_are_reported() {
    let (host, _peer) = host_with_uplink();
    nft_load(
        &host,
        "table netdev o { chain c { type filter hook egress device eth0 priority 0; udp sport set 9; }; }",
    );
    assert_eq!(warnings(&host, &format!("apply {LINE}")), ["later-ports"]);
}

#[test]
fn notrack_of_iptables_is_reported() {
    let (host, _peer) = host_with_uplink();
    ok(&host, "iptables-nft -t raw -A OUTPUT -p udp --dport 53 -j CT --zone 7");
    assert_eq!(warnings(&host, &format!("apply {LINE}")), [""; 0]);
    ok(&host, "iptables-nft -t raw -A OUTPUT -p udp --dport 53 -j CT --notrack");
    assert_eq!(warnings(&host, &format!("apply {LINE}")), ["notrack"]);
}

/// Adds an interface that is down: a dummy, or if the kernel has none an Ethernet interface.
fn add_down(host: &Host, name: &str) {
    let words = ["link", "add", name, "type"];
    if !tool(host, "ip", &[&words[..], &["dummy"]].concat(), "").success {
        ok(host, &format!("ip link add {name} type veth peer name peer9"));
    }
}

/// The rules of a node's DNS cache (NodeLocal DNS of Kubernetes): its packets to and from this host's own servers.
#[test]
fn notrack_of_servers_of_this_host_is_not_reported() {
    let (host, _peer) = host_with_uplink();
    add_down(&host, "nodelocaldns");
    for line in [
        "ip address add 169.254.20.10/32 dev nodelocaldns",
        "ip address add 10.96.0.10/32 dev nodelocaldns",
    ] {
        ok(&host, line);
    }
    let bind = |address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        host.run(|| (std::net::UdpSocket::bind(address), std::net::TcpListener::bind(address)))
    };
    let _servers = ["169.254.20.10:53", "10.96.0.10:53", "169.254.20.10:8080"].map(bind);
    ephport_ok(&host, &format!("apply {LINE}"));
    for address in ["169.254.20.10", "10.96.0.10"] {
        for protocol in ["udp", "tcp"] {
            for rule in [
                format!("PREROUTING -p {protocol} -d {address} --dport 53"),
                format!("OUTPUT -p {protocol} -s {address} --sport 53"),
                format!("OUTPUT -p {protocol} -d {address} --dport 53"),
                format!("OUTPUT -p {protocol} -s {address}/32 --sport 8080"),
            ] {
                ok(&host, &format!("iptables-nft -t raw -A {rule} -j CT --notrack"));
            }
        }
    }
    nft_load(
        &host,
        "table inet cache { chain c { type filter hook output priority raw;\n\
         ip saddr 10.96.0.10 udp sport 53 notrack\n tcp sport 8080 ip saddr 169.254.20.10 counter notrack\n\
         ip daddr 10.96.0.0/28 ip daddr & 255.255.255.255 == 10.96.0.10 notrack; }; }",
    );
    assert_eq!(reasons(&host, "void"), [""; 0]);
    assert_eq!(warnings(&host, &format!("apply {LINE}")), [""; 0]);
    for rule in [
        "ip saddr 10.96.0.10",
        "ip saddr 10.96.0.10 udp dport 53",
        "ip saddr 10.96.0.10 udp sport 5353",
        "ip saddr != 10.96.0.10 udp sport 53",
        "ip saddr 10.96.0.0/16 udp sport 53",
        "ip daddr 198.51.100.7",
        "udp sport 53",
        "ip saddr { 10.96.0.10, 192.0.2.9 } udp sport 53",
    ] {
        nft_load(
            &host,
            &format!(
                "table inet other {{ chain c {{ type filter hook output priority raw; {rule} notrack; }}; }}"
            ),
        );
        assert_eq!(reasons(&host, "void"), ["notrack"], "{rule}");
        ok(&host, "nft delete table inet other");
    }
}

/// The kinds of the reasons under a key of `status --json`.
fn reasons(host: &Host, key: &str) -> Vec<String> {
    let status: Value = serde_json::from_str(&ephport(host, "status --json").out).unwrap();
    let reasons = status[key].as_array().unwrap().iter();
    reasons.map(|reason| reason["kind"].as_str().unwrap().to_string()).collect()
}

/// `status` reports this reason under this key until `undo`.
fn reports(host: &Host, deeds: &[&str], undo: &[&str], key: &str, kind: &str) {
    let state = |expected: &str| {
        let status = ephport(host, "status");
        assert!(status.out.starts_with(&format!("{expected}: ")), "{deeds:?}: {}", status.out);
        status.exit
    };
    assert_eq!(state("intact"), Exit::Success);
    for line in deeds {
        ok(host, line);
    }
    assert_eq!(reasons(host, key), [kind], "{deeds:?}");
    assert_eq!(state(key), Exit::Differs);
    for line in undo {
        ok(host, line);
    }
    assert_eq!(state("intact"), Exit::Success);
}

#[test]
fn a7_status_reports_other_uplinks() {
    let (host, peer) = host_with_uplink();
    host.link("eth1", &peer, "eth1").unwrap();
    host.address("eth1", "198.51.100.2/24").unwrap();
    ephport_ok(&host, &format!("apply {LINE} --address masquerade"));
    let second = ["ip route add default via 198.51.100.1 metric 9"];
    let no_second = ["ip route del default via 198.51.100.1 metric 9"];
    reports(&host, &second, &no_second, "outdated", "uplinks-changed");
    let renamed = [
        "ip link set eth0 down",
        "ip link set eth0 name wan9",
        "ip link set wan9 up",
        "ip route add default via 192.0.2.1",
    ];
    let back = [
        "ip link set wan9 down",
        "ip link set wan9 name eth0",
        "ip link set eth0 up",
        "ip route add default via 192.0.2.1",
    ];
    reports(&host, &renamed, &back, "outdated", "uplinks-changed");
    let other_table = ["ip route add default via 198.51.100.1 table 51820"];
    let no_other_table = ["ip route del default table 51820"];
    reports(&host, &other_table, &no_other_table, "outdated", "uplinks-changed");
    let gone = ["ip route del default"];
    let again = ["ip route add default via 192.0.2.1"];
    reports(&host, &gone, &again, "void", "no-uplink");
    // Interfaces that are named do not change with the routes.
    ephport_ok(&host, &format!("apply {LINE} --address masquerade -o eth0"));
    ok(&host, second[0]);
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
}

#[test]
fn a7_status_reports_other_local_ports() {
    let (host, _peer) = host_with_uplink();
    host.sysctl("net/ipv4/ip_local_port_range", "32768 60999").unwrap();
    ephport_ok(&host, "apply --to-ports local --except-ports 40000 --address masquerade");
    let state = || (ephport(&host, "status").exit, reasons(&host, "outdated"));
    assert_eq!(state(), (Exit::Success, Vec::new()));
    host.sysctl("net/ipv4/ip_local_port_range", "30000 60999").unwrap();
    assert_eq!(state(), (Exit::Differs, vec!["local-ports-changed".into()]));
    host.sysctl("net/ipv4/ip_local_port_range", "32768 60999").unwrap();
    host.sysctl("net/ipv4/ip_local_reserved_ports", "50000-50009").unwrap();
    assert_eq!(state(), (Exit::Differs, vec!["local-ports-changed".into()]));
    ephport_ok(&host, "apply --to-ports local --except-ports 40000 --address masquerade");
    assert_eq!(state(), (Exit::Success, Vec::new()));
    host.sysctl("net/ipv4/ip_local_reserved_ports", "").unwrap();
    ephport_ok(&host, &format!("apply {LINE}"));
    host.sysctl("net/ipv4/ip_local_port_range", "30000 60999").unwrap();
    assert_eq!(state(), (Exit::Success, Vec::new()), "the policy names its ports");
}

#[test]
fn a7_status_reports_other_kept_addresses() {
    let (host, _peer) = host_with_uplink();
    ephport_ok(&host, &format!("apply {LINE}"));
    let add = ["ip address add 198.51.100.1/32 dev lo"];
    let remove = ["ip address del 198.51.100.1/32 dev lo"];
    reports(&host, &add, &remove, "outdated", "kept-sources-changed");
    // A second address of the uplink needs no rule.
    ok(&host, "ip address add 192.0.2.77/24 dev eth0");
    assert_eq!(ephport(&host, "status").exit, Exit::Success);
    // Addresses of services come and go on a dummy interface that is down (kube-proxy's mode ipvs).
    add_down(&host, "kube-ipvs0");
    for line in [
        "ip address add 10.96.0.1/32 dev kube-ipvs0",
        "ip address add 198.51.100.8/32 dev kube-ipvs0",
        "ip address add 169.254.20.10/32 dev lo",
    ] {
        ok(&host, line);
        assert_eq!(ephport(&host, "status").exit, Exit::Success, "{line}");
    }
    // Addresses that the policy cannot match.
    let other = "ip address add 198.51.100.9/32 dev lo";
    for flags in ["--source 10.1.0.0/16", "--origin forwarded", "--ipv6"] {
        ephport_ok(&host, &format!("apply {LINE} {flags}"));
        ok(&host, other);
        assert_eq!(ephport(&host, "status").exit, Exit::Success, "{flags}");
        ok(&host, "ip address del 198.51.100.9/32 dev lo");
    }
    ephport_ok(&host, &format!("apply {LINE} --source 198.51.100.0/24"));
    reports(
        &host,
        &[other],
        &["ip address del 198.51.100.9/32 dev lo"],
        "outdated",
        "kept-sources-changed",
    );
}

#[test]
fn b6_summaries_name_the_table_of_an_uplink() {
    let (host, _peer) = host_with_uplink();
    ok(&host, "ip tuntap add dev wg0 mode tun");
    ok(&host, "ip link set wg0 up");
    ok(&host, "ip route add default dev wg0 table 51820");
    let out = ephport_ok(&host, &format!("apply {LINE}"));
    assert!(out.contains("\n  out-interfaces  eth0, wg0 (table 51820)\n"), "{out}");
    let json: Value =
        serde_json::from_str(&ephport_ok(&host, &format!("apply {LINE} --json"))).unwrap();
    let uplinks = json["policies"][0]["uplinks"].as_array().unwrap();
    let tables: Vec<_> =
        uplinks.iter().map(|uplink| (&uplink["interface"], &uplink["table"])).collect();
    assert_eq!(tables, [(&"eth0".into(), &254.into()), (&"wg0".into(), &51820.into())]);
    ok(&host, "ip route del default dev wg0 table 51820");
    ok(&host, "ip route add 0.0.0.0/1 dev wg0");
    ok(&host, "ip route add 128.0.0.0/1 dev wg0");
    let out = ephport_ok(&host, &format!("apply {LINE} --dry-run"));
    assert!(out.contains("\n  out-interfaces  eth0, wg0 (two half routes)\n"), "{out}");
}

#[test]
fn ports_of_bridges_are_warned_of_and_match_nothing() {
    let net = Routed::new().unwrap();
    if !is_able(&net.router, "ip link add br0 type bridge") {
        return;
    }
    for line in [
        "ip link set wan0 master br0",
        "ip link set br0 up",
        "ip addr del 203.0.113.1/24 dev wan0",
        "ip addr add 203.0.113.1/24 dev br0",
        "ip route replace default via 203.0.113.9",
    ] {
        ok(&net.router, line);
    }
    let _server = Server::start(&net.server, 443).unwrap();
    let server = SocketAddr::new(SERVER_V4, 443);
    let apply = |flags: &str| warning(&net.router, &format!("{LINE} --ipv4 {flags}"));
    let expected =
        "policy default: `wan0` is a port of br0, by which the host sends and receives: name br0";
    assert_eq!(apply("-o wan0"), expected);
    assert_eq!(seen(&net.client, Protocol::Udp, 40_000, server).port(), 40_000);
    assert_eq!(apply("-o any --except-interface wan0"), expected);
    let port = seen(&net.client, Protocol::Udp, 40_001, server).port();
    assert!((49_152..=61_000).contains(&port), "{port}");
}
