//! `holdfast dev` from run to run: what its simulated provider has charged in one, it knows in the next.
//!
//! Deliberately absent: what the shop does within a run, which the other tests see.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    sync::PoisonError,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast::shelves::{self, Shelf};
use holdfast_platform::http_client::HttpClient;
use holdfast_proto::orders::v1::OrderStatus;
use http_body_util::Full;
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    life::{Callers, Story, money},
    shop::{Log, Shop, collect, holdfast, patient, text},
};

/// How long a run may take to serve, or to leave.
const PATIENCE: Duration = Duration::from_mins(2);

/// One run, which ends with its handle.
struct Run {
    process: Child,
    log: Log,
    grpc: SocketAddr,
    provider: String,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Run {
    async fn begin(data_dir: &Path, arguments: &[&str]) -> Result<Self, Failed> {
        let free = ["HOLDFAST_GRPC_LISTEN", "HOLDFAST_HTTP_LISTEN", "HOLDFAST_GATEWAY_LISTEN"];
        let mut process = holdfast()
            .args(["dev", "--partitions", "2", "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .envs(free.map(|name| (name, "127.0.0.1:0")))
            .env("HOLDFAST_LOG_FILTER", "warn,librdkafka=off")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = Log::default();
        collect(process.stdout.take(), &log);
        collect(process.stderr.take(), &log);
        let mut run = Self { process, log, grpc: SocketAddr::from(([0; 4], 0)), provider: String::new() };
        let give_up = Instant::now() + PATIENCE;
        while run.said("Ctrl-C").is_none() {
            if let Some(status) = run.process.try_wait()? {
                return Err(format!("it ended with {status}: {}", run.text()).into());
            }
            patient(give_up, &format!("a run to serve: {}", run.text())).await?;
        }
        run.grpc = run.said("gRPC").ok_or("no gRPC address")?.parse()?;
        run.provider = run.said("payments").ok_or("no provider")?;
        Ok(run)
    }

    fn text(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The word after `name`, on its line.
    fn said(&self, name: &str) -> Option<String> {
        let text = self.text();
        let mut lines = text.lines().map(str::split_whitespace);
        lines.find_map(|mut words| (words.next()? == name).then(|| words.next().map(str::to_owned))?)
    }

    async fn leave(mut self) -> Result<(), Failed> {
        kill_process(Pid::from_raw(self.process.id().cast_signed()).ok_or("no process")?, Signal::INT)?;
        let give_up = Instant::now() + PATIENCE;
        while self.process.try_wait()?.is_none() {
            patient(give_up, "a run to leave").await?;
        }
        Ok(())
    }

    /// The provider's books.
    async fn ledger(&self) -> Result<Value, Failed> {
        let request = http::Request::get(format!("{}/ledger", self.provider)).body(Full::new(Bytes::new()))?;
        let answer = HttpClient::new(Duration::from_secs(10)).send(request).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// An order of a customer of its own, once it is paid.
    async fn paid(&self) -> Result<(Callers, String), Failed> {
        let mut callers = Callers::connect(self.grpc).await?;
        let customer = callers.customer().await?;
        let shelf = Shelf { sku: "lamp".into(), quantity: 100, price_minor: 1_250 };
        shelves::fill(&shelves::inventory(&format!("http://{}", self.grpc))?, "dev", [shelf]).await?;
        let (order_id, _) = callers.clone().order(Story::Good, customer).await?;
        let give_up = Instant::now() + PATIENCE;
        while callers.get(&order_id).await?.status() != OrderStatus::Paid {
            patient(give_up, &format!("{order_id} to be paid: {}", self.text())).await?;
        }
        Ok((callers, order_id))
    }
}

pub async fn refund_after_a_restart_goes_to_the_charge_of_its_own_order(_: &Shop) -> Result<(), Failed> {
    let place = tempfile::tempdir()?;
    // Postgres refuses to run as root and is another user then, who has to get at its data.
    std::fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let data_dir = place.path().join("dev");
    let first = Run::begin(&data_dir, &[]).await?;
    let (_, earlier) = first.paid().await?;
    let before = first.ledger().await?;
    first.leave().await?;

    let second = Run::begin(&data_dir, &[]).await?;
    let (mut callers, other) = second.paid().await?;
    callers.cancel(&earlier).await?;
    let give_up = Instant::now() + PATIENCE;
    let after = loop {
        let ledger = second.ledger().await?;
        if money(&ledger, &earlier) == (vec![2_500], 2_500) {
            break ledger;
        }
        patient(give_up, &format!("{earlier} to be given back: {ledger}: {}", second.text())).await?;
    };
    if money(&after, &other) != (vec![2_500], 0) {
        return Err(format!("another customer's charge was given back: {after}").into());
    }
    let id = |ledger: &Value, at: usize| ledger["charges"][at]["id"].as_str().map(str::to_owned);
    if id(&before, 0).is_none() || id(&before, 0) != id(&after, 0) || id(&after, 0) == id(&after, 1) {
        return Err(format!("charges have no ids of their own: {before}, then {after}").into());
    }
    let kafka = second.said("Kafka").ok_or("no brokers")?;
    let postgres = second.said("Postgres").ok_or("no database")?;
    let reconcile = || {
        let environment = [("HOLDFAST_KAFKA_BROKERS", &kafka), ("HOLDFAST_DATABASE_URL", &postgres)];
        holdfast().args(["reconcile", "--settled", "0s"]).envs(environment).output()
    };
    loop {
        let output = reconcile()?;
        if output.status.success() {
            break;
        }
        patient(give_up, &format!("the books to agree: {}{}", text(&output.stdout), text(&output.stderr))).await?;
    }
    second.leave().await?;

    let third = Run::begin(&data_dir, &["--reset"]).await?;
    let empty = third.ledger().await?;
    if empty["charges"].as_array().is_none_or(|charges| !charges.is_empty()) {
        return Err(format!("--reset left charges: {empty}").into());
    }
    third.leave().await
}
