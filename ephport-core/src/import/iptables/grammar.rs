//! The grammar of iptables' options: names, values, negation, repetition and meaning.

use crate::net::family::Family;

/// The number of words that follow an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    None,
    /// One in the same word, or none.
    Optional,
    One,
    Two,
}

/// The effect of an option on a rule or a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Table,
    Append,
    Insert,
    Delete,
    Replace,
    Check,
    Flush,
    /// Prints rules: what follows in the text may be what it printed.
    List,
    /// Changes no rule of a chain.
    OtherCommand,
    Protocol,
    SourceNetworks,
    DestinationNetworks,
    OutInterface,
    Match,
    Jump,
    Goto,
    FamilyOnly(Family),
    SourcePorts,
    SourcePortList,
    DestinationPorts,
    DestinationPortList,
    Syn,
    Mark,
    /// `--icmp-type`; ip6tables accepts no ports with ICMPv6.
    IcmpType,
    /// `--pol` of the match `policy`.
    Ipsec,
    /// `--dir` of the match `policy`.
    IpsecDirection,
    Comment,
    ToPorts,
    ToSource,
    Random,
    FullyRandom,
    Persistent,
    /// Does not change which packets match or what happens to them.
    NoEffect,
    /// iptables accepts it; a policy has no key for it.
    Unsupported,
    /// iptables refuses it where a rule is added.
    NotInRules,
    /// iptables refuses it in POSTROUTING.
    Hook,
}

/// One option.
#[derive(Debug)]
pub(super) struct Opt {
    /// The names with their dashes; messages use the first.
    pub(super) names: &'static [&'static str],
    pub(super) values: Values,
    pub(super) meaning: Meaning,
    /// Whether a `!` may precede it.
    pub(super) is_negatable: bool,
    /// Whether it may be given again.
    pub(super) is_repeatable: bool,
    /// The options of one module with the same group exclude each other.
    pub(super) group: &'static str,
}

impl Opt {
    pub(super) const fn new(
        names: &'static [&'static str],
        values: Values,
        meaning: Meaning,
    ) -> Self {
        let (is_negatable, is_repeatable) = (false, false);
        Self { names, values, meaning, is_negatable, is_repeatable, group: "" }
    }

    pub(super) const fn negatable(self) -> Self {
        Self { is_negatable: true, ..self }
    }

    pub(super) const fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    pub(super) const fn group(self, group: &'static str) -> Self {
        Self { group, ..self }
    }

    /// The name that messages use.
    pub(super) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// The name under which a second one of it or of its group is found.
    pub(super) fn exclusion(&self) -> &'static str {
        if self.group.is_empty() { self.name() } else { self.group }
    }
}

/// An option without a value.
pub(super) const fn flag(names: &'static [&'static str], meaning: Meaning) -> Opt {
    Opt::new(names, Values::None, meaning)
}

/// An option with one value.
pub(super) const fn one(names: &'static [&'static str], meaning: Meaning) -> Opt {
    Opt::new(names, Values::One, meaning)
}

/// An option with two values.
pub(super) const fn two(names: &'static [&'static str], meaning: Meaning) -> Opt {
    Opt::new(names, Values::Two, meaning)
}

/// The options without which iptables refuses a match or a target.
#[derive(Clone, Copy, Debug)]
pub(super) enum Required {
    Nothing,
    /// Any of its options.
    Any,
    /// One of these options or groups.
    OneOf(&'static [&'static str]),
}

/// A match or a target with its options.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) name: &'static str,
    /// The protocol that `-p` must name, where the kernel demands one.
    pub(super) protocol: Option<u8>,
    /// The options that must be given.
    pub(super) required: Required,
    /// Whether a policy expresses the match by its options; the match without them matches every packet.
    pub(super) is_supported: bool,
    /// Whether the kernel refuses it in POSTROUTING.
    pub(super) is_elsewhere: bool,
    /// Whether the table has all its options.
    pub(super) is_complete: bool,
    pub(super) options: &'static [Opt],
}

impl Module {
    /// A match that a policy expresses.
    pub(super) const fn supported(name: &'static str, options: &'static [Opt]) -> Self {
        Self { is_supported: true, ..Self::other(name, options) }
    }

    /// A match that a policy has no key for, with all its options.
    pub(super) const fn other(name: &'static str, options: &'static [Opt]) -> Self {
        let (protocol, required) = (None, Required::Nothing);
        let (is_supported, is_elsewhere, is_complete) = (false, false, true);
        Self { name, protocol, required, is_supported, is_elsewhere, is_complete, options }
    }

    /// A match whose options the table does not list.
    pub(super) const fn opaque(name: &'static str) -> Self {
        Self { is_complete: false, ..Self::other(name, &[]) }
    }

    pub(super) const fn of(self, protocol: u8) -> Self {
        Self { protocol: Some(protocol), ..self }
    }

    pub(super) const fn requires(self, options: &'static [&'static str]) -> Self {
        Self { required: Required::OneOf(options), ..self }
    }

    pub(super) const fn requires_any(self) -> Self {
        Self { required: Required::Any, ..self }
    }

    pub(super) const fn elsewhere(self) -> Self {
        Self { is_elsewhere: true, ..self }
    }
}
