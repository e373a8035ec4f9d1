//! The address family of rules: from programs, headers and the addresses in them.

use std::borrow::Cow;
use std::rc::Rc;

use ipnet::IpNet;

use super::lines::Line;
use crate::net::family::Family;

/// A program's name without its path.
pub(super) fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The family of a program, and `-save`, `-restore` or nothing, which ends its name after `-nft` or
/// `-legacy`.
pub(super) fn of_program(word: &str) -> Option<(Family, &str)> {
    let name = base_name(word);
    let (family, rest) = match name.strip_prefix("ip6tables") {
        Some(rest) => (Family::Ipv6, rest),
        None => (Family::Ipv4, name.strip_prefix("iptables")?),
    };
    let rest = rest.strip_prefix("-nft").or_else(|| rest.strip_prefix("-legacy")).unwrap_or(rest);
    matches!(rest, "" | "-save" | "-restore").then_some((family, rest))
}

/// A comment of a dump about the lines after it.
pub(super) enum Header {
    /// A dump begins; its family, if the comment names one.
    Begin(Option<Family>),
    /// A dump is complete.
    End,
}

/// The header that a comment of a dump is; `None` for other comments.
pub(super) fn of_header(comment: &str) -> Option<Header> {
    let mut words = comment.split_whitespace();
    match words.next()? {
        "Completed" => Some(Header::End),
        "Generated" => {
            let program = words.find(|word| word.ends_with("-save"))?;
            Some(Header::Begin(of_program(program).map(|(family, _)| family)))
        }
        _ => None,
    }
}

/// The family of the addresses, protocols and options among these words, if they are of one.
pub(super) fn evidence<'a>(words: impl Iterator<Item = &'a str>) -> Option<Family> {
    let mut found = words.filter_map(of_word);
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

fn of_word(word: &str) -> Option<Family> {
    match word {
        "-4" | "--ipv4" => return Some(Family::Ipv4),
        "-6" | "--ipv6" | "icmp6" | "icmpv6" | "ipv6-icmp" => return Some(Family::Ipv6),
        _ if !word.contains(['.', ':']) => return None,
        _ => {}
    }
    let word = word.trim_matches(['"', '\'']);
    // The first of a list or of a range, without the ports.
    let word = word.split([',', ']']).next()?.trim_start_matches('[');
    let family = |text: &str| {
        let address = text.parse().ok().or_else(|| text.parse().ok().map(|net: IpNet| net.addr()));
        address.map(Family::of)
    };
    let without_mask = || word.split('/').next().and_then(family);
    let without_range = || word.split('-').next().and_then(family);
    let without_ports =
        || word.split(':').next().filter(|text| text.contains('.')).and_then(family);
    family(word).or_else(without_mask).or_else(without_range).or_else(without_ports)
}

/// A rule of a dump.
pub(super) struct DumpRule<'a> {
    pub(super) line: usize,
    pub(super) text: Cow<'a, str>,
    pub(super) table: Option<Rc<str>>,
    /// Whether its line may contain a source translation.
    pub(super) is_translation: bool,
}

/// The most rules of a chunk.
const CHUNK: usize = 1024;

/// The rules of one dump, and the families that they name.
#[derive(Default)]
pub(super) struct Section<'a> {
    tables: Vec<Rc<str>>,
    table: Option<Rc<str>>,
    /// In chunks, so that memory is free again for the policies as they are made.
    chunks: Vec<Vec<DumpRule<'a>>>,
    has_ipv4: bool,
    has_ipv6: bool,
    /// Whether a rule has come after the policies of the chains.
    has_rules: bool,
}

impl<'a> Section<'a> {
    /// Whether the dump had this table already, so that another dump begins.
    pub(super) fn has_table(&self, table: &str) -> bool {
        self.tables.iter().any(|other| **other == *table)
    }

    pub(super) fn enter(&mut self, table: &str) {
        let table: Rc<str> = table.into();
        self.table = Some(table.clone());
        self.tables.push(table);
    }

    pub(super) fn exit(&mut self) {
        self.table = None;
    }

    /// Whether the rule is the first of another listing: `iptables -S` prints policies first.
    pub(super) fn is_new_listing(&self, text: &str) -> bool {
        self.table.is_none() && self.has_rules && text.starts_with("-P ")
    }

    /// The rule of a line, in the table of the dump.
    pub(super) fn rule(&mut self, line: &Line<'a>, text: Cow<'a, str>) -> DumpRule<'a> {
        self.has_rules |= !text.starts_with("-P ");
        let (table, is_translation) = (self.table.clone(), line.is_translation());
        DumpRule { line: line.number, text, table, is_translation }
    }

    /// Keeps a rule, if it is of the table nat, of no table, or a translation.
    pub(super) fn push(&mut self, rule: DumpRule<'a>) {
        match evidence(rule.text.split_whitespace()) {
            Some(Family::Ipv4) => self.has_ipv4 = true,
            Some(Family::Ipv6) => self.has_ipv6 = true,
            None => {}
        }
        if rule.is_translation || rule.table.as_deref().is_none_or(|table| table == "nat") {
            match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
                Some(chunk) => chunk.push(rule),
                None => self.chunks.push(vec![rule]),
            }
        }
    }

    /// The family that the rules name, if it is one.
    pub(super) fn family(&self) -> Option<Family> {
        match (self.has_ipv4, self.has_ipv6) {
            (true, false) => Some(Family::Ipv4),
            (false, true) => Some(Family::Ipv6),
            _ => None,
        }
    }

    pub(super) fn rules(self) -> impl Iterator<Item = DumpRule<'a>> {
        self.chunks.into_iter().flatten()
    }
}
