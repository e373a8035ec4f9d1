//! What a program needs of an error, as plain values.

use super::error::{Error, Rejection};
use crate::netlink::NetlinkError;

/// An error for another program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ErrorReport {
    /// The name of the variant of [`Error`], like `NotPermitted`.
    pub variant: String,
    /// The message.
    pub message: String,
    /// The errno of the kernel's answer or of the system call, as errno(3) numbers it.
    pub errno: Option<i32>,
    /// The request that the kernel refused, like `add chain postrouting`.
    pub request: Option<String>,
    /// The attribute that the kernel refused, as linux/netfilter/nf_tables.h spells it.
    pub attribute: Option<String>,
    /// The offset of the fault, in bytes from the start of the request.
    pub offset: Option<u32>,
    /// The kernel's text, if it sent one.
    pub kernel_message: Option<String>,
}

impl Error {
    /// The error for another program: the feature `serde` writes and reads it.
    ///
    /// ```
    /// let report = ephport_nft::Error::NoNfTables.report();
    /// assert_eq!(report.variant, "NoNfTables");
    /// assert!(report.message.starts_with("the kernel has no nf_tables"));
    /// ```
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        let debug = format!("{self:?}");
        let variant = debug.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let report = ErrorReport {
            variant: variant.into(),
            message: self.to_string(),
            ..ErrorReport::default()
        };
        match self {
            Self::Rejected(rejection) => rejection.add_to(report),
            Self::NoModule { request, .. } => {
                ErrorReport { request: Some(request.to_string()), ..report }
            }
            Self::Netlink(error) => ErrorReport { errno: errno(error), ..report },
            _ => report,
        }
    }
}

impl Rejection {
    fn add_to(&self, report: ErrorReport) -> ErrorReport {
        let attribute = self.location.as_ref().map(|location| location.attribute.into());
        ErrorReport {
            errno: Some(self.errno.raw()),
            request: Some(self.request.to_string()),
            attribute,
            offset: self.offset,
            kernel_message: self.message.clone(),
            ..report
        }
    }
}

fn errno(error: &NetlinkError) -> Option<i32> {
    match error {
        NetlinkError::Open { errno }
        | NetlinkError::Bind { errno }
        | NetlinkError::Option { errno, .. }
        | NetlinkError::Send { errno, .. }
        | NetlinkError::Receive { errno } => Some(errno.raw()),
        _ => None,
    }
}
