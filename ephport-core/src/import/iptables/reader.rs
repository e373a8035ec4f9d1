//! The lines of a text in order: dumps, commands and scripts, each applied to its chain.

use std::borrow::Cow;

use super::command::Command;
use super::family::{self, DumpRule, Section};
use super::grammar::Meaning;
use super::lines::{Line, has_space_after_backslash};
use super::parse::parse;
use super::reason::{Invalid, NotInstalled, SkipReason};
use super::report::Note;
use super::rule::CHAIN;
use super::script::{Script, Status};
use super::shell::{Simple, dump_words};
use super::tables::{Location, Tables};
use crate::net::family::Family;

/// Programs that run the command in the words after them.
const WRAPPERS: [&str; 24] = [
    "sudo",
    "doas",
    "env",
    "exec",
    "command",
    "time",
    "nice",
    "ionice",
    "timeout",
    "nohup",
    "run",
    "busybox",
    "xtables-nft-multi",
    "xtables-legacy-multi",
    "unshare",
    "chroot",
    "setsid",
    "flock",
    "ip",
    "nsenter",
    "docker",
    "podman",
    "kubectl",
    "ssh",
];

/// Those of them that run it elsewhere than the policies are applied.
const ELSEWHERE: [&str; 7] = ["ip", "nsenter", "unshare", "docker", "podman", "kubectl", "ssh"];

/// The state between two lines.
pub(super) struct Reader<'a> {
    /// The family of rules whose text does not name it.
    family: Option<Family>,
    /// The family that a header or a listing command names.
    header: Option<Family>,
    /// The lines of a dump whose family is not known yet.
    section: Section<'a>,
    pub(super) tables: Tables<'a>,
    script: Script,
    /// Why the line being read is nothing, if it turns out to be nothing.
    nothing: Option<SkipReason>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(family: Option<Family>) -> Self {
        Self {
            family,
            header: None,
            section: Section::default(),
            tables: Tables::default(),
            script: Script::default(),
            nothing: None,
        }
    }

    pub(super) fn line(&mut self, line: &Line<'a>) {
        let text = line.text.trim();
        if let Some(comment) = text.strip_prefix('#') {
            return self.comment(line, comment);
        }
        self.tables.timeouts(line.number, text);
        if let Some(table) =
            text.strip_prefix('*').filter(|name| !name.contains(char::is_whitespace))
        {
            if self.section.has_table(table) {
                self.begin_dump();
            }
            return self.section.enter(table);
        }
        if text == "COMMIT" {
            return self.section.exit();
        }
        if text.starts_with(':') && !text.starts_with(": ") {
            return self.mentioned(line);
        }
        match line.plain() {
            Err(key) => {
                self.nothing = Some(NotInstalled::AtStop { key }.into());
                self.mentioned(line);
            }
            Ok(rule) if is_dump_line(&rule) => {
                if self.section.is_new_listing(&rule) {
                    self.begin_dump();
                }
                let rule = self.section.rule(line, rule);
                match self.header {
                    Some(family) => self.dump_rule(&rule, family),
                    None => self.section.push(rule),
                }
            }
            Ok(text) => {
                self.flush();
                self.begin(line);
                if has_space_after_backslash(&line.text) && mentions_iptables(&text) {
                    self.tables.skip(Invalid::SpaceAfterBackslash.into());
                } else {
                    self.script(&text);
                }
                self.end(line.is_translation());
            }
        }
    }

    /// One command, given as words.
    pub(super) fn args(&mut self, words: Vec<Cow<'_, str>>) {
        let text = words.join(" ");
        self.tables.begin(Location { line: 1, text: text.into() });
        if words.first().is_none_or(|word| word.starts_with('-')) {
            let evidence = family::evidence(words.iter().map(AsRef::as_ref));
            let family = evidence.or(self.family);
            if family.is_none() {
                self.tables.notes.push(Note::AssumedFamily { first: 1, last: 1 });
            }
            let command = parse(&words, family.unwrap_or(Family::Ipv4), true);
            self.run(command, "nat");
        } else {
            self.simple(&Simple { words, ..Simple::default() });
        }
        if !self.tables.is_named() {
            let nothing = self.nothing.take();
            self.tables.skip(nothing.unwrap_or(NotInstalled::NoTranslation.into()));
        }
    }

    fn comment(&mut self, line: &Line<'a>, comment: &str) {
        if let Some(header) = family::of_header(comment) {
            self.flush();
            self.header = match header {
                family::Header::Begin(family) => family,
                family::Header::End => None,
            };
        }
        self.nothing = Some(NotInstalled::Comment.into());
        self.mentioned(line);
    }

    /// Another dump begins, without a header: that of the one before does not name its family.
    fn begin_dump(&mut self) {
        self.flush();
        self.header = None;
    }

    /// Applies the rules of the dump that was read, now that its family is known.
    pub(super) fn flush(&mut self) {
        let section = std::mem::take(&mut self.section);
        let default = self.family;
        let of_section = self.header.or(section.family());
        let mut assumed: Option<(usize, usize)> = None;
        for rule in section.rules() {
            let evidence = || family::evidence(rule.text.split_whitespace());
            let (line, family) = (rule.line, of_section.or_else(evidence).or(default));
            self.dump_rule(&rule, family.unwrap_or(Family::Ipv4));
            if family.is_none() && self.tables.is_named() {
                let first = assumed.map_or(line, |(first, _)| first);
                assumed = Some((first, line));
            }
        }
        if let Some((first, last)) = assumed {
            self.tables.notes.push(Note::AssumedFamily { first, last });
        }
    }

    fn dump_rule(&mut self, rule: &DumpRule<'a>, family: Family) {
        self.nothing = None;
        self.tables.begin(Location { line: rule.line, text: rule.text.clone() });
        match dump_words(&rule.text) {
            Ok(words) => {
                // What `iptables-save -c` prints before a rule.
                let has_counters =
                    words.first().is_some_and(|word| word.starts_with('[') && word.ends_with(']'));
                let words = words.get(usize::from(has_counters)..).unwrap_or_default();
                self.run(parse(words, family, true), rule.table.as_deref().unwrap_or("nat"));
            }
            Err(invalid) => self.tables.skip(invalid.into()),
        }
        self.end(rule.is_translation);
    }

    fn begin(&mut self, line: &Line<'a>) {
        self.nothing = None;
        self.tables.begin(Location { line: line.number, text: line.text.clone() });
    }

    /// Why the line is nothing, unless there is a better reason already.
    fn because(&mut self, reason: impl Into<SkipReason>) {
        let is_better = match &self.nothing {
            None => true,
            Some(known) => *known == NotInstalled::NotARule.into(),
        };
        if is_better {
            self.nothing = Some(reason.into());
        }
    }

    /// A line without a command.
    fn mentioned(&mut self, line: &Line<'a>) {
        let nothing = self.nothing.take();
        self.begin(line);
        self.nothing = nothing;
        self.end(line.is_translation());
    }

    /// A line with a translation that has become nothing so far is named.
    fn end(&mut self, is_translation: bool) {
        if is_translation && !self.tables.is_named() {
            let nothing = self.nothing.take();
            self.tables.skip(nothing.unwrap_or(NotInstalled::NotARule.into()));
        }
    }

    fn script(&mut self, text: &str) {
        let mut script = std::mem::take(&mut self.script);
        match script.run(text, |command| self.simple(command)) {
            Ok(true) => self.because(NotInstalled::NotRun),
            Err(invalid) if mentions_iptables(text) => self.tables.skip(invalid.into()),
            Ok(false) | Err(_) => {}
        }
        self.script = script;
    }

    /// A command without operators.
    fn simple(&mut self, command: &Simple<'_>) -> Status {
        let words = &command.words;
        let program = words.iter().position(|word| family::of_program(word).is_some());
        let before = words.get(..program.unwrap_or(words.len())).unwrap_or_default();
        let first = before.first().map(|word| family::base_name(word));
        let is_wrapped = first.is_none_or(|word| WRAPPERS.contains(&word) || word.contains('='));
        let Some(at) = program.filter(|_| is_wrapped) else {
            return self.other(command);
        };
        let (family, action) = words.get(at).and_then(|word| family::of_program(word)).unzip();
        let family = family.unwrap_or(Family::Ipv4);
        if action == Some("-save") || action == Some("-restore") {
            self.header = Some(family);
            self.because(NotInstalled::NotARule);
            return Status::Unknown;
        }
        let options = words.get(at + 1..).unwrap_or_default();
        if let Some(word) = &command.expansion {
            if is_about_nat(options) {
                self.tables.skip(Invalid::Expansion { word: word.clone() }.into());
            }
            return Status::Unknown;
        }
        if first.is_some_and(|first| ELSEWHERE.contains(&first)) {
            self.tables.elsewhere(before);
        }
        self.run(parse(options, family, false), "filter")
    }

    fn other(&mut self, command: &Simple<'_>) -> Status {
        let words = &command.words;
        if let Some(word) = command.expansion.as_ref().filter(|_| is_about_nat(words)) {
            self.because(Invalid::Expansion { word: word.clone() });
        } else {
            self.because(NotInstalled::NotARule);
        }
        match words.first().map(AsRef::as_ref) {
            Some("true" | ":") => Status::Success,
            Some("false") => Status::Failure,
            _ => {
                let mentions = |word: &Cow<'_, str>| {
                    ["tables", "masquerade", "snat"].iter().any(|part| word.contains(part))
                };
                if words.iter().any(mentions) {
                    let nothing = self.nothing.clone();
                    self.tables.skip(nothing.unwrap_or(NotInstalled::NotARule.into()));
                }
                Status::Unknown
            }
        }
    }

    /// Applies a command to the chain that it names.
    fn run(&mut self, command: Command, default_table: &str) -> Status {
        let table = command.table.as_deref().unwrap_or(default_table);
        let Some((operation, option)) = command.operation else {
            let reason = command.rule.invalid.clone().unwrap_or(Invalid::NoCommand);
            self.because(reason);
            return Status::Failure;
        };
        let quiet = match operation {
            Meaning::List => {
                self.header = Some(command.rule.family);
                Some(NotInstalled::AddsNothing { option })
            }
            Meaning::OtherCommand | Meaning::Check => Some(NotInstalled::AddsNothing { option }),
            _ if table != "nat" && command.rule.is_translation() => {
                Some(NotInstalled::Table { table: table.into() })
            }
            _ if table != "nat" => Some(NotInstalled::NoTranslation),
            _ => None,
        };
        if let Some(reason) = quiet {
            self.because(reason);
            let is_check = operation == Meaning::Check && table == "nat";
            return if is_check {
                Status::of(self.tables.contains(&command))
            } else {
                Status::Unknown
            };
        }
        self.because(NotInstalled::NoTranslation);
        let is_postrouting = command.chain.as_deref().is_none_or(|chain| chain == CHAIN);
        Status::of(if is_postrouting {
            self.tables.apply(command, operation, option)
        } else {
            self.tables.apply_elsewhere(command, operation)
        })
    }
}

/// Whether it is a line as iptables-save and `iptables -S` print it, or options without a program.
fn is_dump_line(text: &str) -> bool {
    let counters = text.strip_prefix('[').and_then(|text| text.split_once([']', ' ']));
    counters.map_or(text, |(_, rest)| rest.trim_start()).starts_with('-')
}

fn mentions_iptables(text: &str) -> bool {
    text.contains("tables") || text.contains("MASQUERADE") || text.contains("SNAT")
}

/// Whether the words may add a source translation.
fn is_about_nat(words: &[Cow<'_, str>]) -> bool {
    words.iter().any(|word| {
        word.ends_with("nat") || word == CHAIN || word == "MASQUERADE" || word == "SNAT"
    })
}
