//! Plans as serde writes them: the policies, the facts of the host and the identity of the table. A plan that is read
//! is made from these again, so that its table is always what the policies mean.

use ephport_core::{HostFacts, Policy};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};

use super::Plan;
use crate::table::{TableId, TableState};

#[derive(serde::Serialize, serde::Deserialize)]
struct Parts {
    policies: Vec<Policy>,
    facts: HostFacts,
    #[serde(default)]
    table: TableId,
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let policies = self.resolved.iter().map(|resolved| resolved.policy.clone()).collect();
        let table = id(&self.table).ok_or_else(|| S::Error::custom("the table has no owner"))?;
        Parts { policies, facts: self.facts.clone(), table }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { policies, facts, table } = Parts::deserialize(deserializer)?;
        let plan = Self::new(&policies, &facts).map_err(de::Error::custom)?;
        if table == TableId::default() {
            return Ok(plan);
        }
        plan.in_table(&table).map_err(de::Error::custom)
    }
}

/// The identity of a table that a plan has.
fn id(table: &TableState) -> Option<TableId> {
    let owner = crate::table::layout::owner(&table.table)?;
    let id = TableId::new(&table.table.name, &owner).ok()?;
    let mut hooks =
        table.chains.iter().filter(|chain| chain.name == crate::table::layout::POSTROUTING);
    let priority = hooks.next()?.hook.as_ref()?.priority;
    id.with_priority(priority).ok()
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Id {
    name: String,
    owner: String,
    priority: i32,
}

impl Serialize for TableId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, owner) = (self.name().into(), self.owner().into());
        Id { name, owner, priority: self.priority() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TableId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Id { name, owner, priority } = Id::deserialize(deserializer)?;
        let id = Self::new(&name, &owner).and_then(|id| id.with_priority(priority));
        id.map_err(de::Error::custom)
    }
}
