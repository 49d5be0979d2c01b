//! No floating point anywhere near an amount: the sources of this crate and of every domain crate are read
//! for it.
//!
//! The lint `float_arithmetic` sees arithmetic; this also sees a type, a cast and a literal.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a line of code names a floating-point type. Comments and text in quotes don't count.
fn names_a_float(line: &str) -> bool {
    let code: String = line.split("//").next().unwrap_or_default().split('"').step_by(2).collect();
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| word.ends_with("f32") || word.ends_with("f64"))
}

#[test]
fn no_domain_names_a_float() {
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir(services).unwrap() {
        let service = entry.unwrap().path();
        let pure = if service.ends_with("money") { service.join("src") } else { service.join("domain/src") };
        if pure.is_dir() {
            sources(&pure, &mut found);
        }
    }
    assert!(found.len() > 5, "looked in the wrong place: {found:?}");
    for path in found {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            assert!(!names_a_float(line), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn the_check_sees_types_casts_and_suffixes() {
    for line in ["let x: f64 = y;", "a as f32", "1_f64 * 2_f64", "f64::from(a)"] {
        assert!(names_a_float(line), "{line}");
    }
    assert!(!names_a_float("let text = \"f64\"; // f32"));
}
