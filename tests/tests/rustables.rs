//! Our programs, sent by rustables: the table equals the one that our client installs. A policy that
//! rustables cannot express is refused.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use ephport_core::decision::PRIVATE_NETWORKS;
use ephport_core::strategies::policies;
use ephport_core::{
    Address, Document, Family, HostFacts, NatFlags, OpenConnections, Origin, PermittedPorts,
    PortRange, PortSet, ResolvedPolicy,
};
use ephport_nft::netlink::{Attr, Attrs, Messages, NfGenMsg, Reader, Writer};
use ephport_nft::nftables::expr::{self, Expr, Register};
use ephport_nft::nftables::{self, Elements};
use ephport_nft::rustables::{Lack, Unsupported, Values};
use ephport_nft::table::layout::{FAMILY, TABLE};
use ephport_nft::table::{Set, SetName};
use ephport_nft::{Applied, Installed, TableState, compile, uapi};
use ephport_tests::random::samples;
use ephport_tests::{Host, Protocol, Routed, SERVER_V4, Server, apply, compiled, installed, seen};
use ipnet::IpNet;
use rustables::expr as theirs;
use rustables::set::SetBuilder;
use rustables::{Batch, MsgType};

const POLICIES: usize = 1600;

/// Policies that are rare among random ones: sets of single keys, enforcement of one range, a single port
/// by `nat`, private sources; then policies that are refused only for a lookup, only for flags, only for
/// excepted ports, only for an address of conntrack; then enforcement that is carried.
const RARE: [&str; 9] = [
    r#"sources = ["192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"]
       source-ports = "500,4500,65535"
       to-ports = "49152-61000"
       out-interfaces = ["eth0"]
       address = "masquerade""#,
    r#"source-ports = "1-65535"
       to-ports = "49152-61000"
       out-interfaces = "any"
       address = "masquerade"
       enforce = true"#,
    r#"to-ports = "50000"
       out-interfaces = "any"
       address = "keep""#,
    r#"to-ports = "49152-61000"
       out-interfaces = "any"
       sources = ["10.0.0.0/8", "172.16.0.0/12", "fd00::/8"]
       origin = "forwarded""#,
    r#"to-ports = "49152-61000"
       out-interfaces = "any"
       address = "masquerade"
       except-destinations = ["192.0.2.1", "192.0.2.9"]"#,
    r#"to-ports = "50000"
       out-interfaces = "any"
       address = "keep"
       random = true"#,
    r#"to-ports = "49152-61000"
       out-interfaces = "any"
       address = "masquerade"
       source-ports = "1024-2047,2049-2999,3001-3999,4001-4999,5001-7000""#,
    r#"to-ports = "49152-61000"
       out-interfaces = "any"
       address = "masquerade"
       sources = ["10.0.0.0/8"]
       enforce = true
       open-connections = "drop""#,
    r#"source-ports = "1-65535"
       to-ports = "49152-61000"
       out-interfaces = "any"
       address = "masquerade"
       enforce = true
       open-connections = "drop""#,
];

fn cases() -> Vec<(ResolvedPolicy, TableState)> {
    let rare = RARE.iter().flat_map(|text| {
        let text = format!("[[policy]]\nname = \"default\"\n{text}");
        let document: Document = text.parse().expect("a document");
        document.resolve(&HostFacts::default()).expect("resolved")
    });
    let random = samples(&policies(), POLICIES).into_iter();
    let random = random.filter_map(|policy| policy.resolve(&HostFacts::default()).ok());
    let compiled = |policy: ResolvedPolicy| {
        let ruleset = compile(std::slice::from_ref(&policy)).expect("a program");
        (policy, ruleset)
    };
    rare.chain(random).map(compiled).collect()
}

/// Replaces the table, as in the library's documentation.
fn send(host: &Host, values: &Values) {
    let sent = host.run(|| {
        let mut batch = Batch::new();
        batch.add(&values.table, MsgType::Add);
        batch.add(&values.table, MsgType::Del);
        values.add_to(&mut batch);
        batch.send().map_err(|error| error.to_string())
    });
    sent.expect("sent");
}

/// Sends the program by rustables and returns the installed table, which our client does not change.
fn sent(host: &Host, ruleset: &TableState) -> TableState {
    send(host, &Values::of(ruleset).expect("carried"));
    assert_eq!(apply(host, ruleset), Applied::Unchanged, "{}", ruleset.to_nft());
    match installed(host) {
        Installed::Ours { ruleset, intact: true, .. } => ruleset,
        other => panic!("{other:?}"),
    }
}

/// What rustables cannot express of this policy, derived from the policy only.
fn lacks(policy: &ResolvedPolicy) -> HashSet<Lack> {
    let families = [Family::Ipv4, Family::Ipv6].into_iter();
    let scopes: Vec<_> = families.filter_map(|family| Scope::of(policy, family)).collect();
    let mut lacks: HashSet<_> = scopes.iter().flat_map(|scope| scope.lacks(policy)).collect();
    let is_translated = scopes.iter().any(|scope| scope.has_ports);
    // More than four ranges with few ports between them are one range without these ports.
    let has_excepted = |ports: &PortSet| {
        let between = || PortSet::from(hull(ports)).difference(ports).count();
        let ranges = ports.ranges();
        ranges.len() > 4 && ranges.iter().any(|range| range.count() > 1) && between() <= 64
    };
    let (permitted, is_map) = match &policy.permitted {
        PermittedPorts::Set(ports) => (&policy.permitted_source_ports, ports.ranges().len() > 1),
        PermittedPorts::Blocks(_) => (&policy.untranslated, is_translated),
    };
    let is_timed =
        is_translated && policy.protocols.iter().any(|known| has_timeouts(policy, known));
    let is_one_port = policy.permitted.ports().count() == 1;
    let has_nat = is_translated && scopes.iter().any(|scope| scope.has_nat(policy));
    let NatFlags { random, fully_random, persistent } = policy.flags;
    let parts = [
        (is_translated && has_excepted(&policy.translated), Lack::LookupFlags),
        (policy.enforce && has_excepted(permitted), Lack::LookupFlags),
        (is_map, Lack::Map),
        (policy.enforce && policy.open_connections == OpenConnections::Keep, Lack::OpenConnections),
        (is_timed, Lack::Timeouts),
        (has_nat && !is_one_port, Lack::NatRange),
        (has_nat && (random || fully_random || persistent), Lack::NatFlags),
    ];
    lacks.extend(lacking(&parts));
    lacks
}

/// Whether some connection of a protocol gets timeouts: the first group with its destination port decides.
fn has_timeouts(policy: &ResolvedPolicy, protocol: ephport_core::Protocol) -> bool {
    let mut left = policy.destination_ports.clone();
    policy.timeouts.groups(protocol).into_iter().any(|(ports, timeouts)| {
        let is_reached = !ports.intersection(&left).is_empty();
        left = left.difference(&ports);
        is_reached && !timeouts.is_empty()
    })
}

/// From the lowest to the highest port.
fn hull(ports: &PortSet) -> PortRange {
    let ranges = ports.ranges();
    PortRange::new(ranges[0].first(), ranges[ranges.len() - 1].last()).expect("a range")
}

fn lacking(parts: &[(bool, Lack)]) -> impl Iterator<Item = Lack> {
    parts.iter().filter(|(is_lacking, _)| *is_lacking).map(|(_, lack)| *lack)
}

/// The scope of a policy's rules for one family.
struct Scope {
    sources: Vec<IpNet>,
    excepted: Vec<IpNet>,
    has_ports: bool,
}

impl Scope {
    /// The scope, or `None` without rules for the family.
    fn of(policy: &ResolvedPolicy, family: Family) -> Option<Self> {
        let is_all = |net: &IpNet| net.prefix_len() == 0;
        let sources = of_family(&policy.sources, family);
        let excepted = of_family(&policy.except_destinations, family);
        let has_ports = match &policy.permitted {
            PermittedPorts::Set(_) => true,
            PermittedPorts::Blocks(blocks) => {
                blocks.iter().any(|block| Family::of(block.source) == family)
            }
        };
        let has_source = policy.sources.is_empty() || !sources.is_empty();
        let has_destination = !excepted.iter().any(is_all);
        let is_in_scope = policy.families.contains(family) && has_source && has_destination;
        let sources = sources.into_iter().filter(|net| !is_all(net)).collect();
        let scope = Self { sources, excepted, has_ports };
        (is_in_scope && (has_ports || policy.enforce)).then_some(scope)
    }

    fn lacks(&self, policy: &ResolvedPolicy) -> Vec<Lack> {
        // Networks with the same length of prefix are in one set.
        let mut lens: Vec<_> = self.excepted.iter().map(IpNet::prefix_len).collect();
        lens.sort_unstable();
        let is_set = lens.windows(2).any(|pair| pair[0] == pair[1]);
        let is_enforced = policy.enforce && !self.sources.is_empty();
        lacking(&[(is_set, Lack::LookupFlags), (is_enforced, Lack::CtAddress)]).collect()
    }

    /// Whether some address is kept or given, which requires `nat`.
    fn has_nat(&self, policy: &ResolvedPolicy) -> bool {
        let is_private = |net: &IpNet| PRIVATE_NETWORKS.iter().any(|private| private.contains(net));
        match policy.address {
            Address::Keep | Address::Fixed(_) => true,
            // Sockets of the host may have an address of the output interface.
            Address::Auto => {
                policy.origin != Origin::Forwarded
                    || self.sources.is_empty()
                    || !self.sources.iter().all(is_private)
            }
            Address::Masquerade => false,
        }
    }
}

/// The networks of one family, merged.
fn of_family(networks: &[IpNet], family: Family) -> Vec<IpNet> {
    let of_family = networks.iter().filter(|net| Family::of(net.addr()) == family);
    IpNet::aggregate(&of_family.copied().collect())
}

#[test]
fn sent_by_rustables_equals_sent_by_client() {
    let (host, own) = (Host::new("host").unwrap(), Host::new("own").unwrap());
    let (mut carried, mut refused) = (0, HashSet::new());
    let cases = cases();
    for (policy, ruleset) in &cases {
        let expected = lacks(policy);
        match Values::of(ruleset) {
            Ok(_) => {
                assert_eq!(expected, HashSet::new(), "{}", ruleset.to_nft());
                let found = sent(&host, ruleset);
                apply(&own, ruleset);
                let Installed::Ours { ruleset: by_us, .. } = installed(&own) else { panic!() };
                assert_eq!(found.normalized(), by_us.normalized(), "{}", ruleset.to_nft());
                carried += 1;
            }
            Err(error @ (Unsupported::Expression { lack, .. } | Unsupported::Set { lack, .. })) => {
                assert!(expected.contains(&lack), "{error}\n{}", ruleset.to_nft());
                // The ports that all enforced policies permit belong to no single one.
                let is_common = matches!(&error,
                    Unsupported::Set { chain: Some(chain), policy: None, .. } if chain == "enforce");
                let place = if is_common { " in chain enforce: " } else { ", of policy default: " };
                assert!(!is_common || policy.enforce && lack == Lack::LookupFlags, "{error}");
                assert!(error.to_string().contains(place), "{error}");
                refused.insert(lack);
            }
            Err(error) => panic!("{error}"),
        }
    }
    println!("{carried} of {} carried; the others lack {refused:?}", cases.len());
    assert!(carried >= 100, "{carried}");
    let reasons = [
        Lack::NatRange,
        Lack::NatFlags,
        Lack::CtAddress,
        Lack::LookupFlags,
        Lack::Map,
        Lack::OpenConnections,
        Lack::Timeouts,
    ];
    assert_eq!(refused, reasons.into());
}

#[test]
fn interval_sets_are_refused() {
    let mut ruleset = compiled(&format!("[[policy]]\nname = \"default\"\n{}", RARE[0]));
    let ports = "1024-2000,3000-4000".parse().unwrap();
    ruleset.sets.push(Set::ports(SetName::Named("ports"), &ports));
    let Err(error) = Values::of(&ruleset) else { panic!() };
    assert!(matches!(error, Unsupported::Set { lack: Lack::Interval, .. }), "{error}");
}

#[test]
fn expressions_without_counterpart_are_refused() {
    use expr::{Byteorder, Hash, Masq, Numgen, Range, RangeOp, Register};
    let (from, to) = (expr::Data::value(&[4, 0]), expr::Data::value(&[8, 0]));
    let range = Range { sreg: Register::R1, op: RangeOp::Eq, from, to };
    let high = Masq { proto_min: Some(Register(9)), ..Masq::default() };
    let exprs: [(Expr, Lack); 6] = [
        (Numgen::random(2).into(), Lack::Expression),
        (Hash::jenkins(8, 2, 0).into(), Lack::Expression),
        (Byteorder::TO_NETWORK.into(), Lack::Expression),
        (range.into(), Lack::Expression),
        (expr::Opaque::new("quota".into(), None).into(), Lack::Expression),
        (high.into(), Lack::Register),
    ];
    for (expr, expected) in exprs {
        let rule = nftables::Rule::new(FAMILY, TABLE, "c", vec![expr]);
        let table = TableState {
            chains: vec![nftables::Chain::regular(FAMILY, TABLE, "c")],
            rules: vec![rule],
            ..TableState::empty(nftables::Table::new(FAMILY, TABLE))
        };
        match Values::of(&table) {
            Err(Unsupported::Expression { lack, .. }) => assert_eq!(lack, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn masquerade_keeps_its_ports() {
    let net = Routed::new().unwrap();
    let _server = Server::start(&net.server, 443).unwrap();
    let ruleset = compiled(
        "[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\nto-ports = \"50000-50099\"\n\
         address = \"masquerade\"\n",
    );
    let port = || seen(&net.client, Protocol::Tcp, 40_000, SocketAddr::new(SERVER_V4, 443)).port();
    let found = sent(&net.router, &ruleset);
    let masq = |ruleset: &TableState| -> Vec<expr::Masq> {
        let exprs = ruleset.rules.iter().flat_map(|rule| rule.exprs.clone());
        exprs
            .filter_map(|expr| if let Expr::Masq(masq) = expr { Some(masq) } else { None })
            .collect()
    };
    let is_whole = |masq: &expr::Masq| masq.proto_max.is_some() && !masq.ignores_its_ports();
    assert_eq!(masq(&found).iter().filter(|masq| is_whole(masq)).count(), 2);
    assert!((50_000..50_100).contains(&port()));

    // The trap: the same rules with the masquerade of rustables.
    let mut values = Values::of(&ruleset).unwrap();
    for rule in &mut values.rules {
        for expr in rule.get_mut_expressions().unwrap().iter_mut() {
            if expr.get_name().is_some_and(|name| name == "masq") {
                *expr = theirs::Masquerade {}.into();
            }
        }
    }
    send(&net.router, &values);
    assert_eq!(port(), 40_000);
}

/// The bodies of the messages between the begin and the end of a batch of rustables.
fn bodies(fill: impl FnOnce(&mut Batch)) -> Vec<(u16, Vec<u8>)> {
    let mut batch = Batch::new();
    fill(&mut batch);
    let bytes = batch.finalize();
    let messages = Messages::new(&bytes).map(|message| message.expect("a message"));
    messages
        .filter_map(|message| Some((message.header.nf_tables_message()?, message.body.to_vec())))
        .collect()
}

/// The bodies of the messages of our encoder.
fn own_bodies(ruleset: &TableState) -> Vec<(u16, Vec<u8>)> {
    let body = |kind, write: &dyn Fn(&mut Writer)| {
        let mut w = Writer::new();
        write(&mut w);
        (kind, w.finish().expect("small enough"))
    };
    let mut bodies = vec![body(uapi::NFT_MSG_NEWTABLE, &|w| ruleset.table.encode(w))];
    let chains = ruleset.chains.iter();
    bodies.extend(chains.map(|chain| body(uapi::NFT_MSG_NEWCHAIN, &|w| chain.encode(w))));
    for (filled, id) in ruleset.sets.iter().zip(1..) {
        let set = nftables::SetSpec { id: Some(id), ..filled.spec.clone() };
        bodies.push(body(uapi::NFT_MSG_NEWSET, &|w| set.encode(w)));
    }
    for filled in &ruleset.sets {
        let elements = Elements::new(&filled.spec, filled.elements.clone());
        bodies.push(body(uapi::NFT_MSG_NEWSETELEM, &|w| elements.encode(w)));
    }
    let rules = ruleset.rules.iter();
    bodies.extend(rules.map(|rule| body(uapi::NFT_MSG_NEWRULE, &|w| rule.encode(w))));
    bodies
}

/// Compares the attributes at `path` in any order. A string's terminating NUL and NLA_F_NESTED may be
/// missing in one of them.
fn compare(ours: Attrs<'_>, theirs: Attrs<'_>, path: &str, differences: &mut BTreeSet<String>) {
    let (ours, mut theirs) = (sorted(ours), sorted(theirs).peekable());
    // The name of an expression selects its attributes.
    let name = ours.clone().next().and_then(|attr| Some(attr.string().ok()?.to_string()));
    for attr in ours {
        let path = match (&name, path) {
            (Some(name), "rule 4 1") if attr.attribute_type == uapi::NFTA_EXPR_DATA => name.clone(),
            _ => format!("{path} {}", attr.attribute_type),
        };
        match theirs.next_if(|their| their.attribute_type == attr.attribute_type) {
            Some(their) => compare_values(attr, their, &path, differences),
            None => drop(differences.insert(format!("{path} only ours"))),
        }
    }
    differences.extend(theirs.map(|their| format!("{path} {} only theirs", their.attribute_type)));
}

fn sorted(attrs: Attrs<'_>) -> impl Iterator<Item = Attr<'_>> + Clone {
    let mut attrs: Vec<_> = attrs.map(|attr| attr.expect("an attribute")).collect();
    attrs.sort_by_key(|attr| attr.attribute_type);
    attrs.into_iter()
}

fn compare_values<'a>(
    our: Attr<'a>,
    their: Attr<'a>,
    path: &str,
    differences: &mut BTreeSet<String>,
) {
    let is_string = our.value.strip_suffix(&[0]) == Some(their.value) && our.string().is_ok();
    let holds_others = |attr: Attr<'_>| attr.nested().all(|inner| inner.is_ok());
    if our.value == their.value || is_string {
    } else if holds_others(our) && holds_others(their) {
        compare(our.nested(), their.nested(), path, differences);
    } else {
        differences.insert(format!("{path}: {:02x?}, theirs {:02x?}", our.value, their.value));
    }
}

fn differences(ours: &[(u16, Vec<u8>)], theirs: &[(u16, Vec<u8>)]) -> BTreeSet<String> {
    let mut differences = BTreeSet::new();
    let kinds = |bodies: &[(u16, Vec<u8>)]| bodies.iter().map(|body| body.0).collect::<Vec<_>>();
    assert_eq!(kinds(ours), kinds(theirs));
    for ((kind, our), (_, their)) in ours.iter().zip(theirs) {
        let path = match *kind {
            uapi::NFT_MSG_NEWTABLE => "table",
            uapi::NFT_MSG_NEWCHAIN => "chain",
            uapi::NFT_MSG_NEWSET => "set",
            uapi::NFT_MSG_NEWSETELEM => "elements",
            _ => "rule",
        };
        let (mut our, mut their) = (Reader::new(our), Reader::new(their));
        assert_eq!(NfGenMsg::decode(&mut our), NfGenMsg::decode(&mut their));
        compare(our.attrs(), their.attrs(), path, &mut differences);
    }
    differences
}

/// The attributes that rustables does not send and the kernel adds: the size of an anonymous set, the only
/// operation of `bitwise` before Linux 5.6, the flags that the registers of `nat` imply.
const ADDED_BY_KERNEL: [&str; 3] = ["bitwise 6 only ours", "nat 7 only ours", "set 9 only ours"];

#[test]
fn attributes_differ_only_by_kernel_defaults() {
    let mut found = BTreeSet::new();
    let mut count = 0;
    for (_, ruleset) in cases() {
        let Ok(values) = Values::of(&ruleset) else { continue };
        found.extend(differences(&own_bodies(&ruleset), &bodies(|batch| values.add_to(batch))));
        count += 1;
    }
    assert!(count >= 100, "{count}");
    assert_eq!(found, ADDED_BY_KERNEL.map(String::from).into());
}

/// Two rules in the types of rustables, and the same rules in ours: the encoders agree, independently of
/// [`Values`].
#[test]
fn encoders_agree_on_rules_of_rustables() {
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let table = rustables::Table::new(rustables::ProtocolFamily::Inet).with_name(TABLE);
    let chain = rustables::Chain::new(&table)
        .with_name("c")
        .with_hook(rustables::Hook::new(rustables::HookClass::PostRouting, -5))
        .with_type(rustables::ChainType::Nat)
        .with_policy(rustables::ChainPolicy::Accept);
    let mut set = SetBuilder::<[u8; 2]>::new("s", &table).unwrap();
    set.add(&443u16.to_be_bytes());
    let (mut set, mut elements) = set.finish();
    set = set.with_id(1u32).with_flags(0u32).with_key_type(13u32);
    set.family = rustables::ProtocolFamily::Inet;
    elements.family = set.family;
    let port = theirs::TransportHeaderField::Tcp(theirs::TCPHeaderField::Sport);
    let matching = rustables::Rule::new(&chain)
        .unwrap()
        .protocol(rustables::Protocol::TCP)
        .saddr(address)
        .established()
        .unwrap()
        .with_expr(theirs::HighLevelPayload::Transport(port).build())
        .with_expr(theirs::Lookup::new(&set).unwrap())
        .with_expr(theirs::Counter { nb_bytes: Some(0), nb_packets: Some(0) })
        .drop();
    let translating = rustables::Rule::new(&chain)
        .unwrap()
        .with_expr(theirs::Immediate::new_data(vec![192, 0, 2, 1], theirs::Register::Reg1))
        .with_expr(theirs::Immediate::new_data(vec![4, 0], theirs::Register::Reg2))
        .with_expr(theirs::Nat {
            nat_type: Some(theirs::NatType::SNat),
            family: Some(rustables::ProtocolFamily::Ipv4),
            ip_register: Some(theirs::Register::Reg1),
            port_register: Some(theirs::Register::Reg2),
        })
        .masquerade();
    let theirs = bodies(|batch| {
        batch.add(&table, MsgType::Add);
        batch.add(&chain, MsgType::Add);
        batch.add(&set, MsgType::Add);
        batch.add(&elements, MsgType::Add);
        batch.add(&matching, MsgType::Add);
        batch.add(&translating, MsgType::Add);
    });
    let found = differences(&own_bodies(&in_our_types()), &theirs);
    // NFTA_SET_ID: ours refers to the set by its name.
    let expected = ["bitwise 6 only ours", "lookup 4 only theirs"];
    assert_eq!(found, expected.map(String::from).into());
}

fn in_our_types() -> TableState {
    use expr::{
        Bitwise, Cmp, CmpOp, Counter, Ct, Data, Immediate, Lookup, Masq, Meta, Nat, Payload,
        Verdict,
    };
    let rule = |exprs| nftables::Rule::new(FAMILY, TABLE, "c", exprs);
    let meta = |key| Meta { key, dreg: Register::R1 }.into();
    let eq = |bytes: &[u8]| Cmp::new(CmpOp::Eq, bytes).into();
    let load = |dreg, bytes: &[u8]| Immediate { dreg, data: Data::value(bytes) }.into();
    let filled = Set::ports(SetName::Named("s"), &"443".parse().unwrap());
    let set =
        nftables::SetSpec { flags: Some(0), userdata: None, description: None, ..filled.spec };
    let elements = vec![nftables::Element::new(443u16.to_be_bytes().to_vec(), None)];
    let established: u32 = 2;
    let matching = vec![
        meta(uapi::NFT_META_L4PROTO),
        eq(&[6]),
        meta(uapi::NFT_META_NFPROTO),
        eq(&[uapi::NFPROTO_IPV4]),
        Payload::IPV4_SOURCE.into(),
        eq(&[192, 0, 2, 1]),
        Ct::STATE.into(),
        Bitwise::mask(&established.to_le_bytes()).into(),
        Cmp::new(CmpOp::Neq, &[0; 4]).into(),
        Payload::SOURCE_PORT.into(),
        Lookup::within(&set.name).into(),
        Counter::default().into(),
        Immediate::verdict(Verdict::Drop).into(),
    ];
    let translating = vec![
        load(Register::R1, &[192, 0, 2, 1]),
        load(Register::R2, &1024u16.to_be_bytes()),
        Nat {
            addr_min: Some(Register::R1),
            proto_min: Some(Register::R2),
            ..Nat::source(uapi::NFPROTO_IPV4)
        }
        .into(),
        Masq::default().into(),
    ];
    let hook = nftables::Hook::new(uapi::NF_INET_POST_ROUTING, -5);
    let chain = nftables::Chain {
        hook: Some(hook),
        policy: Some(uapi::NF_ACCEPT),
        chain_type: Some("nat".into()),
        ..nftables::Chain::regular(FAMILY, TABLE, "c")
    };
    TableState {
        chains: vec![chain],
        sets: vec![Set { spec: set, elements: elements.into() }],
        rules: vec![rule(matching), rule(translating)],
        ..TableState::empty(nftables::Table::new(FAMILY, TABLE))
    }
}
