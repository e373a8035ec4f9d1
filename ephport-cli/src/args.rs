//! The arguments.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ephport_core::{
    Choice, Egress, Families, PickUp, Policy, PolicyError, PolicySpec, PortRange, Protocols, Scope,
    Target,
};

/// Decides which source ports this host's outgoing connections use, containers' included.
#[derive(Debug, Parser)]
#[command(name = "ephport-nft", version, about, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the kernel hold a policy; a second time changes nothing
    Apply(ApplyArgs),
    /// Takes the table `inet ephport` away, and nothing else
    Remove(OutputArgs),
    /// Tells whether the policy is installed and intact (exit 0), or drifted or absent (exit 3)
    Status(OutputArgs),
    /// Prints what apply would install, without privileges and without touching the kernel's rules
    Show(ShowArgs),
    /// Shows what a policy does to real packets, in private namespaces: needs no privileges,
    /// touches nothing
    Demo(OutputArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Nft)]
    pub(crate) format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// What `nft -f` loads
    Nft,
    /// The instructions, as `nft --debug=netlink` prints them
    Bytecode,
    /// Both, for programs
    Json,
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct OutputArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// A policy in flags.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Policy")]
#[allow(clippy::struct_excessive_bools)] // They are flags.
pub(crate) struct PolicyArgs {
    /// Protocols: tcp, udp, udplite, sctp, joined by commas
    #[arg(short, long, value_name = "PROTOCOLS", default_value_t = Protocols::DEFAULT)]
    protocol: Protocols,

    /// The source ports that are moved
    #[arg(long, value_name = "PORTS", default_value_t = PortRange::EPHEMERAL)]
    sport: PortRange,

    /// The source ports that are allowed, like 49152-61000; one that is allowed already is kept
    /// while it is free
    #[arg(long, visible_alias = "to", value_name = "PORTS")]
    to_ports: PortRange,

    /// The interfaces by which connections leave: names, prefixes like `wg*`, or `any` for all but
    /// loopback, joined by commas [default: the uplinks, which hold a default route]
    #[arg(short, long, value_name = "INTERFACES")]
    out_interface: Option<Egress>,

    /// IPv4 connections only
    #[arg(long)]
    ipv4: bool,

    /// IPv6 connections only
    #[arg(long)]
    ipv6: bool,

    /// Pick a random port, also where one could be kept
    #[arg(long)]
    random: bool,

    /// The same, and never by a hash of the addresses
    #[arg(long)]
    fully_random: bool,

    /// Give a client the same address for each of its connections
    #[arg(long)]
    persistent: bool,

    /// The TCP packets that a connection may be picked up from
    #[arg(long, value_enum, default_value_t = PickUpArg::Opening)]
    pick_up: PickUpArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PickUpArg {
    /// The opening segment: connections that are open now stay as they are
    Opening,
    /// Any, as iptables does it: the first NAT rule on a host breaks its open connections
    Any,
}

impl PolicyArgs {
    /// The policy that the flags describe.
    pub(crate) fn policy(self) -> Result<Policy, PolicyError> {
        let families = match (self.ipv4, self.ipv6) {
            (true, false) => Families::Ipv4,
            (false, true) => Families::Ipv6,
            _ => Families::Both,
        };
        Policy::new(PolicySpec {
            scope: Scope {
                egress: self.out_interface.unwrap_or(Egress::Uplinks),
                families,
                protocols: self.protocol,
                ..Scope::default()
            },
            source_ports: self.sport.into(),
            choice: Choice {
                random: self.random,
                fully_random: self.fully_random,
                persistent: self.persistent,
                per_source_stable: false,
            },
            pick_up: match self.pick_up {
                PickUpArg::Opening => PickUp::Opening,
                PickUpArg::Any => PickUp::Any,
            },
            ..PolicySpec::to(Target::Ports(self.to_ports.into()))
        })
    }
}
