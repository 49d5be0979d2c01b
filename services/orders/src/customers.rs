//! Who may order, and where to: customers' answer, asked for in Prepare, for a whole batch at once.
//!
//! Invariant: nothing is decided on an answer that is older than [`Keep::good`]; with customers away, a
//! command waits. Only good answers are remembered (an ACTIVE customer, who has the address): a customer or
//! an address that was added a moment ago can be used. Tolerated: an address that was removed, or a customer
//! that was suspended or erased, less than [`Keep::good`] ago is still taken; what can't be sent then is
//! cancelled by fulfillment (UNDELIVERABLE).
//!
//! `PlaceOrder` names no customer. Which one an order belongs to is remembered from its creation, or from its
//! state when that comes into memory ([`holders`]). That is a hint: the decision compares it with the order's
//! own customer, and is not made on another's answer. Deliberately absent: transport (see [`grpc`]), and any
//! reaction to customers' events.

mod fixed;
pub mod grpc;
mod holders;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_orders_domain::{Account, Command, Standing};
use uuid::Uuid;

use self::holders::Holders;

pub use fixed::StaticCustomers;

/// Most questions asked at once.
pub const QUESTIONS_MAX: usize = 1000;

/// Whether a customer may order, and has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// Which customer.
    pub customer: Uuid,
    /// Which address; `None` asks for the account alone.
    pub address: Option<Uuid>,
}

/// Knows customers.
#[async_trait]
pub trait CustomerSource: Send + Sync + 'static {
    /// The answer to each of `questions` (at most [`QUESTIONS_MAX`], none twice), in their order. One that
    /// failed costs no other its answer.
    async fn standings(&self, questions: &[Question]) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed>;
}

#[async_trait]
impl CustomerSource for Box<dyn CustomerSource> {
    async fn standings(&self, questions: &[Question]) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed> {
        (**self).standings(questions).await
    }
}

/// How long and how many answers are remembered.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// A good answer, from when it was asked for.
    pub good: Duration,
    /// Answers, at most.
    pub entries_max: usize,
}

impl Default for Keep {
    fn default() -> Self {
        Self { good: Duration::from_secs(5), entries_max: 100_000 }
    }
}

/// Customers with a memory.
pub struct Customers {
    source: Arc<dyn CustomerSource>,
    keep: Keep,
    holders: Holders,
    /// Until when an answer is known to be good.
    good: Mutex<HashMap<Question, Instant>>,
}

/// What was asked for, sorted, with the answers in the same order.
struct Asked {
    questions: Vec<Question>,
    answers: Vec<Result<Standing, LookupFailed>>,
}

impl Customers {
    /// From `source`, remembered for the usual time.
    pub fn new(source: Arc<dyn CustomerSource>) -> Self {
        Self::keeping(source, Keep::default())
    }

    /// From `source`, remembered for that time.
    pub fn keeping(source: Arc<dyn CustomerSource>, keep: Keep) -> Self {
        Self { source, keep, holders: Holders::default(), good: Mutex::default() }
    }

    /// Notes whose an order is, by its state.
    pub(crate) fn belongs(&self, order: Uuid, customer: Uuid) {
        self.holders.belongs(order, customer);
    }

    /// Fills in the answers that `commands` lack; one result for each command. One whose customer is not
    /// known stays as it is.
    pub async fn check(&self, commands: &mut [&mut Command]) -> Vec<Result<(), LookupFailed>> {
        self.check_at(commands, Instant::now()).await
    }

    async fn check_at(&self, commands: &mut [&mut Command], now: Instant) -> Vec<Result<(), LookupFailed>> {
        let mut results = vec![Ok(()); commands.len()];
        let open = self.recall(commands, now);
        if open.is_empty() {
            return results;
        }
        let asked = self.ask(open.iter().map(|(_, question)| *question).collect()).await;
        self.remember(&asked, now);
        for (at, question) in open {
            results[at] = asked.answer(question).map(|standing| fill(commands[at], standing));
        }
        results
    }

    /// Fills in what is remembered; returns the other commands' questions, with their places.
    pub(crate) fn recall(&self, commands: &mut [&mut Command], now: Instant) -> Vec<(usize, Question)> {
        let mut open = Vec::new();
        // In order: an order may be created and placed by the same batch.
        for (at, command) in commands.iter_mut().enumerate() {
            let Some(question) = self.question(command) else { continue };
            if self.is_good(&question, now) {
                fill(command, question.good());
            } else {
                open.push((at, question));
            }
        }
        open
    }

    /// What `command` needs to know and does not; `None` if that is nothing, or if it is not known whose
    /// order it is.
    fn question(&self, command: &Command) -> Option<Question> {
        match command {
            Command::CreateOrder { order, customer, account: None, .. } => {
                self.holders.may_belong(*order, *customer);
                Some(Question { customer: *customer, address: None })
            }
            Command::PlaceOrder { order, address_id, standing: None, .. } => {
                let customer = self.holders.of(*order)?;
                // What is no address's id is nobody's address.
                let mut canonical = Uuid::encode_buffer();
                let is_canonical = |id: &Uuid| *id.hyphenated().encode_lower(&mut canonical) == **address_id;
                let address = Uuid::try_parse(address_id).ok().filter(is_canonical);
                Some(Question { customer, address })
            }
            _ => None,
        }
    }

    fn is_good(&self, question: &Question, now: Instant) -> bool {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).get(question).is_some_and(|until| now < *until)
    }

    async fn ask(&self, mut questions: Vec<Question>) -> Asked {
        questions.sort_unstable();
        questions.dedup();
        let mut answers = Vec::with_capacity(questions.len());
        for part in questions.chunks(QUESTIONS_MAX) {
            match self.source.standings(part).await {
                Ok(standings) if standings.len() == part.len() => answers.extend(standings),
                Ok(_) => answers.extend(part.iter().map(|_| Err(LookupFailed("not one answer for each".into())))),
                Err(failed) => answers.extend(part.iter().map(|_| Err(failed.clone()))),
            }
        }
        Asked { questions, answers }
    }

    /// Remembers the good answers from when they were asked for, not from when they came.
    fn remember(&self, asked: &Asked, asked_at: Instant) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() + asked.questions.len() > self.keep.entries_max {
            good.retain(|_, until| asked_at < *until);
        }
        for (question, answer) in asked.questions.iter().zip(&asked.answers) {
            if answer.as_ref().is_ok_and(|standing| *standing == question.good())
                && (good.len() < self.keep.entries_max || good.contains_key(question))
            {
                good.insert(*question, asked_at + self.keep.good);
            }
        }
    }
}

impl Question {
    /// The good answer.
    const fn good(self) -> Standing {
        Standing { customer: self.customer, account: Account::Active, has_address: self.address.is_some() }
    }
}

impl Asked {
    fn answer(&self, question: Question) -> Result<Standing, LookupFailed> {
        match self.questions.binary_search(&question) {
            Ok(at) => self.answers[at].clone(),
            Err(_) => Err(LookupFailed("customers were not asked".into())),
        }
    }
}

/// Puts an answer where `command` lacks it.
fn fill(command: &mut Command, answer: Standing) {
    match command {
        Command::CreateOrder { account, .. } => *account = Some(answer.account),
        Command::PlaceOrder { standing, .. } => *standing = Some(answer),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
