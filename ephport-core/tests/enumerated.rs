//! Proofs by enumeration, where the space is small enough to visit every value.

use std::env;

use ephport_core::{Port, PortRange, PortSet, PsidRule};

fn port(number: u32) -> Port {
    Port::new(u16::try_from(number).unwrap()).unwrap()
}

/// All 262,123 rules that have a port: every offset (a), length (k) and PSID of RFC 7597 §5.1. The
/// sets of one offset and length are disjoint, their union is the usable ports, and the PSID of a
/// port is the k bits after the first a.
#[test]
fn every_psid_rule_partitions_the_ports() {
    let mut rules = 0;
    for offset in 0..=PsidRule::MAX_OFFSET {
        for len in 0..=16 - offset {
            let mut psid_of = vec![None; 1 << 16];
            for psid in 0..1u32 << len {
                let Ok(rule) = PsidRule::new(offset, len, u16::try_from(psid).unwrap()) else {
                    assert_eq!((len, psid), (16, 0), "only port 0 is no port");
                    continue;
                };
                rules += 1;
                for port in rule.ports().ports() {
                    let before = psid_of[usize::from(port.get())].replace(psid);
                    assert_eq!(before, None, "{rule}: {port} belongs to two customers");
                }
            }
            for number in 0..1u32 << 16 {
                let usable = number > 0 && (offset == 0 || number >> (16 - offset) > 0);
                let middle = (number >> (16 - offset - len)) & ((1 << len) - 1);
                let expected = usable.then_some(middle);
                assert_eq!(psid_of[number as usize], expected, "a={offset} k={len}: port {number}");
            }
        }
    }
    assert_eq!(rules, 262_123);
}

/// Every range is what it prints, contains what lies between its ends, and is disjoint from its
/// complement. All 2,147,450,880 ranges with EPHPORT_LONG; otherwise those that begin at each
/// 257th port and at the ends, which are some 8.5 million.
#[test]
fn every_range_is_what_it_prints() {
    let step = if env::var_os("EPHPORT_LONG").is_some() { 1 } else { 257 };
    let all = PortSet::from(PortRange::ALL);
    for first in (1..=65_535u32).step_by(step).chain([2, 65_534, 65_535]) {
        for last in first..=65_535 {
            let range = PortRange::new(port(first), port(last)).unwrap();
            assert_eq!(range.to_string().parse(), Ok(range));
            assert_eq!(range.count(), last - first + 1);
            let set = PortSet::from(range);
            let complement = set.complement();
            assert_eq!(complement.count() + set.count(), all.count());
            for (number, inside) in
                [(first - 1, false), (first, true), (last, true), (last + 1, false)]
            {
                let Ok(port) = Port::new(u16::try_from(number).unwrap_or(0)) else { continue };
                assert_eq!((range.contains(port), complement.contains(port)), (inside, !inside));
            }
        }
    }
}
