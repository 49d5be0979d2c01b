//! `holdfast topics`: what there is, what there should be.

use holdfast_platform::Config;

use crate::{cli::Topics, compose, failure::Failure, verbs::migrate};

/// Plans or applies.
pub async fn run(config: &Config, verb: Topics) -> Result<u8, Failure> {
    let (Topics::Plan { contexts, .. } | Topics::Apply { contexts }) = &verb;
    let (admin, steps) = compose::topics(config, config.require_brokers()?, &migrate::contexts(contexts)?).await?;
    let print = |json: bool| {
        for step in &steps {
            if json {
                println!("{}", serde_json::json!({ "step": step.to_string() }));
            } else {
                println!("{step}");
            }
        }
    };
    match verb {
        Topics::Plan { json, .. } => print(json),
        Topics::Apply { .. } => {
            print(false);
            admin.apply(&steps, false).await.map_err(Failure::unreachable)?;
        }
    }
    if steps.is_empty() {
        eprintln!("topics are as they should be");
    }
    Ok(0)
}
