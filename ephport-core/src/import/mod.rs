//! Policies from other systems: rules of iptables, AWS network ACLs, MAP-E.

pub mod iptables;
pub mod map_e;
pub mod nacl;
