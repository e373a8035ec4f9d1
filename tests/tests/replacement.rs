//! Replacing a document by one that differs in one key, under load, judged by the packets on the wire: none is
//! sent that neither document allows, and connections that both treat alike are not affected.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ephport_core::policy::keys::KEYS;
use ephport_core::{Document, Flow, HostFacts, Port, ResolvedPolicy, TcpOpening};
use ephport_nft::interpret::permits;
use ephport_nft::nftables::expr::Expr;
use ephport_nft::table::layout::{POSTROUTING, policy_of};
use ephport_nft::{Applied, Client, Installed, TableState, compile, host};
use ephport_tests::outcome::Outcome;
use ephport_tests::tool::{nft_load, tool};
use ephport_tests::wire::{Capture, Packet, Raw, Sender, plain, tcp, udp};
use ephport_tests::{
    CLIENT_V4, CLIENT_V6, Host, ROUTER_V4, ROUTER_V6, Routed, Texts, installed, is_long,
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// More ranges than are compared one by one.
const RANGES: &str = "\"3001-3100,3201-3300,3401-3490,3501-3600,3701-3800,3901-3999,49152-61000\"";
const MORE_RANGES: &str = "\"3001-3100,3201-3300,3401-3490,3501-3600,3701-3800,49152-61000\"";

/// So many that a permitted port is looked up by its leading bits.
const MANY_RANGES: [&str; 2] = [
    "\"3001-3100,3201-3300,3401-3500,3601-3700,3801-3900,4001-4100,4201-4300,4401-4500,4601-4700,4801-4900,5001-5100,5201-5300,5401-5500,5601-5700,5801-5900,6001-6100,6201-6300,6401-6500,49152-61000\"",
    "\"3001-3100,3201-3300,3401-3500,3601-3740,3801-3900,4001-4100,4201-4300,4401-4500,4601-4700,4801-4900,5001-5100,5201-5300,5401-5500,5601-5700,5801-5900,6001-6100,6201-6300,6401-6500,6601-6700,49152-61000\"",
];

/// Files of blocks.
const BLOCKS: Texts<'_> = Texts(&[
    ("a.csv", "10.77.1.2,,21000,21999\n10.77.1.3,,50000,50999\n"),
    ("b.csv", "10.77.1.2,,22000,22999\n10.77.1.3,,50000,50999\n"),
]);

/// What differs between two documents of a pair.
#[derive(Clone, Copy)]
struct Pairs {
    /// Keys that both documents have, each with its value.
    common: &'static [(&'static str, &'static str)],
    /// The values of the key, of which each follows the one before it; an empty one omits the key.
    values: &'static [&'static str],
}

const fn values(values: &'static [&'static str]) -> Pairs {
    Pairs { common: &[], values }
}

/// The pairs of a key; none if this file does not know the key.
fn pairs(key: &str) -> Option<Pairs> {
    const SWITCH: Pairs = values(&["false", "true"]);
    const NETWORKS: Pairs = values(&[
        "",
        "[\"10.77.1.2/32\", \"203.0.113.0/24\", \"2001:db8:1::/64\"]",
        "[\"10.77.1.2/32\", \"10.77.8.0/24\", \"10.77.16.0/20\", \"203.0.0.0/16\", \"2001:db8:1::/64\", \"2001:db8:9::/64\"]",
    ]);
    const DESTINATIONS: Pairs = values(&[
        "",
        "[\"10.128.0.0/12\", \"2001:db8:a::/48\"]",
        "[\"10.128.0.0/12\", \"198.51.100.0/24\", \"192.0.2.0/24\", \"2001:db8:a::/48\", \"2001:db8:c::/48\"]",
    ]);
    Some(match key {
        "name" => values(&["\"varied\"", "\"other\""]),
        "protocols" => values(&["[\"tcp\", \"udp\"]", "[\"udp\"]", "[\"tcp\", \"sctp\"]"]),
        "out-interfaces" => {
            values(&["[\"wan0\"]", "\"uplinks\"", "\"any\"", "[\"w*\", \"lan0\"]", "[\"lan0\"]"])
        }
        "except-interfaces" => Pairs {
            common: &[("out-interfaces", "\"any\"")],
            values: &["", "[\"lan0\"]", "[\"lan0\", \"wan0\"]"],
        },
        "in-interfaces" => values(&["", "[\"lan0\"]", "[\"lan0\", \"docker0\"]", "[\"docker0\"]"]),
        "sources" => NETWORKS,
        "destinations" | "except-destinations" => DESTINATIONS,
        "destination-ports" => {
            values(&["", "\"443\"", "\"80,443\"", "\"50-60,80-90,200,300-310,400-443,4500\""])
        }
        "origin" => values(&["\"both\"", "\"local\"", "\"forwarded\""]),
        "families" => values(&["", "[\"ipv4\"]", "[\"ipv6\"]"]),
        "mark" => values(&["", "\"0x1\"", "\"0x1/0xff\""]),
        "ipsec" => values(&["\"skip\"", "\"match\""]),
        "source-ports" => values(&[
            "",
            "\"30000-65535\"",
            "\"1024-1999,2000-2999,3000-3999,30000-39999,40000-41000,49000-49999,55000-65535\"",
            "\"1024-1999,2000-2999,3000-3999,30000-39999,40000-41000,49000-49999\"",
        ]),
        "exempt-source-ports" => values(&[
            "",
            "\"40000\"",
            "\"2000,4500,5353,40000,51820\"",
            "\"2000,4500,5353-5360,51820-51830,61500\"",
        ]),
        "to-ports" => values(&[
            "\"49152-61000\"",
            "\"30000-39999\"",
            "\"30000-30999,49152-49999\"",
            RANGES,
            MORE_RANGES,
            MANY_RANGES[0],
            MANY_RANGES[1],
            "\"local\"",
        ]),
        "map-e" => Pairs {
            common: &[("to-ports", "")],
            values: &["\"psid=52,psid-len=8,offset=6\"", "\"psid=53,psid-len=8,offset=6\""],
        },
        "blocks" => Pairs {
            common: &[("to-ports", ""), ("sources", "[\"10.77.1.0/24\"]")],
            values: &[
                "\"10.77.1.0/28=1000@20000-65535\"",
                "\"10.77.1.0/28=2000@20000-65535\"",
                "[\"10.77.1.2=21000-21999\", \"10.77.1.3=50000-50999\"]",
            ],
        },
        "blocks-file" => Pairs {
            common: &[("to-ports", ""), ("sources", "[\"10.77.1.0/24\"]")],
            values: &["\"a.csv\"", "\"b.csv\""],
        },
        "except-ports" => values(&["", "\"50000-50999\"", "\"49200\""]),
        "random" | "fully-random" | "persistent" | "enforce" => SWITCH,
        "spread" => Pairs {
            common: &[("to-ports", RANGES), ("address", "\"masquerade\""), ("sources", "")],
            values: &[
                "",
                "\"round-robin\"",
                "\"hash\"",
                "\"weighted\"",
                "\"remap\"",
                "\"round-robin\"",
            ],
        },
        "per-source-stable" => Pairs { common: &[("to-ports", RANGES)], ..SWITCH },
        "address" => values(&[
            "\"masquerade\"",
            "\"keep\"",
            "\"auto\"",
            "\"203.0.113.1\"",
            "\"2001:db8:2::1\"",
        ]),
        "timeouts" => {
            values(&["", "{ udp-unreplied = 90 }", "{ udp-80-replied = 200, tcp-close = 20 }"])
        }
        "pick-up" => values(&["\"opening\"", "\"any\""]),
        "open-connections" => values(&["\"keep\"", "\"drop\""]),
        "expected-connections" => values(&["\"pass\"", "\"drop\""]),
        _ => return None,
    })
}

/// The policies whose keys are varied: with enforcement, without it, and with many ranges of ports.
const BASES: [&[(&str, &str)]; 3] = [
    &[("to-ports", "\"49152-61000\""), ("enforce", "true")],
    &[("to-ports", "\"49152-61000\""), ("enforce", "false")],
    &[
        ("to-ports", RANGES),
        ("enforce", "true"),
        ("exempt-source-ports", "\"2000,4500,5353,6000,7000,8000\""),
        (
            "sources",
            "[\"10.77.1.2/32\", \"10.99.0.0/16\", \"203.0.113.0/24\", \"2001:db8:1::/64\", \"2001:db8:2::/64\"]",
        ),
    ],
];

/// A policy that no document changes, before the one that varies.
const FIXED: &str = "[[policy]]\nname = \"fixed\"\nout-interfaces = [\"wan0\"]\nsource-ports = \"20000-20999\"\n\
                     to-ports = \"45000-45999\"\n";

/// The document of a base with other values of some keys.
fn document(base: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    let mut keys = BTreeMap::from([("name", "\"varied\""), ("out-interfaces", "[\"wan0\"]")]);
    keys.extend(base.iter().chain(changes).copied());
    let lines = keys.iter().filter(|(_, value)| !value.is_empty());
    let lines: Vec<_> = lines.map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{FIXED}\n[[policy]]\n{}\n", lines.join("\n"))
}

/// Two documents that differ in one key.
struct Pair {
    name: String,
    documents: [(Vec<ResolvedPolicy>, TableState); 2],
    /// Whether the rules of other policies keep their counters: docs/guarantee.md.
    keeps_counters: bool,
    /// Whether packets are lost for some milliseconds: docs/guarantee.md.
    loses_packets: bool,
}

fn pairs_of(key: &str, base: &[(&str, &str)], facts: &HostFacts) -> Vec<Pair> {
    let Pairs { common, values } =
        pairs(key).unwrap_or_else(|| panic!("no pair of documents differs in {key}: add one"));
    let compiled = |text: &str| {
        let parsed =
            Document::read(text, &BLOCKS).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let policies = parsed.resolve(facts).expect("resolved");
        let table = compile(&policies).expect("compiled");
        (policies, table)
    };
    let pair = |two: &[&'static str]| {
        let of = |value| document(base, &[common, &[(key, value)]].concat());
        let name = format!("{key}: {} and {}", two[0], two[1]);
        let [first, second] = [of(two[0]), of(two[1])];
        assert_ne!(first, second, "{name}");
        Pair {
            name,
            documents: [compiled(&first), compiled(&second)],
            keeps_counters: key != "ipsec",
            loses_packets: two.contains(&"\"remap\""),
        }
    };
    values.windows(2).map(pair).collect()
}

/// Packets that differ in their destination only; each opens a connection.
#[derive(Clone, Debug)]
struct Class {
    is_forwarded: bool,
    protocol: u8,
    flags: u8,
    source: SocketAddr,
    destination: SocketAddr,
}

/// The connections of a class, each to a destination of its own. The first is opened once and continued.
const ROUNDS: u32 = 2500;
const LASTING: u32 = 0;

impl Class {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        let nets: [[IpAddr; 2]; 2] = [
            [[10, 128, 0, 0].into(), [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0].into()],
            [[10, 144, 0, 0].into(), [0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0].into()],
        ];
        for (is_forwarded, sources) in
            [(true, [CLIENT_V4, CLIENT_V6]), (false, [ROUTER_V4, ROUTER_V6])]
        {
            for (protocol, flags) in [(UDP, 0), (TCP, 0x02), (TCP, 0x10)] {
                for port in [500, 2000, 3050, 20_500, 21_500, 40_000, 50_100, 61_500] {
                    for (family, source) in sources.into_iter().enumerate() {
                        // Mid-stream, a connection has other ends than any that opens.
                        let port = port + u16::from(flags == 0x10);
                        for (net, destination_port) in [(0, 443), (1, 80)] {
                            all.push(Self {
                                is_forwarded,
                                protocol,
                                flags,
                                source: SocketAddr::new(source, port),
                                destination: SocketAddr::new(nets[net][family], destination_port),
                            });
                        }
                    }
                }
            }
        }
        all
    }

    fn flow(&self) -> Flow {
        let protocol = if self.protocol == TCP {
            ephport_core::Protocol::Tcp
        } else {
            ephport_core::Protocol::Udp
        };
        let out = "wan0".parse().expect("a name");
        let flow = Flow::new(protocol, self.source, self.destination, out).expect("a flow");
        let flow = flow.with_opening(if self.flags == 0x10 {
            TcpOpening::MidStream
        } else {
            TcpOpening::Opening
        });
        // The router marks these: see `MARKS`.
        let flow = if self.source.port() == 2000 { flow.with_mark(1) } else { flow };
        if self.is_forwarded {
            flow.with_in_interface("lan0".parse().expect("a name"))
        } else {
            flow
        }
    }

    /// The packet of this class, the number `class`, in a round.
    fn packet(&self, class: u16, round: u32) -> Raw {
        let to =
            SocketAddr::new(within(self.destination.ip(), class, round), self.destination.port());
        let tag = class.to_be_bytes();
        let transport = match self.protocol {
            TCP => tcp(self.source, to, self.flags, &tag),
            _ => udp(self.source, to, &tag),
        };
        let bytes = plain(self.source.ip(), to.ip(), self.protocol, &transport);
        Raw { name: String::new(), to: to.ip(), bytes }
    }
}

/// The address of a network to which no other class sends, and this one in this round only: a translated port
/// is free there.
fn within(network: IpAddr, class: u16, round: u32) -> IpAddr {
    let number = round * 400 + u32::from(class);
    match network {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | number).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(number)).into(),
    }
}

/// The router marks the packets of one source port, of the host behind it and of its own.
const MARKS: &str = "table inet marks {\n chain pre { type filter hook prerouting priority -150; th sport 2000 meta mark set 1; }\n \
                     chain out { type filter hook output priority -150; th sport 2000 meta mark set 1; }\n}\n";

fn network() -> Routed {
    let net = Routed::new().unwrap();
    for host in [&net.client, &net.router] {
        let sender = Sender::new(host);
        // The link addresses are known from here on.
        for (class, number) in Class::all().iter().zip(0..) {
            drop(sender.send(&class.packet(number, 0)));
        }
    }
    nft_load(&net.router, MARKS);
    net
}

/// What arrived of one class.
#[derive(Clone, Debug, Default)]
struct Count {
    sent: u32,
    received: u32,
    /// The source of the lasting connection.
    lasting: Option<SocketAddr>,
}

/// The frames that a pair of documents must not let out, and the connections that it must not affect.
struct Judge<'a> {
    classes: &'a [Class],
    outcomes: Vec<[Outcome; 2]>,
    arrived: Vec<Count>,
    faults: Vec<String>,
}

impl Judge<'_> {
    fn see(&mut self, packet: &Packet) {
        let header = if packet.protocol == TCP { 20 } else { 8 };
        let (Some(tag), Some(port)) =
            (packet.transport.get(header..header + 2), packet.source_port)
        else {
            return;
        };
        let index = usize::from(u16::from_be_bytes([tag[0], tag[1]]));
        let (Some(class), Some(outcomes)) = (self.classes.get(index), self.outcomes.get(index))
        else {
            return;
        };
        let source = SocketAddr::new(packet.source, port);
        if !outcomes.iter().any(|outcome| outcome.contains(source)) {
            self.faults.push(format!("{class:?} was sent as {source}: neither document allows it"));
        }
        let arrived = &mut self.arrived[index];
        arrived.received += 1;
        if packet.destination
            == within(class.destination.ip(), u16::from_be_bytes([tag[0], tag[1]]), LASTING)
        {
            let first = *arrived.lasting.get_or_insert(source);
            if first != source {
                self.faults.push(format!("{class:?} changed from {first} to {source}"));
            }
        }
    }

    fn finish(mut self, may_lose: bool) -> Vec<String> {
        let each = self.classes.iter().zip(&self.outcomes).zip(&self.arrived);
        let lost = each.filter(|((_, [a, b]), seen)| {
            !may_lose && a == b && !a.ports.is_empty() && seen.sent != seen.received
        });
        let lost = lost.map(|((class, _), Count { sent, received, .. })| {
            format!("{class:?}: {} of {sent} packets lost", i64::from(*sent) - i64::from(*received))
        });
        self.faults.extend(lost.collect::<Vec<_>>());
        self.faults
    }
}

/// Applies the documents in turn until `stop`: how often, and how often the whole table was replaced for it.
fn alternate(router: &Host, pair: &Pair, stop: &AtomicBool) -> (u32, u32) {
    router.run(|| {
        let mut client = Client::open().expect("a socket");
        let (mut count, mut replaced) = (0, 0);
        for (_, table) in pair.documents.iter().cycle().skip(1) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let applied = client.apply(table).expect("applied");
            replaced += u32::from(applied == Applied::Replaced);
            count += 1;
        }
        (count, replaced)
    })
}

/// Sends packets of all classes until `duration` has passed.
fn load(net: &Routed, judge: &mut Judge<'_>, duration: Duration) {
    const BATCH: usize = 64;
    let mut capture = Capture::start(&net.server);
    let senders = [Sender::new(&net.router), Sender::new(&net.client)];
    let start = Instant::now();
    let numbered: Vec<_> = judge.classes.iter().zip(0u16..).collect();
    for round in 1..ROUNDS {
        for some in numbered.chunks(BATCH) {
            for (class, number) in some {
                let sender = &senders[usize::from(class.is_forwarded)];
                for round in [round, LASTING] {
                    // A drop in the output hook is EPERM.
                    let _ = sender.send(&class.packet(*number, round));
                    judge.arrived[usize::from(*number)].sent += 1;
                }
            }
            capture.ready().iter().for_each(|packet| judge.see(packet));
        }
        if start.elapsed() > duration {
            break;
        }
    }
    capture.packets().iter().for_each(|packet| judge.see(packet));
}

/// The connections that the rules of the policy `fixed` have counted.
fn counted(router: &Host) -> u64 {
    let Installed::Ours { ruleset: table, .. } = installed(router) else { return 0 };
    let rules = table.rules.iter().filter(|rule| {
        rule.chain == POSTROUTING && policy_of(rule).is_some_and(|name| name.as_str() == "fixed")
    });
    let counters = rules.flat_map(|rule| &rule.exprs).filter_map(|expr| match expr {
        Expr::Counter(counter) => Some(counter.packets),
        _ => None,
    });
    counters.sum()
}

/// Alternates the documents of a pair under load; what happened that must not.
fn replace(net: &Routed, classes: &[Class], pair: &Pair, duration: Duration) -> (u32, Vec<String>) {
    let outcomes = classes.iter().map(|class| {
        let flow = class.flow();
        pair.documents.each_ref().map(|(policies, _)| Outcome::of(policies, &flow))
    });
    let outcomes: Vec<_> = outcomes.collect();
    let mut judge = Judge {
        classes,
        arrived: vec![Count::default(); outcomes.len()],
        outcomes,
        faults: Vec::new(),
    };
    assert!(tool(&net.router, "conntrack", &["-F"], "").success);
    ephport_tests::apply(&net.router, &pair.documents[0].1);
    let before = counted(&net.router);
    let stop = AtomicBool::new(false);
    let (replacements, replaced) = thread::scope(|scope| {
        let replacing = scope.spawn(|| alternate(&net.router, pair, &stop));
        load(net, &mut judge, duration);
        stop.store(true, Ordering::Relaxed);
        replacing.join().expect("applied")
    });
    let fixed = judge
        .classes
        .iter()
        .zip(&judge.arrived)
        .filter(|(class, _)| class.source.port() == 20_500 && class.flags != 0x10);
    // Each packet of these opens a connection but those of the lasting one, which opens once.
    let expected: u64 = fixed.map(|(_, seen)| u64::from(seen.sent / 2 + 1)).sum();
    let found = counted(&net.router).saturating_sub(before);
    let mut faults = judge.finish(pair.loses_packets);
    if replaced > 0 {
        faults.push(format!("{replaced} times the whole table was replaced"));
    } else if found != expected && pair.keeps_counters && !pair.loses_packets {
        faults.push(format!("the policy `fixed` counted {found} connections of {expected}"));
    }
    (replacements, faults)
}

/// A packet in flight while a commit adds the chain of a block is evaluated by the rules of before, for which the
/// chain is empty, though the map names it.
#[test]
fn enforcement_drops_where_the_chain_of_a_block_is_empty() {
    let keys =
        [("to-ports", ""), ("blocks", "\"10.77.1.0/28=2000@20000-65535\""), ("enforce", "true")];
    let parsed = Document::read(&document(&[], &keys), &BLOCKS).unwrap();
    let mut table = compile(&parsed.resolve(&HostFacts::default()).unwrap()).unwrap();
    let own: Port = "24000".parse().unwrap();
    let flow: Flow = "tcp 10.77.1.2:24000 -> 203.0.113.9:443 oif wan0 iif lan0".parse().unwrap();
    assert!(permits(&table, &flow, own).unwrap());
    table.rules.retain(|rule| !rule.chain.starts_with("varied/enforce/"));
    assert!(!permits(&table, &flow, own).unwrap());
}

#[test]
fn a2_documents_that_differ_in_one_key_are_replaced_without_harm() {
    let net = network();
    let facts = net.router.run(host::facts).unwrap();
    let classes = Class::all();
    let duration = Duration::from_millis(if is_long() { 2000 } else { 250 });
    let mut faults = BTreeMap::new();
    let mut total = 0;
    for (key, at) in KEYS.iter().zip(0..) {
        for (base, keys) in BASES.iter().enumerate() {
            for (number, pair) in pairs_of(key.name, keys, &facts).into_iter().enumerate() {
                // Each pair has one of the bases, with EPHPORT_LONG all of them.
                if !is_long() && (at + number + base) % BASES.len() != 0 {
                    continue;
                }
                let (replacements, found) = replace(&net, &classes, &pair, duration);
                total += replacements;
                if !found.is_empty() {
                    let some = found[..found.len().min(3)].to_vec();
                    faults.insert((base, pair.name), (found.len(), some));
                }
            }
        }
    }
    // An emulated processor replaces some ten times a second.
    assert!(total > 100, "{total} replacements");
    assert!(faults.is_empty(), "{faults:#?}");
}
