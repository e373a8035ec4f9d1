//! Why a rule is not a policy.

use thiserror::Error;

use crate::net::interface::InterfaceError;
use crate::net::port::PortError;
use crate::net::protocol::ProtocolError;
use crate::policy::PolicyError;

/// Why a rule is not a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A translation of addresses alone.
    #[error("no ports: nothing for ephport to say")]
    NoPorts,
    /// A command that adds no source translation.
    #[error("no source translation: expected -t nat -A POSTROUTING -j MASQUERADE or -j SNAT")]
    NoTranslation,
    /// A translation in a chain of which it is not known what gets there.
    #[error("chain `{chain}`: only the rules of POSTROUTING itself can be policies")]
    Chain {
        /// The chain.
        chain: Box<str>,
    },
    /// A rule of POSTROUTING with another target.
    #[error(
        "target `{target}` is no source translation: \
         see to it that the policies leave alone what it takes from the rules behind it"
    )]
    Target {
        /// The target.
        target: Box<str>,
    },
    /// A match that has no counterpart.
    #[error("a policy cannot say match `{name}`")]
    Match {
        /// The match.
        name: Box<str>,
    },
    /// An option that has no counterpart.
    #[error("a policy cannot say `{option}`")]
    Option {
        /// The option.
        option: &'static str,
    },
    /// An option that has no counterpart when it is negated.
    #[error("a policy cannot say `! {option}`")]
    Negated {
        /// The option.
        option: &'static str,
    },
    /// Several networks behind a `!`.
    #[error("`! -d` takes one network: iptables refuses the rule as it stands")]
    NegatedList,
    /// Connections over loopback.
    #[error("a policy never touches loopback")]
    Loopback,
    /// Several addresses to leave with.
    #[error("a policy cannot say a range of addresses: expected one --to-source")]
    AddressRange,
    /// A port by name.
    #[error("{option} `{text}`: names of services are not looked up: expected the number")]
    Service {
        /// The option.
        option: &'static str,
        /// The name.
        text: Box<str>,
    },
    /// A protocol that no policy governs.
    #[error("-p: {0}")]
    Protocol(#[source] ProtocolError),
    /// Not an interface.
    #[error("-o: {0}")]
    Interface(#[source] InterfaceError),
    /// Not ports.
    #[error("{option} `{text}`: {error}")]
    Ports {
        /// The option.
        option: &'static str,
        /// What was written.
        text: Box<str>,
        /// Why they are not.
        error: PortError,
    },
    /// Not a network of the command's family.
    #[error("{option} `{text}`: expected a network like {example}")]
    Network {
        /// The option.
        option: &'static str,
        /// What was written.
        text: Box<str>,
        /// What one looks like.
        example: &'static str,
    },
    /// Not an address of the command's family.
    #[error("--to-source `{text}`: expected an address with ports like {example}")]
    Address {
        /// What was written.
        text: Box<str>,
        /// What one looks like.
        example: &'static str,
    },
    /// Ports without a protocol that has them.
    #[error("ports need -p tcp, udp or sctp before them: iptables refuses the rule as it stands")]
    NoProtocol,
    /// A match for another protocol.
    #[error("match `{name}` needs -p {name}: iptables refuses the rule as it stands")]
    WrongMatch {
        /// The match.
        name: Box<str>,
    },
    /// SNAT without an address or ports.
    #[error("SNAT needs --to-source: iptables refuses the rule as it stands")]
    NoSource,
    /// An option without its value.
    #[error("`{option}` needs a value: iptables refuses the rule as it stands")]
    NoValue {
        /// The option.
        option: &'static str,
    },
    /// An option that may be given once.
    #[error("`{option}` is given twice: iptables refuses the rule as it stands")]
    Repeated {
        /// The option.
        option: &'static str,
    },
    /// A word that iptables does not know here, or we do not.
    #[error("`{word}` is not understood here: expected an option of iptables")]
    Unknown {
        /// The word.
        word: Box<str>,
    },
    /// An option for the other address family.
    #[error("`{option}` is for the other address family: iptables refuses the rule as it stands")]
    Family {
        /// The option.
        option: &'static str,
    },
    /// A command that takes rules away.
    #[error("`{option}` takes rules away: only -A and -I are followed")]
    Removal {
        /// The option.
        option: &'static str,
    },
    /// A quote without its end.
    #[error("a quote is not closed: expected a closing one on the line")]
    Quote,
    /// A variable or the like.
    #[error("`{word}` is for a shell to replace: expected the value itself")]
    Expansion {
        /// The word.
        word: Box<str>,
    },
    /// Something else than a rule.
    #[error("expected an iptables command or a line of iptables-save")]
    NotARule,
    /// The rule says nothing.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}
