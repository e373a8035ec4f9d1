//! `tests/README.md` has a row for each test file, and a test file for each row. The tests that a page of docs names
//! exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ephport_tests::markdown::{first_cells, missing_tests};
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

/// The rows whose first column is the path of a Rust file.
fn rows(page: &str) -> BTreeSet<String> {
    let is_rust = |path: &String| Path::new(path).extension().is_some_and(|e| e == "rs");
    first_cells(page).into_iter().filter(is_rust).collect()
}

#[test]
fn every_test_file_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    assert_eq!(rows(include_str!("../README.md")), test_files(root));
}

#[test]
fn tests_named_in_the_docs_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for (page, least) in [("docs/client.md", 26), ("docs/faults.md", 100), ("docs/rfc.md", 26)] {
        let (count, missing) =
            missing_tests(root, &fs::read_to_string(root.join(page)).expect(page));
        assert_eq!(missing, Vec::<String>::new(), "{page}");
        assert!(count >= least, "{page}: {count}");
    }
}
