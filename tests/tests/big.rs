//! Blocks for the sources of a large network: 65,536 and a million.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ephport_core::BlockPlan;
use ephport_nft::netlink::NetlinkError;
use ephport_nft::plan::diff::changes;
use ephport_nft::plan::operation::Operation;
use ephport_nft::{Applied, Client, Error, Installed};
use ephport_tests::tool::{binary, ok, tool};
use ephport_tests::{
    Host, PolicyFile, Protocol, ROUTER_V4, ROUTER_V6, Routed, SERVER_V4, SERVER_V6, Server,
    compiled, connect_within, ephport_ok, installed, is_long,
};

const COUNTS: [u32; 2] = [65_536, 1_000_000];

/// A block of 16 ports for each of `count` sources; the source `changed` has 15.
fn document(count: u32, changed: Option<u32>) -> String {
    const BLOCKS: u32 = (65_536 - 1024) / 16;
    let mut text = String::from(
        "[[policy]]\nname = \"blocks\"\nout-interfaces = \"any\"\nprotocols = [\"udp\"]\n\
         blocks = '''\n",
    );
    for i in 0..count {
        let source = Ipv4Addr::from_bits(0x0a00_0000 + i);
        let outside = Ipv4Addr::from_bits(0xac10_0000 + i / BLOCKS);
        let first = 1024 + 16 * (i % BLOCKS);
        let last = first + if changed == Some(i) { 14 } else { 15 };
        writeln!(text, "{source} = {outside}:{first}-{last}").expect("a string");
    }
    text + "'''\n"
}

#[test]
fn changed_block_costs_one_element_of_a_million() {
    for count in COUNTS {
        let host = Host::new("host").unwrap();
        let (first, second) =
            (compiled(&document(count, None)), compiled(&document(count, Some(count / 2))));
        match host.run(|| Client::open()?.apply(&first)) {
            Ok(applied) => assert_eq!(applied, Applied::Installed),
            // Without SO_SNDBUFFORCE the machine's limit applies.
            Err(Error::Netlink(NetlinkError::TooLarge { .. })) if !may_force() => {
                assert_eq!(ok(&host, "nft list tables"), "");
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        let Installed::Ours { ruleset, intact: true, .. } = installed(&host) else {
            panic!("not intact");
        };
        assert!(ruleset.normalized() == first.normalized());
        let operations = changes(&ruleset, &second).expect("no replacement");
        let elements = operations.iter().filter_map(|operation| match operation {
            Operation::DeleteElements(some) | Operation::AddElements(some) => {
                Some(some.elements.len())
            }
            _ => None,
        });
        assert_eq!(elements.collect::<Vec<_>>(), [1, 1], "one deleted, one added");
        drop((ruleset, first));
        let updated = host.run(|| {
            let mut nft = Client::open()?;
            Ok::<_, Error>((nft.apply(&second)?, nft.apply(&second)?))
        });
        assert_eq!(updated, Ok((Applied::Updated, Applied::Unchanged)));
    }
}

/// Whether SO_SNDBUFFORCE works: only in the initial user namespace.
fn may_force() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("this user namespace");
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The peak memory in KiB of a program that must succeed on a new host.
fn peak(program: &str, args: &[&str]) -> u32 {
    let host = Host::new("host").unwrap();
    let words = [&["-f", "%M", program], args].concat();
    let printed = tool(&host, "/usr/bin/time", &words, "");
    assert!(printed.success, "{program}: {printed:?}");
    // The last line; `apply` may warn before.
    printed.err.lines().last().and_then(|line| line.parse().ok()).expect("a size")
}

#[test]
fn loading_needs_less_memory_than_nft() {
    let counts = COUNTS.into_iter().take(if is_long() { 2 } else { 1 });
    for count in counts.filter(|_| may_force()) {
        let text = document(count, None);
        let listing = compiled(&text).to_nft().to_string();
        let (policy, listing) = (PolicyFile::new(&text), PolicyFile::new(&listing));
        let ours = peak(binary().to_str().expect("UTF-8"), &["apply", policy.path()]);
        let theirs = peak("nft", &["-f", listing.path()]);
        println!("{count} blocks: {ours} KiB, nft -f {theirs} KiB: {} %", 100 * ours / theirs);
        assert!(ours < theirs);
    }
}

/// Sources of a plan from its ends and between, and one beside it.
fn samples(plan: &BlockPlan) -> (Vec<IpAddr>, IpAddr) {
    let count = plan.sources().count();
    let inside = (0..40).map(|i| i * (count - 1) / 39).filter_map(|i| plan.sources().nth(i));
    let beside = match plan.sources().last() {
        IpAddr::V4(last) => Ipv4Addr::from_bits(last.to_bits() + 1).into(),
        IpAddr::V6(last) => Ipv6Addr::from_bits(last.to_bits() + 1).into(),
    };
    (inside.collect(), beside)
}

#[test]
fn each_of_a_million_sources_uses_its_block() {
    // The first two are factored, the third is sharded.
    for (text, lan, pool) in [
        ("10.0.0.0/12=1008@198.18.0.0/18:1024-65535", "10.31.255.254/11", "198.18.0.0/15"),
        (
            "2001:db8:a:1::/108=1008@[2001:db8:b::/114]:1024-65535",
            "2001:db8:a::ffff:fffe/63",
            "2001:db8:b::/64",
        ),
        ("10.0.0.1-10.0.128.0=1009@198.18.0.0/20:1024-65535", "10.31.255.254/11", "198.18.0.0/15"),
    ] {
        let plan: BlockPlan = text.parse().unwrap();
        let (inside, beside) = samples(&plan);
        let is_v4 = beside.is_ipv4();
        let (server, router) = if is_v4 { (SERVER_V4, ROUTER_V4) } else { (SERVER_V6, ROUTER_V6) };
        let net = Routed::new().unwrap();
        let _server = Server::start(&net.server, 443).unwrap();
        net.router.address("lan0", lan).unwrap();
        net.server.route(pool, &router.to_string()).unwrap();
        net.server.route(lan, &router.to_string()).unwrap();
        for source in inside.iter().chain([&beside]) {
            let len = if is_v4 { 32 } else { 128 };
            net.client.address("eth0", &format!("{source}/{len}")).unwrap();
        }
        let connect = |source: IpAddr, port: u16, protocol| {
            let from = SocketAddr::new(source, port);
            let to = SocketAddr::new(server, 443);
            net.client.run(|| connect_within(Duration::from_millis(300), protocol, from, to))
        };
        for enforce in ["", " --enforce"] {
            ephport_ok(&net.router, &format!("apply --blocks {text}{enforce}"));
            for (source, port) in inside.iter().zip(20_000..) {
                let block = plan.block_of(*source).unwrap();
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    let seen = connect(*source, port, protocol).unwrap().seen;
                    assert_eq!(Some(seen.ip()), block.outside, "{text}{enforce}: {source}");
                    assert!(
                        block.ports.contains(seen.port().try_into().unwrap()),
                        "{seen}: {block}"
                    );
                }
            }
            // Enforcement lets the connection pass that was open before.
            let port = if enforce.is_empty() { 20_000 } else { 20_001 };
            let other = connect(beside, port, Protocol::Udp).map(|connection| connection.seen);
            assert_eq!(other.ok(), enforce.is_empty().then_some(SocketAddr::new(beside, port)));
        }
    }
}
