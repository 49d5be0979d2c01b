//! One order as each context tells it, over its own gRPC: any node takes any call, so the address of one
//! owner of a context is enough.
//!
//! Deliberately absent: tables. What can't be asked for by a contract is not looked at.

use std::time::Duration;

use holdfast_core::port::store::Store as _;
use holdfast_platform::{
    Config, Context,
    grpc::{Peer, client},
};
use holdfast_proto::{
    fulfillment::v1::{GetShipmentRequest, Shipment, fulfillment_service_client::FulfillmentServiceClient},
    inventory::v1::{GetReservationRequest, Reservation, reservation_service_client::ReservationServiceClient},
    orders::v1::{
        GetOrderRequest, ListOrdersRequest, ListOrdersResponse, Order, order_service_client::OrderServiceClient,
    },
    payments::v1::{GetPaymentRequest, Payment, payment_service_client::PaymentServiceClient},
};
use tonic::{Code, Status};

use crate::{compose, failure::Failure, infrastructure::Infrastructure};

/// A person waits.
const DEADLINE: Duration = Duration::from_secs(10);

/// The four contexts that have a part of an order.
pub struct Tellers {
    orders: Peer,
    inventory: Peer,
    payments: Peer,
    fulfillment: Peer,
}

/// What each context says of an order; nothing where it knows of none.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The order.
    pub order: Option<Order>,
    /// Its stock.
    pub reservation: Option<Reservation>,
    /// Its money.
    pub payment: Option<Payment>,
    /// Its parcel.
    pub shipment: Option<Shipment>,
}

impl Tellers {
    /// Finds a node of each.
    pub async fn find(config: &Config, at: &Infrastructure) -> Result<Self, Failure> {
        let find = |context| Box::pin(teller(config, at, context));
        let (orders, inventory, payments, fulfillment) = tokio::try_join!(
            find(Context::Orders),
            find(Context::Inventory),
            find(Context::Payments),
            find(Context::Fulfillment),
        )?;
        Ok(Self { orders, inventory, payments, fulfillment })
    }

    /// One order.
    pub async fn story(&self, order_id: &str) -> Result<Story, Failure> {
        let id = || order_id.to_owned();
        let order = self.orders.call(|stack| {
            let request = GetOrderRequest { order_id: id(), ..GetOrderRequest::default() };
            async move { OrderServiceClient::new(stack).get_order(request).await }
        });
        let reservation = self.inventory.call(|stack| {
            let request = GetReservationRequest { order_id: id(), ..GetReservationRequest::default() };
            async move { ReservationServiceClient::new(stack).get_reservation(request).await }
        });
        let payment = self.payments.call(|stack| {
            let request = GetPaymentRequest { order_id: id(), ..GetPaymentRequest::default() };
            async move { PaymentServiceClient::new(stack).get_payment(request).await }
        });
        let shipment = self.fulfillment.call(|stack| {
            let request = GetShipmentRequest { order_id: id(), ..GetShipmentRequest::default() };
            async move { FulfillmentServiceClient::new(stack).get_shipment(request).await }
        });
        let all = async { tokio::join!(order, reservation, payment, shipment) };
        let (order, reservation, payment, shipment) = Box::pin(all).await;
        Ok(Story {
            order: known(order)?.and_then(|answer| answer.into_inner().order),
            reservation: known(reservation)?.and_then(|answer| answer.into_inner().reservation),
            payment: known(payment)?.and_then(|answer| answer.into_inner().payment),
            shipment: known(shipment)?.and_then(|answer| answer.into_inner().shipment),
        })
    }

    /// A page of all orders, newest first.
    pub async fn page(&self, page_token: &str) -> Result<ListOrdersResponse, Failure> {
        let request =
            ListOrdersRequest { page_size: 200, page_token: page_token.to_owned(), ..ListOrdersRequest::default() };
        let call = |stack| {
            let request = request.clone();
            async move { OrderServiceClient::new(stack).list_orders(request).await }
        };
        Ok(self.orders.call(call).await.map_err(unreachable)?.into_inner())
    }
}

fn known<T>(answer: Result<T, Status>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) if status.code() == Code::InvalidArgument => {
            Err(Failure::usage(anyhow::anyhow!(status.message().to_owned())))
        }
        Err(status) => Err(unreachable(status)),
    }
}

fn unreachable(status: Status) -> Failure {
    Failure::unreachable(anyhow::anyhow!("{}: {}", status.code(), status.message()))
}

async fn teller(config: &Config, at: &Infrastructure, context: Context) -> Result<Peer, Failure> {
    let store = compose::store(config, at, context).await?;
    let rows = store.partitions().await.map_err(Failure::unreachable)?;
    let owner = rows.into_iter().find(|row| row.token.is_some() && !row.released);
    let Some(owner) = owner else {
        return Err(Failure::unreachable(anyhow::anyhow!("no node serves {context} now")));
    };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let settings = client::Settings { deadline: DEADLINE, ..client::Settings::default() };
    Peer::new(context.as_str(), &format!("{scheme}://{}", owner.address), settings, config.tls.as_ref())
        .map_err(Failure::usage)
}
