//! No import circle between the files of a crate: whoever reads one file can go on to those that it names, and comes to an end.
//!
//! The arrows are the paths that a file names below its crate (`use` and in the text), followed through re-exports to the file that they end in. A file and
//! its own submodules are one room, so arrows between them do not count; nor do files that are there for tests alone. Deliberately absent: macros
//! and globs, which this workspace does not import by.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::layout::{production, workspace};

/// A file by its module's path in the crate; the crate's root is empty.
type Module = Vec<String>;
type Arrows = BTreeMap<Module, BTreeSet<Module>>;

/// The module that the file at `path` holds.
fn module(root: &Path, path: &Path) -> Module {
    let relative = path.strip_prefix(root).expect("below its root").with_extension("");
    let mut parts: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if ["mod", "lib", "main"].contains(&&*parts.last().cloned().unwrap_or_default()) {
        parts.pop();
    }
    parts
}

/// Code without comments, the contents of strings, and its tests.
fn code(source: &str) -> String {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    let joined = lines.collect::<Vec<_>>().join("\n");
    joined.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The paths of one `use` tree.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let body = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&body[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[from..]);
    let of = |part: &&str| paths(part).into_iter().map(|path| format!("{}{path}", prefix.trim())).collect::<Vec<_>>();
    parts.iter().filter(|part| !part.trim().is_empty()).flat_map(of).collect()
}

/// The trees of all `use` items, and whether each is public; and the rest of the code.
fn uses(code: &str) -> (Vec<(bool, &str)>, String) {
    let (mut trees, mut rest, mut from) = (Vec::new(), String::new(), 0);
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_item = line.is_empty() || (line.starts_with("pub") && !line.contains(' ') || line.ends_with(')'));
        if at < from || !is_item {
            continue;
        }
        let Some(end) = code[at..].find(';') else { continue };
        trees.push((line.starts_with("pub"), &code[at + 4..at + end]));
        rest.push_str(&code[from..at]);
        from = at + end + 1;
    }
    rest.push_str(&code[from..]);
    (trees, rest)
}

/// The paths in code that begin at the crate or a module above.
fn inline(code: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code
        .split(|c| !is_name(c))
        .filter(|word| ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start)));
    words.map(|word| word.trim_end_matches(':').to_owned()).collect()
}

struct Files {
    code: BTreeMap<Module, String>,
    /// What a module re-exports, by name: the module that it comes from.
    exports: BTreeMap<(Module, String), Module>,
}

impl Files {
    fn new(code: BTreeMap<Module, String>) -> Self {
        let mut files = Self { code, exports: BTreeMap::new() };
        let mut exports = BTreeMap::new();
        for (module, code) in &files.code {
            for path in uses(code).0.into_iter().filter(|(is_public, _)| *is_public).flat_map(|(_, tree)| paths(tree)) {
                if let Some((found, [name])) =
                    files.find(module, &path).as_ref().map(|(found, rest)| (found, &rest[..]))
                {
                    exports.insert((module.clone(), name.clone()), found.clone());
                }
            }
        }
        files.exports = exports;
        files
    }

    /// The module that `path` leads to, named in `from`, and what is left of it there.
    fn find(&self, from: &Module, path: &str) -> Option<(Module, Vec<String>)> {
        let mut parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
        let mut at = match parts.first()?.as_str() {
            "crate" => Module::new(),
            "self" => from.clone(),
            "super" => {
                let above = parts.iter().take_while(|part| *part == "super").count();
                parts.drain(1..above);
                from[..from.len().checked_sub(above)?].to_vec()
            }
            child if self.code.contains_key(&[from.clone(), vec![child.to_owned()]].concat()) => {
                parts.insert(0, String::new());
                from.clone()
            }
            _ => return None,
        };
        parts.remove(0);
        while let Some(part) = parts.first() {
            let next = [at.clone(), vec![part.clone()]].concat();
            if !self.code.contains_key(&next) {
                break;
            }
            at = next;
            parts.remove(0);
        }
        Some((at, parts))
    }

    fn arrows(&self) -> Arrows {
        let of = |(module, code): (&Module, &String)| {
            let (trees, rest) = uses(code);
            let named = trees.into_iter().flat_map(|(_, tree)| paths(tree)).chain(inline(&rest));
            let found = named.filter_map(|path| {
                let (mut found, rest) = self.find(module, &path)?;
                while let Some(next) = rest.first().and_then(|name| self.exports.get(&(found.clone(), name.clone()))) {
                    if *next == found {
                        break;
                    }
                    found.clone_from(next);
                }
                Some(found)
            });
            let is_apart = |other: &Module| !other.starts_with(module) && !module.starts_with(other);
            (module.clone(), found.filter(is_apart).collect())
        };
        self.code.iter().map(of).collect()
    }
}

/// What can be reached from `from`, without `from` itself unless it lies on a circle.
fn reach(arrows: &Arrows, from: &Module) -> BTreeSet<Module> {
    let (mut found, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(next) = left.pop() {
        left.extend(arrows.get(next).into_iter().flatten().filter(|other| found.insert((*other).clone())));
    }
    found
}

/// The modules that lie on a circle, each with its arrows to others that do.
fn circles(code: BTreeMap<Module, String>) -> Vec<String> {
    let arrows = Files::new(code).arrows();
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        arrows.keys().map(|module| (module, reach(&arrows, module))).collect();
    let is_with = |module: &Module, other: &Module| reached[other].contains(module) && reached[module].contains(other);
    let told = |(module, others): (&Module, &BTreeSet<Module>)| {
        let back: Vec<String> =
            others.iter().filter(|other| is_with(module, other)).map(|other| other.join("::")).collect();
        (!back.is_empty()).then(|| format!("{} -> {}", module.join("::"), back.join(", ")))
    };
    arrows.iter().filter_map(told).collect()
}

#[test]
fn files_of_a_crate_import_in_no_circle() {
    let mut read = 0;
    let mut found = Vec::new();
    for (name, krate) in workspace() {
        let root: PathBuf = krate.root.join("src");
        if !root.is_dir() {
            continue;
        }
        let sources = production(&root).into_iter().map(|path| {
            let source = std::fs::read_to_string(&path).expect("readable");
            (module(&root, &path), code(&source))
        });
        let sources: BTreeMap<Module, String> = sources.collect();
        read += sources.len();
        found.extend(circles(sources).into_iter().map(|circle| format!("{name}: {circle}")));
    }
    assert!(read > 200, "{read} files were read");
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn circle_is_found_however_it_is_closed() {
    let of = |files: &[(&str, &str)]| {
        let module = |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        circles(files.iter().map(|(path, source)| (module(path), code(source))).collect())
    };
    let both = ["a -> b", "b -> a"];
    assert_eq!(of(&[("", ""), ("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "")]), Vec::<String>::new());
    assert_eq!(of(&[("", ""), ("a", "use crate::b::B;"), ("b", "use super::a::{self, A};")]), both);
    assert_eq!(
        of(&[("", ""), ("a", "use crate::{c::C, b::{B, D}};"), ("b", "fn b(_: crate::a::A) {}"), ("c", "")]),
        both
    );
    assert_eq!(of(&[("", "mod a;\npub use a::A;"), ("a", "use crate::b;"), ("b", "pub(crate) use crate::A;")]), both);
    assert_eq!(of(&[("", ""), ("a", "use a::c::C;"), ("a::c", "use super::A;")]), Vec::<String>::new(), "one room");
    let unnamed = [
        ("", ""),
        ("a", "use crate::b::B;"),
        ("b", "// crate::a\nfn b() { \"crate::a::A\" }\n#[cfg(test)]\nmod tests {\nuse crate::a::A;\n}"),
    ];
    assert_eq!(of(&unnamed), Vec::<String>::new());
}
