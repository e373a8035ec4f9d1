//! A policy in flags.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args as ClapArgs;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use ephport_core::{
    Address, BlockTable, Families, InterfacePattern, InterfacePatterns, Ipsec, MapE, Mark,
    NatFlags, OpenConnections, Origin, OutInterfaces, PickUp, Policy, PolicyError, PolicySpec,
    PortError, PortRange, PortSet, Protocols, Scope, Target, WordError,
};
use ipnet::IpNet;

/// A policy in flags; without a target they are none.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Policy")]
#[allow(clippy::struct_excessive_bools)] // They are flags.
pub(crate) struct PolicyArgs {
    /// Protocols: tcp, udp, udplite, sctp, joined by commas
    #[arg(short, long, value_name = "PROTOCOLS", default_value_t = Protocols::DEFAULT, requires = "target")]
    protocol: Protocols,

    /// The source ports that are moved: ranges joined by commas
    #[arg(long, value_name = "PORTS", default_value_t = PortRange::EPHEMERAL.into(), requires = "target")]
    sport: PortSet,

    /// Of these, the ones that keep their meaning and are not moved
    #[arg(long, value_name = "PORTS", default_value_t = PortSet::EMPTY, requires = "target")]
    exempt_sport: PortSet,

    /// The source ports that are allowed, like 49152-61000 or 1024-29999,32768-65535, or `local`:
    /// the host's own ip_local_port_range; a port that is allowed already is kept while it is free
    #[arg(long, visible_alias = "to", value_name = "PORTS", group = "target")]
    to_ports: Option<PortsArg>,

    /// The ports of a MAP-E rule: psid=52,psid-len=8,offset=4, or the rule and the delegated
    /// prefix: ipv6-prefix=..,ipv4-prefix=..,ea-len=..,offset=..,delegated=..
    #[arg(long, value_name = "PARAMETERS", group = "target")]
    map_e: Option<MapE>,

    /// A block of ports for each source, like 10.0.0.0/22=63@1024-65535: in order, each address of
    /// the network gets the next 63 of the ports
    #[arg(long, value_name = "BLOCKS", group = "target")]
    blocks: Option<BlockTable>,

    /// Ports taken out of the allowed ones
    #[arg(long, visible_alias = "except", value_name = "PORTS", default_value_t = PortSet::EMPTY, requires = "target")]
    except_ports: PortSet,

    /// The interfaces by which connections leave: names, prefixes like `wg*`, or `any` for all but
    /// loopback, joined by commas [default: the uplinks, which hold a default route]
    #[arg(short, long, value_name = "INTERFACES", requires = "target")]
    out_interface: Option<OutInterfaces>,

    /// Output interfaces that are out of scope, joined by commas
    #[arg(long, value_name = "INTERFACES", requires = "target")]
    except_interface: Option<InterfacePatterns>,

    /// Input interfaces of forwarded connections, joined by commas [default: all, and this host]
    #[arg(short, long, value_name = "INTERFACES", requires = "target")]
    in_interface: Option<InterfacePatterns>,

    /// The networks that connections come from, joined by commas [default: all]
    #[arg(short, long, value_name = "CIDR", value_delimiter = ',', value_parser = network, requires = "target")]
    source: Vec<IpNet>,

    /// The networks of the destination, joined by commas [default: all]
    #[arg(short, long, value_name = "CIDR", value_delimiter = ',', value_parser = network, requires = "target")]
    destination: Vec<IpNet>,

    /// The destination ports: ranges joined by commas
    #[arg(long, value_name = "PORTS", default_value_t = PortRange::ALL.into(), requires = "target")]
    dport: PortSet,

    /// The packet mark: a value, or a value and a mask, like 0x1/0xff [default: any]
    #[arg(long, value_name = "MARK", requires = "target")]
    mark: Option<Mark>,

    /// What happens to packets that IPsec will protect
    #[arg(long, value_parser = ipsec(), default_value_t, requires = "target")]
    ipsec: Ipsec,

    /// The networks whose destinations are left alone, joined by commas
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = network, requires = "target")]
    except_destination: Vec<IpNet>,

    /// Where connections begin
    #[arg(long, value_parser = origin(), default_value_t, requires = "target")]
    origin: Origin,

    /// IPv4 connections only
    #[arg(long, requires = "target")]
    ipv4: bool,

    /// IPv6 connections only
    #[arg(long, requires = "target")]
    ipv6: bool,

    /// Pick a random port, also where one could be kept
    #[arg(long, requires = "target")]
    random: bool,

    /// The same, and never by a hash of the addresses
    #[arg(long, requires = "target")]
    fully_random: bool,

    /// Give a client the same address for each of its connections
    #[arg(long, requires = "target")]
    persistent: bool,

    /// Among several ranges, pick by a hash of the source: a socket has one port for all
    /// destinations
    #[arg(long, requires = "target")]
    per_source_stable: bool,

    /// What becomes of the source address: `masquerade`, `keep` or an address
    #[arg(long, value_name = "ADDRESS", default_value_t, requires = "target")]
    address: Address,

    /// The TCP packets that a connection may be picked up from
    #[arg(long, value_parser = pick_up(), default_value_t, requires = "target")]
    pick_up: PickUp,

    /// Drop what would still leave by another port
    #[arg(long, requires = "target")]
    enforce: bool,

    /// What enforcement does to connections that were open when it was first applied
    #[arg(long, value_parser = open_connections(), default_value_t, requires = "target")]
    open_connections: OpenConnections,
}

/// Ports, or the host's own.
#[derive(Clone, Debug)]
enum PortsArg {
    Ports(PortSet),
    Local,
}

impl FromStr for PortsArg {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        if text == "local" { Ok(Self::Local) } else { text.parse().map(Self::Ports) }
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    let net = text.parse().ok().or_else(|| address(text));
    net.ok_or_else(|| "expected a network like 10.0.0.0/8 or 2001:db8::/32, or an address".into())
}

/// Words that the help lists, each with what it says of it.
fn words<T>(
    words: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = WordError> + Clone + Send + Sync + 'static,
{
    let words = words.into_iter().map(|(word, help)| PossibleValue::new(word).help(help));
    PossibleValuesParser::new(words).try_map(|word| word.parse())
}

fn origin() -> impl TypedValueParser<Value = Origin> {
    words(Origin::ALL.map(|origin| {
        let help = match origin {
            Origin::Both => "Here or elsewhere",
            Origin::Local => "At a socket of this host",
            Origin::Forwarded => "Elsewhere: in a container, a pod or a network behind this host",
        };
        (origin.name(), help)
    }))
}

fn pick_up() -> impl TypedValueParser<Value = PickUp> {
    words(PickUp::ALL.map(|pick_up| {
        let help = match pick_up {
            PickUp::Opening => {
                "The opening segment: connections that are open now stay as they are"
            }
            PickUp::Any => {
                "Any, as iptables does it: the first NAT rule on a host breaks its open connections"
            }
        };
        (pick_up.name(), help)
    }))
}

fn ipsec() -> impl TypedValueParser<Value = Ipsec> {
    words(Ipsec::ALL.map(|ipsec| {
        let help = match ipsec {
            Ipsec::Skip => "They are out of scope",
            Ipsec::Match => "They are in scope like all others",
        };
        (ipsec.name(), help)
    }))
}

fn open_connections() -> impl TypedValueParser<Value = OpenConnections> {
    words(OpenConnections::ALL.map(|open| {
        let help = match open {
            OpenConnections::Keep => "They continue with the source port that they have",
            OpenConnections::Drop => "They are dropped unless their source port is permitted",
        };
        (open.name(), help)
    }))
}

impl PolicyArgs {
    /// Every flag, by its field's name.
    pub(crate) const FLAGS: [&str; 27] = [
        "protocol",
        "sport",
        "exempt_sport",
        "to_ports",
        "map_e",
        "blocks",
        "except_ports",
        "out_interface",
        "except_interface",
        "in_interface",
        "source",
        "destination",
        "dport",
        "mark",
        "ipsec",
        "except_destination",
        "origin",
        "ipv4",
        "ipv6",
        "random",
        "fully_random",
        "persistent",
        "per_source_stable",
        "address",
        "pick_up",
        "enforce",
        "open_connections",
    ];

    /// The policy that the flags describe; none without a target.
    pub(crate) fn policy(self) -> Result<Option<Policy>, PolicyError> {
        let Some(target) = self.target() else { return Ok(None) };
        Policy::new(PolicySpec {
            source_ports: self.sport.clone(),
            exempt: self.exempt_sport.clone(),
            except_ports: self.except_ports.clone(),
            flags: NatFlags {
                random: self.random,
                fully_random: self.fully_random,
                persistent: self.persistent,
            },
            per_source_stable: self.per_source_stable,
            address: self.address,
            pick_up: self.pick_up,
            enforce: self.enforce,
            open_connections: self.open_connections,
            scope: self.scope(),
            ..PolicySpec::to(target)
        })
        .map(Some)
    }

    fn target(&self) -> Option<Target> {
        let ports = self.to_ports.clone().map(|ports| match ports {
            PortsArg::Ports(ports) => Target::Ports(ports),
            PortsArg::Local => Target::Local,
        });
        let map_e = || self.map_e.as_ref().map(|map_e| Target::Ports(map_e.ports()));
        let blocks = || self.blocks.clone().map(Target::Blocks);
        ports.or_else(map_e).or_else(blocks)
    }

    fn scope(self) -> Scope {
        Scope {
            out_interfaces: self.out_interface.unwrap_or(OutInterfaces::Uplinks),
            families: match (self.ipv4, self.ipv6) {
                (true, false) => Families::Ipv4,
                (false, true) => Families::Ipv6,
                _ => Families::Both,
            },
            protocols: self.protocol,
            sources: self.source,
            destinations: self.destination,
            except_destinations: self.except_destination,
            except_interfaces: patterns(self.except_interface),
            in_interfaces: patterns(self.in_interface),
            destination_ports: self.dport,
            origin: self.origin,
            mark: self.mark,
            ipsec: self.ipsec,
        }
    }
}

fn patterns(patterns: Option<InterfacePatterns>) -> Vec<InterfacePattern> {
    patterns.map_or_else(Vec::new, |patterns| patterns.as_slice().to_vec())
}
