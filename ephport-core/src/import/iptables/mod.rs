//! Policies from the `MASQUERADE` and `SNAT` rules of iptables that name ports.
//!
//! The input is one command, a script or a page with commands, or what iptables-save and
//! `iptables -S` print. A policy means what its rule means: it picks connections up at any packet,
//! translates every source port that the rule matches, and is of the command's address family. What
//! a policy does not express is skipped, with the reason; it keeps its place in the chain, so that
//! the rule numbers of the commands after it mean the same rules.
//!
//! ```
//! use ephport_core::Imported;
//!
//! let imported = Imported::parse(
//!     "sudo iptables -t nat -I POSTROUTING -p tcp -m tcp --sport 32768:61000 \
//!      -j MASQUERADE --to-ports 49152-61000
//!      sudo iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
//!     None,
//! );
//! assert_eq!(imported.policies[0].spec().source_ports.to_string(), "32768-61000");
//! assert_eq!(imported.skipped[0].to_string(), "line 2: no ports: expected --to-ports, or \
//!     --to-source with ports: `sudo iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE`");
//! ```
//!
//! Three things differ from the rule: multicast, broadcast and loopback are never translated; source
//! port 0, which is no port, is not translated; and the policies come before all rules of iptables.
//! The last is why each skipped rule names the policies over which it wins in iptables.
//!
//! The chain is empty before the text. A condition of a script whose outcome is not in the text is
//! taken as true. iptables accepts and refuses as version 1.8.9 does.

mod chain;
mod command;
mod family;
mod finish;
mod grammar;
mod lines;
mod options;
mod parse;
mod reader;
mod reason;
mod report;
mod rule;
mod script;
mod shell;
mod tables;
mod values;

use std::borrow::Cow;

use self::reader::Reader;
pub use self::reason::{Invalid, NotInstalled, SkipReason, Unsupported};
pub use self::report::{Imported, Note, Shadows, Skipped};
use crate::net::family::Family;
use crate::policy::file::{Document, DocumentError};

impl Imported {
    /// The policies of a text: what iptables-save or `iptables -t nat -S` print, or commands.
    ///
    /// `family` is the family of rules whose text does not name it; without it they are read as rules
    /// for IPv4, with a note. Bytes that are not UTF-8 are replaced in comments and messages.
    #[must_use]
    pub fn parse(text: impl AsRef<[u8]>, family: Option<Family>) -> Self {
        let mut reader = Reader::new(family);
        for line in lines::lines(text.as_ref()) {
            reader.line(&line);
        }
        reader.flush();
        reader.tables.finish()
    }

    /// The policy of one command, given as words: `iptables`, `-t`, `nat` and so on, with `sudo`, a
    /// path or nothing at all before the options.
    ///
    /// There is either a policy or a reason. `family` is that of a command without a program.
    #[must_use]
    pub fn from_args<S: AsRef<str>>(args: &[S], family: Option<Family>) -> Self {
        let mut reader = Reader::new(family);
        reader.args(args.iter().map(|arg| Cow::Borrowed(arg.as_ref())).collect());
        reader.tables.finish()
    }

    /// The policies as a document; an error when there is none.
    pub fn document(&self) -> Result<Document, DocumentError> {
        Document::new(self.policies.clone())
    }
}

#[cfg(test)]
mod tests;
