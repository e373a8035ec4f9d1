//! What a policy does with a connection, and why: the meaning that the kernel program must have.

use std::fmt;

use crate::flow::{Cast, Flow, Segment};

use crate::port::{Port, PortRange};
use crate::resolve::Resolved;

/// What a policy does with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It leaves with one of `ports`.
    Moved {
        /// The ports that it can get.
        ports: PortRange,
        /// The port that it gets if that is free: its own, when it is allowed and the policy
        /// keeps such ports.
        kept: Option<Port>,
    },
    /// The policy does not speak of it.
    Untouched(Reason),
}

/// Why a policy does not speak of a connection: the first of its conditions that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The destination is a group or a whole network.
    NotUnicast,
    /// It leaves by another interface.
    Interface,
    /// It is of the other address family.
    Family,
    /// It is of another protocol.
    Protocol,
    /// It was open before conntrack saw it.
    MidStream,
    /// Its source port is not one of those that are moved.
    SourcePort,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUnicast => "the destination is multicast or broadcast",
            Self::Interface => "it leaves by an interface out of scope",
            Self::Family => "its address family is out of scope",
            Self::Protocol => "its protocol is out of scope",
            Self::MidStream => "it was open before the policy came",
            Self::SourcePort => "its source port is not one that is moved",
        })
    }
}

impl Resolved {
    /// What the policy does with a connection that opens with `flow`.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Decision {
        match self.first_miss(flow) {
            Some(reason) => Decision::Untouched(reason),
            None => self.translation(flow.source_port()),
        }
    }

    fn first_miss(&self, flow: &Flow) -> Option<Reason> {
        let conditions = [
            (flow.cast() == Cast::Unicast, Reason::NotUnicast),
            (self.egress.contains(flow.out_interface()), Reason::Interface),
            (self.families.contains(flow.family()), Reason::Family),
            (self.protocols.contains(flow.protocol()), Reason::Protocol),
            (self.picks_up(flow.segment()), Reason::MidStream),
            (self.moved.contains(flow.source_port()), Reason::SourcePort),
        ];
        conditions.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
    }

    fn picks_up(&self, segment: Segment) -> bool {
        segment == Segment::Opening || self.pick_up == crate::policy::PickUp::Any
    }

    fn translation(&self, port: Port) -> Decision {
        let keeps = self.choice.keeps_allowed_ports() && self.allowed.contains(port);
        Decision::Moved { ports: self.allowed, kept: keeps.then_some(port) }
    }
}
