//! A real Chromium, driven by the W3C's `WebDriver` protocol: what a person does with a page, and no more.
//!
//! Invariant: a driver's browsers end with it. Deliberately absent: a library, since all that were found
//! bring a hundred crates and features for which every macro of the program would be compiled a second time.

use std::{
    net::TcpListener as Port,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_platform::http_client::HttpClient;
use http::{Method, Request, header};
use http_body_util::Full;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::shop::patient;

/// The name of a member that holds an element's id, as the protocol fixes it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A driver with the browsers that it opened, which end with it.
pub struct Driver {
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
    pub async fn start() -> Result<Self, Failed> {
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

    /// Opens a browser, in which pages may run scripts or not.
    pub async fn browser(&self, scripts: bool) -> Result<Browser, Failed> {
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
        let wanted = json!({ "alwaysMatch": { "goog:chromeOptions": { "args": arguments } } });
        let driver = Browser { http: HttpClient::new(Duration::from_mins(1)), session: self.url.clone() };
        let opened = driver.post("/session", &json!({ "capabilities": wanted })).await?;
        let id = opened["sessionId"].as_str().ok_or("chromedriver opens no session")?;
        Ok(Browser { session: format!("{}/session/{id}", self.url), ..driver })
    }
}

/// One session.
pub struct Browser {
    http: HttpClient,
    session: String,
}

/// Something on the page that is shown.
pub struct Element<'a> {
    browser: &'a Browser,
    path: String,
}

impl Browser {
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.session));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.http.send(request.body(Full::from(Bytes::from(body)))?).await?;
        let mut said: Value = serde_json::from_slice(&answer.body)?;
        if answer.status.is_success() { Ok(said["value"].take()) } else { Err(format!("{path}: {said}").into()) }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failed> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Loads a page.
    pub async fn goto(&self, url: &str) -> Result<(), Failed> {
        self.post("/url", &json!({ "url": url })).await.map(drop)
    }

    /// Where the browser is.
    pub async fn url(&self) -> Result<String, Failed> {
        Ok(text_of(self.send(Method::GET, "/url", None).await?))
    }

    /// Its path there, without a query.
    pub async fn path(&self) -> Result<String, Failed> {
        let uri: http::Uri = self.url().await?.parse()?;
        Ok(uri.path().to_owned())
    }

    /// The first element that a selector finds.
    pub async fn find(&self, css: &str) -> Result<Element<'_>, Failed> {
        let found = self.post("/element", &json!({ "using": "css selector", "value": css })).await?;
        let id = found[ELEMENT].as_str().ok_or_else(|| format!("{css} is no element: {found}"))?;
        Ok(Element { browser: self, path: format!("/element/{id}") })
    }

    /// Runs a function's body in the page; what it returns.
    pub async fn execute(&self, script: &str) -> Result<Value, Failed> {
        self.post("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    pub async fn forget_cookies(&self) -> Result<(), Failed> {
        self.send(Method::DELETE, "/cookie", None).await.map(drop)
    }

    pub async fn close(self) -> Result<(), Failed> {
        self.send(Method::DELETE, "", None).await.map(drop)
    }
}

impl Element<'_> {
    /// What is to be read there.
    pub async fn text(&self) -> Result<String, Failed> {
        Ok(text_of(self.browser.send(Method::GET, &format!("{}/text", self.path), None).await?))
    }

    pub async fn click(&self) -> Result<(), Failed> {
        self.browser.post(&format!("{}/click", self.path), &json!({})).await.map(drop)
    }

    pub async fn send_keys(&self, keys: &str) -> Result<(), Failed> {
        self.browser.post(&format!("{}/value", self.path), &json!({ "text": keys })).await.map(drop)
    }
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
