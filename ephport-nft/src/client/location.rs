//! The attribute of a request that the kernel refuses, by name.
//!
//! The kernel answers a refusal with an offset in the refused message (`NLMSGERR_ATTR_OFFS`,
//! linux/netlink.h), rarely with text. The offset is in an attribute, whose name follows from the schema
//! of the object.

use std::fmt;

use crate::netlink::{Attr, Messages, NfGenMsg, Reader};
use crate::nftables::expr::Expr;
use crate::nftables::schema::{Entry, Inside, Schema, schema};
use crate::nftables::{Chain, CtTimeout, Elements, Rule, SetSpec, Table};
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELOBJ, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFTA_EXPR_NAME, NFTA_LIST_ELEM,
};

/// The part of a request that the kernel refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestLocation {
    /// The innermost attribute, as linux/netfilter/nf_tables.h spells it; `NFTA_LIST_ELEM` for a whole
    /// item.
    pub attribute: &'static str,
    /// The item of a list that contains the attribute.
    pub item: Option<Item>,
}

/// An item of a list, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// An expression of a rule.
    Expression {
        /// Its number in the rule.
        number: usize,
        /// The kernel's name for its kind.
        name: String,
    },
    /// An element of a set.
    Element {
        /// Its number in the message.
        number: usize,
    },
}

impl RequestLocation {
    /// The location of the byte at `offset` from the start of the message. `None` in the header, after the
    /// end, and in a message of another kind.
    #[must_use]
    pub fn at(offset: u32, message: &[u8]) -> Option<Self> {
        let parsed = Messages::new(message).next()?.ok()?;
        let schema = message_schema(parsed.header.nf_tables_message()?)?;
        let mut body = Reader::new(parsed.body);
        NfGenMsg::decode(&mut body).ok()?;
        let start = message.len().checked_sub(body.rest().len())?;
        let offset = usize::try_from(offset).ok()?.checked_sub(start)?;
        let mut location = None;
        descend(body, offset, schema, None, &mut location);
        location
    }

    /// The name of the expression that it is, or is in.
    #[must_use]
    pub fn expression(&self) -> Option<&str> {
        match &self.item {
            Some(Item::Expression { name, .. }) => Some(name),
            _ => None,
        }
    }
}

/// Refines the location down to the innermost attribute that contains the byte at `offset` of `attrs`.
fn descend(
    attrs: Reader<'_>,
    offset: usize,
    schema: &[Entry],
    item: Option<&Item>,
    location: &mut Option<RequestLocation>,
) {
    let Some((_, attr, offset)) = containing(attrs, offset) else { return };
    let Some(entry) = schema.iter().find(|entry| entry.attribute_type == attr.attribute_type)
    else {
        return;
    };
    *location = Some(RequestLocation { attribute: entry.name, item: item.cloned() });
    let Some(offset) = offset else { return };
    let inside = Reader::new(attr.value);
    match entry.inside {
        Inside::Value => {}
        Inside::Attributes(schema) => descend(inside, offset, schema, item, location),
        Inside::Expressions | Inside::Elements(_) => {
            descend_list(inside, offset, entry.inside, location);
        }
    }
}

/// The same in a list of items.
fn descend_list(
    list: Reader<'_>,
    offset: usize,
    inside: Inside,
    location: &mut Option<RequestLocation>,
) {
    let Some((number, attr, offset)) = containing(list, offset) else { return };
    if attr.attribute_type != NFTA_LIST_ELEM {
        return;
    }
    let item = match inside {
        Inside::Expressions => Item::Expression { number, name: expression_name(attr) },
        _ => Item::Element { number },
    };
    *location = Some(RequestLocation { attribute: "NFTA_LIST_ELEM", item: Some(item.clone()) });
    let Some(offset) = offset else { return };
    let attrs = Reader::new(attr.value);
    match (&item, inside) {
        (Item::Expression { name, .. }, _) => {
            let schema: &[Entry] = schema![
                NFTA_EXPR_NAME: Inside::Value,
                NFTA_EXPR_DATA: Inside::Attributes(Expr::schema(name)),
            ];
            descend(attrs, offset, schema, Some(&item), location);
        }
        (_, Inside::Elements(schema)) => descend(attrs, offset, schema, Some(&item), location),
        _ => {}
    }
}

/// The attribute that contains the byte at `offset`, its number from 1, and the byte's offset in its
/// value, unless it is in the header.
fn containing(attrs: Reader<'_>, offset: usize) -> Option<(usize, Attr<'_>, Option<usize>)> {
    let mut attrs = attrs.attrs();
    let len = attrs.rest().len();
    for number in 1.. {
        let start = len - attrs.rest().len();
        let attr = attrs.next()?.ok()?;
        if offset < len - attrs.rest().len() {
            let header = Attr::HEADER_LEN;
            return Some((number, attr, offset.checked_sub(start + header)));
        }
    }
    None
}

fn expression_name(element: Attr<'_>) -> String {
    let mut attrs = element.nested().map_while(Result::ok);
    let name = attrs.find(|attr| attr.attribute_type == NFTA_EXPR_NAME);
    name.and_then(|attr| attr.string().ok()).unwrap_or_default().into()
}

/// The attributes of a message of this kind.
fn message_schema(message: u16) -> Option<Schema> {
    Some(match message {
        NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE => Table::SCHEMA,
        NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => Chain::SCHEMA,
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE => Rule::SCHEMA,
        NFT_MSG_NEWSET | NFT_MSG_DELSET => SetSpec::SCHEMA,
        NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM => Elements::SCHEMA,
        NFT_MSG_NEWOBJ | NFT_MSG_DELOBJ => CtTimeout::SCHEMA,
        _ => return None,
    })
}

impl fmt::Display for RequestLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attribute, item } = self;
        if *attribute != "NFTA_LIST_ELEM" {
            write!(f, "attribute {attribute}")?;
            f.write_str(if item.is_some() { " of " } else { "" })?;
        }
        match item {
            Some(Item::Expression { number, name }) => write!(f, "expression {number}, {name}"),
            Some(Item::Element { number }) => write!(f, "element {number}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::expr::{Cmp, CmpOp, Data, Immediate, Masq, Register, Verdict};
    use crate::nftables::{Chain, Element, Elements, Hook, Rule, SetSpec, Table};
    use crate::plan::operation::Operation;
    use crate::uapi::{NF_ACCEPT, NFPROTO_INET};

    /// The locations of all bytes of the operation's message, each once.
    fn locations(operation: &Operation) -> Vec<String> {
        let message = operation.message(1).unwrap();
        let all = (0u32..).zip(&message).map(|(offset, _)| RequestLocation::at(offset, &message));
        let mut texts: Vec<_> = all
            .map(|location| location.map_or("none".into(), |location| location.to_string()))
            .collect();
        texts.dedup();
        texts
    }

    #[test]
    fn every_byte_of_a_rule_has_a_location() {
        let exprs = vec![
            Cmp::new(CmpOp::Eq, &[6]).into(),
            Masq { flags: Some(2), proto_min: Some(Register::R1), proto_max: None }.into(),
            Immediate::verdict(Verdict::Goto("c".into())).into(),
        ];
        let rule = Rule::new(NFPROTO_INET, "t", "c", exprs);
        let expected = "none
            attribute NFTA_RULE_TABLE
            attribute NFTA_RULE_CHAIN
            attribute NFTA_RULE_EXPRESSIONS
            expression 1, cmp
            attribute NFTA_EXPR_NAME of expression 1, cmp
            attribute NFTA_EXPR_DATA of expression 1, cmp
            attribute NFTA_CMP_SREG of expression 1, cmp
            attribute NFTA_CMP_OP of expression 1, cmp
            attribute NFTA_CMP_DATA of expression 1, cmp
            attribute NFTA_DATA_VALUE of expression 1, cmp
            expression 2, masq
            attribute NFTA_EXPR_NAME of expression 2, masq
            attribute NFTA_EXPR_DATA of expression 2, masq
            attribute NFTA_MASQ_FLAGS of expression 2, masq
            attribute NFTA_MASQ_REG_PROTO_MIN of expression 2, masq
            expression 3, immediate
            attribute NFTA_EXPR_NAME of expression 3, immediate
            attribute NFTA_EXPR_DATA of expression 3, immediate
            attribute NFTA_IMMEDIATE_DREG of expression 3, immediate
            attribute NFTA_IMMEDIATE_DATA of expression 3, immediate
            attribute NFTA_DATA_VERDICT of expression 3, immediate
            attribute NFTA_VERDICT_CODE of expression 3, immediate
            attribute NFTA_VERDICT_CHAIN of expression 3, immediate";
        let expected: Vec<_> = expected.lines().map(str::trim).collect();
        assert_eq!(locations(&Operation::AppendRule(rule)), expected);
    }

    #[test]
    fn every_encoded_byte_has_a_location() {
        let chain = Chain {
            hook: Some(Hook::new(4, 90)),
            policy: Some(NF_ACCEPT),
            chain_type: Some("nat".into()),
            ..Chain::regular(NFPROTO_INET, "t", "c")
        };
        let hook = [
            "none",
            "attribute NFTA_CHAIN_TABLE",
            "attribute NFTA_CHAIN_NAME",
            "attribute NFTA_CHAIN_HOOK",
            "attribute NFTA_HOOK_HOOKNUM",
            "attribute NFTA_HOOK_PRIORITY",
            "attribute NFTA_CHAIN_POLICY",
            "attribute NFTA_CHAIN_TYPE",
        ];
        assert_eq!(locations(&Operation::AddChain(chain)), hook);
        let set =
            SetSpec { id: Some(1), ..SetSpec::new(NFPROTO_INET, "t", "s").with_size(Some(4)) };
        let described = [
            "none",
            "attribute NFTA_SET_TABLE",
            "attribute NFTA_SET_NAME",
            "attribute NFTA_SET_ID",
            "attribute NFTA_SET_DESC",
            "attribute NFTA_SET_DESC_SIZE",
        ];
        assert_eq!(locations(&Operation::AddSet(set)), described);
        let element = |key| Element::new(vec![0, key], Some(Data::value(&[1])));
        let spec = SetSpec::new(NFPROTO_INET, "t", "s");
        let elements = Elements::new(&spec, vec![element(1), element(2)]);
        let listed = locations(&Operation::AddElements(elements));
        assert_eq!(
            listed[3..6],
            [
                "attribute NFTA_SET_ELEM_LIST_ELEMENTS",
                "element 1",
                "attribute NFTA_SET_ELEM_KEY of element 1",
            ]
        );
        assert_eq!(listed.last().unwrap(), "attribute NFTA_DATA_VALUE of element 2");
    }

    #[test]
    fn a_byte_outside_of_attributes_has_no_location() {
        let table = Operation::AddTable(Table::new(NFPROTO_INET, "t")).message(1).unwrap();
        for offset in [0, 19, 28, u32::MAX] {
            assert_eq!(RequestLocation::at(offset, &table), None, "{offset}");
        }
        for cut in 0..table.len() {
            assert_eq!(RequestLocation::at(20, &table[..cut]), None, "{cut}");
        }
    }
}
