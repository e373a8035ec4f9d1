//! What people asked for, each under its number, with real packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use ephport_core::{Port, PortSet};
use ephport_tests::tool::{nft_load, ok, tool};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, Protocol, ROUTER_V4, Routed, SERVER_V4, SERVER_V6, Server, connect,
    ephport_ok, publish,
};

const PORT: u16 = 443;
const SERVER: SocketAddr = SocketAddr::new(SERVER_V4, PORT);

/// The lab with a server, and this policy on its router.
fn lab(apply: &str) -> (Routed, Server) {
    let net = Routed::new().unwrap();
    let server = Server::start(&net.server, PORT).unwrap();
    ephport_ok(&net.router, &format!("apply {apply}"));
    (net, server)
}

/// What the server sees of one connection after another, from each of these ports.
fn sources(
    host: &Host,
    protocol: Protocol,
    from: impl IntoIterator<Item = u16, IntoIter: Send> + Send,
    to: SocketAddr,
) -> Vec<SocketAddr> {
    let one = |port| connect(protocol, port, to).unwrap_or_else(|error| panic!("{port}: {error}"));
    host.run(|| from.into_iter().map(|port| one(port).seen).collect())
}

fn ports(
    host: &Host,
    protocol: Protocol,
    from: impl IntoIterator<Item = u16, IntoIter: Send> + Send,
) -> Vec<u16> {
    sources(host, protocol, from, SERVER).iter().map(SocketAddr::port).collect()
}

fn all_inside(ports: &[u16], range: RangeInclusive<u16>) {
    let outside: Vec<_> = ports.iter().filter(|port| !range.contains(port)).collect();
    assert!(outside.is_empty(), "{outside:?} outside {range:?}");
}

#[test]
fn n1_containers_use_the_hosts_range() {
    // moby/moby#51667, docker/for-linux#1552
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    net.router.sysctl("net/ipv4/ip_local_port_range", "20000 20999").unwrap();
    ephport_ok(&net.router, "apply --to-ports local");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        all_inside(&ports(&net.client, protocol, 40_000..40_100), 20_000..=20_999);
    }
}

#[test]
fn n2_builds_pass_network_acls() {
    // The original post: its ports, its policy.
    let (net, _server) = lab("--sport 32768-61000 --to-ports 49152-61000");
    let from = (32_768..=61_000).step_by(97);
    all_inside(&ports(&net.client, Protocol::Tcp, from), 49_152..=61_000);
}

#[test]
fn n3_pods_stay_inside_despite_plugin_masquerade() {
    // k3s-io/k3s#6719, projectcalico/felix#1838
    let (net, _server) = lab("--to-ports 32768-40000");
    nft_load(
        &net.router,
        "table ip cni {\n chain postrouting {\n \
         type nat hook postrouting priority srcnat; policy accept;\n \
         ip saddr 10.77.1.0/24 masquerade fully-random\n }\n}\n",
    );
    all_inside(&ports(&net.client, Protocol::Tcp, 41_000..41_100), 32_768..=40_000);
    // Towards the pods nothing is translated.
    let _pod = Server::start(&net.client, PORT).unwrap();
    let pod = SocketAddr::new(CLIENT_V4, PORT);
    let seen = sources(&net.server, Protocol::Tcp, [50_000], pod);
    assert_eq!(seen, [SocketAddr::new(SERVER_V4, 50_000)]);
}

#[test]
fn n4_node_ports_are_never_source_ports() {
    // cilium/cilium#23604, #33723, kubernetes/kubernetes#139276, aws/amazon-vpc-cni-k8s#3174
    let (net, _server) = lab("--to-ports 1024-65535 --except-ports 30000-32767 -p udp");
    // Each port twice, by client and router, so that every second one collides; a third of them is
    // in the hole.
    let from = || (29_200..33_000).step_by(2).chain(40_000..40_600);
    let mut seen = ports(&net.client, Protocol::Udp, from());
    seen.extend(ports(&net.router, Protocol::Udp, from()));
    assert_eq!(seen.len(), 5_000);
    assert!(seen.iter().all(|port| !(30_000..=32_767).contains(port) && *port >= 1024));
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 5_000, "each has a port of its own");
}

#[test]
fn n5_disjoint_ranges_are_used_by_their_size() {
    // kubernetes-sigs/ip-masq-agent#162
    const FLOWS: u16 = 3_000;
    let (net, _server) = lab("--to-ports 10000-13999,20000-27999,50000-53999 -p udp");
    let seen = ports(&net.client, Protocol::Udp, 1024..1024 + FLOWS);
    for (range, share) in
        [(10_000..=13_999u16, 0.25), (20_000..=27_999, 0.5), (50_000..=53_999, 0.25)]
    {
        let count = seen.iter().filter(|port| range.contains(port)).count();
        let expected = f64::from(FLOWS) * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        let difference = (f64::from(u32::try_from(count).unwrap()) - expected).abs();
        assert!(difference <= 3.0 * deviation, "{range:?}: {count}, expected {expected}");
    }
    let set: PortSet = "10000-13999,20000-27999,50000-53999".parse().unwrap();
    assert!(seen.iter().all(|port| set.contains(Port::new(*port).unwrap())));
}

/// 15 blocks of 16 ports.
const MAP_E: &str = "psid=52,psid-len=8,offset=4";

fn map_e_ports() -> PortSet {
    MAP_E.parse::<ephport_core::MapE>().unwrap().ports()
}

#[test]
fn n6_every_port_set_of_the_psid_is_used() {
    // openwrt/openwrt#11972, #14449, fakemanhk/openwrt-jp-ipoe#8
    let (net, _server) = lab(&format!("--map-e {MAP_E}"));
    let expected: BTreeSet<u16> = map_e_ports().ports().map(Port::get).collect();
    assert_eq!((map_e_ports().ranges().len(), expected.len()), (15, 240));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        // All at once: each needs a port of its own.
        let open: Vec<_> = net.client.run(|| {
            let one = |port| connect(protocol, port, SERVER).expect("a connection");
            (2_000..2_240).map(one).collect()
        });
        let seen: BTreeSet<u16> = open.iter().map(|connection| connection.seen.port()).collect();
        assert_eq!(seen, expected, "{protocol}");
    }
}

#[test]
fn n7_servers_ports_are_excluded_from_map_e() {
    // fakemanhk/openwrt-jp-ipoe#12
    let own = map_e_ports().ranges()[3];
    let (net, _server) = lab(&format!("--map-e {MAP_E} --except-ports {own}"));
    let left = map_e_ports().difference(&own.into());
    let seen = ports(&net.client, Protocol::Udp, 2_000..2_200);
    assert!(seen.iter().all(|port| left.contains(Port::new(*port).unwrap())));
}

#[test]
fn n8_each_subscriber_uses_its_block() {
    // vyos/vyos-1x#2694, #3274, FDio/vpp#1968; RFC 7422
    let (net, _server) = lab("--blocks 10.78.0.0/22=63@1024-65535");
    net.router.route("10.78.0.0/22", "10.77.1.2").unwrap();
    for i in 0..1_000u32 {
        let source = Ipv4Addr::from(0x0a4e_0000 + i);
        net.client.address("eth0", &format!("{source}/32")).unwrap();
        let from = SocketAddr::new(IpAddr::V4(source), 40_000);
        let first = u16::try_from(1024 + 63 * i).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let seen = net.client.run(|| connect(protocol, from, SERVER)).unwrap().seen;
            assert_eq!(seen.ip(), ROUTER_V4);
            assert!((first..first + 63).contains(&seen.port()), "{source}: {seen}");
        }
    }
}

#[test]
fn n9_dynamic_address_ipv4_only() {
    // openwrt/firewall4#79
    let (net, _server) = lab("--ipv4 --to-ports 2000-3999");
    all_inside(&ports(&net.client, Protocol::Udp, 40_000..40_050), 2_000..=3_999);
    let to = SocketAddr::new(SERVER_V6, PORT);
    let seen = sources(&net.client, Protocol::Udp, [40_000], to);
    assert_eq!(seen, [SocketAddr::new(CLIENT_V6, 40_000)]);
}

#[test]
fn n10_random_inside_the_range() {
    // aws/amazon-vpc-cni-k8s#503, #509, fck-nat#144, antrea-io/antrea#6544
    for flags in ["--random", "--fully-random"] {
        for target in ["10000-49999", "10000-29999,40000-49999"] {
            let (net, _server) = lab(&format!("--to-ports {target} {flags}"));
            let seen = ports(&net.client, Protocol::Udp, 20_000..20_100);
            all_inside(&seen, 10_000..=49_999);
            assert!(!seen.iter().any(|port| (30_000..40_000).contains(port)) || target.len() < 12);
            let kept = seen.iter().zip(20_000..).filter(|(seen, own)| **seen == *own).count();
            assert!(kept < 10, "{kept} of 100 kept their port under {flags}");
        }
    }
}

#[test]
fn n11_predictable_ports_for_hole_punching() {
    // aws/amazon-vpc-cni-k8s#3174, thelegy/nixos-nftables-firewall#23
    let ranges = "10000-10999,20000-22999,50000-51999";
    let (net, _server) = lab(&format!("--to-ports {ranges} -p udp --per-source-stable"));
    let _second = Server::start(&net.server, PORT + 1).unwrap();
    let other = SocketAddr::new(SERVER_V4, PORT + 1);
    // Those inside keep their port, and each socket keeps the one it got to another destination.
    let from = || (20_000..20_020).chain(30_000..30_280);
    let first = sources(&net.client, Protocol::Udp, from(), SERVER);
    let second = sources(&net.client, Protocol::Udp, from(), other);
    assert_eq!(first.len(), 300);
    assert_eq!(first, second);
    let kept: Vec<u16> = first[..20].iter().map(SocketAddr::port).collect();
    assert_eq!(kept, (20_000..20_020).collect::<Vec<_>>());
}

#[test]
fn n12_the_routers_own_services_keep_their_ports() {
    // openwrt/openwrt#22765, openwrt/firewall4#92
    let (net, _server) = lab("--to-ports 49152-61000 --exempt-sport 1701,4500");
    for (host, address) in [(&net.router, ROUTER_V4), (&net.client, CLIENT_V4)] {
        for port in [68, 123, 500, 1701, 4500] {
            let seen = sources(host, Protocol::Udp, [port], SERVER);
            assert_eq!(seen, [SocketAddr::new(address, port)]);
        }
    }
    all_inside(&ports(&net.router, Protocol::Udp, [4501]), 49_152..=61_000);

    // A server that is reached by a published port sees its client.
    publish(&net.router, 8080, PORT);
    let _published = Server::start(&net.client, PORT).unwrap();
    let asker = SocketAddr::new(SERVER_V4, 40_000);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let published = SocketAddr::new(ROUTER_V4, 8080);
        assert_eq!(sources(&net.server, protocol, [40_000], published), [asker]);
    }

    let (net, _server) = lab("--to-ports 49152-61000 --origin forwarded");
    assert_eq!(ports(&net.router, Protocol::Udp, [40_000]), [40_000]);
    all_inside(&ports(&net.client, Protocol::Udp, [40_001]), 49_152..=61_000);

    let (net, _server) = lab("--to-ports 49152-61000 --origin local");
    assert_eq!(ports(&net.client, Protocol::Udp, [40_000]), [40_000]);
    all_inside(&ports(&net.router, Protocol::Udp, [40_001]), 49_152..=61_000);
}

#[test]
fn n13_ping_still_works_through_another_tools_masquerade() {
    // sapcc/kubernikus#115
    let (net, _server) = lab("--to-ports 49152-61000");
    let masquerade = "table ip other {\n chain postrouting {\n \
                      type nat hook postrouting priority srcnat; policy accept;\n \
                      oifname \"wan0\" masquerade\n }\n}\n";
    nft_load(&net.router, masquerade);
    nft_load(
        &net.server,
        "table ip count {\n chain input {\n type filter hook input priority 0; policy accept;\n \
         ip saddr 203.0.113.1 icmp type echo-request counter\n }\n}\n",
    );
    let ping = tool(&net.client, "ping", &["-c", "3", "-i", "0.01", "-W", "3", "203.0.113.9"], "");
    assert!(ping.success, "{ping:?}");
    let counted = ok(&net.server, "nft list ruleset");
    assert!(counted.contains("counter packets 3 "), "{counted}");
}

#[test]
fn n14_persistent_is_passed_on() {
    // firewalld/firewalld#1372
    let (net, _server) = lab("--to-ports 49152-61000 --persistent");
    all_inside(&ports(&net.client, Protocol::Tcp, 40_000..40_050), 49_152..=61_000);
    assert!(ok(&net.router, "nft list ruleset").contains("masquerade to :49152-61000 persistent"));
}

#[test]
fn n15_policy_precedes_other_tools_nat() {
    // moby/moby#33726
    let other = |priority: u32| {
        format!(
            "table ip other{priority} {{\n chain postrouting {{\n \
             type nat hook postrouting priority {priority}; policy accept;\n masquerade\n }}\n}}\n"
        )
    };
    for ours_first in [true, false] {
        let net = Routed::new().unwrap();
        let _server = Server::start(&net.server, PORT).unwrap();
        let apply = || ephport_ok(&net.router, "apply --to-ports 49152-61000");
        if ours_first {
            apply();
        }
        for priority in [99, 100, 101, 110] {
            nft_load(&net.router, &other(priority));
        }
        for variant in ["iptables-nft", "iptables-legacy"] {
            ok(&net.router, &format!("{variant} -t nat -I POSTROUTING -j MASQUERADE"));
        }
        if !ours_first {
            apply();
        }
        all_inside(&ports(&net.client, Protocol::Tcp, 40_000..40_050), 49_152..=61_000);
    }
}

#[test]
fn n23_second_range_is_used_equally() {
    // cilium/cilium#47301
    let (net, _server) = lab("--to-ports 2000-2063,3000-3063 -p udp");
    let seen: BTreeSet<u16> =
        ports(&net.client, Protocol::Udp, 40_000..40_128).into_iter().collect();
    let all: BTreeSet<u16> = (2_000..2_064).chain(3_000..3_064).collect();
    assert_eq!(seen, all);
}

/// DNS queries, each from a new socket, that are answered within a second: 200 every 3 seconds, three times.
fn answered_queries(net: &Routed) -> usize {
    let server = net.server.run(|| UdpSocket::bind((SERVER_V4, 53))).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answered = 0;
    for _ in 0..3 {
        let start = Instant::now();
        let query = |_| {
            let socket = net.client.run(|| UdpSocket::bind((CLIENT_V4, 0))).unwrap();
            socket.send_to(b"query", (SERVER_V4, 53)).unwrap();
            socket
        };
        let sockets: Vec<_> = (0..200).map(query).collect();
        let mut query = [0; 16];
        while let Ok((len, from)) = server.recv_from(&mut query) {
            server.send_to(&query[..len], from).unwrap();
        }
        for socket in sockets {
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            answered += usize::from(socket.recv(&mut query).is_ok());
        }
        // The load is per time: entries of the round before have expired by then, or have not.
        thread::sleep(Duration::from_secs(3).saturating_sub(start.elapsed()));
    }
    answered
}

#[test]
fn n26_dns_through_a_small_set() {
    // fakemanhk/openwrt-jp-ipoe#32: the default of `timeouts` with MAP-E.
    let count = |timeouts: &str| {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("apply --map-e psid=52,psid-len=8,offset=4 {timeouts}"));
        answered_queries(&net)
    };
    let without = thread::scope(|scope| {
        let without = scope.spawn(|| count("--timeouts none"));
        let remapped = scope.spawn(|| count("--spread remap"));
        let answered = count("");
        assert!(answered >= 594, "{answered} of 600 with the default");
        let remapped = remapped.join().unwrap();
        assert!(remapped >= 594, "{remapped} of 600 with remap");
        without.join().unwrap()
    });
    assert!(without <= 300, "{without} of 600 with the timeouts of the host");
}
