//! What is said of an ownership that has ended is void under the next.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use holdfast_core::{PartitionId, epoch::Token};
use holdfast_testkit::{ManualClock, MemoryLog, MemoryPublisher, MemoryStore};
use tokio::sync::oneshot;

use super::{Home, Relay, RelayMessage};
use crate::{config::Config, progress::Board, telemetry::NoTrace};

const P: PartitionId = PartitionId(3);

fn relay() -> Relay {
    let (store, publisher) = (MemoryStore::new(), MemoryPublisher::new(MemoryLog::new()));
    let pulse = Board::new(Arc::new(ManualClock::default())).add("relay", "0");
    Relay::new("t", Arc::new(store), Arc::new(publisher), Arc::new(NoTrace), &Config::default(), pulse)
}

fn own(term: u64, token: Token) -> RelayMessage {
    let (published, home) = (Arc::new(AtomicU64::new(0)), Home { count: 4, serves: true });
    RelayMessage::Own { partition: P, term, token, cursor: 7, head: 7, published, known: None, home }
}

#[tokio::test]
async fn earlier_ownership_says_nothing_of_the_next() {
    let mut relay = relay();
    let (earlier, token) = (Token::draw(), Token::draw());
    relay.take(own(1, earlier));
    relay.take(own(2, token));
    let (done, ended) = oneshot::channel();
    relay.take(RelayMessage::Finish { partition: P, term: 1, token: earlier, head: 5, done });
    relay.take(RelayMessage::Reload { partition: P, term: 1, token: earlier, head: 9 });
    relay.take(RelayMessage::Home { partition: P, term: 1, home: Home { count: 2, serves: false } });
    relay.take(RelayMessage::Drop { partition: P, term: 1 });
    relay.finish().await;
    assert!(ended.await.is_err(), "the hand-over of an ownership that is gone fails");
    let line = &relay.lines[&P];
    let published = line.published.load(Ordering::Acquire);
    let home = Home { count: 4, serves: true };
    assert_eq!((line.term, line.token, line.head, published, line.home), (2, token, 7, 7, home));
    relay.take(RelayMessage::Drop { partition: P, term: 2 });
    assert!(relay.lines.is_empty());
}
