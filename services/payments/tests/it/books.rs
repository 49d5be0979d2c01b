//! The simulator's books: kept in a directory, they outlive the process, and no id comes back.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use holdfast_payments::{
    app::Settings,
    perform::perform,
    provider::{Failure, NewCharge, NewRefund, Provider as _},
    simulator::{BOOKS_FILE, BooksError, Config, Fault, Plan, Simulator, WebhookConfig},
    stripe::{self, Stripe},
};
use holdfast_payments_domain::Command;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::till::{PATIENCE, SECRET, Till, rates, usd};

const CARD: &str = "pm_card_visa";

/// A directory of its own; it is deleted at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("holdfast-provider-{}", Uuid::new_v4())))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One run of the provider.
struct Run {
    simulator: Simulator,
    stripe: Stripe,
    stop: CancellationToken,
}

/// The books, once an earlier run has let go of them.
async fn opened(config: Config, dir: &Path) -> Simulator {
    loop {
        match Simulator::open(config.clone(), dir) {
            Err(BooksError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => return opened.unwrap(),
        }
    }
}

impl Run {
    async fn begin(config: Config, dir: &Path) -> Self {
        Self::of(opened(config, dir).await).await
    }

    async fn of(simulator: Simulator) -> Self {
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let (served, until) = (simulator.clone(), stop.clone());
        tokio::spawn(async move { served.serve(listener, until).await.unwrap() });
        let stripe = Stripe::new(stripe::Settings { base_url, api_key: "sk_test".to_owned(), timeout: PATIENCE * 4 });
        Self { simulator, stripe, stop }
    }

    async fn charge(&self, order_id: &str, key: &str) -> Result<String, Failure> {
        let charge = NewCharge { order_id, amount: usd(500), payment_method: CARD, authorize_first: false };
        self.stripe.charge(&charge, key).await.map(|charge| charge.reference)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn ids(account: &Value) -> BTreeSet<String> {
    let of = |list: &str| account[list].as_array().unwrap().clone();
    [of("charges"), of("refunds")].concat().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn restarted_provider_keeps_charges_refunds_keys_and_counters() {
    let (dir, config) = (Dir::new(), Config { plan: Plan::Random { per_mille: 0 }, ..Config::default() });
    let run = Run::begin(config.clone(), &dir.0).await;
    let first = run.charge("order-a", "key-a").await.unwrap();
    let refund = NewRefund { order_id: "order-a", reference: &first, number: 1, amount: usd(200) };
    let given_back = run.stripe.refund(&refund, "key-r").await.unwrap();
    assert_eq!(run.stripe.look(&first).await.unwrap().reference, first);
    let before = run.simulator.account();
    assert_eq!((&before["requests"], &before["keys"]), (&3.into(), &2.into()));
    drop(run);
    let run = Run::begin(config, &dir.0).await;
    assert_eq!(run.simulator.account(), before);
    assert_eq!(run.charge("order-a", "key-a").await.unwrap(), first, "the key has its answer");
    assert_eq!(run.stripe.refund(&refund, "key-r").await.unwrap(), given_back);
    assert_eq!(run.charge("order-b", "key-a").await, Err(Failure::KeyReused), "and its parameters");
    assert_eq!(ids(&run.simulator.account()), ids(&before), "nothing was charged or given back again");
}

#[tokio::test]
async fn stored_failure_is_repeated_after_a_restart() {
    let (dir, config) =
        (Dir::new(), Config { plan: Plan::First { fault: Fault::FailsAfter, times: 1 }, ..Config::default() });
    let run = Run::begin(config.clone(), &dir.0).await;
    assert_eq!(run.charge("order-a", "key-a").await, Err(Failure::Failed { stored: false }));
    drop(run);
    let run = Run::begin(config, &dir.0).await;
    assert_eq!(run.charge("order-a", "key-a").await, Err(Failure::Failed { stored: true }));
    assert_eq!(run.simulator.account()["charges"].as_array().unwrap().len(), 1);
    assert_eq!(run.simulator.account()["faults"]["fails_after"], 1);
}

#[tokio::test]
async fn two_runs_never_share_an_id_with_or_without_a_directory() {
    let dir = Dir::new();
    let mut seen = BTreeSet::new();
    for which in 0..4 {
        let simulator = match which {
            0 | 1 => Simulator::new(Config::default()),
            _ => opened(Config::default(), &dir.0).await,
        };
        let before = ids(&simulator.account());
        let run = Run::of(simulator).await;
        let order = format!("order-{which}");
        let charge = run.charge(&order, &order).await.unwrap();
        let refund = NewRefund { order_id: &order, reference: &charge, number: 1, amount: usd(1) };
        run.stripe.refund(&refund, &format!("refund-{which}")).await.unwrap();
        let new: Vec<_> = ids(&run.simulator.account()).difference(&before).cloned().collect();
        assert_eq!(new.len(), 2, "{new:?}");
        for id in new {
            assert!(seen.insert(id.clone()), "{id} was given before");
        }
    }
}

#[tokio::test]
async fn refund_after_a_restart_goes_to_the_charge_of_its_own_order() {
    let dir = Dir::new();
    let at = async || {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let simulator = opened(Config::default(), &dir.0).await;
        Till::at(simulator, Settings::default(), door, CancellationToken::new()).await
    };
    let till = at().await;
    let earlier = till.reserve(usd(700), CARD).await;
    till.settle(&earlier).await;
    let drawers = till.close();
    drop(till);
    let till = at().await;
    till.keep(drawers);
    // Another customer pays first, as in the run that gave the same ids again.
    let other = till.reserve(usd(900), CARD).await;
    till.settle(&other).await;
    till.cancel(&earlier).await;
    till.settle(&earlier).await;
    assert_eq!((till.status(&earlier), till.ledger(&earlier)), ("REFUNDED", (vec![700], vec![700])));
    assert_eq!((till.status(&other), till.ledger(&other)), ("CAPTURED", (vec![900], vec![])));
    // A provider that lost its books knows no such charge, and gives nothing back.
    let empty = Run::of(Simulator::new(Config::default())).await;
    empty.charge("order-x", "key-x").await.unwrap();
    let lost = perform(&empty.stripe, &rates(), &till.last_call(&earlier)).await;
    assert!(!matches!(lost, Ok(Command::RefundSucceeded { .. })), "{lost:?}");
    assert!(empty.simulator.account()["refunds"].as_array().unwrap().is_empty());
}

/// A receiver of webhooks that takes none until `takes` is set.
#[derive(Clone, Default)]
struct Receiver {
    takes: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
    taken: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Receiver {
    async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = self.clone();
        let hook = move |body: Bytes| {
            let receiver = receiver.clone();
            async move {
                if !receiver.takes.load(Ordering::SeqCst) {
                    receiver.refused.fetch_add(1, Ordering::SeqCst);
                    return StatusCode::SERVICE_UNAVAILABLE;
                }
                let event: Value = serde_json::from_slice(&body).unwrap();
                let report =
                    format!("{} {}", event["type"].as_str().unwrap(), event["data"]["object"]["metadata"]["order_id"]);
                receiver.taken.lock().unwrap().push(report);
                StatusCode::OK
            }
        };
        let routes = Router::new().route("/hook", post(hook));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

/// Waits for it, within half a minute.
async fn until(what: impl Fn() -> bool) {
    let waited = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it happens in time");
}

#[tokio::test]
async fn refused_webhook_is_sent_again_after_a_restart_then_no_more() {
    let (dir, receiver) = (Dir::new(), Receiver::default());
    let webhooks = |url: String| {
        let (secret, delay_max) = (SECRET.to_owned(), Duration::ZERO);
        Config {
            webhooks: Some(WebhookConfig { url, secret, duplicates_per_mille: 0, delay_max }),
            ..Config::default()
        }
    };
    // A run with a runtime of its own, so that its tasks end with it, as they do with a process.
    let (path, config, refused) = (dir.0.clone(), webhooks(receiver.listen().await), receiver.refused.clone());
    let ended = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let run = Run::begin(config, &path).await;
            run.charge("order-a", "key-a").await.unwrap();
            until(|| refused.load(Ordering::SeqCst) > 0).await;
        });
    });
    ended.await.unwrap();
    receiver.takes.store(true, Ordering::SeqCst);
    // The next run's port is another one.
    let run = Run::begin(webhooks(receiver.listen().await), &dir.0).await;
    until(|| !receiver.taken().is_empty()).await;
    assert_eq!(receiver.taken(), ["payment_intent.succeeded \"order-a\""]);
    let journal = dir.0.join(BOOKS_FILE);
    until(|| fs::read_to_string(&journal).unwrap().contains("delivered")).await;
    drop(run);
    let run = Run::begin(webhooks(receiver.listen().await), &dir.0).await;
    run.charge("order-b", "key-b").await.unwrap();
    until(|| receiver.taken().len() > 1).await;
    assert_eq!(receiver.taken()[1..], ["payment_intent.succeeded \"order-b\""], "order-a's was taken");
}

#[tokio::test]
async fn answered_charge_is_on_disk_before_its_answer() {
    let dir = Dir::new();
    let run = Run::begin(Config::default(), &dir.0).await;
    for n in 0..20 {
        let charge = run.charge(&format!("order-{n}"), &format!("key-{n}")).await.unwrap();
        let written = fs::read_to_string(dir.0.join(BOOKS_FILE)).unwrap();
        assert!(written.contains(&charge), "{charge} is answered and not written");
    }
}

#[tokio::test]
async fn books_of_another_form_or_with_a_hole_are_refused() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    fs::write(dir.0.join(BOOKS_FILE), "{\"charges\":[]}\n").unwrap();
    let refused = Simulator::open(Config::default(), &dir.0).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, BooksError::Damaged { line: 1, .. }) && text.contains("--reset"), "{text}");
    fs::remove_file(dir.0.join(BOOKS_FILE)).unwrap();
    let run = Run::begin(Config::default(), &dir.0).await;
    run.charge("order-a", "key-a").await.unwrap();
    assert!(matches!(Simulator::open(Config::default(), &dir.0), Err(BooksError::InUse { .. })), "two write to one");
}
