//! The table that is installed, and the step from it to a desired one.

use super::open::carried;
use super::{Applied, Error};
use crate::netlink::CodecError;
use crate::plan::drift::{Drift, absent, drift};
use crate::plan::transaction::Batch;
use crate::table::{Fingerprint, TableId, TableState};

/// The kernel's table with the client's table name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// There is no such table.
    Absent,
    /// A table with another owner, or none.
    Foreign(TableState),
    /// A table with the client's owner.
    Ours {
        /// Its state.
        ruleset: TableState,
        /// The fingerprint that it was applied with; `None` if it was deleted.
        fingerprint: Option<Fingerprint>,
        /// Whether its checksum is that of the fingerprint.
        intact: bool,
    },
}

/// Whether a table has the checksum of its fingerprint.
pub(super) fn is_intact(
    table: &TableState,
    fingerprint: Option<&Fingerprint>,
) -> Result<bool, CodecError> {
    let Some(fingerprint) = fingerprint else { return Ok(false) };
    Ok(fingerprint.checksum == table.checksum()?)
}

pub(super) fn classify(
    ruleset: Option<TableState>,
    id: &TableId,
    is_intact: impl Fn(&TableState, Option<&Fingerprint>) -> Result<bool, CodecError>,
) -> Result<Installed, Error> {
    let Some(ruleset) = ruleset else { return Ok(Installed::Absent) };
    if !id.owns(&ruleset.table) {
        return Ok(Installed::Foreign(ruleset));
    }
    let fingerprint = ruleset.fingerprint();
    let intact = is_intact(&ruleset, fingerprint.as_ref())?;
    Ok(Installed::Ours { ruleset, fingerprint, intact })
}

fn foreign(found: &TableState) -> Error {
    Error::Foreign { table: found.table.name.clone() }
}

impl Installed {
    /// The change that makes it `desired`.
    ///
    /// # Errors
    /// [`Error::Foreign`] when the table has another owner.
    pub fn difference(&self, desired: &TableState) -> Result<Applied, Error> {
        self.step(desired).map(|(applied, _)| applied)
    }

    /// The same, with its transaction.
    pub(super) fn step(&self, desired: &TableState) -> Result<(Applied, Option<Batch>), Error> {
        let ruleset = match self {
            Self::Absent => return Ok((Applied::Installed, Some(self.replace(desired)))),
            Self::Foreign(found) => return Err(foreign(found)),
            Self::Ours { ruleset, .. } => ruleset,
        };
        let signature =
            |table: &TableState| table.fingerprint().map(|found| (found.checksum, found.facts));
        let is_signed = signature(ruleset) == signature(desired);
        if is_signed && ruleset.normalized() == desired.normalized() {
            return Ok((Applied::Unchanged, None));
        }
        Ok(match Batch::update(ruleset, desired) {
            Some(batch) => (Applied::Updated, Some(batch)),
            None => (Applied::Replaced, Some(self.replace(desired))),
        })
    }

    /// The transaction that replaces the table. Open connections stay excepted from enforcement.
    pub(super) fn replace(&self, desired: &TableState) -> Batch {
        match self {
            Self::Ours { ruleset, .. } => Batch::replace(&carried(ruleset, desired)),
            Self::Absent | Self::Foreign(_) => Batch::replace(desired),
        }
    }

    /// The differences to `desired`: none if, and only if, [`Installed::difference`] is
    /// [`Applied::Unchanged`].
    ///
    /// # Errors
    /// [`Error::Foreign`] when the table has another owner.
    pub fn drift(&self, desired: &TableState) -> Result<Vec<Drift>, Error> {
        match self {
            Self::Absent => Ok(vec![absent()]),
            Self::Foreign(found) => Err(foreign(found)),
            Self::Ours { ruleset, .. } => Ok(drift(ruleset, desired)),
        }
    }
}
