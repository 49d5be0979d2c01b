//! `ListPickable`: pages, tokens.
//!
//! Invariant: a page begins right after the last shipment of the page before, in an order that no change
//! moves (since when it can be picked, id), so the pages of a walk hold each shipment that could be picked
//! all the while once, whatever is picked or comes meanwhile.

use holdfast_adapter::{page, read, status};
use holdfast_core::disposition::Refused;
use holdfast_proto::fulfillment::v1;
use prost::Message as _;
use tonic::Status;
use uuid::Uuid;

use crate::queries::{Position, Queries};

/// Shipments of a page if nobody says.
const SIZE: usize = 50;

/// Shipments of a page at most.
const SIZE_MAX: usize = 500;

/// A page of large shipments ends early here, well below the largest message.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Before all shipments.
const START: Position = Position { ready_at_ms: i64::MIN, order_id: Uuid::nil() };

/// What tokens are bound to: this listing, which has no conditions.
const CONDITIONS: &[u8] = b"fulfillment.pickable";

pub(super) async fn pickable(
    queries: &dyn Queries,
    asked: v1::ListPickableRequest,
) -> Result<v1::ListPickableResponse, Status> {
    let size = size(asked.page_size).map_err(|refused| status::argument(&refused))?;
    let after = after(&asked.page_token).map_err(|refused| status::argument(&refused))?;
    let listed = queries.pickable(after, size + 1).await.map_err(|error| status::store(&error))?;

    let mut left = listed.len() > size;
    let (mut shipments, mut last, mut bytes) = (Vec::new(), None, 0);
    for listed in listed.into_iter().take(size) {
        bytes += listed.shipment.encoded_len();
        if bytes > BYTES_MAX && last.is_some() {
            left = true;
            break;
        }
        last = Some(listed.position);
        shipments.push(listed.shipment);
    }
    let next_page_token = match last {
        Some(last) if left => page::token(CONDITIONS, &place(last)),
        _ => String::new(),
    };
    Ok(v1::ListPickableResponse { shipments, next_page_token, read: Some(read::info(0, false)) })
}

fn size(asked: i32) -> Result<usize, Refused> {
    match usize::try_from(asked) {
        Ok(0) => Ok(SIZE),
        Ok(size) if size <= SIZE_MAX => Ok(size),
        _ => Err(Refused::invalid("page_size", "page_size is not 1-500, nor 0 for 50")),
    }
}

fn after(token: &str) -> Result<Position, Refused> {
    match token {
        "" => Ok(START),
        token => position(&page::position("page_token", CONDITIONS, token)?),
    }
}

/// A position in the form that tokens hold.
fn place(position: Position) -> Vec<u8> {
    [&position.ready_at_ms.to_be_bytes()[..], position.order_id.as_bytes()].concat()
}

fn position(bytes: &[u8]) -> Result<Position, Refused> {
    let read = |bytes: &[u8]| {
        let (ms, id) = bytes.split_first_chunk::<8>()?;
        Some(Position { ready_at_ms: i64::from_be_bytes(*ms), order_id: Uuid::from_slice(id).ok()? })
    };
    read(bytes).ok_or_else(|| Refused::invalid("page_token", "page_token holds no position"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_token() {
        for place_of in [START, Position { ready_at_ms: i64::MAX, order_id: Uuid::max() }] {
            let token = page::token(CONDITIONS, &place(place_of));
            assert_eq!(after(&token), Ok(place_of));
        }
        assert_eq!(after(""), Ok(START));
        assert!(position(b"short").is_err() && after("00").is_err());
    }

    #[test]
    fn a_page_has_1_to_500_shipments() {
        assert_eq!((size(0), size(1), size(500)), (Ok(50), Ok(1), Ok(500)));
        assert!(size(-1).is_err() && size(501).is_err());
    }
}
