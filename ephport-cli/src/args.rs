//! The arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ephport_core::Flow;

use crate::colour::When;
use crate::document::Name;
use crate::policy_args::PolicyArgs;
use crate::time::Time;

/// Parse a command line, whose first word is the program's name.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Args, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    Args::from_arg_matches(&matches)
}

/// The definition of the command line. The short help of a command lists only common policy flags.
pub(crate) fn command() -> clap::Command {
    const COMMON: [(&str, &str); 2] = [
        ("to-ports", "Permitted source ports, like 49152-61000"),
        ("out-interfaces", "Output interfaces [default: uplinks]"),
    ];
    let shorten = |arg: clap::Arg| {
        let id = arg.get_id().as_str();
        if !PolicyArgs::flags().contains(&id) {
            return arg;
        }
        let long = arg.get_long_help().or(arg.get_help()).cloned().unwrap_or_default();
        match COMMON.iter().find(|(name, _)| *name == id) {
            Some((_, short)) => arg.help(*short).long_help(long),
            // With a long help of its own, which man pages print even if the short help hides the flag.
            None => arg.long_help(long).hide_short_help(true),
        }
    };
    // These read policies and install none.
    let unenforced =
        |command: clap::Command| command.mut_arg("enforce", |arg| arg.hide_short_help(true));
    Args::command()
        .mut_subcommands(|command| command.mut_args(shorten))
        .mut_subcommand("usage", unenforced)
        .mut_subcommand("whose", unenforced)
}

const EXIT_CODES: &str = "Exit codes: 0 success, or yes; 1 failure; 2 wrong arguments; 3 no";

/// Choose the source ports of this host's outgoing connections, containers included.
#[derive(Debug, Parser)]
#[command(
    name = "ephport-nft",
    version,
    max_term_width = 80,
    after_help = EXIT_CODES,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
pub(crate) struct Args {
    /// Colours of the output
    ///
    /// The default follows the terminal and the variables NO_COLOR and CLICOLOR_FORCE.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    #[arg(hide_short_help = true)]
    pub(crate) color: When,

    /// Print version
    // The short help has no line left for it.
    #[arg(short = 'V', long, action = clap::ArgAction::Version, hide_short_help = true)]
    pub(crate) version: Option<bool>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install a policy in the kernel
    #[command(after_help = "\
Example: ephport-nft apply --to-ports 49152-61000

Exit codes: 0 applied; 1 failure, nothing is changed; 2 wrong arguments;
            3 not confirmed, undone")]
    Apply(ApplyArgs),
    /// Keep what `apply --confirm` installed
    #[command(after_help = "\
Example: ephport-nft confirm

Exit codes: 0 confirmed; 1 failure; 2 wrong arguments; 3 nothing to confirm")]
    Confirm(OutputArgs),
    /// Remove the table `inet ephport`, and nothing else
    #[command(after_help = "\
Example: ephport-nft remove

Exit codes: 0 removed, or absent; 1 failure; 2 wrong arguments")]
    Remove(RemoveArgs),
    /// Show whether the policy is installed, unchanged and effective
    #[command(after_help = "\
Example: ephport-nft status

Exit codes: 0 intact; 1 failure; 2 wrong arguments; 3 drifted, void, outdated or absent")]
    Status(StatusArgs),
    /// Keep a policy installed: restore it, and follow the host and the file
    #[command(after_help = "\
Example: ephport-nft guard /etc/ephport/policy.toml

Exit codes: 0 ended by SIGTERM, SIGINT or SIGQUIT; 1 failure; 2 wrong arguments")]
    Guard(GuardArgs),
    /// Show what `apply` would change
    #[command(after_help = "\
Example: ephport-nft diff policy.toml

Exit codes: 0 no difference; 1 failure; 2 wrong arguments; 3 different")]
    Diff(RequestArgs),
    /// Print the table that `apply` would install
    #[command(after_help = "\
Example: ephport-nft show --to-ports 49152-61000 --format sysctl

Exit codes: 0 printed; 1 failure; 2 wrong arguments")]
    Show(ShowArgs),
    /// Explain what happens to one connection
    #[command(after_help = "\
Example: ephport-nft explain --to-ports 49152-61000 \\
           --flow \"tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0\"

Exit codes: 0 explained; 1 failure; 2 wrong arguments")]
    Explain(ExplainArgs),
    /// Show the source ports in use
    #[command(after_help = "\
Example: ephport-nft usage --watch

Exit codes: 0 printed; 1 failure; 2 wrong arguments; 3 some are outside")]
    Usage(UsageArgs),
    /// Show what disturbs a policy on this host, and what to do
    #[command(after_help = "\
Example: ephport-nft doctor

Exit codes: 0 no findings; 1 failure; 2 wrong arguments; 3 findings")]
    Doctor(RequestArgs),
    /// Show which source a policy gives a port to
    #[command(after_help = "\
Example: ephport-nft whose 203.0.113.7:1100 --blocks 10.0.0.0/22=63@1024-65535

Exit codes: 0 found; 1 failure; 2 wrong arguments; 3 no source")]
    Whose(WhoseArgs),
    /// Convert rules of other tools to a policy file
    #[command(
        subcommand,
        after_help = "\
Example: iptables-save | ephport-nft import iptables > policy.toml

Exit codes: 0 printed; 1 failure, or nothing to import; 2 wrong arguments"
    )]
    Import(Import),
    /// Show what a policy does to real packets, in private namespaces
    #[command(after_help = "\
Example: ephport-nft demo

Exit codes: 0 every port is permitted; 1 failure; 2 wrong arguments")]
    Demo(OutputArgs),
    /// Write man pages, one for each command
    #[command(
        hide = true,
        after_help = "\
Example: ephport-nft man /usr/local/share/man/man1

Exit codes: 0 written; 1 failure; 2 wrong arguments"
    )]
    Man(ManArgs),
    /// Print completions of commands and flags for a shell
    #[command(
        hide = true,
        after_help = "\
Example: ephport-nft completions bash > /etc/bash_completion.d/ephport-nft

Exit codes: 0 printed; 1 failure; 2 wrong arguments"
    )]
    Completions(CompletionsArgs),
    /// Print the JSON schema of a document
    #[command(after_help = "\
Example: ephport-nft schema status

Exit codes: 0 printed; 1 failure; 2 wrong arguments")]
    Schema(SchemaArgs),
}

/// A policy, from a file or in flags. It is the last part of a command's arguments, so that its
/// heading in the help ends with it.
#[derive(Debug, ClapArgs)]
pub(crate) struct SourceArgs {
    /// Policy file [default without policy flags: /etc/ephport/policy.toml]
    ///
    /// `-` is standard input.
    #[arg(conflicts_with_all = PolicyArgs::flags())]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ApplyArgs {
    /// Print what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Undo it unless it is confirmed within this time
    ///
    /// Enter or `ephport-nft confirm` confirms it.
    /// What was installed before is restored when no confirmation comes in time, when the command
    /// is interrupted or killed, and when its terminal is closed.
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u32).range(1..=86_400),
        conflicts_with = "dry_run"
    )]
    pub(crate) confirm: Option<u32>,

    /// Append the policies to this file, for `whose --at`
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) journal: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct GuardArgs {
    /// Policy file [default: /etc/ephport/policy.toml]
    ///
    /// It is read again when it changes and at SIGHUP. A bad file is reported, and the former
    /// policy stays.
    pub(crate) file: Option<PathBuf>,

    /// Write metrics to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) metrics: Option<PathBuf>,

    /// Append the policies to this file, for `whose --at`
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,

    /// Let other processes change the table, and restore it after that
    ///
    /// By default the guard owns the table, so that the kernel lets no other process change it
    /// (Linux 6.9 and later).
    #[arg(long)]
    pub(crate) no_owner: bool,

    /// Remove the table at the end; by default it stays
    #[arg(long)]
    pub(crate) remove_at_exit: bool,

    /// Compare what has no notifications, as sysctls, every so many seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub(crate) recheck: u64,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RemoveArgs {
    /// Append the removal to this file, for `whose --at`
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatusArgs {
    /// Print the rules too, as nft does, with their counters
    #[arg(long)]
    pub(crate) rules: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
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
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Nft)]
    pub(crate) format: Format,

    /// Print JSON, like `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The table, as `nft -f` reads it
    Nft,
    /// The policies on this host, for people
    Summary,
    /// The expressions of the rules, as `nft --debug=netlink` prints them
    Bytecode,
    /// The policies and rules, for programs
    Json,
    /// The policies, as a policy file
    Toml,
    /// The sysctls that restrict the host's own sockets to the same ports
    Sysctl,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ExplainArgs {
    /// Opening packet of the connection
    ///
    /// Written like "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0". `iif NAME` marks a
    /// forwarded packet (by default the source shows it, if this host has the interfaces),
    /// `other-source` one with an address of another interface, `bridged` a bridged frame or one
    /// of a transparent proxy, `ipsec` one that IPsec protects, `mark NUMBER` its mark, `expected`
    /// one of a connection that a conntrack helper expected, `mid-stream` one of an open
    /// connection, `broadcast` its destination.
    #[arg(long)]
    pub(crate) flow: Flow,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UsageArgs {
    /// Refresh every 2 seconds, or as often as given
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        conflicts_with_all = ["json", "openmetrics", "outside"]
    )]
    pub(crate) watch: Option<u64>,

    /// List connections with a port outside the policy
    #[arg(long, conflicts_with = "openmetrics")]
    pub(crate) outside: bool,

    /// Print metrics for node_exporter's textfile collector
    #[arg(long, conflicts_with = "json")]
    pub(crate) openmetrics: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WhoseArgs {
    /// The source after NAT, like 203.0.113.7:1100 or [2001:db8::1]:1100
    #[arg(value_name = "ADDRESS:PORT")]
    pub(crate) endpoint: std::net::SocketAddr,

    /// Answer for a time like 2026-11-27T08:30:00Z, from --journal
    #[arg(long, value_name = "TIME", value_parser = Time::parse, requires = "journal")]
    #[arg(conflicts_with = "file", conflicts_with_all = PolicyArgs::flags())]
    pub(crate) at: Option<Time>,

    /// Journal of `apply` or `guard` for `--at`
    #[arg(long, hide_short_help = true, value_name = "FILE", requires = "at")]
    pub(crate) journal: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Directory in which the pages are written
    pub(crate) directory: PathBuf,
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct SchemaArgs {
    /// The document
    #[arg(value_enum)]
    pub(crate) name: Name,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Convert masquerading rules of iptables
    ///
    /// Give one command after `--`, or on standard input an iptables-save dump, a script, or
    /// commands, one a line.
    Iptables {
        /// Rules that do not name their address family are for IPv4
        #[arg(long, conflicts_with = "ipv6")]
        ipv4: bool,

        /// Rules that do not name their address family are for IPv6
        #[arg(long)]
        ipv6: bool,

        /// The command, after `--`
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,

        #[command(flatten)]
        output: OutputArgs,
    },
    /// Convert AWS network ACLs
    ///
    /// Give the JSON of `aws ec2 describe-network-acls` on standard input.
    Nacl {
        /// Remote networks whose replies must arrive [default: all of each
        /// address family that the ACLs allow]
        #[arg(long, value_name = "CIDR", value_delimiter = ',')]
        remote: Vec<ephport_core::AddressRange>,

        /// Only the network ACL with this id
        #[arg(long, value_name = "ID", conflicts_with = "subnet")]
        acl: Option<String>,

        /// Only the network ACL of this subnet
        #[arg(long, value_name = "ID")]
        subnet: Option<String>,

        #[command(flatten)]
        output: OutputArgs,
    },
    /// Convert MAP-E parameters
    ///
    /// Write psid=52,psid-len=8,offset=4, or the rule and the delegated prefix:
    /// ipv6-prefix=..,ipv4-prefix=..,ea-len=..,offset=..,delegated=..
    /// Standard input may also be /tmp/map-*.rules of OpenWrt, or the JSON of
    /// `ubus call network.interface dump`.
    MapE {
        /// The parameters [default: standard input]
        #[arg(value_name = "PARAMETERS", value_parser = ephport_core::import::map_e::target)]
        target: Option<ephport_core::Target>,

        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct OutputArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}
