//! The schema of the policy file, with its keys as JSON has them.

use schemars::JsonSchema;

/// A policy file.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the type exists for its schema")]
pub(super) struct PolicyFile {
    /// The policies, in order of precedence.
    #[schemars(length(min = 1))]
    policy: Vec<Policy>,
}

/// A policy. Exactly one of `to-ports`, `map-e` and `blocks` is required.
#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(dead_code, reason = "the type exists for its schema")]
struct Policy {
    /// The name: a letter, then letters, digits, `_`, `-` and `.`.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Za-z][A-Za-z0-9_.-]*$"))]
    name: String,
    /// The permitted source ports, like `1024-29999,32768-65535`, or `local`.
    to_ports: Option<String>,
    /// The parameters of a MAP-E rule.
    map_e: Option<String>,
    /// The block of ports of each source: a plan, or one block for each item.
    blocks: Option<OneOrMany>,
    /// The ports that are not permitted although `to-ports` contains them.
    except_ports: Option<String>,
    /// The transport protocols.
    protocols: Option<Vec<Protocol>>,
    /// The output interfaces: names, prefixes like `wg*`, `any` or `uplinks`.
    out_interfaces: Option<OneOrMany>,
    /// The output interfaces out of scope.
    except_interfaces: Option<OneOrMany>,
    /// The input interfaces.
    in_interfaces: Option<OneOrMany>,
    /// The source networks.
    sources: Option<Vec<String>>,
    /// The destination networks.
    destinations: Option<Vec<String>>,
    /// The destination networks out of scope.
    except_destinations: Option<Vec<String>>,
    /// The destination ports, like `80,443`.
    destination_ports: Option<String>,
    /// The mark of the packets: a number, or a value and a mask like `0x10/0xf0`.
    mark: Option<String>,
    /// Packets that IPsec protects.
    ipsec: Option<Ipsec>,
    /// Where connections begin.
    origin: Option<Origin>,
    /// The address families.
    families: Option<Vec<Family>>,
    /// The source ports that are translated.
    source_ports: Option<String>,
    /// The source ports that are not translated although `source-ports` contains them.
    exempt_source_ports: Option<String>,
    /// Select a random port even where a port could be kept.
    random: Option<bool>,
    /// Select a random port, never by a hash.
    fully_random: Option<bool>,
    /// Give a client the same address for each connection.
    persistent: Option<bool>,
    /// Give a source the same range for each destination.
    per_source_stable: Option<bool>,
    /// `masquerade`, `keep` or the new source address.
    address: Option<String>,
    /// The TCP packets that a connection can start with.
    pick_up: Option<PickUp>,
    /// Drop packets with other source ports.
    enforce: Option<bool>,
    /// Enforcement on connections that were open when the policy was applied.
    open_connections: Option<OpenConnections>,
}

/// A text, or a list of texts.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the type exists for its schema")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the type exists for its schema")]
enum Protocol {
    Tcp,
    Udp,
    Udplite,
    Sctp,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the type exists for its schema")]
enum Origin {
    Local,
    Forwarded,
    Both,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the type exists for its schema")]
enum Family {
    Ipv4,
    Ipv6,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the type exists for its schema")]
enum PickUp {
    Opening,
    Any,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the type exists for its schema")]
enum Ipsec {
    Skip,
    Match,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the type exists for its schema")]
enum OpenConnections {
    Keep,
    Drop,
}
