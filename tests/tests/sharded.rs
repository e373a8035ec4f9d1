//! Sharded blocks of 65,536 sources replace each other under load, and an apply of them is killed: no source gets
//! a block that neither document gives it. Judged by the packets on the wire, and by the table that is left.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ephport_core::{Document, HostFacts};
use ephport_nft::{Applied, Client, Installed, Plan};
use ephport_tests::strace::{inject, points, traced};
use ephport_tests::wire::{Capture, Packet, Raw, Sender, plain, udp};
use ephport_tests::{Host, PolicyFile, Routed, SERVER_V4, Texts, is_long};

const UDP: u8 = 17;
const SIGKILL: i32 = 9;

/// The sources of packets: 10.0.0.0/15.
const SOURCES: u32 = 1 << 17;

/// A block of 1,008 ports for each of 65,536 sources.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    /// The number of the first source.
    first: u32,
    /// The number of its block.
    shift: u32,
}

/// The first two have the same sources, the third has half of them and as many others.
const DOCUMENTS: [Blocks; 3] = [
    Blocks { first: 0, shift: 0 },
    Blocks { first: 0, shift: 7 },
    Blocks { first: Blocks::COUNT / 2, shift: 3 },
];

impl Blocks {
    const COUNT: u32 = 65_536;
    const TEXT: &str = "[[policy]]\nname = \"b\"\nout-interfaces = [\"wan0\"]\nprotocols = [\"udp\"]\n\
                        blocks-file = \"b.csv\"\n";

    /// The outside address and the first port of a source.
    fn of(self, source: u32) -> Option<(Ipv4Addr, u16)> {
        let index = source.checked_sub(self.first).filter(|index| *index < Self::COUNT)?;
        let block = (index + self.shift) % Self::COUNT;
        let port = u16::try_from(1024 + 1008 * (block % 64)).expect("a port");
        Some((Ipv4Addr::from_bits(0xc612_0000 + block / 64), port))
    }

    fn csv(self) -> String {
        let mut text = String::new();
        for source in self.first..self.first + Self::COUNT {
            let (outside, first) = self.of(source).expect("a block");
            writeln!(text, "{},{outside},{first},{}", address(source), first + 1007)
                .expect("a string");
        }
        text
    }

    fn plan(self) -> Plan {
        let document = Document::read(Self::TEXT, &Texts(&[("b.csv", &self.csv())])).unwrap();
        Plan::new(document.policies(), &HostFacts::default()).unwrap()
    }

    /// Whether a packet of this source may be sent as it was seen.
    fn permits(self, source: u32, own_port: u16, seen: SocketAddr) -> bool {
        match self.of(source) {
            Some((outside, first)) => {
                seen.ip() == outside && (first..=first + 1007).contains(&seen.port())
            }
            None => seen == SocketAddr::new(address(source), own_port),
        }
    }
}

fn address(source: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + source).into()
}

/// The packet with this number, of a connection of its own: its source and port.
fn origin(number: u32) -> (u32, u16) {
    let source = number.wrapping_mul(40_503) % SOURCES;
    (source, u16::try_from(2000 + number / SOURCES).expect("a port"))
}

fn packet(number: u32) -> Raw {
    let (source, port) = origin(number);
    let (from, to) = (SocketAddr::new(address(source), port), SocketAddr::new(SERVER_V4, 443));
    let bytes = plain(from.ip(), to.ip(), UDP, &udp(from, to, &number.to_be_bytes()));
    Raw { name: String::new(), to: SERVER_V4, bytes }
}

/// The packets that none of the documents permits, and the count of all.
fn judge(packets: &[Packet], documents: [Blocks; 2]) -> (Vec<String>, usize) {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for packet in packets.iter().filter(|packet| packet.protocol == UDP) {
        let Some(bytes) = packet.transport.get(8..12) else { continue };
        let number = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        let (source, port) = origin(number);
        let seen = SocketAddr::new(packet.source, packet.source_port.expect("a port"));
        count += 1;
        if !documents.iter().any(|document| document.permits(source, port, seen)) {
            wrong.push(format!("{}:{port} as {seen}, {documents:?}", address(source)));
        }
    }
    (wrong, count)
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn replaced_shards_give_no_foreign_block() {
    let net = Routed::new().unwrap();
    net.router.address("lan0", "10.1.255.254/15").unwrap();
    let plans = DOCUMENTS.map(Blocks::plan);
    let mut nft = net.router.run(Client::open).unwrap();
    assert_eq!(nft.apply(&plans[0]), Ok(Applied::Installed));
    let mut capture = Capture::start(&net.server);
    let sender = Sender::new(&net.client);
    let is_over = AtomicBool::new(false);
    let rounds = if is_long() { 60 } else { 6 };
    let (mut wrong, mut count) = (Vec::new(), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                // The kernel refuses one when its queue is full.
                let _ = sender.send(&packet(number));
                number += 1;
                thread::sleep(Duration::from_micros(50));
            }
        });
        let _over = Over(&is_over);
        let mut judged = |packets: &[Packet], documents| {
            let (bad, all) = judge(packets, documents);
            wrong.extend(bad);
            count += all;
        };
        for round in 0..rounds {
            let (old, new) = (round % 3, (round + 1) % 3);
            // Those of before the change, and those during it.
            judged(&capture.ready(), [DOCUMENTS[old], DOCUMENTS[(round + 2) % 3]]);
            assert_eq!(nft.apply(&plans[new]), Ok(Applied::Updated), "{round}");
            judged(&capture.ready(), [DOCUMENTS[old], DOCUMENTS[new]]);
        }
    });
    println!("{count} packets in {rounds} replacements");
    assert!(wrong.is_empty(), "{} of {count}: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
    assert!(count > 1000, "{count} packets");
}

#[test]
fn killed_apply_leaves_whole_shards() {
    let host = Host::new("host").unwrap();
    let [old, new, _] = DOCUMENTS;
    let policy = PolicyFile::new(Blocks::TEXT).beside("b.csv", &new.csv());
    let (old, new) = (old.plan(), new.plan());
    let mut nft = host.run(Client::open).unwrap();
    nft.apply(&old).unwrap();
    let whole = traced(&host, &[], &["apply", policy.path()]);
    assert!(whole.output.status.success(), "{whole:?}");
    let points = points(&whole.calls);
    // From the whole run, and all around the commit, near its end.
    let spread = if is_long() { 64 } else { 5 };
    let chosen = points.iter().step_by(points.len().div_ceil(spread));
    let last = points.iter().rev().take(if is_long() { 40 } else { 6 });
    let mut found = [0, 0];
    for point @ (call, count) in chosen.chain(last) {
        nft.apply(&old).unwrap();
        let [only, inject] = inject(point, "signal=SIGKILL");
        let killed = traced(&host, &[&only, &inject], &["apply", policy.path()]);
        if killed.output.status.signal() != Some(SIGKILL) {
            continue; // This run made fewer calls.
        }
        let Installed::Ours { ruleset, intact: true, .. } = nft.installed().unwrap() else {
            panic!("neither document after {call} {count}");
        };
        let normalized = ruleset.normalized();
        let is_new = normalized == new.table.normalized();
        assert!(is_new || normalized == old.table.normalized(), "torn after {call} {count}");
        found[usize::from(is_new)] += 1;
    }
    println!(
        "{} calls; the old document after {} kills, the new after {}",
        points.len(),
        found[0],
        found[1]
    );
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
}
