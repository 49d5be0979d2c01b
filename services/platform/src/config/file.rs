//! The TOML file, flattened to dotted names.
//!
//! Invariant: every leaf of the file is a key of the table, or the error names it as it was written.
//!
//! Deliberately absent: types. A number in the file becomes its text and is checked like any other source's.

use std::path::Path;

use toml::{Table, Value};

use super::{
    error::{Error, Source},
    keys::{KEYS, Shown, find, nearest},
};

/// Key and text of each leaf.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<(&'static str, String)>, Error> {
    let table: Table = text
        .parse()
        .map_err(|why: toml::de::Error| Error::Syntax { path: path.to_owned(), why: locate(text, &why) })?;
    let mut leaves = Vec::new();
    walk(path, "", &table, &mut leaves)?;
    Ok(leaves)
}

/// Line and reason, without the excerpt that `toml` would print: the line may hold a password.
fn locate(text: &str, why: &toml::de::Error) -> String {
    let start = why.span().map_or(0, |span| span.start).min(text.len());
    let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
    format!("line {line}: {}", why.message())
}

fn walk(path: &Path, prefix: &str, table: &Table, leaves: &mut Vec<(&'static str, String)>) -> Result<(), Error> {
    for (name, value) in table {
        let dotted = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let key = find(&dotted);
        match (key, value) {
            (Some(key), Value::Table(inner)) if key.shown == Shown::Properties => {
                let mut lines = Vec::new();
                properties("", inner, &mut lines).map_err(|()| wrong_kind(path, key.name))?;
                leaves.push((key.name, lines.join("\n") + "\n"));
            }
            (Some(key), value) => leaves.push((key.name, leaf(value).ok_or_else(|| wrong_kind(path, key.name))?)),
            (None, Value::Table(inner)) if KEYS.iter().any(|key| key.name.starts_with(&format!("{dotted}."))) => {
                walk(path, &dotted, inner, leaves)?;
            }
            (None, _) => {
                let nearest = nearest(&dotted, KEYS.iter().map(|key| key.name.to_owned()));
                return Err(Error::UnknownKey { key: dotted, origin: Source::File(path.to_owned()), nearest });
            }
        }
    }
    Ok(())
}

/// `sasl.password = "x"` is a nested table in TOML, and one property to librdkafka.
fn properties(prefix: &str, table: &Table, lines: &mut Vec<String>) -> Result<(), ()> {
    for (name, value) in table {
        let dotted = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => properties(&dotted, inner, lines)?,
            value => lines.push(format!("{dotted}={}", leaf(value).filter(|text| !text.contains('\n')).ok_or(())?)),
        }
    }
    Ok(())
}

fn leaf(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Array(items) => items.iter().map(leaf).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn wrong_kind(path: &Path, name: &str) -> Error {
    Error::BadValue {
        key: name.to_owned(),
        value: super::MASK.to_owned(),
        origin: Source::File(path.to_owned()),
        allowed: "a text, a number, a truth value or a list of these on one line".to_owned(),
    }
}
