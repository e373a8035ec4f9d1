//! The objects of nf_tables, encoded for the kernel and decoded from it.
//!
//! Attributes and expressions that are unknown here are kept, so that decoding and encoding lose nothing.
//! Objects of other tables are never decoded: [`Origin`] reads only the table's name.

mod bytes;
mod chain;
pub mod datatype;
mod element_list;
pub mod expr;
mod expr_list;
mod generation;
mod origin;
mod rule;
pub(crate) mod schema;
mod set;
mod table;
mod timeout;
mod userdata;
pub(crate) mod value;

pub use bytes::Bytes;
pub use chain::{Chain, Hook};
pub(crate) use element_list::DataLayout;
pub use element_list::{ElementIter, ElementList, ElementRef};
pub use expr_list::ExprList;
pub use generation::{Commit, Generation};
pub use origin::{Origin, UnknownObject};
pub use rule::Rule;
pub use schema::RawAttr;
pub use set::{Element, Elements, SetDescription, SetSpec};
pub use table::Table;
pub use timeout::{CtTimeout, TimeoutData, TimeoutType, TimeoutValues};
pub use userdata::Comment;
