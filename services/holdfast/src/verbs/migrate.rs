//! `holdfast migrate`: schemas.

use holdfast_platform::{Config, Context};

use crate::{
    compose,
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
};

/// Migrates one context, or all.
pub async fn run(config: &Config, which: &str) -> Result<u8, Failure> {
    let contexts: Vec<Context> = contexts(which)?;
    let at = Infrastructure::database_only();
    for context in contexts {
        compose::migrate(config, &at, context).await?;
        println!("{context}: up to date");
    }
    Ok(0)
}

/// Reads `orders,inventory` or `all`.
pub fn contexts(which: &str) -> Result<Vec<Context>, Failure> {
    if which == "all" {
        return Ok(CONTEXTS.to_vec());
    }
    let mut found = Vec::new();
    for word in which.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let context: Context = word.parse().map_err(Failure::usage)?;
        if !CONTEXTS.contains(&context) {
            return Err(Failure::usage(anyhow::anyhow!(
                "{context} is not part of this build yet (orders, inventory, payments, fulfillment and customers are)"
            )));
        }
        if !found.contains(&context) {
            found.push(context);
        }
    }
    if found.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!("no context given; expected e.g. `orders,inventory` or `all`")));
    }
    Ok(found)
}
