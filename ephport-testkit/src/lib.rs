//! Test a firewall with ephport: the means by which ephport tests itself.
//!
//! | I want to | use |
//! |---|---|
//! | draw policies, documents and connections for proptest | [`strategies`] |
//! | run a client of nf_tables without a kernel, with faults and other writers | [`Kernel`], [`kernel::Faults`] |
//! | know whether a ruleset does what a policy means, also one that ephport did not write | [`conformance`] |
//! | send any batch, also a wrong one, and random lists of them | [`Batch`], [`lists`] |
//!
//! One seed decides everything: a failing run prints it, and it fails again. `docs/test-your-firewall.md` of
//! the repository is the guide.
#![forbid(unsafe_code)]

mod batch;
pub mod conformance;
pub mod kernel;
pub mod lists;
mod random;

pub use batch::Batch;
/// Strategies for the types of ephport-core.
pub use ephport_core::strategies;
pub use kernel::Kernel;
pub use random::Random;
