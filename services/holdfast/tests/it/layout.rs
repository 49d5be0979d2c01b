//! Which way crates may lean, who may name what, and what domains and money never hold: layout.md as a test.
//!
//! The rules are functions over what `cargo metadata` says, so that each is shown to fail on a planted
//! violation. Deliberately absent: what `cargo deny` already holds (licenses, sources).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::source::{code, is_name};

/// A crate of this workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Krate {
    /// Where its sources are.
    pub(crate) root: PathBuf,
    /// What it is built with: normal and build dependencies.
    leans_on: BTreeSet<String>,
    /// What only its tests, benches and examples are built with.
    tests_with: BTreeSet<String>,
}

pub(crate) type Workspace = BTreeMap<String, Krate>;

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn workspace() -> Workspace {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--no-deps", "--manifest-path"];
    let output = Command::new(cargo).args(arguments).arg(manifest).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let krate = |package: &Value| {
        let mut krate = Krate {
            root: Path::new(&text(&package["manifest_path"])).parent().unwrap().to_owned(),
            ..Krate::default()
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let side = if dependency["kind"] == "dev" { &mut krate.tests_with } else { &mut krate.leans_on };
            side.insert(text(&dependency["name"]));
        }
        (text(&package["name"]), krate)
    };
    metadata["packages"].as_array().expect("packages").iter().map(krate).collect()
}

fn is_domain(name: &str) -> bool {
    name.ends_with("-domain")
}

/// Contexts: each has a domain.
fn contexts(workspace: &Workspace) -> BTreeSet<String> {
    let of = |name: &String| name.strip_suffix("-domain").map(str::to_owned);
    workspace.keys().filter_map(of).collect()
}

/// What a crate under `actors/` may lean on among ours.
fn allowed_of_ours(name: &str) -> Option<BTreeSet<String>> {
    match name {
        "holdfast-core" | "holdfast-stack" | "holdfast-money" | "holdfast-proto" => Some(names(&[])),
        "holdfast-machine" | "holdfast-kafka" | "holdfast-postgres" => Some(names(&["holdfast-core"])),
        "holdfast-runtime" | "holdfast-testkit" => Some(names(&["holdfast-machine", "holdfast-core"])),
        name if is_domain(name) => Some(names(&["holdfast-core", "holdfast-money"])),
        _ => None,
    }
}

/// The direction of every arrow between crates of ours.
fn arrows(workspace: &Workspace) -> Vec<String> {
    let contexts = contexts(workspace);
    let mut wrong = Vec::new();
    for (name, krate) in workspace {
        for other in krate.leans_on.iter().filter(|other| workspace.contains_key(*other)) {
            if allowed_of_ours(name).is_some_and(|allowed| !allowed.contains(other)) {
                wrong.push(format!("{name} leans on {other}"));
            }
            if contexts.contains(other) && name != "holdfast" {
                wrong.push(format!("{name} leans on the service {other}; only the binary may"));
            }
            if is_domain(other) && format!("{name}-domain") != *other {
                wrong
                    .push(format!("{name} leans on {other}, which is not its own domain; services meet through proto"));
            }
            if other == "holdfast" {
                wrong.push(format!("{name} leans on the binary"));
            }
        }
        let stranger = |other: &&String| contexts.contains(*other) && name != "holdfast";
        if let Some(other) = krate.tests_with.iter().find(stranger) {
            wrong.push(format!("the tests of {name} lean on the service {other}"));
        }
    }
    wrong
}

/// Who may name what. `load-tests` shares no code with what it checks, so it may name the log and the
/// database.
const NAMED_BY: [(&str, &[&str]); 5] = [
    ("rdkafka", &["holdfast-kafka", "holdfast-load-tests"]),
    ("rdkafka-sys", &[]),
    ("sqlx", &["holdfast-postgres", "holdfast-load-tests"]),
    ("backoff", &["holdfast-runtime"]),
    ("ractor", &["holdfast-runtime"]),
];

/// What a pure crate may not lean on; its tests may.
const IMPURE: [&str; 11] =
    ["tokio", "sqlx", "rdkafka", "ractor", "tonic", "chrono", "time", "futures", "rustix", "tracing", "metrics"];

fn is_pure(name: &str) -> bool {
    is_domain(name) || ["holdfast-money", "holdfast-core", "holdfast-machine"].contains(&name)
}

fn names_what_it_may_not(workspace: &Workspace) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, krate) in workspace {
        for (named, by) in NAMED_BY {
            let tests_too = krate.leans_on.union(&krate.tests_with).any(|other| other == named);
            if tests_too && !by.contains(&name.as_str()) {
                wrong.push(format!("{name} names {named}"));
            }
        }
        if is_pure(name) {
            let impure = IMPURE.iter().filter(|other| krate.leans_on.contains(**other));
            wrong.extend(impure.map(|other| format!("{name} is pure and leans on {other}")));
        }
    }
    wrong
}

/// Words that a source may not hold, comments and strings apart. A float loses cents; a clock makes a
/// decision differ when it is replayed.
fn words(name: &str) -> &'static [&'static str] {
    /// Neither time nor chance nor the order of a hash map may decide what a machine does, or it would not
    /// replay.
    const MACHINE: [&str; 9] =
        ["SystemTime", "Instant", "thread_rng", "now_v7", "new_v4", "draw", "async", "HashMap", "HashSet"];
    const CLOCKS: [&str; 6] = ["f32", "f64", "SystemTime", "Instant", "thread_rng", "async"];
    match name {
        name if is_domain(name) => &CLOCKS,
        "holdfast-machine" => &MACHINE,
        "holdfast-money" => &CLOCKS[..2],
        _ => &[],
    }
}

/// The lines of `source` that hold one of `words` as a whole word, outside of comments.
fn forbidden_words(source: &str, words: &[&str]) -> Vec<String> {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let holds =
        |line: &str| code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| words.contains(&word));
    source.lines().filter(|line| holds(line)).map(|line| line.trim().to_owned()).collect()
}

/// The Rust sources below `root`.
pub(crate) fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The sources below `root` that are built into a program: without the files of modules that are there for
/// tests alone.
pub(crate) fn production(root: &Path) -> Vec<PathBuf> {
    let all = sources(root);
    let tests: BTreeSet<PathBuf> = all
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let home = if ["lib", "main", "mod"].contains(&&*stem) {
                path.parent().unwrap().to_owned()
            } else {
                path.with_extension("")
            };
            test_modules(&text).into_iter().map(|name| home.join(name)).collect::<Vec<_>>()
        })
        .collect();
    let is_test =
        |path: &PathBuf| tests.iter().any(|module| path.with_extension("") == *module || path.starts_with(module));
    all.into_iter().filter(|path| !is_test(path)).collect()
}

/// The modules that `source` declares for tests alone, in files of their own.
fn test_modules(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").map(|pair| pair[1]);
    declared.filter_map(|line| Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())).collect()
}

/// The lines of `source`, up to its tests, that name other rules than the sound ones, or change one (I9).
fn unsound_rules(source: &str) -> Vec<String> {
    let is_other = |line: &&str| {
        let names = line.replace("Rules::SOUND", "").replace("rules::Rules", "");
        let renames = line.contains("Rules as "); // what is named otherwise is not found here
        names.contains("Rules::") || names.contains("Rules {") || renames || assigns_rule(line) || lends_rules(line)
    };
    code(source).lines().filter(is_other).map(|line| line.trim().to_owned()).collect()
}

/// Whether `line` gives one of some rules another value.
fn assigns_rule(line: &str) -> bool {
    line.split("rules.").skip(1).any(|rest| {
        let rest = rest.trim_start_matches(is_name).trim_start();
        let is_plain = rest.starts_with('=') && !rest.starts_with("==") && !rest.starts_with("=>");
        is_plain || ["&=", "|=", "^="].iter().any(|operator| rest.starts_with(operator))
    })
}

/// Whether `line` lets some rules, or one of them, be changed elsewhere.
fn lends_rules(line: &str) -> bool {
    line.split("&mut ").skip(1).any(|rest| {
        let end = rest.find(|c| !is_name(c) && !".()[]*".contains(c)).unwrap_or(rest.len());
        let place = rest[..end].trim_matches(|c| "()[]".contains(c));
        place.rsplit('.').take(2).any(|part| part.ends_with("rules"))
    })
}

#[test]
fn production_names_sound_rules_alone() {
    let mut read = 0;
    for (name, krate) in workspace().into_iter().filter(|(name, _)| name != "holdfast-testkit") {
        for path in production(&krate.root.join("src")) {
            if name == "holdfast-machine" && path.ends_with("src/rules.rs") {
                continue; // where they are defined
            }
            read += 1;
            let found = unsound_rules(&std::fs::read_to_string(&path).unwrap());
            assert_eq!(found, Vec::<String>::new(), "{}", path.display());
        }
    }
    assert!(read > 100, "{read} sources were read");
}

#[test]
fn crates_lean_only_the_way_the_layout_says() {
    let workspace = workspace();
    assert!(workspace.len() > 10 && contexts(&workspace).len() >= 2, "not the workspace: {:?}", workspace.keys());
    assert_eq!(arrows(&workspace), Vec::<String>::new());
}

#[test]
fn log_database_and_retry_loop_are_each_named_by_one_crate() {
    assert_eq!(names_what_it_may_not(&workspace()), Vec::<String>::new());
}

/// What cargo would compile: each crate of the program with the features that it is compiled with.
///
/// The graph is cargo's own, but only shown to who asks as a nightly would; the toolchain is pinned.
fn units(command: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(command)
        .args(["--release", "--locked", "--offline", "-Zunstable-options", "--unit-graph"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .env("RUSTC_BOOTSTRAP", "1")
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let graph: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let unit = |unit: &Value| {
        let part = |name: &str| unit[name].to_string();
        format!("{} {} {} {}", part("pkg_id"), unit["target"]["name"], part("mode"), part("features"))
    };
    graph["units"].as_array().expect("units").iter().map(unit).collect()
}

#[test]
fn program_compiles_once_for_demo_and_tests() {
    let (demo, tests) = (units(&["build"]), units(&["test", "--workspace", "--no-run"]));
    assert!(demo.len() > 300 && tests.len() > demo.len(), "{} and {} units", demo.len(), tests.len());
    let twice: Vec<&String> = demo.difference(&tests).collect();
    assert!(twice.is_empty(), "tests compile these again, with features that the program lacks: {twice:#?}");
}

#[test]
fn pure_crates_hold_no_float_and_no_clock() {
    let mut read = 0;
    for (name, krate) in workspace() {
        let words = words(&name);
        if words.is_empty() {
            continue;
        }
        for path in production(&krate.root.join("src")) {
            read += 1;
            if path.ends_with("machine/src/table.rs") {
                continue; // the one hash map, which never shows its order
            }
            let found = forbidden_words(&std::fs::read_to_string(&path).unwrap(), words);
            assert_eq!(found, Vec::<String>::new(), "{}", path.display());
        }
    }
    assert!(read > 5, "{read} sources were read");
}

/// Whether `source` names the crate backoff, and not our module of that name.
fn names_backoff(source: &str) -> bool {
    source.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default().replace("crate::backoff", "");
        code.contains("::backoff") || code.trim_start().starts_with("use backoff")
    })
}

#[test]
fn backoff_is_named_by_one_file() {
    let runtime = workspace()["holdfast-runtime"].root.join("src");
    let naming: Vec<PathBuf> =
        sources(&runtime).into_iter().filter(|path| names_backoff(&std::fs::read_to_string(path).unwrap())).collect();
    assert_eq!(naming, [runtime.join("backoff.rs")]);
}

/// Each rule, on a workspace in which it is broken.
#[test]
fn every_rule_is_broken_by_what_breaks_it() {
    let sound = || {
        let krate = |leans_on: &[&str]| Krate { leans_on: names(leans_on), ..Krate::default() };
        let mut workspace = Workspace::new();
        for (name, leans_on) in [
            ("holdfast-core", &[][..]),
            ("holdfast-money", &[]),
            ("holdfast-stack", &["tokio"]),
            ("holdfast-proto", &["prost"]),
            ("holdfast-machine", &["holdfast-core"]),
            ("holdfast-runtime", &["holdfast-core", "holdfast-machine", "backoff", "ractor"]),
            ("holdfast-kafka", &["holdfast-core", "rdkafka"]),
            ("holdfast-postgres", &["holdfast-core", "sqlx"]),
            ("holdfast-testkit", &["holdfast-core"]),
            ("holdfast-a-domain", &["holdfast-core", "holdfast-money"]),
            ("holdfast-b-domain", &["holdfast-core"]),
            ("holdfast-a", &["holdfast-a-domain", "holdfast-runtime", "holdfast-proto"]),
            ("holdfast-b", &["holdfast-b-domain", "holdfast-runtime", "holdfast-proto"]),
            ("holdfast", &["holdfast-a", "holdfast-b", "holdfast-stack"]),
        ] {
            workspace.insert(name.to_owned(), krate(leans_on));
        }
        workspace
    };
    let complaints = |workspace: &Workspace| [arrows(workspace), names_what_it_may_not(workspace)].concat();
    assert_eq!(complaints(&sound()), Vec::<String>::new());
    for (name, other, tests) in [
        ("holdfast-core", "holdfast-money", false),
        ("holdfast-core", "tokio", false),
        ("holdfast-core", "holdfast-machine", false),
        ("holdfast-machine", "holdfast-runtime", false),
        ("holdfast-machine", "tokio", false),
        ("holdfast-machine", "tracing", false),
        ("holdfast-kafka", "holdfast-machine", false),
        ("holdfast-runtime", "holdfast-kafka", false),
        ("holdfast-kafka", "holdfast-runtime", false),
        ("holdfast-testkit", "holdfast-runtime", false),
        ("holdfast-stack", "holdfast-core", false),
        ("holdfast-a-domain", "holdfast-runtime", false),
        ("holdfast-a-domain", "chrono", false),
        ("holdfast-a-domain", "sqlx", false),
        ("holdfast-a", "holdfast-b", false),
        ("holdfast-a", "holdfast-b", true),
        ("holdfast-a", "holdfast-b-domain", false),
        ("holdfast-a", "sqlx", true),
        ("holdfast-a", "rdkafka", false),
        ("holdfast-a", "backoff", false),
        ("holdfast-a", "holdfast", false),
        ("holdfast-proto", "holdfast-a", false),
    ] {
        let mut broken = sound();
        let krate = broken.get_mut(name).unwrap();
        let side = if tests { &mut krate.tests_with } else { &mut krate.leans_on };
        side.insert(other.to_owned());
        let found = complaints(&broken);
        assert!(found.iter().any(|complaint| complaint.contains(name) && complaint.contains(other)), "{name}, {other}");
    }
    assert!(names_backoff("use ::backoff::X;") && names_backoff("use backoff::X;"));
    assert!(!names_backoff("use crate::{backoff::Backoff, x}; // ::backoff") && !names_backoff("crate::backoff::X"));
    let source = "let a: f64 = 1.0;\nlet b = \"x\"; // no f64 here\nfn async_like() {}\nInstant::now()";
    assert_eq!(forbidden_words(source, words("holdfast-a-domain")), ["let a: f64 = 1.0;", "Instant::now()"]);
    assert_eq!(forbidden_words("let now = Instant::now();", words("holdfast-machine")), ["let now = Instant::now();"]);
    assert_eq!(test_modules("mod a;\n#[cfg(test)]\nmod model;\n#[cfg(test)]\nmod tests {\n}"), ["model"]);
    for unsound in [
        "Rules { a: false, ..Rules::SOUND }",
        "config.rules.a = false;",
        "config.rules.a &= b;",
        "rules.a |= b;",
        "rules.a ^= true;",
        "Rules::default()",
        "use holdfast_machine::Rules as R;",
        "use holdfast_machine::{rules::Rules as R, x};",
        "change(&mut self.rules);",
        "change(&mut (*config).rules, x);",
        "let all = &mut rules;",
        "std::mem::take(&mut config.rules.a);",
    ] {
        assert_eq!(unsound_rules(unsound), [unsound]);
    }
    let sound = "if !config.rules.a == b { Rules::SOUND }\nSome(x) if rules.a => y\nlet rules: Rules = x;\nf(&mut lane, rules);\n// Rules::default()\n#[cfg(test)]\nmod tests {\nRules { a: false }";
    assert_eq!(unsound_rules(sound), Vec::<String>::new());
    assert_eq!(unsound_rules("\"http://x\"; rules.a = false;\n#[cfg(test)]\nmod tests;\nRules::default()").len(), 2);
    assert_eq!(forbidden_words(source, words("holdfast-money")), ["let a: f64 = 1.0;"]);
}
