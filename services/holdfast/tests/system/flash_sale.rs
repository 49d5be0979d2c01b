//! Ten thousand orders for a thousand units.

use holdfast_load_tests::scenarios::flash_sale;
use libtest_mimic::Failed;

use crate::shop::Shop;

pub async fn exactly_the_stock_is_sold_and_bystanders_are_served(shop: &Shop) -> Result<(), Failed> {
    let options = flash_sale::Options::new(shop.target.clone());
    let outcome = flash_sale::run(&options).await?;
    let (command, reserved) = outcome.slowdown();
    eprintln!(
        "bystanders' p99 during the sale is {command:.2}x (command), {reserved:.2}x (reserved) of that without it"
    );
    let right = outcome.sold == u64::from(options.stock)
        && outcome.refused == u64::from(options.hot_orders - options.stock)
        && outcome.bystanders_served == outcome.bystanders
        && outcome.report.is_clean();
    if right { Ok(()) } else { Err(format!("{outcome:?}").into()) }
}
