//! The pages, in a real Chromium: signing in, the list, and one order as it changes; and the same without
//! scripts.
//!
//! Invariant: what changes shows without the page being loaded again. Deliberately absent: looks.

use std::time::{Duration, Instant};

use holdfast_gateway::identity::STAFF;
use http::StatusCode;
use libtest_mimic::Failed;
use serde_json::json;

use super::{
    Client, Stand,
    browser::{Browser, Driver},
};
use crate::shop::{Shop, patient};

async fn text(browser: &Browser, css: &str) -> Result<String, Failed> {
    browser.find(css).await?.text().await
}

async fn sign_in(browser: &Browser, base: &str, client: &Client) -> Result<(), Failed> {
    browser.goto(&format!("{base}/orders")).await?;
    if !browser.path().await?.starts_with("/sign-in") {
        return Err("a stranger sees orders".into());
    }
    let token = client.token.clone().unwrap_or_default();
    browser.find("#token").await?.send_keys(&token).await?;
    browser.find("main button").await?.click().await?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while browser.path().await? != "/orders" {
        patient(give_up, "the list after signing in").await?;
    }
    Ok(())
}

pub async fn browser_shows_order_changes_with_and_without_scripts(_: &Shop) -> Result<(), Failed> {
    let mut stand = Stand::open().await?;
    let driver = Driver::start().await?;
    if let Err(failed) = people(&stand, &driver).await {
        stand.served.tell_log();
        return Err(failed);
    }
    let left = stand.served.leave().await?;
    if left.success() { Ok(()) } else { Err(format!("it left with {left}").into()) }
}

async fn people(stand: &Stand, driver: &Driver) -> Result<(), Failed> {
    let ada = stand.customer().await?;
    let order_id = ada.draft("page").await?;
    let page = format!("{}/orders/{order_id}", ada.base);
    let browser = driver.browser(true).await?;

    sign_in(&browser, &ada.base, &ada).await?;
    let list = text(&browser, "tbody").await?;
    if !list.contains("Draft") || !list.contains("25.00 EUR") {
        return Err(format!("the list: {list}").into());
    }
    browser.find("tbody a").await?.click().await?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while browser.url().await? != page {
        patient(give_up, "the order's page").await?;
    }
    if !text(&browser, "h1").await?.contains(&order_id) {
        return Err("the page is about another order".into());
    }
    // Loading it again would forget this.
    browser.execute("window.stillTheSame = true").await?;
    let how = json!({ "payment_method": "pm_card_visa", "address_id": ada.address_id });
    ada.post(&format!("/v1/orders/{order_id}/place"), "page/place", &how).await?.is(StatusCode::OK)?;
    shows(&browser, "Paid").await?;
    if !text(&browser, "dl").await?.contains("25.00 EUR") {
        return Err("what was paid does not show".into());
    }
    let why = json!({ "reason": "<b>regret</b>" });
    ada.post(&format!("/v1/orders/{order_id}/cancel"), "page/cancel", &why).await?.is(StatusCode::OK)?;
    shows(&browser, "Cancelled").await?;
    let said = text(&browser, ".status").await?;
    let same = "return window.stillTheSame === true && document.querySelector('#state b') === null";
    if !said.contains("as you asked") || !said.contains("<b>regret</b>") || browser.execute(same).await? != json!(true)
    {
        return Err(format!("it was loaded again, or marked up, or not explained: {said}").into());
    }
    let errors = browser.execute("return document.querySelector('#state').dataset.ended").await?;
    if errors != json!("true") {
        return Err("the page goes on asking for what has ended".into());
    }

    // Another's order is not there, also for who guesses its address.
    let eve = stand.customer().await?;
    browser.forget_cookies().await?;
    sign_in(&browser, &ada.base, &eve).await?;
    browser.goto(&page).await?;
    if !text(&browser, "main").await?.contains("there is no such order") {
        return Err("another customer sees the order".into());
    }
    browser.find("nav form button").await?.click().await?;
    browser.goto(&page).await?;
    if !browser.path().await?.starts_with("/sign-in") {
        return Err("signing out does nothing".into());
    }
    // What the interface is, rendered.
    browser.goto(&format!("{}/docs/", ada.base)).await?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while browser.find("#operations-orders-place, .opblock").await.is_err() {
        patient(give_up, "the description to be rendered").await?;
    }
    browser.close().await?;

    let plain = driver.browser(false).await?;
    let staff = Client { token: Some(stand.token("grace", STAFF)?), ..stand.stranger() };
    sign_in(&plain, &ada.base, &staff).await?;
    plain.goto(&page).await?;
    let read = text(&plain, "main").await?;
    if !read.contains("Cancelled") || !read.contains("lamp") || !read.contains("25.00 EUR") {
        return Err(format!("without scripts: {read}").into());
    }
    plain.close().await?;
    Ok(())
}

/// Waits until the page says so, without being loaded again.
async fn shows(browser: &Browser, status: &str) -> Result<(), Failed> {
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        // It may be replaced right now.
        let shown = text(browser, ".status .badge").await.unwrap_or_default();
        if shown == status {
            return Ok(());
        }
        patient(give_up, &format!("the page to show {status}; it shows {shown}")).await?;
    }
}
