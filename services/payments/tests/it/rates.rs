//! The HTTP rate source: whole numbers, or no answer.

use std::time::Duration;

use axum::{Router, extract::RawQuery, http::StatusCode, routing::get};
use holdfast_money::{Currency, Money};
use holdfast_payments::rates::{HttpRates, RateSource as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_rate_over_http_is_a_fraction_of_whole_numbers_or_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/rates", listener.local_addr().unwrap());
    let answer = async |RawQuery(query): RawQuery| match query.unwrap_or_default().as_str() {
        "from=USD&to=EUR" => (StatusCode::OK, r#"{"numerator":93,"denominator":100}"#),
        "from=JPY&to=EUR" => (StatusCode::OK, r#"{"numerator":0.006,"denominator":1}"#),
        "from=CHF&to=EUR" => (StatusCode::OK, r#"{"numerator":-1,"denominator":1}"#),
        "from=GBP&to=EUR" => (StatusCode::NOT_FOUND, ""),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, ""),
    };
    let routes = Router::new().route("/rates", get(answer));
    let limits = holdfast_platform::http::Limits::default();
    tokio::spawn(holdfast_platform::http::serve(listener, routes, limits, CancellationToken::new()));

    let rates = HttpRates::new(Currency::EUR, url, Duration::from_secs(5));
    let rate = rates.ask(Currency::USD).await.unwrap().unwrap();
    assert_eq!(rate.convert(Money::new(10_00, Currency::USD)), Ok(Money::new(9_30, Currency::EUR)));
    assert_eq!(rates.ask(Currency::GBP).await, Ok(None));
    for unusable in [Currency::JPY, Currency::CHF, "SEK".parse().unwrap()] {
        assert!(rates.ask(unusable).await.is_err(), "{unusable}");
    }
}
