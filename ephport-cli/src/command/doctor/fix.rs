//! What to do about each kind of finding.

use crate::document::Finding;

/// A finding with its fix.
pub(super) fn finding(kind: &str, policy: Option<String>, message: &impl ToString) -> Finding {
    let fix = fix(kind).unwrap_or(UNKNOWN).into();
    Finding { kind: kind.into(), policy, message: message.to_string(), fix }
}

/// The fix of a kind that is not listed.
const UNKNOWN: &str = "see docs/policy.md";

/// The fix for a kind of finding.
pub(super) fn fix(kind: &str) -> Option<&'static str> {
    let (_, fix) = FIXES.iter().find(|(name, _)| *name == kind)?;
    Some(fix)
}

/// The kinds, each with its fix.
const FIXES: [(&str, &str); 37] = [
    // The table.
    ("not-installed", "run `ephport-nft apply`, or enable ephport-guard.service"),
    (
        "drifted",
        "run `ephport-nft status` to see the changes, and `ephport-nft apply` to undo them; \
                 `ephport-nft guard` prevents them",
    ),
    ("unseen-forwards", "list the ports that the table forwards in except-ports"),
    ("services-in-set", "run `ephport-nft apply`, which excludes these ports"),
    ("outdated", "run `ephport-nft apply`; `ephport-nft guard` does so when the host changes"),
    ("foreign", "look at it with `nft list table inet ephport`, and rename or delete it"),
    (
        "no-uplink",
        "wait for the network, or name the interfaces with out-interfaces; \
                   `ephport-nft guard` waits",
    ),
    ("kernel", "run a kernel with this part of nf_tables"),
    // Rules of other tables.
    (
        "earlier-nat",
        "give that chain a priority above 90, or delete the rules that translate the \
                     connections of the policies",
    ),
    ("notrack", "exclude the connections of the policies from the `notrack` rules"),
    ("later-ports", "delete the rules that write source ports after translation"),
    (
        "other-timeouts",
        "exclude the connections of the policies from the rules that assign timeouts, or set timeouts \
         of the policies to none",
    ),
    // The policies.
    ("unused-timeout", "remove it"),
    ("no-timeouts", "run a kernel with CONFIG_NF_CONNTRACK_TIMEOUT, or set timeouts to none"),
    ("no-effect", "remove the key"),
    ("unreachable", "move the policy before the other one, or remove it"),
    ("no-interface", "correct the name, or make the interface"),
    ("no-udplite", "remove udplite from the protocols"),
    ("routed-networks", "list these networks in except-destinations"),
    ("private-sources", "use address = \"auto\", or origin = \"local\""),
    (
        "filtered-bridge",
        "set the sysctls net.bridge.bridge-nf-call-iptables and \
                         net.bridge.bridge-nf-call-ip6tables to 0, unless other rules need them",
    ),
    ("port-device", "name the device that it is a port of"),
    ("vrf-device", "name the interfaces in the VRF"),
    ("no-address", "add the address to an interface, or correct it"),
    ("server-port", "list the port in exempt-source-ports"),
    // The host.
    ("other-uplink", "if its connections are not meant, name the interfaces with out-interfaces"),
    ("reserved-ports", "list them in except-ports"),
    ("node-ports", "add except-ports = \"30000-32767\""),
    ("fixed-ports", "list those that must stay in exempt-source-ports"),
    ("slow-reuse", "set timeouts, or permit more ports"),
    ("translated-ipsec", "remove ipsec = \"match\""),
    ("flowtable", "exclude the connections of enforced policies from the flowtable"),
    ("helper", "remove the helper, or permit the connections that it expects"),
    ("conntrack-full", "raise the sysctl net.netfilter.nf_conntrack_max"),
    (
        "insert-failed",
        "run `ephport-nft usage` to see the fullest destinations, and permit more ports",
    ),
    ("early-drops", "raise the sysctl net.netfilter.nf_conntrack_max"),
    (
        "writable-file",
        "give it to root, and take the right to write from others (chown, chmod go-w)",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_once() {
        let mut names: Vec<_> = FIXES.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FIXES.len());
        assert!(FIXES.iter().all(|(name, _)| fix(name).is_some()) && fix("other").is_none());
    }
}
