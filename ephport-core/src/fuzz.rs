//! Bodies of the fuzz targets (feature `fuzz`): they panic when a promise is broken.

use crate::port_set::PortSet;

/// Any text is a set of ports that prints and parses back, or an error.
///
/// # Panics
/// When it is neither.
pub fn port_set(text: &str) {
    if let Ok(set) = text.parse::<PortSet>() {
        assert_eq!(set.to_string().parse().as_ref(), Ok(&set));
        assert_eq!(set.complement().complement(), set);
    }
}
