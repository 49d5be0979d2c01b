//! Rust source as the tests of the tree read it: its code without its tests, or its comments.
//!
//! Invariant: what is blanked is blanked character by character, and lines stay lines, so that a line number
//! that a rule reports is that of the file. Deliberately absent: a parser. What a macro expands to is not
//! seen.

/// The code of `source`: comments and the text within quotes are blank, and the block of tests at the end is
/// cut off.
pub(crate) fn code(source: &str) -> String {
    let mut code = code_with_tests(source);
    if let Some(at) = code.rfind("#[cfg(test)]\nmod tests {") {
        code.truncate(at);
    }
    code
}

/// `source` with blanks for comments and for what is within quotes.
pub(crate) fn code_with_tests(source: &str) -> String {
    only(Piece::Code, source)
}

/// The comments of `source`, at their places; blanks for all else.
pub(crate) fn comments(source: &str) -> String {
    only(Piece::Comment, source)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Comment,
    Literal,
}

/// `source` with blanks for all but its pieces of this kind. Lines stay, and among code so do quotes.
fn only(kind: Piece, source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut shown = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let is_within_name = at > 0 && is_name(chars[at - 1]);
        let (piece, length) = match &chars[at..] {
            ['/', '/', ..] => (Piece::Comment, chars[at..].iter().take_while(|c| **c != '\n').count()),
            ['/', '*', ..] => (Piece::Comment, block_comment(&chars[at..])),
            ['"', ..] => (Piece::Literal, quoted(&chars[at..], '"')),
            ['\'', '\\', ..] | ['\'', _, '\'', ..] => (Piece::Literal, quoted(&chars[at..], '\'')),
            ['r', rest @ ..] if !is_within_name && raw(rest) > 0 => (Piece::Literal, 1 + raw(rest)),
            ['b' | 'c', 'r', rest @ ..] if !is_within_name && raw(rest) > 0 => (Piece::Literal, 2 + raw(rest)),
            _ => (Piece::Code, 1),
        };
        let stays = |c: char| piece == kind || c == '\n' || kind == Piece::Code && ['"', '\''].contains(&c);
        shown.extend(chars[at..at + length].iter().map(|c| if stays(*c) { *c } else { ' ' }));
        at += length;
    }
    shown
}

pub(crate) fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the comment that begins here; comments nest.
fn block_comment(chars: &[char]) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < chars.len() {
        match &chars[at..] {
            ['/', '*', ..] => depth += 1,
            ['*', '/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The length of the literal in `quote`s that begins here.
fn quoted(chars: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The length of the raw string whose `r` is before this; 0 if none is.
fn raw(chars: &[char]) -> usize {
    let hashes = chars.iter().take_while(|c| **c == '#').count();
    if chars.get(hashes) != Some(&'"') {
        return 0;
    }
    let is_end =
        |at: &usize| chars[*at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (1 + hashes..chars.len()).find(is_end).map_or(chars.len(), |at| at + 1 + hashes)
}

#[test]
fn only_code_is_left() {
    let word = "crate::a::A";
    for hidden in [
        "// W",
        "/* W */",
        "/* /* */ W */",
        "\"W\"",
        r#""\" W""#,
        "r\"W\"",
        r###"r##"" "# W"##"###,
        "br#\"W\"#",
        "b\"W\"",
        "'\\'' // W",
        "\"//\" // W",
        "fn a<'a>(_: &'a str) {} // W",
    ] {
        let source = hidden.replace('W', word);
        assert!(!code(&source).contains(word), "{source}");
        assert_eq!(code(&source).len(), source.len(), "{source}");
    }
    for shown in [
        "\"http://x\"; W",
        "'\"'; W",
        "'\\\"'; W; '\"'",
        "b'\"'; W",
        "'/'; '/'; W",
        "r\"\\\"; W",
        "r#\"\"\"#; W",
        "r#type; \"\"; W",
        "/* \" */ W",
        "// \"\nW",
        "var\"\" W",
        "fn a<'a>(_: &'a str, _: W) {}",
        "\"\\\\\"; W",
        "#[cfg(test)]\nmod tests;\nW",
    ] {
        let source = shown.replace('W', word);
        assert!(code(&source).contains(word), "{source}");
    }
    assert_eq!(code("a\n#[cfg(test)]\nmod tests {\nb\n}"), "a\n");
}

#[test]
fn only_comments_are_left() {
    assert_eq!(comments("a // b \"c\"\n\"// d\" /* e\nf */ g"), "  // b \"c\"\n       /* e\nf */  ");
    assert_eq!(comments("r\"// a\" '\"' // b"), "            // b");
}
