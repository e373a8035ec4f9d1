//! Errors that hand on another one name the part that was read.

use ephport_core::import::iptables::{Invalid, SkipReason, Unsupported};
use ephport_core::policy::file::ValueError;
use ephport_core::{
    BlockError, BlockFileError, BlockTable, Document, Flow, FlowError, Imported, MapE, MapEError,
    NaclError, NetworkAcls, PolicyFileErrorKind,
};

fn flow_error(text: &str) -> FlowError {
    text.parse::<Flow>().unwrap_err()
}

#[test]
fn of_a_flow() {
    let protocol = flow_error("gre 10.0.0.1:1 -> 10.0.0.2:2 oif eth0");
    assert!(matches!(protocol, FlowError::Protocol(_)), "{protocol:?}");
    let interface = flow_error("tcp 10.0.0.1:1 -> 10.0.0.2:2 oif e*");
    assert!(matches!(interface, FlowError::Interface(_)), "{interface:?}");
    let mark = flow_error("tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mark x");
    assert!(matches!(mark, FlowError::Mark(_)), "{mark:?}");
}

fn block_error(text: &str) -> BlockError {
    text.parse::<BlockTable>().unwrap_err()
}

#[test]
fn of_blocks() {
    assert!(matches!(block_error("10.0.0.9-10.0.0.1=64@1024-65535"), BlockError::Addresses(_)));
    assert!(matches!(block_error("10.0.0.0/24=64@0"), BlockError::Ports(_)));
    let BlockError::Line { line: 2, error } = block_error("10.0.0.1=1\n10.0.0.2=x") else {
        panic!("not the second line");
    };
    assert!(matches!(*error, BlockError::Ports(_)), "{error:?}");
}

#[test]
fn of_map_e() {
    let error = "psid=256,psid-len=8".parse::<MapE>().unwrap_err();
    assert!(matches!(error, MapEError::Psid(_)), "{error:?}");
}

/// What is wrong in a policy of this name with this target.
fn problem(name: &str, more: &str) -> PolicyFileErrorKind {
    let text = format!("[[policy]]\nname = \"{name}\"\n{more}");
    *text.parse::<Document>().unwrap_err().problem
}

fn value_error(key: &str, value: &str) -> ValueError {
    let target = if ["to-ports", "map-e", "blocks", "blocks-file"].contains(&key) {
        ""
    } else {
        "to-ports = \"1\""
    };
    match problem("a", &format!("{key} = {value}\n{target}")) {
        PolicyFileErrorKind::Value { key: found, error, .. } if found == key => error,
        other => panic!("{key} = {value}: {other:?}"),
    }
}

#[test]
fn of_a_policy_file() {
    let PolicyFileErrorKind::Value { error: ValueError::Name(_), .. } = problem("9", "") else {
        panic!("not the name");
    };
    assert!(matches!(value_error("to-ports", "\"0\""), ValueError::Ports(_)));
    assert!(matches!(value_error("protocols", "[\"gre\"]"), ValueError::Protocol(_)));
    assert!(matches!(value_error("out-interfaces", "[\"a b\"]"), ValueError::Interface(_)));
    assert!(matches!(value_error("mark", "\"0/0\""), ValueError::Mark(_)));
    assert!(matches!(value_error("map-e", "\"psid\""), ValueError::MapE(_)));
    assert!(matches!(value_error("blocks", "\"10.0.0.1\""), ValueError::Blocks(_)));
    for (path, expected) in [("a.csv", BlockFileError::NoFiles), ("a\\u0000", BlockFileError::Path)]
    {
        let error = value_error("blocks-file", &format!("\"{path}\""));
        assert_eq!(error, ValueError::BlocksFile(expected));
    }
    assert!(matches!(value_error("origin", "\"here\""), ValueError::Word { .. }));
    let twice = "to-ports = \"1024\"\n[[policy]]\nname = \"a\"\nto-ports = \"1025\"";
    assert!(matches!(problem("a", twice), PolicyFileErrorKind::Document { .. }));
}

fn nacl_error(network: &str, action: &str) -> NaclError {
    let text = format!(
        r#"{{"NetworkAcls": [{{"NetworkAclId": "acl-1", "Entries": [{{"RuleNumber": 1,
            "Egress": false, "Protocol": "-1", {network}, "RuleAction": "{action}"}}]}}]}}"#
    );
    text.parse::<NetworkAcls>().unwrap_err()
}

#[test]
fn of_a_network_acl() {
    let two = nacl_error(r#""CidrBlock": "10.0.0.0/8", "Ipv6CidrBlock": "::/0""#, "allow");
    assert!(matches!(two, NaclError::TwoNetworks { .. }), "{two:?}");
    let action = nacl_error(r#""CidrBlock": "10.0.0.0/8""#, "permit");
    assert!(matches!(action, NaclError::Action { .. }), "{action:?}");
}

/// Why a rule with these options is skipped.
fn reason(rule: &str) -> SkipReason {
    let command = format!("iptables -t nat -A POSTROUTING {rule}");
    let mut skipped = Imported::parse(&command, None).skipped;
    assert_eq!(skipped.len(), 1, "{rule}");
    skipped.remove(0).reason
}

#[test]
fn of_a_rule_of_iptables() {
    let masquerade = |rule: &str| reason(&format!("{rule} -j MASQUERADE --to-ports 1024-2047"));
    let protocol = masquerade("-p dccp");
    let expected = matches!(protocol, SkipReason::Unsupported(Unsupported::Protocol(_)));
    assert!(expected, "{protocol:?}");
    let protocol = masquerade("-p 256");
    assert!(matches!(protocol, SkipReason::Invalid(Invalid::Protocol(_))), "{protocol:?}");
    let interface = masquerade("-p tcp -o a/b");
    let expected = matches!(interface, SkipReason::Unsupported(Unsupported::Interface { .. }));
    assert!(expected, "{interface:?}");
    let ports = reason("-p tcp -j MASQUERADE --to-ports 2047-1024");
    assert!(matches!(ports, SkipReason::Invalid(Invalid::Ports { .. })), "{ports:?}");
    let policy = masquerade("-p tcp ! --sport :");
    assert!(matches!(policy, SkipReason::Unsupported(Unsupported::Policy(_))), "{policy:?}");
}
