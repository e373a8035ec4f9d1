//! Ports, protocols, interfaces and addresses: the values that policies are made of.

pub mod address_range;
pub mod interface;
pub mod port;
pub mod port_set;
pub mod protocol;
