//! Comments of the tree: no wider than a reader's window, and without words that name nothing; and tests with
//! names that a report has room for.
//!
//! The rules are functions over one source, so that each is shown to fail on a planted violation. A comment
//! counts wherever it stands, text within quotes that looks like one does not; the two words of an expression
//! may stand on two lines. Deliberately absent: what rustfmt holds (the width of code), and any rule about
//! grammar.

use std::path::Path;

use crate::{
    layout::{sources, workspace},
    source::{code_with_tests, comments, is_name},
};

const COLUMNS_MAX: usize = 110;
const NAME_MAX: usize = 60;

/// Words that stand for a noun which the reader has to guess.
const NAMELESS: [&str; 5] = ["whoever", "somebody", "anew", "so many", "told"];

/// Whether `line` is a comment, and nothing else; `comment` is its part that is one.
fn is_comment_line(line: &str, comment: &str) -> bool {
    [line, comment].iter().all(|text| text.trim_start().starts_with("//"))
}

/// The words of a comment, without its marker.
fn text(comment: &str) -> &str {
    comment.trim_start().trim_start_matches(['/', '!', '*']).trim()
}

/// The comment lines of `source` that are too wide, each with its number. Neither a URL nor a table row can
/// be broken, so lines with either may be wide.
fn too_wide(source: &str) -> Vec<(usize, String)> {
    let comments = comments(source);
    let lines = source.lines().zip(comments.lines()).zip(1..);
    let wide = lines.filter(|((line, comment), _)| {
        is_comment_line(line, comment)
            && line.chars().count() > COLUMNS_MAX
            && !comment.contains("://")
            && !text(comment).starts_with('|')
    });
    let report = |((line, _), number): ((&str, &str), usize)| {
        (number, format!("the comment is {} columns wide; wrap it at {COLUMNS_MAX}", line.chars().count()))
    };
    wide.map(report).collect()
}

/// The places in the comments of `source` that say one of [`NAMELESS`], each with the number of its line.
fn nameless(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut before = String::new();
    for (line, number) in comments(source).lines().zip(1..) {
        for part in text(line).to_lowercase().split_whitespace() {
            let is_expression = before == "so" && part.split(|c| !is_name(c)).next() == Some("many");
            let words = part.split(|c| !is_name(c)).chain(is_expression.then_some("so many"));
            let named = words.filter(|word| NAMELESS.contains(word));
            found.extend(named.map(|word| {
                let instead = "say owner, taker, caller, record, the number of ..., again, hears, gets, or is notified";
                (number, format!("the comment says `{word}`, which names nothing; {instead}"))
            }));
            before.clear();
            before.push_str(part.trim_start_matches(|c| !is_name(c)));
        }
        if text(line).is_empty() {
            before.clear(); // a paragraph ends, or the comment
        }
    }
    found
}

/// The tests of `source` whose names are too long, each with the number of its line.
fn long_test_names(source: &str) -> Vec<(usize, String)> {
    let (mut found, mut is_test) = (Vec::new(), false);
    for (line, number) in code_with_tests(source).lines().zip(1..) {
        let line = line.trim_start();
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("#[")) else { continue };
        let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
        if std::mem::take(&mut is_test) && name.len() > NAME_MAX {
            let what = format!("the name of the test {name} has {} characters; {NAME_MAX} are enough", name.len());
            found.push((number, what));
        }
    }
    found
}

/// What `rule` finds in all sources of the workspace, by file and line.
fn found_by(rule: fn(&str) -> Vec<(usize, String)>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("there");
    let (mut read, mut found) = (0, Vec::new());
    for krate in workspace().into_values() {
        let folders = ["src", "tests", "examples", "benches"].map(|folder| krate.root.join(folder));
        let mut paths: Vec<_> =
            folders.iter().filter(|folder| folder.is_dir()).flat_map(|folder| sources(folder)).collect();
        paths.extend(Some(krate.root.join("build.rs")).filter(|path| path.is_file()));
        paths.sort();
        read += paths.len();
        for path in paths {
            let source = std::fs::read_to_string(&path).expect("readable");
            let name = path.strip_prefix(&root).unwrap_or(&path).display();
            found.extend(rule(&source).into_iter().map(|(line, what)| format!("{name}:{line}: {what}")));
        }
    }
    assert!(read > 400, "{read} files were read");
    found
}

#[test]
fn comments_wrap() {
    let found = found_by(too_wide);
    assert!(found.is_empty(), "{} comment lines are too wide:\n{}", found.len(), found.join("\n"));
}

#[test]
fn comments_name_what_they_mean() {
    let found = found_by(nameless);
    assert!(found.is_empty(), "{} comments name nothing:\n{}", found.len(), found.join("\n"));
}

#[test]
fn names_of_tests_are_short() {
    let found = found_by(long_test_names);
    assert!(found.is_empty(), "{} names of tests are too long:\n{}", found.len(), found.join("\n"));
}

#[test]
fn long_name_of_test_is_found() {
    let name = "a".repeat(61);
    for test in [
        "#[test]\nfn N() {}",
        "#[tokio::test(start_paused = true)]\nasync fn N() {}",
        "#[test]\n#[should_panic]\nfn N() {}",
    ] {
        let found = long_test_names(&format!("mod tests {{\n{}\n}}", test.replace('N', &name)));
        assert_eq!(found.len(), 1, "{test}");
        assert_eq!(found[0].0, test.lines().count() + 1, "{test}");
        assert_eq!(long_test_names(&test.replace('N', &name[1..])), [], "{test}");
    }
    for sound in ["fn N() {}", "#[test]\nfn a() {}\nfn N() {}", "// #[test]\nfn N() {}"] {
        assert_eq!(long_test_names(&sound.replace('N', &name)), [], "{sound}");
    }
}

#[test]
fn comment_that_is_too_wide_is_found() {
    let wide = "word ".repeat(30);
    for comment in ["// W", "/// W", "//! W", "fn a() {}\n    // W", "/// short\n/// W"] {
        let found = too_wide(&comment.replace('W', &wide));
        assert_eq!(found.len(), 1, "{comment}");
        assert_eq!(found[0].0, comment.lines().count(), "{comment}");
        assert!(found[0].1.ends_with("wrap it at 110"), "{found:?}");
    }
    let edge = |columns: usize| too_wide(&format!("//{}", "ü".repeat(columns - 2))).len();
    assert_eq!([edge(110), edge(111)], [0, 1]);
    let sound =
        ["/// | W | W |", "// see https://example.com/ W", "let a = \"W\";", "\"\n// W\n\"", "let a = 1; // W", ""];
    for comment in sound {
        assert_eq!(too_wide(&comment.replace('W', &wide)), [], "{comment}");
    }
}

#[test]
fn comment_that_names_nothing_is_found() {
    for word in NAMELESS {
        for comment in ["// W", "/// a (W) b", "//! W's", "let a = \"\"; // a W.", "/* a\nW */", "\n\n// `W`,"] {
            let found = nameless(&comment.replace('W', word));
            assert_eq!(found.len(), 1, "{word} in {comment}");
            assert!(found[0].1.contains(&format!("`{word}`")), "{found:?}");
        }
        assert_eq!(nameless(&format!("// {}", word.to_uppercase())).len(), 1, "{word}");
    }
    assert_eq!(nameless("a\n/// ever so\n    /// many.").iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3]);
    let sound = [
        "let somebody = 1;",
        "\"whoever\" // x",
        "// somebody_else whoevers",
        "// so, many did",
        "// and so\n//\n// many",
        "// so\nlet many = 1;\n// Many",
        "\"\n// anew\n\"",
    ];
    for comment in sound {
        assert_eq!(nameless(comment), [], "{comment}");
    }
}
