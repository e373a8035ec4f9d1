//! Source-port policies as nf_tables programs.
//!
//! [`compile()`] turns policies into a [`Ruleset`], a pure value; [`Nftables`] makes the kernel hold
//! it, in one transaction, and reads it back. No other process is ever started.
//!
//! ```no_run
//! use ephport_core::{Policy, PolicySpec, Target};
//! use ephport_nft::{Nftables, compile, host};
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let ruleset = compile(&[policy.resolve(&host::facts()?)?])?;
//! let applied = Nftables::open()?.apply(&ruleset)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)] // `sys` alone allows it.

pub mod client;
pub mod compile;
pub mod diff;
pub mod drift;
pub mod expr;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod host;
pub mod interpret;
pub mod object;
pub mod ruleset;
#[cfg(feature = "rustables")]
pub mod rustables;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;
mod sys;
pub mod uapi;
pub mod wire;

pub use client::{Applied, Error, Installed, Nftables};
pub use compile::compile;
pub use drift::Drift;
pub use ruleset::Ruleset;
