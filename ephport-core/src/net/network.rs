//! Networks as policies name them.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::text::quoted;

/// The network of a text: `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// # Errors
/// [`NetworkError`], also for a network with host bits, of which the writer may have meant something
/// else.
///
/// ```
/// use ephport_core::net::network::network;
///
/// assert_eq!(network("10.0.0.7")?.to_string(), "10.0.0.7/32");
/// assert_eq!(
///     network("10.0.0.1/8").unwrap_err().to_string(),
///     "10.0.0.1/8 has bits after its prefix: expected the network 10.0.0.0/8 or the address 10.0.0.1"
/// );
/// # Ok::<(), ephport_core::NetworkError>(())
/// ```
pub fn network(text: &str) -> Result<IpNet, NetworkError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network = text.parse().map_err(|_| NetworkError::NotANetwork { text: text.into() })?;
    check(network)
}

/// The network, if it has no host bits.
pub(crate) fn check(network: IpNet) -> Result<IpNet, NetworkError> {
    if network == network.trunc() { Ok(network) } else { Err(NetworkError::HostBits { network }) }
}

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Neither a network nor an address.
    #[error(
        "{} is not a network: expected one like 10.0.0.0/8 or 2001:db8::/32, or an address",
        quoted(text)
    )]
    NotANetwork {
        /// The text.
        text: Box<str>,
    },
    /// Bits after the prefix that are not 0.
    #[error(
        "{network} has bits after its prefix: expected the network {} or the address {}",
        network.trunc(), network.addr()
    )]
    HostBits {
        /// The network.
        network: IpNet,
    },
}
