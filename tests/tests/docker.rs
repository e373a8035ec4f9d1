//! The effect of a policy on the builds and containers of a Docker engine, with and without userns-remap.
//!
//! No image is downloaded: each contains only the program `tests/src/docker/peer.c`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use ephport_tests::docker::{Dockerd, Iptables, calls};
use ephport_tests::tool::tool;
use ephport_tests::{Host, Protocol, ROUTER_V4, Routed, SERVER_V4, Server, ephport_ok, seen};

const PORT: u16 = 443;
const POLICY: &str = "apply --to-ports 49152-61000";
const INSIDE: RangeInclusive<u16> = 49_152..=61_000;

/// The number of connections of each protocol that a container opens.
const CALLS: u16 = 20;

const BRIDGE: &str = "--bip=172.31.5.1/24";
const REMAP: &str = "--userns-remap=default";

/// Builds an image whose only step calls the server over TCP and UDP from `CALLS` ports outside the range,
/// the first of which is `from`; returns the source ports that the server saw. UDP connections remain in
/// conntrack for a while: each build needs other ports.
fn build(dockerd: &Dockerd<'_>, words: &[&str], from: u16) -> Vec<u16> {
    let run = format!(r#"RUN ["/peer", "call", "{SERVER_V4}", "{PORT}", "{from}", "{CALLS}"]"#);
    let printed = dockerd.build(words, &run);
    assert!(printed.success, "{printed:?}");
    let calls = calls(&printed.out);
    let own: Vec<u16> = calls.iter().map(|(own, _)| own.port()).collect();
    assert_eq!(own, own_ports(from));
    assert!(calls.iter().all(|(_, seen)| seen.ip() == ROUTER_V4), "{calls:?}");
    calls.iter().map(|(_, seen)| seen.port()).collect()
}

/// The source ports of a build, each over TCP and then over UDP.
fn own_ports(from: u16) -> Vec<u16> {
    (from..from + CALLS).flat_map(|port| [port, port]).collect()
}

fn assert_inside(ports: &[u16]) {
    assert!(ports.iter().all(|port| INSIDE.contains(port)), "{ports:?}");
}

/// The foreign tables with their counters, as nft and each iptables list them. Nothing is sent between two
/// calls.
fn others(host: &Host) -> Vec<String> {
    let list = |line: &str| {
        let mut words = line.split(' ');
        let printed = tool(host, words.next().expect("a tool"), &words.collect::<Vec<_>>(), "");
        assert!(printed.success, "{line}: {printed:?}");
        printed.out
    };
    let listed = list("nft -a list ruleset");
    let tables = listed.split_inclusive("\n}\n").filter(|t| !t.starts_with("table inet ephport "));
    let saved = ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]
        .map(|program| list(&format!("{program}-save -c")))
        .map(|text| text.lines().filter(|line| !line.starts_with('#')).collect());
    [tables.collect()].into_iter().chain(saved).collect()
}

/// What of the machine an engine would change that ran on it: settings of the network and of keyrings,
/// accounts, links, a module, and what it writes for itself.
fn machine() -> BTreeMap<String, String> {
    fn collect(directory: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, found);
            } else if !path.ends_with("nf_conntrack_count") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                found.insert(path.display().to_string(), text);
            }
        }
    }
    let mut found = BTreeMap::new();
    for directory in ["/proc/sys/net", "/proc/sys/kernel/keys"] {
        collect(Path::new(directory), &mut found);
    }
    for path in ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"] {
        found.insert(path.into(), fs::read_to_string(path).unwrap_or_default());
    }
    for path in ["/run/docker", "/var/lib/docker", "/etc/docker", "/sys/module/br_netfilter"] {
        let changed = fs::metadata(path).and_then(|found| found.modified());
        found.insert(path.into(), format!("{:?}", changed.ok()));
    }
    let links = fs::read_dir("/sys/class/net").expect("links");
    let links: BTreeSet<_> = links.map(|link| link.expect("a link").file_name()).collect();
    found.insert("links".into(), format!("{links:?}"));
    found
}

/// Builds before and after a policy, and after a restart of the engine; then runs containers.
fn builds_and_containers(
    iptables: Iptables,
    args: &[&str],
    on_the_hosts_network: fn(&Dockerd<'_>),
) {
    let machine_before = machine();
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    let mut dockerd = Dockerd::start(&net.router, iptables, args);
    assert_eq!(build(&dockerd, &[], 34_000), own_ports(34_000));

    let before = others(&net.router);
    let saved = match iptables {
        Iptables::Nft => &before[1],
        Iptables::Legacy => &before[3],
    };
    assert!(saved.contains("-A POSTROUTING -s 172.31.5.0/24 ! -o docker0 -j MASQUERADE"));
    ephport_ok(&net.router, POLICY);
    assert_eq!(others(&net.router), before);
    assert_inside(&build(&dockerd, &[], 35_000));

    // Docker writes its rules again, before the existing rules of their chains.
    dockerd.restart();
    assert_inside(&build(&dockerd, &["--tag", "peer"], 36_000));
    containers(&net, &dockerd);
    on_the_hosts_network(&dockerd);

    let before = others(&net.router);
    ephport_ok(&net.router, "remove");
    assert_eq!(others(&net.router), before);
    assert_eq!(build(&dockerd, &[], 37_000), own_ports(37_000));
    drop(dockerd);
    // Only settings that existed before: a module may have added others.
    let machine_after = machine();
    for (what, before) in machine_before {
        assert_eq!(machine_after.get(&what), Some(&before), "{what}");
    }
}

/// A published server sees its clients' own addresses, and so do containers on one bridge.
fn containers(net: &Routed, dockerd: &Dockerd<'_>) {
    dockerd.ok("run --detach --name served --publish 8080:443 peer /peer serve 443");
    let is_serving = |_| dockerd.ok("logs served") == "serving\n";
    assert!((0..500).any(is_serving), "{:?}", dockerd.ok("ps --all"));
    let outside = SocketAddr::new(SERVER_V4, 40_000);
    let published = SocketAddr::new(ROUTER_V4, 8080);
    assert_eq!(seen(&net.server, Protocol::Tcp, outside, published), outside);

    let address = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let address = dockerd.ok(&format!("inspect --format {address} served"));
    let called =
        dockerd.ok(&format!("run --rm peer /peer call {} 443 34000 1 tcp", address.trim()));
    let calls = calls(&called);
    assert!(matches!(calls.as_slice(), [(own, seen)] if own == seen), "{called}");
    dockerd.ok("rm --force served");
}

#[test]
fn with_dockers_defaults() {
    builds_and_containers(Iptables::Nft, &[BRIDGE], |dockerd| {
        let call = format!("/peer call {SERVER_V4} {PORT} 38000 {CALLS}");
        let called = calls(&dockerd.ok(&format!("run --rm --network host peer {call}")));
        assert_eq!(called.len(), usize::from(2 * CALLS));
        assert_inside(&called.iter().map(|(_, seen)| seen.port()).collect::<Vec<_>>());
    });
}

#[test]
fn with_a_user_namespace_and_legacy_iptables() {
    builds_and_containers(Iptables::Legacy, &[BRIDGE, REMAP], |dockerd| {
        let words = ["run", "--rm", "--network", "host", "peer", "/peer"];
        let refused = dockerd.docker(&words, "");
        assert!(!refused.success, "{refused:?}");
        let reason = "cannot share the host's network namespace when user namespaces are enabled";
        assert!(refused.err.contains(reason), "{refused:?}");
    });
}
