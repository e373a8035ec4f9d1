//! What other systems' rules say of ports.

pub mod iptables;
pub mod nacl;
