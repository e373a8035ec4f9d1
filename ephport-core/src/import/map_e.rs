//! The port set of a MAP-E customer, from parameters or from what OpenWrt knows of it.
//!
//! The input is one of:
//!
//! - parameters, or a line `rule=type=map-e,...`: see [`MapE`];
//! - `/tmp/map-*.rules`, which OpenWrt's `map` package writes: `RULE_1_PORTSETS='...'`;
//! - the JSON of `ubus call network.interface dump`, in which the interface of the protocol `map` has
//!   a rule of its firewall for each range.
//!
//! ```
//! let rules = "RULE_BMR=1\nRULE_1_PORTSETS='1232-1235 2256-2259 '\n";
//! let ports = "1232-1235,2256-2259".parse()?;
//! assert_eq!(ephport_core::import::map_e::target(rules)?, ephport_core::Target::Ports(ports));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde::Deserialize;
use thiserror::Error;

use crate::allocation::map_e::{MapE, MapEError};
use crate::net::port::{PortError, PortRange};
use crate::net::port_set::PortSet;
use crate::policy::Target;
use crate::text::{excerpt, quoted};

/// The ports of the customer: the parameters where the text has them, else a set of ports.
///
/// # Errors
/// [`MapEInputError`] when the text has no port set, or several.
pub fn target(text: &str) -> Result<Target, MapEInputError> {
    let text = text.trim();
    if text.starts_with('{') {
        return of_interfaces(text).map(Target::Ports);
    }
    let lines =
        || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines().any(|line| line.starts_with("RULE_")) {
        return of_rules(lines());
    }
    let mut lines = lines();
    match (lines.next(), lines.next()) {
        (line, None) => Ok(line.unwrap_or_default().parse::<MapE>()?.into()),
        (_, Some(_)) => Err(MapEInputError::SeveralLines),
    }
}

/// The ports of the basic mapping rule (`RULE_BMR`) among the lines that mapcalc prints.
fn of_rules<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Target, MapEInputError> {
    let pairs = lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key, value.trim_matches(['\'', '"', ' '])));
    let pairs: Vec<_> = pairs.collect();
    let find = |key: &str| pairs.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
    let rule = find("RULE_BMR").ok_or(MapEInputError::NoBasicRule)?;
    let value = |key: &str| find(&format!("RULE_{rule}_{key}"));
    let ports = match value("PORTSETS") {
        Some(ranges) => parse_ranges(ranges.split_whitespace())?,
        // A whole address has no port sets.
        None if value("PSIDLEN") == Some("0") => PortRange::ALL.into(),
        None => return Err(MapEInputError::NoPortSets { rule: rule.into() }),
    };
    let map_e = parameters(value).filter(|map_e| map_e.ports() == ports);
    Ok(map_e.map_or(ports.into(), Target::from))
}

/// The parameters of a rule, if all are there.
fn parameters<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<MapE> {
    let text = format!(
        "ipv6-prefix={}/{},ipv4-prefix={}/{},ea-len={},offset={},delegated={}/{}",
        value("IPV6PREFIX")?,
        value("PREFIX6LEN")?,
        value("IPV4PREFIX")?,
        value("PREFIX4LEN")?,
        value("EALEN")?,
        value("OFFSET")?,
        value("IPV6PD")?,
        value("PD6LEN")?,
    );
    text.parse().ok()
}

fn parse_ranges<'a>(ranges: impl Iterator<Item = &'a str>) -> Result<PortSet, MapEInputError> {
    let range = |text: &str| {
        text.parse::<PortRange>()
            .map_err(|error| MapEInputError::Ports { text: text.into(), error })
    };
    ranges.map(range).collect()
}

#[derive(Deserialize)]
struct Dump {
    interface: Option<Vec<Interface>>,
}

#[derive(Deserialize)]
struct Interface {
    interface: Option<String>,
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    firewall: Vec<FirewallRule>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FirewallRule {
    target: String,
    snat_port: Option<String>,
}

/// The ports of the one interface that has source ports to translate to.
fn of_interfaces(text: &str) -> Result<PortSet, MapEInputError> {
    let dump: Dump = serde_json::from_str(text)
        .map_err(|error| MapEInputError::Json { problem: error.to_string().into() })?;
    let mut found: Vec<(String, PortSet)> = Vec::new();
    for interface in dump.interface.unwrap_or_default() {
        let rules = interface.data.unwrap_or_default().firewall;
        let nat = rules.iter().filter(|rule| rule.target == "SNAT");
        let ranges: Vec<_> = nat.filter_map(|rule| rule.snat_port.as_deref()).collect();
        if !ranges.is_empty() {
            let ports = parse_ranges(ranges.into_iter())?;
            found.push((interface.interface.unwrap_or_default(), ports));
        }
    }
    match found.as_slice() {
        [(_, ports)] => Ok(ports.clone()),
        [] => Err(MapEInputError::NoInterface),
        several => {
            let names: Vec<_> = several.iter().map(|(name, _)| name.as_str()).collect();
            Err(MapEInputError::SeveralInterfaces { names: names.join(", ").into() })
        }
    }
}

/// Why a text has no port set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MapEInputError {
    /// The parameters do not give one.
    #[error(transparent)]
    Parameters(#[from] MapEError),
    /// More than one line of parameters.
    #[error("several lines: expected one of parameters, or all of /tmp/map-*.rules")]
    SeveralLines,
    /// No basic mapping rule among OpenWrt's rules.
    #[error("RULE_BMR is missing: expected the file /tmp/map-*.rules of a working interface")]
    NoBasicRule,
    /// The basic mapping rule has no port sets.
    #[error("RULE_{}_PORTSETS is missing: expected the rule that RULE_BMR names", excerpt(.rule))]
    NoPortSets {
        /// The number of the rule.
        rule: Box<str>,
    },
    /// Not a port set.
    #[error("{}: {error}", quoted(.text))]
    Ports {
        /// The range.
        text: Box<str>,
        /// Why it is none.
        error: PortError,
    },
    /// Not JSON, or another type of value than ubus prints.
    #[error("{}: expected what `ubus call network.interface dump` prints", excerpt(.problem).up_to(240))]
    Json {
        /// The message of the JSON reader.
        problem: Box<str>,
    },
    /// No interface has source ports.
    #[error("no interface has source ports (data.firewall[].snat_port): expected one of proto map")]
    NoInterface,
    /// More than one interface has source ports.
    #[error("several interfaces have source ports: {}: give the port set of one", excerpt(.names).up_to(240))]
    SeveralInterfaces {
        /// Their names.
        names: Box<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match target(text) {
            Ok(Target::MapE(map_e)) => map_e.ports().to_string(),
            Ok(Target::Ports(ports)) => ports.to_string(),
            other => other.map_or_else(|error| error.to_string(), |other| format!("{other:?}")),
        }
    }

    #[test]
    fn parameters_and_rule_lines_are_read() {
        let psid = shown("psid=52,psid-len=8,offset=4");
        assert!(psid.starts_with("4928-4943,9024-9039,"), "{psid}");
        let rule = "rule=type=map-e,ealen=16,prefix4len=24,prefix6len=40,ipv4prefix=192.0.2.0,\
                    ipv6prefix=2001:db8::,offset=4,br=2001:db8:ffff::1";
        assert_eq!(shown(&format!("{rule},delegated=2001:db8:12:3400::/56")), psid);
        assert_eq!(shown(&format!("{rule},psidlen=8,psid=0x3400\n")), psid);
        assert_eq!(
            shown(&format!("{rule},psidlen=8,psid=52")),
            "psid 52 of 8 bits: a rule of OpenWrt has it in the upper bits of 16: \
             expected a multiple of 256"
        );
        assert!(shown(rule).starts_with("`delegated` is missing"), "{}", shown(rule));
    }

    /// As `map.sh` and `mapcalc` of OpenWrt write it.
    const RULES: &str = "rule=type=map-e,ealen=16,prefix4len=24,prefix6len=40,\
        ipv4prefix=192.0.2.0,ipv6prefix=2001:db8::,offset=6,br=2001:db8:ffff::1\n\
        RULE_1_FMR=0\nRULE_1_EALEN=16\nRULE_1_PSIDLEN=8\nRULE_1_OFFSET=6\nRULE_1_PREFIX4LEN=24\n\
        RULE_1_PREFIX6LEN=40\nRULE_1_IPV4PREFIX=192.0.2.0\nRULE_1_IPV6PREFIX=2001:db8::\n\
        RULE_1_IPV6PD=2001:db8:12:3400::\nRULE_1_PD6LEN=56\nRULE_1_PD6IFACE=wan6\n\
        RULE_1_IPV6ADDR=2001:db8:12:3400:0:c000:212:34\nRULE_BMR=1\n\
        RULE_1_IPV4ADDR=192.0.2.18\nRULE_1_ADDR4LEN=32\n\
        RULE_1_PORTSETS='1232-1235 2256-2259 3280-3283 '\nRULE_1_BR=2001:db8:ffff::1\nRULE_COUNT=1\n";

    #[test]
    fn errors_have_their_kind() {
        let parameters = target("psid=300,psid-len=8");
        assert!(matches!(parameters, Err(MapEInputError::Parameters(_))), "{parameters:?}");
        let ports = target("RULE_BMR=1\nRULE_1_PORTSETS='0-9'");
        assert!(matches!(ports, Err(MapEInputError::Ports { .. })), "{ports:?}");
    }

    #[test]
    fn rules_of_openwrt_have_port_sets() {
        assert_eq!(shown(RULES), "1232-1235,2256-2259,3280-3283");
        let all = "psid=52,psid-len=8".parse::<MapE>().unwrap().ports().to_string();
        let rules = RULES.replace("1232-1235 2256-2259 3280-3283", &all.replace(',', " "));
        let example = "ipv6-prefix=2001:db8::/40,ipv4-prefix=192.0.2.0/24,ea-len=16,offset=6,\
                       delegated=2001:db8:12:3400::/56";
        assert_eq!(target(&rules), Ok(Target::from(example.parse::<MapE>().unwrap())));
        let whole = RULES.replace("PSIDLEN=8", "PSIDLEN=0");
        let whole: Vec<_> = whole.lines().filter(|line| !line.contains("PORTSETS")).collect();
        assert_eq!(shown(&whole.join("\n")), "1-65535");
        let cases = [
            (
                RULES.replace("RULE_BMR=1\n", ""),
                "RULE_BMR is missing: expected the file /tmp/map-*.rules of a working interface",
            ),
            (
                RULES.replace("RULE_BMR=1", "RULE_BMR=2"),
                "RULE_2_PORTSETS is missing: expected the rule that RULE_BMR names",
            ),
            (
                RULES.replace("1232-1235", "1-x"),
                "`1-x`: `x` is not a port: expected a number from 1 to 65535",
            ),
            (
                "psid=1,psid-len=8\npsid=2,psid-len=8".into(),
                "several lines: expected one of parameters, or all of /tmp/map-*.rules",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(shown(&text), message);
        }
    }

    fn interface(name: &str, ports: &[&str]) -> String {
        let rule = |ports: &&str| {
            format!(
                r#"{{"type": "nat", "target": "SNAT", "family": "inet", "proto": "tcp",
                     "connlimit_ports": true, "snat_ip": "192.0.2.18", "snat_port": "{ports}"}}"#
            )
        };
        let rules: Vec<_> = ports.iter().map(rule).collect();
        format!(
            r#"{{"interface": "{name}", "up": true, "proto": "map",
                 "data": {{"zone": "wan", "firewall": [{}]}}}}"#,
            rules.join(",")
        )
    }

    #[test]
    fn interfaces_of_ubus_have_source_ports() {
        let dump = |interfaces: &[String]| {
            format!(r#"{{"interface": [{}, {{"interface": "lan"}}]}}"#, interfaces.join(","))
        };
        let (one, two) =
            (interface("wan_4", &["1232-1235", "2256-2259"]), interface("b", &["9-9"]));
        let none = interface("wan_4", &[]);
        assert_eq!(shown(&dump(std::slice::from_ref(&one))), "1232-1235,2256-2259");
        let cases = [
            (
                dump(&[one, two]),
                "several interfaces have source ports: wan_4, b: give the port set of one",
            ),
            (
                dump(&[none]),
                "no interface has source ports (data.firewall[].snat_port): expected one of proto map",
            ),
            (
                "{\"interface\": 1}".into(),
                "invalid type: integer `1`, expected a sequence at line 1 column 15: \
                 expected what `ubus call network.interface dump` prints",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(shown(&text), message);
        }
    }
}
