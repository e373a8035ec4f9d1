//! Timeouts of connections (`NFTA_OBJ_*` of the type `NFT_OBJECT_CT_TIMEOUT`), which rules assign by name
//! (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink_cttimeout.h).
//!
//! The kernel changes no object: other timeouts are another object. It fills the states without a timeout with
//! those of the network namespace at that time, and lists them all.

use ephport_core::{ConnectionTimeouts, Protocol, TimeoutState};

use super::schema::{Attribute, Inside, attributes, required};
use crate::netlink::{Attr, CodecError, Writer};
use crate::uapi::{
    CTA_TIMEOUT_TCP_CLOSE, CTA_TIMEOUT_TCP_SYN_SENT, CTA_TIMEOUT_TCP_TIME_WAIT,
    CTA_TIMEOUT_UDP_REPLIED, CTA_TIMEOUT_UDP_UNREPLIED, NFPROTO_INET, NFT_OBJECT_CT_TIMEOUT,
};

attributes! {
    /// Timeouts of connections of one protocol.
    message CtTimeout("ct timeout", family) {
        /// The table's name.
        table: String = NFTA_OBJ_TABLE,
        /// Its name, unique in its table and type.
        name: String = NFTA_OBJ_NAME,
        /// The kernel's number for it.
        handle: Option<u64> = NFTA_OBJ_HANDLE,
        /// Its type.
        object_type: TimeoutType = NFTA_OBJ_TYPE,
        /// Protocol and timeouts; a request to delete has none.
        data: Option<TimeoutData> = NFTA_OBJ_DATA,
    } other, padding NFTA_OBJ_PAD, bookkeeping NFTA_OBJ_USE
}

attributes! {
    /// The data of such an object.
    TimeoutData("ct timeout data") {
        /// The family that nft prints, an `NFPROTO_*`; the kernel disregards it.
        l3proto: Option<u16> = NFTA_CT_TIMEOUT_L3PROTO,
        /// The transport protocol.
        l4proto: u8 = NFTA_CT_TIMEOUT_L4PROTO,
        /// The timeouts.
        values: TimeoutValues = NFTA_CT_TIMEOUT_DATA,
    }
}

/// `NFT_OBJECT_CT_TIMEOUT`: objects of another type are not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutType;

/// Timeouts in seconds, each after the number of its state, a `CTA_TIMEOUT_*` of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeoutValues(pub Vec<(u16, u32)>);

required!(TimeoutType, TimeoutValues);

impl Attribute for TimeoutType {
    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.u32_be(attribute_type, NFT_OBJECT_CT_TIMEOUT);
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        match attr.u32_be()? {
            NFT_OBJECT_CT_TIMEOUT => Ok(Self),
            value => Err(CodecError::Value { what: "object type", value }),
        }
    }
}

impl Attribute for TimeoutValues {
    const INSIDE: Inside = Inside::Value;

    fn encode(&self, w: &mut Writer, attribute_type: u16) {
        w.nested(attribute_type, |w| {
            self.0.iter().for_each(|(state, seconds)| w.u32_be(*state, *seconds));
        });
    }

    fn decode(attr: Attr<'_>) -> Result<Self, CodecError> {
        let value = |attr: Result<Attr<'_>, CodecError>| {
            let attr = attr?;
            Ok((attr.attribute_type, attr.u32_be()?))
        };
        attr.nested().map(value).collect::<Result<_, _>>().map(Self)
    }
}

/// The kernel's number of a state.
const fn number(state: TimeoutState) -> Option<u16> {
    Some(match state {
        TimeoutState::Unreplied => CTA_TIMEOUT_UDP_UNREPLIED,
        TimeoutState::Replied => CTA_TIMEOUT_UDP_REPLIED,
        TimeoutState::SynSent => CTA_TIMEOUT_TCP_SYN_SENT,
        TimeoutState::TimeWait => CTA_TIMEOUT_TCP_TIME_WAIT,
        TimeoutState::Close => CTA_TIMEOUT_TCP_CLOSE,
        _ => return None,
    })
}

impl CtTimeout {
    /// An object with only its names.
    #[must_use]
    pub fn named(family: u8, table: &str, name: &str) -> Self {
        let (table, name, other) = (table.into(), name.into(), Vec::new());
        Self { family, table, name, handle: None, object_type: TimeoutType, data: None, other }
    }

    /// The object with these timeouts, of connections of both families.
    #[must_use]
    pub fn new(family: u8, table: &str, name: &str, timeouts: &ConnectionTimeouts) -> Self {
        let values = timeouts.states().iter();
        let values = values.filter_map(|(state, seconds)| Some((number(*state)?, *seconds)));
        let data = timeouts.protocol().map(|protocol| TimeoutData {
            l3proto: Some(NFPROTO_INET.into()),
            l4proto: protocol.number(),
            values: TimeoutValues(values.collect()),
        });
        Self { data, ..Self::named(family, table, name) }
    }

    /// The protocol, if policies have timeouts of it.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        Protocol::from_number(self.data.as_ref()?.l4proto)
    }

    /// The timeouts that policies have.
    #[must_use]
    pub fn timeouts(&self) -> ConnectionTimeouts {
        let states = TimeoutState::ALL.into_iter();
        let states = states.filter(|state| self.protocol() == Some(state.protocol()));
        ConnectionTimeouts::new(states.filter_map(|state| Some((state, self.seconds(state)?))))
    }

    fn seconds(&self, state: TimeoutState) -> Option<u32> {
        let TimeoutValues(values) = &self.data.as_ref()?.values;
        let found = values.iter().find(|(known, _)| Some(*known) == number(state));
        found.map(|(_, seconds)| *seconds)
    }

    /// The object without the kernel's own number, and with the timeouts of these states only: the kernel adds
    /// the others.
    #[must_use]
    pub(crate) fn normalized(&self, asked_for: Option<&ConnectionTimeouts>) -> Self {
        let mut object = Self { handle: None, ..self.clone() };
        if let (Some(data), Some(asked_for)) = (&mut object.data, asked_for) {
            let is_asked_for = |value: &u16| {
                asked_for.states().iter().any(|(state, _)| number(*state) == Some(*value))
            };
            data.values.0.retain(|(state, _)| is_asked_for(state));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(object: &CtTimeout) -> Vec<u8> {
        let mut w = Writer::new();
        object.encode(&mut w);
        w.finish().unwrap()
    }

    #[test]
    fn timeouts_survive_encoding() {
        let timeouts =
            ConnectionTimeouts::new([(TimeoutState::Close, 3), (TimeoutState::SynSent, 20)]);
        let object = CtTimeout::new(NFPROTO_INET, "t", "a/tcp", &timeouts);
        let read = CtTimeout::decode(&encoded(&object)).unwrap();
        assert_eq!(read, object);
        assert_eq!(read.timeouts(), timeouts);
        let mut listed = object.clone();
        listed.handle = Some(4);
        listed.data.as_mut().unwrap().values.0.push((CTA_TIMEOUT_TCP_TIME_WAIT, 120));
        assert_eq!(listed.normalized(Some(&timeouts)), object);
        assert_ne!(listed.normalized(None), object);
    }

    #[test]
    fn objects_of_other_types_are_not_decoded() {
        let object = CtTimeout::named(NFPROTO_INET, "t", "a");
        let bytes = encoded(&object);
        let at = bytes.windows(4).rposition(|word| word == NFT_OBJECT_CT_TIMEOUT.to_be_bytes());
        let mut other = bytes.clone();
        other[at.unwrap() + 3] = 1;
        assert!(CtTimeout::decode(&bytes).is_ok() && CtTimeout::decode(&other).is_err());
    }
}
