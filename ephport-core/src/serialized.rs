//! Values as serde writes them: a value with a text is that text, so that a document of another program reads like
//! a policy file, and a value is checked when it is read. A port is a number.

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::allocation::block_table::BlockTable;
use crate::allocation::blocks::{Block, BlockPlan};
use crate::allocation::explicit_blocks::ExplicitBlocks;
use crate::allocation::map_e::MapE;
use crate::flow::Flow;
use crate::net::address_range::AddressRange;
use crate::net::family::{Families, Family};
use crate::net::interface::{InterfaceName, InterfacePattern, InterfacePatterns, Interfaces};
use crate::net::mark::Mark;
use crate::net::port::{Port, PortRange};
use crate::net::port_set::PortSet;
use crate::net::protocol::{Protocol, Protocols};
use crate::policy::scope::{Ipsec, Origin, OutInterfaces};
use crate::policy::selection::Distribution;
use crate::policy::{
    Address, ExpectedConnections, OpenConnections, PickUp, PolicyName, Timeouts, Timer,
};

macro_rules! texts {
    ($($type:ty),+ $(,)?) => {
        $(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                }
            }
        )+
    };
}

texts!(
    Address,
    AddressRange,
    Block,
    BlockPlan,
    BlockTable,
    Distribution,
    ExpectedConnections,
    ExplicitBlocks,
    Families,
    Family,
    Flow,
    InterfaceName,
    InterfacePattern,
    InterfacePatterns,
    Interfaces,
    Ipsec,
    MapE,
    Mark,
    OpenConnections,
    Origin,
    OutInterfaces,
    PickUp,
    PolicyName,
    PortRange,
    PortSet,
    Protocol,
    Protocols,
    Timeouts,
    Timer,
);

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.get())
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u16::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
