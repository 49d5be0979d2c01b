//! What stands outside of the shop, for trying things out: a payment provider with Stripe's API and an issuer
//! of tokens, behind real HTTP, in this process.
//!
//! Invariant: payments and the gateway know no difference; the configuration gives them an address.
//! Deliberately absent: use in production, where the addresses of real ones are configured.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use holdfast_gateway::issuer::{self, Issuer};
use holdfast_payments::{
    simulator::{Config as Behaviour, Simulator, WebhookConfig},
    webhook,
};
use holdfast_platform::{Config, config::Secret};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::failure::Failure;

/// Where a data directory keeps the books of the provider.
pub fn books(data_dir: &Path) -> PathBuf {
    data_dir.join("provider")
}

/// Starts a provider that behaves like that, and points `config` at it. Its reports go to `http`, where this
/// process's operations port listens. It ends with the process; its books are kept in `books`, if that is
/// given.
pub async fn provider(
    config: &mut Config,
    http: &TcpListener,
    behaviour: Behaviour,
    books: Option<&Path>,
) -> Result<Simulator, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a simulated provider").map_err(Failure::Check)?;
    let address = listener.local_addr().context("a simulated provider").map_err(Failure::Check)?;
    let port = http.local_addr().context("the HTTP socket has no address").map_err(Failure::Check)?.port();
    let secret = format!("whsec_{}", Uuid::new_v4().simple());
    let webhooks = WebhookConfig {
        url: format!("http://127.0.0.1:{port}{}", webhook::PATH),
        secret: secret.clone(),
        duplicates_per_mille: 100,
        delay_max: Duration::from_millis(500),
    };
    let behaviour = Behaviour { webhooks: Some(webhooks), ..behaviour };
    let simulator = match books {
        Some(books) => Simulator::open(behaviour, books).context("a simulated provider").map_err(Failure::Check)?,
        None => Simulator::new(behaviour),
    };
    let served = simulator.clone();
    tokio::spawn(async move { served.serve(listener, CancellationToken::new()).await });
    config.payments.provider_url = format!("http://{address}");
    config.payments.api_key = Some(Secret::from("sk_simulated"));
    config.payments.webhook_secrets = Some(Secret::from(secret.as_str()));
    Ok(simulator)
}

/// Starts an issuer that gives anybody the token they ask for, and points `config` at it. It ends with the
/// process.
pub async fn issuer(config: &mut Config) -> Result<(Issuer, SocketAddr), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("a simulated issuer").map_err(Failure::Check)?;
    let address = listener.local_addr().context("a simulated issuer").map_err(Failure::Check)?;
    let issuer = Issuer::new().context("a simulated issuer").map_err(Failure::Check)?;
    tokio::spawn(issuer.clone().serve(listener));
    config.gateway.jwks_url = Some(format!("http://{address}{}", issuer::JWKS_PATH));
    config.gateway.issuer = Some(issuer::ISSUER.to_owned());
    issuer::AUDIENCE.clone_into(&mut config.gateway.audience);
    Ok((issuer, address))
}
