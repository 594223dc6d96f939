//! Documents lead where they say.

use std::path::Path;

use crate::{files, read, root};

/// The targets of a Markdown text's links, outside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        }
        if in_fence {
            continue;
        }
        // Every second piece between backticks is code.
        for prose in line.split('`').step_by(2) {
            found.extend(prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned));
        }
        // A link's text may be code: its target then begins a piece.
        found.extend(line.split("`](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned));
    }
    found.sort();
    found.dedup();
    found
}

/// The name that a heading is linked by, as code hosts make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn has_anchor(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    headings.map(anchor).any(|found| found == wanted)
}

#[test]
fn relative_links_resolve() {
    let mut documents = vec![root().join("README.md")];
    for folder in ["docs", "schemas", "tests", "libs", "services", "load-tests", "dashboards"] {
        documents.extend(files(&root().join(folder), "md"));
    }
    let mut broken = Vec::new();
    let mut checked = 0;
    for document in &documents {
        let text = read(document);
        for link in links(&text).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            checked += 1;
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { document.clone() } else { document.parent().unwrap_or(Path::new("")).join(path) };
            let is_there = target.exists() && (fragment.is_empty() || has_anchor(&read(&target), fragment));
            if !is_there {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(checked > 20, "only {checked} links found");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn policies_and_configurations_in_the_readme_are_valid() {
    let examples = blocks(&read(&root().join("README.md")), "yaml");
    assert_eq!(examples.len(), 5, "{examples:?}");
    let policy = headroom_config::load_policy("README.md", &examples[0]);
    assert!(policy.is_ok(), "{}", policy.unwrap_err());
    for text in [&examples[1], &examples[3], &examples[4]] {
        let file = Some(("README.md", text.as_str()));
        let configuration = headroom_config::Config::load(&headroom_config::LoadArgs { file, ..Default::default() });
        assert!(configuration.is_ok(), "{}", configuration.unwrap_err());
    }
    let token_of = |file: &str| Ok(format!("the token that lies in {file}").into_bytes());
    let callers = headroom_access::Callers::parse("README.md", &examples[2], &token_of);
    assert_eq!(callers.map(|callers| callers.len()), Ok(4));
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    let text = "[a](b.md) and `[c](d.md)`, [`e`](f.md#g)\n```\n[h](i.md)\n```\n";
    assert_eq!(links(text), ["b.md", "f.md#g"]);
    assert_eq!(anchor(" What one sees: `GET /v1/inputs`"), "what-one-sees-get-v1inputs");
}
