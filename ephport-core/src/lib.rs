//! A pure model of which source ports a host's outgoing connections may use.
//!
//! There is no input, output, clock or socket here; `ephport-nft` installs the policies.
//!
//! | I want to | use |
//! |---|---|
//! | build a policy | [`Policy::to`] |
//! | read or print a policy file | [`Document`], with [`str::parse`] and [`Document::to_toml`] |
//! | list the keys of a policy, with flags and defaults | [`policy::keys::KEYS`] |
//! | bind policies to a host | [`Document::resolve`], with [`HostFacts`] |
//! | know what happens to a connection, and why | [`evaluate`], with a [`Flow`] |
//! | know what a policy does not do | [`Document::warnings`], [`Document::host_warnings`] |
//! | compute with ports | [`PortSet`], [`PortRange`] |
//! | derive the port set of a MAP-E customer | [`MapE`] |
//! | give each source a block of ports, and find the source of a port | [`BlockTable`] |
//! | import rules of iptables, or AWS network ACLs | [`import`] |
//! | repeat text of others in a message | [`quoted`] |
//!
//! Build a policy, bind it to a host and decide on a connection:
//!
//! ```
//! use ephport_core::{Decision, Flow, HostFacts, Policy, PortRange};
//!
//! let range: PortRange = "49152-61000".parse()?;
//! let policy = Policy::to(range).named("builds").sources(["172.16.0.0/12"]).build()?;
//! let host = HostFacts::with_uplinks(["eth0".parse()?]);
//! let flow: Flow = "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0 iif docker0".parse()?;
//! let Decision::Translated(translation) = policy.resolve(&host)?.decide(&flow) else {
//!     panic!("not translated");
//! };
//! assert_eq!(translation.ports, range.into());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read a policy file, list its warnings and print it:
//!
//! ```
//! use ephport_core::Document;
//!
//! let text = "[[policy]]\nname = \"a\"\nto-ports = \"iana\"\nper-source-stable = true\n";
//! let document: Document = text.parse()?;
//! assert_eq!(
//!     document.warnings()[0].to_string(),
//!     "policy a: per-source-stable has no effect: there is only one range"
//! );
//! assert!(document.to_toml().contains("to-ports = \"49152-65535\""));
//! # Ok::<(), ephport_core::PolicyFileError>(())
//! ```
//!
//! Find the source of a port:
//!
//! ```
//! use ephport_core::BlockTable;
//!
//! let blocks: BlockTable = "10.0.0.0/24=63@192.0.2.1:1024-65535".parse()?;
//! assert_eq!(blocks.source_of("192.0.2.1".parse()?, "1100".parse()?), Some("10.0.0.1".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! List the keys of a policy:
//!
//! ```
//! use ephport_core::policy::keys::KEYS;
//!
//! let spread = KEYS.iter().find(|key| key.name == "spread").ok_or("no such key")?;
//! assert_eq!(spread.typed_flag(), "--spread");
//! # Ok::<(), &str>(())
//! ```
//!
//! Evaluate several policies for a connection, and list their warnings for a host:
//!
//! ```
//! use ephport_core::{Document, HostFacts, evaluate};
//!
//! let text = "[[policy]]\nname = \"a\"\nout-interfaces = \"eth1\"\nto-ports = \"iana\"\n\
//!             [[policy]]\nname = \"b\"\nto-ports = \"1024-2047\"\n";
//! let document: Document = text.parse()?;
//! let mut host = HostFacts::with_uplinks(["eth0".parse()?]);
//! host.interfaces = vec!["eth0".parse()?];
//! let policies = document.resolve(&host)?;
//! let evaluation = evaluate(&policies, &"udp 10.0.0.7:20000 -> 203.0.113.9:53 oif eth0".parse()?);
//! assert_eq!(evaluation.matched.ok_or("none matches")?.policy.name.as_str(), "b");
//! assert_eq!(evaluation.non_matches.len(), 1);
//! assert_eq!(document.host_warnings(&host)[0].name(), "no-interface");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Compute with ports, those of a MAP-E customer too:
//!
//! ```
//! use ephport_core::{MapE, PortSet};
//!
//! let ports: PortSet = "1024-4999,6000-6999".parse()?;
//! assert_eq!(ports.difference(&"2000-6499".parse()?).to_string(), "1024-1999,6500-6999");
//! let map_e: MapE = "psid=52,psid-len=8,offset=6".parse()?;
//! assert_eq!(map_e.ports().count(), 252);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Import a rule of iptables, and quote the text of others in a message:
//!
//! ```
//! use ephport_core::{Imported, quoted};
//!
//! let rule = "iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 1024-2047";
//! let imported = Imported::parse(rule, None);
//! assert_eq!(imported.policies.len(), 1, "{} is not imported", quoted(rule));
//! ```
//!
//! # Features
//!
//! The first three are on by default. Without any, the crate links ipnet and thiserror
//! only, which is enough for ports, policies and decisions.
//!
//! | feature | what it adds |
//! |---|---|
//! | `toml` | reading policy files: `Document` from text; they are written without it |
//! | `import` | policies from rules of iptables, AWS network ACLs and OpenWrt's MAP-E |
//! | `json` | `Policy::to_json`, `Document::to_json` |
//! | `serde` | Serialize and Deserialize for policies, documents, facts, flows, decisions and the values in them |
//! | `proptest` | strategies for the property tests of other crates |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(all(feature = "toml", feature = "import", feature = "json")),
    allow(rustdoc::broken_intra_doc_links, reason = "pages name what a feature brings")
)]

pub mod allocation;
pub mod decision;
pub mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod host;
#[cfg(feature = "import")]
pub mod import;
pub mod net;
pub mod policy;
pub mod remap;
pub mod resolve;
#[cfg(feature = "serde")]
mod serialized;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;
#[cfg(test)]
mod testing;
mod text;
mod word;

pub use allocation::block_file::{BlockFileError, BlockLineError};
pub use allocation::block_table::BlockTable;
pub use allocation::blocks::{Block, BlockError, BlockPlan};
pub use allocation::explicit_blocks::ExplicitBlocks;
pub use allocation::map_e::{Allocation, BasicMappingRule, MapE, MapEError};
pub use allocation::psid::{PsidError, PsidRule};
pub use decision::{
    CtState, Decision, Effect, Evaluation, Match, NonMatch, Reason, enforcing_policy, evaluate,
    permits,
};
pub use flow::{AddressType, Flow, FlowError, SourceType, TcpOpening};
pub use host::{DefaultRoute, HostFacts};
#[cfg(feature = "import")]
pub use import::iptables::{Imported, SkipReason, Skipped};
#[cfg(feature = "import")]
pub use import::nacl::{NaclError, NetworkAcl, NetworkAcls};
pub use net::address_range::{AddressRange, AddressRangeError};
pub use net::family::{Families, Family};
pub use net::interface::{
    InterfaceError, InterfaceName, InterfacePattern, InterfacePatterns, InterfacePrefix, Interfaces,
};
pub use net::mark::{Mark, MarkError};
pub use net::network::NetworkError;
pub use net::port::{Port, PortError, PortRange};
pub use net::port_set::PortSet;
pub use net::protocol::{Protocol, ProtocolError, Protocols};
pub use policy::error::{GivenKey, PolicyError};
pub use policy::file::{Document, DocumentError, ResolveDocumentError};
#[cfg(feature = "toml")]
pub use policy::file::{PolicyFileError, PolicyFileErrorKind};
pub use policy::name::NameError;
pub use policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
pub use policy::selection::{Distribution, NatFlags, PortSelection, Translation};
pub use policy::timeouts::{ConnectionTimeouts, TimeoutError, TimeoutState, Timeouts, Timer};
pub use policy::value::ValueError;
pub use policy::warning::Warning;
pub use policy::{
    Address, ExpectedConnections, OpenConnections, PickUp, Policy, PolicyBuilder, PolicyName,
    PolicySpec, Target,
};
pub use remap::Remap;
pub use resolve::{PermittedPorts, ResolveError, ResolvedPolicy, resolve_all};
pub use text::{excerpt, quoted};
pub use word::WordError;
