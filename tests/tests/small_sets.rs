//! docs/small-sets.md: the connections that a small set of many ranges serves, by distribution.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use ephport_core::{Distribution, MapE, Port, PortSet};
use ephport_nft::conntrack::{Connections, Filter, Statistics};
use ephport_tests::{CLIENT_V4, Routed, SERVER_V4, ephport_ok};

/// The port of the server.
const PORT: u16 = 53;

/// The set of a MAP-E customer: 15 ranges of 16 ports.
const MAP_E: &str = "psid=52,psid-len=8,offset=4";

/// The same count of ports in ranges of different size.
const UNEQUAL: &str = "5000-5099,6000-6063,7000-7031,8000-8023,9000-9015,10000-10003";

/// The network, and the connections of one client to one server.
struct Load {
    net: Routed,
    server: UdpSocket,
    /// The sockets whose connections are open, each with the port that the server sees.
    open: Vec<(UdpSocket, Port)>,
    /// The source port of the next socket; outside of both sets.
    next: u16,
}

impl Load {
    fn new(apply: &str) -> Self {
        let net = Routed::new().unwrap();
        ephport_ok(&net.router, &format!("apply -p udp --address masquerade {apply}"));
        let server = net.server.run(|| UdpSocket::bind((SERVER_V4, PORT))).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { net, server, open: Vec::new(), next: 40_000 }
    }

    /// Opens connections, each from a socket of its own, until each was served or counted as failed; the
    /// count of those that were served.
    fn open(&mut self, count: usize) -> usize {
        let before = self.failed();
        let mut pending = Vec::new();
        for _ in 0..count {
            let port = self.next;
            self.next += 1;
            let client = self.net.client.run(|| UdpSocket::bind((CLIENT_V4, port))).unwrap();
            client.send_to(&port.to_be_bytes(), (SERVER_V4, PORT)).unwrap();
            pending.push((client, port));
        }
        let mut served = 0;
        while served + self.failed() - before < count {
            let Some((own, port)) = self.receive() else { continue };
            // A packet of an open connection has no pending socket.
            if let Some(at) = pending.iter().position(|(_, pending)| *pending == own) {
                self.open.push((pending.swap_remove(at).0, port));
                served += 1;
            }
        }
        served
    }

    /// A packet that the server gets: the source port of its sender, and the one that the server sees.
    fn receive(&self) -> Option<(u16, Port)> {
        let mut own = [0; 2];
        let (_, from) = self.server.recv_from(&mut own).ok()?;
        Some((u16::from_be_bytes(own), Port::new(from.port()).unwrap()))
    }

    /// The connections that conntrack could not insert for want of a port.
    fn failed(&self) -> usize {
        let statistics = self.net.router.run(|| Statistics::read().unwrap());
        usize::try_from(statistics.insert_failed).unwrap()
    }

    /// The connections in conntrack.
    fn tracked(&self) -> usize {
        self.net.router.run(|| Connections::open(Filter::default()).unwrap().count())
    }

    /// Ends connections at random until `left` are open. Packets keep the others alive meanwhile.
    fn end(&mut self, left: usize, mut random: u64) {
        while self.open.len() > left {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(random >> 33).unwrap() % self.open.len();
            self.open.swap_remove(at);
        }
        while self.tracked() > left {
            for (client, _) in &self.open {
                let own = client.local_addr().map(|address: SocketAddr| address.port()).unwrap();
                client.send_to(&own.to_be_bytes(), (SERVER_V4, PORT)).unwrap();
            }
            while self.receive().is_some() {}
        }
    }

    /// The ports of the open connections: each has its own, in the set.
    fn check(&self, set: &PortSet) {
        let seen: BTreeSet<Port> = self.open.iter().map(|(_, port)| *port).collect();
        assert_eq!(seen.len(), self.open.len(), "two connections have one port");
        assert!(seen.iter().all(|port| set.contains(*port)), "{seen:?} outside {set}");
    }
}

/// The connections of 120, 180, 216 and 240 that a set of 240 ports serves.
fn fill(target: &str, set: &PortSet, spread: Distribution) -> [usize; 4] {
    assert_eq!(set.count(), 240);
    let served = [120, 180, 216, 240].map(|count| {
        let mut load = Load::new(&format!("{target} --spread {spread}"));
        let served = load.open(count);
        load.check(set);
        served
    });
    println!("{target} --spread {spread}: {served:?} of [120, 180, 216, 240]");
    served
}

#[test]
fn equal_ranges_are_filled_by_round_robin() {
    let set = MAP_E.parse::<MapE>().unwrap().ports();
    for spread in Distribution::ALL {
        let served = fill(&format!("--map-e {MAP_E}"), &set, spread);
        match spread {
            Distribution::RoundRobin => assert_eq!(served, [120, 180, 216, 240]),
            Distribution::Remap => assert!(served[3] >= 236, "{served:?}"),
            _ => assert!(served[3] < 240, "{spread}: {served:?}"),
        }
    }
}

#[test]
fn unequal_ranges_are_filled_by_weight() {
    let set: PortSet = UNEQUAL.parse().unwrap();
    let [round_robin, rest @ ..] =
        Distribution::ALL.map(|spread| fill(&format!("--to-ports {UNEQUAL}"), &set, spread));
    let sizes = || set.ranges().iter().map(|range| usize::try_from(range.count()).unwrap());
    for (served, attempts) in round_robin.into_iter().zip([120, 180, 216, 240]) {
        // Each range gets a sixth of them.
        let most: usize = sizes().map(|size| size.min(attempts / 6)).sum();
        assert!(served <= most, "{served} of {attempts} served, at most {most} expected");
    }
    assert!(rest.iter().all(|served| served[3] > round_robin[3]), "{rest:?}");
}

/// The connections of 432 that fail where, six times, a third of 216 connections ends and as many begin.
fn churn(target: &str, set: &PortSet) -> usize {
    let mut load = Load::new(target);
    load.net.router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "1").unwrap();
    load.open(216);
    let rounds = 1..=6;
    let failed = rounds.map(|round| {
        load.end(144, round);
        let served = load.open(72);
        load.check(set);
        72 - served
    });
    let failed = failed.sum();
    println!("{target}: {failed} of 432 failed");
    failed
}

#[test]
fn only_contiguous_and_remapped_ranges_serve_all_under_churn() {
    let map_e = MAP_E.parse::<MapE>().unwrap().ports();
    let contiguous = "61200-61439".parse().unwrap();
    thread::scope(|scope| {
        let one = scope.spawn(|| churn("--to-ports 61200-61439", &contiguous));
        let many = Distribution::ALL.map(|spread| {
            let map_e = &map_e;
            scope.spawn(move || churn(&format!("--map-e {MAP_E} --spread {spread}"), map_e))
        });
        assert_eq!(one.join().unwrap(), 0);
        for (failed, spread) in
            many.map(|failed| failed.join().unwrap()).into_iter().zip(Distribution::ALL)
        {
            match spread {
                Distribution::Remap => assert_eq!(failed, 0),
                _ => assert!(failed > 0, "{spread}"),
            }
        }
    });
}
