//! What the simulator knows: every charge, every refund, every key, every webhook that was not taken yet.
//!
//! Invariants: never more is given back than was captured; the ledger is the fold of its entries, so that one
//! read back from disk is the one that was written; an id is drawn at random and stands for one thing for
//! ever, whatever directory, process or machine it was drawn in. Amounts are in Stripe's units.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// A form's fields.
pub(super) type Fields = BTreeMap<String, String>;

/// The form of entries that this build writes and reads.
const FORMAT: u32 = 1;

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Charge,
    Capture(String),
    Cancel(String),
    Refund,
}

/// How a charge is to be declined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decline(pub(super) Option<&'static str>);

/// An answer: status and body.
pub(super) type Reply = (u16, Value);

/// What is remembered of a key.
#[derive(Clone, Debug)]
pub(super) enum Key {
    /// Asked for with this fingerprint, and not done. It is not kept on disk: what was not done when the
    /// process ended is not going to be.
    UnderWay(Fingerprint),
    /// Done.
    Stored(Fingerprint, Reply),
}

/// What tells the parameters of a request from others.
pub(super) type Fingerprint = [u8; 32];

impl Key {
    pub(super) const fn fingerprint(&self) -> &Fingerprint {
        match self {
            Self::UnderWay(fingerprint) | Self::Stored(fingerprint, _) => fingerprint,
        }
    }
}

/// A change of the ledger, as it is kept on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "written and read one at a time, and mostly the large one")]
pub(super) enum Entry {
    /// The books were begun.
    Began { format: u32 },
    /// A request about this came, and met this fault.
    Arrived { subject: String, fault: Option<String> },
    /// Something was done, or found not to be possible.
    Done { intent: Option<Intent>, refund: Option<Refund>, key: Option<Kept>, news: Vec<Notice> },
    /// This webhook was taken.
    Delivered { notice: String },
    /// All keys were forgotten.
    KeysForgotten {},
}

/// The answer that a key stands for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) key: String,
    pub(super) fingerprint: Fingerprint,
    pub(super) reply: Reply,
}

/// A webhook.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notice {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) object: Value,
}

impl Notice {
    fn new(kind: &str, object: Value) -> Self {
        Self { id: drawn("evt"), kind: kind.to_owned(), object }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In the order in which they were begun.
    intents: Vec<Intent>,
    /// Where an intent is among them, by its id.
    places: HashMap<String, usize>,
    refunds: Vec<Refund>,
    pub(super) keys: HashMap<String, Key>,
    /// Requests by what they are about.
    arrivals: HashMap<String, u64>,
    faults: BTreeMap<String, u64>,
    /// Webhooks that were not taken yet, by id: in the order in which they were made.
    undelivered: BTreeMap<String, Notice>,
}

/// Where an intent is in its life, in Stripe's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Succeeded,
    RequiresPaymentMethod,
    RequiresCapture,
    Canceled,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intent {
    id: String,
    status: Status,
    amount: i64,
    refunded: i64,
    currency: String,
    order_id: String,
    error: Option<Value>,
    created_s: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refund {
    id: String,
    /// The intent's id.
    intent: String,
    amount: i64,
    number: String,
}

/// What an operation comes to: its answer, and what it changes.
pub(super) struct Outcome {
    pub(super) reply: Reply,
    pub(super) intent: Option<Intent>,
    pub(super) refund: Option<Refund>,
    pub(super) news: Vec<Notice>,
}

impl Outcome {
    /// Nothing changes.
    const fn refused(reply: Reply) -> Self {
        Self { reply, intent: None, refund: None, news: Vec::new() }
    }
}

/// An error as Stripe words it.
pub(super) fn error(status: u16, kind: &str, code: &str) -> Reply {
    (status, json!({"error": {"type": kind, "code": code, "message": "simulated"}}))
}

fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).cloned().unwrap_or_default()
}

fn number(fields: &Fields, name: &str) -> Option<i64> {
    fields.get(name).and_then(|text| text.parse().ok())
}

impl Ledger {
    /// The entry that begins the books.
    pub(super) const fn first() -> Entry {
        Entry::Began { format: FORMAT }
    }

    /// The books that these entries make.
    ///
    /// # Errors
    /// The place of the first that does not follow from those before it, and why.
    pub(super) fn fold(bodies: &[String]) -> Result<Self, (usize, String)> {
        let mut ledger = Self::default();
        for (at, body) in bodies.iter().enumerate() {
            let entry: Entry = serde_json::from_str(body).map_err(|error| (at, error.to_string()))?;
            if (at == 0) != matches!(entry, Entry::Began { .. }) {
                return Err((at, "books begin once, with their form".to_owned()));
            }
            ledger.apply(&entry).map_err(|reason| (at, reason))?;
        }
        Ok(ledger)
    }

    /// Changes the ledger: the only way to, but for keys that are under way.
    ///
    /// # Errors
    /// Why the entry does not follow from what is here.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Began { format: FORMAT } => {}
            Entry::Began { format } => return Err(format!("the form {format} is not one that this build reads")),
            Entry::Arrived { subject, fault } => {
                *self.arrivals.entry(subject.clone()).or_default() += 1;
                if let Some(fault) = fault {
                    *self.faults.entry(fault.clone()).or_default() += 1;
                }
            }
            Entry::Done { intent, refund, key, news } => {
                if let Some(intent) = intent {
                    let at = *self.places.entry(intent.id.clone()).or_insert(self.intents.len());
                    match self.intents.get_mut(at) {
                        Some(known) => known.clone_from(intent),
                        None => self.intents.push(intent.clone()),
                    }
                }
                if let Some(refund) = refund {
                    let known = self.find(&refund.intent).ok_or("a refund of a charge that is none")?;
                    if self.given_back(&known.id) + refund.amount != known.refunded || known.refunded > known.amount {
                        return Err("a refund that does not add up with its charge".to_owned());
                    }
                    self.refunds.push(refund.clone());
                }
                if let Some(Kept { key, fingerprint, reply }) = key {
                    self.keys.insert(key.clone(), Key::Stored(*fingerprint, reply.clone()));
                }
                self.undelivered.extend(news.iter().map(|notice| (notice.id.clone(), notice.clone())));
            }
            Entry::Delivered { notice } => drop(self.undelivered.remove(notice)),
            Entry::KeysForgotten {} => self.keys.clear(),
        }
        Ok(())
    }

    /// What an operation is about, whatever its key and the ids that were drawn for it.
    pub(super) fn subject(&self, operation: &Operation, fields: &Fields) -> String {
        let order = |id: &str| self.find(id).map_or(id, |intent| intent.order_id.as_str()).to_owned();
        match operation {
            Operation::Charge => format!("charge/{}", text(fields, "metadata[order_id]")),
            Operation::Capture(id) => format!("capture/{}", order(id)),
            Operation::Cancel(id) => format!("cancel/{}", order(id)),
            Operation::Refund => {
                format!("refund/{}/{}", order(&text(fields, "payment_intent")), text(fields, "metadata[refund_no]"))
            }
        }
    }

    /// How many requests about `subject` there were.
    pub(super) fn arrived(&self, subject: &str) -> u64 {
        self.arrivals.get(subject).copied().unwrap_or(0)
    }

    /// The webhooks that were not taken yet.
    pub(super) fn undelivered(&self) -> Vec<Notice> {
        self.undelivered.values().cloned().collect()
    }

    /// What comes of it. Nothing changes until that is applied.
    pub(super) fn execute(
        &self,
        operation: &Operation,
        fields: &Fields,
        decline: Option<Decline>,
        now_s: i64,
    ) -> Outcome {
        match operation {
            Operation::Charge => charge(fields, decline, now_s),
            Operation::Capture(id) => self.end_authorization(id, Status::Succeeded, "payment_intent.succeeded"),
            Operation::Cancel(id) => self.end_authorization(id, Status::Canceled, "payment_intent.canceled"),
            Operation::Refund => self.refund(fields),
        }
    }

    fn end_authorization(&self, id: &str, status: Status, kind: &str) -> Outcome {
        let Some(intent) = self.find(id) else { return Outcome::refused(missing()) };
        let cancels_untaken = status == Status::Canceled && intent.status == Status::RequiresPaymentMethod;
        if intent.status != Status::RequiresCapture && !cancels_untaken {
            return Outcome::refused(error(400, "invalid_request_error", "payment_intent_unexpected_state"));
        }
        let intent = Intent { status, ..intent.clone() };
        let shown = intent.shown();
        let news = vec![Notice::new(kind, shown.clone())];
        Outcome { reply: (200, shown), intent: Some(intent), refund: None, news }
    }

    fn refund(&self, fields: &Fields) -> Outcome {
        let Some(intent) = self.find(&text(fields, "payment_intent")) else { return Outcome::refused(missing()) };
        let left = intent.amount - intent.refunded;
        let amount = number(fields, "amount").unwrap_or(left);
        if intent.status != Status::Succeeded || left == 0 {
            return Outcome::refused(error(400, "invalid_request_error", "charge_already_refunded"));
        }
        if amount <= 0 || amount > left {
            return Outcome::refused(error(400, "invalid_request_error", "amount_too_large"));
        }
        let intent = Intent { refunded: intent.refunded + amount, ..intent.clone() };
        let (id, number) = (drawn("re"), text(fields, "metadata[refund_no]"));
        let refund = Refund { id, intent: intent.id.clone(), amount, number };
        let news = vec![Notice::new("charge.refunded", intent.shown_charge())];
        Outcome { reply: (200, refund.shown(&intent)), intent: Some(intent), refund: Some(refund), news }
    }

    /// A page of charges, latest first.
    pub(super) fn list(&self, query: &Fields) -> Reply {
        let from_s = number(query, "created[gte]").unwrap_or(0);
        let end = match query.get("starting_after") {
            None => self.intents.len(),
            Some(id) => match self.places.get(id) {
                Some(at) => *at,
                None => return missing(),
            },
        };
        let rows = self.intents[..end].iter().rev().filter(|intent| intent.created_s >= from_s);
        page(query, rows.map(Intent::shown))
    }

    /// A page of a charge's refunds, latest first.
    pub(super) fn list_refunds(&self, query: &Fields) -> Reply {
        let Some(of) = self.find(&text(query, "payment_intent")) else { return missing() };
        let after = text(query, "starting_after");
        let rows = self.refunds.iter().rev().filter(|refund| refund.intent == of.id).map(|refund| refund.shown(of));
        if after.is_empty() {
            page(query, rows)
        } else {
            page(query, rows.skip_while(|row| row["id"] != *after).skip(1))
        }
    }

    pub(super) fn look(&self, id: &str) -> Reply {
        self.find(id).map_or_else(missing, |intent| (200, intent.shown()))
    }

    /// All there is, for a checker.
    pub(super) fn account(&self) -> Value {
        let charge = |intent: &Intent| {
            let Intent { id, status, amount, refunded, currency, order_id, .. } = intent;
            json!({"id": id, "order_id": order_id, "status": status, "amount": amount, "currency": currency, "refunded": refunded})
        };
        let refund = |refund: &Refund| {
            let Refund { id, intent, amount, number } = refund;
            let order_id = self.find(intent).map_or("", |intent| intent.order_id.as_str());
            json!({"id": id, "charge": intent, "order_id": order_id, "refund_no": number, "amount": amount})
        };
        let charges: Vec<_> = self.intents.iter().map(charge).collect();
        let refunds: Vec<_> = self.refunds.iter().map(refund).collect();
        let requests: u64 = self.arrivals.values().sum();
        json!({"charges": charges, "refunds": refunds, "faults": self.faults, "requests": requests, "keys": self.keys.len()})
    }

    fn find(&self, id: &str) -> Option<&Intent> {
        self.places.get(id).and_then(|at| self.intents.get(*at))
    }

    /// What the refunds of an intent add up to.
    fn given_back(&self, id: &str) -> i64 {
        self.refunds.iter().filter(|refund| refund.intent == id).map(|refund| refund.amount).sum()
    }
}

fn charge(fields: &Fields, decline: Option<Decline>, created_s: i64) -> Outcome {
    let amount = number(fields, "amount").filter(|amount| *amount > 0);
    let (Some(amount), false, false) =
        (amount, text(fields, "currency").is_empty(), text(fields, "payment_method").is_empty())
    else {
        return Outcome::refused(error(400, "invalid_request_error", "parameter_missing"));
    };
    let manual = text(fields, "capture_method") == "manual";
    let (currency, order_id) = (text(fields, "currency"), text(fields, "metadata[order_id]"));
    let (status, error, kind) = match (decline, manual) {
        (Some(Decline(code)), _) => {
            let mut declined = json!({"type": "card_error", "code": "card_declined", "message": "simulated"});
            if let Some(code) = code {
                declined["decline_code"] = json!(code);
            }
            (Status::RequiresPaymentMethod, Some(declined), "payment_intent.payment_failed")
        }
        (None, true) => (Status::RequiresCapture, None, "payment_intent.amount_capturable_updated"),
        (None, false) => (Status::Succeeded, None, "payment_intent.succeeded"),
    };
    let intent = Intent { id: drawn("pi"), status, amount, refunded: 0, currency, order_id, error, created_s };
    let shown = intent.shown();
    let reply = match &intent.error {
        None => (200, shown.clone()),
        Some(declined) => {
            let mut declined = declined.clone();
            declined["payment_intent"] = shown.clone();
            (402, json!({"error": declined}))
        }
    };
    let news = vec![Notice::new(kind, shown)];
    Outcome { reply, intent: Some(intent), refund: None, news }
}

impl Intent {
    fn shown(&self) -> Value {
        let Self { id, status, amount, currency, order_id, error, created_s, .. } = self;
        let where_it_is = |at: Status| if *status == at { *amount } else { 0 };
        json!({
            "id": id, "object": "payment_intent", "status": status, "amount": amount,
            "amount_capturable": where_it_is(Status::RequiresCapture), "amount_received": where_it_is(Status::Succeeded),
            "currency": currency, "created": created_s, "metadata": {"order_id": order_id}, "last_payment_error": error,
        })
    }

    fn shown_charge(&self) -> Value {
        let Self { id, amount, refunded, currency, order_id, .. } = self;
        let charge = id.strip_prefix("pi_").unwrap_or(id);
        json!({
            "id": format!("ch_{charge}"), "object": "charge", "payment_intent": id, "amount": amount,
            "amount_refunded": refunded, "currency": currency, "metadata": {"order_id": order_id},
        })
    }
}

impl Refund {
    fn shown(&self, of: &Intent) -> Value {
        let Self { id, amount, number, .. } = self;
        json!({
            "id": id, "object": "refund", "status": "succeeded", "amount": amount, "currency": of.currency,
            "payment_intent": of.id, "metadata": {"order_id": of.order_id, "refund_no": number},
        })
    }
}

/// An id that nothing else has or had.
fn drawn(kind: &str) -> String {
    format!("{kind}_sim_{}", Uuid::now_v7().simple())
}

fn missing() -> Reply {
    error(404, "invalid_request_error", "resource_missing")
}

fn page(query: &Fields, rows: impl Iterator<Item = Value>) -> Reply {
    let limit = number(query, "limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10).clamp(1, 100);
    let mut rows: Vec<_> = rows.take(limit + 1).collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    (200, json!({"object": "list", "data": rows, "has_more": more}))
}
