//! The flags of a policy, from the same table as the keys of policy files.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use ephport_core::policy::key::{Flag, Group, Key, Kind};
use ephport_core::policy::keys::{KEYS, find};
use ephport_core::policy::value::{Input, InputError};
use ephport_core::{Policy, PolicyError, PolicySpec, Target, excerpt};

use crate::files::FilesIn;

/// The group of the flags that set the target: one of them makes the flags a policy.
const TARGET: &str = "target";

/// The order of the groups in the help.
const GROUPS: [Group; 7] = [
    Group::Target,
    Group::Ports,
    Group::Scope,
    Group::Selection,
    Group::Timeouts,
    Group::Enforcement,
    Group::Name,
];

/// A policy in flags; `None` without a target.
#[derive(Debug)]
pub(crate) struct PolicyArgs(Option<Policy>);

impl PolicyArgs {
    /// The identifier of every flag.
    pub(crate) fn flags() -> Vec<&'static str> {
        KEYS.iter().flat_map(identifiers).collect()
    }

    /// The policy of the flags; `None` without a target.
    pub(crate) fn policy(self) -> Option<Policy> {
        self.0
    }
}

fn identifiers(key: &Key) -> Vec<&'static str> {
    match key.flag {
        Flag::Name(_) => vec![key.name],
        Flag::Words => key.words.iter().map(|(word, _)| *word).collect(),
    }
}

impl Args for PolicyArgs {
    fn augment_args(command: Command) -> Command {
        let keys = GROUPS.iter().flat_map(|group| KEYS.iter().filter(|key| key.group == *group));
        keys.fold(command, |command, key| command.args(arguments(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The arguments of a key: one, or one for each word.
fn arguments(key: &'static Key) -> Vec<Arg> {
    let args = match key.flag {
        Flag::Name(flag) => vec![argument(key, flag)],
        Flag::Words => {
            let word = |(word, help): &(&'static str, &'static str)| {
                Arg::new(*word).long(*word).help(*help).action(ArgAction::SetTrue)
            };
            key.words.iter().map(word).collect()
        }
    };
    let belongs = |arg: Arg| {
        let arg = arg.help_heading(key.group.heading());
        if key.group == Group::Target { arg.group(TARGET) } else { arg.requires(TARGET) }
    };
    args.into_iter().map(belongs).collect()
}

fn argument(key: &'static Key, flag: &'static str) -> Arg {
    let mut arg = Arg::new(key.name).long(flag).help(help(key));
    if let Some(short) = key.short {
        arg = arg.short(short);
    }
    if let Some(alias) = key.alias {
        arg = arg.visible_alias(alias);
    }
    match key.kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Text => arg.value_name(key.placeholder).value_parser(AnyText(key)),
        Kind::List | Kind::Table => {
            arg.value_name(key.placeholder).value_parser(AnyText(key)).action(ArgAction::Append)
        }
    }
}

/// Accepts any text, which is read with the other flags of the policy, and lists the words in the help.
#[derive(Clone)]
struct AnyText(&'static Key);

impl TypedValueParser for AnyText {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let word =
            |(word, help): &(&'static str, &'static str)| PossibleValue::new(*word).help(*help);
        let words = self.0.words;
        (!words.is_empty()).then(|| Box::new(words.iter().map(word)) as Box<_>)
    }
}

fn help(key: &Key) -> String {
    match (key.kind, key.default, key.unset) {
        (Kind::Switch, ..) | (_, "", "") => key.help.into(),
        (_, "", unset) => format!("{} [default: {unset}]", key.help),
        (_, default, _) => format!("{} [default: {default}]", key.help),
    }
}

impl FromArgMatches for PolicyArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let has_target =
            KEYS.iter().any(|key| key.group == Group::Target && matches.contains_id(key.name));
        if !has_target {
            return Ok(Self(None));
        }
        let mut spec = PolicySpec::to(Target::Local);
        for key in &KEYS {
            let texts = texts(matches, key);
            if !texts.is_empty() {
                let files = FilesIn::default();
                let input = Input::texts(texts.clone()).with_files(Some(&files));
                key.set(&mut spec, &input).map_err(|error| invalid(key, &texts, &error))?;
            }
        }
        Policy::new(spec).map(|policy| Self(Some(policy))).map_err(|error| conflict(&error))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The texts that the command line gives for a key.
fn texts<'a>(matches: &'a ArgMatches, key: &Key) -> Vec<&'a str> {
    match (key.flag, key.kind) {
        (Flag::Words, _) => {
            let words = key.words.iter().map(|(word, _)| *word);
            words.filter(|word| matches.get_flag(word)).collect()
        }
        (Flag::Name(_), Kind::Switch) => {
            if matches.get_flag(key.name) {
                vec!["true"]
            } else {
                Vec::new()
            }
        }
        (Flag::Name(_), Kind::Text | Kind::List | Kind::Table) => {
            let texts = matches.get_many::<String>(key.name);
            texts.map_or_else(Vec::new, |texts| texts.map(String::as_str).collect())
        }
    }
}

/// The error of a value that cannot be read.
fn invalid(key: &Key, texts: &[&str], InputError { item, error, .. }: &InputError) -> clap::Error {
    let text = texts.get(*item).copied().unwrap_or_default();
    let flag = format!("{} <{}>", key.typed_flag(), key.placeholder);
    usage(
        ErrorKind::ValueValidation,
        &format!("invalid value '{}' for '{flag}': {error}", excerpt(text)),
    )
}

/// The error of flags that exclude each other, with the flags' names.
fn conflict(error: &PolicyError) -> clap::Error {
    let flag = |key: &'static str| find(key).map_or_else(|| key.into(), Key::typed_flag);
    usage(ErrorKind::ArgumentConflict, &error.with_names(flag))
}

fn usage(kind: ErrorKind, message: &str) -> clap::Error {
    clap::Error::raw(kind, format!("{message}\n\nFor more information, try '--help'.\n"))
}
