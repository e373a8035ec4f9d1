//! Why a rule is not a policy.

use thiserror::Error;

use crate::net::interface::InterfaceError;
use crate::net::mark::MarkError;
use crate::net::port::PortError;
use crate::net::protocol::ProtocolError;
use crate::policy::PolicyError;

/// Why a rule is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SkipReason {
    /// iptables refuses it, or it cannot be read; it has no place in the chain.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// iptables accepts it, and no policy expresses it; it keeps its place in the chain.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The chain does not contain such a rule after the text.
    #[error(transparent)]
    NotInstalled(#[from] NotInstalled),
}

impl SkipReason {
    /// The stable name of this kind of reason.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Unsupported(_) => "unsupported",
            Self::NotInstalled(_) => "not-installed",
        }
    }
}

/// Why a rule has no place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Two networks after `! -s` or `! -d`.
    #[error("`! {option}` accepts one network: iptables refuses the rule")]
    NegatedList {
        /// The option.
        option: &'static str,
    },
    /// All protocols, or all networks of a family, after a `!`.
    #[error("`! {option}` excludes every packet: iptables refuses the rule")]
    NegatedAll {
        /// The option.
        option: &'static str,
    },
    /// Ports without a protocol that has them.
    #[error("ports require -p tcp, udp, sctp, dccp or icmp before them: iptables refuses the rule")]
    NoProtocol,
    /// A match for another protocol.
    #[error("match `{name}` requires -p {name}: iptables refuses the rule")]
    WrongMatch {
        /// The match.
        name: Box<str>,
    },
    /// A match or a target without the options that it requires.
    #[error("`{name}` requires {required}: iptables refuses the rule")]
    NoOption {
        /// The match or target.
        name: Box<str>,
        /// The options.
        required: Box<str>,
    },
    /// An option without its value.
    #[error("`{option}` requires a value: iptables refuses the rule")]
    NoValue {
        /// The option.
        option: &'static str,
    },
    /// An option that may be given once.
    #[error("`{option}` is given twice: iptables refuses the rule")]
    Repeated {
        /// The option.
        option: &'static str,
    },
    /// Two options that exclude each other.
    #[error("`{option}` and another option exclude each other: iptables refuses the rule")]
    Excluded {
        /// The second option.
        option: &'static str,
    },
    /// A match or a target that POSTROUTING cannot have.
    #[error("POSTROUTING cannot have `{name}`: iptables refuses the rule")]
    Hook {
        /// The option, match or target.
        name: Box<str>,
    },
    /// An option that does not go with the command.
    #[error("`{option}` does not go with a command that adds rules: iptables refuses the rule")]
    NotInRules {
        /// The option.
        option: &'static str,
    },
    /// A word that iptables does not know here.
    #[error("`{word}` is not understood here: expected an option of iptables")]
    Unknown {
        /// The word.
        word: Box<str>,
    },
    /// An option for the other address family.
    #[error("`{option}` is for the other address family: iptables refuses the rule")]
    Family {
        /// The option.
        option: &'static str,
    },
    /// Not a protocol.
    #[error("-p: {0}")]
    Protocol(#[source] ProtocolError),
    /// Not an interface.
    #[error("{option}: {error}")]
    Interface {
        /// The option.
        option: &'static str,
        /// Why it is none.
        error: InterfaceError,
    },
    /// More ports than multiport accepts.
    #[error("`{option}` accepts 15 ports, a range counts as two: iptables refuses the rule")]
    TooManyPorts {
        /// The option.
        option: &'static str,
    },
    /// Not ports.
    #[error("{option} `{text}`: {error}")]
    Ports {
        /// The option.
        option: &'static str,
        /// The value.
        text: Box<str>,
        /// Why they are none.
        error: PortError,
    },
    /// Not a network of the rule's family.
    #[error("{option} `{text}`: expected a network like {example}")]
    Network {
        /// The option.
        option: &'static str,
        /// The value.
        text: Box<str>,
        /// An example of one.
        example: &'static str,
    },
    /// Not an address of the rule's family.
    #[error("--to-source `{text}`: expected an address with ports like {example}")]
    Address {
        /// The value.
        text: Box<str>,
        /// An example of one.
        example: &'static str,
    },
    /// A replacement by several rules.
    #[error("`{option}` accepts one source and one destination: iptables refuses the rule")]
    SeveralRules {
        /// The option.
        option: &'static str,
    },
    /// Not a rule number.
    #[error("`{word}` is not a rule number: expected 1 or more")]
    RuleNumber {
        /// The word.
        word: Box<str>,
    },
    /// Not a mark.
    #[error("{option}: {error}")]
    Mark {
        /// The option.
        option: &'static str,
        /// Why it is none.
        error: MarkError,
    },
    /// A quote without its end.
    #[error("a quote is not closed: expected a closing one on the line")]
    Quote,
    /// A space after the backslash that should continue the line.
    #[error("a space follows the `\\`, so the next line does not continue this one: remove it")]
    SpaceAfterBackslash,
    /// A variable or the like.
    #[error("`{word}` is for a shell to replace: expected the value itself")]
    Expansion {
        /// The word.
        word: Box<str>,
    },
    /// A rule without a command.
    #[error("no command: expected -A or -I with a chain")]
    NoCommand,
}

/// Why a rule of the chain is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// A translation of the address only.
    #[error("no ports: expected --to-ports, or --to-source with ports")]
    NoPorts,
    /// A rule of POSTROUTING with another target.
    #[error(
        "target `{target}` is no source translation: \
         except from the policies the packets that it keeps from the rules after it"
    )]
    Target {
        /// The target.
        target: Box<str>,
    },
    /// A translation in a chain that POSTROUTING may call.
    #[error("chain `{chain}`: only the rules of POSTROUTING itself can be policies")]
    Chain {
        /// The chain.
        chain: Box<str>,
    },
    /// A match that policies have no key for.
    #[error("policies do not support match `{name}`")]
    Match {
        /// The match.
        name: Box<str>,
    },
    /// An option that policies have no key for.
    #[error("policies do not support `{option}`")]
    Option {
        /// The option.
        option: &'static str,
    },
    /// An option that policies have no key for after a `!`.
    #[error("policies do not support `! {option}`")]
    Negated {
        /// The option.
        option: &'static str,
    },
    /// A condition that policies have once and the rule twice.
    #[error("policies do not support `{option}` twice")]
    Twice {
        /// The option.
        option: &'static str,
    },
    /// Packets of the loopback interface.
    #[error("policies never translate on loopback")]
    Loopback,
    /// A range of addresses.
    #[error("policies do not support a range of addresses: expected one --to-source")]
    AddressRange,
    /// More networks than fit in a chain of this import.
    #[error("the networks of -s and -d make more than {max} rules")]
    TooManyRules {
        /// The most rules that one line may make.
        max: usize,
    },
    /// A port by name.
    #[error("{option} `{text}`: names of services are not looked up: expected the number")]
    Service {
        /// The option.
        option: &'static str,
        /// The name.
        text: Box<str>,
    },
    /// A port that iptables accepts and that is none.
    #[error("{option} `{text}`: {error}")]
    Ports {
        /// The option.
        option: &'static str,
        /// The value.
        text: Box<str>,
        /// Why they are none.
        error: PortError,
    },
    /// A network by name, or with a mask that is not a prefix.
    #[error("{option} `{text}`: expected a network like {example}")]
    Network {
        /// The option.
        option: &'static str,
        /// The value.
        text: Box<str>,
        /// An example of one.
        example: &'static str,
    },
    /// A mark that no packet has.
    #[error("{option}: {error}")]
    Mark {
        /// The option.
        option: &'static str,
        /// Why none has it.
        error: MarkError,
    },
    /// A protocol whose ports no policy translates.
    #[error("-p: {0}")]
    Protocol(#[source] ProtocolError),
    /// An interface whose name no policy file can contain.
    #[error("{option}: {error}")]
    Interface {
        /// The option.
        option: &'static str,
        /// Why not.
        error: InterfaceError,
    },
    /// Bytes that are not UTF-8 where they matter.
    #[error("{option}: the name is not UTF-8: a policy file cannot contain it")]
    NotUtf8 {
        /// The option.
        option: &'static str,
    },
    /// The rule translates nothing that a policy translates.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Why the chain does not contain such a rule after the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotInstalled {
    /// A command that adds no source translation.
    #[error("no source translation: expected -t nat -A POSTROUTING -j MASQUERADE or -j SNAT")]
    NoTranslation,
    /// A rule of another table.
    #[error("table `{table}`: expected -t nat, the only table with source translations")]
    Table {
        /// The table.
        table: Box<str>,
    },
    /// A command that reads or checks, or changes something else than rules.
    #[error("`{option}` adds no rule")]
    AddsNothing {
        /// The option.
        option: &'static str,
    },
    /// A rule that a later line removes.
    #[error("line {by} removes the rule")]
    Removed {
        /// The line, from 1.
        by: usize,
    },
    /// A command that removes rules of the text.
    #[error("`{option}` removes the rule of line {line}")]
    Removes {
        /// The option.
        option: &'static str,
        /// The line of the first rule that it removes, from 1.
        line: usize,
    },
    /// A command that removes a rule that the text does not add.
    #[error("`{option}` removes a rule that the lines before it do not add")]
    NothingToRemove {
        /// The option.
        option: &'static str,
    },
    /// A comment.
    #[error("a comment: remove the `#` if the line is to be imported")]
    Comment,
    /// A command that a shell would not run after those before it.
    #[error("the shell does not run it after the commands before it")]
    NotRun,
    /// A command for the end of a service.
    #[error("`{key}` runs when the interface or the service stops")]
    AtStop {
        /// The key before the command.
        key: Box<str>,
    },
    /// Something else than a rule.
    #[error("expected an iptables command or a line of iptables-save")]
    NotARule,
}
