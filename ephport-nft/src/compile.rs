//! From policies to the program that the kernel runs.
//!
//! ```
//! use ephport_core::{HostFacts, Policy, PolicySpec, Target};
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let ruleset = ephport_nft::compile(&[policy.resolve(&host)?])?;
//! assert!(ruleset.listing().to_string().contains(
//!     "oifname \"eth0\" meta l4proto udp th sport 1024-65535 \
//!      counter packets 0 bytes 0 masquerade to :49152-61000 comment \"default\""
//! ));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use ephport_core::{
    Allowed, Choice, Exits, Families, InterfacePattern, PickUp, PortRange, Protocol, Resolved,
};

use crate::expr::{
    Bitwise, Cmp, CmpOp, Counter, Data, Expr, Fib, Immediate, Masq, Meta, Payload, Register,
    Verdict,
};
use crate::object::{Chain, Comment, Hook, Rule, Table};
use crate::ruleset::{FAMILY, Ruleset, TABLE};
use crate::uapi::{
    ARPHRD_LOOPBACK, NF_ACCEPT, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC, NF_NAT_RANGE_PERSISTENT,
    NF_NAT_RANGE_PROTO_RANDOM, NF_NAT_RANGE_PROTO_RANDOM_FULLY, NF_NAT_RANGE_PROTO_SPECIFIED,
    NFPROTO_IPV4, NFPROTO_IPV6, NFT_META_L4PROTO, NFT_META_NFPROTO, NFT_META_OIFNAME,
    NFT_META_OIFTYPE, RTN_BROADCAST, RTN_MULTICAST,
};
use crate::wire::WireError;

/// The chain in which connections are translated.
pub const POSTROUTING: &str = "postrouting";

/// Before Docker, kube-proxy and iptables at 100, systemd-networkd at 101 and firewalld at 110:
/// among nat chains the first that binds a connection wins.
pub const PRIORITY: i32 = NF_IP_PRI_NAT_SRC - 10;

/// TCP's FIN, SYN, RST and ACK bits (RFC 9293 §3.1).
const TCP_STATE_FLAGS: u8 = 0x17;
const TCP_SYN: u8 = 0x02;

/// The room of an interface name in a register (`IFNAMSIZ`, linux/if.h).
const IFNAMSIZ: usize = 16;

/// The table that does what `policies` say, the first that speaks of a connection before the next.
///
/// # Errors
/// When a rule is too long for netlink.
pub fn compile(policies: &[Resolved]) -> Result<Ruleset, WireError> {
    let mut rules: Vec<_> = [RTN_MULTICAST, RTN_BROADCAST].map(leave_alone).into();
    rules.extend(policies.iter().flat_map(policy_rules));
    let chains = vec![postrouting()];
    Ruleset { table: Table::new(FAMILY, TABLE), chains, sets: Vec::new(), rules }.signed()
}

fn postrouting() -> Chain {
    Chain {
        hook: Some(Hook { number: NF_INET_POST_ROUTING, priority: PRIORITY }),
        policy: Some(NF_ACCEPT),
        kind: Some("nat".into()),
        ..Chain::regular(FAMILY, TABLE, POSTROUTING)
    }
}

/// A rule that leaves destinations of this type alone.
fn leave_alone(address_type: u8) -> Rule {
    let exprs = vec![
        Fib::DESTINATION_TYPE.into(),
        Cmp::new(CmpOp::Eq, &u32::from(address_type).to_ne_bytes()).into(),
        Immediate::verdict(Verdict::Return).into(),
    ];
    Rule::new(FAMILY, TABLE, POSTROUTING, exprs)
}

/// One rule for each way out, protocol and range of source ports.
fn policy_rules(policy: &Resolved) -> Vec<Rule> {
    let comment = Comment::new(policy.name.as_str());
    let mut rules = Vec::new();
    for exit in exit_matches(&policy.egress) {
        for protocol in policy.protocols.iter() {
            for moved in policy.moved.ranges() {
                let mut exprs = exit.clone();
                exprs.extend(family_match(policy.families));
                exprs.extend(protocol_match(protocol));
                exprs.extend(opening_match(protocol, policy.pick_up));
                exprs.extend(source_port_match(*moved));
                exprs.push(Counter::default().into());
                let Allowed::Ports(ports) = &policy.allowed else { continue };
                let [only] = ports.ranges() else { continue };
                exprs.extend(masquerade(*only, policy.choice));
                rules.push(Rule::new(FAMILY, TABLE, POSTROUTING, exprs).with_comment(&comment));
            }
        }
    }
    rules
}

fn load_meta(key: u32) -> Expr {
    Meta { key, dreg: Register::R1 }.into()
}

fn exit_matches(exits: &Exits) -> Vec<Vec<Expr>> {
    match exits {
        Exits::Any => {
            let loopback = ARPHRD_LOOPBACK.to_ne_bytes();
            vec![vec![load_meta(NFT_META_OIFTYPE), Cmp::new(CmpOp::Neq, &loopback).into()]]
        }
        Exits::Matching(patterns) => patterns.iter().map(interface_match).collect(),
    }
}

/// A whole name is compared with its closing NULs, a prefix without.
fn interface_match(pattern: &InterfacePattern) -> Vec<Expr> {
    let bytes = match pattern {
        InterfacePattern::Name(name) => {
            let mut bytes = name.as_str().as_bytes().to_vec();
            bytes.resize(IFNAMSIZ, 0);
            bytes
        }
        InterfacePattern::Prefix(prefix) => prefix.as_bytes().to_vec(),
    };
    vec![load_meta(NFT_META_OIFNAME), Cmp::new(CmpOp::Eq, &bytes).into()]
}

fn family_match(families: Families) -> Vec<Expr> {
    let number = match families {
        Families::Both => return Vec::new(),
        Families::Ipv4 => NFPROTO_IPV4,
        Families::Ipv6 => NFPROTO_IPV6,
    };
    vec![load_meta(NFT_META_NFPROTO), Cmp::new(CmpOp::Eq, &[number]).into()]
}

/// Always before the ports are read: an ICMP echo id stands where a port would.
fn protocol_match(protocol: Protocol) -> [Expr; 2] {
    [load_meta(NFT_META_L4PROTO), Cmp::new(CmpOp::Eq, &[protocol.number()]).into()]
}

fn opening_match(protocol: Protocol, pick_up: PickUp) -> Vec<Expr> {
    if protocol != Protocol::Tcp || pick_up == PickUp::Any {
        return Vec::new();
    }
    vec![
        Payload::TCP_FLAGS.into(),
        Bitwise::mask(&[TCP_STATE_FLAGS]).into(),
        Cmp::new(CmpOp::Eq, &[TCP_SYN]).into(),
    ]
}

fn source_port_match(range: PortRange) -> Vec<Expr> {
    let (first, last) = (range.first().get().to_be_bytes(), range.last().get().to_be_bytes());
    let mut exprs = vec![Payload::SOURCE_PORT.into()];
    if first == last {
        exprs.push(Cmp::new(CmpOp::Eq, &first).into());
    } else {
        exprs.push(Cmp::new(CmpOp::Gte, &first).into());
        exprs.push(Cmp::new(CmpOp::Lte, &last).into());
    }
    exprs
}

fn masquerade(range: PortRange, choice: Choice) -> Vec<Expr> {
    let port = |dreg, port: ephport_core::Port| -> Expr {
        Immediate { dreg, data: Data::value(&port.get().to_be_bytes()) }.into()
    };
    let mut exprs = vec![port(Register::R1, range.first())];
    let mut masq = Masq {
        flags: Some(NF_NAT_RANGE_PROTO_SPECIFIED | nat_flags(choice)),
        proto_min: Some(Register::R1),
        proto_max: None,
    };
    if range.first() != range.last() {
        exprs.push(port(Register::R2, range.last()));
        masq.proto_max = Some(Register::R2);
    }
    exprs.push(masq.into());
    exprs
}

fn nat_flags(choice: Choice) -> u32 {
    let flags = [
        (choice.random, NF_NAT_RANGE_PROTO_RANDOM),
        (choice.fully_random, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
        (choice.persistent, NF_NAT_RANGE_PERSISTENT),
    ];
    flags.into_iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag)
}
