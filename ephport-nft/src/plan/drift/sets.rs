//! In what a named set differs.

use std::collections::HashSet;

use super::Change;
use crate::syntax::element_words;
use crate::table::Set;

pub(super) fn set(installed: &Set, desired: &Set) -> Option<Change> {
    let (found, expected) = (installed.normalized(), desired.normalized());
    if found == expected {
        return None;
    }
    if found.spec != expected.spec {
        return Some(Change::SetChanged);
    }
    let (is, was) = (element_words(&found), element_words(&expected));
    let (missing, extra) = (lacking(&was, &is), lacking(&is, &was));
    Some(if missing.is_empty() && extra.is_empty() {
        Change::Unnamed
    } else {
        Change::SetElements { missing, extra }
    })
}

/// Those of `all` that are not in `others`.
fn lacking(all: &[String], others: &[String]) -> Vec<String> {
    let others: HashSet<_> = others.iter().collect();
    all.iter().filter(|words| !others.contains(words)).cloned().collect()
}
