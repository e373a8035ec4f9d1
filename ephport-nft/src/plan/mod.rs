//! Plans: the difference between two states of the table, and the transaction that removes it.

pub mod diff;
pub mod drift;
pub mod operation;
pub mod transaction;
