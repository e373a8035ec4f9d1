//! Source-port policies as nf_tables programs.
//!
//! [`compile()`] turns policies into a [`TableState`], a pure value; [`Client`] makes the kernel hold
//! it, in one transaction, and reads it back. No other process is ever started.
//!
//! ```no_run
//! use ephport_core::{Policy, PolicySpec, Target};
//! use ephport_nft::{Client, compile, host};
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let ruleset = compile(&[policy.resolve(&host::facts()?)?])?;
//! let applied = Client::open()?.apply(&ruleset)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)] // Only `netlink::sys` allows it.

pub mod client;
pub mod compile;
pub mod conntrack;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod host;
pub mod interpret;
pub mod netlink;
pub mod nftables;
pub mod plan;
#[cfg(feature = "rustables")]
pub mod rustables;
pub mod sock_diag;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;
pub mod syntax;
pub mod table;
pub mod uapi;

pub use client::{Applied, Client, Error, Installed};
pub use compile::compile;
pub use plan::drift::Drift;
pub use table::TableState;
