//! Dependencies go strictly down. The manifests say each crate's layer; here they are held to it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::{read, root};

/// What layers 0 to 2 may use: columns, expressions, maps, a string distance. No clock, no I/O, no threads, no serde.
const ALLOWED_IN_THE_CORE: [&str; 3] = ["hashbrown", "rustc-hash", "strsim"];

/// What any crate may use in its tests, whatever its layer.
const ALLOWED_IN_TESTS: [&str; 2] = ["headroom-testkit", "headroom-config"];

struct Crate {
    name: String,
    /// From the top of the repository, such as `libs/model`.
    folder: String,
    layer: u64,
    /// Name, whether it is ours, whether only tests use it.
    dependencies: Vec<(String, bool, bool)>,
}

fn crates() -> Vec<Crate> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs, for it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    packages.iter().map(crate_of).collect()
}

fn crate_of(package: &Value) -> Crate {
    let name = package["name"].as_str().unwrap_or_default().to_owned();
    let layer = package["metadata"]["headroom"]["layer"].as_u64();
    let dependency = |dependency: &Value| {
        let name = dependency["name"].as_str().unwrap_or_default().to_owned();
        (name, !dependency["path"].is_null(), dependency["kind"] == "dev")
    };
    let manifest = package["manifest_path"].as_str().unwrap_or_default().replace('\\', "/");
    let parts: Vec<&str> = manifest.trim_end_matches("/Cargo.toml").rsplitn(3, '/').collect();
    Crate {
        folder: format!("{}/{}", parts[1], parts[0]),
        layer: layer.unwrap_or_else(|| panic!("{name}: its manifest lacks [package.metadata.headroom] layer")),
        dependencies: package["dependencies"].as_array().into_iter().flatten().map(dependency).collect(),
        name,
    }
}

#[test]
fn every_dependency_lies_in_a_lower_layer() {
    let crates = crates();
    let layers: BTreeMap<&str, u64> = crates.iter().map(|each| (each.name.as_str(), each.layer)).collect();
    let mut wrong = Vec::new();
    for each in &crates {
        for (name, is_ours, is_dev) in &each.dependencies {
            if !is_ours || (*is_dev && ALLOWED_IN_TESTS.contains(&name.as_str())) {
                continue;
            }
            match layers.get(name.as_str()) {
                Some(layer) if *layer < each.layer => {}
                other => wrong.push(format!("{} (layer {}) uses {name} (layer {other:?})", each.name, each.layer)),
            }
        }
    }
    assert!(layers.len() > 15, "only {layers:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_knows_columns_and_expressions_only() {
    let mut wrong = Vec::new();
    for each in crates().iter().filter(|each| each.layer <= 2) {
        for (name, is_ours, is_dev) in &each.dependencies {
            let is_datafusion = name.starts_with("datafusion-") || name == "sqlparser";
            let is_allowed = *is_ours
                || *is_dev
                || name.starts_with("arrow-")
                || ALLOWED_IN_THE_CORE.contains(&name.as_str())
                || (is_datafusion && each.name == "headroom-expr");
            if !is_allowed {
                wrong.push(format!("{} uses {name}", each.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Batches of two majors are different types to the compiler and look alike to people.
#[test]
fn there_is_one_arrow() {
    let lock = read(&root().join("Cargo.lock"));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(quoted) = line.strip_prefix("name = ") {
            name = quoted.trim_matches('"');
        } else if let Some(quoted) = line.strip_prefix("version = ").filter(|_| name.starts_with("arrow-")) {
            versions.entry(name).or_default().push(quoted.trim_matches('"'));
        }
    }
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    let majors: std::collections::BTreeSet<String> =
        versions.values().flatten().map(|version| major(version)).collect();
    assert!(versions.contains_key("arrow-schema"), "{versions:?}");
    assert_eq!(majors.len(), 1, "{versions:?}");
    assert!(versions.values().all(|each| each.len() == 1), "{versions:?}");
}

#[test]
fn the_map_of_crates_agrees_with_the_manifests() {
    let map = read(&root().join("docs/ARCHITECTURE.md"));
    let is_there =
        |each: &&Crate| map.lines().any(|line| line.starts_with(&format!("| {} | `{}`", each.layer, each.folder)));
    let missing: Vec<String> = crates()
        .iter()
        .filter(|each| !is_there(each))
        .map(|each| format!("| {} | `{}` |", each.layer, each.folder))
        .collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md lacks {missing:#?}");
}

/// The way of a data point is worth nothing once a file on it has moved.
#[test]
fn files_named_in_the_architecture_exist() {
    let map = read(&root().join("docs/ARCHITECTURE.md"));
    let mut folder = String::new();
    let mut checked = 0;
    let code = map.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs"));
    for file in code {
        // A name alone lies beside the file before it, or beside its folder.
        let path = if file.contains("libs/") || file.contains("services/") {
            folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
            file.to_owned()
        } else {
            format!("{folder}/{file}")
        };
        checked += 1;
        assert!(root().join(&path).is_file(), "there is no {path}");
    }
    assert!(checked > 30, "only {checked} files found");
}
