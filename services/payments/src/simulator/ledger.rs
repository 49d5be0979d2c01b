//! What the simulator knows: every charge, every refund, every key.
//!
//! Invariant: never more is given back than was captured. Amounts are in Stripe's units.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

/// A form's fields.
pub(super) type Fields = BTreeMap<String, String>;

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
    /// Asked for with this fingerprint, and not done.
    UnderWay([u8; 32]),
    /// Done.
    Stored([u8; 32], Reply),
}

impl Key {
    pub(super) const fn fingerprint(&self) -> &[u8; 32] {
        match self {
            Self::UnderWay(fingerprint) | Self::Stored(fingerprint, _) => fingerprint,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    intents: Vec<Intent>,
    refunds: Vec<Refund>,
    pub(super) keys: HashMap<String, Key>,
    /// Requests by what they are about.
    arrivals: HashMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug)]
struct Intent {
    status: &'static str,
    amount: i64,
    refunded: i64,
    currency: String,
    order_id: String,
    error: Option<Value>,
    created_s: i64,
}

#[derive(Clone, Debug)]
struct Refund {
    intent: usize,
    amount: i64,
    number: String,
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

/// What an operation is about, whatever its key.
pub(super) fn subject(operation: &Operation, fields: &Fields) -> String {
    match operation {
        Operation::Charge => format!("charge/{}", text(fields, "metadata[order_id]")),
        Operation::Capture(id) => format!("capture/{id}"),
        Operation::Cancel(id) => format!("cancel/{id}"),
        Operation::Refund => {
            format!("refund/{}/{}", text(fields, "payment_intent"), text(fields, "metadata[refund_no]"))
        }
    }
}

/// A type of webhook, and what it is about.
pub(super) type News = (&'static str, Value);

impl Ledger {
    /// Counts a request about `subject`; how many there were before.
    pub(super) fn arrives(&mut self, subject: &str) -> u64 {
        let count = self.arrivals.entry(subject.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    pub(super) fn failed(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Does it.
    pub(super) fn execute(
        &mut self,
        operation: &Operation,
        fields: &Fields,
        decline: Option<Decline>,
        now_s: i64,
    ) -> (Reply, Vec<News>) {
        match operation {
            Operation::Charge => self.charge(fields, decline, now_s),
            Operation::Capture(id) => self.end_authorization(id, "succeeded", "payment_intent.succeeded"),
            Operation::Cancel(id) => self.end_authorization(id, "canceled", "payment_intent.canceled"),
            Operation::Refund => self.refund(fields),
        }
    }

    fn charge(&mut self, fields: &Fields, decline: Option<Decline>, created_s: i64) -> (Reply, Vec<News>) {
        let amount = number(fields, "amount").filter(|amount| *amount > 0);
        let (Some(amount), false, false) =
            (amount, text(fields, "currency").is_empty(), text(fields, "payment_method").is_empty())
        else {
            return (error(400, "invalid_request_error", "parameter_missing"), Vec::new());
        };
        let manual = text(fields, "capture_method") == "manual";
        let (currency, order_id) = (text(fields, "currency"), text(fields, "metadata[order_id]"));
        let mut intent =
            Intent { status: "succeeded", amount, refunded: 0, currency, order_id, error: None, created_s };
        let kind = match (&decline, manual) {
            (Some(Decline(code)), _) => {
                intent.status = "requires_payment_method";
                let mut declined = json!({"type": "card_error", "code": "card_declined", "message": "simulated"});
                if let Some(code) = code {
                    declined["decline_code"] = json!(code);
                }
                intent.error = Some(declined);
                "payment_intent.payment_failed"
            }
            (None, true) => {
                intent.status = "requires_capture";
                "payment_intent.amount_capturable_updated"
            }
            (None, false) => "payment_intent.succeeded",
        };
        self.intents.push(intent);
        let shown = self.shown(self.intents.len() - 1);
        let reply = match &shown["last_payment_error"] {
            Value::Null => (200, shown.clone()),
            declined => {
                let mut declined = declined.clone();
                declined["payment_intent"] = shown.clone();
                (402, json!({"error": declined}))
            }
        };
        (reply, vec![(kind, shown)])
    }

    fn end_authorization(&mut self, id: &str, status: &'static str, kind: &'static str) -> (Reply, Vec<News>) {
        let Some(at) = self.at(id) else { return (missing(), Vec::new()) };
        let intent = &mut self.intents[at];
        let cancels_untaken = status == "canceled" && intent.status == "requires_payment_method";
        if intent.status != "requires_capture" && !cancels_untaken {
            return (error(400, "invalid_request_error", "payment_intent_unexpected_state"), Vec::new());
        }
        intent.status = status;
        let shown = self.shown(at);
        ((200, shown.clone()), vec![(kind, shown)])
    }

    fn refund(&mut self, fields: &Fields) -> (Reply, Vec<News>) {
        let Some(at) = self.at(&text(fields, "payment_intent")) else { return (missing(), Vec::new()) };
        let intent = &mut self.intents[at];
        let left = intent.amount - intent.refunded;
        let amount = number(fields, "amount").unwrap_or(left);
        if intent.status != "succeeded" || left == 0 {
            return (error(400, "invalid_request_error", "charge_already_refunded"), Vec::new());
        }
        if amount <= 0 || amount > left {
            return (error(400, "invalid_request_error", "amount_too_large"), Vec::new());
        }
        intent.refunded += amount;
        self.refunds.push(Refund { intent: at, amount, number: text(fields, "metadata[refund_no]") });
        let shown = self.shown_refund(self.refunds.len() - 1);
        ((200, shown), vec![("charge.refunded", self.shown_charge(at))])
    }

    /// A page of charges, latest first.
    pub(super) fn list(&self, query: &Fields) -> Reply {
        let from_s = number(query, "created[gte]").unwrap_or(0);
        let end = match query.get("starting_after") {
            None => self.intents.len(),
            Some(id) => match self.at(id) {
                Some(at) => at,
                None => return missing(),
            },
        };
        let rows = (0..end).rev().filter(|at| self.intents[*at].created_s >= from_s);
        page(query, rows.map(|at| self.shown(at)))
    }

    /// A page of a charge's refunds, latest first.
    pub(super) fn list_refunds(&self, query: &Fields) -> Reply {
        let Some(of) = self.at(&text(query, "payment_intent")) else { return missing() };
        let after = text(query, "starting_after");
        let rows = (0..self.refunds.len()).rev().filter(|at| self.refunds[*at].intent == of);
        let rows = rows.map(|at| self.shown_refund(at));
        if after.is_empty() {
            page(query, rows)
        } else {
            page(query, rows.skip_while(|row| row["id"] != *after).skip(1))
        }
    }

    pub(super) fn look(&self, id: &str) -> Reply {
        self.at(id).map_or_else(missing, |at| (200, self.shown(at)))
    }

    /// All there is, for a checker.
    pub(super) fn account(&self) -> Value {
        let charges: Vec<_> = (0..self.intents.len())
            .map(|at| {
                let Intent { status, amount, refunded, currency, order_id, .. } = &self.intents[at];
                let id = intent_id(at);
                json!({"id": id, "order_id": order_id, "status": status, "amount": amount, "currency": currency, "refunded": refunded})
            })
            .collect();
        let refunds: Vec<_> = (0..self.refunds.len())
            .map(|at| {
                let Refund { intent, amount, number } = &self.refunds[at];
                let order_id = &self.intents[*intent].order_id;
                json!({"id": refund_id(at), "charge": intent_id(*intent), "order_id": order_id, "refund_no": number, "amount": amount})
            })
            .collect();
        let requests: u64 = self.arrivals.values().sum();
        json!({"charges": charges, "refunds": refunds, "faults": self.faults, "requests": requests, "keys": self.keys.len()})
    }

    fn at(&self, id: &str) -> Option<usize> {
        let at = id.strip_prefix("pi_sim_")?.parse().ok()?;
        (at < self.intents.len()).then_some(at)
    }

    fn shown(&self, at: usize) -> Value {
        let Intent { status, amount, currency, order_id, error, created_s, .. } = &self.intents[at];
        let received = if *status == "succeeded" { *amount } else { 0 };
        json!({
            "id": intent_id(at), "object": "payment_intent", "status": status, "amount": amount,
            "amount_received": received, "currency": currency, "created": created_s,
            "metadata": {"order_id": order_id}, "last_payment_error": error,
        })
    }

    fn shown_charge(&self, at: usize) -> Value {
        let Intent { amount, refunded, currency, order_id, .. } = &self.intents[at];
        json!({
            "id": format!("ch_sim_{at}"), "object": "charge", "payment_intent": intent_id(at), "amount": amount,
            "amount_refunded": refunded, "currency": currency, "metadata": {"order_id": order_id},
        })
    }

    fn shown_refund(&self, at: usize) -> Value {
        let Refund { intent, amount, number } = &self.refunds[at];
        let Intent { currency, order_id, .. } = &self.intents[*intent];
        json!({
            "id": refund_id(at), "object": "refund", "status": "succeeded", "amount": amount, "currency": currency,
            "payment_intent": intent_id(*intent), "metadata": {"order_id": order_id, "refund_no": number},
        })
    }
}

fn intent_id(at: usize) -> String {
    format!("pi_sim_{at}")
}

fn refund_id(at: usize) -> String {
    format!("re_sim_{at}")
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
