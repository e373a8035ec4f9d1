//! Listing objects: `nf_tables_dump_tables` and so on. A dump is sent in slices; between two of them the
//! ruleset may change.

use ephport_nft::Errno;
use ephport_nft::netlink::{Header, NfGenMsg, Writer};
use ephport_nft::uapi::{
    NFPROTO_UNSPEC, NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE, NFT_MSG_GETOBJ, NFT_MSG_GETRULE,
    NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWFLOWTABLE,
    NFT_MSG_NEWOBJ, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE,
    NFT_TABLE_F_OWNER, NFTA_CHAIN_FLAGS, NFTA_CHAIN_HANDLE, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_CHAIN_USE, NFTA_DATA_VALUE,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_LIST_ELEM, NFTA_OBJ_DATA, NFTA_OBJ_HANDLE,
    NFTA_OBJ_NAME, NFTA_OBJ_TABLE, NFTA_OBJ_TYPE, NFTA_OBJ_USE, NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_POSITION, NFTA_RULE_TABLE,
    NFTA_RULE_USERDATA, NFTA_SET_DATA_LEN, NFTA_SET_DATA_TYPE, NFTA_SET_DESC, NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_FLAGS, NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_USERDATA, NFTA_SET_FLAGS, NFTA_SET_HANDLE,
    NFTA_SET_KEY_LEN, NFTA_SET_KEY_TYPE, NFTA_SET_NAME, NFTA_SET_TABLE, NFTA_SET_USERDATA,
    NFTA_TABLE_FLAGS, NFTA_TABLE_HANDLE, NFTA_TABLE_NAME, NFTA_TABLE_OWNER, NFTA_TABLE_USE,
    NFTA_TABLE_USERDATA, NLM_F_DUMP_INTR, NLM_F_MULTI, NLMSG_DONE,
};

use super::NFTA_CHAIN_USERDATA;
use super::request::{Answer, Request};
use super::ruleset::{Chain, Element, Object, Rule, Ruleset, Set, Table};

/// The elements of one message, as many as the kernel puts in a datagram at most.
const ELEMENTS: usize = 400;

/// The kind of the objects to list, and the names that narrow the list.
#[derive(Clone, Debug)]
pub(super) struct Query {
    kind: u16,
    family: u8,
    table: Option<Vec<u8>>,
    /// The chain of rules, or the set of elements.
    part: Option<Vec<u8>>,
}

/// A dump in progress.
#[derive(Debug)]
pub(super) struct Dump {
    header: Header,
    query: Query,
    /// The bodies of the objects, of the ruleset with this version.
    bodies: Vec<Vec<u8>>,
    version: u64,
    /// The count of objects that were sent.
    pub(super) sent: usize,
    generation: u32,
}

impl Query {
    /// The query of a request.
    pub(super) fn of(kind: u16, request: &Request<'_>) -> Self {
        let part = match kind {
            NFT_MSG_GETRULE => Some(NFTA_RULE_CHAIN),
            NFT_MSG_GETSETELEM => Some(NFTA_SET_ELEM_LIST_SET),
            _ => None,
        };
        let table = match kind {
            NFT_MSG_GETTABLE | NFT_MSG_GETCHAIN => None,
            // The number of the table's name is the same in all objects.
            _ => request.name(NFTA_RULE_TABLE).map(<[u8]>::to_vec),
        };
        let part = part.and_then(|part| request.name(part)).map(<[u8]>::to_vec);
        Self { kind, family: request.family, table, part }
    }

    /// The type of the messages that list the objects.
    fn answer(&self) -> u16 {
        match self.kind {
            NFT_MSG_GETTABLE => NFT_MSG_NEWTABLE,
            NFT_MSG_GETCHAIN => NFT_MSG_NEWCHAIN,
            NFT_MSG_GETRULE => NFT_MSG_NEWRULE,
            NFT_MSG_GETSET => NFT_MSG_NEWSET,
            NFT_MSG_GETSETELEM => NFT_MSG_NEWSETELEM,
            NFT_MSG_GETOBJ => NFT_MSG_NEWOBJ,
            _ => NFT_MSG_NEWFLOWTABLE,
        }
    }

    /// The objects' bodies.
    fn list(&self, ruleset: &Ruleset) -> Answer<Vec<Vec<u8>>> {
        let named = self.table.as_deref();
        let must_exist = [NFT_MSG_GETSET, NFT_MSG_GETSETELEM].contains(&self.kind);
        if let Some(name) = named.filter(|_| must_exist) {
            ruleset.get(self.family, name).ok_or(Errno::ENOENT)?;
        }
        let tables = ruleset.tables.iter().filter(|table| {
            (self.family == NFPROTO_UNSPEC || table.family == self.family)
                && named.is_none_or(|name| table.name == name)
        });
        let mut bodies = Bodies::default();
        for table in tables {
            self.list_table(table, &mut bodies)?;
        }
        Ok(bodies.0)
    }

    fn list_table(&self, table: &Table, bodies: &mut Bodies) -> Answer {
        match self.kind {
            NFT_MSG_GETTABLE => bodies.push(table, |w| write_table(w, table)),
            NFT_MSG_GETCHAIN => {
                let chains = table.chains.iter();
                chains.for_each(|chain| bodies.push(table, |w| write_chain(w, table, chain)));
            }
            NFT_MSG_GETRULE => {
                let is_asked =
                    |chain: &&Chain| self.part.as_ref().is_none_or(|name| chain.name == *name);
                for chain in table.chains.iter().filter(is_asked) {
                    let mut before = None;
                    for rule in &chain.rules {
                        bodies.push(table, |w| write_rule(w, table, chain, rule, before));
                        before = Some(rule.handle);
                    }
                }
            }
            NFT_MSG_GETSET => {
                table.sets.iter().for_each(|set| bodies.push(table, |w| write_set(w, table, set)));
            }
            NFT_MSG_GETSETELEM => {
                let name = self.part.as_deref().unwrap_or_default();
                let set = table.set(name).ok_or(Errno::ENOENT)?;
                for part in set.elements.chunks(ELEMENTS) {
                    bodies.push(table, |w| write_elements(w, table, set, part));
                }
            }
            NFT_MSG_GETOBJ => {
                let objects = table.objects.iter();
                objects.for_each(|object| bodies.push(table, |w| write_object(w, table, object)));
            }
            NFT_MSG_GETFLOWTABLE => {}
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(())
    }
}

/// A moment of the kernel: its ruleset with a version, and its generation.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) version: u64,
    pub(super) generation: u32,
}

impl Dump {
    pub(super) fn new(header: Header, query: Query, now: Moment<'_>) -> Answer<Self> {
        let bodies = query.list(now.ruleset)?;
        let (version, generation) = (now.version, now.generation);
        Ok(Self { header, query, bodies, version, sent: 0, generation })
    }

    /// The next slice of up to `count` messages, and whether it ends the dump.
    pub(super) fn slice(&mut self, count: usize, now: Moment<'_>) -> (Vec<u8>, bool) {
        if self.version != now.version {
            // An object that is gone is the end of its dump.
            self.bodies = self.query.list(now.ruleset).unwrap_or_default();
            self.version = now.version;
        }
        let mut interrupted = self.generation != now.generation;
        self.generation = now.generation;
        let mut flags =
            || NLM_F_MULTI | if std::mem::take(&mut interrupted) { NLM_F_DUMP_INTR } else { 0 };
        let (seq, kind) = (self.header.seq, self.query.answer());
        let mut w = Writer::new();
        let slice: Vec<_> = self.bodies.iter().skip(self.sent).take(count.max(1)).collect();
        for body in &slice {
            w.message(Header::nf_tables(kind, flags(), seq), |w| w.raw(body));
        }
        self.sent += slice.len();
        let is_last = slice.len() < count.max(1);
        if is_last {
            let done = Header { message_type: NLMSG_DONE, flags: flags(), seq };
            w.message(done, |w| w.raw(&0i32.to_ne_bytes()));
        }
        (w.finish().unwrap_or_default(), is_last)
    }
}

#[derive(Default)]
struct Bodies(Vec<Vec<u8>>);

impl Bodies {
    fn push(&mut self, table: &Table, write: impl FnOnce(&mut Writer)) {
        let mut w = Writer::new();
        w.raw(&NfGenMsg::new(table.family).to_bytes());
        write(&mut w);
        // What came in one message fits in one.
        self.0.extend(w.finish());
    }
}

fn name(w: &mut Writer, attribute: u16, name: &[u8]) {
    w.nested(attribute, |w| {
        w.raw(name);
        w.raw(&[0]);
    });
}

fn count(w: &mut Writer, attribute: u16, count: usize) {
    w.u32_be(attribute, u32::try_from(count).unwrap_or(u32::MAX));
}

fn optional(w: &mut Writer, attribute: u16, bytes: Option<&Vec<u8>>) {
    if let Some(bytes) = bytes {
        w.bytes(attribute, bytes);
    }
}

fn write_table(w: &mut Writer, table: &Table) {
    name(w, NFTA_TABLE_NAME, &table.name);
    count(w, NFTA_TABLE_USE, table.uses());
    w.u64_be(NFTA_TABLE_HANDLE, table.handle);
    w.u32_be(NFTA_TABLE_FLAGS, table.flags);
    if table.flags & NFT_TABLE_F_OWNER != 0 {
        w.u32_be(NFTA_TABLE_OWNER, table.owner);
    }
    optional(w, NFTA_TABLE_USERDATA, table.userdata.as_ref());
}

fn write_chain(w: &mut Writer, table: &Table, chain: &Chain) {
    name(w, NFTA_CHAIN_TABLE, &table.name);
    name(w, NFTA_CHAIN_NAME, &chain.name);
    w.u64_be(NFTA_CHAIN_HANDLE, chain.handle);
    if let Some(base) = &chain.base {
        w.nested(NFTA_CHAIN_HOOK, |w| {
            w.u32_be(NFTA_HOOK_HOOKNUM, base.hook);
            w.u32_be(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
        });
        w.u32_be(NFTA_CHAIN_POLICY, base.policy);
        w.string(NFTA_CHAIN_TYPE, base.chain_type.name());
    }
    if chain.flags != 0 {
        w.u32_be(NFTA_CHAIN_FLAGS, chain.flags);
    }
    count(w, NFTA_CHAIN_USE, chain.rules.len() + table.jumps_to(&chain.name));
    optional(w, NFTA_CHAIN_USERDATA, chain.userdata.as_ref());
}

fn write_rule(w: &mut Writer, table: &Table, chain: &Chain, rule: &Rule, before: Option<u64>) {
    name(w, NFTA_RULE_TABLE, &table.name);
    name(w, NFTA_RULE_CHAIN, &chain.name);
    w.u64_be(NFTA_RULE_HANDLE, rule.handle);
    if let Some(before) = before {
        w.u64_be(NFTA_RULE_POSITION, before);
    }
    w.bytes(NFTA_RULE_EXPRESSIONS, &rule.expressions);
    optional(w, NFTA_RULE_USERDATA, rule.userdata.as_ref());
}

fn write_set(w: &mut Writer, table: &Table, set: &Set) {
    name(w, NFTA_SET_TABLE, &table.name);
    name(w, NFTA_SET_NAME, &set.name);
    w.u64_be(NFTA_SET_HANDLE, set.handle);
    if set.flags != 0 {
        w.u32_be(NFTA_SET_FLAGS, set.flags);
    }
    w.u32_be(NFTA_SET_KEY_TYPE, set.key_type);
    w.u32_be(NFTA_SET_KEY_LEN, set.key_len);
    if set.is_map() {
        w.u32_be(NFTA_SET_DATA_TYPE, set.data_type);
        w.u32_be(NFTA_SET_DATA_LEN, set.data_len);
    }
    set.other.iter().for_each(|(attribute, value)| w.bytes(*attribute, value));
    optional(w, NFTA_SET_USERDATA, set.userdata.as_ref());
    w.bytes(NFTA_SET_DESC, set.description.as_deref().unwrap_or_default());
}

fn write_elements(w: &mut Writer, table: &Table, set: &Set, elements: &[Element]) {
    name(w, NFTA_SET_ELEM_LIST_TABLE, &table.name);
    name(w, NFTA_SET_ELEM_LIST_SET, &set.name);
    w.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |w| {
        for element in elements {
            w.nested(NFTA_LIST_ELEM, |w| write_element(w, element));
        }
    });
}

fn write_element(w: &mut Writer, element: &Element) {
    w.nested(NFTA_SET_ELEM_KEY, |w| w.bytes(NFTA_DATA_VALUE, &element.key));
    optional(w, NFTA_SET_ELEM_DATA, element.data.as_ref());
    if element.flags != 0 {
        w.u32_be(NFTA_SET_ELEM_FLAGS, element.flags);
    }
    optional(w, NFTA_SET_ELEM_USERDATA, element.userdata.as_ref());
}

fn write_object(w: &mut Writer, table: &Table, object: &Object) {
    name(w, NFTA_OBJ_TABLE, &table.name);
    name(w, NFTA_OBJ_NAME, &object.name);
    w.u64_be(NFTA_OBJ_HANDLE, object.handle);
    w.u32_be(NFTA_OBJ_TYPE, object.kind);
    count(w, NFTA_OBJ_USE, table.uses_of(object));
    w.bytes(NFTA_OBJ_DATA, &object.data);
}
