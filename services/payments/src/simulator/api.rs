//! The simulator's HTTP API, and where it fails.
//!
//! Invariant: no answer leaves before everything that it may tell of is on the disk ([`durable`]), where the
//! books are kept there.

use std::{
    future,
    time::{Duration, SystemTime},
};

use axum::{
    Router as Routes,
    body::{Body, Bytes},
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, Response, StatusCode, header},
    middleware::{self, Next},
    routing::{get, post},
};
use sha2::{Digest as _, Sha256};

use super::{
    LATE, SILENT, Simulator,
    faults::Fault,
    ledger::{Decline, Entry, Fields, Fingerprint, Kept, Key, Operation, Outcome, Reply, error},
};

/// The header that marks an answer as one that was given before.
const REPLAYED: &str = "idempotent-replayed";

pub(super) fn routes(simulator: Simulator) -> Routes {
    Routes::new()
        .route("/ledger", get(async |State(simulator): State<Simulator>| respond((200, simulator.account()), false)))
        .route("/v1/payment_intents", post(charge).get(list))
        .route("/v1/payment_intents/{id}", get(look))
        .route("/v1/payment_intents/{id}/capture", post(capture))
        .route("/v1/payment_intents/{id}/cancel", post(cancel))
        .route("/v1/refunds", post(refund).get(list_refunds))
        .layer(middleware::from_fn_with_state(simulator.clone(), durable))
        .with_state(simulator)
}

/// Holds an answer back until the books are on the disk; without them there is no answer to give.
async fn durable(State(simulator): State<Simulator>, request: Request, next: Next) -> Response<Body> {
    let response = next.run(request).await;
    match simulator.durable().await {
        Ok(()) => response,
        Err(_) => respond(error(500, "api_error", "books_not_written"), false),
    }
}

async fn charge(State(simulator): State<Simulator>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    simulator.change(Operation::Charge, &headers, &body).await
}

async fn capture(
    State(simulator): State<Simulator>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    simulator.change(Operation::Capture(id), &headers, &body).await
}

async fn cancel(
    State(simulator): State<Simulator>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    simulator.change(Operation::Cancel(id), &headers, &body).await
}

async fn refund(State(simulator): State<Simulator>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    simulator.change(Operation::Refund, &headers, &body).await
}

async fn list(State(simulator): State<Simulator>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response<Body> {
    let query = query.unwrap_or_default();
    let reply = simulator.books().ledger().list(&fields(query.as_bytes()));
    simulator.tell(&headers, &format!("list/{query}"), reply).await
}

async fn list_refunds(
    State(simulator): State<Simulator>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let query = query.unwrap_or_default();
    let reply = simulator.books().ledger().list_refunds(&fields(query.as_bytes()));
    simulator.tell(&headers, &format!("refunds/{query}"), reply).await
}

async fn look(State(simulator): State<Simulator>, Path(id): Path<String>, headers: HeaderMap) -> Response<Body> {
    let reply = simulator.books().ledger().look(&id);
    simulator.tell(&headers, &format!("look/{id}"), reply).await
}

impl Simulator {
    /// Answers a question.
    async fn tell(&self, headers: &HeaderMap, subject: &str, reply: Reply) -> Response<Body> {
        if !known_caller(headers) {
            return respond(error(401, "invalid_request_error", "api_key_missing"), false);
        }
        let fault = self.known_fault(subject);
        self.answer(fault, reply, false).await
    }

    /// Does something, once per key, unless it fails.
    async fn change(&self, operation: Operation, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        if !known_caller(headers) {
            return respond(error(401, "invalid_request_error", "api_key_missing"), false);
        }
        let fields = fields(body);
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
        let fingerprint: Fingerprint = Sha256::digest([format!("{operation:?}|").as_bytes(), body].concat()).into();
        let taken = self.take(&operation, &fields, &key, fingerprint);
        let (fault, decline) = match taken {
            Taken::New(fault, decline) => (fault, decline),
            Taken::Refused(reply) => return respond(reply, false),
            Taken::Known(subject, reply) => {
                let fault = self.known_fault(&format!("again/{subject}"));
                return self.answer(fault, reply, true).await;
            }
        };
        let work = Work { operation, fields, decline, key, fingerprint };
        match fault {
            None | Some(Fault::Declined | Fault::PaymentRequired) => respond(self.execute(&work, None), false),
            Some(Fault::FailsBefore) => {
                let reply = error(500, "api_error", "simulated");
                self.store(&work, reply.clone());
                respond(reply, false)
            }
            Some(Fault::FailsAfter) => {
                let reply = error(500, "api_error", "simulated");
                self.execute(&work, Some(reply.clone()));
                respond(reply, false)
            }
            Some(Fault::Late) => {
                let (simulator, hang) = (self.clone(), self.inner.config.hang);
                tokio::spawn(async move {
                    tokio::time::sleep(hang.saturating_mul(2)).await;
                    simulator.execute(&work, None);
                });
                self.hang().await
            }
            Some(Fault::TimeoutAfter | Fault::Malformed) => {
                let reply = self.execute(&work, None);
                self.answer(fault, reply, false).await
            }
            Some(_) => self.answer(fault, error(500, "api_error", "simulated"), false).await,
        }
    }

    /// Looks at the key and takes it, as one step: nothing may come between.
    fn take(&self, operation: &Operation, fields: &Fields, key: &str, fingerprint: Fingerprint) -> Taken {
        let mut books = self.books();
        let subject = books.ledger().subject(operation, fields);
        match books.ledger().keys.get(key) {
            Some(known) if *known.fingerprint() != fingerprint => {
                return Taken::Refused(error(400, "idempotency_error", "idempotency_key_reused"));
            }
            Some(Key::UnderWay(_)) => {
                return Taken::Refused(error(409, "idempotency_error", "idempotency_key_in_use"));
            }
            Some(Key::Stored(_, reply)) => return Taken::Known(subject, reply.clone()),
            None => {}
        }
        let nth = books.ledger().arrived(&subject);
        let fault = match (operation, fields.get("payment_method").map(String::as_str), nth) {
            (Operation::Charge, Some(SILENT), 0) => Some(Fault::TimeoutAfter),
            (Operation::Charge, Some(LATE), 0) => Some(Fault::Late),
            _ => self.inner.config.plan.strikes_new(self.inner.dice, &subject, nth),
        };
        books.note(&Entry::Arrived { subject, fault: fault.map(|fault| fault.name().to_owned()) });
        if fault.is_none_or(Fault::keeps_key) && !key.is_empty() {
            books.begin(key, fingerprint);
        }
        Taken::New(fault, self.decline(operation, fields, fault))
    }

    fn known_fault(&self, subject: &str) -> Option<Fault> {
        let mut books = self.books();
        let nth = books.ledger().arrived(subject);
        let fault = self.inner.config.plan.strikes_known(self.inner.dice, subject, nth);
        books.note(&Entry::Arrived { subject: subject.to_owned(), fault: fault.map(|fault| fault.name().to_owned()) });
        fault
    }

    fn decline(&self, operation: &Operation, fields: &Fields, fault: Option<Fault>) -> Option<Decline> {
        if !matches!(operation, Operation::Charge) {
            return None;
        }
        let method = fields.get("payment_method").map(String::as_str).unwrap_or_default();
        let order = fields.get("metadata[order_id]");
        match (fault, method) {
            (Some(Fault::Declined), _) => Some(Decline(Some("do_not_honor"))),
            (Some(Fault::PaymentRequired), _) => Some(Decline(None)),
            (_, "pm_card_chargeDeclinedInsufficientFunds") => Some(Decline(Some("insufficient_funds"))),
            (_, "pm_card_chargeDeclined") => Some(Decline(Some("generic_decline"))),
            _ if self.inner.dice.strikes(&("decline", order), self.inner.config.declines_per_mille) => {
                Some(Decline(Some("generic_decline")))
            }
            _ => None,
        }
    }

    /// Does it, and keeps for its key what came of it, or `instead`.
    fn execute(&self, work: &Work, instead: Option<Reply>) -> Reply {
        let mut books = self.books();
        let Outcome { reply, intent, refund, mut news } =
            books.ledger().execute(&work.operation, &work.fields, work.decline, now_s());
        if self.inner.webhooks.is_none() {
            news.clear();
        }
        let key = work.keeps(instead.unwrap_or_else(|| reply.clone()));
        books.note(&Entry::Done { intent, refund, key, news: news.clone() });
        drop(books);
        self.report(news);
        reply
    }

    fn store(&self, work: &Work, reply: Reply) {
        let (key, news) = (work.keeps(reply), Vec::new());
        self.books().note(&Entry::Done { intent: None, refund: None, key, news });
    }

    /// Answers, or fails to.
    async fn answer(&self, fault: Option<Fault>, reply: Reply, replayed: bool) -> Response<Body> {
        match fault {
            Some(Fault::Conflict) => respond(error(409, "idempotency_error", "idempotency_key_in_use"), false),
            Some(Fault::RateLimited) => {
                let mut response = respond(error(429, "rate_limit_error", "rate_limit"), false);
                response.headers_mut().insert(header::RETRY_AFTER, self.inner.config.retry_after_s.into());
                response
            }
            Some(Fault::FailsUnstored) => respond(error(500, "api_error", "simulated"), false),
            Some(Fault::TimeoutBefore | Fault::TimeoutAfter) => self.hang().await,
            Some(Fault::Malformed) => {
                let text = reply.1.to_string();
                let half = text.get(..text.len() / 2).unwrap_or("{").to_owned();
                let mut response = Response::new(Body::from(half));
                *response.status_mut() = StatusCode::OK;
                response
            }
            _ => respond(reply, replayed),
        }
    }

    /// No answer in time.
    async fn hang(&self) -> Response<Body> {
        if self.inner.config.hang == Duration::MAX {
            future::pending::<()>().await;
        }
        tokio::time::sleep(self.inner.config.hang).await;
        respond(error(504, "api_error", "simulated"), false)
    }
}

/// What a key says about a request.
enum Taken {
    /// It is a new one; how it fails, and how it is declined, if so.
    New(Option<Fault>, Option<Decline>),
    /// It was answered before; what it was about, and the answer.
    Known(String, Reply),
    /// It can't be answered.
    Refused(Reply),
}

/// Something to do.
#[derive(Clone, Debug)]
struct Work {
    operation: Operation,
    fields: Fields,
    decline: Option<Decline>,
    key: String,
    fingerprint: Fingerprint,
}

impl Work {
    /// The answer that the key stands for from now on, if there is a key.
    fn keeps(&self, reply: Reply) -> Option<Kept> {
        let (key, fingerprint) = (self.key.clone(), self.fingerprint);
        (!key.is_empty()).then_some(Kept { key, fingerprint, reply })
    }
}

fn respond((status, body): Reply, replayed: bool) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if replayed {
        response.headers_mut().insert(REPLAYED, header::HeaderValue::from_static("true"));
    }
    response
}

fn known_caller(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|key| !key.is_empty())
}

fn fields(form: &[u8]) -> Fields {
    form_urlencoded::parse(form).into_owned().collect()
}

fn now_s() -> i64 {
    let elapsed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_was_written() {
        let fields = fields(b"metadata%5Border_id%5D=a+b&amount=5");
        assert_eq!(fields.get("metadata[order_id]").map(String::as_str), Some("a b"));
        assert_eq!(fields.len(), 2);
    }
}
