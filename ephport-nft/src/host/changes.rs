//! Notifications of rtnetlink about changes of a host's facts (rtnetlink(7)).

use std::os::fd::{AsFd, BorrowedFd};

use crate::netlink::{Errno, Message, Messages, NetlinkError, Reader, Socket, Transport};
use crate::uapi::{
    RTM_DELROUTE, RTM_NEWROUTE, RTN_LOCAL, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK, RTNLGRP_NEXTHOP,
};

/// What policies depend on.
const GROUPS: [u32; 6] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_NEXTHOP,
];

/// Changes of the links, addresses and routes of one network namespace.
///
/// The sysctls that [`facts`](super::facts) reads, such as the host's own port range, have no
/// notifications.
///
/// ```no_run
/// use ephport_nft::host::{self, Changes};
///
/// let mut changes = Changes::open()?;
/// let mut facts = host::facts()?;
/// loop {
///     // poll(2) waits until `changes` is readable.
///     if changes.take()? {
///         facts = host::facts()?;
///     }
/// }
/// # Ok::<(), ephport_nft::NetlinkError>(())
/// ```
#[derive(Debug)]
pub struct Changes(Socket);

impl Changes {
    /// The changes of this thread's network namespace from now on.
    ///
    /// # Errors
    /// [`NetlinkError`] when the socket cannot be made.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::route_events(&GROUPS).map(Self)
    }

    /// Take all notifications that are queued: whether [`facts`](super::facts) may differ from those that
    /// were read before them. Lost notifications count as a change.
    ///
    /// # Errors
    /// [`NetlinkError`] when the socket cannot be read.
    pub fn take(&mut self) -> Result<bool, NetlinkError> {
        let mut is_changed = false;
        loop {
            match self.0.poll() {
                Ok(None) => return Ok(is_changed),
                Ok(Some(datagram)) => {
                    let mut messages = Messages::new(&datagram);
                    is_changed |= messages.any(|message| message.map_or(true, is_change));
                }
                Err(NetlinkError::Receive { errno: Errno::ENOBUFS } | NetlinkError::Cut { .. }) => {
                    is_changed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Readable when there is a notification, for poll(2).
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether facts depend on the change. A router has hundreds of thousands of routes that change all the
/// time: only those count that lead to all or to half of all addresses, and those of local addresses.
fn is_change(Message { header, body, .. }: Message<'_>) -> bool {
    if ![RTM_NEWROUTE, RTM_DELROUTE].contains(&header.message_type) {
        return true;
    }
    let fixed = Reader::new(body).array("rtmsg");
    fixed.map_or(true, |[_, len, _, _, _, _, _, kind]: [u8; 8]| len <= 1 || kind == RTN_LOCAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Header;
    use crate::uapi::{RTM_NEWLINK, RTN_UNICAST};

    fn is_change_of(message_type: u16, body: &[u8]) -> bool {
        let header = Header { message_type, flags: 0, seq: 0 };
        is_change(Message { header, port_id: 0, body })
    }

    #[test]
    fn routes_to_single_networks_are_no_change() {
        let route = |len, kind| is_change_of(RTM_NEWROUTE, &[2, len, 0, 0, 254, 3, 0, kind, 0, 0]);
        assert!(!route(24, RTN_UNICAST) && !route(32, RTN_UNICAST));
        assert!(route(0, RTN_UNICAST) && route(1, RTN_UNICAST) && route(32, RTN_LOCAL));
        assert!(is_change_of(RTM_DELROUTE, &[2, 0]), "what cannot be decoded may be a change");
        assert!(is_change_of(RTM_NEWLINK, &[]));
    }
}
