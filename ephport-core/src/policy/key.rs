//! The type of a policy's keys.

use std::sync::LazyLock;

use crate::net::port::PortRange;
use crate::policy::spec::{PolicySpec, Target};
use crate::policy::value::{Input, InputError, Value, ValueError};

/// One key of a policy.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Key {
    /// The key in policy files.
    pub name: &'static str,
    /// The flag on the command line.
    pub flag: Flag,
    /// The short flag.
    pub short: Option<char>,
    /// Another name of the flag.
    pub alias: Option<&'static str>,
    /// The type of the value.
    pub kind: Kind,
    /// The words that the value may be, each with its meaning; none if the value is not a word.
    pub words: &'static [(&'static str, &'static str)],
    /// The name of the value in the help.
    pub placeholder: &'static str,
    /// The value if the key is omitted, as it is written in a flag; empty if there is no text for it.
    pub default: &'static str,
    /// The meaning of an empty [`default`](Self::default).
    pub unset: &'static str,
    /// The part of a policy to which the key belongs.
    pub group: Group,
    /// What the key does, in the imperative.
    pub help: &'static str,
    /// A value in TOML.
    pub example: &'static str,
    pub(super) get: fn(&PolicySpec) -> Option<Value>,
    pub(super) set: fn(&mut PolicySpec, &Input<'_>) -> Result<(), InputError>,
}

/// The form of a key on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// A flag with the value after it, or without a value for a switch.
    Name(&'static str),
    /// A flag for each word of the key.
    Words,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// A list of texts, or one text.
    List,
    /// True or false.
    Switch,
    /// A table of names with numbers, or one text `NAME=NUMBER,..`.
    Table,
}

/// A part of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The name.
    Name,
    /// The connections to which the policy applies.
    Scope,
    /// The permitted ports; each policy has exactly one key of these.
    Target,
    /// The source ports that are translated, and exceptions.
    Ports,
    /// The selection of a port and an address.
    Selection,
    /// The timeouts of connections.
    Timeouts,
    /// The guarantee.
    Enforcement,
}

impl Group {
    /// The heading of the group in the help.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Name => "Policy",
            Self::Scope => "Policy: connections",
            Self::Target => "Policy: permitted ports (one of these)",
            Self::Ports => "Policy: ports",
            Self::Selection => "Policy: selection",
            Self::Timeouts => "Policy: timeouts",
            Self::Enforcement => "Policy: enforcement",
        }
    }
}

impl Key {
    pub(super) const BASE: Self = Self {
        name: "",
        flag: Flag::Words,
        short: None,
        alias: None,
        kind: Kind::Text,
        words: &[],
        placeholder: "",
        default: "",
        unset: "",
        group: Group::Scope,
        help: "",
        example: "",
        get: |_| None,
        set: |_, _| Ok(()),
    };

    /// Sets the part of the policy to the value.
    ///
    /// # Errors
    /// [`InputError`] names the item that cannot be read, and why.
    pub fn set(&self, spec: &mut PolicySpec, input: &Input<'_>) -> Result<(), InputError> {
        (self.set)(spec, input)
    }

    /// Whether the text can be the value.
    ///
    /// # Errors
    /// [`ValueError`] names the reason.
    pub fn check(&self, text: &str) -> Result<(), ValueError> {
        let mut scratch = PolicySpec::to(Target::Local);
        self.set(&mut scratch, &Input::text(text)).map_err(|error| error.error)
    }

    /// Sets the part of the policy to its default; a target is set to all ports.
    pub(super) fn reset(&self, spec: &mut PolicySpec) {
        let default = match (self.group, self.default) {
            (Group::Target, _) => {
                spec.target = Target::Ports(PortRange::ALL.into());
                return;
            }
            (_, "") => Input::list(Vec::new()),
            (_, default) => Input::text(default),
        };
        // A test checks that each default can be read.
        let _ = self.set(spec, &default);
    }

    /// The value in this policy; `None` where the policy has no such part.
    pub(super) fn get(&self, spec: &PolicySpec) -> Option<Value> {
        (self.get)(spec)
    }

    /// The value in this policy if it differs from the default.
    pub(super) fn given(&self, spec: &PolicySpec) -> Option<Value> {
        static DEFAULT: LazyLock<PolicySpec> = LazyLock::new(|| PolicySpec::to(Target::Local));
        let value = self.get(spec)?;
        let default = self.get(&DEFAULT);
        (self.group == Group::Target || Some(&value) != default.as_ref()).then_some(value)
    }

    /// The flag as it is typed, like `--sport`; flags of words joined by `/`.
    #[must_use]
    pub fn typed_flag(&self) -> String {
        match self.flag {
            Flag::Name(flag) => format!("--{flag}"),
            Flag::Words => {
                let flags: Vec<_> =
                    self.words.iter().map(|(word, _)| format!("--{word}")).collect();
                flags.join("/")
            }
        }
    }
}
