//! What is installed, and what the kernel did with it.

use super::{Client, Error, Installed};
use crate::log;
use crate::netlink::Transport;
use crate::plan::drift::{self, Drift};
use crate::syntax::InstalledPolicy;
use crate::table::{FactChecksums, TableState};

/// What is installed under the name of ephport's table, compared with a plan where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The table that is installed, with its counters.
    pub installed: Installed,
    /// Whether the table is the one that was applied.
    pub state: State,
    /// The differences of ephport's table from the plan; without a plan, those that no plan explains.
    pub drift: Vec<Drift>,
}

/// A status without the table itself: what another program needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Report {
    /// The name of the table; `None` if there is none.
    pub table: Option<String>,
    /// Whether the table is the one that was applied.
    pub state: State,
    /// The policies of ephport's table, with their counters.
    pub policies: Vec<InstalledPolicy>,
    /// The differences of ephport's table from the plan.
    pub drift: Vec<Drift>,
}

/// Whether the installed table is the one that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum State {
    /// There is no table of this name.
    Absent,
    /// The table of this name belongs to another program.
    Foreign,
    /// The table was changed after it was applied.
    Drifted,
    /// The table is the one that was applied.
    Intact,
}

impl Status {
    /// The status for another program: the feature `serde` writes and reads it.
    #[must_use]
    pub fn report(&self) -> Report {
        let ours = match &self.installed {
            Installed::Ours { ruleset, .. } => Some(ruleset),
            Installed::Absent | Installed::Foreign(_) => None,
        };
        Report {
            table: self.installed.table().map(|found| found.table.name.clone()),
            state: self.state,
            policies: ours.map(TableState::policies).unwrap_or_default(),
            drift: self.drift.clone(),
        }
    }

    /// The checksums of the facts of the host for which ephport's table was applied.
    #[must_use]
    pub fn facts(&self) -> Option<FactChecksums> {
        match &self.installed {
            Installed::Ours { fingerprint, .. } => Some(fingerprint.as_ref()?.facts),
            _ => None,
        }
    }
}

impl State {
    /// The name of the state, in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Foreign => "foreign",
            Self::Drifted => "drifted",
            Self::Intact => "intact",
        }
    }
}

impl<T: Transport> Client<T> {
    /// Read what is installed, and compare it with `desired`, a [`Plan`](crate::Plan).
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn status(&mut self, desired: &impl AsRef<TableState>) -> Result<Status, Error> {
        Ok(self.installed()?.status(Some(desired.as_ref())))
    }
}

impl Installed {
    /// The status of this table, compared with `desired` where it is known.
    #[must_use]
    pub fn status(self, desired: Option<&TableState>) -> Status {
        let state = match &self {
            Self::Absent => State::Absent,
            Self::Foreign(_) => State::Foreign,
            Self::Ours { intact: false, .. } => State::Drifted,
            Self::Ours { intact: true, .. } => State::Intact,
        };
        let drift = match (&self, desired) {
            (Self::Ours { ruleset, .. }, Some(desired)) => drift::drift(ruleset, desired),
            (Self::Ours { ruleset, .. }, None) => drift::evident(ruleset),
            _ => Vec::new(),
        };
        log::drift(&drift);
        Status { installed: self, state, drift }
    }

    /// The table under this name, whatever its owner.
    #[must_use]
    pub fn table(&self) -> Option<&TableState> {
        match self {
            Self::Absent => None,
            Self::Foreign(table) | Self::Ours { ruleset: table, .. } => Some(table),
        }
    }

    /// Whether the table was applied from `desired`: their fingerprints have the same checksum.
    #[must_use]
    pub fn is_from(&self, desired: &TableState) -> bool {
        let Self::Ours { fingerprint: Some(found), .. } = self else { return false };
        desired.fingerprint().is_some_and(|expected| found.checksum == expected.checksum)
    }
}
