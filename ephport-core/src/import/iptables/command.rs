//! A command of iptables: its operation on a chain, and the rule that its options make.

use std::hash::Hash;

use super::chain::hash;
use super::grammar::{Meaning, Module, Opt, Values};
use super::reason::{Invalid, SkipReason, Unsupported};
use super::rule::{CHAIN, Rule};
use super::values::{
    NamedProtocol, ToSource, is_echo_request, mark, networks, out_interfaces, port_list,
    port_range, target_ports,
};
use crate::net::family::Family;
use crate::net::port::PortError;
use crate::net::port_set::PortSet;
use crate::policy::PickUp;
use crate::policy::scope::{Ipsec, OutInterfaces};

/// One command of iptables, or one line of a dump.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) table: Option<Box<str>>,
    /// The operation on a chain, with the spelling of its option.
    pub(super) operation: Option<(Meaning, &'static str)>,
    pub(super) chain: Option<Box<str>>,
    /// The rule number, from 1.
    pub(super) number: Option<usize>,
    pub(super) rule: Rule,
}

/// A command that is being read, option by option.
pub(super) struct Builder<'a> {
    pub(super) command: Command,
    /// Whether the words are a line of a dump.
    is_dump: bool,
    /// Whether a `!` precedes the option.
    pub(super) is_negated: bool,
    /// What the kernel refuses in POSTROUTING.
    hook: Option<&'a str>,
    /// `-s` or `-d` after a `!`.
    negated_networks: Option<&'static str>,
    identity: Identity,
}

/// The hash by which rules are the same: the order of options within a module does not matter.
#[derive(Default)]
struct Identity {
    general: u64,
    modules: Vec<u64>,
}

impl Identity {
    fn add(&mut self, module: Option<usize>, option: impl Hash) {
        let sum = module.and_then(|at| self.modules.get_mut(at)).unwrap_or(&mut self.general);
        *sum = sum.wrapping_add(hash(option));
    }
}

impl<'a> Builder<'a> {
    pub(super) fn new(family: Family, is_dump: bool) -> Self {
        let rule = Rule::new(family);
        let command = Command { table: None, operation: None, chain: None, number: None, rule };
        let identity = Identity::default();
        Self { command, is_dump, is_negated: false, hook: None, negated_networks: None, identity }
    }

    /// The command, when all of its words are read.
    ///
    /// Of each match and target, `modules` has whether one of its options is given.
    pub(super) fn finish(
        mut self,
        modules: impl Iterator<Item = (&'static Module, bool)>,
    ) -> Command {
        if let Some(name) = self.hook.filter(|_| self.command.chain.as_deref() == Some(CHAIN)) {
            self.refuse(Invalid::Hook { name: name.into() });
        }
        if let Some(option) = self.negated_networks.filter(|_| self.command.rule.count() > 1) {
            self.refuse(Invalid::NegatedList { option });
        }
        self.command.rule.check(modules);
        self.command.rule.identity = hash((self.identity.general, &self.identity.modules));
        self.command
    }

    /// Adds a match or a target.
    pub(super) fn load(&mut self, name: &str) {
        self.identity.modules.push(0);
        let module = self.identity.modules.len() - 1;
        self.identity.add(Some(module), name);
    }

    /// The match of `-m`.
    pub(super) fn load_match(&mut self, module: &'static Module, name: &'a str) {
        if module.is_elsewhere {
            self.hook = self.hook.or(Some(name));
        } else if !module.is_supported {
            self.unsupport(Unsupported::Match { name: name.into() });
        }
        self.load(name);
    }

    /// The target of `-j` or `-g`.
    pub(super) fn load_target(&mut self, name: &str) {
        if !is_name(name) {
            return self.refuse(Invalid::Unknown { word: name.into() });
        }
        self.load(name);
        self.command.rule.target = Some(name.into());
    }

    /// The operation on a chain.
    pub(super) fn operate(&mut self, option: &'static Opt, chain: &str) {
        // iptables refuses a second one.
        if self.command.operation.is_some() {
            return;
        }
        self.command.operation = Some((option.meaning, option.name()));
        self.command.chain = Some(chain).filter(|chain| !chain.is_empty()).map(Into::into);
    }

    /// An option of the rule with its values.
    pub(super) fn option(
        &mut self,
        option: &'static Opt,
        module: Option<usize>,
        (value, second): (&'a str, Option<&'a str>),
    ) {
        let is_canonical = matches!(
            option.meaning,
            Meaning::Protocol | Meaning::SourceNetworks | Meaning::DestinationNetworks
        );
        if !is_canonical && (option.is_negatable || module.is_some()) {
            self.identity.add(module, (option.name(), self.is_negated, value, second));
        }
        let name = option.name();
        match option.meaning {
            Meaning::Table => self.command.table = Some(value.into()),
            Meaning::FamilyOnly(family) => self.family(name, family),
            Meaning::NotInRules => self.refuse(Invalid::NotInRules { option: name }),
            Meaning::NoEffect => self.check_seconds(option, value),
            Meaning::Hook => self.hook = self.hook.or(Some(name)),
            Meaning::Unsupported => self.unsupported(name),
            _ => self.rule_option(option, value),
        }
    }

    /// The options that policies have keys for.
    fn rule_option(&mut self, option: &'static Opt, value: &str) {
        let (name, family) = (option.name(), self.command.rule.family);
        match option.meaning {
            Meaning::Protocol => self.protocol(name, value),
            Meaning::SourceNetworks => self.sources(name, value),
            Meaning::DestinationNetworks => self.destinations(name, value),
            Meaning::OutInterface => self.out_interface(name, value),
            Meaning::SourcePorts => self.source_ports(self.port_range(name, value)),
            Meaning::DestinationPorts => self.destination_ports(self.port_range(name, value)),
            Meaning::SourcePortList => {
                self.require_port_list();
                self.source_ports(port_list(name, value));
            }
            Meaning::DestinationPortList => {
                self.require_port_list();
                self.destination_ports(port_list(name, value));
            }
            Meaning::Mark => self.mark(name, value),
            Meaning::IcmpType if is_echo_request(value) => self.unless_negated(name),
            Meaning::Ipsec if value == "none" => self.command.rule.scope.ipsec = Ipsec::Skip,
            Meaning::IcmpType | Meaning::Ipsec => {
                self.unsupport(Unsupported::Option { option: name });
            }
            Meaning::IpsecDirection if value == "in" => self.hook = self.hook.or(Some("--dir in")),
            Meaning::Syn if self.is_negated => {
                self.unsupport(Unsupported::Negated { option: name });
            }
            Meaning::Syn => self.command.rule.pick_up = PickUp::Opening,
            Meaning::Comment => {
                let rule = &mut self.command.rule;
                rule.comment = rule.comment.take().or_else(|| value.parse().ok());
            }
            Meaning::ToPorts => {
                let ports = self.kept(target_ports(name, value));
                self.require_ports(true);
                self.command.rule.names_ports = true;
                self.command.rule.to_ports = ports;
            }
            Meaning::ToSource => {
                let source = self.kept(ToSource::parse(value, family));
                let names_ports = source.as_ref().is_none_or(|source| source.ports.is_some());
                self.require_ports(names_ports);
                self.command.rule.names_ports = names_ports;
                self.command.rule.to_source = source;
            }
            Meaning::Random => self.command.rule.flags.random = true,
            Meaning::FullyRandom => self.command.rule.flags.fully_random = true,
            Meaning::Persistent => self.command.rule.flags.persistent = true,
            _ => {}
        }
    }

    fn family(&mut self, option: &'static str, family: Family) {
        if self.is_dump {
            self.command.rule.family = family;
        } else if self.command.rule.family != family {
            self.refuse(Invalid::Family { option });
        }
    }

    /// `--wait` accepts seconds only.
    fn check_seconds(&mut self, option: &'static Opt, value: &str) {
        if option.values == Values::Optional && !value.is_empty() && value.parse::<f64>().is_err() {
            self.refuse(Invalid::Unknown { word: value.into() });
        }
    }

    fn unsupported(&mut self, option: &'static str) {
        if option == "-f" && self.command.rule.family == Family::Ipv6 {
            return self.refuse(Invalid::Family { option });
        }
        if option == "--ports" {
            self.require_port_list();
        }
        self.unsupport(Unsupported::Option { option });
    }

    /// multiport needs a protocol with ports, before it.
    fn require_port_list(&mut self) {
        let rule = &self.command.rule;
        if !rule.protocol.has_port_list() || rule.is_protocol_negated {
            self.refuse(Invalid::NoProtocol);
        }
    }

    fn mark(&mut self, option: &'static str, text: &str) {
        self.unless_negated(option);
        let Some(mark) = self.kept(mark(option, text)) else { return };
        if mark.is_some() && self.command.rule.scope.mark.is_some() {
            self.unsupport(Unsupported::Twice { option });
        }
        self.command.rule.scope.mark = self.command.rule.scope.mark.or(mark);
    }

    fn protocol(&mut self, option: &'static str, text: &str) {
        if !is_name(text) {
            return self.refuse(Invalid::Unknown { word: text.into() });
        }
        match NamedProtocol::parse(text) {
            Ok(NamedProtocol::All) if self.is_negated => {
                self.refuse(Invalid::NegatedAll { option });
            }
            Ok(protocol) => {
                self.unless_negated(option);
                let name = (protocol == NamedProtocol::Unknown).then_some(text);
                self.identity.add(None, (option, self.is_negated, protocol.number(), name));
                self.command.rule.protocol = protocol;
                self.command.rule.is_protocol_negated = self.is_negated;
                if let Some(unsupported) = protocol.unsupported(text) {
                    self.unsupport(unsupported);
                }
            }
            Err(invalid) => self.refuse(invalid),
        }
    }

    fn sources(&mut self, option: &'static str, text: &str) {
        self.command.rule.source_keys = self.network_keys(option, text);
        let nets = networks(option, text, self.command.rule.family);
        let Some(nets) = self.kept(nets) else { return };
        self.unless_negated(option);
        // A network of everything restricts nothing.
        let is_all = nets.iter().all(|net| net.prefix_len() == 0);
        self.command.rule.scope.sources = if is_all || self.is_negated { Vec::new() } else { nets };
    }

    /// A hash for each network of a list; 0 for one that restricts nothing.
    fn network_keys(&mut self, option: &'static str, text: &str) -> Vec<u64> {
        if self.is_negated {
            self.negated_networks = Some(option);
        }
        let family = self.command.rule.family;
        let key = |part: &str| match networks("", part, family) {
            Ok(nets) if !self.is_negated && nets.iter().all(|net| net.prefix_len() == 0) => 0,
            Ok(nets) => hash((self.is_negated, nets)),
            Err(_) => hash((self.is_negated, part)),
        };
        text.split(',').map(key).collect()
    }

    fn destinations(&mut self, option: &'static str, text: &str) {
        self.command.rule.destination_keys = self.network_keys(option, text);
        let nets = networks(option, text, self.command.rule.family);
        let Some(nets) = self.kept(nets) else { return };
        let is_all = nets.iter().all(|net| net.prefix_len() == 0);
        let scope = &mut self.command.rule.scope;
        match self.is_negated {
            true if is_all => self.unsupport(Unsupported::Negated { option }),
            true => scope.except_destinations = nets,
            false if is_all => {}
            false => scope.destinations = nets,
        }
    }

    fn out_interface(&mut self, option: &'static str, text: &str) {
        if self.is_negated && text == "lo" {
            return;
        }
        let Some(out) = self.kept(out_interfaces(option, text)) else { return };
        let scope = &mut self.command.rule.scope;
        match out {
            OutInterfaces::Matching(patterns) if self.is_negated => {
                scope.except_interfaces = patterns.as_slice().to_vec();
            }
            _ if self.is_negated => self.unsupport(Unsupported::Negated { option }),
            out => scope.out_interfaces = out,
        }
    }

    fn source_ports(&mut self, ports: Result<PortSet, SkipReason>) {
        if let Some(matched) = self.ports(ports) {
            let ports = &mut self.command.rule.source_ports;
            *ports = ports.intersection(&matched);
        }
    }

    fn destination_ports(&mut self, ports: Result<PortSet, SkipReason>) {
        if let Some(matched) = self.ports(ports) {
            let ports = &mut self.command.rule.scope.destination_ports;
            *ports = ports.intersection(&matched);
        }
    }

    /// The ports that match, which are the others after a `!`.
    fn ports(&mut self, ports: Result<PortSet, SkipReason>) -> Option<PortSet> {
        let ports = self.kept(ports)?;
        Some(if self.is_negated { ports.complement() } else { ports })
    }

    /// The ports of a match of the protocol: iptables compares the ends of a range, and refuses large
    /// numbers, for some of them only.
    fn port_range(&self, option: &'static str, text: &str) -> Result<PortSet, SkipReason> {
        port_range(option, text).map_err(|reason| match reason {
            SkipReason::Invalid(Invalid::Ports { option, text, error })
                if matches!(self.command.rule.protocol, NamedProtocol::Number(17 | 33))
                    && matches!(error, PortError::TooLarge { .. } | PortError::Reversed { .. }) =>
            {
                Unsupported::Ports { option, text, error }.into()
            }
            reason => reason,
        })
    }

    /// Ports to translate to need a protocol that has them, before them.
    fn require_ports(&mut self, has_ports: bool) {
        if has_ports && !self.command.rule.protocol.has_target_ports() {
            self.refuse(Invalid::NoProtocol);
        }
    }

    /// The value, if it could be read.
    fn kept<T>(&mut self, value: Result<T, SkipReason>) -> Option<T> {
        match value {
            Ok(value) => return Some(value),
            Err(SkipReason::Invalid(invalid)) => self.refuse(invalid),
            Err(SkipReason::Unsupported(unsupported)) => self.unsupport(unsupported),
            Err(SkipReason::NotInstalled(_)) => {}
        }
        None
    }

    fn unless_negated(&mut self, option: &'static str) {
        if self.is_negated {
            self.unsupport(Unsupported::Negated { option });
        }
    }

    pub(super) fn refuse(&mut self, invalid: Invalid) {
        self.command.rule.refuse(invalid);
    }

    pub(super) fn unsupport(&mut self, unsupported: Unsupported) {
        self.command.rule.unsupport(unsupported);
    }
}

/// Whether it can be the name of a target or a protocol, not an option that follows one without.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['-', '!'])
}
