//! IPsec policies (linux/xfrm.h).

use super::list;
use crate::netlink::{NetlinkError, Reader, Socket};
use crate::uapi::{XFRM_MSG_GETPOLICY, XFRM_MSG_NEWPOLICY, XFRM_POLICY_OUT};

/// Length of `struct xfrm_userpolicy_id`.
const USERPOLICY_ID_LEN: usize = 64;

/// What is before `dir` in `struct xfrm_userpolicy_info`: a selector, limits and counts of the lifetime,
/// priority and index.
const BEFORE_DIR: usize = 56 + 64 + 32 + 8;

/// The count of outbound IPsec policies of this thread's network namespace.
///
/// # Errors
/// [`NetlinkError`] when the kernel does not list them.
pub fn ipsec_policies() -> Result<u32, NetlinkError> {
    const WHAT: &str = "xfrm_userpolicy_info";
    let mut count = 0;
    let mut socket = Socket::xfrm()?;
    list(&mut socket, 1, XFRM_MSG_GETPOLICY, USERPOLICY_ID_LEN, |message_type, body| {
        if message_type == XFRM_MSG_NEWPOLICY {
            let mut reader = Reader::new(body);
            reader.slice(WHAT, BEFORE_DIR)?;
            let [direction] = reader.array(WHAT)?;
            count += u32::from(direction == XFRM_POLICY_OUT);
        }
        Ok(())
    })?;
    Ok(count)
}
