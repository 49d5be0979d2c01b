//! What Stripe's answers mean.
//!
//! Invariant: only what is unmistakably Stripe's own word is taken as one; whatever does not read as that
//! leaves the outcome unknown. An answer's order, charge and amount are read as they stand; whether they are
//! those that were asked for is [`crate::perform`]'s to say. Deliberately absent: fields that decide nothing,
//! personal data among them.

use std::time::Duration;

use holdfast_money::Money;
use holdfast_platform::http_client::Answer;
use http::{StatusCode, header};
use serde_json::Value;

use super::amount;
use crate::provider::{Charge, Failure, Progress, Refund, Refunded};

const MALFORMED: Failure = Failure::Unknown { reason: "MALFORMED" };

/// The object in an answer, or what kept it from being one.
pub(super) fn read(answer: &Answer) -> Result<Value, Failure> {
    let body = || serde_json::from_slice::<Value>(&answer.body).ok().filter(Value::is_object);
    match answer.status {
        status if status.is_success() => body().ok_or(MALFORMED),
        status if status.is_server_error() => {
            let stored = answer.headers.get("idempotent-replayed").is_some_and(|value| value.as_bytes() == b"true");
            Err(Failure::Failed { stored })
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = answer.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(Failure::Busy { reason: "RATE_LIMITED", after: seconds.map(Duration::from_secs) })
        }
        StatusCode::CONFLICT => Err(Failure::Busy { reason: "IN_PROGRESS", after: None }),
        status => match body().as_ref().map(|body| &body["error"]).filter(|error| error.is_object()) {
            Some(error) => Err(refusal(status, error)),
            // A proxy's, perhaps.
            None => Err(MALFORMED),
        },
    }
}

fn refusal(status: StatusCode, error: &Value) -> Failure {
    match status {
        StatusCode::BAD_REQUEST if error["type"] == "idempotency_error" => Failure::KeyReused,
        StatusCode::BAD_REQUEST | StatusCode::PAYMENT_REQUIRED => {
            Failure::Refused { code: code(error), charge: charge(&error["payment_intent"]).ok().map(Box::new) }
        }
        status => Failure::Misconfigured { status: status.as_u16() },
    }
}

/// The most telling code of an error.
pub(crate) fn code(error: &Value) -> String {
    let of = |field: &str| error[field].as_str().filter(|code| !code.is_empty());
    of("decline_code").or_else(|| of("code")).or_else(|| of("type")).unwrap_or("unknown").to_owned()
}

/// A `PaymentIntent`.
pub(super) fn charge(intent: &Value) -> Result<Charge, Failure> {
    let reference = id(intent)?;
    let order_id = metadata(intent, "order_id").map(str::to_owned);
    let status = intent["status"].as_str().ok_or(MALFORMED)?;
    let amount = match status {
        "succeeded" => money(intent, "amount_received")?,
        "requires_capture" => money(intent, "amount_capturable")?,
        _ => money(intent, "amount")?,
    };
    let error = &intent["last_payment_error"];
    let progress = match status {
        "succeeded" => Progress::Captured,
        "requires_capture" => Progress::Authorized,
        "processing" => Progress::Pending,
        "canceled" => Progress::CalledOff,
        // The customer would have to do something, and is not there.
        "requires_action" => Progress::Declined { code: "authentication_required".to_owned() },
        "requires_payment_method" | "requires_confirmation" if error.is_object() => {
            Progress::Declined { code: code(error) }
        }
        "requires_payment_method" | "requires_confirmation" => Progress::NotTried,
        _ => return Err(MALFORMED),
    };
    Ok(Charge { reference, order_id, amount, progress })
}

/// A refund.
pub(super) fn refund(refund: &Value) -> Result<Refund, Failure> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let progress = match refund["status"].as_str().ok_or(MALFORMED)? {
        // Pending ones are on their way; the bank has no say any more in nearly all of them.
        "succeeded" | "pending" | "requires_action" => Refunded::Taken,
        status @ ("failed" | "canceled") => {
            let code = refund["failure_reason"].as_str().unwrap_or(status).to_owned();
            Refunded::Failed { code }
        }
        _ => return Err(MALFORMED),
    };
    Ok(Refund {
        reference: id(refund)?,
        order_id: text(&refund["metadata"]["order_id"]),
        charge: text(&refund["payment_intent"]),
        number: text(&refund["metadata"]["refund_no"]),
        amount: money(refund, "amount")?,
        progress,
    })
}

/// An amount of an object, in the object's currency.
fn money(object: &Value, field: &str) -> Result<Money, Failure> {
    let (units, currency) = (object[field].as_i64(), object["currency"].as_str());
    units.zip(currency).and_then(|(units, currency)| amount::from_stripe(units, currency)).ok_or(MALFORMED)
}

/// The rows of a list, and whether there are more.
pub(super) fn page(list: &Value) -> Result<(&[Value], bool), Failure> {
    let rows = list["data"].as_array().ok_or(MALFORMED)?;
    Ok((rows, list["has_more"].as_bool().ok_or(MALFORMED)?))
}

/// An object's id.
pub(super) fn id(object: &Value) -> Result<String, Failure> {
    object["id"].as_str().filter(|id| !id.is_empty()).map(str::to_owned).ok_or(MALFORMED)
}

/// A field of an object's metadata.
pub(super) fn metadata<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"][name].as_str()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Result<Value, Failure> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        read(&Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned().into() })
    }

    #[test]
    fn each_class_of_error_has_its_meaning() {
        let refused = |code: &str| Err(Failure::Refused { code: code.to_owned(), charge: None });
        let declined = r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card"}}"#;
        let after = |seconds| Failure::Busy { reason: "RATE_LIMITED", after: Some(Duration::from_secs(seconds)) };
        let rows = [
            (answer(402, &[], declined), refused("lost_card")),
            (answer(402, &[], r#"{"error":{"type":"card_error","code":"expired_card"}}"#), refused("expired_card")),
            (answer(400, &[], r#"{"error":{"type":"invalid_request_error"}}"#), refused("invalid_request_error")),
            (answer(400, &[], r#"{"error":{"type":"idempotency_error"}}"#), Err(Failure::KeyReused)),
            (answer(401, &[], r#"{"error":{"type":"x"}}"#), Err(Failure::Misconfigured { status: 401 })),
            (answer(404, &[], r#"{"error":{"type":"x"}}"#), Err(Failure::Misconfigured { status: 404 })),
            (answer(409, &[], "{}"), Err(Failure::Busy { reason: "IN_PROGRESS", after: None })),
            (answer(429, &[("retry-after", "7")], ""), Err(after(7))),
            (answer(429, &[], ""), Err(Failure::Busy { reason: "RATE_LIMITED", after: None })),
            (answer(500, &[], declined), Err(Failure::Failed { stored: false })),
            (answer(503, &[("idempotent-replayed", "true")], ""), Err(Failure::Failed { stored: true })),
            (answer(200, &[], r#"{"id":"pi_1","status":"succ"#), Err(MALFORMED)),
            (answer(200, &[], "[]"), Err(MALFORMED)),
            (answer(402, &[], "<html>payment required</html>"), Err(MALFORMED)),
            (answer(400, &[], r#"{"message":"not Stripe's"}"#), Err(MALFORMED)),
            (answer(302, &[], ""), Err(MALFORMED)),
        ];
        for (at, (meant, expected)) in rows.into_iter().enumerate() {
            assert_eq!(meant, expected, "row {at}");
        }
    }

    #[test]
    fn a_status_that_is_not_known_leaves_the_outcome_unknown() {
        let intent = |status: &str| json!({"id": "pi_1", "currency": "eur", "amount": 5, "amount_received": 5, "status": status});
        let of = |status: &str| charge(&intent(status)).map(|charge| charge.progress);
        assert_eq!(of("succeeded"), Ok(Progress::Captured));
        assert_eq!(of("requires_payment_method"), Ok(Progress::NotTried));
        assert_eq!(of("requires_vision"), Err(MALFORMED));
        assert_eq!(charge(&json!({"status": "succeeded"})), Err(MALFORMED));
        let mut declined = intent("requires_payment_method");
        declined["last_payment_error"] = json!({"code": "x"});
        assert_eq!(charge(&declined).map(|c| c.progress), Ok(Progress::Declined { code: "x".to_owned() }));
    }

    #[test]
    fn answer_says_which_order_charge_and_amount_it_is_about() {
        let eur = |minor| Money::new(minor, holdfast_money::Currency::EUR);
        let mut intent = json!({
            "id": "pi_1", "currency": "eur", "status": "succeeded", "amount": 9, "amount_capturable": 7, "amount_received": 5,
            "metadata": {"order_id": "a"},
        });
        let about = |intent: &Value| charge(intent).map(|charge| (charge.order_id, charge.amount));
        assert_eq!(about(&intent), Ok((Some("a".to_owned()), eur(5))));
        intent["status"] = json!("requires_capture");
        assert_eq!(about(&intent), Ok((Some("a".to_owned()), eur(7))));
        intent["status"] = json!("canceled");
        intent["metadata"] = json!({});
        assert_eq!(about(&intent), Ok((None, eur(9))));
        intent["amount"] = json!("9");
        assert_eq!(about(&intent), Err(MALFORMED));
        let mut back = json!({
            "id": "re_1", "currency": "eur", "status": "succeeded", "amount": 3, "payment_intent": "pi_1",
            "metadata": {"order_id": "a", "refund_no": "2"},
        });
        let read = Refund {
            reference: "re_1".to_owned(),
            order_id: Some("a".to_owned()),
            charge: Some("pi_1".to_owned()),
            number: Some("2".to_owned()),
            amount: eur(3),
            progress: Refunded::Taken,
        };
        assert_eq!(refund(&back), Ok(read.clone()));
        back["payment_intent"] = Value::Null;
        back["metadata"] = Value::Null;
        let read = Refund { order_id: None, charge: None, number: None, ..read };
        assert_eq!(refund(&back), Ok(read));
        back["currency"] = json!("zzz");
        assert_eq!(refund(&back), Err(MALFORMED));
    }

    #[test]
    fn decline_names_the_charge_that_was_refused() {
        let body = r#"{"error":{"type":"card_error","code":"card_declined","payment_intent":{"id":"pi_1","currency":"eur","amount":5,"status":"requires_payment_method","metadata":{"order_id":"a"}}}}"#;
        let Err(Failure::Refused { charge: Some(charge), .. }) = answer(402, &[], body) else { panic!("no charge") };
        assert_eq!((charge.reference.as_str(), charge.order_id.as_deref()), ("pi_1", Some("a")));
    }
}
