//! The repository's own shape.

use std::collections::BTreeSet;
use std::process::Command;

use crate::{files, read, root};

/// Names at the top. A new one is a decision about where things are found, so it is made here.
const TOP: [&str; 12] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "dashboards",
    "docker-compose.yml",
    "docs",
    "libs",
    "load-tests",
    "schemas",
    "services",
    "tests",
];

/// What is committed at the top; without git (a source archive), what lies there but for what builds leave behind.
fn top_level_names() -> BTreeSet<String> {
    let git = Command::new("git").args(["ls-tree", "--name-only", "HEAD"]).current_dir(root()).output();
    if let Ok(output) = git.as_ref()
        && output.status.success()
    {
        return String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    }
    let entries = std::fs::read_dir(root()).expect("the repository can be read");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "target").collect()
}

#[test]
fn nothing_unexpected_lies_at_the_top() {
    let names = top_level_names();
    assert!(names.contains("Cargo.toml"), "{names:?}");
    let strangers: Vec<&String> =
        names.iter().filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let roots: Vec<_> = ["libs", "services", "load-tests"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), "rs"))
        .filter(|path| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"))
        .collect();
    assert!(roots.len() > 15, "{roots:?}");
    let without: Vec<_> =
        roots.iter().filter(|path| !read(path).lines().any(|line| line == "#![forbid(unsafe_code)]")).collect();
    assert!(without.is_empty(), "{without:#?}");
}
