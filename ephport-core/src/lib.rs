//! Which source ports a host's outgoing connections may use, as pure values.
//!
//! A [`Policy`] says, for the opening packet of each connection in its [`Scope`], which source
//! ports it may leave with. [`Policy::resolve`] binds it to the facts of one host, and
//! [`Resolved::decide`] is its meaning: what happens to a [`Flow`], and why.
//!
//! There is no input, output, clock or socket here; `ephport-nft` tells the kernel.
//!
//! ```
//! use ephport_core::{
//!     Address, Decision, Flow, HostFacts, Manner, Policy, PolicySpec, Protocol, Target,
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
//! assert_eq!(decision, Decision::Moved {
//!     ports: "49152-61000".parse()?,
//!     kept: None,
//!     address: Address::Masquerade,
//!     manner: Manner::default(),
//! });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod allocation;
pub mod decision;
pub mod document;
pub mod flow;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod host;
pub mod import;
pub mod interface;
pub mod policy;
pub mod port;
pub mod port_set;
pub mod protocol;
pub mod resolve;
pub mod scope;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;
mod word;

pub use allocation::address_range::{AddressRange, AddressRangeError};
pub use allocation::block_table::{BlockTable, ExplicitBlocks};
pub use allocation::blocks::{Block, BlockError, BlockPlan};
pub use allocation::map_e::{Allocation, BasicMappingRule, MapE, MapEError};
pub use allocation::psid::{PsidError, PsidRule};
pub use decision::{Decision, Manner, Reason, Spread};
pub use document::{
    Document, DocumentError, Outcome, PassedOver, ResolveDocumentError, TomlError, TomlProblem,
    Winner, decide, lets_out, lets_unplaced_out,
};
pub use flow::{Cast, Flow, FlowError, Segment};
pub use host::HostFacts;
pub use import::iptables::{Imported, LeftOut, Refusal};
pub use import::nacl::{NaclError, NetworkAcl, NetworkAcls};
pub use interface::{InterfaceError, InterfaceName, InterfacePattern};
pub use policy::{Address, Choice, PickUp, Policy, PolicyError, PolicyName, PolicySpec, Target};
pub use port::{Port, PortError, PortRange};
pub use port_set::PortSet;
pub use protocol::{Protocol, ProtocolError, Protocols};
pub use resolve::{Allowed, Exits, ResolveError, Resolved};
pub use scope::{Egress, Families, Family, Origin, Scope};
pub use word::WordError;
