//! Each JSON document conforms to its schema, and each policy file to the schema of policy files.
//! The judge is Python's jsonschema; its tomllib reads the policy files.

use ephport_tests::conntrack::{Entry, insert};
use ephport_tests::guard::{Guard, GuardedFile};
use ephport_tests::tool::{ok, tool};
use ephport_tests::{
    Host, PolicyFile, TempDir, ephport, ephport_args, ephport_ok, host_with_uplink,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Reads pairs of a schema and a document, and prints for each the error or an empty line.
const JUDGE: &str = r#"
import json, sys, tomllib
from jsonschema import Draft202012Validator
for line in sys.stdin:
    schema, document = json.loads(line)
    Draft202012Validator.check_schema(schema)
    if isinstance(document, str):
        document = tomllib.loads(document)
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(document)]
    print(json.dumps(errors[:1]))
"#;

/// The first error of each document.
fn errors(host: &Host, pairs: &[(Value, Value)]) -> Vec<Option<String>> {
    let lines: String =
        pairs.iter().flat_map(|(s, d)| [json!([s, d]).to_string(), "\n".into()]).collect();
    let judged = tool(host, "python3", &["-c", JUDGE], &lines);
    assert!(judged.success, "{judged:?}");
    let errors = |line| serde_json::from_str::<Vec<String>>(line).expect("a list").pop();
    let errors: Vec<_> = judged.out.lines().map(errors).collect();
    assert_eq!(errors.len(), pairs.len());
    errors
}

fn schema(host: &Host, name: &str) -> Value {
    serde_json::from_str(&ephport_ok(host, &format!("schema {name}"))).expect("JSON")
}

const POLICIES: &str = r#"
[[policy]]
name = "builds"
sources = ["172.16.0.0/12"]
to-ports = "49152-49999,60000-61000"
enforce = true

[[policy]]
name = "subscribers"
out-interfaces = ["eth0", "wg*"]
blocks = "10.0.0.0/30=64@1024-2047"

[[policy]]
name = "rest"
out-interfaces = "any"
to-ports = "local"
"#;

/// Rules with a note, reasons of each kind and a policy that another rule wins over.
const IPTABLES: &[u8] = b"iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE\n\
    # iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 9\n\
    iptables -t nat -A POSTROUTING -j MASQUERADE --to-ports 9\n\
    ip netns exec n iptables -t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 9\n";

/// Documents of every command, each with the name of its schema.
fn documents(host: &Host) -> Vec<(&'static str, Value)> {
    let file = PolicyFile::new(POLICIES);
    let flow = "tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0";
    let path = file.path();
    let steps = [
        ("status", vec!["status", "--json"]),
        ("diff", vec!["diff", "--json", path]),
        ("apply", vec!["apply", "--json", path, "--dry-run"]),
        ("apply", vec!["apply", "--json", path]),
        ("apply", vec!["apply", "--json", path]),
        ("status", vec!["status", "--json"]),
        ("show", vec!["show", "--json", path]),
        ("explain", vec!["explain", "--json", path, "--flow", flow]),
        (
            "explain",
            vec!["explain", "--json", path, "--flow", "udp 10.9.0.1:5 -> 224.0.0.1:5 oif eth0"],
        ),
        ("usage", vec!["usage", "--json", path]),
        ("outside", vec!["usage", "--outside", "--json", path]),
        ("doctor", vec!["doctor", "--json"]),
        ("doctor", vec!["doctor", "--json", path]),
        ("whose", vec!["whose", "192.0.2.2:1100", "--json", path]),
        ("whose", vec!["whose", "192.0.2.2:1", "--json", path]),
        ("apply", vec!["apply", "--json", "--to-ports", "2000-2999"]),
        ("diff", vec!["diff", "--json", path]),
        ("confirm", vec!["confirm", "--json"]),
        ("remove", vec!["remove", "--json"]),
        ("remove", vec!["remove", "--json"]),
        ("import", vec!["import", "iptables", "--json"]),
        ("import", vec!["import", "map-e", "psid=52,psid-len=8,offset=6", "--json"]),
        ("demo", vec!["demo", "--json"]),
    ];
    let mut documents = Vec::new();
    for (name, words) in steps {
        let ended = ephport_args(host, words.clone(), IPTABLES);
        let document = serde_json::from_str(&ended.out);
        documents
            .push((name, document.unwrap_or_else(|error| panic!("{error}: {words:?}: {ended:?}"))));
        let messages = ended.err.lines().map(|line| serde_json::from_str(line).expect("a message"));
        documents.extend(messages.map(|message| ("message", message)));
    }
    let journal = TempDir::new();
    let journal = journal.path().join("journal");
    let line = format!("apply {path} --journal {}", journal.display());
    ephport_ok(host, &line);
    ephport_ok(host, &format!("remove --journal {}", journal.display()));
    let lines = std::fs::read_to_string(journal).expect("a journal");
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("a record"));
    documents.extend(lines.map(|line| ("journal", line)));
    documents.extend(log_lines(host).into_iter().map(|line| ("guard", line)));
    documents
}

/// The log lines of a guard: of its start, a restoration, a bad file and its end.
fn log_lines(host: &Host) -> Vec<Value> {
    let file = GuardedFile::new(POLICIES);
    let guard = Guard::start(host, &file, &["--json", "--no-owner"]);
    guard.wait_for("\"applied\"", 1);
    ok(host, "nft flush ruleset");
    guard.wait_for("\"restored\"", 1);
    file.write("bad");
    guard.wait_for("\"failed\"", 1);
    let (_, log) = guard.end(Signal::SIGTERM);
    ephport_ok(host, "remove");
    log.lines().map(|line| serde_json::from_str(line).expect("a log line")).collect()
}

#[test]
fn every_document_conforms_to_its_schema() {
    let (host, _peer) = host_with_uplink();
    // Connections with a permitted port and with another one.
    let to = "198.51.100.1:443".parse().unwrap();
    let connection = |port| Entry {
        source: ([10, 0, 0, 9], 40_000 + port).into(),
        sent: ([192, 0, 2, 2], port).into(),
        destination: to,
    };
    insert(&host, [1025, 20_000].into_iter().map(connection));
    let mut pairs = Vec::new();
    let documents = documents(&host);
    for (name, document) in &documents {
        let schema = schema(&host, name);
        pairs.push((schema.clone(), document.clone()));
        // A document without one of its keys, or with another type, does not conform.
        for key in document.as_object().expect("an object").keys() {
            let (mut without, mut other) = (document.clone(), document.clone());
            without.as_object_mut().unwrap().remove(key);
            other[key] = json!({ "other": "type" });
            pairs.push((schema.clone(), other));
            pairs.push((schema.clone(), without));
        }
    }
    let names: std::collections::BTreeSet<_> = documents.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), 16, "{names:?}");
    for ((_, document), error) in pairs.iter().zip(errors(&host, &pairs)) {
        let is_whole = documents.iter().any(|(_, whole)| whole == document);
        assert_eq!(error.is_none(), is_whole, "{error:?}: {document:#}");
    }
}

#[test]
fn policy_files_conform_to_their_schema() {
    let host = Host::new("host").unwrap();
    let schema = schema(&host, "policy-file");
    let good = [
        POLICIES.to_string(),
        ephport_ok(&host, "show --format toml -o any --to-ports 1-2 --random --ipv4 --enforce"),
        ephport_ok(&host, "show --format toml --blocks 10.0.0.0/30=64@1024-2047 -o eth0,wg*"),
    ];
    let bad =
        ["", "[[policy]]\n", "[[policy]]\nname = \"a\"\nkey = 1\n", "[[policy]]\nname = \"1\"\n"];
    let document = |text: &str| (schema.clone(), json!(text));
    let pairs: Vec<_> = good.iter().map(String::as_str).chain(bad).map(document).collect();
    for ((_, text), (i, error)) in pairs.iter().zip(errors(&host, &pairs).into_iter().enumerate()) {
        assert_eq!(error.is_none(), i < good.len(), "{error:?}: {text}");
    }
    // The schema has the keys of the policy file.
    let file = PolicyFile::new("[[policy]]\nkey = 1\n");
    let err = ephport(&host, &format!("show {}", file.path())).err;
    let (_, keys) = err.trim_end().split_once("expected one of ").expect("the keys");
    let mut keys: Vec<_> = keys.split(", ").collect();
    keys.sort_unstable();
    let policy = &schema["$defs"]["Policy"]["properties"];
    let mut described: Vec<_> = policy.as_object().expect("properties").keys().collect();
    described.sort_unstable();
    assert_eq!(described, keys);
}
