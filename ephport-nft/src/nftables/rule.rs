//! Rules (`NFTA_RULE_*`): lists of expressions in a chain.

use super::expr::{Counter, Expr};
use super::expr_list::ExprList;
use super::schema::attributes;
use super::userdata::Comment;

attributes! {
    /// A rule.
    message Rule("rule", family) {
        /// The table's name.
        table: String = NFTA_RULE_TABLE,
        /// The chain's name.
        chain: String = NFTA_RULE_CHAIN,
        /// The kernel's number for it.
        handle: Option<u64> = NFTA_RULE_HANDLE,
        /// The handle of the rule before it.
        position: Option<u64> = NFTA_RULE_POSITION,
        /// Its expressions, in order.
        exprs: ExprList = NFTA_RULE_EXPRESSIONS,
        /// User data, at most 256 bytes.
        userdata: Option<Vec<u8>> = NFTA_RULE_USERDATA,
    } other, padding NFTA_RULE_PAD
}

impl Rule {
    /// A rule for the end of a chain.
    #[must_use]
    pub fn new(family: u8, table: &str, chain: &str, exprs: impl Into<ExprList>) -> Self {
        Self {
            family,
            table: table.into(),
            chain: chain.into(),
            handle: None,
            position: None,
            exprs: exprs.into(),
            userdata: None,
            other: Vec::new(),
        }
    }

    /// The same rule with this comment.
    #[must_use]
    pub fn with_comment(self, comment: &Comment) -> Self {
        Self { userdata: Some(comment.to_userdata()), ..self }
    }

    /// Its comment.
    #[must_use]
    pub fn comment(&self) -> Option<Comment> {
        Comment::from_userdata(self.userdata.as_ref()?)
    }

    /// Its first counter.
    #[must_use]
    pub fn counter(&self) -> Option<&Counter> {
        self.exprs.iter().find_map(|expr| match expr {
            Expr::Counter(counter) => Some(counter),
            _ => None,
        })
    }

    /// The rule without the kernel's own numbers, its counters at zero.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let exprs = self.exprs.iter().map(|expr| expr.normalized().into_owned()).collect();
        Self { handle: None, position: None, exprs, ..self.clone() }
    }
}
