//! Which source ports a host's outgoing connections may use, as pure values.
//!
//! A [`Policy`] says, for the opening packet of each connection in its [`Scope`], which source
//! ports it may leave with. [`Policy::resolve`] binds it to the facts of one host, and
//! [`ResolvedPolicy::decide`] is its meaning: what happens to a [`Flow`], and why.
//!
//! There is no input, output, clock or socket here; `ephport-nft` tells the kernel.
//!
//! ```
//! use ephport_core::{
//!     Address, Decision, Flow, HostFacts, Policy, PolicySpec, PortSelection, Protocol, Target,
//!     Translation,
//! };
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let host = HostFacts { uplinks: vec!["eth0".parse()?], ..HostFacts::default() };
//! let flow = Flow::new(
//!     Protocol::Tcp,
//!     "172.17.0.2:40000".parse()?,
//!     "203.0.113.9:443".parse()?,
//!     "eth0".parse()?,
//! )?;
//! let decision = policy.resolve(&host)?.decide(&flow);
//! assert_eq!(decision, Decision::Translated(Translation {
//!     ports: "49152-61000".parse()?,
//!     keep: None,
//!     address: Address::Masquerade,
//!     selection: PortSelection::default(),
//! }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod allocation;
pub mod decision;
pub mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod host;
pub mod import;
pub mod net;
pub mod policy;
pub mod resolve;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;
#[cfg(test)]
mod testing;
mod text;
mod word;

pub use allocation::block_table::{BlockTable, ExplicitBlocks};
pub use allocation::blocks::{Block, BlockError, BlockPlan};
pub use allocation::map_e::{Allocation, BasicMappingRule, MapE, MapEError};
pub use allocation::psid::{PsidError, PsidRule};
pub use decision::{
    CtState, Decision, Effect, Evaluation, Match, NonMatch, Reason, enforcing_policy, evaluate,
    permits,
};
pub use flow::{AddressType, Flow, FlowError, SourceType, TcpOpening};
pub use host::HostFacts;
pub use import::iptables::{Imported, LeftOut, Refusal};
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
pub use policy::check::{GivenKey, PolicyError};
pub use policy::file::{
    Document, DocumentError, PolicyFileError, PolicyFileErrorKind, ResolveDocumentError,
};
pub use policy::name::NameError;
pub use policy::scope::{Ipsec, Origin, OutInterfaces, Scope};
pub use policy::selection::{Distribution, NatFlags, PortSelection, Translation};
pub use policy::value::ValueError;
pub use policy::warning::Warning;
pub use policy::{
    Address, ExpectedConnections, OpenConnections, PickUp, Policy, PolicyBuilder, PolicyName,
    PolicySpec, Target,
};
pub use resolve::{PermittedPorts, ResolveError, ResolvedPolicy};
pub use text::{excerpt, quoted};
pub use word::WordError;
