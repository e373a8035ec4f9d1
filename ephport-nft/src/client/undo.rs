//! Changes that can be undone.
//!
//! ```no_run
//! # use ephport_nft::{Client, Plan};
//! # fn example(plan: &Plan, is_confirmed: fn() -> bool) -> Result<(), ephport_nft::Error> {
//! let mut client = Client::open()?;
//! let (_, undo) = client.apply_undoable(plan)?;
//! if let Some(undo) = undo.filter(|_| !is_confirmed()) {
//!     client.undo(&undo)?;
//! }
//! # Ok(())
//! # }
//! ```

use super::{Applied, Client, Error, Installed};
use crate::netlink::Transport;
use crate::plan::transaction::Batch;
use crate::table::{Fingerprint, TableState};

/// The way back from a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// The table before the change, with its counters.
    previous: Option<TableState>,
    /// The fingerprint of the table after it.
    applied: Option<Fingerprint>,
}

/// What [`Client::undo`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The table is the one from before the change, without named objects that ephport does not decode:
    /// counters, quotas and the like that another program had added.
    Restored,
    /// There is no table, as before the change.
    Removed,
    /// Nothing: another process applied other policies after the change, or removed the table.
    Superseded,
}

impl<T: Transport> Client<T> {
    /// [`Client::apply`], and the way back to the table that was read just before; `None` if nothing was
    /// changed.
    ///
    /// # Errors
    /// Those of [`Client::apply`].
    pub fn apply_undoable(
        &mut self,
        desired: &impl AsRef<TableState>,
    ) -> Result<(Applied, Option<Undo>), Error> {
        self.changing(|client| {
            let previous = client.installed()?.table().cloned();
            let applied = client.apply(desired)?;
            let undo = Undo { previous, applied: desired.as_ref().fingerprint() };
            Ok((applied, (applied != Applied::Unchanged).then_some(undo)))
        })
    }

    /// Undo a change, in one transaction. A table that was edited after the change is restored too,
    /// with no trace of the edits.
    ///
    /// # Errors
    /// [`Error`]; the kernel then has what it had before, except after [`Error::Unconfirmed`].
    pub fn undo(&mut self, undo: &Undo) -> Result<Undone, Error> {
        self.changing(|client| client.undo_change(undo))
    }

    fn undo_change(&mut self, undo: &Undo) -> Result<Undone, Error> {
        let Some(previous) = &undo.previous else { return self.undo_installation(undo) };
        match self.install_where(previous, |installed| undo.is_installed(installed)) {
            Ok(Some(_)) => Ok(Undone::Restored),
            Ok(None) | Err(Error::Foreign { .. }) => Ok(Undone::Superseded),
            Err(error) => Err(error),
        }
    }

    fn undo_installation(&mut self, undo: &Undo) -> Result<Undone, Error> {
        let is_installed = undo.is_installed(&self.installed()?);
        let rewriting = if is_installed { self.leave_remapped()? } else { None };
        let undone = self.change(Self::snapshot, |installed| match installed {
            Installed::Absent => Ok((Undone::Removed, None)),
            Installed::Ours { ruleset, .. } if undo.is_installed(installed) => {
                Ok((Undone::Removed, Some(Batch::delete(&ruleset.table))))
            }
            _ => Ok((Undone::Superseded, None)),
        });
        self.or_rewriting(rewriting.as_ref(), undone)
    }
}

impl Undo {
    /// Whether `installed` is the table after the change. Edits of another program can delete the
    /// fingerprint; another `apply` writes its own.
    #[must_use]
    pub fn is_installed(&self, installed: &Installed) -> bool {
        let checksum = |fingerprint: &Fingerprint| fingerprint.checksum;
        match installed {
            Installed::Absent | Installed::Foreign(_) => false,
            Installed::Ours { fingerprint: None, .. } => true,
            Installed::Ours { fingerprint, .. } => {
                fingerprint.as_ref().map(checksum) == self.applied.as_ref().map(checksum)
            }
        }
    }
}
