//! Laws of the price memory, with a source that counts its questions.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use holdfast_money::Currency;

use super::*;

const KEEP: Keep = Keep { known: Duration::from_secs(5), unknown: Duration::from_secs(1), entries_max: 8 };

/// Skus that begin with `U` are unknown; the others cost their length.
#[derive(Default)]
struct Fake {
    questions: Mutex<Vec<Vec<String>>>,
    away: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl PriceSource for Arc<Fake> {
    async fn prices(&self, skus: &[Sku]) -> Result<Vec<Result<Option<Money>, LookupFailed>>, LookupFailed> {
        self.asked.fetch_add(1, SeqCst);
        self.questions.lock().unwrap().push(skus.iter().map(ToString::to_string).collect());
        if self.away.load(SeqCst) {
            return Err(LookupFailed("away".into()));
        }
        let answer = |sku: &Sku| (!sku.as_str().starts_with('U')).then(|| price(sku.as_str()));
        Ok(skus.iter().map(answer).map(Ok).collect())
    }
}

fn price(sku: &str) -> Money {
    Money::new(i64::try_from(sku.len()).unwrap(), Currency::EUR)
}

fn add(sku: &str) -> Command {
    Command::AddItem { sku: Sku::new(sku).unwrap(), quantity: 1, quote: Quote::NotAsked }
}

fn quote(command: &Command) -> Quote {
    match command {
        Command::AddItem { quote, .. } => *quote,
        _ => panic!("no AddItem"),
    }
}

struct Shop {
    fake: Arc<Fake>,
    prices: Prices,
    opened: Instant,
}

impl Shop {
    fn open() -> Self {
        let fake = Arc::new(Fake::default());
        Self { prices: Prices::keeping(Arc::new(fake.clone()), KEEP), fake, opened: Instant::now() }
    }

    async fn quote(&self, after_ms: u64, skus: &[&str]) -> Vec<Result<Quote, LookupFailed>> {
        let mut commands: Vec<Command> = skus.iter().map(|sku| add(sku)).collect();
        let mut borrowed: Vec<&mut Command> = commands.iter_mut().collect();
        let results = self.prices.quote_at(&mut borrowed, self.opened + Duration::from_millis(after_ms)).await;
        commands.iter().zip(results).map(|(command, result)| result.map(|()| quote(command))).collect()
    }

    fn asked(&self) -> usize {
        self.fake.asked.load(SeqCst)
    }
}

#[tokio::test]
async fn a_batch_asks_once_and_for_each_sku_once() {
    let shop = Shop::open();
    let quotes = shop.quote(0, &["BB", "A", "BB", "U"]).await;
    let cost = |sku| Ok(Quote::Price(price(sku)));
    assert_eq!(quotes, [cost("BB"), cost("A"), cost("BB"), Ok(Quote::UnknownSku)]);
    assert_eq!(*shop.fake.questions.lock().unwrap(), [["A", "BB", "U"]]);
}

#[tokio::test]
async fn an_answer_is_remembered_until_it_expires_and_no_longer() {
    let shop = Shop::open();
    shop.quote(0, &["A", "U"]).await;
    shop.quote(999, &["A", "U"]).await;
    assert_eq!(shop.asked(), 1);
    shop.quote(1_000, &["A", "U"]).await;
    assert_eq!(shop.fake.questions.lock().unwrap()[1], ["U"], "that there is none is forgotten sooner");
    shop.quote(5_000, &["A"]).await;
    assert_eq!(shop.asked(), 3);
}

#[tokio::test]
async fn absent_source_delays_only_skus_without_a_remembered_price() {
    let shop = Shop::open();
    shop.quote(0, &["A"]).await;
    shop.fake.away.store(true, SeqCst);
    let quotes = shop.quote(10, &["A", "BB"]).await;
    assert_eq!(quotes, [Ok(Quote::Price(price("A"))), Err(LookupFailed("away".into()))]);
    let later = shop.quote(5_000, &["A"]).await;
    assert_eq!(later, [Err(LookupFailed("away".into()))], "never an old price");
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let shop = Shop::open();
    shop.fake.away.store(true, SeqCst);
    shop.quote(0, &["A"]).await;
    shop.fake.away.store(false, SeqCst);
    assert_eq!(shop.quote(1, &["A"]).await, [Ok(Quote::Price(price("A")))]);
}

#[tokio::test]
async fn memory_is_bounded_and_overflowing_prices_are_still_answered() {
    let shop = Shop::open();
    let skus: Vec<String> = (0..20).map(|n| format!("S{n}")).collect();
    let skus: Vec<&str> = skus.iter().map(String::as_str).collect();
    assert!(shop.quote(0, &skus).await.iter().all(Result::is_ok));
    assert_eq!(shop.prices.remembered.lock().unwrap().len(), KEEP.entries_max);
    shop.quote(6_000, &["NEW"]).await;
    assert_eq!(shop.prices.remembered.lock().unwrap().len(), 1, "expired ones make room");
}

#[tokio::test]
async fn more_skus_than_one_question_may_hold_are_asked_in_parts() {
    let fake = Arc::new(Fake::default());
    let prices = Prices::new(Arc::new(fake.clone()));
    let mut commands: Vec<Command> = (0..2_500).map(|n| add(&format!("S{n}"))).collect();
    let mut borrowed: Vec<&mut Command> = commands.iter_mut().collect();
    assert!(prices.quote(&mut borrowed).await.iter().all(Result::is_ok));
    let sizes: Vec<usize> = fake.questions.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
}

#[tokio::test]
async fn commands_that_need_no_price_ask_for_none() {
    let shop = Shop::open();
    let order = uuid::Uuid::nil();
    let mut place = Command::PlaceOrder { order, payment_method: "pm_1".into(), address_id: "".into(), standing: None };
    let mut quoted = Command::AddItem { sku: Sku::new("A").unwrap(), quantity: 1, quote: Quote::UnknownSku };
    assert_eq!(shop.prices.quote(&mut [&mut place, &mut quoted]).await, [Ok(()), Ok(())]);
    assert_eq!((shop.asked(), quote(&quoted)), (0, Quote::UnknownSku));
}
