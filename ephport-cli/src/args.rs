//! The arguments.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ephport_core::Flow;

use crate::policy_args::PolicyArgs;

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
    /// Tells what apply would change: nothing (exit 0), or something (exit 3)
    Diff(RequestArgs),
    /// Prints what apply would install, without privileges and without touching the kernel's rules
    Show(ShowArgs),
    /// Tells what becomes of one connection, and why: by the policy's meaning and by its program
    Explain(ExplainArgs),
    /// Turns somebody else's rules into a policy file, on standard output
    #[command(subcommand)]
    Import(Import),
    /// Shows what a policy does to real packets, in private namespaces: needs no privileges,
    /// touches nothing
    Demo(OutputArgs),
}

/// A policy, from a file or in flags. It is the last part of a command's arguments, so that its
/// heading in the help ends with it.
#[derive(Debug, ClapArgs)]
pub(crate) struct SourceArgs {
    /// The policy file [default without policy flags: /etc/ephport/policy.toml]
    #[arg(conflicts_with_all = PolicyArgs::FLAGS)]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ApplyArgs {
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RequestArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Nft)]
    pub(crate) format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// What `nft -f` loads
    Nft,
    /// The instructions, as `nft --debug=netlink` prints them
    Bytecode,
    /// The policy and its rules, for programs
    Json,
    /// The policy file
    Toml,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    /// The connection's opening packet, like "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0";
    /// `iif NAME` for a forwarded one, `mid-stream`, `broadcast`
    #[arg(long)]
    pub(crate) flow: Flow,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// From the masquerading rules of iptables: one command after `--`, or an iptables-save dump
    /// or commands, one a line, on standard input
    Iptables {
        /// The command, after `--`
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// From AWS network ACLs: the JSON of `aws ec2 describe-network-acls` on standard input
    Nacl {
        /// The remote networks whose replies must get through [default: all of each address family
        /// that the ACLs allow something in]
        #[arg(long, value_name = "CIDR", value_delimiter = ',')]
        remote: Vec<ephport_core::AddressRange>,
    },
    /// From MAP-E parameters: psid=52,psid-len=8,offset=4, or the rule and the delegated prefix:
    /// ipv6-prefix=..,ipv4-prefix=..,ea-len=..,offset=..,delegated=..
    MapE {
        /// The parameters
        #[arg(value_name = "PARAMETERS")]
        map_e: ephport_core::MapE,
    },
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct OutputArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}
