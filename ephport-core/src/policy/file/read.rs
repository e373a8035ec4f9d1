//! TOML as policies.
//!
//! The tree is walked by hand rather than by serde, so that each value still has its place when it
//! turns out to be wrong.

mod fields;

use std::net::IpAddr;
use std::ops::Range;
use std::str::FromStr;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::fields::{Fields, Item};
use super::error::{Expected, PolicyFileError, PolicyFileErrorKind, ValueError};
use super::{Document, DocumentError};
use crate::allocation::block_table::{BlockTable, ExplicitBlocks};
use crate::allocation::map_e::MapE;
use crate::net::family::Families;
use crate::net::interface::{InterfacePattern, InterfacePatterns};
use crate::net::protocol::Protocols;
use crate::policy::scope::{OutInterfaces, Scope};
use crate::policy::selection::NatFlags;
use crate::policy::{Policy, PolicyError, PolicyName, PolicySpec, Target};
use crate::word::WordError;

/// Every key that a policy may have.
pub(super) const KEYS: [&str; 27] = [
    "name",
    "protocols",
    "out-interfaces",
    "except-interfaces",
    "in-interfaces",
    "sources",
    "destinations",
    "except-destinations",
    "destination-ports",
    "origin",
    "families",
    "mark",
    "ipsec",
    "source-ports",
    "exempt-source-ports",
    "to-ports",
    "map-e",
    "blocks",
    "except-ports",
    "random",
    "fully-random",
    "persistent",
    "per-source-stable",
    "address",
    "pick-up",
    "enforce",
    "open-connections",
];

/// The document that the text is.
pub(super) fn read(text: &str) -> Result<Document, PolicyFileError> {
    let source = Source(text);
    let root = DeTable::parse(text).map_err(|error| source.syntax(&error))?;
    let root = root.get_ref();
    if let Some(key) = first_key(root, |key| key != "policy") {
        let problem = PolicyFileErrorKind::UnknownTopKey { key: key.get_ref().as_ref().into() };
        return Err(source.error(&key.span(), problem));
    }
    let Some(value) = root.get("policy") else {
        return Err(source.error(&(0..0), PolicyFileErrorKind::NoPolicy));
    };
    let tables = source.tables(value)?;
    let policies = tables.iter().map(Fields::policy).collect::<Result<Vec<_>, _>>()?;
    Document::new(policies).map_err(|error| {
        let span = match &error {
            DocumentError::Duplicate { second, .. } => tables.get(*second).map(Fields::name_span),
            DocumentError::Empty => None,
        };
        let span = span.unwrap_or_else(|| value.span());
        source.error(&span, PolicyFileErrorKind::Document { found: source.quote(&span), error })
    })
}

/// The first key, in order of the text, of which `wrong` holds.
fn first_key<'a, 'i>(
    table: &'a DeTable<'i>,
    wrong: impl Fn(&str) -> bool,
) -> Option<&'a Spanned<std::borrow::Cow<'i, str>>> {
    table.keys().filter(|key| wrong(key.get_ref())).min_by_key(|key| key.span().start)
}

/// The text, to tell where a value stands in it.
#[derive(Clone, Copy)]
struct Source<'a>(&'a str);

impl<'a> Source<'a> {
    fn syntax(self, error: &toml::de::Error) -> PolicyFileError {
        let span = error.span().unwrap_or(0..0);
        let found = match self.quote(&span) {
            empty if empty.is_empty() => self.line_of(span.start).into(),
            found => found,
        };
        let message = error.message().replace('\n', ": ").into();
        self.error(&span, PolicyFileErrorKind::Syntax { found, message })
    }

    fn error(self, span: &Range<usize>, problem: PolicyFileErrorKind) -> PolicyFileError {
        let before = self.0.get(..span.start).unwrap_or(self.0);
        let last_line = before.rsplit('\n').next().unwrap_or(before);
        let line = before.matches('\n').count() + 1;
        PolicyFileError { line, column: last_line.chars().count() + 1, problem: Box::new(problem) }
    }

    /// What stands there, cut to what fits in a message.
    fn quote(self, span: &Range<usize>) -> Box<str> {
        const MOST: usize = 60;
        let text = self.0.get(span.clone()).unwrap_or("");
        let first_line = text.lines().next().unwrap_or("");
        let quoted: String = first_line.chars().take(MOST).collect();
        if quoted.len() < text.trim_end().len() {
            format!("{quoted}...").into()
        } else {
            quoted.into()
        }
    }

    fn line_of(self, place: usize) -> &'a str {
        let start = self.0.get(..place).and_then(|before| before.rfind('\n')).map_or(0, |i| i + 1);
        self.0.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("").trim()
    }

    fn tables(self, value: &'a Spanned<DeValue<'a>>) -> Result<Vec<Fields<'a>>, PolicyFileError> {
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let (span, expected) = (value.span(), Expected::Policies);
            let problem =
                PolicyFileErrorKind::Type { key: "policy", found: self.quote(&span), expected };
            self.error(&span, problem)
        };
        let tables = value.get_ref().as_array().ok_or_else(|| wrong(value))?;
        let fields = |table: &'a Spanned<DeValue<'a>>| {
            let fields = table.get_ref().as_table().ok_or_else(|| wrong(table))?;
            Ok(Fields { source: self, table: fields, span: table.span() })
        };
        tables.iter().map(fields).collect()
    }
}

impl Fields<'_> {
    fn policy(&self) -> Result<Policy, PolicyFileError> {
        self.check_keys()?;
        let spec = self.spec()?;
        let policy = spec.name.clone();
        Policy::new(spec).map_err(|error| {
            let span = self.culprit(&error);
            let found = self.source.quote(&span);
            self.source.error(&span, PolicyFileErrorKind::Policy { found, policy, error })
        })
    }

    fn spec(&self) -> Result<PolicySpec, PolicyFileError> {
        let name = self.name()?;
        let target = self.target(&name)?;
        let usual = PolicySpec::to(target);
        Ok(PolicySpec {
            name,
            scope: self.scope()?,
            source_ports: self
                .parsed_string("source-ports", "1024-65535")?
                .unwrap_or(usual.source_ports),
            exempt: self.parsed_string("exempt-source-ports", "4500")?.unwrap_or(usual.exempt),
            except_ports: self
                .parsed_string("except-ports", "50000-50010")?
                .unwrap_or(usual.except_ports),
            flags: NatFlags {
                random: self.flag("random")?,
                fully_random: self.flag("fully-random")?,
                persistent: self.flag("persistent")?,
            },
            per_source_stable: self.flag("per-source-stable")?,
            address: self.parsed_string("address", "masquerade")?.unwrap_or_default(),
            pick_up: self.parsed_string("pick-up", "opening")?.unwrap_or_default(),
            enforce: self.flag("enforce")?,
            open_connections: self.parsed_string("open-connections", "keep")?.unwrap_or_default(),
            target: usual.target,
        })
    }

    fn name(&self) -> Result<PolicyName, PolicyFileError> {
        if let Some(name) = self.parsed_string("name", "builds")? {
            return Ok(name);
        }
        let found = self.source.quote(&self.span);
        Err(self.source.error(&self.span, PolicyFileErrorKind::NoName { found }))
    }

    fn target(&self, policy: &PolicyName) -> Result<Target, PolicyFileError> {
        let mut given = ["to-ports", "map-e", "blocks"].into_iter().filter(|key| self.has(key));
        let Some(first) = given.next() else {
            let problem = PolicyFileErrorKind::NoTarget { policy: policy.clone() };
            return Err(self.source.error(&self.span, problem));
        };
        if let Some(second) = given.next() {
            let span = self.value_span(second);
            let found = self.source.quote(&span);
            let problem = PolicyFileErrorKind::TwoTargets { first, second, found };
            return Err(self.source.error(&span, problem));
        }
        let local = self.string_if("to-ports", |text| text == "local");
        if local {
            return Ok(Target::Local);
        }
        if let Some(map_e) = self.parsed_string::<MapE>("map-e", "psid=52,psid-len=8,offset=4")? {
            return Ok(Target::Ports(map_e.ports()));
        }
        match self.parsed_string("to-ports", "49152-61000")? {
            Some(ports) => Ok(Target::Ports(ports)),
            None => self.blocks().map(Target::Blocks),
        }
    }

    fn blocks(&self) -> Result<BlockTable, PolicyFileError> {
        const KEY: &str = "blocks";
        let expected = Expected::StringOrList("10.0.0.0/22=63@1024-65535");
        if !self.is_list(KEY) {
            let item = self.typed_string(KEY, expected)?;
            return self.parsed(KEY, &item);
        }
        let items = self.list(KEY, expected)?.unwrap_or_default();
        let blocks = items.iter().map(|item| self.parsed(KEY, item)).collect::<Result<_, _>>()?;
        let table = ExplicitBlocks::new(blocks);
        table.map(BlockTable::Explicit).map_err(|e| self.wrong(KEY, &self.value_span(KEY), e))
    }

    fn scope(&self) -> Result<Scope, PolicyFileError> {
        let usual = Scope::default();
        Ok(Scope {
            out_interfaces: self.out_interfaces()?,
            families: self.families()?,
            protocols: self.protocols()?.unwrap_or(usual.protocols),
            except_interfaces: self.interfaces("except-interfaces")?,
            in_interfaces: self.interfaces("in-interfaces")?,
            sources: self.networks("sources")?,
            destinations: self.networks("destinations")?,
            except_destinations: self.networks("except-destinations")?,
            destination_ports: self
                .parsed_string("destination-ports", "443")?
                .unwrap_or(usual.destination_ports),
            origin: self.parsed_string("origin", "local")?.unwrap_or_default(),
            mark: self.parsed_string("mark", "0x1/0xff")?,
            ipsec: self.parsed_string("ipsec", "skip")?.unwrap_or_default(),
        })
    }

    fn out_interfaces(&self) -> Result<OutInterfaces, PolicyFileError> {
        const KEY: &str = "out-interfaces";
        if self.string_if(KEY, |text| text == "any") {
            return Ok(OutInterfaces::Any);
        }
        if self.string_if(KEY, |text| text == "uplinks") {
            return Ok(OutInterfaces::Uplinks);
        }
        let Some(items) = self.list(KEY, Expected::AnyOrList("eth0"))? else {
            return Ok(OutInterfaces::Uplinks);
        };
        let patterns = InterfacePatterns::new(self.patterns(KEY, &items)?);
        patterns
            .map(OutInterfaces::Matching)
            .map_err(|error| self.wrong(KEY, &self.value_span(KEY), error))
    }

    fn interfaces(&self, key: &'static str) -> Result<Vec<InterfacePattern>, PolicyFileError> {
        let items = self.list(key, Expected::List("eth0"))?.unwrap_or_default();
        self.patterns(key, &items)
    }

    fn patterns(
        &self,
        key: &'static str,
        items: &[Item<'_>],
    ) -> Result<Vec<InterfacePattern>, PolicyFileError> {
        let pattern = |item: &Item<'_>| match item.text {
            "any" | "uplinks" => Err(self.wrong(key, &item.span, ValueError::WordInList)),
            _ => self.parsed(key, item),
        };
        items.iter().map(pattern).collect()
    }

    fn protocols(&self) -> Result<Option<Protocols>, PolicyFileError> {
        let items = self.list("protocols", Expected::List("tcp"))?;
        let parsed = |items: Vec<Item<'_>>| {
            items.iter().map(|item| self.parsed("protocols", item)).collect()
        };
        items.map(parsed).transpose()
    }

    fn families(&self) -> Result<Families, PolicyFileError> {
        const KEY: &str = "families";
        let (mut ipv4, mut ipv6) = (false, false);
        for item in self.list(KEY, Expected::List("ipv4"))?.unwrap_or_default() {
            match item.text {
                "ipv4" => ipv4 = true,
                "ipv6" => ipv6 = true,
                _ => {
                    let error = WordError { expected: "ipv4 or ipv6" };
                    return Err(self.wrong(KEY, &item.span, error));
                }
            }
        }
        Ok(match (ipv4, ipv6) {
            (true, false) => Families::Ipv4,
            (false, true) => Families::Ipv6,
            (true, true) | (false, false) => Families::Both,
        })
    }

    fn networks(&self, key: &'static str) -> Result<Vec<IpNet>, PolicyFileError> {
        let items = self.list(key, Expected::List("10.0.0.0/8"))?.unwrap_or_default();
        let read = |item: &Item<'_>| {
            let net = item.text.parse().or_else(|_| IpAddr::from_str(item.text).map(IpNet::from));
            net.map_err(|_| self.wrong(key, &item.span, ValueError::Network))
        };
        items.iter().map(read).collect()
    }

    /// The value that makes the parts not fit together: of the keys that could, the first given.
    fn culprit(&self, error: &PolicyError) -> Range<usize> {
        let keys: &[&str] = match error {
            PolicyError::Name { .. } => &["name"],
            PolicyError::NoSourcePorts => &["exempt-source-ports", "source-ports"],
            PolicyError::NoTargetPorts => &["except-ports", "to-ports", "map-e"],
            PolicyError::AddressFamily { .. } | PolicyError::TwoAddresses => &["address"],
            PolicyError::ExceptFromBlocks => &["except-ports"],
            PolicyError::StableBlocks => &["per-source-stable"],
            PolicyError::NoProtocol => &["protocols"],
        };
        let given = keys.iter().find(|key| self.has(key));
        given.map_or_else(|| self.span.clone(), |key| self.value_span(key))
    }
}
