//! Which ports belong to whom, when one address is shared.
//!
//! [`psid`] and [`map_e`] work out the ports that a provider left to this host (RFC 7597);
//! [`blocks`], [`explicit_blocks`] and [`block_table`] give each source that this host translates its own ports
//! (RFC 7422); [`block_file`] reads them from a file.

pub mod block_file;
pub mod block_table;
pub mod blocks;
pub mod explicit_blocks;
pub mod map_e;
pub mod psid;

use crate::net::port::{Port, PortRange};

/// The range between two numbers, if both are ports and in order.
fn range(first: u32, last: u32) -> Option<PortRange> {
    let port = |number: u32| Port::new(u16::try_from(number).ok()?).ok();
    PortRange::new(port(first)?, port(last)?).ok()
}
