//! The options of iptables, of its matches and of its targets, as one table.
//!
//! Sources: iptables(8), iptables-extensions(8) and what iptables 1.8.9 accepts. A match or target
//! that the table does not list is accepted with any options. A policy key for an option is another
//! [`Meaning`] in its line, and an arm where the meanings are applied to a rule.

use super::grammar::Meaning::{
    Append, Check, Comment, Delete, FamilyOnly, Flush, FullyRandom, Goto, Hook, Insert, Jump, List,
    Match, NoEffect, NotInRules, OtherCommand, OutInterface, Persistent, Protocol, Random, Replace,
    SourceNetworks, SourcePortList, SourcePorts, Syn, Table, ToPorts, ToSource, Unsupported,
};
use super::grammar::{Meaning, Module, Opt, Values, flag, one, two};
use crate::net::family::Family;

const fn command(names: &'static [&'static str], meaning: Meaning) -> Opt {
    one(names, meaning).group("command")
}

const fn listing(names: &'static [&'static str], meaning: Meaning) -> Opt {
    Opt::new(names, Values::Optional, meaning).group("command")
}

/// A negatable option with one value that a policy has no key for.
const fn unsupported(names: &'static [&'static str]) -> Opt {
    one(names, Unsupported).negatable()
}

/// The options of iptables itself.
pub(super) const GENERAL: &[Opt] = &[
    one(&["-t", "--table"], Table).repeatable(),
    command(&["-A", "--append"], Append),
    command(&["-I", "--insert"], Insert),
    command(&["-D", "--delete"], Delete),
    command(&["-R", "--replace"], Replace),
    command(&["-C", "--check"], Check),
    listing(&["-F", "--flush"], Flush),
    listing(&["-S", "--list-rules"], List),
    listing(&["-L", "--list"], List),
    listing(&["-Z", "--zero"], OtherCommand),
    listing(&["-X", "--delete-chain"], OtherCommand),
    command(&["-N", "--new-chain"], OtherCommand),
    two(&["-P", "--policy"], OtherCommand).group("command"),
    two(&["-E", "--rename-chain"], OtherCommand).group("command"),
    one(&["-p", "--protocol", "--proto"], Protocol).negatable(),
    one(&["-s", "--source", "--src"], SourceNetworks).negatable(),
    one(&["-d", "--destination", "--dst"], Meaning::DestinationNetworks).negatable(),
    one(&["-o", "--out-interface"], OutInterface).negatable(),
    one(&["-i", "--in-interface"], Hook).negatable(),
    flag(&["-f", "--fragment"], Unsupported).negatable(),
    one(&["-m", "--match"], Match).repeatable(),
    one(&["-j", "--jump"], Jump).group("-j"),
    one(&["-g", "--goto"], Goto).group("-j"),
    flag(&["-4", "--ipv4"], FamilyOnly(Family::Ipv4)).repeatable(),
    flag(&["-6", "--ipv6"], FamilyOnly(Family::Ipv6)).repeatable(),
    flag(&["-v", "--verbose"], NoEffect).repeatable(),
    flag(&["-n", "--numeric"], NotInRules),
    flag(&["-x", "--exact"], NotInRules),
    flag(&["--line-numbers"], NotInRules),
    two(&["-c", "--set-counters"], NoEffect),
    one(&["-M", "--modprobe"], NoEffect).repeatable(),
    Opt::new(&["-w", "--wait"], Values::Optional, NoEffect).repeatable(),
    Opt::new(&["-W", "--wait-interval"], Values::Optional, NoEffect).repeatable(),
];

const SOURCE_PORT: Opt = one(&["--sport", "--source-port"], SourcePorts).negatable();
const DESTINATION_PORT: Opt =
    one(&["--dport", "--destination-port"], Meaning::DestinationPorts).negatable();

/// The matches.
const MATCHES: &[Module] = &[
    Module::supported(
        "tcp",
        &[
            SOURCE_PORT,
            DESTINATION_PORT,
            flag(&["--syn"], Syn).negatable().group("--tcp-flags"),
            two(&["--tcp-flags"], Unsupported).negatable().group("--tcp-flags"),
            unsupported(&["--tcp-option"]),
        ],
    )
    .of(6),
    Module::supported("udp", &[SOURCE_PORT, DESTINATION_PORT]).of(17),
    Module::supported(
        "sctp",
        &[SOURCE_PORT, DESTINATION_PORT, two(&["--chunk-types"], Unsupported).negatable()],
    )
    .of(132),
    Module::supported(
        "dccp",
        &[
            SOURCE_PORT,
            DESTINATION_PORT,
            unsupported(&["--dccp-types"]),
            unsupported(&["--dccp-option"]),
        ],
    )
    .of(33),
    Module::supported("icmp", &[one(&["--icmp-type"], Meaning::IcmpType).negatable()])
        .of(1)
        .requires(&["--icmp-type"]),
    Module::supported("icmp6", &[unsupported(&["--icmpv6-type"])])
        .of(58)
        .requires(&["--icmpv6-type"]),
    Module::supported(
        "multiport",
        &[
            one(&["--sports", "--source-ports"], SourcePortList).negatable().group("ports"),
            one(&["--dports", "--destination-ports"], Meaning::DestinationPortList)
                .negatable()
                .group("ports"),
            unsupported(&["--ports"]).group("ports"),
        ],
    )
    .requires(&["ports"]),
    Module::supported("comment", &[one(&["--comment"], Comment)]).requires(&["--comment"]),
    Module::supported("mark", &[one(&["--mark"], Meaning::Mark).negatable()]).requires(&["--mark"]),
    Module::other("connmark", &[unsupported(&["--mark"])]).requires(&["--mark"]),
    Module::supported(
        "policy",
        &[
            one(&["--dir"], Meaning::IpsecDirection),
            one(&["--pol"], Meaning::Ipsec),
            flag(&["--strict"], Unsupported),
            unsupported(&["--reqid"]).repeatable(),
            unsupported(&["--spi"]).repeatable(),
            unsupported(&["--proto"]).repeatable(),
            unsupported(&["--mode"]).repeatable(),
            unsupported(&["--tunnel-src"]).repeatable(),
            unsupported(&["--tunnel-dst"]).repeatable(),
            flag(&["--next"], Unsupported).repeatable(),
        ],
    )
    .requires(&["--dir"]),
    Module::other(
        "addrtype",
        &[
            unsupported(&["--src-type"]),
            unsupported(&["--dst-type"]),
            flag(&["--limit-iface-in"], Unsupported),
            flag(&["--limit-iface-out"], Unsupported),
        ],
    )
    .requires(&["--src-type", "--dst-type"]),
    Module::other(
        "conntrack",
        &[
            unsupported(&["--ctstate"]),
            unsupported(&["--ctproto"]),
            unsupported(&["--ctorigsrc"]),
            unsupported(&["--ctorigdst"]),
            unsupported(&["--ctreplsrc"]),
            unsupported(&["--ctrepldst"]),
            unsupported(&["--ctorigsrcport"]),
            unsupported(&["--ctorigdstport"]),
            unsupported(&["--ctreplsrcport"]),
            unsupported(&["--ctrepldstport"]),
            unsupported(&["--ctstatus"]),
            unsupported(&["--ctexpire"]),
            one(&["--ctdir"], Unsupported),
        ],
    )
    .requires_any(),
    Module::other("state", &[unsupported(&["--state"])]).requires(&["--state"]),
    Module::other(
        "physdev",
        &[
            unsupported(&["--physdev-in"]),
            unsupported(&["--physdev-out"]),
            flag(&["--physdev-is-in"], Unsupported).negatable(),
            flag(&["--physdev-is-out"], Unsupported).negatable(),
            flag(&["--physdev-is-bridged"], Unsupported).negatable(),
        ],
    )
    .requires_any(),
    Module::other(
        "owner",
        &[
            unsupported(&["--uid-owner"]),
            unsupported(&["--gid-owner"]),
            flag(&["--socket-exists"], Unsupported).negatable(),
            flag(&["--suppl-groups"], Unsupported),
        ],
    )
    .requires_any(),
    Module::other(
        "statistic",
        &[
            one(&["--mode"], Unsupported),
            unsupported(&["--probability"]),
            unsupported(&["--every"]),
            one(&["--packet"], Unsupported),
        ],
    )
    .requires_any(),
    Module::other("limit", &[one(&["--limit"], Unsupported), one(&["--limit-burst"], Unsupported)]),
    Module::other("iprange", &[unsupported(&["--src-range"]), unsupported(&["--dst-range"])])
        .requires_any(),
    Module::other("pkttype", &[unsupported(&["--pkt-type"])]).requires(&["--pkt-type"]),
    Module::other("length", &[unsupported(&["--length"])]).requires(&["--length"]),
    Module::other("realm", &[unsupported(&["--realm"])]).requires(&["--realm"]),
    Module::other("helper", &[unsupported(&["--helper"])]).requires(&["--helper"]),
    Module::other("tcpmss", &[unsupported(&["--mss"])]).of(6).requires(&["--mss"]),
    Module::other("cgroup", &[unsupported(&["--cgroup"]), unsupported(&["--path"])]),
    Module::opaque("esp").of(50),
    Module::opaque("ah").of(51),
    Module::opaque("mac").elsewhere(),
    Module::opaque("rpfilter").elsewhere(),
    Module::opaque("socket").elsewhere(),
];

/// A match that the table does not list.
pub(super) const ANY_MATCH: Module = Module::opaque("");

const RANDOM: Opt = flag(&["--random"], Random);
const FULLY_RANDOM: Opt = flag(&["--random-fully"], FullyRandom);

/// The source translations.
const TRANSLATIONS: &[Module] = &[
    Module::supported("MASQUERADE", &[one(&["--to-ports"], ToPorts), RANDOM, FULLY_RANDOM]),
    Module::supported(
        "SNAT",
        &[
            one(&["--to-source"], ToSource),
            RANDOM,
            FULLY_RANDOM,
            flag(&["--persistent"], Persistent),
        ],
    )
    .requires(&["--to-source"]),
];

/// Targets without options that end the chain for a packet.
const VERDICTS: &[Module] = &[Module::supported("ACCEPT", &[]), Module::supported("RETURN", &[])];

/// Targets after which a packet continues with the next rule, with their options.
const PASSING: &[Module] = &[
    Module::supported(
        "LOG",
        &[
            one(&["--log-level"], NoEffect),
            one(&["--log-prefix"], NoEffect),
            flag(&["--log-tcp-sequence"], NoEffect),
            flag(&["--log-tcp-options"], NoEffect),
            flag(&["--log-ip-options"], NoEffect),
            flag(&["--log-uid"], NoEffect),
            flag(&["--log-macdecode"], NoEffect),
        ],
    ),
    Module::supported(
        "MARK",
        &[
            one(&["--set-mark"], NoEffect).group("mark"),
            one(&["--set-xmark"], NoEffect).group("mark"),
            one(&["--and-mark"], NoEffect).group("mark"),
            one(&["--or-mark"], NoEffect).group("mark"),
            one(&["--xor-mark"], NoEffect).group("mark"),
        ],
    )
    .requires_any(),
    Module::supported("CLASSIFY", &[one(&["--set-class"], NoEffect)]).requires_any(),
    Module::opaque("AUDIT"),
    Module::opaque("CHECKSUM"),
    Module::opaque("CONNMARK"),
    Module::opaque("CONNSECMARK"),
    Module::opaque("DSCP"),
    Module::opaque("ECN"),
    Module::opaque("HL"),
    Module::opaque("HMARK"),
    Module::opaque("IDLETIMER"),
    Module::opaque("LED"),
    Module::opaque("NFLOG"),
    Module::opaque("RATEEST"),
    Module::opaque("SECMARK"),
    Module::opaque("SET"),
    Module::opaque("TCPMSS"),
    Module::opaque("TCPOPTSTRIP"),
    Module::opaque("TEE"),
    Module::opaque("TOS"),
    Module::opaque("TRACE"),
    Module::opaque("TTL"),
    Module::opaque("ULOG"),
];

/// Other targets whose options the table does not list; all others are chains, which have none.
const OPAQUE: &[Module] = &[
    Module::opaque("CLUSTERIP"),
    Module::opaque("DNPT"),
    Module::opaque("NETMAP"),
    Module::opaque("NFQUEUE"),
    Module::opaque("SNPT"),
];

/// A chain as a target.
const CHAIN: Module = Module::other("", &[]);

/// Targets that iptables refuses in the chain POSTROUTING of the table nat.
const FORBIDDEN: &[&str] =
    &["CT", "DNAT", "DROP", "NOTRACK", "REDIRECT", "REJECT", "SYNPROXY", "TPROXY", "POSTROUTING"];

/// The match of this name.
pub(super) fn match_module(name: &str) -> &'static Module {
    let name = if matches!(name, "icmpv6" | "ipv6-icmp") { "icmp6" } else { name };
    MATCHES.iter().find(|module| module.name == name).unwrap_or(&ANY_MATCH)
}

/// The target of this name.
pub(super) fn target_module(name: &str) -> &'static Module {
    if is_forbidden(name) {
        return &ANY_MATCH;
    }
    let mut known = TRANSLATIONS.iter().chain(VERDICTS).chain(PASSING).chain(OPAQUE);
    known.find(|module| module.name == name).unwrap_or(&CHAIN)
}

/// Whether a packet may end its way through the chain at a rule with this target.
pub(super) fn is_terminal(target: &str) -> bool {
    PASSING.iter().all(|module| module.name != target)
}

/// Whether POSTROUTING cannot have a rule with this target.
pub(super) fn is_forbidden(target: &str) -> bool {
    FORBIDDEN.contains(&target)
}

/// The outcome of looking an option up.
#[derive(Debug)]
pub(super) enum Found {
    /// The option, and the index of its module among those given; `None` for a general one.
    Option(&'static Opt, Option<usize>),
    Unknown,
}

/// Finds a long option as getopt_long does: an exact name, or the beginning of names of one option.
///
/// General options come first, then the modules with the newest first; of a module that was named
/// twice, the options are those of the second.
pub(super) fn long_option(name: &str, modules: &[&'static Module]) -> Found {
    let is_newest = |(at, module): &(usize, &&'static Module)| {
        modules.iter().skip(at + 1).all(|later| later.name != module.name)
    };
    let of_modules = modules.iter().enumerate().filter(is_newest).rev();
    let of_modules = of_modules
        .flat_map(|(at, module)| module.options.iter().map(move |option| (option, Some(at))));
    let all = || GENERAL.iter().map(|option| (option, None)).chain(of_modules.clone());
    if let Some((option, module)) = all().find(|(option, _)| option.names.contains(&name)) {
        return Found::Option(option, module);
    }
    let is_begun = |option: &Opt| option.names.iter().any(|long| long.starts_with(name));
    let mut begun = all().filter(|(option, _)| name.len() > 2 && is_begun(option));
    match (begun.next(), begun.next()) {
        (Some((option, module)), None) => Found::Option(option, module),
        _ => Found::Unknown,
    }
}

/// Finds a short option by its letter.
pub(super) fn short_option(letter: char) -> Option<&'static Opt> {
    GENERAL.iter().find(|option| {
        let mut name = option.names.first().into_iter().flat_map(|name| name.chars());
        name.next() == Some('-') && name.next() == Some(letter) && name.next().is_none()
    })
}
