//! client
mod socket;
mod transport;

pub use socket::Socket;
pub use transport::{NetlinkError, Transport, dump, exchange};
