//! `ReservationService`.

use holdfast_proto::{
    inventory::v1::{GetReservationRequest, GetReservationResponse, ReservationLine, ReservationStatus},
    read::v1::Consistency,
};
use tonic::{Code, Status};

use crate::shop::{Shop, counts, invalid, new_id, refusal};

impl Shop {
    async fn reservation(
        &self,
        order_id: &str,
        consistency: Consistency,
        min_version: u64,
    ) -> Result<GetReservationResponse, Status> {
        let order_id = order_id.to_owned();
        let request = GetReservationRequest { order_id, consistency: consistency.into(), min_version };
        Ok(self.reservations().get_reservation(request).await?.into_inner())
    }

    /// Waits until inventory has decided about `order_id`.
    pub async fn reserved(&self, order_id: &str) -> GetReservationResponse {
        self.reservation(order_id, Consistency::Strong, 1).await.unwrap()
    }
}

fn line(sku: &str, quantity: i64) -> ReservationLine {
    ReservationLine { sku: sku.to_owned(), quantity }
}

#[tokio::test]
async fn a_placed_order_is_held_and_its_live_actor_says_so() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    shop.stocked("B", 5, 100).await;
    let order = new_id();
    shop.place(&order, &[("B", 2), ("A", 1)]);

    let answer = shop.reserved(&order).await;
    let (held, read) = (answer.reservation.unwrap(), answer.read.unwrap());
    assert_eq!((held.order_id.as_str(), held.status(), held.version), (order.as_str(), ReservationStatus::Held, 1));
    assert_eq!(held.lines, [line("A", 1), line("B", 2)]);
    assert_eq!((read.consistency(), read.version), (Consistency::Strong, 1));
    let hold = held.expires_at.unwrap().seconds - held.created_at.unwrap().seconds;
    assert_eq!(hold, 15 * 60);
    assert_eq!(counts(&shop.item("B").await), (5, 2, 3));

    let local = shop.reservation(&order, Consistency::Local, 1).await.unwrap();
    assert_eq!(local.read.unwrap().consistency(), Consistency::Local);
    assert_eq!(local.reservation.unwrap().status(), ReservationStatus::Held);
}

#[tokio::test]
async fn all_lines_are_held_or_none() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    let order = new_id();
    shop.place(&order, &[("A", 1), ("GONE", 1)]);
    let refused = shop.reserved(&order).await.reservation.unwrap();
    assert_eq!((refused.status(), refused.lines), (ReservationStatus::Refused, vec![line("A", 1), line("GONE", 1)]));
    assert_eq!(refused.expires_at, None);
    assert_eq!(counts(&shop.item("A").await), (5, 0, 5));
}

#[tokio::test]
async fn a_cancelled_order_gives_its_stock_back_once() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    let order = new_id();
    shop.place(&order, &[("A", 4)]);
    shop.reserved(&order).await;
    shop.cancel(&order, 2);
    shop.cancel(&order, 2);
    let answer = shop.reservation(&order, Consistency::Strong, 2).await.unwrap();
    assert_eq!(answer.reservation.unwrap().status(), ReservationStatus::Released);
    assert_eq!(counts(&shop.item("A").await), (5, 0, 5));
}

#[tokio::test]
async fn a_cancellation_that_comes_first_forestalls_the_reservation() {
    let shop = Shop::open().await;
    shop.stocked("A", 5, 100).await;
    let order = new_id();
    shop.cancel(&order, 1);
    shop.reserved(&order).await;
    shop.place_as(&order, 2, &[("A", 1)]);
    // A later order of the same partition shows that the late one was seen.
    let after = same_home(&order);
    shop.place(&after, &[("A", 1)]);
    shop.reserved(&after).await;
    let forestalled = shop.reserved(&order).await.reservation.unwrap();
    assert_eq!((forestalled.status(), forestalled.version), (ReservationStatus::Released, 1));
    assert!(forestalled.lines.is_empty());
    assert_eq!(counts(&shop.item("A").await), (5, 1, 4));
}

/// Another order's id whose home is that of `order`.
fn same_home(order: &str) -> String {
    let home = |id: &str| holdfast_core::KeyHash::of(id.as_bytes()).home(4);
    std::iter::repeat_with(new_id).find(|id| home(id) == home(order)).unwrap()
}

#[tokio::test]
async fn a_reservation_that_nobody_asked_for_is_not_found() {
    let shop = Shop::open().await;
    for consistency in [Consistency::Strong, Consistency::Local] {
        let refused = refusal(shop.reservation(&new_id(), consistency, 0).await);
        assert_eq!(refused, (Code::NotFound, "RESERVATION_NOT_FOUND".to_owned(), vec![]));
    }
}

#[tokio::test]
async fn an_order_id_that_is_none_is_an_invalid_argument() {
    let shop = Shop::open().await;
    for id in ["", "4711", "0192F0C1-7B1E-7CC3-8000-00000000000A"] {
        assert_eq!(refusal(shop.reservation(id, Consistency::Strong, 0).await), invalid("order_id"));
    }
}

#[tokio::test]
async fn a_strong_read_never_falls_back_silently() {
    let shop = Shop::open().await;
    let order = new_id();
    shop.place(&order, &[("GONE", 1)]);
    shop.reserved(&order).await;
    shop.node.stop().await;
    let (code, reason, _) = refusal(shop.reservation(&order, Consistency::Strong, 0).await);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "OWNER_MOVING"));
    assert!(shop.reservation(&order, Consistency::Local, 1).await.is_ok());
}
