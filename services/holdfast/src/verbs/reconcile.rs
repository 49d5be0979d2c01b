//! `holdfast reconcile`: every order as four contexts tell it, and where they disagree.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_core::{Timestamp, port::clock::Clock as _};
use holdfast_platform::Config;
use holdfast_proto::time;
use holdfast_runtime::SystemClock;

use crate::{
    cli,
    failure::Failure,
    infrastructure::Infrastructure,
    operator::{
        books::disagreements,
        story::{Story, Tellers},
    },
};

/// Orders asked about at a time.
const CONCURRENCY: usize = 16;

/// Compares all; 1 if any disagree.
pub async fn run(config: &Config, verb: cli::Reconcile) -> Result<u8, Failure> {
    let at = Infrastructure::configured(config)?;
    let tellers = Tellers::find(config, &at).await?;
    let (mut token, mut compared, mut moving, mut drifted) = (String::new(), 0, 0, 0);
    loop {
        let page = tellers.page(&token).await?;
        let ids: Vec<String> = page.orders.into_iter().map(|order| order.order_id).collect();
        let stories = stream::iter(&ids).map(|id| tellers.story(id)).buffered(CONCURRENCY);
        for (id, story) in ids.iter().zip(stories.try_collect::<Vec<_>>().await?) {
            let found = disagreements(&story);
            if found.is_empty() {
                compared += 1;
            } else if is_moving(&story, verb.settled, SystemClock.now()) {
                moving += 1;
            } else {
                (compared, drifted) = (compared + 1, drifted + 1);
                for what in found {
                    if verb.json {
                        println!("{}", serde_json::json!({ "order_id": id, "disagreement": what }));
                    } else {
                        println!("{id}: {what}");
                    }
                }
            }
        }
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    eprintln!("{compared} orders compared, {drifted} of them disagree; {moving} are on their way");
    Ok(u8::from(drifted > 0))
}

/// Whether some part of it changed less than that ago, so that others may not have heard.
fn is_moving(story: &Story, settled: Duration, now: Timestamp) -> bool {
    let parts = [
        story.order.as_ref().and_then(|part| part.updated_at.as_ref()),
        story.reservation.as_ref().and_then(|part| part.updated_at.as_ref()),
        story.payment.as_ref().and_then(|part| part.updated_at.as_ref()),
        story.shipment.as_ref().and_then(|part| part.updated_at.as_ref()),
    ];
    let newest = parts.into_iter().flatten().filter_map(time::to_unix_ms).max().unwrap_or(0);
    let settled_ms = i64::try_from(settled.as_millis()).unwrap_or(i64::MAX);
    now.unix_ms().saturating_sub(newest) < settled_ms
}
