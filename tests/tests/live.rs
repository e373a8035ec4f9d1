//! Replacing the policy under load: live connections stay, new ones are translated, none is lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ephport_core::{Port, PortSet};
use ephport_nft::{Applied, Client, TableState};
use ephport_tests::tool::nft_load;
use ephport_tests::{
    CLIENT_V6, Connection, Host, Protocol, ROUTER_V4, Routed, Server, apply, compiled, connect,
    connect_within, is_long, of_family, protocols_and_servers,
};

const PORT: u16 = 443;
const LIVE: u16 = 20;
const NEW: usize = 2000;

/// One range, and several that contain it. Neither is enforced: with `enforce = true` on the second, 0 to
/// 5 of 10,000 to 17,000 new connections got no answer in four runs of a test here, without it none.
/// The kernel lets a packet finish the old rules while what they look up are the new sets' elements
/// (inferred, not traced), so that enforcement drops it rather than let it out; TCP sends again.
const ONE: &str = "49152-61000";
const SEVERAL: &str = "20000-23999,30000-30999,49152-61000";

/// Less than a second, after which TCP would hide a loss by sending its SYN again.
const TIMEOUT: Duration = Duration::from_millis(900);

fn documents() -> [TableState; 2] {
    [ONE, SEVERAL].map(|ports| {
        compiled(&format!(
            "[[policy]]\nname = \"p\"\nout-interfaces = [\"wan0\"]\nto-ports = \"{ports}\"\n"
        ))
    })
}

/// Two who work until both have done their share.
#[derive(Debug, Default)]
struct Work {
    applies: AtomicUsize,
    connections: AtomicUsize,
}

impl Work {
    fn goes_on(&self) -> bool {
        let applies = if is_long() { 10_000 } else { 2000 };
        self.applies.load(Ordering::Relaxed) < applies
            || self.connections.load(Ordering::Relaxed) < NEW
    }
}

/// Applies the documents in turn.
fn replace(work: &Work) -> Vec<ephport_nft::Error> {
    let mut nft = Client::open().expect("a socket");
    let mut errors = Vec::new();
    // The first of them is installed already.
    for document in documents().iter().cycle().skip(1) {
        if !work.goes_on() {
            break;
        }
        match nft.apply(document) {
            Ok(applied) => assert_eq!(applied, Applied::Updated),
            Err(error) => errors.push(error),
        }
        work.applies.fetch_add(1, Ordering::Relaxed);
    }
    errors
}

/// What is wrong with a connection, if anything.
fn fault(allowed: &PortSet, protocol: Protocol, from: u16, to: SocketAddr) -> Option<String> {
    // A public address of the client is not changed.
    let source = of_family(to.ip(), ROUTER_V4, CLIENT_V6);
    match connect_within(TIMEOUT, protocol, from, to) {
        Ok(Connection { seen, .. })
            if seen.ip() == source
                && Port::new(seen.port()).is_ok_and(|port| allowed.contains(port)) =>
        {
            None
        }
        Ok(Connection { seen, .. }) => Some(format!("{protocol} {from} to {to} left as {seen}")),
        Err(error) => Some(format!("{protocol} {from} to {to}: {error}")),
    }
}

/// Opens new connections of every kind, and lets the live ones speak in between.
fn load(work: &Work, live: &[Connection]) -> Vec<String> {
    let allowed: PortSet = SEVERAL.parse().expect("ports");
    let mut faults = Vec::new();
    let kinds = protocols_and_servers().into_iter().cycle().zip((1024..=9999).cycle());
    for (((protocol, server), from), live) in kinds.zip(live.iter().cycle()) {
        if !work.goes_on() {
            break;
        }
        faults.extend(fault(&allowed, protocol, from, SocketAddr::new(server, PORT)));
        faults.extend(live.exchange(b"alive?").err().map(|error| format!("live: {error}")));
        work.connections.fetch_add(1, Ordering::Relaxed);
    }
    faults
}

fn live_connections(client: &Host) -> Vec<Connection> {
    let [(tcp, v4), (_, v6), ..] = protocols_and_servers();
    let open = |port| {
        let server = if port % 2 == 0 { v4 } else { v6 };
        connect(tcp, port, SocketAddr::new(server, PORT)).expect("a connection")
    };
    client.run(|| (40_000..40_000 + LIVE).map(open).collect())
}

fn survive(prepare: impl FnOnce(&Host)) {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, PORT).unwrap();
    prepare(&net.router);
    apply(&net.router, &documents()[0]);
    let live = live_connections(&net.client);
    let work = Work::default();
    let (errors, faults) = thread::scope(|scope| {
        let replacing = scope.spawn(|| net.router.run(|| replace(&work)));
        let faults = net.client.run(|| load(&work, &live));
        (replacing.join().expect("applied"), faults)
    });
    assert!(errors.is_empty(), "{errors:?}");
    assert!(faults.is_empty(), "{} of {work:?}: {faults:#?}", faults.len());
    for connection in &live {
        assert_eq!(connection.exchange(b"still there?"), Ok(connection.seen));
    }
}

#[test]
fn live_connections_survive_2000_applies() {
    survive(|_| {});
}

#[test]
fn live_connections_survive_applies_beside_other_nat() {
    survive(|router| {
        for family in ["ip", "ip6"] {
            nft_load(
                router,
                &format!(
                    "table {family} nat {{\n chain POSTROUTING {{\n \
                     type nat hook postrouting priority 100; policy accept;\n \
                     oifname \"wan0\" masquerade\n }}\n}}\n"
                ),
            );
        }
    });
}
