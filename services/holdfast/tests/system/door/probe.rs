//! The probe: whether the stand answers on every partition, of every context, by record and by call.
//!
//! Invariant: each wait has a bound. Deliberately absent: the outcome of the attack itself.

use std::{sync::atomic::Ordering, time::Duration};

use futures::future::join_all;
use holdfast_load_tests::{by_hand::Raw, tail::Lying};
use holdfast_proto::{
    customers::v1::{GetCustomerRequest, customer_service_client::CustomerServiceClient},
    fulfillment::v1::{GetShipmentRequest, fulfillment_service_client::FulfillmentServiceClient},
    inventory::v1::{GetReservationRequest, reservation_service_client::ReservationServiceClient},
    orders::v1::{AddItem, AddItemRequest, GetOrderRequest},
    payments::v1::{GetPaymentRequest, payment_service_client::PaymentServiceClient},
};
use http::{Request, StatusCode};
use http_body_util::Full;
use libtest_mimic::Failed;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::{
    attack::{Outcome, Row, all},
    stand::{Bystander, PARTITIONS, PATIENCE, Stand, asked, id, id_at, last},
};
use crate::shop::record;

impl Stand {
    /// Checks that an order on every partition is answered and takes a command by record and by call, that
    /// every context answers for every partition, and that the process is live and ready.
    pub async fn probe(&self) -> Result<(), Failed> {
        let orders = self.bystanders.iter().map(|order| self.answers(order));
        let contexts = (0..PARTITIONS).map(|partition| self.looks_up(partition));
        let probed = async { tokio::join!(join_all(orders), join_all(contexts), self.is_live()) };
        // Each part has a bound of its own; this one is for a server that ignores deadlines.
        let probed = timeout(PATIENCE * 3, probed).await.map_err(|_| "the probe hangs")?;
        all(probed.0.into_iter().chain(probed.1).chain([probed.2]))
    }

    async fn answers(&self, order: &Bystander) -> Result<(), Failed> {
        let wrong = |what: &str, why: String| Failed::from(format!("partition {}: {what}: {why}", order.partition));
        let before = self.order(&order.id).await.map_err(|failed| wrong("a strong read", said(&failed)))?;
        if before.version < order.version.load(Ordering::Relaxed) {
            return Err(wrong("a strong read", format!("version {} is old", before.version)));
        }
        let from = self.tail.len();
        let item = || AddItem { order_id: order.id.clone(), sku: "lamp".to_owned(), quantity: 1 };
        let by_record: Raw = record(&order.id, &item());
        self.send(vec![Row::new("the probe", by_record.clone(), Outcome::Caused(1))]).await?;
        let request_id = id();
        let call = AddItemRequest { request_id: request_id.clone(), command: Some(item()) };
        let called = self.orders().add_item(asked(call)).await;
        called.map_err(|status| wrong("a call", format!("{status:?}")))?;
        let causes = [last(&by_record, "ce_id").to_owned(), request_id];
        let find = |seen: &[Lying]| {
            let version_of = |cause: &String| {
                let mut of_it = seen.iter().filter(|lying| last(&lying.raw, "ce_causationid") == cause);
                of_it.find_map(|event| last(&event.raw, "ce_sequence").parse::<u64>().ok())
            };
            causes.iter().map(version_of).collect::<Option<Vec<u64>>>()
        };
        let versions = self.tail.until(from, PATIENCE, find).await;
        let versions =
            versions.map_err(|_| wrong("a record and a call", "their events are not readable".to_owned()))?;
        let newest = versions.into_iter().max().unwrap_or_default();
        let after = self.order(&order.id).await.map_err(|failed| wrong("a strong read", said(&failed)))?;
        if newest < before.version + 2 || after.version < newest {
            let versions = format!("versions {} before, {newest} published, {} after", before.version, after.version);
            return Err(wrong("a strong read", versions));
        }
        order.version.store(after.version, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that each context answers `NOT_FOUND` for a new id in `partition`, which takes a look-up.
    async fn looks_up(&self, partition: u32) -> Result<(), Failed> {
        let order_id = id_at(partition);
        let channel = || self.channel.clone();
        let get = GetOrderRequest { order_id: order_id.clone(), ..GetOrderRequest::default() };
        absent("orders", partition, self.orders().get_order(asked(get)).await)?;
        let get = GetReservationRequest { order_id: order_id.clone(), ..GetReservationRequest::default() };
        let answer = ReservationServiceClient::new(channel()).get_reservation(asked(get)).await;
        absent("inventory", partition, answer)?;
        let get = GetPaymentRequest { order_id: order_id.clone(), ..GetPaymentRequest::default() };
        absent("payments", partition, PaymentServiceClient::new(channel()).get_payment(asked(get)).await)?;
        let get = GetShipmentRequest { order_id: order_id.clone(), ..GetShipmentRequest::default() };
        absent("fulfillment", partition, FulfillmentServiceClient::new(channel()).get_shipment(asked(get)).await)?;
        let get = GetCustomerRequest { customer_id: order_id, ..GetCustomerRequest::default() };
        absent("customers", partition, CustomerServiceClient::new(channel()).get_customer(asked(get)).await)
    }

    async fn is_live(&self) -> Result<(), Failed> {
        for path in ["/health/live", "/health/ready"] {
            let request = Request::get(format!("http://{}{path}", self.operations())).body(Full::default())?;
            let answer = timeout(Duration::from_secs(10), self.http.send(request)).await??;
            if answer.status != StatusCode::OK {
                return Err(format!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
            }
        }
        Ok(())
    }
}

fn said(failed: &Failed) -> String {
    failed.message().unwrap_or_default().to_owned()
}

fn absent<T>(context: &str, partition: u32, answer: Result<Response<T>, Status>) -> Result<(), Failed> {
    match answer {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(format!("partition {partition} of {context}: {status:?}").into()),
        Ok(_) => Err(format!("partition {partition} of {context}: something that nobody made").into()),
    }
}
