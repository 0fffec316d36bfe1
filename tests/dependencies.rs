//! What is linked into the programs may be, by the rules of deny.toml: `make deny` checks more, but has to build
//! cargo-deny first.

use std::collections::{BTreeSet, HashMap};
use std::process::Command;

use serde_json::Value;

/// Whether an SPDX expression can be fulfilled with the licences of `allowed`. `/` is an old form of OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words, allowed)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut good = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        good |= all_of(words, allowed);
    }
    good
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut good = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        good &= one(words, allowed);
    }
    good
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    match words.next() {
        Some("(") => {
            let good = any_of(words, allowed);
            words.next();
            good
        }
        Some(name) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().unwrap_or_default();
            allowed.contains(format!("{name} WITH {exception}").as_str())
        }
        Some(name) => allowed.contains(name),
        None => false,
    }
}

#[test]
fn expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "Zlib"]);
    for good in
        ["MIT", "GPL-2.0 OR MIT", "Apache-2.0/MIT", "(X OR MIT) AND Zlib", "X WITH Y OR MIT"]
    {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-2.0", "MIT AND GPL-2.0", "(MIT OR X) AND Y", "MIT WITH X"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn what_is_linked_is_licensed_and_comes_from_crates_io() {
    let root = env!("CARGO_MANIFEST_DIR");
    let rules = std::fs::read_to_string(format!("{root}/deny.toml")).unwrap();
    let rules: toml::Table = rules.parse().unwrap();
    let allowed = rules["licenses"]["allow"].as_array().unwrap();
    let allowed: BTreeSet<&str> = allowed.iter().map(|name| name.as_str().unwrap()).collect();

    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_id = |list: &Value| -> HashMap<String, Value> {
        let entries = list.as_array().unwrap().iter();
        entries.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone())).collect()
    };
    let (packages, nodes) = (by_id(&metadata["packages"]), by_id(&metadata["resolve"]["nodes"]));

    // What is only built with, or tested with, is in no program; nor is what runs in the compiler.
    let runs_in_compiler = |id: &str| {
        let targets = packages[id]["targets"].as_array().unwrap();
        targets.iter().any(|target| target["kind"][0] == "proc-macro")
    };
    let mut linked = BTreeSet::new();
    let mut left = vec![metadata["resolve"]["root"].as_str().unwrap().to_owned()];
    while let Some(id) = left.pop() {
        for dependency in nodes[&id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let id = dependency["pkg"].as_str().unwrap();
            let is_linked =
                kinds.iter().any(|kind| kind["kind"].is_null()) && !runs_in_compiler(id);
            if is_linked && linked.insert(id.to_owned()) {
                left.push(id.to_owned());
            }
        }
    }
    assert!(linked.len() > 50, "{linked:?}");
    for package in linked.iter().map(|id| &packages[id]) {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_allowed(licence, &allowed),
            "{name} is under {licence:?}; deny.toml has what is allowed"
        );
        let source = package["source"].as_str().unwrap_or_default();
        assert!(
            source.starts_with("registry+https://github.com/rust-lang/crates.io-index"),
            "{name}: {source:?}"
        );
    }
}
