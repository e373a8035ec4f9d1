//! The expressions of a rule.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::expr::Expr;
use super::schema::{Attribute, Inside, Slot};
use crate::netlink::{Attr, CodecError, Writer};

/// The expressions of a rule, in order. Copies share them until one is changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExprList(Arc<Vec<Expr>>);

impl From<Vec<Expr>> for ExprList {
    fn from(exprs: Vec<Expr>) -> Self {
        Self(exprs.into())
    }
}

impl FromIterator<Expr> for ExprList {
    fn from_iter<I: IntoIterator<Item = Expr>>(exprs: I) -> Self {
        exprs.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for ExprList {
    type Target = Vec<Expr>;

    fn deref(&self) -> &Vec<Expr> {
        &self.0
    }
}

impl DerefMut for ExprList {
    fn deref_mut(&mut self) -> &mut Vec<Expr> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a ExprList {
    type Item = &'a Expr;
    type IntoIter = std::slice::Iter<'a, Expr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut ExprList {
    type Item = &'a mut Expr;
    type IntoIter = std::slice::IterMut<'a, Expr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl IntoIterator for ExprList {
    type Item = Expr;
    type IntoIter = std::vec::IntoIter<Expr>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl fmt::Debug for ExprList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Attribute for ExprList {
    const INSIDE: Inside = Inside::Expressions;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        Attribute::encode(&*self.0, w, attribute_type);
    }

    fn decode(list: Attr<'_>) -> Result<Self, CodecError> {
        <Vec<Expr> as Attribute>::decode(list).map(Into::into)
    }
}

/// A list that is empty when its attribute is missing.
impl Slot for ExprList {
    type Value = Self;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        Attribute::encode(self, w, attribute_type);
    }

    fn fill(value: Option<Self>, _: &'static str, _: u16) -> Result<Self, CodecError> {
        Ok(value.unwrap_or_default())
    }
}
