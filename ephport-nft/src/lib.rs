//! Source-port policies as nf_tables programs, applied over netlink. No other process is started.
//!
//! ```no_run
//! use ephport_core::{Policy, PolicySpec, Target};
//! use ephport_nft::{Client, Plan, host};
//!
//! let policy = Policy::new(PolicySpec::to(Target::Ports("49152-61000".parse()?)))?;
//! let plan = Plan::new(&[policy], &host::facts()?)?;
//! let applied = Client::open()?.apply(&plan)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | I want to | use |
//! |---|---|
//! | bind policies to this host | [`Plan::new`] with [`host::facts`] |
//! | install them | [`Client::apply`], [`Client::dry_run`] |
//! | install them until they are confirmed | [`Client::apply_undoable`], [`Client::undo`] |
//! | know whether they are installed and unchanged | [`Client::status`], [`Client::installed`] |
//! | remove them | [`Client::remove`] |
//! | share the host with other programs that use ephport | [`TableId`], [`Plan::in_table`], [`Client::for_table`] |
//! | know what happens to one connection | [`Plan::explain`] |
//! | print them for `nft -f` | [`TableState::to_nft`] of [`Plan::table`] |
//! | know what would change | [`Installed::drift`] |
//! | react to changes by other processes | [`client::Events`] |
//! | install them again after another process removed them | [`Client::restore`] |
//! | let no other process change them | [`Client::owning`] |
//! | work in another network namespace | [`Namespace`], [`Client::in_namespace`]; its facts by [`Namespace::run`] of [`host::facts`] |
//! | bound a call in time, or end it from another thread | [`client::Options`], [`client::Interrupt`] |
//! | poll for changes in `epoll` or tokio | [`client::Events::try_next`], `AsFd` |
//! | know my own changes among them | [`Client::port_id`], [`Client::generations`] |
//! | send the rules myself, in my own table or batch | [`plan::Batch`], [`Plan::operations`] |
//! | use a socket that is open already | `TryFrom<OwnedFd>` of [`Client`] and [`client::Events`] |
//! | react to changes of links, addresses and routes | [`host::Changes`] |
//! | plan for a host whose facts were recorded | [`Plan::new`] with [`ephport_core::HostFacts`] (feature `serde`); the example `planner` |
//! | write, read or import a policy | the crate [`ephport_core`] |
//!
//! # Examples
//!
//! Bind a policy to a host that is described, not read, and print the table:
//!
//! ```
//! # use ephport_core::{Document, HostFacts};
//! # use ephport_nft::Plan;
//! let document: Document = "[[policy]]\nname = \"a\"\nto-ports = \"49152-61000\"".parse()?;
//! let facts = HostFacts::with_uplinks(["eth0".parse()?]);
//! let plan = Plan::new(document.policies(), &facts)?;
//! print!("{}", plan.table.to_nft());
//! for warning in &plan.warnings {
//!     eprintln!("warning: {warning}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Apply a plan, and read it back:
//!
//! ```no_run
//! # use ephport_nft::{Client, Plan, client::State};
//! # fn example(plan: &Plan) -> Result<(), ephport_nft::Error> {
//! let mut client = Client::open()?;
//! client.apply(plan)?;
//! let status = client.status(plan)?;
//! assert_eq!(status.state, State::Intact);
//! for policy in status.installed.table().map(|table| table.policies()).unwrap_or_default() {
//!     println!("{}: {} translations attempted", policy.name, policy.attempts);
//! }
//! client.remove()?;
//! # Ok(())
//! # }
//! ```
//!
//! Print what would change:
//!
//! ```no_run
//! # use ephport_nft::{Client, Plan};
//! # fn example(plan: &Plan) -> Result<(), ephport_nft::Error> {
//! for difference in Client::open()?.installed()?.drift(&plan.table)? {
//!     println!("{difference}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Install a plan until it is confirmed, and react to changes by other processes:
//!
//! ```no_run
//! # use ephport_nft::{Client, Plan, client::{Event, Events}};
//! # fn example(plan: &Plan, is_confirmed: bool) -> Result<(), ephport_nft::Error> {
//! let mut client = Client::open()?;
//! let (_, undo) = client.apply_undoable(plan)?;
//! if let Some(undo) = undo.filter(|_| !is_confirmed) {
//!     client.undo(&undo)?;
//! }
//! for event in Events::open()? {
//!     if let Event::Generation(_) | Event::Lost = event? {
//!         println!("apply would: {:?}", client.dry_run(plan)?);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Explain one connection:
//!
//! ```
//! # use ephport_core::{Document, HostFacts};
//! # use ephport_nft::Plan;
//! let document: Document = "[[policy]]\nname = \"a\"\nout-interfaces = \"any\"\n\
//!                           to-ports = \"49152-61000\"".parse()?;
//! let plan = Plan::new(document.policies(), &HostFacts::default())?;
//! let flow = "udp 10.0.0.7:20000 -> 203.0.113.9:53 oif eth0".parse()?;
//! let explanation = plan.explain(&flow)?;
//! let matched = explanation.evaluation.matched.ok_or("not translated")?;
//! assert_eq!(matched.translation.ports.to_string(), "49152-61000");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `serde` | Serialize and Deserialize for [`Plan`], [`Drift`], `client::Report` of [`Status`], `client::ErrorReport` of [`Error`] |
//! | `tracing` | a span `apply` and the events `retry`, `refused` and `drift`, by the crate tracing |
//! | `proptest` | strategies for tables, rules and chains |
//! | `rustables` | tables as values of the crate rustables, under the terms of GPL-3.0-or-later; needs libclang |
#![deny(unsafe_code)] // Only `sys` allows it.
#![cfg_attr(
    not(feature = "internals"),
    allow(
        dead_code,
        unused_imports,
        unreachable_pub,
        clippy::struct_field_names,
        reason = "used with the feature `internals`"
    )
)]

pub mod client;
#[cfg(not(feature = "internals"))]
mod compile;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod compile;
pub mod conntrack;
pub mod doctor;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
pub mod host;
#[cfg(not(feature = "internals"))]
mod interpret;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod interpret;
mod log;
#[cfg(not(feature = "internals"))]
mod netlink;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod netlink;
#[cfg(not(feature = "internals"))]
mod nftables;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod nftables;
pub mod plan;
#[cfg(feature = "rustables")]
pub mod rustables;
pub mod sock_diag;
#[cfg(any(test, feature = "proptest"))]
#[doc(hidden)]
pub mod strategies;
#[cfg(not(feature = "internals"))]
mod syntax;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod syntax;
#[cfg(not(feature = "internals"))]
mod sys;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod sys;
pub mod table;
#[cfg(not(feature = "internals"))]
mod uapi;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod uapi;

pub use client::{Applied, Client, Error, Installed, Status};
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub use compile::compile;
pub use ephport_core::Warning;
pub use netlink::{CodecError, Errno, Namespace, NetlinkError};
pub use plan::drift::Drift;
pub use plan::{Explanation, Plan, PlanError};
pub use syntax::InstalledPolicy;
pub use table::{TableId, TableIdError, TableState};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
