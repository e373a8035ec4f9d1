//! The words of one command, read by the grammar as getopt_long does.

use std::borrow::Cow;

use super::command::{Builder, Command};
use super::grammar::{Meaning, Module, Opt, Required, Values};
use super::options::{Found, long_option, match_module, short_option, target_module};
use super::reason::{Invalid, Unsupported};
use super::values::rule_number;
use crate::net::family::Family;

/// Reads the words after a program's name, which may be a line of a dump.
pub(super) fn parse(words: &[Cow<'_, str>], family: Family, is_dump: bool) -> Command {
    let mut parser = Parser {
        words: words.iter(),
        builder: Builder::new(family, is_dump),
        given: Vec::new(),
        modules: Vec::new(),
        is_opaque: false,
        loads_protocol: true,
    };
    parser.read();
    let Parser { builder, given, modules, .. } = parser;
    let has_options = |at: usize| given.iter().any(|(of, _)| *of == Some(at));
    builder.finish(modules.iter().enumerate().map(|(at, module)| (*module, has_options(at))))
}

struct Parser<'a> {
    words: std::slice::Iter<'a, Cow<'a, str>>,
    builder: Builder<'a>,
    /// The options that were given, with the index of their module.
    given: Vec<(Option<usize>, &'static str)>,
    /// The matches and the target, in order.
    modules: Vec<&'static Module>,
    /// Whether the options of a module are not known.
    is_opaque: bool,
    /// Whether an unknown option loads the match of the protocol.
    loads_protocol: bool,
}

impl<'a> Parser<'a> {
    fn read(&mut self) {
        while let Some(word) = self.words.next() {
            let word: &'a str = word;
            if word == "!" && !self.builder.is_negated {
                self.builder.is_negated = true;
                continue;
            }
            match word.strip_prefix('-') {
                Some("-") => self.end(),
                Some(long) if long.starts_with('-') => self.long(word),
                Some(letters) if !letters.is_empty() => self.letters(letters),
                _ => self.unknown(word),
            }
            self.builder.is_negated = false;
        }
        if self.builder.is_negated {
            self.builder.refuse(Invalid::Unknown { word: "!".into() });
        }
        self.check_required();
    }

    /// The word `--`: nothing may follow it.
    fn end(&mut self) {
        if let Some(word) = self.words.next() {
            self.unknown(word);
        }
    }

    fn long(&mut self, word: &'a str) {
        let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
        let mut found = long_option(name, &self.modules);
        if matches!(found, Found::Unknown) && self.load_protocol(name) {
            found = long_option(name, &self.modules);
        }
        match found {
            Found::Option(option, _) if option.values == Values::None && value.is_some() => {
                self.unknown(word);
            }
            Found::Option(option, module) => self.option(option, module, value),
            Found::Unknown if PORT_OPTIONS.contains(&name) => {
                self.builder.refuse(Invalid::NoProtocol);
                self.words.next();
            }
            Found::Unknown => self.unknown(word),
        }
    }

    /// Short options in one word; the rest of it is the value of the first that has one.
    ///
    /// In iptables 1.8.9 the whole word is the value; the versions before and after do as here.
    fn letters(&mut self, letters: &'a str) {
        for (at, letter) in letters.char_indices() {
            let Some(option) = short_option(letter) else {
                return self.unknown(letters);
            };
            if option.values == Values::None {
                self.option(option, None, None);
            } else {
                let rest = letters.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty());
                return self.option(option, None, rest);
            }
        }
    }

    /// Loads the match of the protocol, once, if this is one of its options.
    fn load_protocol(&mut self, option: &str) -> bool {
        let name = match self.builder.command.rule.protocol.number() {
            Some(6) => "tcp",
            Some(17) => "udp",
            Some(132) => "sctp",
            Some(33) => "dccp",
            Some(1) => "icmp",
            Some(58) => "icmp6",
            _ => return false,
        };
        let module = match_module(name);
        let found = long_option(option, &[module]);
        let loads = self.loads_protocol && matches!(found, Found::Option(_, Some(_)));
        if loads {
            self.loads_protocol = false;
            self.builder.load(name);
            self.load(module);
        }
        loads
    }

    fn load(&mut self, module: &'static Module) {
        self.modules.push(module);
        self.is_opaque |= !module.is_complete;
    }

    fn unknown(&mut self, word: &str) {
        // The options of an unlisted module, and their values, are not known.
        if !self.is_opaque {
            let word = if word.is_empty() { "''" } else { word };
            self.builder.refuse(Invalid::Unknown { word: word.into() });
        }
    }

    fn option(&mut self, option: &'static Opt, module: Option<usize>, inline: Option<&'a str>) {
        if self.builder.is_negated && !option.is_negatable {
            self.builder.refuse(Invalid::Unknown { word: "!".into() });
        }
        self.note_given(option, module);
        let (first, second) = match option.values {
            Values::None => (None, None),
            Values::Optional => (inline.or_else(|| self.optional()), None),
            Values::One => (inline.or_else(|| self.next()), None),
            Values::Two => (inline.or_else(|| self.next()), self.optional()),
        };
        let is_missing = match option.values {
            Values::None | Values::Optional => false,
            Values::One => first.is_none(),
            Values::Two => second.is_none(),
        };
        if is_missing {
            self.builder.refuse(Invalid::NoValue { option: option.name() });
        }
        let value = first.unwrap_or_default();
        match option.meaning {
            Meaning::Append
            | Meaning::Insert
            | Meaning::Delete
            | Meaning::Replace
            | Meaning::Check
            | Meaning::Flush
            | Meaning::List
            | Meaning::OtherCommand => self.operation(option, value),
            _ if is_missing => {}
            Meaning::Match => {
                let module = match_module(value);
                self.builder.load_match(module, value);
                self.load(module);
            }
            Meaning::Jump | Meaning::Goto => {
                self.builder.load_target(value);
                self.load(target_module(value));
            }
            _ => self.builder.option(option, module, (value, second)),
        }
    }

    fn next(&mut self) -> Option<&'a str> {
        self.words.next().map(AsRef::as_ref)
    }

    /// The next word, if it is no option.
    fn optional(&mut self) -> Option<&'a str> {
        let next: &'a str = self.words.as_slice().first()?;
        let is_option = next == "!" || next.starts_with('-');
        if is_option { None } else { self.next() }
    }

    fn note_given(&mut self, option: &'static Opt, module: Option<usize>) {
        let exclusion = option.exclusion();
        if !option.is_repeatable && self.given.contains(&(module, exclusion)) {
            let name = option.name();
            self.builder.refuse(if option.group.is_empty() {
                Invalid::Repeated { option: name }
            } else {
                Invalid::Excluded { option: name }
            });
        }
        self.given.push((module, exclusion));
    }

    fn operation(&mut self, option: &'static Opt, value: &str) {
        self.builder.operate(option, value);
        let is_numbered =
            matches!(option.meaning, Meaning::Insert | Meaning::Delete | Meaning::Replace);
        if let Some(word) = is_numbered.then(|| self.optional()).flatten() {
            match rule_number(word) {
                Ok(number) => self.builder.command.number = Some(number),
                Err(invalid) => self.builder.refuse(invalid),
            }
        } else if option.meaning == Meaning::Replace {
            self.builder.refuse(Invalid::NoValue { option: option.name() });
        }
        // What a listing is restricted to, and its options, add no rule.
        self.is_opaque |= matches!(option.meaning, Meaning::List | Meaning::OtherCommand);
    }

    fn check_required(&mut self) {
        let modules = std::mem::take(&mut self.modules);
        for (at, module) in modules.iter().enumerate() {
            let mut given = self.given.iter().filter(|(of, _)| *of == Some(at));
            let (is_missing, required) = match module.required {
                Required::Nothing => continue,
                Required::Any => (given.next().is_none(), "an option".into()),
                Required::OneOf(names) => {
                    let is_missing = !given.any(|(_, name)| names.contains(name));
                    (is_missing, names.join(" or "))
                }
            };
            let has_pol = self.given.contains(&(Some(at), "--pol"));
            if module.name == "policy" && !has_pol {
                self.builder.unsupport(Unsupported::Match { name: module.name.into() });
            }
            if is_missing {
                let (name, required) = (module.name.into(), required.into());
                self.builder.refuse(Invalid::NoOption { name, required });
            }
        }
        self.modules = modules;
    }
}

/// The port options that the match of a protocol has.
const PORT_OPTIONS: [&str; 4] = ["--sport", "--source-port", "--dport", "--destination-port"];
