//! What other systems' rules say of ports.

pub mod nacl;
