//! Policies as TOML.

use std::fmt::Write as _;

use crate::policy::Policy;
use crate::policy::keys::KEYS;

/// The policies, an empty line between two of them.
pub(super) fn print(policies: &[Policy]) -> String {
    let tables: Vec<_> = policies.iter().map(table).collect();
    tables.join("\n")
}

fn table(policy: &Policy) -> String {
    let mut text = String::from("[[policy]]\n");
    for key in &KEYS {
        let is_name = key.name == "name";
        let value = if is_name { key.get(policy.spec()) } else { key.given(policy.spec()) };
        if let Some(value) = value {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{} = {}", key.name, value.to_toml());
        }
    }
    text
}
