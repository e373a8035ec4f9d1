//! Bodies of the fuzz targets (feature `fuzz`): they panic when a promise is broken.

use crate::client::Event;
use crate::object::{Chain, Generation, Rule, Table};
use crate::wire::{Ack, Messages, Writer};

/// Any bytes are messages and objects that encode and decode to the same, or errors.
///
/// # Panics
/// When they are neither.
pub fn netlink(bytes: &[u8]) {
    for message in Messages::new(bytes).map_while(Result::ok) {
        let _ = (Ack::read(message), Generation::read(message.body), Event::read(message));
        if let Ok(table) = Table::read(message.body) {
            assert_eq!(Table::read(&written(|w| table.write(w))).as_ref(), Ok(&table));
        }
        if let Ok(chain) = Chain::read(message.body) {
            assert_eq!(Chain::read(&written(|w| chain.write(w))).as_ref(), Ok(&chain));
        }
        if let Ok(rule) = Rule::read(message.body) {
            assert_eq!(Rule::read(&written(|w| rule.write(w))).as_ref(), Ok(&rule));
            let _ = rule.to_string();
        }
    }
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    write(&mut w);
    w.finish().expect("no longer than what was read")
}
