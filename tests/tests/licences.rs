//! The licences of what ephport ships, as cargo lists them: `deny.toml` allows each, and each
//! dependency has its reason and its licence in the root `Cargo.toml`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use spdx::{Expression, ParseMode};
use toml::de::DeTable;

/// Name and licence of each package in a build of the shipped crates with these features.
fn packages(features: &str) -> BTreeMap<String, String> {
    let shipped = ["ephport-core", "ephport-nft", "ephport-cli"].map(|name| ["--package", name]);
    tree(&[shipped.as_flattened(), &["--edges", "normal", "--features", features]].concat())
}

/// Name and licence of each package that `cargo tree` lists with these arguments.
fn tree(arguments: &[&str]) -> BTreeMap<String, String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}|{l}"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{output:?}");
    let tree = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = tree.lines().filter_map(|line| line.split_once('|'));
    let name = |package: &str| package.split_whitespace().next().expect("a name").into();
    lines.map(|(package, licence)| (name(package), licence.into())).collect()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The packages whose licence `deny.toml` does not allow.
fn denied(features: &str) -> Vec<String> {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let deny = DeTable::parse(&deny).expect("TOML");
    let allowed = deny.get_ref()["licenses"].get_ref()["allow"].get_ref().as_array();
    let allowed: Vec<_> =
        allowed.expect("a list").iter().filter_map(|licence| licence.get_ref().as_str()).collect();
    let is_met = |licence: &String| {
        let expression = Expression::parse_mode(licence, ParseMode::LAX).expect(licence);
        expression.evaluate(|one| allowed.contains(&one.to_string().as_str()))
    };
    let packages = packages(features);
    assert!(packages.len() > 20, "{packages:?}");
    packages.into_iter().filter(|(_, licence)| !is_met(licence)).map(|(name, _)| name).collect()
}

#[test]
fn every_licence_is_allowed() {
    assert_eq!(denied("ephport-nft/proptest,ephport-nft/fuzz"), [""; 0]);
    assert_eq!(denied(""), [""; 0]);
    assert!(!packages("").keys().any(|name| name == "rustables"));
}

#[test]
#[cfg(feature = "rustables")]
fn only_the_feature_rustables_contains_the_gpl() {
    assert_eq!(denied("ephport-nft/rustables"), ["rustables", "rustables-macros"]);
}

/// A program that only computes with ports compiles a handful of crates, and links three of them.
#[test]
fn ephport_core_without_features_is_small() {
    let names = |edges| {
        let bare = ["--package", "ephport-core", "--no-default-features", "--edges", edges];
        tree(&bare).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(names("normal,no-proc-macro"), ["ephport-core", "ipnet", "thiserror"]);
    let macros = ["proc-macro2", "quote", "syn", "thiserror-impl", "unicode-ident"];
    let mut all = [&["ephport-core", "ipnet", "thiserror"], &macros[..]].concat();
    all.sort_unstable();
    assert_eq!(names("normal"), all);
}

#[test]
fn every_dependency_has_its_reason_and_its_licence() {
    let licences = packages("");
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let lines: Vec<_> = manifest.lines().collect();
    let manifest = DeTable::parse(&manifest).expect("TOML");
    let dependencies = manifest.get_ref()["workspace"].get_ref()["dependencies"].get_ref();
    for name in dependencies.as_table().expect("a table").keys() {
        let name = name.get_ref();
        let line = lines.iter().position(|line| line.starts_with(&format!("{name} ")));
        let reason = line.and_then(|line| lines.get(line.checked_sub(1)?)).expect("a line above");
        let is_reason = reason.starts_with("# ") && reason.len() > 20;
        assert!(is_reason || name.starts_with("ephport-"), "{name}: {reason}");
        if let Some(licence) = licences.get(name.as_ref()).filter(|_| is_reason) {
            assert!(reason.ends_with(&format!(" {licence}.")), "{name} is `{licence}`: {reason}");
        }
    }
}
