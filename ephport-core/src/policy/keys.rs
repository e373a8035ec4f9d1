//! The keys of a policy, each declared once: policy files, JSON, flags and the table of docs/policy.md
//! follow from [`KEYS`].

mod convert;
mod near;

use crate::allocation::map_e::MapE;
use crate::net::network::network;
use crate::policy::key::{Flag, Group, Key, Kind};
use crate::policy::value::Value;
use convert::{
    blocks, blocks_file, families, map_e, out_interfaces, set_blocks, set_blocks_file,
    set_families, set_mark, set_out_interfaces, set_protocols, set_timeouts, set_to_ports,
    timeouts, to_ports,
};

pub use near::near;

/// The key with this name in policy files.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Every key of a policy, in the order of policy files.
pub const KEYS: [Key; 31] = [
    Key {
        name: "name",
        flag: Flag::Name("name"),
        placeholder: "NAME",
        default: "default",
        group: Group::Name,
        help: "Name the policy, in comments, chains and messages",
        example: "\"builds\"",
        get: |spec| Some(Value::text(&spec.name)),
        set: |spec, input| {
            spec.name = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "protocols",
        flag: Flag::Name("protocol"),
        short: Some('p'),
        kind: Kind::List,
        placeholder: "PROTOCOLS",
        unset: "tcp, udp; with map-e and blocks also icmp, icmpv6",
        group: Group::Scope,
        help: "Match these protocols: tcp, udp, udplite, sctp, and icmp, icmpv6 for the identifiers of echo requests",
        example: "[\"tcp\"]",
        get: |spec| spec.scope.protocols.map(|protocols| Value::list(protocols.iter())),
        set: set_protocols,
        ..Key::BASE
    },
    Key {
        name: "out-interfaces",
        flag: Flag::Name("out-interface"),
        short: Some('o'),
        kind: Kind::List,
        placeholder: "INTERFACES",
        default: "uplinks",
        group: Group::Scope,
        help: "Match these output interfaces: names, prefixes like `wg*`, `any` for all except loopback, or `uplinks` for those with a default route when the policy is applied",
        example: "[\"eth0\", \"wg*\"]",
        get: |spec| Some(out_interfaces(&spec.scope.out_interfaces)),
        set: set_out_interfaces,
        ..Key::BASE
    },
    Key {
        name: "except-interfaces",
        flag: Flag::Name("except-interface"),
        kind: Kind::List,
        placeholder: "INTERFACES",
        unset: "none",
        group: Group::Scope,
        help: "Do not match these output interfaces",
        example: "[\"wg0\"]",
        get: |spec| Some(Value::list(&spec.scope.except_interfaces)),
        set: |spec, input| {
            spec.scope.except_interfaces = input.interfaces()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "in-interfaces",
        flag: Flag::Name("in-interface"),
        short: Some('i'),
        kind: Kind::List,
        placeholder: "INTERFACES",
        unset: "all, and this host",
        group: Group::Scope,
        help: "Match only connections that come in by these interfaces",
        example: "[\"docker0\", \"br-*\"]",
        get: |spec| Some(Value::list(&spec.scope.in_interfaces)),
        set: |spec, input| {
            spec.scope.in_interfaces = input.interfaces()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "sources",
        flag: Flag::Name("source"),
        short: Some('s'),
        kind: Kind::List,
        placeholder: "CIDR",
        unset: "all",
        group: Group::Scope,
        help: "Match these networks of the source address",
        example: "[\"172.16.0.0/12\", \"2001:db8::/32\"]",
        get: |spec| Some(Value::list(&spec.scope.sources)),
        set: |spec, input| {
            spec.scope.sources = input.each(network)?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "destinations",
        flag: Flag::Name("destination"),
        short: Some('d'),
        kind: Kind::List,
        placeholder: "CIDR",
        unset: "all",
        group: Group::Scope,
        help: "Match these networks of the destination address",
        example: "[\"198.51.100.0/24\"]",
        get: |spec| Some(Value::list(&spec.scope.destinations)),
        set: |spec, input| {
            spec.scope.destinations = input.each(network)?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "except-destinations",
        flag: Flag::Name("except-destination"),
        kind: Kind::List,
        placeholder: "CIDR",
        unset: "none",
        group: Group::Scope,
        help: "Do not match these networks of the destination address",
        example: "[\"10.0.0.0/8\"]",
        get: |spec| Some(Value::list(&spec.scope.except_destinations)),
        set: |spec, input| {
            spec.scope.except_destinations = input.each(network)?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "destination-ports",
        flag: Flag::Name("dport"),
        placeholder: "PORTS",
        default: "1-65535",
        group: Group::Scope,
        help: "Match these destination ports",
        example: "\"80,443\"",
        get: |spec| Some(Value::Ports(spec.scope.destination_ports.clone())),
        set: |spec, input| {
            spec.scope.destination_ports = input.ports()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "origin",
        flag: Flag::Name("origin"),
        words: &[
            ("both", "This host and other hosts"),
            ("local", "Sockets of this host"),
            ("forwarded", "Other hosts: containers, pods and the networks that this host routes"),
        ],
        placeholder: "ORIGIN",
        default: "both",
        group: Group::Scope,
        help: "Match connections by their origin",
        example: "\"forwarded\"",
        get: |spec| Some(Value::text(spec.scope.origin)),
        set: |spec, input| {
            spec.scope.origin = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "families",
        flag: Flag::Words,
        words: &[("ipv4", "Match only IPv4"), ("ipv6", "Match only IPv6")],
        kind: Kind::List,
        unset: "both",
        group: Group::Scope,
        help: "Match these address families: ipv4, ipv6",
        example: "[\"ipv4\"]",
        get: |spec| Some(families(spec.scope.families)),
        set: set_families,
        ..Key::BASE
    },
    Key {
        name: "mark",
        flag: Flag::Name("mark"),
        placeholder: "MARK",
        unset: "any",
        group: Group::Scope,
        help: "Match this packet mark: a value, or a value and a mask like 0x1/0xff",
        example: "\"0x1/0xff\"",
        get: |spec| spec.scope.mark.map(Value::Mark),
        set: set_mark,
        ..Key::BASE
    },
    Key {
        name: "ipsec",
        flag: Flag::Name("ipsec"),
        words: &[("skip", "They are out of scope"), ("match", "They are in scope like all others")],
        placeholder: "IPSEC",
        default: "skip",
        group: Group::Scope,
        help: "Match or skip packets that IPsec will protect",
        example: "\"match\"",
        get: |spec| Some(Value::text(spec.scope.ipsec)),
        set: |spec, input| {
            spec.scope.ipsec = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "source-ports",
        flag: Flag::Name("sport"),
        placeholder: "PORTS",
        default: "1024-65535",
        group: Group::Ports,
        help: "Translate these source ports",
        example: "\"32768-61000\"",
        get: |spec| Some(Value::Ports(spec.source_ports.clone())),
        set: |spec, input| {
            spec.source_ports = input.ports()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "exempt-source-ports",
        flag: Flag::Name("exempt-sport"),
        placeholder: "PORTS",
        default: "none",
        group: Group::Ports,
        help: "Do not translate these source ports, which servers of this host use",
        example: "\"51820\"",
        get: |spec| Some(Value::Ports(spec.exempt.clone())),
        set: |spec, input| {
            spec.exempt = input.ports()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "to-ports",
        flag: Flag::Name("to-ports"),
        alias: Some("to"),
        placeholder: "PORTS",
        group: Group::Target,
        help: "Translate to these ports, or to `local`: the host's own ip_local_port_range less ip_local_reserved_ports when the policy is applied",
        example: "\"49152-61000\"",
        get: to_ports,
        set: set_to_ports,
        ..Key::BASE
    },
    Key {
        name: "map-e",
        flag: Flag::Name("map-e"),
        placeholder: "PARAMETERS",
        group: Group::Target,
        help: "Translate to the port set of a MAP-E customer (RFC 7597): psid=..,psid-len=..,offset=.., or ipv6-prefix=..,ipv4-prefix=..,ea-len=..,offset=..,delegated=..",
        example: "\"psid=52,psid-len=8,offset=6\"",
        get: map_e,
        set: |spec, input| {
            spec.target = input.one::<MapE>()?.into();
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "blocks",
        flag: Flag::Name("blocks"),
        kind: Kind::List,
        placeholder: "BLOCKS",
        group: Group::Target,
        help: "Translate each source to its own block of ports (RFC 7422): SOURCES=SIZE@PORTS, SOURCES=SIZE@OUTSIDE:PORTS, or a list of SOURCE=PORTS",
        example: "\"10.0.0.0/22=63@1024-65535\"",
        get: blocks,
        set: set_blocks,
        ..Key::BASE
    },
    Key {
        name: "blocks-file",
        flag: Flag::Name("blocks-file"),
        placeholder: "FILE",
        group: Group::Target,
        help: "Translate each source to its own block of ports, from a file of lines source,outside,first,last; a relative path begins at the directory of the policy file, or at the working directory for a flag",
        example: "\"blocks.csv\"",
        get: blocks_file,
        set: set_blocks_file,
        ..Key::BASE
    },
    Key {
        name: "except-ports",
        flag: Flag::Name("except-ports"),
        alias: Some("except"),
        placeholder: "PORTS",
        default: "none",
        group: Group::Ports,
        help: "Remove these ports from those of to-ports or map-e",
        example: "\"30000-32767\"",
        get: |spec| Some(Value::Ports(spec.except_ports.clone())),
        set: |spec, input| {
            spec.except_ports = input.ports()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "random",
        flag: Flag::Name("random"),
        kind: Kind::Switch,
        default: "false",
        group: Group::Selection,
        help: "Choose a random port, also where the own port is permitted",
        example: "true",
        get: |spec| Some(Value::Switch(spec.flags.random)),
        set: |spec, input| {
            spec.flags.random = input.is("true");
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "fully-random",
        flag: Flag::Name("fully-random"),
        kind: Kind::Switch,
        default: "false",
        group: Group::Selection,
        help: "Choose a random port without a hash of the addresses",
        example: "true",
        get: |spec| Some(Value::Switch(spec.flags.fully_random)),
        set: |spec, input| {
            spec.flags.fully_random = input.is("true");
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "persistent",
        flag: Flag::Name("persistent"),
        kind: Kind::Switch,
        default: "false",
        group: Group::Selection,
        help: "Give a client the same address for all of its connections",
        example: "true",
        get: |spec| Some(Value::Switch(spec.flags.persistent)),
        set: |spec, input| {
            spec.flags.persistent = input.is("true");
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "spread",
        flag: Flag::Name("spread"),
        words: &[
            ("round-robin", "One range after another, whatever their sizes"),
            ("weighted", "A random range, weighted by size"),
            ("hash", "By a hash of the source: a socket has one port for all destinations"),
            (
                "remap",
                "Any port of all ranges, which packets get in place of one of a contiguous range",
            ),
        ],
        placeholder: "HOW",
        unset: "by the sizes of the ranges",
        group: Group::Selection,
        help: "Distribute connections over several ranges; by default round-robin if all have the same size, else weighted",
        example: "\"weighted\"",
        get: |spec| spec.spread.map(Value::text),
        set: |spec, input| {
            spec.spread = if input.items().is_empty() { None } else { Some(input.one()?) };
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "per-source-stable",
        flag: Flag::Name("per-source-stable"),
        kind: Kind::Switch,
        default: "false",
        group: Group::Selection,
        help: "Choose among several ranges by a hash of the source: a socket has one port for all destinations (the same as spread = hash)",
        example: "true",
        get: |spec| Some(Value::Switch(spec.per_source_stable)),
        set: |spec, input| {
            spec.per_source_stable = input.is("true");
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "address",
        flag: Flag::Name("address"),
        placeholder: "ADDRESS",
        default: "auto",
        group: Group::Selection,
        help: "Translate the source address: `auto` keeps one that is valid outside and masquerades the rest, `masquerade`, `keep` or an address",
        example: "\"keep\"",
        get: |spec| Some(Value::text(spec.address)),
        set: |spec, input| {
            spec.address = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "pick-up",
        flag: Flag::Name("pick-up"),
        words: &[
            ("opening", "The opening segment: connections that are open now stay as they are"),
            (
                "any",
                "Any, as in iptables: the first NAT rule on a host breaks its open connections",
            ),
        ],
        placeholder: "PICK-UP",
        default: "opening",
        group: Group::Selection,
        help: "Translate TCP connections from this segment on",
        example: "\"any\"",
        get: |spec| Some(Value::text(spec.pick_up)),
        set: |spec, input| {
            spec.pick_up = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "timeouts",
        flag: Flag::Name("timeouts"),
        kind: Kind::Table,
        placeholder: "NAME=SECONDS,..",
        unset: "those of the host; with map-e udp-53-unreplied=2,udp-53-replied=2",
        group: Group::Timeouts,
        help: "Forget translated connections after these seconds: udp-unreplied, udp-replied, these for one destination port like udp-53-replied, tcp-syn-sent, tcp-time-wait, tcp-close; `none` for those of the host",
        example: "{ udp-53-replied = 2, tcp-time-wait = 10 }",
        get: |spec| spec.timeouts.as_ref().map(timeouts),
        set: set_timeouts,
        ..Key::BASE
    },
    Key {
        name: "enforce",
        flag: Flag::Name("enforce"),
        kind: Kind::Switch,
        default: "false",
        group: Group::Enforcement,
        help: "Drop packets in scope that would be sent with another source port",
        example: "true",
        get: |spec| Some(Value::Switch(spec.enforce)),
        set: |spec, input| {
            spec.enforce = input.is("true");
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "open-connections",
        flag: Flag::Name("open-connections"),
        words: &[
            ("keep", "They continue with the source port that they have"),
            ("drop", "They are dropped unless their source port is permitted"),
        ],
        placeholder: "WHAT",
        default: "keep",
        group: Group::Enforcement,
        help: "Keep or drop connections that are open when enforcement is first applied",
        example: "\"drop\"",
        get: |spec| Some(Value::text(spec.open_connections)),
        set: |spec, input| {
            spec.open_connections = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
    Key {
        name: "expected-connections",
        flag: Flag::Name("expected-connections"),
        words: &[
            ("pass", "They pass and are counted"),
            ("drop", "They are dropped unless their source port is permitted"),
        ],
        placeholder: "WHAT",
        default: "pass",
        group: Group::Enforcement,
        help: "Pass or drop connections that a conntrack helper expected (FTP, SIP, TFTP)",
        example: "\"drop\"",
        get: |spec| Some(Value::text(spec.expected_connections)),
        set: |spec, input| {
            spec.expected_connections = input.one()?;
            Ok(())
        },
        ..Key::BASE
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::spec::{PolicySpec, Target};
    use crate::policy::value::{Files, Input};

    #[test]
    fn defaults_are_those_of_the_policy() {
        for key in &KEYS {
            let (usual, mut reset) = (PolicySpec::to(Target::Local), PolicySpec::to(Target::Local));
            if key.group != Group::Target {
                key.reset(&mut reset);
                assert_eq!(reset, usual, "{}", key.name);
                assert_eq!(key.default.is_empty(), !key.unset.is_empty(), "{}", key.name);
            }
        }
    }

    /// Any path leads to a file of one block.
    #[derive(Debug)]
    struct OneBlock;

    impl Files for OneBlock {
        fn open(&self, _: &str) -> std::io::Result<Box<dyn std::io::BufRead>> {
            Ok(Box::new(&b"10.0.0.1,192.0.2.1,1024,2047"[..]))
        }
    }

    #[test]
    fn examples_are_not_the_default() {
        for key in &KEYS {
            let text = key.example.replace(['"', '[', ']', '{', '}'], "");
            let mut spec = PolicySpec::to(Target::Local);
            key.set(&mut spec, &Input::text(&text).with_files(Some(&OneBlock))).unwrap();
            assert!(key.given(&spec).is_some(), "{}", key.name);
        }
    }

    #[test]
    fn names_and_flags_are_unique() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        let mut flags: Vec<_> = KEYS.iter().map(Key::typed_flag).collect();
        names.sort_unstable();
        flags.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(flags.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
