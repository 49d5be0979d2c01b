//! The real orders context as scenarios measure it alone, and its node's limits.
//!
//! Deliberately absent: how it is started.

use holdfast_load_tests::scenarios::holdfast::Contestant;
use holdfast_money::{Currency, Money};
use holdfast_orders::{app, customers::StaticCustomers, prices::StaticPrices};
use holdfast_platform::Config;

/// The limits of the node that is measured, by the address that it gives.
pub(super) fn node(config: &Config, address: &str) -> holdfast_runtime::Config {
    holdfast_runtime::Config {
        address: address.to_owned(),
        lanes: config.lanes,
        batch_items_max: config.batch_max,
        ..holdfast_runtime::Config::default()
    }
}

/// The orders context as in production, but for prices and customers, which never change and are never asked
/// for over the network.
pub(super) fn context() -> Contestant {
    Contestant {
        context: app::context(StaticPrices::all(Money::new(1_999, Currency::EUR)), StaticCustomers::all()),
        views: app::VIEWS.to_vec(),
        migrations: app::MIGRATIONS.to_vec(),
    }
}
