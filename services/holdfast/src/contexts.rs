//! What each context is: its migrations, read models, kinds and inputs; and what it is made of here, by the
//! configuration.
//!
//! Invariant: the one place that tells contexts apart. Contexts that share a process still meet over gRPC and
//! Kafka only.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use holdfast_adapter::shown::Kind;
use holdfast_fulfillment::{addresses, carrier};
use holdfast_gateway::{
    app,
    identity::{self, Identity},
};
use holdfast_money::Currency;
use holdfast_orders::{
    customers::{self, StaticCustomers},
    prices::{self, Keep, StaticPrices},
};
use holdfast_payments::{
    rates::{HttpRates, RateSource, TableRates},
    stripe::{self, Stripe},
};
use holdfast_platform::{
    Config, Context,
    grpc::{Peer, Server, client},
};
use holdfast_postgres::{PgStore, View};
use holdfast_runtime::{BoundedContext, Routed};

use crate::failure::Failure;

/// For one call to the payment provider. Below the runtime's patience with an attempt.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(8);
/// For one call of the gateway's to a context: as long as a moving order may take to find its owner, and a
/// bit.
const EDGE_PATIENCE: Duration = Duration::from_secs(7);
/// For one question to the source of rates.
const RATES_PATIENCE: Duration = Duration::from_secs(2);

/// What is fixed about a context.
#[derive(Clone, Copy)]
pub struct About {
    /// Of its own tables.
    pub migrations: &'static [(i64, &'static str, &'static str)],
    /// Its read models.
    pub views: &'static [View],
    /// Its aggregates, as operators see them.
    pub kinds: &'static [Kind],
    /// The topics of other contexts that it reads.
    pub follows: &'static [&'static str],
}

/// What is fixed about `context`; nothing for one that owns no data.
pub fn about(context: Context) -> About {
    macro_rules! of {
        ($app:path, $views:expr) => {{
            use $app as app;
            About { migrations: app::MIGRATIONS, views: $views, kinds: app::KINDS, follows: app::FOLLOWS }
        }};
    }
    match context {
        Context::Orders => of!(holdfast_orders::app, app::VIEWS),
        Context::Inventory => of!(holdfast_inventory::app, &[]),
        Context::Payments => of!(holdfast_payments::app, app::VIEWS),
        Context::Fulfillment => of!(holdfast_fulfillment::app, app::VIEWS),
        Context::Customers => of!(holdfast_customers::app, &[]),
        Context::Gateway => About { migrations: &[], views: &[], kinds: &[], follows: &[] },
    }
}

/// `context` with its look-ups in other contexts and its calls outside. `own` is where this process's gRPC
/// listens: a context without a configured address is called there.
pub fn serving(config: &Config, context: Context, own: SocketAddr) -> Result<BoundedContext, Failure> {
    Ok(match context {
        Context::Orders => {
            let settings = prices::grpc::settings();
            let inventory = peer(config, Context::Inventory, own, settings)?;
            let keep = Keep { known: config.price_cache_ttl, ..Keep::default() };
            let (prices, settings) = (prices::grpc::GrpcPrices::new(inventory), customers::grpc::settings());
            let customers = peer(config, Context::Customers, own, settings)?;
            holdfast_orders::app::context_keeping(prices, keep, customers::grpc::GrpcCustomers::new(customers))
        }
        Context::Inventory => holdfast_inventory::app::context(config.reservation_ttl),
        Context::Payments => {
            let settings = holdfast_payments::app::Settings { authorize_first: config.payments.authorize_first };
            holdfast_payments::app::context(settings, rates(config)?, Arc::new(provider(config)?))
        }
        Context::Fulfillment => {
            let settings = addresses::grpc::settings();
            let customers = peer(config, Context::Customers, own, settings)?;
            holdfast_fulfillment::app::context(addresses::grpc::GrpcAddresses::new(customers), carrier::Simulated)
        }
        Context::Customers => holdfast_customers::app::context(),
        Context::Gateway => return Err(Failure::usage(anyhow!("{context} owns no data"))),
    })
}

/// How `context` is called: where it is configured to be, or else in this process.
fn peer(config: &Config, context: Context, own: SocketAddr, settings: client::Settings) -> Result<Peer, Failure> {
    let (key, configured) = match context {
        Context::Orders => ("orders.addr", &config.addresses.orders),
        Context::Inventory => ("inventory.addr", &config.addresses.inventory),
        Context::Payments => ("payments.addr", &config.addresses.payments),
        Context::Fulfillment => ("fulfillment.addr", &config.addresses.fulfillment),
        Context::Customers => ("customers.addr", &config.addresses.customers),
        Context::Gateway => return Err(Failure::usage(anyhow!("nobody calls {context}"))),
    };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let here = || format!("{scheme}://{}", SocketAddr::from(([127, 0, 0, 1], own.port())));
    let address = configured.clone().unwrap_or_else(here);
    Peer::new(context.as_str(), &address, settings, config.tls.as_ref()).context(key).map_err(Failure::Usage)
}

/// What clients and people reach, and what tells who they are. `own` is as for [`serving`].
pub fn edge(config: &Config, own: SocketAddr) -> Result<(axum::Router, Identity), Failure> {
    let (jwks_url, issuer) = config.require_issuer()?;
    let identity = Identity::new(identity::Settings {
        jwks_url: jwks_url.to_owned(),
        issuer: issuer.to_owned(),
        audience: config.gateway.audience.clone(),
    });
    let settings = client::Settings { deadline: EDGE_PATIENCE, ..client::Settings::default() };
    let peer = |context| peer(config, context, own, settings);
    let contexts = app::Contexts {
        orders: peer(Context::Orders)?,
        inventory: peer(Context::Inventory)?,
        payments: peer(Context::Payments)?,
        fulfillment: peer(Context::Fulfillment)?,
        customers: peer(Context::Customers)?,
    };
    Ok((app::routes(contexts, identity.clone(), config.gateway.rate_per_s), identity))
}

/// `context` without its look-ups in other contexts and its calls outside: nothing is decided with it.
pub fn bare(config: &Config, context: Context) -> Result<BoundedContext, Failure> {
    Ok(match context {
        Context::Orders => holdfast_orders::app::context(StaticPrices::default(), StaticCustomers::default()),
        Context::Payments => {
            let nobody = stripe::Settings { base_url: String::new(), api_key: String::new(), timeout: Duration::ZERO };
            let rates = Arc::new(TableRates::of_books(books(config)?));
            holdfast_payments::app::context(
                holdfast_payments::app::Settings::default(),
                rates,
                Arc::new(Stripe::new(nobody)),
            )
        }
        Context::Fulfillment => {
            holdfast_fulfillment::app::context(addresses::StaticAddresses::default(), carrier::Simulated)
        }
        _ => return serving(config, context, SocketAddr::from(([127, 0, 0, 1], 0))),
    })
}

/// Adds what `context` answers.
pub fn services(server: Server, context: Context, router: &Arc<Routed>, store: &Arc<PgStore>) -> Server {
    let (router, store) = (router.clone(), store.clone());
    match context {
        Context::Orders => holdfast_orders::grpc::register(server, router, store),
        Context::Inventory => holdfast_inventory::grpc::register(server, router, store),
        Context::Payments => holdfast_payments::grpc::register(server, router),
        Context::Fulfillment => holdfast_fulfillment::grpc::register(server, router, store.clone(), store),
        Context::Customers => holdfast_customers::grpc::register(server, router, store),
        // Never started.
        Context::Gateway => server,
    }
}

fn provider(config: &Config) -> Result<Stripe, Failure> {
    let api_key = config.require_payments_api_key()?.expose().to_owned();
    let base_url = config.payments.provider_url.clone();
    Ok(Stripe::new(stripe::Settings { base_url, api_key, timeout: PROVIDER_PATIENCE }))
}

fn books(config: &Config) -> Result<Currency, Failure> {
    let code = &config.payments.books_currency;
    let known = Currency::from_code(code);
    known.map_err(|error| Failure::usage(anyhow!("payments.books_currency is {code}: {error}; expected e.g. EUR")))
}

fn rates(config: &Config) -> Result<Arc<dyn RateSource>, Failure> {
    let books = books(config)?;
    if let Some(url) = &config.payments.rates_url {
        return Ok(Arc::new(HttpRates::new(books, url.as_str(), RATES_PATIENCE)));
    }
    let table = config.payments.rates.as_deref().unwrap_or_default();
    let parsed = TableRates::parse(books, table);
    Ok(Arc::new(parsed.context("payments.rates").map_err(Failure::Usage)?))
}
