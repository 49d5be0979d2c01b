//! `holdfast dev`: everything on this machine, in one process.

use std::path::PathBuf;

use holdfast_gateway::issuer::TOKEN_PATH;
use holdfast_payments::simulator;
use holdfast_platform::{Config, Context};
use uuid::Uuid;

use crate::{
    cli::Dev,
    compose::{self, Listeners},
    failure::Failure,
    infrastructure::{CONTEXTS, Infrastructure},
    simulated,
    verbs::{serve::Process, stack},
};

/// Runs until Ctrl-C; the data stays, the books of the simulated provider with it.
pub async fn run(mut config: Config, dev: Dev) -> Result<u8, Failure> {
    let data_dir: PathBuf = match dev.data_dir {
        Some(dir) => dir,
        None => holdfast_stack::default_data_dir()?,
    };
    if dev.reset {
        stack::reset(&data_dir)?;
    }
    if config.render().iter().any(|line| line.key == "log.format" && line.source == "default") {
        config.log_format = holdfast_platform::config::LogFormat::Pretty;
    }
    let served = [&CONTEXTS[..], &[Context::Gateway]].concat();
    let process = Process::begin(&config, &served)?;
    let is_simulated = config.payments.api_key.is_none();
    let hands_out_tokens = config.gateway.jwks_url.is_none();
    eprintln!("starting (the first time Kafka and Postgres are downloaded) ...");
    let at = Infrastructure::embedded(&config, Some(data_dir.clone())).await?;
    let _running = stack::Running::note(&data_dir)?;
    compose::prepare(&config, &at, &CONTEXTS).await?;
    let listeners = match Listeners::bind(&config, &served).await {
        Ok(listeners) => listeners,
        Err(failure) => {
            eprintln!("{failure}; taking free ports");
            Listeners::ephemeral_with_edge().await?
        }
    };
    if is_simulated {
        let books = simulated::books(&data_dir);
        simulated::provider(&mut config, &listeners.http, simulator::Config::default(), Some(&books)).await?;
    }
    let issuer = if hands_out_tokens { Some(simulated::issuer(&mut config).await?.1) } else { None };
    let provider = config.payments.provider_url.clone();
    let brokers = at.brokers().to_owned();
    let database = at.database_url(&config, CONTEXTS[0])?;
    let result = process
        .run(&config, &at, &served, listeners, async |app| {
            if let Some(edge) = app.edge {
                let host = if edge.ip().is_unspecified() { "localhost".to_owned() } else { edge.ip().to_string() };
                println!("pages     http://{host}:{}/orders", edge.port());
                println!("REST      http://{host}:{}/docs", edge.port());
            }
            if let Some(issuer) = issuer {
                println!("tokens    curl 'http://{issuer}{TOKEN_PATH}?sub={}'", Uuid::now_v7());
            }
            println!("gRPC      {}", app.grpc);
            println!("health    http://{}/health/ready", app.http);
            println!("metrics   http://{}/metrics", app.http);
            println!("Kafka     {brokers}");
            println!("Postgres  {database}");
            println!("payments  {provider}{}", if is_simulated { " (simulated; its books: /ledger)" } else { "" });
            println!("data      {}", data_dir.display());
            println!("Ctrl-C stops everything; the data stays until `--reset`.");
            std::future::pending::<Result<(), Failure>>().await
        })
        .await;
    at.stop().await?;
    Ok(result?.0)
}
