//! Import circles between the files of a crate: there are none, so a reader of one file can go on to those
//! that it names, and comes to an end.
//!
//! The arrows are the paths that a file names below its crate, in `use` and in the text, followed through
//! imports and re-exports to the file that they end in; what is another crate's, or a macro, ends in the last
//! file that passes it on. A file and those of its own submodules are one room. Invariant: a circle lies
//! within one room and goes through the file that the room is named after; without that file there is none.
//! The crate's root is in every file's room, so it is left out of the graph, as are files that are there for
//! tests alone. Deliberately absent: the names that a glob brings (its arrow ends at the module that it
//! names), what comes out of a macro or by `#[macro_use]`, and a tree of modules within one file, which is
//! read as that file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    layout::{production, workspace},
    source::{code, is_name},
};

/// A file by its module's path in the crate; the crate's root is empty.
type Module = Vec<String>;
type Arrows = BTreeMap<Module, BTreeSet<Module>>;

/// The module that the file at `path` holds. A program beside a library is no root of its files.
fn module(root: &Path, path: &Path) -> Module {
    let relative = path.strip_prefix(root).expect("below its root").with_extension("");
    let mut parts: Module = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_root = |name: &str| parts.len() == 1 && (name == "lib" || name == "main" && !root.join("lib.rs").exists());
    if parts.last().is_some_and(|name| name == "mod" || is_root(name)) {
        parts.pop();
    }
    parts
}

/// The paths of one `use` tree, each with the name that it is imported under.
fn paths(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = path.trim();
        let path = path.strip_suffix("::self").unwrap_or(path);
        let name = if name.is_empty() { path.rsplit("::").next().unwrap_or_default() } else { name.trim() };
        return vec![(path.to_owned(), name.to_owned())];
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
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| paths(&format!("{}{part}", prefix.trim()))).collect()
}

/// The trees of all `use` items; and the rest of the code.
fn uses(code: &str) -> (Vec<&str>, String) {
    let (mut trees, mut rest, mut from) = (Vec::new(), String::new(), 0);
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rsplit('\n').next().unwrap_or_default().trim();
        let is_item = line.is_empty() || line == "pub" || line.starts_with("pub(") && line.ends_with(')');
        if at < from || !is_item {
            continue;
        }
        let Some(end) = code[at..].find(';') else { continue };
        trees.push(&code[at + 4..at + end]);
        rest.push_str(&code[from..at]);
        from = at + end + 1;
    }
    rest.push_str(&code[from..]);
    (trees, rest)
}

/// The paths in code: whatever has a module before a name.
fn inline(code: &str) -> Vec<String> {
    let words = code.split(|c| !is_name(c) && c != ':').map(|word| word.trim_end_matches(':'));
    words.filter(|word| word.contains("::")).map(str::to_owned).collect()
}

struct Files {
    /// The paths that a module names, in `use` and in its text.
    named: BTreeMap<Module, Vec<String>>,
    /// The path that a module imports by a name. Its submodules name it there, too.
    imports: BTreeMap<(Module, String), String>,
}

impl Files {
    fn new(code: &BTreeMap<Module, String>) -> Self {
        let (mut named, mut imports) = (BTreeMap::new(), BTreeMap::new());
        for (module, code) in code {
            let (trees, rest) = uses(code);
            let trees: Vec<_> = trees.into_iter().flat_map(paths).collect();
            let all = trees.iter().map(|(path, _)| path.clone()).chain(inline(&rest)).collect();
            named.insert(module.clone(), all);
            imports.extend(trees.into_iter().map(|(path, name)| ((module.clone(), name), path)));
        }
        Self { named, imports }
    }

    /// The module that `path` leads to, named in `from`; `None` if it leads out of the crate. `passed` are
    /// the imports on the way: none is followed twice, so this ends.
    fn find(&self, from: &Module, path: &str, passed: &mut BTreeSet<(Module, String)>) -> Option<Module> {
        let mut parts = path.split("::").map(str::trim).peekable();
        let mut at = from.clone();
        match *parts.peek()? {
            "crate" => at.clear(),
            "super" | "self" => {}
            first => {
                let name = (from.clone(), first.to_owned());
                let is_known = self.imports.contains_key(&name) && !passed.contains(&name);
                if !is_known && !self.named.contains_key(&child(from, first)) {
                    return None;
                }
            }
        }
        while let Some(part) = parts.next() {
            let (below, name) = (child(&at, part), (at.clone(), part.to_owned()));
            match part {
                "crate" | "self" => {}
                "super" => _ = at.pop()?,
                _ if self.named.contains_key(&below) => at = below,
                _ => {
                    let Some(import) = self.imports.get(&name).filter(|_| passed.insert(name.clone())) else { break };
                    let rest: String = parts.flat_map(|part| ["::", part]).collect();
                    // What is imported from elsewhere, or is the module's own macro, is named by this module.
                    return self.find(&at, &format!("{import}{rest}"), passed).or(Some(at));
                }
            }
        }
        Some(at)
    }

    /// From each module to those that it names; the root is neither.
    fn arrows(&self) -> Arrows {
        let of = |(module, named): (&Module, &Vec<String>)| {
            let found = named.iter().filter_map(|path| self.find(module, path, &mut BTreeSet::new()));
            (module.clone(), found.filter(|other| other != module && !other.is_empty()).collect())
        };
        self.named.iter().filter(|(module, _)| !module.is_empty()).map(of).collect()
    }
}

fn child(module: &Module, name: &str) -> Module {
    let mut child = module.clone();
    child.push(name.to_owned());
    child
}

/// What can be reached from `from` within `all`, without `from` itself unless it lies on a circle.
fn reach<'a>(arrows: &'a Arrows, all: &BTreeSet<&Module>, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut found, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(next) = left.pop() {
        let others = arrows.get(next).into_iter().flatten();
        left.extend(others.filter(|other| all.contains(other) && found.insert(*other)));
    }
    found
}

/// The strongly connected components of `all` that are no room.
fn components<'a>(arrows: &'a Arrows, all: &BTreeSet<&'a Module>) -> Vec<BTreeSet<&'a Module>> {
    let reached: BTreeMap<&Module, _> = all.iter().map(|module| (*module, reach(arrows, all, module))).collect();
    let of = |module: &&'a Module| -> BTreeSet<&'a Module> {
        reached[module].iter().copied().filter(|other| reached[other].contains(module)).collect()
    };
    let circles: BTreeSet<BTreeSet<&Module>> = all.iter().map(of).filter(|circle| circle.len() > 1).collect();
    let mut found = Vec::new();
    for mut circle in circles {
        let top = circle.iter().copied().find(|top| circle.iter().all(|other| other.starts_with(top)));
        if let Some(top) = top {
            circle.remove(top);
            found.extend(components(arrows, &circle)); // what circles in the room without its own file
        } else {
            found.push(circle);
        }
    }
    found
}

/// The modules that lie on a circle, each with its arrows to others that do.
fn circles(code: &BTreeMap<Module, String>) -> Vec<String> {
    let arrows = Files::new(code).arrows();
    let lines = |circle: &BTreeSet<&Module>| {
        let back = |module: &Module| {
            let others = arrows[module].iter().filter(|other| circle.contains(other));
            others.map(|other| other.join("::")).collect::<Vec<_>>().join(", ")
        };
        circle.iter().map(|module| format!("{} -> {}", module.join("::"), back(module))).collect::<Vec<_>>()
    };
    components(&arrows, &arrows.keys().collect()).iter().flat_map(lines).collect()
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
        let mut sources = BTreeMap::new();
        for path in production(&root) {
            let source = std::fs::read_to_string(&path).expect("readable");
            let other = sources.insert(module(&root, &path), code(&source));
            assert_eq!(other, None, "another file is the module of {}", path.display());
        }
        read += sources.len();
        found.extend(circles(&sources).into_iter().map(|circle| format!("{name}: {circle}")));
    }
    assert!(read > 200, "{read} files were read");
    assert_eq!(found, Vec::<String>::new());
}

/// The circles of a crate with these files; its root is empty unless it is among them.
fn of(files: &[(&str, &str)]) -> Vec<String> {
    let module = |path: &str| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    circles(&[("", "")].iter().chain(files).map(|(path, source)| (module(path), code(source))).collect())
}

#[test]
fn circle_is_found_however_it_is_closed() {
    let both = ["a -> b", "b -> a"];
    assert_eq!(of(&[("a", "use crate::b::B;"), ("b", "use super::a::{self, A};")]), both);
    assert_eq!(of(&[("a", "use crate::{c::C, b::{B, D}};"), ("b", "fn b(_: crate::a::A) {}"), ("c", "")]), both);
    assert_eq!(of(&[("a", "use crate::b;"), ("b", "\"http://x\"; '\"'; crate::a::A")]), both);
    assert_eq!(of(&[("a", "#[cfg(test)]\nmod tests;\nuse crate::b;"), ("b", "use crate::a::*;")]), both);
    for root in ["mod a;\npub use a::A;", "pub use crate::a::X as A;", "pub use B as A;\npub use a::B;"] {
        assert_eq!(of(&[("", root), ("a", "use crate::b;"), ("b", "pub(crate) use crate::A;")]), both, "{root}");
    }
    assert_eq!(
        of(&[("a", "use crate::b;\nfn x() { b::live::x() }"), ("b", ""), ("b::live", "super::super::a::x()")]),
        ["a -> b::live", "b::live -> a"]
    );
}

#[test]
fn circle_through_a_parent_is_found() {
    let codec = "mod parts;\nuse crate::c;\npub use parts::x;";
    let part = [("codec", codec), ("codec::parts", "use super::amount;"), ("c", "use crate::codec::x;")];
    assert_eq!(of(&part), ["c -> codec::parts", "codec -> c, codec::parts", "codec::parts -> codec"]);
    assert_eq!(of(&[part[0], ("codec::parts", ""), part[2]]), Vec::<String>::new());
    let beside = [("a", "use c::C;\nuse b::B;"), ("a::b", "use super::{A, c};"), ("a::c", "use super::{A, b};")];
    assert_eq!(of(&beside), ["a::b -> a::c", "a::c -> a::b"]);
}

#[test]
fn what_is_no_circle_is_not_found() {
    for sound in [
        &[("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "")][..],
        &[("a", "mod c;\nuse c::C;"), ("a::c", "use super::A;")],
        &[
            ("a", "use crate::b::B;"),
            ("b", "// crate::a\n\"crate::a::A\"\n#[cfg(test)]\nmod tests {\nuse crate::a;\n}"),
        ],
        &[("", "mod a;\nmod b;\nuse a::A;"), ("a", "use crate::b;"), ("b", "use crate::R;")],
        &[("", "pub use a::X as A;"), ("a", "use crate::b::B;"), ("b", "use crate::X;\npub(crate) use ask;\nask::X")],
    ] {
        assert_eq!(of(sound), Vec::<String>::new());
    }
}
