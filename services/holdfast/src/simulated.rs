//! A payment provider of our own, for trying things out: Stripe's API behind real HTTP, in this process.
//!
//! Invariant: payments knows no difference; it is told an address and a key. Deliberately absent: use in production, where a key is configured.

use std::time::Duration;

use anyhow::Context as _;
use holdfast_payments::{
    simulator::{Config as Behaviour, Simulator, WebhookConfig},
    webhook,
};
use holdfast_platform::{Config, config::Secret};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::failure::Failure;

/// Starts a provider that behaves like that, and points `config` at it. Its reports go to `http`, where this process's operations port
/// listens. It ends with the process.
pub async fn provider(config: &mut Config, http: &TcpListener, behaviour: Behaviour) -> Result<Simulator, Failure> {
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
    let simulator = Simulator::new(Behaviour { webhooks: Some(webhooks), ..behaviour });
    let served = simulator.clone();
    tokio::spawn(async move { served.serve(listener, CancellationToken::new()).await });
    config.payments.provider_url = format!("http://{address}");
    config.payments.api_key = Some(Secret::from("sk_simulated"));
    config.payments.webhook_secrets = Some(Secret::from(secret.as_str()));
    Ok(simulator)
}
