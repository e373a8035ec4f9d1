//! `tests/README.md` has a row for each test file, and a test file for each row.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The source file of each test target of the workspace, as cargo knows them.
fn test_files(root: &Path) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .expect("cargo");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let targets =
        packages.iter().flat_map(|package| package["targets"].as_array().expect("targets"));
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let root = root.to_str().expect("UTF-8");
    let path = |target: &Value| {
        target["src_path"].as_str()?.strip_prefix(root)?.strip_prefix('/').map(Into::into)
    };
    tests.map(|target| path(target).expect("a path in the workspace")).collect()
}

/// The first column of the rows whose first column is the path of a Rust file.
fn rows(page: &str) -> BTreeSet<String> {
    let first = |line: &str| Some(line.strip_prefix("| `")?.split_once("` |")?.0.to_string());
    page.lines()
        .filter_map(first)
        .filter(|path| Path::new(path).extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn every_test_file_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    assert_eq!(rows(include_str!("../README.md")), test_files(root));
}
