//! Bodies of the fuzz targets (feature `fuzz`): each accepts any bytes, and panics when a promise is
//! broken.

use std::net::SocketAddr;

use ephport_core::decision::{CtState, Effect, evaluate, permits, permits_authenticated};
use ephport_core::strategies::{addresses, flows, policies, ports, scopes, selections, targets};
use ephport_core::{Address, Document, Flow, HostFacts, Policy, Port, ResolvedPolicy};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::client::Event;
use crate::compile::compile;
use crate::interpret::{self, Packet};
use crate::netlink::{Ack, CodecError, Header, Message, Messages, NfGenMsg, Writer};
use crate::nftables::{Chain, CtTimeout, Elements, Generation, Rule, SetSpec, Table};
use crate::plan::diff::changes;
use crate::plan::drift::{drift, evident};
use crate::table::layout::POSTROUTING;
use crate::table::layout::{FAMILY, TABLE};
use crate::table::{Set, TableState};
use crate::uapi::{
    IPPROTO_AH, NFT_MSG_NEWCHAIN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFTA_GEN_ID, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_ERROR,
    NLMSGERR_ATTR_MSG, NLMSGERR_ATTR_OFFS,
};

/// What a target calls.
pub type Body = fn(&[u8]);

/// Every body, by the name of its target.
pub const TARGETS: [(&str, Body); 3] =
    [("meaning", meaning), ("netlink", netlink), ("object", object)];

/// An object's body is written and read again as the same.
macro_rules! round_trip {
    ($type:ty, $body:expr) => {
        <$type>::decode($body).ok().inspect(|value| {
            assert_eq!(<$type>::decode(&written(|w| value.encode(w))).as_ref(), Ok(value));
        })
    };
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().expect("hardly longer than what was read")
}

/// The body of a message, whatever it is about.
///
/// # Panics
/// When a promise is broken.
pub fn object(body: &[u8]) {
    round_trip!(Table, body);
    round_trip!(Chain, body);
    round_trip!(SetSpec, body);
    round_trip!(Elements, body);
    if let Some(rule) = round_trip!(Rule, body) {
        let _ = (rule.to_string(), rule.comment());
    }
    if let Ok(Generation(id)) = Generation::decode(body) {
        let again = written(|w| {
            w.raw(&NfGenMsg::new(0).to_bytes());
            w.u32_be(NFTA_GEN_ID, id);
        });
        assert_eq!(Generation::decode(&again), Ok(Generation(id)));
    }
    for flags in [NLM_F_ACK_TLVS, NLM_F_ACK_TLVS | NLM_F_CAPPED] {
        let header = Header { message_type: NLMSG_ERROR, flags, seq: 0 };
        if let Ok(ack) = Ack::decode(Message { header, port_id: 0, body }) {
            assert_eq!(acknowledged(&ack), Ok(ack));
        }
    }
}

/// The acknowledgement as the kernel would send it, read.
fn acknowledged(ack: &Ack) -> Result<Ack, CodecError> {
    let code = ack.errno.map_or(0, |errno| -errno.raw());
    let bytes = written(|w| {
        let flags = NLM_F_ACK_TLVS;
        w.message(Header { message_type: NLMSG_ERROR, flags, seq: ack.seq }, |w| {
            w.raw(&code.to_ne_bytes());
            w.message(Header::nf_tables(0, 0, ack.seq), |_| {});
            if let Some(message) = &ack.message {
                w.string(NLMSGERR_ATTR_MSG, message);
            }
            if let Some(offset) = ack.offset {
                w.u32_ne(NLMSGERR_ATTR_OFFS, offset);
            }
        });
    });
    Messages::new(&bytes).next().expect("a message").and_then(Ack::decode)
}

/// A run of messages: what is not an error is a table, which prints and compares.
///
/// # Panics
/// When a promise is broken.
pub fn netlink(bytes: &[u8]) {
    let ruleset = gathered(bytes);
    let _ = (ruleset.to_nft().to_string(), ruleset.bytecode().to_string(), ruleset.fingerprint());
    assert_eq!(ruleset.normalized(), ruleset.normalized());
    let mut other = ruleset.clone();
    other.rules.reverse();
    other.rules.pop();
    let _ = (changes(&ruleset, &other), drift(&ruleset, &other), evident(&ruleset));
    for message in Messages::new(bytes).map_while(Result::ok) {
        let _ = Event::decode(message, FAMILY, TABLE);
    }
}

/// The table that the messages describe.
fn gathered(bytes: &[u8]) -> TableState {
    let table = Table::new(FAMILY, TABLE);
    let mut ruleset = TableState::empty(table);
    for Message { header, body, .. } in Messages::new(bytes).map_while(Result::ok) {
        match header.nf_tables_message() {
            Some(NFT_MSG_NEWTABLE) => {
                ruleset.table = Table::decode(body).unwrap_or(ruleset.table);
            }
            Some(NFT_MSG_NEWCHAIN) => ruleset.chains.extend(Chain::decode(body)),
            Some(NFT_MSG_NEWRULE) => ruleset.rules.extend(Rule::decode(body)),
            Some(NFT_MSG_NEWSET) => ruleset.sets.extend(
                SetSpec::decode(body).map(|spec| Set { spec, elements: Vec::new().into() }),
            ),
            Some(NFT_MSG_NEWOBJ) => ruleset.timeouts.extend(CtTimeout::decode(body)),
            Some(NFT_MSG_NEWSETELEM) => {
                let last = ruleset.sets.last_mut();
                if let (Some(filled), Ok(read)) = (last, Elements::decode(body)) {
                    filled.elements.append(&read.elements);
                }
            }
            _ => {}
        }
    }
    ruleset
}

/// A document of up to three policies, and connections: the program does with each connection what
/// the policies mean.
///
/// # Panics
/// When it does not.
pub fn meaning(bytes: &[u8]) {
    let mut genes = Genes(bytes);
    let count = genes.draw(1..4usize).unwrap_or(1);
    let policies = (0..count).map_while(|i| policy(&mut genes, i)).collect();
    let Ok(document) = Document::new(policies) else { return };
    let connections = std::iter::from_fn(|| genes.draw((flows(), ports())));
    let connections: Vec<_> = connections.take(32).collect();
    if let Some((ruleset, policies)) = compiled(&document) {
        assert_eq!(disagreement(&ruleset, &policies, &connections), None);
    }
}

/// A policy whose parts change one by one with the bytes.
fn policy(genes: &mut Genes<'_>, index: usize) -> Option<Policy> {
    let (flags, spread) = genes.draw(selections())?;
    let name = format!("policy-{index}").parse().ok()?;
    let (scope, target) = (genes.draw(scopes())?, genes.draw(targets())?);
    let address = genes.draw(addresses())?;
    let mut spec = genes.draw(policies())?.spec().clone();
    (spec.name, spec.scope, spec.target) = (name, scope, target);
    (spec.flags, spec.spread, spec.address) = (flags, spread, address);
    Policy::new(spec).ok()
}

/// Each four bytes are the seed of one value.
struct Genes<'a>(&'a [u8]);

impl Genes<'_> {
    fn draw<S: Strategy>(&mut self, values: S) -> Option<S::Value> {
        let (gene, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(gene);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        Some(values.new_tree(&mut runner).ok()?.current())
    }
}

/// The program of a document, and what it means on a host without facts; none if that is nothing.
///
/// # Panics
/// When what means something has no program.
#[must_use]
pub fn compiled(document: &Document) -> Option<(TableState, Vec<ResolvedPolicy>)> {
    let policies = document.resolve(&HostFacts::default()).ok()?;
    Some((compile(&policies).expect("a program"), policies))
}

/// Why program and policies do not agree on the connections, each with a port that it might be
/// sent with; if they do not.
#[must_use]
pub fn disagreement(
    ruleset: &TableState,
    policies: &[ResolvedPolicy],
    connections: &[(Flow, Port)],
) -> Option<String> {
    let disagreement = connections.iter().enumerate().find_map(|(at, (flow, leaving))| {
        on_one((ruleset, policies), &aimed(policies, flow, at), *leaving, at)
    });
    let disagreement = disagreement.or_else(|| misreceived(ruleset, policies))?;
    Some(format!("{disagreement}\n{}", ruleset.to_nft()))
}

/// Why the program gives a packet that comes in another port than the one that was given on the way out, or none,
/// if so: for the ports of the first policy with a virtual range.
fn misreceived(ruleset: &TableState, policies: &[ResolvedPolicy]) -> Option<String> {
    let (policy, remap) =
        policies.iter().find_map(|policy| Some((policy, policy.remap.as_ref()?)))?;
    let sent = policy.policy.example_flow()?;
    let own = match policy.address {
        Address::Fixed(address) => address,
        Address::Auto | Address::Masquerade | Address::Keep => sent.source().ip(),
    };
    let drops = |port| policy.enforce && remap.only_virtual().contains(port);
    let inside = remap.virtual_range().ports().map(|port| (remap.real(port), Some(port)));
    let outside = remap.only_virtual().ranges().first().map(|range| range.first());
    let outside = outside.map(|port| (Some(port), Some(port).filter(|port| !drops(*port))));
    inside.chain(outside).find_map(|(port, expected)| {
        let to = SocketAddr::new(own, port?.get());
        let out = sent.out_interface().clone();
        let flow = Flow::new(sent.protocol(), sent.destination(), to, out.clone()).ok()?;
        let found = interpret::received_port(ruleset, &flow.with_in_interface(out));
        (found != Ok(expected)).then(|| format!("{to}: expected {expected:?}, found {found:?}"))
    })
}

/// Draws the source port from the document's own ranges as often as from anywhere.
fn aimed(policies: &[ResolvedPolicy], flow: &Flow, at: usize) -> Flow {
    let ends = policies.iter().flat_map(|policy| {
        let allowed = policy.permitted.ports();
        let ranges: Vec<_> =
            allowed.ranges().iter().chain(policy.translated.ranges()).copied().collect();
        ranges.into_iter().flat_map(|range| [range.first(), range.last()])
    });
    let ends: Vec<_> = ends.collect();
    if at.is_multiple_of(2) || ends.is_empty() {
        return flow.clone();
    }
    flow.clone().with_source_port(ends[at / 2 % ends.len()])
}

/// Without ports.
const IPPROTO_GRE: u8 = 47;

/// The type of a timestamp request (RFC 792), which conntrack tracks by an identifier too.
const ICMP_TIMESTAMP: u8 = 13;

/// The same packet with another protocol, and as another message of ICMP: no policy matches them.
fn others(packet: Packet<'_>) -> [Packet<'_>; 2] {
    [packet.clone().with_protocol(IPPROTO_GRE), packet.with_icmp_type(ICMP_TIMESTAMP)]
}

fn on_one(
    (ruleset, policies): (&TableState, &[ResolvedPolicy]),
    flow: &Flow,
    leaving: Port,
    at: usize,
) -> Option<String> {
    let opening = Packet::opening(flow);
    // Each state of conntrack in turn.
    let state = CtState::ALL[at % CtState::ALL.len()];
    let gate = |port, state| {
        let packet = Packet::leaving(flow, port).with_state(state);
        misjudged(ruleset, policies, flow, port, &packet)
    };
    mistranslated(ruleset, policies, flow, &opening)
        .or_else(|| {
            let sent = others(opening.clone());
            sent.iter().find_map(|packet| mistranslated(ruleset, policies, flow, packet))
        })
        .or_else(|| {
            let sent = others(Packet::leaving(flow, leaving));
            sent.iter().find_map(|packet| misjudged(ruleset, policies, flow, leaving, packet))
        })
        .or_else(|| gate(leaving, state))
        .or_else(|| gate(flow.source_port(), CtState::New))
        .or_else(|| {
            let packet = Packet::leaving(flow, leaving).with_state(state).with_protocol(IPPROTO_AH);
            misjudged(ruleset, policies, flow, leaving, &packet)
        })
}

/// Why the program does something else with a packet like `flow` than the policies mean, if it does.
#[must_use]
pub fn mistranslated(
    ruleset: &TableState,
    policies: &[ResolvedPolicy],
    flow: &Flow,
    packet: &Packet<'_>,
) -> Option<String> {
    // No policy matches other protocols.
    let is_known = packet.has_source_port();
    let expected = if is_known { evaluate(policies, flow).effect() } else { Effect::Untouched };
    let paths = interpret::run(ruleset, POSTROUTING, packet);
    let found = paths
        .and_then(|paths| interpret::combine(&paths, flow.source()))
        .and_then(|effect| interpret::remapped(ruleset, flow, effect));
    match found {
        Ok(effect) if effect == expected => None,
        found => Some(format!("{flow}: policies {expected:?}, program {found:?}")),
    }
}

/// Why the program permits a packet like `flow` that must not be sent with the port `leaving`, or
/// drops one that may be sent; if so.
#[must_use]
pub fn misjudged(
    ruleset: &TableState,
    policies: &[ResolvedPolicy],
    flow: &Flow,
    leaving: Port,
    packet: &Packet<'_>,
) -> Option<String> {
    let state = packet.state();
    let meant = match packet.protocol() {
        IPPROTO_AH => permits_authenticated(policies, flow, state),
        _ => !packet.has_source_port() || permits(policies, flow, state, leaving),
    };
    let found = interpret::permits_packet(ruleset, packet);
    let is_so = found == Ok(meant);
    (!is_so).then(|| format!("{packet:?} by {leaving}: let out {meant}, program {found:?}"))
}
