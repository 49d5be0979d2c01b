//! Wrong configuration, and servers that are not there.

use std::process::Output;

use libtest_mimic::Failed;

use crate::shop::{Shop, holdfast, text};

fn expect(output: &Output, code: i32, words: &[&str]) -> Result<(), Failed> {
    let said = text(&output.stderr);
    if output.status.code() != Some(code) {
        return Err(format!("exit code {:?} instead of {code}: {said}", output.status.code()).into());
    }
    match words.iter().find(|word| !said.contains(**word)) {
        None => Ok(()),
        Some(word) => Err(format!("`{word}` is not in: {said}").into()),
    }
}

pub async fn a_wrong_value_exits_2_and_names_itself(_: &Shop) -> Result<(), Failed> {
    let output = holdfast().arg("config").env("HOLDFAST_LANES", "banana").output()?;
    expect(&output, 2, &["HOLDFAST_LANES", "banana"])?;
    let output = holdfast().arg("config").env("HOLDFAST_LANE", "2").output()?;
    expect(&output, 2, &["HOLDFAST_LANE", "did you mean `HOLDFAST_LANES`"])?;
    let output = holdfast().args(["config", "--set", "lanes"]).output()?;
    expect(&output, 2, &["lanes"])?;
    let output = holdfast().args(["serve", "all"]).output()?;
    expect(&output, 2, &["HOLDFAST_KAFKA_BROKERS"])?;
    let output = holdfast().args(["serve", "shipping"]).output()?;
    expect(&output, 2, &["shipping"])?;
    let output = holdfast().args(["load", "sideways"]).output()?;
    expect(&output, 2, &["sideways", "pipeline"])?;
    let output = holdfast().args(["demo", "--orders", "0"]).output()?;
    expect(&output, 2, &["--orders"])
}

pub async fn an_unreachable_dependency_exits_3(shop: &Shop) -> Result<(), Failed> {
    // A port that was just free, and that nobody listens on.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let away = format!("postgres://nobody:secret@{closed}/none");
    let output = holdfast().args(["migrate", "all"]).env("HOLDFAST_DATABASE_URL", &away).output()?;
    expect(&output, 3, &["schema"])?;
    if text(&output.stderr).contains("secret") {
        return Err("a password was printed".into());
    }
    let output = holdfast().args(["topics", "plan"]).env("HOLDFAST_KAFKA_BROKERS", closed.to_string()).output()?;
    expect(&output, 3, &[])?;
    let plan = ["topics", "plan", "orders,inventory"];
    let output = holdfast().args(plan).env("HOLDFAST_KAFKA_BROKERS", shop.brokers()).output()?;
    expect(&output, 0, &["as they should be"])
}

pub async fn a_taken_port_is_named(shop: &Shop) -> Result<(), Failed> {
    let output = holdfast()
        .args(["serve", "all"])
        .env("HOLDFAST_KAFKA_BROKERS", shop.brokers())
        .env("HOLDFAST_DATABASE_URL", shop.stack.postgres_url("postgres"))
        .env("HOLDFAST_GRPC_LISTEN", "127.0.0.1:0")
        .env("HOLDFAST_HTTP_LISTEN", shop.http.to_string())
        .output()?;
    expect(&output, 2, &[&shop.http.to_string(), "http.listen"])
}
