//! The key that a misspelt name may mean.

use super::KEYS;
use crate::policy::key::{Flag, Key};

/// The key that a misspelt name or a flag's name may mean.
#[must_use]
pub fn near(name: &str) -> Option<&'static Key> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' ', '.'], "");
    let wanted = plain(name);
    let names = |key: &'static Key| {
        let flag = match key.flag {
            Flag::Name(flag) => Some(flag),
            Flag::Words => None,
        };
        [Some(key.name), flag, key.alias].into_iter().flatten()
    };
    let nearest = KEYS
        .iter()
        .flat_map(|key| names(key).map(move |name| (key, name)))
        .map(|(key, name)| (distance(&wanted, &plain(name)), key))
        .min_by_key(|(distance, _)| *distance);
    nearest.filter(|(distance, _)| *distance * 3 <= wanted.chars().count()).map(|(_, key)| key)
}

/// The number of insertions, deletions and replacements of a character between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<_> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *above;
            left = replaced.min(left + 1).min(*above + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_are_recognized() {
        for (name, expected) in [
            ("toports", Some("to-ports")),
            ("to_ports", Some("to-ports")),
            ("TO-PORTS", Some("to-ports")),
            ("sport", Some("source-ports")),
            ("out-interface", Some("out-interfaces")),
            ("protocol", Some("protocols")),
            ("exempt", Some("except-ports")),
            ("enforced", Some("enforce")),
            ("adress", Some("address")),
            ("soruces", Some("sources")),
            ("speed", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(near(name).map(|key| key.name), expected, "{name}");
        }
    }
}
