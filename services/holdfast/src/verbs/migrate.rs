//! `holdfast migrate`: schemas.

use holdfast_platform::{Config, Context};
use holdfast_postgres::FORMAT;

use crate::{
    compose,
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
};

/// Migrates one context, or all; with `finish`, raises the format of each to this build's.
pub async fn run(config: &Config, which: &str, finish: bool) -> Result<u8, Failure> {
    let contexts: Vec<Context> = contexts(which)?;
    let at = Infrastructure::none();
    for context in contexts {
        compose::migrate(config, &at, context).await?;
        if !finish {
            println!("{context}: up to date");
        } else if compose::finish(config, &at, context).await? {
            println!("{context}: written in format {FORMAT} from now on");
        } else {
            println!("{context}: written in format {FORMAT} already");
        }
    }
    Ok(0)
}

/// Reads `orders,inventory` or `all`, of those that own data.
pub fn contexts(which: &str) -> Result<Vec<Context>, Failure> {
    let found = any_contexts(which)?;
    match found.iter().find(|context| !context.owns_data()) {
        Some(context) if which != "all" => Err(Failure::usage(anyhow::anyhow!("{context} owns no data"))),
        _ => Ok(found.into_iter().filter(|context| context.owns_data()).collect()),
    }
}

/// Reads `orders,gateway` or `all`.
pub fn any_contexts(which: &str) -> Result<Vec<Context>, Failure> {
    if which == "all" {
        return Ok(CONTEXTS.into_iter().chain([Context::Gateway]).collect());
    }
    let mut found = Vec::new();
    for word in which.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let context: Context = word.parse().map_err(Failure::usage)?;
        if !found.contains(&context) {
            found.push(context);
        }
    }
    if found.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!("no context given; expected e.g. `orders,inventory` or `all`")));
    }
    Ok(found)
}
