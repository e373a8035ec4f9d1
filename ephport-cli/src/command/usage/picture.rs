//! A picture of the port space in plain characters.

use ephport_core::{Port, PortRange, PortSet};
use ephport_nft::conntrack::PortBitmap;

/// The characters of a row.
const COLUMNS: u32 = 64;

/// The most rows.
const ROWS: u32 = 4;

/// The ports of `set` in at most four rows, each beginning with the number of its first port. A
/// character is a run of ports: blank if none of them is in the set, else `.` for none in use, `1` to
/// `9` for that many tenths, and `#` for all.
pub(super) fn picture(set: &PortSet, used: &PortBitmap) -> Vec<String> {
    let (Some(first), Some(last)) = (set.ranges().first(), set.ranges().last()) else {
        return Vec::new();
    };
    let (first, last) = (u32::from(first.first().get()), u32::from(last.last().get()));
    let size = (last - first + 1).div_ceil(COLUMNS * ROWS);
    let mut lines = Vec::new();
    let mut row = first;
    while row <= last {
        let cells = (0..COLUMNS).map(|column| row + column * size).take_while(|at| *at <= last);
        let text: String = cells.map(|at| cell(set, used, at, size)).collect();
        lines.push(format!("  {row:>5}  {}", text.trim_end()));
        row += COLUMNS * size;
    }
    let unit = if size == 1 { "1 port".into() } else { format!("{size} ports") };
    lines.push(format!("         {unit} a character: . free, 1-9 tenths in use, # all in use"));
    lines
}

fn cell(set: &PortSet, used: &PortBitmap, first: u32, size: u32) -> char {
    let port = |number: u32| {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        Port::new(number).unwrap_or(Port::MIN)
    };
    let Ok(range) = PortRange::new(port(first), port(first + size - 1)) else { return ' ' };
    let (mut ports, mut in_use) = (0, 0);
    for part in set.intersection(&range.into()).ranges() {
        ports += part.count();
        in_use += used.count_in(*part);
    }
    match (in_use, ports) {
        (_, 0) => ' ',
        (0, _) => '.',
        _ if in_use == ports => '#',
        _ => char::from_digit((in_use * 10 / ports).clamp(1, 9), 10).unwrap_or('9'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture_of(set: &str, used: &str) -> Vec<String> {
        let mut bitmap = PortBitmap::default();
        used.parse::<PortSet>().unwrap().ports().for_each(|port| bitmap.insert(port));
        picture(&set.parse().unwrap(), &bitmap)
    }

    #[test]
    fn large_sets_have_four_rows() {
        let lines = picture_of("1024-29999,32768-65535", "1024-1275,1276,40000-50000");
        let (free, gap, full) = (|n| ".".repeat(n), |n| " ".repeat(n), |n| "#".repeat(n));
        // 252 ports a character.
        let expected = [
            format!("   1024  #1{}", free(62)),
            format!("  17152  {}{}{}", free(51), gap(10), free(3)),
            format!("  33280  {}3{}", free(26), full(37)),
            format!("  49408  ##3{}", free(61)),
            "         252 ports a character: . free, 1-9 tenths in use, # all in use".into(),
        ];
        assert_eq!(lines, expected);
        assert!(lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
    }

    #[test]
    fn small_sets_have_a_character_a_port() {
        let lines = picture_of("500-509,512", "500-501,512");
        assert_eq!(
            lines,
            [
                "    500  ##........  #",
                "         1 port a character: . free, 1-9 tenths in use, # all in use"
            ]
        );
        assert_eq!(picture_of("65535", "65535")[0], "  65535  #");
    }

    #[test]
    fn tenths_are_rounded_down_but_never_to_none() {
        // 512 ports: 2 a character.
        let lines = picture_of("1000-1511", "1001,1510-1511");
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("   1000  5...") && lines[3].ends_with("..#"), "{lines:#?}");
        // 65,280 ports: 255 a character, of which one.
        assert!(picture_of("256-65535", "300")[0].starts_with("    256  1..."));
    }
}
