//! Rust source as the tests of the tree read it: without what is no code, and without its tests.
//!
//! Invariant: what is blanked is blanked character by character, and lines stay lines, so that a line that a rule
//! names is found in the file. Deliberately absent: a parser. What a macro expands to is not seen.

/// The code of `source`: comments and what is within quotes are blank, and the block of tests at the end is cut off.
pub(crate) fn code(source: &str) -> String {
    let mut code = blanked(source);
    if let Some(at) = code.rfind("#[cfg(test)]\nmod tests {") {
        code.truncate(at);
    }
    code
}

/// `source` with blanks for comments and for what is within quotes.
fn blanked(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut blanked = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let is_within_name = at > 0 && is_name(chars[at - 1]);
        let end = match &chars[at..] {
            ['/', '/', ..] => at + chars[at..].iter().take_while(|c| **c != '\n').count(),
            ['/', '*', ..] => at + block_comment(&chars[at..]),
            ['"', ..] => at + quoted(&chars[at..], '"'),
            ['\'', '\\', ..] | ['\'', _, '\'', ..] => at + quoted(&chars[at..], '\''),
            ['r', rest @ ..] if !is_within_name => at + 1 + raw(rest),
            ['b' | 'c', 'r', rest @ ..] if !is_within_name && raw(rest) > 0 => at + 2 + raw(rest),
            _ => at + 1,
        };
        match chars[at] {
            first if end == at + 1 => blanked.push(first),
            _ => blanked.extend(chars[at..end].iter().map(|c| if ['\n', '"', '\''].contains(c) { *c } else { ' ' })),
        }
        at = end;
    }
    blanked
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
