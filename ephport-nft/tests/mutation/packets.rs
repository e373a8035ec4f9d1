//! Every kind of packet that a program distinguishes, and what it does with each.
//!
//! A program is run, and each field that it asked for is given every other value that makes a
//! difference to some question, until there is no field left that was asked for and not varied.
//! What it did not ask for cannot matter (as in Korat, ISSTA 2002).

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use ephport_core::Effect;
use ephport_core::{
    AddressType, Family, Flow, InterfaceName, Port, Protocol, ResolvedPolicy, SourceType,
    TcpOpening,
};
use ephport_nft::TableState;
use ephport_nft::fuzz::{misjudged, mistranslated};
use ephport_nft::interpret::{CtState, Fact, Facts, InterpretError, Packet, Path, combine, run};
use ephport_nft::nftables::expr::{Ct, Fib, Meta, Payload, Rt};
use ephport_nft::table::layout::{ENFORCE, POSTROUTING};
use ephport_nft::uapi::{
    NFT_CT_PROTO_SRC, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_META_IIF, NFT_META_L4PROTO,
    NFT_META_OIFNAME, NFT_META_OIFTYPE,
};

use crate::questions::{self, Question, field_at, full};

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Field {
    Out,
    In,
    Protocol,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    Flags,
    /// Of ICMP; its type is the first byte of the source port.
    Identifier,
}

const FIELDS: [Field; 9] = [
    Field::Out,
    Field::In,
    Field::Protocol,
    Field::Source,
    Field::Destination,
    Field::SourcePort,
    Field::DestinationPort,
    Field::Flags,
    Field::Identifier,
];

/// `lo`, as a name is compared.
pub(crate) const LOOPBACK: u128 = u128::from_be_bytes(*b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

/// Where a packet is, and what is always told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub chain: &'static str,
    pub state: CtState,
    pub destination_type: AddressType,
    pub source_type: SourceType,
    pub is_ipsec: bool,
    pub v4: bool,
}

impl Kind {
    /// All that there are: to be translated come only those that open a connection.
    fn all(ruleset: &TableState) -> Vec<Self> {
        let mut all = Vec::new();
        let is_enforced = ruleset.chains.iter().any(|chain| chain.name == ENFORCE);
        let own = SourceType::OutInterface;
        for (destination_type, source_type, is_ipsec, v4) in [
            (AddressType::Unicast, own, false, true),
            (AddressType::Unicast, own, false, false),
            (AddressType::Multicast, own, false, true),
            (AddressType::Multicast, own, false, false),
            (AddressType::Broadcast, own, false, true),
            (AddressType::Unicast, own, true, true),
            (AddressType::Unicast, SourceType::OtherInterface, false, true),
            (AddressType::Unicast, SourceType::NotLocal, false, true),
        ] {
            let kind =
                |chain, state| Self { chain, state, destination_type, source_type, is_ipsec, v4 };
            all.push(kind(POSTROUTING, CtState::New));
            if is_enforced {
                all.extend(CtState::ALL.map(|state| kind(ENFORCE, state)));
            }
        }
        all
    }

    fn width(self, field: Field) -> usize {
        match field {
            Field::In | Field::Protocol | Field::Flags => 1,
            Field::SourcePort | Field::DestinationPort | Field::Identifier => 2,
            Field::Source | Field::Destination if self.v4 => 4,
            Field::Out | Field::Source | Field::Destination => 16,
        }
    }

    /// The lowest value of a field from `from` to `to` that such a packet can have.
    fn lowest(self, field: Field, from: u128, to: u128) -> Option<u128> {
        match field {
            Field::Out => lowest_name(from),
            Field::SourcePort | Field::DestinationPort | Field::Identifier => Some(from.max(1)),
            Field::Destination => match self.destination_type {
                AddressType::Unicast if self.v4 => {
                    (!is_multicast(from) && from != BROADCAST).then_some(from)
                }
                AddressType::Unicast => (from >> 120 != 0xff).then_some(from),
                AddressType::Multicast if self.v4 => is_multicast(from).then_some(from),
                AddressType::Multicast => (from >> 120 == 0xff).then_some(from),
                AddressType::Broadcast => (!is_multicast(from)).then_some(from),
            },
            _ => Some(from),
        }
        .filter(|value| *value <= to)
    }

    /// Where the rules of a field's values change by themselves.
    fn own_turns(self, field: Field) -> Vec<u128> {
        match field {
            Field::Out => vec![LOOPBACK, LOOPBACK + 1],
            Field::Destination if self.v4 => vec![0xe000_0000, 0xf000_0000, BROADCAST],
            Field::Destination => vec![0xff << 120],
            Field::Protocol | Field::Flags => (0..=0xff).collect(),
            Field::In => vec![1],
            _ => Vec::new(),
        }
    }
}

const BROADCAST: u128 = 0xffff_ffff;

fn is_multicast(v4: u128) -> bool {
    v4 >> 28 == 0xe
}

/// The lowest interface name that is not below these bytes.
fn lowest_name(from: u128) -> Option<u128> {
    let bytes = from.to_be_bytes();
    let name = |bytes: &[u8]| {
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let text = std::str::from_utf8(&bytes[..len]).ok()?;
        let is_padded = len < 16 && bytes[len..].iter().all(|byte| *byte == 0);
        let is_name = is_padded && text.parse::<InterfaceName>().is_ok();
        is_name.then(|| u128::from_be_bytes(bytes.try_into().expect("16 bytes")))
    };
    // Else it has a higher character, as late as can be, and nothing after that.
    let mut higher = (0..15).rev().flat_map(|at| {
        (bytes[at].saturating_add(1)..0x7f).filter_map(move |byte| {
            let mut other = [0; 16];
            other[..at].copy_from_slice(&bytes[..at]);
            other[at] = byte;
            name(&other)
        })
    });
    name(&bytes).or_else(|| higher.next())
}

/// The values of a packet's fields.
pub(crate) type Values = [u128; FIELDS.len()];

fn flow(kind: Kind, values: &Values) -> Flow {
    let value = |field: Field| values[field as usize];
    let address = |value: u128| match u32::try_from(value) {
        Ok(value) if kind.v4 => IpAddr::from(Ipv4Addr::from(value)),
        _ => IpAddr::from(Ipv6Addr::from(value)),
    };
    let port = |field| u16::try_from(value(field)).expect("a port");
    let name = |value: u128| {
        let bytes = value.to_be_bytes();
        let text = std::str::from_utf8(&bytes).expect("a name");
        text.trim_end_matches('\0').parse::<InterfaceName>().expect("a name")
    };
    let number = u8::try_from(value(Field::Protocol)).expect("a byte");
    let family = if kind.v4 { Family::Ipv4 } else { Family::Ipv6 };
    let known = Protocol::from_number(number).filter(|protocol| protocol.is_of(family));
    let protocol = known.unwrap_or(Protocol::Udp);
    let source_port = port(source_port(protocol));
    let source = SocketAddr::new(address(value(Field::Source)), source_port);
    let to = SocketAddr::new(address(value(Field::Destination)), port(Field::DestinationPort));
    // SYN without FIN, RST or ACK (RFC 9293 §3.1).
    let is_opening = value(Field::Flags) & 0x17 == 0x02;
    let segment = if is_opening { TcpOpening::Opening } else { TcpOpening::MidStream };
    let flow = Flow::new(protocol, source, to, name(value(Field::Out))).expect("a flow");
    let flow = flow.with_opening(segment);
    let flow =
        if kind.destination_type == AddressType::Broadcast { flow.with_broadcast() } else { flow };
    let flow = if kind.is_ipsec { flow.with_ipsec() } else { flow };
    let flow = flow.with_source_type(kind.source_type);
    match value(Field::In) {
        0 => flow,
        _ => flow.with_in_interface("in0".parse().expect("a name")),
    }
}

/// The field that NAT translates.
fn source_port(protocol: Protocol) -> Field {
    if protocol.has_ports() { Field::SourcePort } else { Field::Identifier }
}

fn packet<'a>(kind: Kind, values: &Values, flow: &'a Flow) -> Packet<'a> {
    let byte = |field: Field| u8::try_from(values[field as usize]).expect("a byte");
    let icmp_type = u8::try_from(values[Field::SourcePort as usize] >> 8).expect("a byte");
    Packet::opening(flow)
        .with_icmp_type(icmp_type)
        .with_protocol(byte(Field::Protocol))
        .with_flags(byte(Field::Flags))
        .with_state(kind.state)
}

/// A packet that remembers what it was asked.
struct Watched<'a> {
    packet: Packet<'a>,
    kind: Kind,
    asked: RefCell<Vec<Field>>,
}

impl Watched<'_> {
    fn note(&self, field: Field) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&field) {
            asked.push(field);
        }
    }
}

impl Facts for Watched<'_> {
    fn meta(&self, meta: &Meta) -> Fact {
        match meta.key {
            NFT_META_OIFNAME | NFT_META_OIFTYPE => self.note(Field::Out),
            NFT_META_IIF => self.note(Field::In),
            NFT_META_L4PROTO => self.note(Field::Protocol),
            _ => {}
        }
        self.packet.meta(meta)
    }

    fn payload(&self, load: &Payload) -> Fact {
        let fields = (0..load.len.min(64)).filter_map(|at| field_at(load, at, self.kind.v4));
        fields.for_each(|(field, _)| self.note(field));
        self.packet.payload(load)
    }

    fn fib(&self, fib: &Fib) -> Fact {
        self.packet.fib(fib)
    }

    fn ct(&self, ct: &Ct) -> Fact {
        if ct.key == NFT_CT_PROTO_SRC {
            let is_reply = self.kind.state == CtState::Reply;
            self.note(if is_reply { Field::DestinationPort } else { Field::SourcePort });
        }
        if [NFT_CT_SRC_IP, NFT_CT_SRC_IP6].contains(&ct.key) {
            let is_reply = self.kind.state == CtState::Reply;
            self.note(if is_reply { Field::Destination } else { Field::Source });
        }
        self.packet.ct(ct)
    }

    fn rt(&self, rt: &Rt) -> Fact {
        self.packet.rt(rt)
    }
}

/// What a program does with a packet.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub effect: Result<Effect, InterpretError>,
    pub outcomes: Vec<Path>,
    asked: Vec<Field>,
}

/// Runs a program on a packet.
pub(crate) fn see(ruleset: &TableState, kind: Kind, values: &Values) -> Seen {
    let flow = flow(kind, values);
    let watched = Watched { packet: packet(kind, values, &flow), kind, asked: RefCell::default() };
    let outcomes = run(ruleset, kind.chain, &watched);
    let effect =
        outcomes.as_ref().map_err(Clone::clone).and_then(|all| combine(all, flow.source()));
    // Whether a port is kept hangs on it.
    if matches!(effect, Ok(Effect::Translated(_))) {
        watched.note(source_port(flow.protocol()));
    }
    Seen { effect, outcomes: outcomes.unwrap_or_default(), asked: watched.asked.into_inner() }
}

/// Why a program does something else with a packet than the policies mean, if it does.
pub(crate) fn fault(
    ruleset: &TableState,
    policies: &[ResolvedPolicy],
    kind: Kind,
    values: &Values,
) -> Option<String> {
    let flow = flow(kind, values);
    let packet = packet(kind, values, &flow);
    if kind.chain == POSTROUTING {
        return mistranslated(ruleset, policies, &flow, &packet);
    }
    let port = Port::new(flow.source().port()).expect("a port");
    misjudged(ruleset, policies, &flow, port, &packet)
}

/// The values of a field that have the same answers to every question of a program: one for each
/// way in which another program, asked too, answers differently.
type Class = Vec<u128>;

/// The questions of a program, and the values that make a difference to them.
pub(crate) struct Space {
    questions: [Vec<Question>; 2],
}

impl Space {
    pub(crate) fn of(ruleset: &TableState) -> Self {
        let of = |v4| {
            let mut all = Vec::new();
            for rule in &ruleset.rules {
                for question in questions::of(ruleset, rule, v4) {
                    if !all.contains(&question) {
                        all.push(question);
                    }
                }
            }
            all
        };
        Self { questions: [true, false].map(of) }
    }

    fn asked(&self, kind: Kind) -> &[Question] {
        &self.questions[usize::from(!kind.v4)]
    }

    /// The classes of a field's values, each with the values that `other` distinguishes in it.
    fn classes(&self, other: &Self, kind: Kind, field: Field) -> Vec<Class> {
        let width = kind.width(field);
        let of = |question: &&Question| question.field == field;
        let own: Vec<_> = self.asked(kind).iter().filter(of).collect();
        let others: Vec<_> =
            other.asked(kind).iter().filter(of).filter(|other| !own.contains(other)).collect();
        let mut turns = kind.own_turns(field);
        turns.push(0);
        for question in own.iter().chain(&others) {
            let more = question.turns(width, &turns);
            turns.extend(more);
        }
        let most = if field == Field::In { 1 } else { full(width) };
        turns.retain(|turn| *turn <= most);
        turns.sort_unstable();
        turns.dedup();
        let ends = turns.iter().skip(1).map(|next| next - 1).chain([most]);
        let values = turns.iter().zip(ends).filter_map(|(from, to)| kind.lowest(field, *from, to));
        let answers = |questions: &[&Question], value: u128| -> Vec<usize> {
            // Loopback is a kind of its own, and so is what begins here.
            let special = value == LOOPBACK || field == Field::In && value == 1;
            let answers = questions.iter().map(|question| question.answer(value, width));
            answers.chain([usize::from(special)]).collect()
        };
        let mut classes: Vec<(Vec<usize>, Vec<Vec<usize>>, Class)> = Vec::new();
        for value in values {
            let (mine, theirs) = (answers(&own, value), answers(&others, value));
            let at = classes.iter().position(|(known, ..)| *known == mine).unwrap_or_else(|| {
                classes.push((mine, Vec::new(), Vec::new()));
                classes.len() - 1
            });
            let (_, known, class) = &mut classes[at];
            if !known.contains(&theirs) {
                known.push(theirs);
                class.push(value);
            }
        }
        classes.into_iter().map(|(.., class)| class).collect()
    }
}

/// The classes of every field for each kind of packet, as they are needed.
struct Classes<'a> {
    space: &'a Space,
    /// The other program, and what it asks.
    is: &'a TableState,
    other: OnceCell<Space>,
    known: RefCell<HashMap<Place, Rc<[Class]>>>,
}

/// A field of packets of one sort; how conntrack sees them makes no difference to their values.
type Place = (AddressType, bool, Field);

impl<'a> Classes<'a> {
    fn new(space: &'a Space, is: &'a TableState) -> Self {
        Self { space, is, other: OnceCell::new(), known: RefCell::default() }
    }

    fn of(&self, kind: Kind, field: Field) -> Rc<[Class]> {
        let mut known = self.known.borrow_mut();
        let other = self.other.get_or_init(|| Space::of(self.is));
        let classes = || self.space.classes(other, kind, field).into();
        known.entry((kind.destination_type, kind.v4, field)).or_insert_with(classes).clone()
    }

    fn all(&self, kind: Kind, field: Field) -> Vec<u128> {
        self.of(kind, field).iter().flatten().copied().collect()
    }

    /// The values in the class that `value` represents.
    fn like(&self, kind: Kind, field: Field, value: u128) -> Vec<u128> {
        let classes = self.of(kind, field);
        let class = classes.iter().find(|class| class[0] == value);
        class.expect("a value that represents its class").clone()
    }
}

/// A kind of packet that a program does not divide further.
pub(crate) struct Leaf {
    pub kind: Kind,
    pub values: Values,
    pub seen: Seen,
    /// The fields that were given values.
    fixed: Vec<Field>,
}

/// Every kind of packet, unless there are more than `most`.
pub(crate) fn leaves(ruleset: &TableState, most: usize) -> Option<Vec<Leaf>> {
    let space = Space::of(ruleset);
    let classes = Classes::new(&space, ruleset);
    let mut leaves = Vec::new();
    for kind in Kind::all(ruleset) {
        let values = FIELDS.map(|field| classes.all(kind, field)[0]);
        divide(ruleset, &classes, (kind, values, Vec::new()), most, &mut leaves)?;
    }
    Some(leaves)
}

fn divide(
    ruleset: &TableState,
    classes: &Classes<'_>,
    (kind, values, fixed): (Kind, Values, Vec<Field>),
    most: usize,
    leaves: &mut Vec<Leaf>,
) -> Option<()> {
    let seen = see(ruleset, kind, &values);
    let Some(field) = seen.asked.iter().copied().find(|field| !fixed.contains(field)) else {
        leaves.push(Leaf { kind, values, seen, fixed });
        return (leaves.len() <= most).then_some(());
    };
    for value in classes.all(kind, field) {
        let (mut values, mut fixed) = (values, fixed.clone());
        values[field as usize] = value;
        fixed.push(field);
        divide(ruleset, classes, (kind, values, fixed), most, leaves)?;
    }
    Some(())
}

/// The packets of these leaves, as if they were of each other kind too: what a guard keeps from a
/// rule is like what comes to it.
pub(crate) fn disguised(ruleset: &TableState, leaves: &[Leaf]) -> Vec<Leaf> {
    let does_something = |leaf: &&Leaf| leaf.seen.effect != Ok(Effect::Untouched);
    let mut all = Vec::new();
    for leaf in leaves.iter().filter(does_something) {
        for kind in Kind::all(ruleset) {
            if kind == leaf.kind || kind.chain != leaf.kind.chain || kind.v4 != leaf.kind.v4 {
                continue;
            }
            let to = Field::Destination;
            let mut values = leaf.values;
            let own = [vec![values[to as usize]], kind.own_turns(to)].concat();
            let most = full(kind.width(to));
            let Some(to_value) =
                own.into_iter().find_map(|to_value| kind.lowest(to, to_value, most))
            else {
                continue;
            };
            values[to as usize] = to_value;
            let seen = see(ruleset, kind, &values);
            all.push(Leaf { kind, values, seen, fixed: Vec::new() });
        }
    }
    all
}

/// A comparison of a program with a changed one.
pub(crate) struct Comparison<'a> {
    pub was: &'a TableState,
    pub is: &'a TableState,
    classes: Classes<'a>,
}

impl<'a> Comparison<'a> {
    /// `space` is that of the first.
    pub(crate) fn new(was: &'a TableState, is: &'a TableState, space: &'a Space) -> Self {
        Self { was, is, classes: Classes::new(space, is) }
    }

    /// Shows `look` what both do with each kind of packet in a leaf, until it has seen enough.
    pub(crate) fn over<T>(
        &self,
        leaf: &Leaf,
        look: &mut dyn FnMut(&Values, &Seen, &Seen) -> Option<T>,
    ) -> Option<T> {
        self.within(leaf, (leaf.values, Vec::new()), look)
    }

    fn within<T>(
        &self,
        leaf: &Leaf,
        (values, varied): (Values, Vec<Field>),
        look: &mut dyn FnMut(&Values, &Seen, &Seen) -> Option<T>,
    ) -> Option<T> {
        let is = see(self.is, leaf.kind, &values);
        let Some(field) = is.asked.iter().copied().find(|field| !varied.contains(field)) else {
            if values == leaf.values {
                return look(&values, &leaf.seen, &is);
            }
            return look(&values, &see(self.was, leaf.kind, &values), &is);
        };
        let others: Vec<_> = if leaf.fixed.contains(&field) {
            self.classes.like(leaf.kind, field, leaf.values[field as usize])
        } else {
            self.classes.all(leaf.kind, field)
        };
        others.into_iter().find_map(|value| {
            let (mut values, mut varied) = (values, varied.clone());
            values[field as usize] = value;
            varied.push(field);
            self.within(leaf, (values, varied), look)
        })
    }
}

/// Whether two programs do the same with every kind of packet; `leaves` are those of the first.
pub(crate) fn equal(was: &TableState, is: &TableState, leaves: &[Leaf]) -> bool {
    let space = Space::of(was);
    let comparison = Comparison::new(was, is, &space);
    let differ = |leaf| {
        comparison.over(leaf, &mut |_, was, is| (was.effect != is.effect).then_some(())).is_some()
    };
    !leaves.iter().any(differ)
}
