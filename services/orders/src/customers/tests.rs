//! Laws of the look-up and its memory, with a source that counts its questions.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use holdfast_money::Currency;

use super::*;

const KEEP: Keep = Keep { good: Duration::from_secs(5), entries_max: 8 };
const JANE: Uuid = Uuid::from_u128(1);
const HOME: Uuid = Uuid::from_u128(2);
const NOBODY: Uuid = Uuid::from_u128(0xbad);

/// Every customer but [`NOBODY`] is ACTIVE and has [`HOME`].
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<Vec<Question>>>,
    away: AtomicBool,
}

#[async_trait]
impl CustomerSource for Arc<Fake> {
    async fn standings(&self, questions: &[Question]) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed> {
        self.asked.lock().unwrap().push(questions.to_vec());
        if self.away.load(SeqCst) {
            return Err(LookupFailed("away".into()));
        }
        let answer = |question: &Question| Standing {
            customer: question.customer,
            account: if question.customer == NOBODY { Account::Unknown } else { Account::Active },
            has_address: question.customer != NOBODY && question.address == Some(HOME),
        };
        Ok(questions.iter().map(answer).map(Ok).collect())
    }
}

fn create(order: u128, customer: Uuid) -> Command {
    Command::CreateOrder { order: Uuid::from_u128(order), customer, currency: Currency::EUR, account: None }
}

fn place(order: u128, address: Uuid) -> Command {
    place_at(order, &address.to_string())
}

fn place_at(order: u128, address_id: &str) -> Command {
    let order = Uuid::from_u128(order);
    Command::PlaceOrder { order, payment_method: "pm_1".into(), address_id: address_id.into(), standing: None }
}

fn standing(command: &Command) -> Option<Standing> {
    match command {
        Command::PlaceOrder { standing, .. } => *standing,
        _ => panic!("no PlaceOrder"),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what a command holds")]
const fn good(customer: Uuid) -> Option<Standing> {
    Some(Standing { customer, account: Account::Active, has_address: true })
}

struct Shop {
    fake: Arc<Fake>,
    customers: Customers,
    opened: Instant,
}

impl Shop {
    fn open() -> Self {
        let fake = Arc::new(Fake::default());
        Self { customers: Customers::keeping(Arc::new(fake.clone()), KEEP), fake, opened: Instant::now() }
    }

    async fn check(&self, after_ms: u64, mut commands: Vec<Command>) -> Vec<Result<Command, LookupFailed>> {
        let mut borrowed: Vec<&mut Command> = commands.iter_mut().collect();
        let results = self.customers.check_at(&mut borrowed, self.opened + Duration::from_millis(after_ms)).await;
        commands.into_iter().zip(results).map(|(command, result)| result.map(|()| command)).collect()
    }

    /// The standing that one placing is given.
    async fn placed(&self, after_ms: u64, command: Command) -> Result<Option<Standing>, LookupFailed> {
        self.check(after_ms, vec![command]).await.remove(0).map(|command| standing(&command))
    }

    fn questions(&self) -> usize {
        self.fake.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn batch_asks_once_and_each_question_once() {
    let shop = Shop::open();
    let batch = vec![create(1, JANE), place(1, HOME), create(2, JANE), place(2, HOME), create(3, NOBODY)];
    let answers = shop.check(0, batch).await;
    assert_eq!(standing(answers[1].as_ref().unwrap()), good(JANE), "created and placed in one batch");
    assert_eq!(standing(answers[3].as_ref().unwrap()), good(JANE));
    let account = |at: usize| match answers[at].as_ref().unwrap() {
        Command::CreateOrder { account, .. } => *account,
        _ => None,
    };
    assert_eq!([0, 2, 4].map(account), [Some(Account::Active), Some(Account::Active), Some(Account::Unknown)]);
    let asked = |customer, address| Question { customer, address };
    let expected = [asked(JANE, None), asked(JANE, Some(HOME)), asked(NOBODY, None)];
    assert_eq!(*shop.fake.asked.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn good_answer_is_remembered_until_it_expires() {
    let shop = Shop::open();
    shop.customers.belongs(Uuid::from_u128(1), JANE);
    assert_eq!(shop.placed(0, place(1, HOME)).await, Ok(good(JANE)));
    shop.fake.away.store(true, SeqCst);
    assert_eq!(shop.placed(4_999, place(1, HOME)).await, Ok(good(JANE)));
    assert_eq!(shop.questions(), 1);
    assert_eq!(shop.placed(5_000, place(1, HOME)).await, Err(LookupFailed("away".into())), "never an old answer");
}

#[tokio::test]
async fn bad_answer_and_failure_are_not_remembered() {
    let shop = Shop::open();
    shop.customers.belongs(Uuid::from_u128(1), JANE);
    for after_ms in [0, 1] {
        let missing = shop.placed(after_ms, place(1, NOBODY)).await.unwrap().unwrap();
        assert!(!missing.has_address && missing.account == Account::Active);
        shop.check(after_ms, vec![create(2, NOBODY)]).await;
    }
    assert_eq!(shop.questions(), 4, "asked again each time");
    shop.fake.away.store(true, SeqCst);
    assert!(shop.placed(2, place(1, HOME)).await.is_err());
    shop.fake.away.store(false, SeqCst);
    assert_eq!(shop.placed(3, place(1, HOME)).await, Ok(good(JANE)));
}

#[tokio::test]
async fn placing_an_order_of_nobody_known_stays_unanswered() {
    let shop = Shop::open();
    assert_eq!(shop.placed(0, place(1, HOME)).await, Ok(None));
    assert_eq!(shop.questions(), 0);
}

#[tokio::test]
async fn text_that_is_no_address_id_is_no_address() {
    let shop = Shop::open();
    shop.customers.belongs(Uuid::from_u128(1), JANE);
    let capitals = Uuid::from_u128(0xabc).to_string().to_uppercase();
    for text in ["", "home", capitals.as_str()] {
        let answer = shop.placed(0, place_at(1, text)).await.unwrap().unwrap();
        assert_eq!((answer.account, answer.has_address), (Account::Active, false), "{text}");
    }
}

#[tokio::test]
async fn memory_is_bounded_and_what_does_not_fit_is_answered() {
    let shop = Shop::open();
    let many = (0..20).map(|n| create(n, Uuid::from_u128(100 + n))).collect();
    assert!(shop.check(0, many).await.iter().all(Result::is_ok));
    assert_eq!(shop.customers.good.lock().unwrap().len(), KEEP.entries_max);
    shop.check(6_000, vec![create(30, JANE)]).await;
    assert_eq!(shop.customers.good.lock().unwrap().len(), 1, "expired ones make room");
}

#[tokio::test]
async fn more_than_one_question_may_hold_is_asked_in_parts() {
    let shop = Shop::open();
    let many = (0..2_500).map(|n| create(n, Uuid::from_u128(100 + n))).collect();
    assert!(shop.check(0, many).await.iter().all(Result::is_ok));
    let sizes: Vec<usize> = shop.fake.asked.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
}
