//! The pages, in a real Chromium: signing in, the list, and one order as it changes; and the same without scripts.
//!
//! The browser is driven by `WebDriver`. Invariant: what changes shows without the page being loaded again. Deliberately absent: looks.

use std::{
    net::TcpListener as Port,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client as Browser, ClientBuilder, Locator};
use holdfast_gateway::identity::STAFF;
use http::StatusCode;
use libtest_mimic::Failed;
use serde_json::json;

use super::{Client, Stand};
use crate::shop::{Shop, patient};

/// A driver with the browsers that it opened, which end with it.
struct Driver {
    process: Child,
    url: String,
    /// Of the browsers.
    data: tempfile::TempDir,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Driver {
    async fn start() -> Result<Self, Failed> {
        let port = Port::bind("127.0.0.1:0")?.local_addr()?.port();
        let started = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = started.map_err(|error| format!("chromedriver: {error}; `deploy/dev.sh test` installs it"))?;
        let driver = Self { process, url: format!("http://127.0.0.1:{port}"), data: tempfile::tempdir()? };
        let give_up = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            patient(give_up, "chromedriver to listen").await?;
        }
        Ok(driver)
    }

    async fn browser(&self, scripts: bool) -> Result<Browser, Failed> {
        let data = self.data.path().join(if scripts { "scripts" } else { "none" });
        let mut arguments = vec![
            "--headless=new".to_owned(),
            // As root there is no sandbox to be had, and in a small container no shared memory.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--window-size=1100,900".to_owned(),
            format!("--user-data-dir={}", data.display()),
        ];
        if !scripts {
            arguments.push("--blink-settings=scriptEnabled=false".to_owned());
        }
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let capabilities = capabilities.as_object().cloned().unwrap_or_default();
        let connector = hyper_util::client::legacy::connect::HttpConnector::new();
        Ok(ClientBuilder::new(connector).capabilities(capabilities).connect(&self.url).await?)
    }
}

async fn text(browser: &Browser, css: &str) -> Result<String, Failed> {
    Ok(browser.find(Locator::Css(css)).await?.text().await?)
}

async fn sign_in(browser: &Browser, base: &str, client: &Client) -> Result<(), Failed> {
    browser.goto(&format!("{base}/orders")).await?;
    if !browser.current_url().await?.path().starts_with("/sign-in") {
        return Err("a stranger sees orders".into());
    }
    let token = client.token.clone().unwrap_or_default();
    browser.find(Locator::Css("#token")).await?.send_keys(&token).await?;
    browser.find(Locator::Css("main button")).await?.click().await?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while browser.current_url().await?.path() != "/orders" {
        patient(give_up, "the list after signing in").await?;
    }
    Ok(())
}

pub async fn people_see_their_orders_change_in_a_browser_with_and_without_scripts(_: &Shop) -> Result<(), Failed> {
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
    browser.find(Locator::Css("tbody a")).await?.click().await?;
    let give_up = Instant::now() + Duration::from_secs(20);
    while browser.current_url().await?.as_str() != page {
        patient(give_up, "the order's page").await?;
    }
    if !text(&browser, "h1").await?.contains(&order_id) {
        return Err("the page is about another order".into());
    }
    // Loading it again would forget this.
    browser.execute("window.stillTheSame = true", vec![]).await?;
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
    let is_same =
        browser.execute("return window.stillTheSame === true && document.querySelector('#state b') === null", vec![]);
    if !said.contains("as you asked") || !said.contains("<b>regret</b>") || is_same.await? != json!(true) {
        return Err(format!("it was loaded again, or marked up, or not explained: {said}").into());
    }
    let errors = browser.execute("return document.querySelector('#state').dataset.ended", vec![]).await?;
    if errors != json!("true") {
        return Err("the page goes on asking for what has ended".into());
    }

    // Another's order is not there, also for who guesses its address.
    let eve = stand.customer().await?;
    browser.delete_all_cookies().await?;
    sign_in(&browser, &ada.base, &eve).await?;
    browser.goto(&page).await?;
    if !text(&browser, "main").await?.contains("there is no such order") {
        return Err("somebody else sees it".into());
    }
    browser.find(Locator::Css("nav form button")).await?.click().await?;
    browser.goto(&page).await?;
    if !browser.current_url().await?.path().starts_with("/sign-in") {
        return Err("signing out does nothing".into());
    }
    // What the interface is, rendered.
    browser.goto(&format!("{}/docs/", ada.base)).await?;
    browser
        .wait()
        .at_most(Duration::from_secs(20))
        .for_element(Locator::Css("#operations-orders-place, .opblock"))
        .await?;
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
