//! The options of a command, read into a [`Rule`].

use std::collections::VecDeque;

use super::Refusal;
use super::rule::{Place, Rule};
use super::values::{
    multiport, networks, out_interfaces, protocol, source_ports, target_ports, to_source,
};
use crate::net::port_set::PortSet;
use crate::policy::scope::Family;

/// Options that say nothing about a policy, with the number of their values.
const IGNORED: [(&[&str], usize); 3] = [
    (&["-v", "--verbose", "-n", "--numeric", "-x", "--exact", "--line-numbers"], 0),
    (&["-M", "--modprobe", "-W", "--wait-interval"], 1),
    (&["-c", "--set-counters"], 2),
];

/// Options that a policy cannot say, each under the name that iptables-save gives it.
const UNSAID: [(&[&str], &str, usize); 6] = [
    (&["-i", "--in-interface"], "-i", 1),
    (&["-f", "--fragment"], "-f", 0),
    (&["--dport", "--destination-port"], "--dport", 1),
    (&["--dports", "--destination-ports"], "--dports", 1),
    (&["--ports", "--port"], "--ports", 1),
    (&["--tcp-flags"], "--tcp-flags", 2),
];

/// The options that may follow a `!`.
const NEGATABLE: [&str; 26] = [
    "-p",
    "--protocol",
    "--proto",
    "-s",
    "--source",
    "--src",
    "-d",
    "--destination",
    "--dst",
    "-o",
    "--out-interface",
    "-i",
    "--in-interface",
    "-f",
    "--fragment",
    "--sport",
    "--source-port",
    "--sports",
    "--source-ports",
    "--dport",
    "--destination-port",
    "--dports",
    "--destination-ports",
    "--ports",
    "--port",
    "--tcp-flags",
];

/// The matches that say nothing by themselves.
const SILENT_MATCHES: [&str; 6] = ["tcp", "udp", "sctp", "udplite", "multiport", "comment"];

/// Words that are not read yet.
pub(super) struct Options {
    words: VecDeque<String>,
    rule: Rule,
    /// Whether a `!` stands before the option.
    negated: bool,
    /// Whether they come from a dump rather than a command.
    is_dump: bool,
    /// The options that were given and may be given once.
    given: Vec<&'static str>,
}

impl Options {
    /// Reads all words into the rule.
    pub(super) fn read(words: Vec<String>, rule: Rule, is_dump: bool) -> Rule {
        let words = words.into();
        let mut options = Self { words, rule, negated: false, is_dump, given: Vec::new() };
        options.skip_counters();
        while let Some(word) = options.words.pop_front() {
            if word == "!" {
                options.negated = true;
                continue;
            }
            let word = options.cut(word);
            options.option(&word);
            options.negated = false;
        }
        options.rule
    }

    /// The `[packets:bytes]` that `iptables-save -c` puts before a rule.
    fn skip_counters(&mut self) {
        if self.words.front().is_some_and(|word| word.starts_with('[') && word.ends_with(']')) {
            self.words.pop_front();
        }
    }

    /// Cuts `--option=value` and `-ovalue` in two. This is what getopt does; iptables 1.8.9 itself
    /// takes all of `-oeth0` for the name, which nobody means.
    fn cut(&mut self, word: String) -> String {
        let at = match word.find('=') {
            Some(at) if word.starts_with("--") => Some((at, at + 1)),
            _ if word.len() > 2 && word.starts_with('-') && word.is_char_boundary(2) => {
                let takes_value = word.chars().nth(1).is_some_and(|c| "tAIpsdoimjg".contains(c));
                takes_value.then_some((2, 2))
            }
            _ => None,
        };
        let Some((end, start)) = at else {
            return word;
        };
        self.words.push_front(word[start..].to_owned());
        word[..end].to_owned()
    }

    fn option(&mut self, word: &str) {
        let is_read = self.command(word)
            || self.general(word)
            || self.ports(word)
            || self.target(word)
            || self.silent(word)
            || self.unsaid(word);
        // Behind a match that we do not know come options that we do not know.
        let is_of_a_match = matches!(self.rule.unsaid, Some(Refusal::Match { .. }));
        if !is_read && !is_of_a_match {
            self.wrong(Refusal::Unknown { word: word.into() });
        } else if self.negated && is_read && !NEGATABLE.contains(&word) {
            self.wrong(Refusal::Unknown { word: "!".into() });
        }
    }

    /// What to do with the rule, and where.
    fn command(&mut self, word: &str) -> bool {
        match word {
            "-t" | "--table" => {
                if let Some(table) = self.value("-t") {
                    self.rule.table = table.into();
                }
            }
            "-A" | "--append" => self.rule.chain = self.value("-A").map(Into::into),
            "-I" | "--insert" => {
                self.rule.chain = self.value("-I").map(Into::into);
                let number = self.words.front().and_then(|word| word.parse::<usize>().ok());
                if number.is_some() {
                    self.words.pop_front();
                }
                self.rule.place = Place::At(number.unwrap_or(1).saturating_sub(1));
            }
            "-D" | "--delete" => self.removal("-D"),
            "-R" | "--replace" => self.removal("-R"),
            "-F" | "--flush" => self.removal("-F"),
            // These neither add nor remove a rule.
            "-P" | "-N" | "-X" | "-Z" | "-L" | "-S" | "-C" | "-E" | "--policy" | "--new-chain"
            | "--delete-chain" | "--zero" | "--list" | "--list-rules" | "--check"
            | "--rename-chain" => {
                let table = self.words.iter().position(|word| word == "-t");
                self.words.drain(..table.unwrap_or(self.words.len()));
                self.rule.chain = None;
            }
            _ => return false,
        }
        true
    }

    fn removal(&mut self, option: &'static str) {
        let is_of_another = self
            .words
            .front()
            .is_some_and(|chain| !chain.starts_with('-') && chain != "POSTROUTING");
        // The other words describe the rule that goes away; a table may be among them.
        let table = self.words.iter().position(|word| word == "-t");
        self.words.drain(..table.unwrap_or(self.words.len()));
        if !is_of_another {
            self.wrong(Refusal::Removal { option });
        }
    }

    /// The options of iptables itself.
    fn general(&mut self, word: &str) -> bool {
        match word {
            "-p" | "--protocol" | "--proto" => self.protocol(),
            "-s" | "--source" | "--src" => {
                if let Some(nets) = self.networks("-s") {
                    self.unless_negated("-s");
                    self.rule.sources = nets;
                }
            }
            "-d" | "--destination" | "--dst" => self.destination(),
            "-o" | "--out-interface" => self.out_interface(),
            "-m" | "--match" => {
                if let Some(name) = self.value("-m") {
                    if !SILENT_MATCHES.contains(&name.as_str()) {
                        self.cannot_say(Refusal::Match { name: name.as_str().into() });
                    }
                    self.rule.matches.push(name.into());
                }
            }
            "-j" | "--jump" => self.rule.target = self.once("-j").map(Into::into),
            "-g" | "--goto" => self.rule.target = self.once("-g").map(Into::into),
            "-4" | "--ipv4" => self.family("-4", Family::Ipv4),
            "-6" | "--ipv6" => self.family("-6", Family::Ipv6),
            _ => return false,
        }
        true
    }

    fn protocol(&mut self) {
        let Some(text) = self.once("-p") else { return };
        self.unless_negated("-p");
        match protocol(&text) {
            Ok(protocol) => {
                self.rule.names_protocol = protocol.is_some();
                self.rule.protocol = protocol;
            }
            Err(error) => {
                self.rule.names_protocol = true;
                self.cannot_say(Refusal::Protocol(error));
            }
        }
    }

    fn destination(&mut self) {
        let Some(nets) = self.networks("-d") else { return };
        if self.negated && nets.len() > 1 {
            self.wrong(Refusal::NegatedList);
        } else if self.negated {
            self.rule.except_destinations = nets;
        } else if !nets.is_empty() {
            self.cannot_say(Refusal::Option { option: "-d" });
        }
    }

    fn out_interface(&mut self) {
        let Some(text) = self.once("-o") else { return };
        if self.negated && text == "lo" {
            return;
        }
        self.unless_negated("-o");
        match out_interfaces(&text) {
            Ok(out_interfaces) => self.rule.out_interfaces = out_interfaces,
            Err(refusal) => self.cannot_say(refusal),
        }
    }

    fn family(&mut self, option: &'static str, family: Family) {
        if self.is_dump {
            self.rule.family = family;
        } else if self.rule.family != family {
            self.wrong(Refusal::Family { option });
        }
    }

    /// The source ports that are matched, and the comment.
    fn ports(&mut self, word: &str) -> bool {
        let is_multiport = self.rule.matches.iter().any(|name| &**name == "multiport");
        match word {
            "--sport" | "--source-port" | "--sports" | "--source-ports"
                if !self.rule.names_protocol =>
            {
                self.wrong(Refusal::NoProtocol);
                self.skip(1);
            }
            "--sport" | "--source-port" => {
                let ports = self.once("--sport").map(|text| source_ports(&text));
                self.match_ports(ports);
            }
            "--sports" | "--source-ports" if is_multiport => {
                let ports = self.once("--sports").map(|text| multiport(&text));
                self.match_ports(ports);
            }
            "--comment" => self.rule.comment = self.once("--comment").map(Into::into),
            _ => return false,
        }
        true
    }

    fn match_ports(&mut self, ports: Option<Result<PortSet, Refusal>>) {
        if let Some(ports) = self.kept(ports) {
            let matched = if self.negated { ports.complement() } else { ports };
            self.rule.source_ports = self.rule.source_ports.intersection(&matched);
        }
    }

    /// The options of the two targets.
    fn target(&mut self, word: &str) -> bool {
        let target = self.rule.target.as_deref();
        let (is_masquerade, is_snat) = (target == Some("MASQUERADE"), target == Some("SNAT"));
        match word {
            "--to-ports" | "--to-port" | "--to" if is_masquerade => {
                let ports = self.once("--to-ports").map(|text| target_ports("--to-ports", &text));
                self.rule.to_ports = self.kept(ports);
            }
            "--to-source" | "--to" if is_snat => {
                let family = self.rule.family;
                let source = self.once("--to-source").map(|text| to_source(&text, family));
                self.rule.to_source = self.kept(source);
            }
            "--random" if is_masquerade || is_snat => {
                self.rule.flags.random = self.flag("--random");
            }
            "--random-fully" if is_masquerade || is_snat => {
                self.rule.flags.fully_random = self.flag("--random-fully");
            }
            "--persistent" if is_snat => self.rule.flags.persistent = self.flag("--persistent"),
            _ => return false,
        }
        true
    }

    fn silent(&mut self, word: &str) -> bool {
        if matches!(word, "-w" | "--wait") {
            // The seconds may be left out.
            if self.words.front().is_some_and(|word| word.parse::<f64>().is_ok()) {
                self.words.pop_front();
            }
            return true;
        }
        let known = IGNORED.iter().find(|(names, _)| names.contains(&word));
        known.is_some_and(|(_, values)| self.skip(*values))
    }

    fn unsaid(&mut self, word: &str) -> bool {
        let known = UNSAID.iter().find(|(names, _, _)| names.contains(&word));
        known.is_some_and(|(_, option, values)| {
            self.cannot_say(Refusal::Option { option });
            self.skip(*values)
        })
    }

    fn skip(&mut self, values: usize) -> bool {
        self.words.drain(..values.min(self.words.len()));
        true
    }

    /// The value, if there is no fault in it.
    fn kept<T>(&mut self, value: Option<Result<T, Refusal>>) -> Option<T> {
        match value? {
            Ok(value) => Some(value),
            Err(refusal) => {
                self.wrong(refusal);
                None
            }
        }
    }

    fn networks(&mut self, option: &'static str) -> Option<Vec<ipnet::IpNet>> {
        let text = self.once(option)?;
        let nets = networks(option, &text, self.rule.family);
        let nets = self.kept(Some(nets))?;
        // A network of everything says nothing, unless it is negated.
        let is_all = !self.negated && nets.iter().any(|net| net.prefix_len() == 0);
        Some(if is_all { Vec::new() } else { nets })
    }

    /// The value of an option that may be given once.
    fn once(&mut self, option: &'static str) -> Option<String> {
        self.flag(option);
        self.value(option)
    }

    /// Takes note that an option is given that may be given once.
    fn flag(&mut self, option: &'static str) -> bool {
        if self.given.contains(&option) {
            self.wrong(Refusal::Repeated { option });
        }
        self.given.push(option);
        true
    }

    fn value(&mut self, option: &'static str) -> Option<String> {
        let value = self.words.pop_front();
        if value.is_none() {
            self.wrong(Refusal::NoValue { option });
        }
        value
    }

    fn unless_negated(&mut self, option: &'static str) {
        if self.negated {
            self.cannot_say(Refusal::Negated { option });
        }
    }

    fn wrong(&mut self, refusal: Refusal) {
        self.rule.wrong.get_or_insert(refusal);
    }

    fn cannot_say(&mut self, refusal: Refusal) {
        self.rule.unsaid.get_or_insert(refusal);
    }
}
