//! What ephport ships may be shipped: the licences of its normal dependencies, and the reason for
//! each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const SHIPPED: [&str; 3] = ["ephport-core", "ephport-nft", "ephport-cli"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What cargo knows of the packages, with the features that a default build has and those of `args`.
fn metadata(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .args(args)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Name and licence of each package that the shipped crates depend on for more than their tests.
fn dependencies() -> BTreeMap<String, String> {
    dependencies_with(&[])
}

fn dependencies_with(args: &[&str]) -> BTreeMap<String, String> {
    let metadata = metadata(args);
    let packages: BTreeMap<_, _> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<_, _> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let is_shipped = |id: &&&str| SHIPPED.contains(&text(&packages[**id]["name"]));
    let mut waiting: Vec<&str> = packages.keys().filter(is_shipped).copied().collect();
    assert_eq!(waiting.len(), SHIPPED.len());
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let is_normal =
            |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        let normal = list(&nodes[id]["deps"]).iter().filter(is_normal);
        waiting.extend(normal.map(|dep| text(&dep["pkg"])));
    }
    let licence = |id: &str| {
        let package = packages[id];
        (text(&package["name"]).to_string(), text(&package["license"]).to_string())
    };
    seen.into_iter().map(licence).collect()
}

/// The licences of `deny.toml`.
fn allowed() -> BTreeSet<String> {
    let deny = read("deny.toml");
    let (_, list) = deny.split_once("allow = [").expect("the allowed licences");
    let (list, _) = list.split_once(']').expect("their end");
    list.split('"').skip(1).step_by(2).map(str::to_string).collect()
}

/// Whether an SPDX expression can be met with these licences.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.trim();
    if allowed.contains(expression) {
        return true;
    }
    if let Some((before, after)) = outer(expression, " OR ").or_else(|| outer(expression, "/")) {
        return is_met(before, allowed) || is_met(after, allowed);
    }
    if let Some((before, after)) = outer(expression, " AND ") {
        return is_met(before, allowed) && is_met(after, allowed);
    }
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| is_met(inner, allowed))
}

/// Splits at the first `word` outside of brackets.
fn outer<'a>(expression: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let depth = |before: &str| before.matches('(').count() - before.matches(')').count();
    let mut places = expression.match_indices(word).map(|(at, _)| expression.split_at(at));
    let (before, after) = places.find(|(before, _)| depth(before) == 0)?;
    Some((before, &after[word.len()..]))
}

#[test]
fn expressions_are_read() {
    let allowed = ["MIT", "Unicode-3.0"].map(str::to_string).into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR MIT) AND Unicode-3.0",
        "MIT OR GPL-3.0 AND GPL-2.0",
    ] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "GPL-3.0 OR MIT AND GPL-2.0",
        "(MIT OR GPL-3.0) AND GPL-2.0",
    ] {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let (dependencies, allowed) = (dependencies(), allowed());
    assert!(dependencies.len() > 20, "{dependencies:?}");
    for (name, licence) in dependencies {
        assert!(is_met(&licence, &allowed), "{name}: `{licence}`");
    }
}

#[test]
fn the_gpl_comes_with_the_feature_rustables_alone() {
    let allowed = allowed();
    let refused = |args: &[&str]| -> Vec<_> {
        let dependencies = dependencies_with(args).into_iter();
        dependencies.filter(|(_, licence)| !is_met(licence, &allowed)).collect()
    };
    // Else its packages need not be there.
    if cfg!(feature = "rustables") {
        let gpl = |name: &str| (name.to_string(), "GPL-3.0-or-later".to_string());
        let with = refused(&["--features", "ephport-nft/rustables"]);
        assert_eq!(with, [gpl("rustables"), gpl("rustables-macros")]);
    }
    assert_eq!(refused(&["--features", "ephport-nft/proptest,ephport-nft/fuzz"]), []);
    assert_eq!(refused(&[]), []);
    // What a user builds, as cargo itself tells it.
    for package in SHIPPED {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "--edges",
                "normal,build",
                "--package",
                package,
            ])
            .current_dir(root())
            .output()
            .expect("cargo");
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && tree.contains("thiserror"), "{output:?}");
        assert!(!tree.contains("rustables") && !tree.contains("bindgen"), "{package}: {tree}");
    }
}

#[test]
fn every_dependency_of_ours_has_its_reason_and_its_licence() {
    let manifest = read("Cargo.toml");
    let (_, table) = manifest.split_once("[workspace.dependencies]\n").expect("the table");
    let (table, _) = table.split_once("\n[").expect("its end");
    let licences = dependencies();
    let mut reason = "";
    let mut count = 0;
    for line in table.lines() {
        let name = line.split([' ', '.']).next().expect("a name");
        if name == "#" {
            reason = line;
        } else if !SHIPPED.contains(&name) && !line.is_empty() {
            assert!(reason.contains(' ') && reason.len() > 20, "{name} has no reason");
            if let Some(licence) = licences.get(name) {
                assert!(
                    reason.ends_with(&format!(" {licence}.")),
                    "{name} is `{licence}`: {reason}"
                );
            }
            (reason, count) = ("", count + 1);
        }
    }
    assert!(count >= 10, "{count}");
}
