//! `StockService`: commands to one sku, and the strong read of it.

use std::sync::Arc;

use async_trait::async_trait;
use holdfast_adapter::{
    call::{self, Call, Caller},
    read, status,
    store::Reads,
};
use holdfast_core::Aggregate as _;
use holdfast_inventory_domain::StockItem;
use holdfast_platform::errors::Problem;
use holdfast_proto::inventory::v1::{
    self, AdjustStockRequest, AdjustStockResponse, GetStockRequest, GetStockResponse, ReceiveStockRequest,
    ReceiveStockResponse, SetPriceRequest, SetPriceResponse, SetReorderPointRequest, SetReorderPointResponse,
    stock_service_server::StockService,
};
use holdfast_runtime::Router;
use prost::{Message as _, Name};
use tonic::{Request, Response, Status};

use super::counted;
use crate::{
    codec::{ADJUST_STOCK, RECEIVE_STOCK, SET_PRICE, SET_REORDER_POINT},
    sku::sku_or_refused,
    status::rejected,
};

pub(super) struct Stock {
    router: Arc<dyn Router>,
    reads: Reads,
}

impl Stock {
    pub(super) fn new(router: Arc<dyn Router>, reads: Reads) -> Self {
        Self { router, reads }
    }

    /// The version of the sku after `command`.
    async fn run<C: Name>(
        &self,
        caller: Caller,
        request_id: &str,
        r#type: &'static str,
        command: Option<&C>,
        key: fn(&C) -> &str,
    ) -> Result<u64, Status> {
        let call = Call { caller, request_id, r#type, command, key, key_field: "sku" };
        Ok(call.run(&*self.router, rejected).await?.version)
    }
}

#[async_trait]
impl StockService for Stock {
    async fn receive_stock(
        &self,
        request: Request<ReceiveStockRequest>,
    ) -> Result<Response<ReceiveStockResponse>, Status> {
        let caller = Caller::of(&request);
        let ReceiveStockRequest { request_id, command } = request.into_inner();
        let version = self.run(caller, &request_id, RECEIVE_STOCK, command.as_ref(), |command| &command.sku).await?;
        let sku = command.unwrap_or_default().sku;
        Ok(Response::new(ReceiveStockResponse { sku, version }))
    }

    async fn adjust_stock(
        &self,
        request: Request<AdjustStockRequest>,
    ) -> Result<Response<AdjustStockResponse>, Status> {
        let caller = Caller::of(&request);
        let AdjustStockRequest { request_id, command } = request.into_inner();
        let version = self.run(caller, &request_id, ADJUST_STOCK, command.as_ref(), |command| &command.sku).await?;
        let sku = command.unwrap_or_default().sku;
        Ok(Response::new(AdjustStockResponse { sku, version }))
    }

    async fn set_price(&self, request: Request<SetPriceRequest>) -> Result<Response<SetPriceResponse>, Status> {
        let caller = Caller::of(&request);
        let SetPriceRequest { request_id, command } = request.into_inner();
        let version = self.run(caller, &request_id, SET_PRICE, command.as_ref(), |command| &command.sku).await?;
        let sku = command.unwrap_or_default().sku;
        Ok(Response::new(SetPriceResponse { sku, version }))
    }

    async fn set_reorder_point(
        &self,
        request: Request<SetReorderPointRequest>,
    ) -> Result<Response<SetReorderPointResponse>, Status> {
        let caller = Caller::of(&request);
        let SetReorderPointRequest { request_id, command } = request.into_inner();
        let version =
            self.run(caller, &request_id, SET_REORDER_POINT, command.as_ref(), |command| &command.sku).await?;
        let sku = command.unwrap_or_default().sku;
        Ok(Response::new(SetReorderPointResponse { sku, version }))
    }

    async fn get_stock(&self, request: Request<GetStockRequest>) -> Result<Response<GetStockResponse>, Status> {
        let deadline = Caller::of(&request).deadline();
        let GetStockRequest { sku, consistency, min_version } = request.into_inner();
        sku_or_refused("sku", &sku).map_err(|refused| status::argument(&refused))?;
        let consistency = read::consistency(consistency)?;
        let answer = call::read(&*self.router, deadline, StockItem::KIND, &sku, consistency, min_version).await?;
        if !answer.exists || answer.body.is_empty() {
            return Err(Problem::not_found("SKU_NOT_FOUND", "nothing has happened to this sku yet").into());
        }
        let item = v1::StockItem::decode(answer.body).map_err(|error| status::internal(&error))?;
        // After the sku itself, so that a caller that asks for a version also gets what that version put into
        // stock.
        let mut pools = self.reads.pools(std::slice::from_ref(&sku)).await?;
        let item = counted(item, pools.remove(&sku));
        Ok(Response::new(GetStockResponse { item: Some(item), read: Some(read::info(answer.version, answer.strong)) }))
    }
}
