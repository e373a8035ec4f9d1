//! The cost of the rules for an established UDP connection, in nanoseconds a packet.
//!
//! ```text
//! cargo run --release -p ephport-tests --example cost [ROUNDS [PACKETS]]
//! ```
//!
//! A client sends datagrams through a router to a server that reads none; in network namespaces of one
//! machine the sender's system call does all the work, and its processor time is measured. The routers differ only in their rules. They take turns
//! in each round, so that a change of the machine's speed concerns all; the medians of the rounds are printed.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ephport_tests::tool::nft_load;
use ephport_tests::{CLIENT_V4, Routed, SERVER_V4, ephport_ok};
use nix::time::{ClockId, clock_gettime};

/// A name, the rules that are loaded before the connection is opened, and the arguments of `apply` after that,
/// or before if `is_first`.
struct Setup {
    name: &'static str,
    before: &'static str,
    apply: &'static str,
    is_first: bool,
}

const CONNTRACK: &str = "table inet other {\n chain c { type filter hook prerouting priority 0; ct state invalid counter; }\n}\n";

const SETUPS: [Setup; 6] = [
    Setup { name: "no rules", before: "", apply: "", is_first: true },
    Setup { name: "conntrack only", before: CONNTRACK, apply: "", is_first: true },
    Setup { name: "ephport", before: "", apply: "--to-ports 49152-61000", is_first: true },
    Setup {
        name: "ephport --enforce",
        before: "",
        apply: "--to-ports 49152-61000 --enforce",
        is_first: true,
    },
    Setup {
        name: "ephport --enforce, 63 ranges",
        before: "",
        apply: "--map-e psid=52,psid-len=8,offset=6 --enforce",
        is_first: true,
    },
    Setup {
        name: "ephport --enforce, open connection",
        before: CONNTRACK,
        apply: "--to-ports 49152-61000 --enforce",
        is_first: false,
    },
];

/// A network with an established connection.
struct Bench {
    name: &'static str,
    client: UdpSocket,
    _server: UdpSocket,
    _net: Routed,
    nanoseconds: Vec<u128>,
}

impl Bench {
    fn new(setup: &Setup) -> Self {
        let net = Routed::new().expect("a network");
        if !setup.before.is_empty() {
            nft_load(&net.router, setup.before);
        }
        let apply = |is_now: bool| {
            if is_now && !setup.apply.is_empty() {
                ephport_ok(&net.router, &format!("apply {}", setup.apply));
            }
        };
        apply(setup.is_first);
        let to = SocketAddr::new(SERVER_V4, 7000);
        let server = net.server.run(|| UdpSocket::bind(to)).expect("a socket");
        let from = SocketAddr::new(CLIENT_V4, 40_000);
        let client = net.client.run(|| UdpSocket::bind(from)).expect("a socket");
        client.connect(to).expect("connected");
        let mut buffer = [0; 8];
        for _ in 0..3 {
            client.send(b"hello").expect("sent");
            let (_, seen) = server.recv_from(&mut buffer).expect("received");
            server.send_to(b"hello", seen).expect("sent");
            client.recv(&mut buffer).expect("a reply");
        }
        apply(!setup.is_first);
        client.send(b"hello").expect("sent");
        let (_, seen) = server.recv_from(&mut buffer).expect("received");
        println!("{}: the server sees {seen}", setup.name);
        Self { name: setup.name, client, _server: server, _net: net, nanoseconds: Vec::new() }
    }

    fn round(&mut self, packets: u32) {
        let start = cpu_time();
        for _ in 0..packets {
            // A full queue refuses a packet; that needs no time worth counting and does not occur here.
            let _ = self.client.send(&[0; 64]);
        }
        self.nanoseconds
            .push(cpu_time().saturating_sub(start).as_nanos() / u128::from(packets.max(1)));
    }

    fn median(&mut self) -> u128 {
        self.nanoseconds.sort_unstable();
        self.nanoseconds.get(self.nanoseconds.len() / 2).copied().unwrap_or_default()
    }
}

/// The processor time of this thread, in which the kernel forwards and delivers the packets too.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
}

fn main() {
    let number = |at: usize, default: u32| {
        std::env::args().nth(at).map_or(default, |text| text.parse().expect("a number"))
    };
    let (rounds, packets) = (number(1, 201), number(2, 2_000));
    let mut benches: Vec<_> = SETUPS.iter().map(Bench::new).collect();
    for round in 0..=rounds {
        for bench in &mut benches {
            bench.round(packets);
        }
        if round == 0 {
            // Caches are warm from here on.
            for bench in &mut benches {
                bench.nanoseconds.clear();
            }
        }
    }
    let medians: Vec<_> = benches.iter_mut().map(|bench| (bench.name, bench.median())).collect();
    let of =
        |wanted: &str| medians.iter().find(|(name, _)| *name == wanted).map_or(1, |(_, ns)| *ns);
    let (base, plain) = (of("conntrack only").max(1), of("ephport").max(1));
    println!("\n{:36} {:>9}  {:>13}  {:>12}", "rules", "ns/packet", "to conntrack", "to ephport");
    for (name, nanoseconds) in &medians {
        let ratio = |to: u128| {
            let thousandths = nanoseconds * 1000 / to;
            format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
        };
        println!("{name:36} {nanoseconds:>9}  {:>13}  {:>12}", ratio(base), ratio(plain));
    }
}
