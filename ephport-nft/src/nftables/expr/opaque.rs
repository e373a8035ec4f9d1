//! An expression that we have no name for.

use std::fmt;

use crate::netlink::Writer;
use crate::uapi::NFTA_EXPR_DATA;

/// An expression kept as bytes, so that what others wrote is read back whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    name: String,
    data: Option<Vec<u8>>,
}

impl Opaque {
    /// An expression of this kind, with the content of its `NFTA_EXPR_DATA` if it has one.
    #[must_use]
    pub fn new(name: String, data: Option<Vec<u8>>) -> Self {
        Self { name, data }
    }

    /// The kernel's name for its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn write_data(&self, w: &mut Writer) {
        if let Some(data) = &self.data {
            w.bytes(NFTA_EXPR_DATA, data);
        }
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.data.iter().flatten().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}
