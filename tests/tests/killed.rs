//! The binary is killed at every system call of an apply: the old policy or the new one is installed.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use ephport_core::{Port, PortSet};
use ephport_nft::{Applied, Client, Installed, TableState};
use ephport_tests::strace::{Point, inject, points, traced};
use ephport_tests::wire::Capture;
use ephport_tests::{
    CLIENT_V4, Connection, Host, PolicyFile, Protocol, ROUTER_V4, Routed, SERVER_V4, Server, apply,
    compiled, connect_within,
};

/// Enough that reading and replacing them needs more than 300 system calls.
const POLICIES: u16 = 20;
const THREADS: usize = 4;
const SIGKILL: i32 = 9;

/// Policies of two ranges each, from `first` on.
fn document(first: u16) -> String {
    let policy = |i: u16| {
        let port = first + i * 100;
        format!(
            "[[policy]]\nname = \"p{i}\"\nout-interfaces = [\"eth{i}\"]\n\
             to-ports = \"{port}-{},{}-{}\"\n",
            port + 9,
            port + 20,
            port + 49
        )
    };
    (0..POLICIES).map(policy).collect()
}

/// The number of kills after which each policy was installed.
#[derive(Debug, Default)]
struct Found {
    old: usize,
    new: usize,
}

/// Kills an apply of `new` over `old` at the entry of each call, reads the table, and applies again.
fn kill_at(points: &[&Point], policy: &PolicyFile, old: &TableState, new: &TableState) -> Found {
    let host = Host::new("host").unwrap();
    let mut nft = host.run(Client::open).unwrap();
    let mut found = Found::default();
    for point @ (call, count) in points {
        nft.apply(old).unwrap();
        let [only, inject] = inject(point, "signal=SIGKILL");
        let killed = traced(&host, &[&only, &inject], &["apply", policy.path()]);
        if killed.output.status.signal() != Some(SIGKILL) {
            continue; // This run made fewer calls.
        }
        let Installed::Ours { ruleset, intact: true, .. } = nft.installed().unwrap() else {
            panic!("neither policy after {call} {count}");
        };
        let is_new = ruleset.normalized() == new.normalized();
        assert!(
            is_new || ruleset.normalized() == old.normalized(),
            "neither policy after {call} {count}"
        );
        *(if is_new { &mut found.new } else { &mut found.old }) += 1;
        let again = if is_new { Applied::Unchanged } else { Applied::Updated };
        assert_eq!(nft.apply(new), Ok(again));
    }
    found
}

#[test]
fn killed_apply_installs_old_or_new_policy() {
    let (old, text) = (compiled(&document(2000)), document(10_000));
    let (new, policy) = (compiled(&text), PolicyFile::new(&text));
    let host = Host::new("host").unwrap();
    apply(&host, &old);
    let whole = traced(&host, &[], &["apply", policy.path()]);
    assert!(whole.output.status.success(), "{whole:?}");
    let points = points(&whole.calls);
    let found: Vec<_> = thread::scope(|scope| {
        let (points, policy, old, new) = (&points, &policy, &old, &new);
        let start = |first: usize| {
            let own: Vec<_> = points.iter().skip(first).step_by(THREADS).collect();
            scope.spawn(move || kill_at(&own, policy, old, new))
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (old, new) = found.iter().fold((0, 0), |(o, n), f| (o + f.old, n + f.new));
    println!("{} calls; the old policy after {old} kills, the new after {new}", points.len());
    assert!(old + new >= 300 && old > 0 && new > 0, "{} calls: {found:?}", points.len());
}

/// A set of three ranges, so large that UDP connections of the kills before do not fill it, and the policies that spread connections over it with and without virtual ports.
const SET: &str = "4928-5183,5952-6207,6976-7231";
const SPREADS: [&str; 2] = ["round-robin", "remap"];

fn spread(spread: &str) -> String {
    format!(
        "[[policy]]\nname = \"p\"\nout-interfaces = [\"wan0\"]\nto-ports = \"{SET}\"\n\
         address = \"masquerade\"\nspread = \"{spread}\"\n"
    )
}

const PORT: u16 = 443;

/// Opens a connection of each protocol from the client.
fn open(net: &Routed, timeout: Duration) -> Vec<Result<Connection, String>> {
    let (from, to) = (SocketAddr::new(CLIENT_V4, 0), SocketAddr::new(SERVER_V4, PORT));
    let protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
    let connect =
        |protocol| connect_within(timeout, protocol, from, to).map_err(|error| error.to_string());
    net.client.run(|| protocols.map(connect).collect())
}

/// Kills an apply of a policy at the entry of a call, while connections are open and others are opened.
fn kill_change(net: &Routed, point: &Point, [old, new]: [&PolicyFile; 2]) {
    let apply = |policy: &PolicyFile| {
        let applied = traced(&net.router, &[], &["apply", policy.path()]);
        assert!(applied.output.status.success(), "{applied:?}");
    };
    apply(old);
    let mut capture = Capture::start(&net.server);
    let before: Vec<_> =
        open(net, Duration::from_millis(400)).into_iter().map(Result::unwrap).collect();
    let [only, inject] = inject(point, "signal=SIGKILL");
    let killed = traced(&net.router, &[&only, &inject], &["apply", new.path()]);
    if killed.output.status.signal() != Some(SIGKILL) {
        return; // This run made fewer calls.
    }
    // Whatever the killed process left, packets have ports of the set or are lost.
    let exchange = |connection: &Connection| {
        let _ = connection.exchange(b"after");
    };
    before.iter().for_each(exchange);
    drop(open(net, Duration::from_millis(50)));
    apply(new);
    before.iter().for_each(exchange);
    for opened in open(net, Duration::from_secs(3)) {
        opened.unwrap_or_else(|error| panic!("{point:?}: {error}"));
    }
    let set: PortSet = SET.parse().unwrap();
    for packet in capture.packets() {
        let is_translated = packet.source == ROUTER_V4 && [6, 17].contains(&packet.protocol);
        let port = packet.source_port.filter(|_| is_translated);
        let port = port.and_then(|port| Port::new(port).ok());
        assert!(port.is_none_or(|port| set.contains(port)), "{point:?}: {packet:?}");
    }
}

#[test]
fn killed_changes_to_and_from_remap_send_nothing_outside_the_set() {
    let files = SPREADS.map(|name| PolicyFile::new(&spread(name)));
    thread::scope(|scope| {
        for [old, new] in [[0, 1], [1, 0]] {
            let change = [&files[old], &files[new]];
            scope.spawn(move || {
                let net = Routed::new().unwrap();
                let _server = Server::start(&net.server, PORT).unwrap();
                let first = traced(&net.router, &[], &["apply", change[0].path()]);
                assert!(first.output.status.success(), "{first:?}");
                let _open = open(&net, Duration::from_secs(3));
                let whole = traced(&net.router, &[], &["apply", change[1].path()]);
                assert!(whole.output.status.success(), "{whole:?}");
                // Only batches and ctnetlink change the kernel's state.
                let points = points(&whole.calls);
                let calls = whole.calls.lines().filter(|line| line.contains('('));
                let is_change = |line: &str| {
                    line.starts_with("send")
                        && ["BATCH_BEGIN", "CTNETLINK"].iter().any(|word| line.contains(word))
                };
                let changes = points.iter().zip(calls).filter(|(_, line)| is_change(line));
                let changes: Vec<_> =
                    changes.map(|(point, _)| point).chain(points.last()).collect();
                assert!(changes.len() > 6, "{}", whole.calls);
                println!("{} kills", changes.len());
                for point in changes {
                    kill_change(&net, point, change);
                }
            });
        }
    });
}
