//! Programs with one change. What is changed is the encoding: each attribute of each expression and
//! element, whatever it means, so that no operand can be forgotten.

use ephport_nft::TableState;
use ephport_nft::netlink::{Attr, Reader, Writer};
use ephport_nft::nftables::Element;
use ephport_nft::nftables::expr::Expr;
use ephport_nft::uapi::{NF_ACCEPT, NF_DROP, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM};

/// Where a program is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// A rule, by its index in the ruleset: all of it.
    Rule(usize),
    /// One of its expressions.
    Expr(usize, usize),
    /// An element, by the index of its set and its own.
    Element(usize, usize),
}

/// A program with one change.
pub(crate) struct Mutant {
    pub ruleset: TableState,
    pub site: Site,
}

/// Every rule, expression and element omitted, and every attribute of them changed.
pub(crate) fn of(ruleset: &TableState) -> Vec<Mutant> {
    let chains = ruleset.chains.iter().filter(|chain| chain.hook.is_none());
    let chains = chains.map(|chain| chain.name.clone());
    let names: Vec<_> =
        chains.chain(ruleset.sets.iter().map(|filled| filled.spec.name.clone())).collect();
    let mutant = |site, change: &dyn Fn(&mut TableState)| {
        let mut ruleset = ruleset.clone();
        change(&mut ruleset);
        Mutant { ruleset, site }
    };
    let mut all = Vec::new();
    for (r, rule) in ruleset.rules.iter().enumerate() {
        all.push(mutant(Site::Rule(r), &|it| drop(it.rules.remove(r))));
        for (e, expr) in rule.exprs.iter().enumerate() {
            let site = Site::Expr(r, e);
            all.push(mutant(site, &|it| drop(it.rules[r].exprs.remove(e))));
            for is in exprs(expr, &names) {
                all.push(mutant(site, &|it| it.rules[r].exprs[e] = is.clone()));
            }
        }
    }
    for (s, filled) in ruleset.sets.iter().enumerate() {
        for (e, element) in filled.elements.to_vec().iter().enumerate() {
            let site = Site::Element(s, e);
            let change = |is: &dyn Fn(&mut Vec<Element>)| {
                mutant(site, &|it| it.sets[s].elements.edit(|elements| is(elements)))
            };
            all.push(change(&|elements| drop(elements.remove(e))));
            for is in elements(element, &names) {
                all.push(change(&|elements| elements[e] = is.clone()));
            }
        }
    }
    all
}

impl Mutant {
    /// The rules that are changed, or that look the changed set up.
    pub(crate) fn rules(&self, was: &TableState) -> Vec<usize> {
        match self.site {
            Site::Rule(r) | Site::Expr(r, _) => vec![r],
            Site::Element(s, _) => {
                let name = &was.sets[s].spec.name;
                let asks = |expr: &Expr| matches!(expr, Expr::Lookup(it) if it.set == *name);
                let asks = |r: &usize| was.rules[*r].exprs.iter().any(asks);
                (0..was.rules.len()).filter(asks).collect()
            }
        }
    }

    /// What is changed, for a person.
    pub(crate) fn describe(&self, was: &TableState) -> String {
        let of_rules = |r: usize| format!("{} rule {r}", was.rules[r].chain);
        match self.site {
            Site::Rule(r) => format!("{} dropped: {}", of_rules(r), was.rules[r]),
            Site::Expr(r, e) => {
                let (old, new) = (&was.rules[r].exprs, &self.ruleset.rules[r].exprs);
                let is = if new.len() < old.len() { None } else { new.get(e) };
                let (was, is) = (format!("{:?}", old[e]), format!("{is:?}"));
                format!("{}: {was} -> {is}", of_rules(r))
            }
            Site::Element(s, e) => {
                let [old, new] = [was, &self.ruleset].map(|table| table.sets[s].elements.to_vec());
                let is = if new.len() < old.len() { None } else { new.get(e) };
                format!("{}: {:?} -> {is:?}", was.sets[s].spec.name, old[e])
            }
        }
    }
}

fn exprs(expr: &Expr, names: &[String]) -> Vec<Expr> {
    let bytes = encoded(|w| expr.encode(w));
    let element = first(&bytes);
    let mut parts = element.nested().map(|part| part.expect("an attribute"));
    let (name, data) = (parts.next().expect("a name"), parts.next().expect("operands"));
    let with = |data: Vec<u8>| {
        let bytes = encoded(|w| {
            w.bytes(NFTA_EXPR_NAME, name.value);
            w.bytes(NFTA_EXPR_DATA, &data);
        });
        Expr::decode(Attr { attribute_type: NFTA_LIST_ELEM, value: &bytes })
            .expect("an expression, or opaque")
    };
    let others = changed(data.value, names).into_iter().map(with);
    others.filter(|other| other != expr).collect()
}

fn elements(element: &Element, names: &[String]) -> Vec<Element> {
    let bytes = encoded(|w| element.encode(w));
    let read = |bytes: Vec<u8>| {
        Element::decode(Attr { attribute_type: NFTA_LIST_ELEM, value: &bytes }).ok()
    };
    let others = changed(first(&bytes).value, names).into_iter().filter_map(read);
    others.filter(|other| other != element).collect()
}

fn encoded(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().expect("it fits")
}

fn first(bytes: &[u8]) -> Attr<'_> {
    Reader::new(bytes).attrs().next().expect("one attribute").expect("a whole one")
}

/// Runs of attributes with one of them omitted or changed. One whose value reads as attributes is
/// a run itself.
fn changed(run: &[u8], names: &[String]) -> Vec<Vec<u8>> {
    let attrs: Vec<_> = Reader::new(run).attrs().map(|attr| attr.expect("an attribute")).collect();
    let mut all = Vec::new();
    for at in 0..attrs.len() {
        let mut inner: Vec<Attr<'_>> = attrs[at].nested().map_while(Result::ok).collect();
        let whole: usize =
            inner.iter().map(|attr| (attr.value.len() + 4).next_multiple_of(4)).sum();
        inner.retain(|_| whole == attrs[at].value.len().next_multiple_of(4));
        let others = match inner.as_slice() {
            [] => others(attrs[at].value, names),
            _ => changed(attrs[at].value, names),
        };
        let others: Vec<_> = others.iter().map(|value| Some(value.as_slice())).collect();
        for other in others.into_iter().chain([None]) {
            all.push(encoded(|w| {
                for (i, attr) in attrs.iter().enumerate() {
                    let value = if i == at { other } else { Some(attr.value) };
                    if let Some(value) = value {
                        w.bytes(attr.attribute_type, value);
                    }
                }
            }));
        }
    }
    all
}

/// Other values of an attribute: other names for the name of a set or chain; else the numbers around
/// it, those with another bit, and the value without its last byte.
fn others(value: &[u8], names: &[String]) -> Vec<Vec<u8>> {
    let terminated = |name: &String| [name.as_bytes(), &[0]].concat();
    if names.iter().any(|name| terminated(name) == value) {
        return names.iter().map(terminated).filter(|other| other != value).collect();
    }
    let last = value.len() - 1;
    let flip = |byte: usize, bit: u8| {
        let mut other = value.to_vec();
        other[byte] ^= 1 << bit;
        other
    };
    let mut others = vec![flip(0, 7), stepped(value, 1), stepped(value, -1)];
    // A small number may be flags.
    if value.len() == 1 || value.len() == 4 && value[..last] == [0; 3] {
        others.extend((1..5).map(|bit| flip(last, bit)));
    }
    // A verdict; others of these would be refused.
    if value.len() == 4 && value[0] == 0xff {
        others.extend([NF_DROP, NF_ACCEPT].map(|number| number.to_be_bytes().to_vec()));
    }
    others.extend((last > 0).then(|| value[..last].to_vec()));
    others.sort();
    others.dedup();
    others.retain(|other| other != value);
    others
}

/// The number above or below, of big-endian bytes.
fn stepped(value: &[u8], by: i8) -> Vec<u8> {
    let mut other = value.to_vec();
    for byte in other.iter_mut().rev() {
        let (next, carries) = byte.overflowing_add_signed(by);
        *byte = next;
        if !carries {
            break;
        }
    }
    other
}
