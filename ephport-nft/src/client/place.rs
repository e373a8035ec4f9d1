//! Where in a message the kernel finds fault, by name.
//!
//! The kernel answers a refusal with a byte of the message it refuses (`NLMSGERR_ATTR_OFFS`,
//! linux/netlink.h), hardly ever with words. The byte lies in an attribute; we go down to it in the
//! bytes that we sent.

use std::fmt;

use crate::netlink::{Attr, Messages, NfGenMsg, Reader};
use crate::nftables::Hook;
use crate::nftables::expr::{DATA_ATTRIBUTES, Expr, VERDICT_ATTRIBUTES};
use crate::nftables::schema::{Names, names};
use crate::uapi::{
    NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET, NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE,
    NFTA_EXPR_NAME,
};

/// The part of a message that the kernel finds fault with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The innermost attribute, as linux/netfilter/nf_tables.h spells it; `NFTA_LIST_ELEM` for an
    /// item as a whole.
    pub attribute: &'static str,
    /// The item of a list that it stands in.
    pub item: Option<Item>,
}

/// An item of a list, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An expression of a rule.
    Expression {
        /// How many-th of the rule.
        number: usize,
        /// The kernel's name for its kind.
        name: String,
    },
    /// An element of a message of elements.
    Element {
        /// How many-th of the message.
        number: usize,
    },
}

const TABLE: Names = names![NFTA_TABLE_NAME, NFTA_TABLE_FLAGS, NFTA_TABLE_USERDATA];
const CHAIN: Names = names![
    NFTA_CHAIN_TABLE,
    NFTA_CHAIN_NAME,
    NFTA_CHAIN_HANDLE,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_POLICY,
    NFTA_CHAIN_TYPE,
    NFTA_CHAIN_FLAGS,
];
const RULE: Names = names![
    NFTA_RULE_TABLE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_HANDLE,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_POSITION,
    NFTA_RULE_USERDATA,
];
const EXPRESSION: Names = names![NFTA_EXPR_NAME, NFTA_EXPR_DATA];
const SET: Names = names![
    NFTA_SET_TABLE,
    NFTA_SET_NAME,
    NFTA_SET_FLAGS,
    NFTA_SET_KEY_TYPE,
    NFTA_SET_KEY_LEN,
    NFTA_SET_DATA_TYPE,
    NFTA_SET_DATA_LEN,
    NFTA_SET_DESC,
    NFTA_SET_ID,
    NFTA_SET_USERDATA,
];
const SET_DESCRIPTION: Names = names![NFTA_SET_DESC_SIZE];
const ELEMENTS: Names = names![
    NFTA_SET_ELEM_LIST_TABLE,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET_ID,
];
const ELEMENT: Names =
    names![NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_USERDATA,];
const ITEM: Names = names![NFTA_LIST_ELEM];

impl Place {
    /// The place of this byte, counted from the message's header. None in the header, behind the
    /// end, and in a message of another kind.
    #[must_use]
    pub fn at(offset: u32, message: &[u8]) -> Option<Self> {
        let parsed = Messages::new(message).next()?.ok()?;
        let names = attributes(parsed.header.nf_tables_message()?)?;
        let mut body = Reader::new(parsed.body);
        NfGenMsg::read(&mut body).ok()?;
        let start = message.len().checked_sub(body.rest().len())?;
        let offset = usize::try_from(offset).ok()?.checked_sub(start)?;
        let mut place = None;
        descend(body, offset, names, &mut place);
        place
    }

    /// The expression that it is, or stands in.
    #[must_use]
    pub fn expression(&self) -> Option<&str> {
        match &self.item {
            Some(Item::Expression { name, .. }) => Some(name),
            _ => None,
        }
    }
}

/// Goes down to the attribute that holds the byte at `offset` of `attrs`; each one on the way takes
/// the place of the one around it.
fn descend(attrs: Reader<'_>, offset: usize, names: Names, place: &mut Option<Place>) {
    let Some((number, attr, offset)) = holder(attrs, offset) else { return };
    let Some((_, attribute)) = names.iter().find(|(kind, _)| *kind == attr.kind) else { return };
    let around = place.take();
    let item = match around {
        Some(Place { attribute: "NFTA_RULE_EXPRESSIONS", .. }) => {
            Some(Item::Expression { number, name: expression_name(attr) })
        }
        Some(Place { attribute: "NFTA_SET_ELEM_LIST_ELEMENTS", .. }) => {
            Some(Item::Element { number })
        }
        around => around.and_then(|place| place.item),
    };
    let found = place.insert(Place { attribute, item });
    let inner = found.inner();
    if let Some(offset) = offset {
        descend(Reader::new(attr.value), offset, inner, place);
    }
}

impl Place {
    /// The attributes that may stand inside this one.
    fn inner(&self) -> Names {
        match self.attribute {
            "NFTA_CHAIN_HOOK" => Hook::ATTRIBUTES,
            "NFTA_SET_DESC" => SET_DESCRIPTION,
            "NFTA_RULE_EXPRESSIONS" | "NFTA_SET_ELEM_LIST_ELEMENTS" => ITEM,
            "NFTA_LIST_ELEM" if self.expression().is_some() => EXPRESSION,
            "NFTA_LIST_ELEM" => ELEMENT,
            "NFTA_EXPR_DATA" => Expr::attributes(self.expression().unwrap_or_default()),
            "NFTA_SET_ELEM_KEY"
            | "NFTA_SET_ELEM_DATA"
            | "NFTA_CMP_DATA"
            | "NFTA_IMMEDIATE_DATA"
            | "NFTA_RANGE_FROM_DATA"
            | "NFTA_RANGE_TO_DATA"
            | "NFTA_BITWISE_MASK"
            | "NFTA_BITWISE_XOR" => DATA_ATTRIBUTES,
            "NFTA_DATA_VERDICT" => VERDICT_ATTRIBUTES,
            _ => &[],
        }
    }
}

/// The attribute that holds the byte at `offset`, its number from 1, and the byte's offset in its
/// value, unless it lies in the header.
fn holder(attrs: Reader<'_>, offset: usize) -> Option<(usize, Attr<'_>, Option<usize>)> {
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
    let name = attrs.find(|attr| attr.kind == NFTA_EXPR_NAME);
    name.and_then(|attr| attr.string().ok()).unwrap_or_default().into()
}

/// What a message of this kind holds.
fn attributes(message: u16) -> Option<Names> {
    Some(match message {
        NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE => TABLE,
        NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN => CHAIN,
        NFT_MSG_NEWRULE | NFT_MSG_DELRULE => RULE,
        NFT_MSG_NEWSET | NFT_MSG_DELSET => SET,
        NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM => ELEMENTS,
        _ => return None,
    })
}

impl fmt::Display for Place {
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
    use crate::nftables::{Chain, Element, Elements, Rule, SetSpec, Table};
    use crate::plan::operation::Operation;
    use crate::uapi::{NF_ACCEPT, NFPROTO_INET};

    /// The place of each byte of the operation's message, the same ones in a row once.
    fn places(operation: &Operation) -> Vec<String> {
        let message = operation.message(1).unwrap();
        let all = (0u32..).zip(&message).map(|(offset, _)| Place::at(offset, &message));
        let mut texts: Vec<_> =
            all.map(|place| place.map_or("none".into(), |place| place.to_string())).collect();
        texts.dedup();
        texts
    }

    #[test]
    fn every_byte_of_a_rule_has_its_place() {
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
        assert_eq!(places(&Operation::AppendRule(rule)), expected);
    }

    #[test]
    fn every_byte_of_a_base_chain_a_set_and_its_elements_has_its_place() {
        let chain = Chain {
            hook: Some(Hook { number: 4, priority: 90 }),
            policy: Some(NF_ACCEPT),
            kind: Some("nat".into()),
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
        assert_eq!(places(&Operation::AddChain(chain)), hook);
        let set = SetSpec { size: Some(4), id: Some(1), ..SetSpec::new(NFPROTO_INET, "t", "s") };
        let described = [
            "none",
            "attribute NFTA_SET_TABLE",
            "attribute NFTA_SET_NAME",
            "attribute NFTA_SET_ID",
            "attribute NFTA_SET_DESC",
            "attribute NFTA_SET_DESC_SIZE",
        ];
        assert_eq!(places(&Operation::AddSet(set)), described);
        let element = |key| Element::new(vec![0, key], Some(Data::value(&[1])));
        let elements = Elements {
            family: NFPROTO_INET,
            table: "t".into(),
            set: "s".into(),
            set_id: None,
            elements: vec![element(1), element(2)],
        };
        let listed = places(&Operation::AddElements(elements));
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
    fn a_byte_outside_or_in_what_has_no_name_has_no_finer_place() {
        let table = Operation::AddTable(Table::new(NFPROTO_INET, "t")).message(1).unwrap();
        for offset in [0, 19, 28, u32::MAX] {
            assert_eq!(Place::at(offset, &table), None, "{offset}");
        }
        for cut in 0..table.len() {
            assert_eq!(Place::at(20, &table[..cut]), None, "{cut}");
        }
    }
}
