//! Test a firewall with ephport: the means by which ephport tests itself.
#![forbid(unsafe_code)]

mod batch;
pub mod kernel;
mod random;

pub use batch::Batch;
pub use kernel::Kernel;
pub use random::Random;
