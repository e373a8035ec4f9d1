//! Ports, protocols, families, interfaces, addresses and marks: the values of which policies consist.

pub mod address_range;
pub(crate) mod address_set;
pub mod family;
pub mod interface;
pub mod mark;
pub mod network;
pub mod port;
pub mod port_set;
pub mod protocol;
