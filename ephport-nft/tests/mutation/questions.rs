//! What rules ask of a packet, and so into how many kinds packets fall: a program compares fields
//! with constants and does nothing else with them.

use ephport_nft::TableState;
use ephport_nft::nftables::Rule;
use ephport_nft::nftables::expr::{CmpOp, Data, Expr, Payload, RangeOp, Register};
use ephport_nft::table::ElementRef;
use ephport_nft::uapi::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, NFT_CT_SRC_IP, NFT_CT_SRC_IP6, NFT_META_L4PROTO,
    NFT_META_OIFNAME, NFT_META_OIFTYPE, NFT_PAYLOAD_NETWORK_HEADER,
};

use crate::packets::{Field, LOOPBACK};

/// Where the bytes of a register come from: a byte of a field under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Byte {
    of: Of,
    index: usize,
    mask: u8,
    xor: u8,
}

/// A field, or what follows from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Field(Field),
    /// The type of the interface that sends the packet.
    OutType,
}

impl Of {
    fn field(self) -> Field {
        match self {
            Self::Field(field) => field,
            Self::OutType => Field::Out,
        }
    }
}

/// A comparison of some bytes of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) field: Field,
    /// `None` is a byte that no field has, and is 0.
    bytes: Vec<Option<Byte>>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Cmp(CmpOp, Vec<u8>),
    Range(RangeOp, Vec<u8>, Vec<u8>),
    /// Which of these keys come before, and which are the same.
    Keys(Vec<Vec<u8>>),
}

/// The bytes that a load gets in a packet of one family; `None` for what no field contains.
fn loaded(expr: &Expr, v4: bool) -> Option<(Register, Vec<Option<Byte>>)> {
    let byte = |of, index| Some(Byte { of, index, mask: 0xff, xor: 0 });
    let whole = |of: Of, len: usize| (0..len).map(|index| byte(of, index)).collect();
    Some(match expr {
        Expr::Meta(meta) => {
            let (of, len) = match meta.key {
                NFT_META_OIFNAME => (Of::Field(Field::Out), 16),
                NFT_META_OIFTYPE => (Of::OutType, 2),
                NFT_META_L4PROTO => (Of::Field(Field::Protocol), 1),
                _ => return Some((meta.dreg, vec![None; 4])),
            };
            (meta.dreg, whole(of, len))
        }
        Expr::Payload(load) => {
            let field = |at| field_at(load, at, v4).map(|(field, i)| (Of::Field(field), i));
            let bytes = (0..load.len.min(64)).map(|at| field(at).and_then(|(of, i)| byte(of, i)));
            (load.dreg, bytes.collect())
        }
        Expr::Ct(ct) => {
            let is_address = [NFT_CT_SRC_IP, NFT_CT_SRC_IP6].contains(&ct.key);
            let len = if v4 { 4 } else { 16 };
            let bytes =
                if is_address { whole(Of::Field(Field::Source), len) } else { vec![None; 4] };
            (ct.dreg, bytes)
        }
        Expr::Fib(fib) => (fib.dreg, vec![None; 4]),
        _ => return None,
    })
}

/// The field that a byte of a load belongs to, and which byte of it that is.
pub(crate) fn field_at(load: &Payload, at: u32, v4: bool) -> Option<(Field, usize)> {
    let at = usize::try_from(load.offset.checked_add(at)?).ok()?;
    let header = if v4 { 20 } else { 40 };
    let (source, len) = if v4 { (12, 4) } else { (8, 16) };
    let at = match load.base {
        NFT_PAYLOAD_NETWORK_HEADER if at < header => {
            let at = at.checked_sub(source)?;
            let field = if at < len { Field::Source } else { Field::Destination };
            return Some((field, at % len));
        }
        NFT_PAYLOAD_NETWORK_HEADER => at - header,
        _ => at,
    };
    match at {
        0 | 1 => Some((Field::SourcePort, at)),
        2 | 3 => Some((Field::DestinationPort, at - 2)),
        4 | 5 => Some((Field::Identifier, at - 4)),
        13 => Some((Field::Flags, 0)),
        _ => None,
    }
}

/// The registers of a rule, byte by byte.
struct Sources([Option<Byte>; 64]);

impl Sources {
    fn at(register: Register) -> Option<usize> {
        let number = usize::try_from(register.0).ok()?;
        match number {
            1..=4 => Some((number - 1) * 16),
            8..=23 => Some((number - 8) * 4),
            _ => None,
        }
    }

    fn get(&self, register: Register, len: usize) -> &[Option<Byte>] {
        Self::at(register).and_then(|at| self.0.get(at..at + len)).unwrap_or_default()
    }

    fn set(&mut self, register: Register, bytes: &[Option<Byte>]) {
        let Some(room) = Self::at(register).and_then(|at| self.0.get_mut(at..)) else { return };
        // The rest of the last slot becomes zero.
        let padded =
            bytes.iter().copied().chain(vec![None; bytes.len().next_multiple_of(4) - bytes.len()]);
        room.iter_mut().zip(padded).for_each(|(to, byte)| *to = byte);
    }
}

/// What a rule asks of packets of one family.
pub(crate) fn of(ruleset: &TableState, rule: &Rule, v4: bool) -> Vec<Question> {
    let mut sources = Sources([None; 64]);
    let mut questions = Vec::new();
    let mut ask = |bytes: &[Option<Byte>], kind| questions.extend(split(bytes, &kind));
    for expr in &rule.exprs {
        if let Some((dreg, bytes)) = loaded(expr, v4) {
            sources.set(dreg, &bytes);
        }
        match expr {
            Expr::Cmp(cmp) => {
                let Data::Value(value) = &cmp.data else { continue };
                ask(sources.get(cmp.sreg, value.len()), Kind::Cmp(cmp.op, value.to_vec()));
            }
            Expr::Range(range) => {
                let (Data::Value(from), Data::Value(to)) = (&range.from, &range.to) else {
                    continue;
                };
                let kind = Kind::Range(range.op, from.to_vec(), to.to_vec());
                ask(sources.get(range.sreg, from.len()), kind);
            }
            Expr::Bitwise(bitwise) => {
                let (Data::Value(mask), Data::Value(xor)) = (&*bitwise.mask, &*bitwise.xor) else {
                    continue;
                };
                let known =
                    sources.get(bitwise.sreg, mask.len()).iter().zip(mask.iter().zip(xor.iter()));
                let masked: Vec<_> = known
                    .map(|(byte, (m, x))| {
                        byte.map(|b| Byte { mask: b.mask & m, xor: b.xor & m ^ x, ..b })
                    })
                    .collect();
                sources.set(bitwise.dreg, &masked);
            }
            Expr::Lookup(lookup) => {
                let Some(filled) = ruleset.set(&lookup.set) else { continue };
                let len =
                    filled.spec.key_len.and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
                let keys = filled.elements.iter().filter_map(ElementRef::key_bytes);
                let keys = Kind::Keys(keys.map(<[u8]>::to_vec).collect());
                ask(sources.get(lookup.sreg, len), keys);
                // What a map contains for the key are ports, of which the own one may be one.
                for element in &filled.elements {
                    let Some(Data::Value(data)) = element.data() else { continue };
                    data.chunks(4).for_each(|chunk| ask(&PORT, keeps(&chunk[..2])));
                }
            }
            Expr::Immediate(immediate) => {
                if let Data::Value(value) = &immediate.data
                    && value.len() <= 2
                {
                    ask(&PORT, keeps(value));
                }
            }
            _ => {}
        }
    }
    questions
}

/// A comparison of one field as it is. One that spans several fields hangs on how the part of each
/// compares with that part of each constant.
fn split(bytes: &[Option<Byte>], kind: &Kind) -> Vec<Question> {
    let mut fields: Vec<_> = bytes.iter().flatten().map(|byte| byte.of.field()).collect();
    fields.dedup();
    if let [field] = fields[..] {
        return vec![Question { field, bytes: bytes.to_vec(), kind: kind.clone() }];
    }
    let part = |field| {
        let is_in = |byte: &Option<Byte>| byte.is_some_and(|byte| byte.of.field() == field);
        let part = |constant: Vec<u8>| {
            let pairs = constant.into_iter().zip(bytes).filter(|(_, byte)| is_in(byte));
            pairs.map(|(constant, _)| constant).collect()
        };
        let kind = Kind::Keys(kind.constants().into_iter().map(part).collect());
        Question { field, bytes: bytes.iter().copied().filter(is_in).collect(), kind }
    };
    fields.into_iter().map(part).collect()
}

/// The source port.
const PORT: [Option<Byte>; 2] = {
    let of = Of::Field(Field::SourcePort);
    [
        Some(Byte { of, index: 0, mask: 0xff, xor: 0 }),
        Some(Byte { of, index: 1, mask: 0xff, xor: 0 }),
    ]
};

/// Whether a port is below, at or above the end of a range that keeps its own.
fn keeps(end: &[u8]) -> Kind {
    Kind::Keys(vec![end.to_vec()])
}

impl Kind {
    fn constants(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Cmp(_, value) => vec![value.clone()],
            Self::Range(_, from, to) => vec![from.clone(), to.clone()],
            Self::Keys(keys) => keys.clone(),
        }
    }
}

impl Question {
    /// The answer for a value of its field, which has so many bytes.
    pub(crate) fn answer(&self, value: u128, width: usize) -> usize {
        let bytes = value.to_be_bytes();
        let out_type = if value == LOOPBACK { ARPHRD_LOOPBACK } else { ARPHRD_ETHER }.to_ne_bytes();
        let byte = |byte: &Option<Byte>| {
            let Some(byte) = byte else { return 0 };
            let whole = match byte.of {
                Of::Field(_) => bytes[16 - width + byte.index],
                Of::OutType => out_type[byte.index],
            };
            whole & byte.mask ^ byte.xor
        };
        let found: Vec<_> = self.bytes.iter().map(byte).collect();
        match &self.kind {
            Kind::Cmp(op, value) => {
                let order = found.cmp(value);
                usize::from(match op {
                    CmpOp::Eq => order.is_eq(),
                    CmpOp::Neq => order.is_ne(),
                    CmpOp::Lt => order.is_lt(),
                    CmpOp::Lte => order.is_le(),
                    CmpOp::Gt => order.is_gt(),
                    CmpOp::Gte => order.is_ge(),
                })
            }
            Kind::Range(op, from, to) => {
                usize::from((from..=to).contains(&&found) == (*op == RangeOp::Eq))
            }
            Kind::Keys(keys) => {
                let before = keys.iter().filter(|key| **key < found).count();
                2 * before + usize::from(keys.contains(&found))
            }
        }
    }

    /// Values of its field, which has so many bytes, at which the answer may change: each is the
    /// lowest, from one of `starts` on, that has certain bits.
    pub(crate) fn turns(&self, width: usize, starts: &[u128]) -> Vec<u128> {
        // Where the bytes are in the field.
        let place = |of: &dyn Fn(usize, &Byte) -> u8| {
            let mut placed = [0; 16];
            for (i, byte) in self.bytes.iter().enumerate() {
                if let Some(byte) = byte.filter(|byte| matches!(byte.of, Of::Field(_))) {
                    placed[16 - width + byte.index] = of(i, &byte);
                }
            }
            u128::from_be_bytes(placed)
        };
        let mask = place(&|_, byte| byte.mask);
        // The bits after the last one that is compared.
        let after = mask.checked_sub(1).map_or(u128::MAX, |less| !mask & less);
        let step = after.wrapping_add(1);
        let is_prefix = mask | after == full(width);
        let mut turns = Vec::new();
        for constant in self.kind.constants() {
            let value = place(&|i, byte| (constant.get(i).unwrap_or(&0) ^ byte.xor) & byte.mask);
            for near in [value, value.wrapping_add(step) & mask, value.wrapping_sub(step) & mask] {
                turns.push(near);
                if !is_prefix {
                    turns.extend(starts.iter().filter_map(|start| lowest(*start, mask, near)));
                }
            }
        }
        turns
    }
}

/// The lowest number from `from` on of which the bits of `mask` are those of `value`.
fn lowest(from: u128, mask: u128, value: u128) -> Option<u128> {
    if from & mask == value {
        return Some(from);
    }
    // It has a higher bit somewhere, and after that one the lowest bits that it can have.
    let bits = (0..128).map(|bit| 1u128 << bit).filter(|bit| from & bit == 0);
    let numbers = bits.map(|bit| from & !(bit - 1) | bit | value & (bit - 1));
    numbers.filter(|number| number & mask == value).min()
}

/// All bits of a field.
pub(crate) fn full(width: usize) -> u128 {
    u128::MAX >> (128 - 8 * width)
}
