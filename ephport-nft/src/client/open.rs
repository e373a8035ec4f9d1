//! Connections that are open when a policy is first installed.
//!
//! Enforcement drops packets by their source port, also those of connections that were opened before there
//! was a policy. So each enforced policy has a set of the numbers of the connections that continue. Nothing may
//! be lost between the reading of these connections and the transaction, so there are two of them:
//!
//! 1. The connections of this host's sockets that conntrack does not know are added to its table.
//! 2. The table is installed. It lets *every* connection pass that conntrack has confirmed, and judges the
//!    first packet of each other one: from here on, no connection begins with another source port.
//! 3. Conntrack's table is read: what it has are the connections of before, and later ones with permitted ports.
//! 4. The set is filled with them, and from now on decides which connections pass.
//!
//! The number of a connection (`ct id`) is that of its entry in conntrack's table, and ends with it. A later
//! entry can get the same number; but its first packet is not confirmed, and so no exception.

use std::borrow::Cow;
use std::collections::HashSet;

use ephport_core::Protocol;
use thiserror::Error;

use super::{Applied, Client, Error, Installed};
use crate::conntrack::{self, ConntrackError};
use crate::netlink::{NetlinkError, Transport};
use crate::nftables::expr::{Ct, Expr};
use crate::nftables::{Element, Origin, SetSpec};
use crate::sock_diag::{self, InetSocket, SockDiagError, SocketState};
use crate::table::TableState;
use crate::table::layout::{FAMILY, is_open_set};
use crate::uapi::{NFT_MSG_GETSET, NFTA_TABLE_NAME, NLM_F_DUMP};

/// The reason why the open connections of this host are not known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Conntrack's table.
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    /// The host's sockets.
    #[error(transparent)]
    Sockets(#[from] SockDiagError),
}

impl From<NetlinkError> for OpenError {
    fn from(error: NetlinkError) -> Self {
        Self::Sockets(error.into())
    }
}

/// The sockets of which a connection may be unknown to conntrack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the table is installed: all.
    Before,
    /// After it: a socket that has exchanged packets began before it, or is known. Others may begin only now.
    After,
}

impl<T: Transport> Client<T> {
    /// Installs `desired`; connections that are open continue.
    pub(super) fn install_around_connections(
        &mut self,
        desired: &TableState,
    ) -> Result<Applied, Error> {
        let (sets, _) = self.settled(Self::open_sets)?;
        let is_first = sets.is_none();
        let known: HashSet<_> = sets.into_iter().flatten().collect();
        // A table that was read back has its connections.
        let is_missing =
            |name: &&str| !known.contains(*name) && desired.open_connections(name) == Some(vec![]);
        let missing: HashSet<_> = open_sets(desired).filter(is_missing).collect();
        if is_first || !missing.is_empty() {
            match self.adopt(Moment::Before) {
                Err(error) if missing.is_empty() => self.not_adopted = Some(error),
                result => result.map_err(Error::OpenConnections)?,
            }
        }
        if missing.is_empty() {
            return self.install(desired);
        }
        let before = self.installed()?;
        let first = self.install(&permissive(desired, &missing))?;
        match self.fill(desired, &missing) {
            Ok(second) if first == Applied::Unchanged => Ok(second),
            Ok(_) => Ok(first),
            Err(error) => {
                match before {
                    Installed::Ours { ruleset, .. } => self.install(&ruleset).map(drop),
                    _ => self.remove().map(drop),
                }
                .map_err(|_| Error::Unconfirmed)?;
                Err(error)
            }
        }
    }

    /// Installs `desired` with all connections that conntrack knows in the sets of these names.
    fn fill(&mut self, desired: &TableState, names: &HashSet<&str>) -> Result<Applied, Error> {
        self.adopt(Moment::After).map_err(Error::OpenConnections)?;
        let ids = self.tracked_ids().map_err(|error| Error::OpenConnections(error.into()))?;
        let mut filled = desired.clone();
        let sets = filled.sets.iter_mut();
        for set in sets.filter(|set| names.contains(set.spec.name.as_str())) {
            set.elements =
                ids.iter().map(|id| Element::new(id.to_be_bytes().into(), None)).collect();
        }
        self.install(&filled)
    }

    /// Adds the connections of this host's sockets to conntrack's table.
    fn adopt(&mut self, moment: Moment) -> Result<(), OpenError> {
        let transport = match &mut self.sockets {
            None => return Ok(()),
            Some(transport) => transport.as_mut().map_err(|error| error.clone())?,
        };
        let mut sockets: Vec<InetSocket> = Vec::new();
        for protocol in sock_diag::protocols() {
            // Only these have a state that shows whether a connection has begun.
            let has_state = [Protocol::Tcp, Protocol::Sctp].contains(&protocol);
            if has_state || moment == Moment::Before {
                match sock_diag::visit(transport, protocol, |socket| sockets.push(socket)) {
                    Err(error @ SockDiagError::NoModule { protocol: Protocol::Sctp }) => {
                        self.not_adopted = Some(error.into());
                    }
                    result => result?,
                }
            }
        }
        if moment == Moment::After {
            sockets.retain(|socket| socket.state != SocketState::SYN_SENT);
        }
        conntrack::adopt(&mut self.transport, &sockets)?;
        Ok(())
    }

    /// The reason why the last [`apply`](Client::apply) could not read this host's sockets, or those of SCTP. Without
    /// enforcement it is no error: UDP connections that conntrack does not know may be translated. That SCTP's are not
    /// known is never one: few policies match SCTP, and few kernels lack `sctp_diag`.
    #[must_use]
    pub fn not_adopted(&self) -> Option<&OpenError> {
        self.not_adopted.as_ref()
    }

    /// The numbers of the connections that conntrack knows now, to be compared with
    /// [`TableState::open_connections`].
    ///
    /// # Errors
    /// [`ConntrackError`]
    pub fn tracked_ids(&mut self) -> Result<HashSet<u32>, ConntrackError> {
        conntrack::tracked_ids(&mut self.transport).map(HashSet::from_iter)
    }

    /// The names of the sets of open connections of the installed table, if there is one.
    fn open_sets(&mut self) -> Result<Option<Vec<String>>, Error> {
        self.sets_that(is_open_set)
    }

    /// The names of the maps of ports of the installed table, if there is one.
    pub(super) fn port_maps(&mut self) -> Result<Option<Vec<String>>, Error> {
        Ok(self.settled(|nft| nft.sets_that(SetSpec::is_port_map))?.0)
    }

    /// The names of the sets with this property of the installed table, if there is one.
    fn sets_that(&mut self, is_so: fn(&SetSpec) -> bool) -> Result<Option<Vec<String>>, Error> {
        let id = self.table.clone();
        let Some(table) = self.read_table_only(FAMILY, id.name())? else { return Ok(None) };
        if !id.owns(&table) {
            return Err(Error::Foreign { table: id.name().into() });
        }
        let origin = Origin { family: FAMILY, table: id.name().as_bytes() };
        let mut names = Vec::new();
        let in_table = [(NFTA_TABLE_NAME, id.name())];
        self.list(NFT_MSG_GETSET, NLM_F_DUMP, FAMILY, &in_table, |_, body| {
            if Origin::peek(body)? == origin
                && let Ok(set) = SetSpec::decode(body)
                && is_so(&set)
            {
                names.push(set.name);
            }
            Ok(())
        })?;
        Ok(Some(names))
    }
}

impl TableState {
    /// The numbers of the connections in the set of this name; `None` if it is no set of open connections.
    #[must_use]
    pub fn open_connections(&self, set: &str) -> Option<Vec<u32>> {
        let set = self.set(set).filter(|set| is_open_set(&set.spec))?;
        let keys = set.elements.iter().filter_map(|element| element.key_bytes()?.try_into().ok());
        Some(keys.map(u32::from_be_bytes).collect())
    }
}

/// The names of the sets of open connections.
fn open_sets(table: &TableState) -> impl Iterator<Item = &str> {
    table.sets.iter().map(|set| &set.spec).filter(|spec| is_open_set(spec)).map(|spec| &*spec.name)
}

/// The same table without these sets: their rules match every confirmed connection.
fn permissive(desired: &TableState, names: &HashSet<&str>) -> TableState {
    let mut table = desired.clone();
    table.sets.retain(|set| !names.contains(set.spec.name.as_str()));
    let is_lookup =
        |expr: &Expr| matches!(expr, Expr::Lookup(lookup) if names.contains(lookup.set.as_str()));
    for rule in &mut table.rules {
        if rule.exprs.iter().any(is_lookup) {
            rule.exprs.retain(|expr| !is_lookup(expr) && *expr != Expr::from(Ct::ID));
        }
    }
    table
}

/// `desired` with the open connections of the installed table.
pub(super) fn carried<'a>(installed: &TableState, desired: &'a TableState) -> Cow<'a, TableState> {
    let is_carried = |name: &str| desired.set(name).is_some_and(|set| set.elements.is_empty());
    let old: Vec<_> = open_sets(installed).filter(|name| is_carried(name)).collect();
    if old.is_empty() {
        return Cow::Borrowed(desired);
    }
    let mut table = desired.clone();
    for set in &mut table.sets {
        if is_open_set(&set.spec) && old.contains(&set.spec.name.as_str()) {
            set.elements =
                installed.set(&set.spec.name).map(|set| set.elements.clone()).unwrap_or_default();
        }
    }
    Cow::Owned(table)
}

#[cfg(test)]
mod tests {
    use ephport_core::{Document, HostFacts};

    use super::*;
    use crate::Plan;
    use crate::netlink::Errno;

    fn table(lines: &str) -> TableState {
        let document: Document = format!(
            "[[policy]]\nname = \"p\"\nout-interfaces = \"any\"\nto-ports = \"49152-61000\"\n{lines}\n"
        )
        .parse()
        .unwrap();
        Plan::new(document.policies(), &HostFacts::default()).unwrap().table
    }

    fn filled(ids: &[u32]) -> TableState {
        let mut table = table("enforce = true");
        let set = table.sets.iter_mut().find(|set| is_open_set(&set.spec)).unwrap();
        set.elements = ids.iter().map(|id| Element::new(id.to_be_bytes().into(), None)).collect();
        table
    }

    #[test]
    fn permissive_rules_match_every_confirmed_connection() {
        let enforced = table("enforce = true");
        let permissive = permissive(&enforced, &["p/open"].into());
        assert_eq!(open_sets(&permissive).count(), 0);
        let text = permissive.to_nft().to_string();
        assert!(text.contains("ct status confirmed counter packets 0 bytes 0 accept"), "{text}");
        // Until the set is filled, the table is not the one that its fingerprint names.
        assert_eq!(permissive.fingerprint(), enforced.fingerprint());
        assert_ne!(permissive.checksum(), enforced.checksum());
    }

    #[test]
    fn only_policies_that_keep_connections_have_a_set() {
        assert_eq!(open_sets(&table("enforce = true")).collect::<Vec<_>>(), ["p/open"]);
        assert_eq!(open_sets(&table("enforce = true\nopen-connections = \"drop\"")).count(), 0);
        assert_eq!(open_sets(&table("")).count(), 0);
    }

    #[test]
    fn connections_are_no_part_of_the_policy() {
        let (none, some) = (filled(&[]), filled(&[7, u32::MAX]));
        assert_eq!(some.open_connections("p/open"), Some(vec![7, u32::MAX]));
        assert_eq!(some.open_connections("p/other"), None);
        assert_eq!(none.normalized(), some.normalized());
        assert_eq!(none.checksum(), some.checksum());
        assert_eq!(crate::plan::drift::drift(&some, &none), []);
        assert_eq!(none.to_nft().to_string(), some.to_nft().to_string());
    }

    #[test]
    fn replacement_carries_the_connections() {
        let carried = carried(&filled(&[7]), &filled(&[])).into_owned();
        assert_eq!(carried.open_connections("p/open"), Some(vec![7]));
        let first = super::carried(&table(""), &filled(&[8])).into_owned();
        assert_eq!(first.open_connections("p/open"), Some(vec![8]));
    }

    #[test]
    fn errors_name_what_cannot_be_read() {
        let errors = [
            OpenError::Conntrack(ConntrackError::NotPermitted),
            OpenError::Sockets(SockDiagError::NoModule { protocol: Protocol::Udp }),
            NetlinkError::Open { errno: Errno::EMFILE }.into(),
        ];
        for error in errors {
            let source = match &error {
                OpenError::Conntrack(source) => source.to_string(),
                OpenError::Sockets(source) => source.to_string(),
            };
            let message = Error::OpenConnections(error).to_string();
            assert_eq!(message, format!("cannot find the connections that are open: {source}"));
        }
    }
}
