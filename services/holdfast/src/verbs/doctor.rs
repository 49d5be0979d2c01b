//! `holdfast doctor`: what is wrong, and what helps.

use holdfast_platform::Config;

use crate::{
    cli, compose,
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
    operator::doctor::{self, Finding, Level},
};

/// Runs every check; 1 if something is wrong, 3 if something does not answer.
pub async fn run(config: &Config, verb: cli::Doctor) -> Result<u8, Failure> {
    let at = Infrastructure::configured(config)?;
    // Brokers that don't answer are among what is looked at.
    let contexts = compose::deployed(config, at.brokers()).await.unwrap_or_else(|_| CONTEXTS.to_vec());
    for context in &contexts {
        config.require_database_url(*context)?;
    }
    let facts = doctor::gather(config, &at, &contexts).await?;
    let findings = doctor::examine(&facts);
    for (check, found) in &findings {
        if verb.json {
            print_json(check, found);
        } else {
            print(check, found);
        }
    }
    let worst = findings.iter().flat_map(|(_, found)| found.iter().map(|finding| finding.level)).max();
    Ok(match worst {
        None | Some(Level::Hint) => 0,
        Some(Level::Wrong) => 1,
        Some(Level::Unreachable) => 3,
    })
}

fn print_json(check: &str, found: &[Finding]) {
    if found.is_empty() {
        println!("{}", serde_json::json!({ "check": check, "level": "ok" }));
    }
    for Finding { level, what, remedy } in found {
        println!("{}", serde_json::json!({ "check": check, "level": level, "what": what, "remedy": remedy }));
    }
}

fn print(check: &str, found: &[Finding]) {
    if found.is_empty() {
        println!("ok           {check}");
    }
    for Finding { level, what, remedy } in found {
        println!("{level:<12} {check}");
        println!("             {what}");
        println!("             ► {remedy}");
    }
}
