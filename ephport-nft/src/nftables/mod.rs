//! The nouns of nf_tables, one file each: encoded for the kernel, decoded from it.
//!
//! What an object holds beyond what we name is kept in its `other` attributes, so that decoding and
//! encoding lose nothing.

mod chain;

pub mod datatype;
mod element;
pub mod expr;
mod generation;
mod rule;
pub(crate) mod schema;
mod set;
mod table;
mod userdata;

pub use chain::{Chain, Hook};
pub use element::{Element, Elements};
pub use generation::{Commit, Generation};
pub use rule::Rule;
pub use set::SetSpec;
pub use table::Table;
pub use userdata::Comment;

use crate::netlink::{Attr, Writer};

/// An attribute that we have no name for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAttr {
    /// Its number.
    pub kind: u16,
    /// Its value.
    pub value: Vec<u8>,
}

impl From<Attr<'_>> for RawAttr {
    fn from(attr: Attr<'_>) -> Self {
        Self { kind: attr.kind, value: attr.value.to_vec() }
    }
}

fn write_other(w: &mut Writer, other: &[RawAttr]) {
    for attr in other {
        w.bytes(attr.kind, &attr.value);
    }
}

/// The attributes that are part of what was asked for, without those in which the kernel only keeps
/// its books.
fn without(other: &[RawAttr], bookkeeping: &[u16]) -> Vec<RawAttr> {
    other.iter().filter(|attr| !bookkeeping.contains(&attr.kind)).cloned().collect()
}
