//! `ListOrders`: conditions, pages, tokens.
//!
//! Invariant: a page begins right after the last order of the page before, in an order that no change moves
//! (time of creation, id), so the pages of a walk hold each order that was there when it began once, whatever
//! is created meanwhile.

use holdfast_adapter::{check, page, read, status};
use holdfast_core::disposition::Refused;
use holdfast_proto::{Timestamp, orders::v1, time};
use prost::Message as _;
use tonic::Status;
use uuid::Uuid;

use crate::queries::{Page, Position, Queries};

/// Orders of a page if nobody says.
const SIZE: usize = 50;

/// Orders of a page at most.
const SIZE_MAX: usize = 500;

/// A page of large orders ends early here, well below the largest message.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Before all orders.
const START: Position = Position { created_at_ms: i64::MAX, order_id: Uuid::max() };

pub(super) async fn list(
    queries: &dyn Queries,
    asked: v1::ListOrdersRequest,
) -> Result<v1::ListOrdersResponse, Status> {
    let size = size(asked.page_size).map_err(|refused| status::argument(&refused))?;
    let (page, conditions) = page(&asked, size).map_err(|refused| status::argument(&refused))?;
    let listed = queries.page(&page).await.map_err(|error| status::store(&error))?;

    let more = listed.len() > size;
    let (mut orders, mut last, mut bytes) = (Vec::new(), None, 0);
    let mut left = more;
    for listed in listed.into_iter().take(size) {
        bytes += listed.order.encoded_len();
        if bytes > BYTES_MAX && last.is_some() {
            left = true;
            break;
        }
        last = Some(listed.position);
        orders.push(listed.order);
    }
    let next_page_token = match last {
        Some(last) if left => page::token(&conditions, &place(last)),
        _ => String::new(),
    };
    Ok(v1::ListOrdersResponse { orders, next_page_token, read: Some(read::info(0, false)) })
}

fn size(asked: i32) -> Result<usize, Refused> {
    match usize::try_from(asked) {
        Ok(0) => Ok(SIZE),
        Ok(size) if size <= SIZE_MAX => Ok(size),
        _ => Err(Refused::invalid("page_size", "page_size is not 1-500, nor 0 for 50")),
    }
}

/// What to ask for, one order more than the page holds; and the conditions that the page's token is bound to.
fn page(asked: &v1::ListOrdersRequest, size: usize) -> Result<(Page, Vec<u8>), Refused> {
    let customer = match &*asked.customer_id {
        "" => None,
        id => Some(check::canonical_uuid("customer_id", id)?),
    };
    let statuses = statuses(&asked.statuses)?;
    let from = bound("created_from", asked.created_from.as_ref())?;
    let before = bound("created_before", asked.created_before.as_ref())?;
    let conditions = v1::ListOrdersRequest {
        statuses: statuses.iter().map(|status| i32::from(*status)).collect(),
        page_size: 0,
        page_token: String::new(),
        ..asked.clone()
    }
    .encode_to_vec();
    let after = match &*asked.page_token {
        // No order has the least id at that moment, so this is right before the first one that was created
        // earlier.
        "" => before.map_or(START, |created_at_ms| Position { created_at_ms, order_id: Uuid::nil() }),
        token => position(&page::position("page_token", &conditions, token)?)?,
    };
    let page = Page {
        customer,
        statuses: statuses.into_iter().map(name).collect(),
        created_from_ms: from.unwrap_or(i64::MIN),
        after,
        rows_max: size + 1,
    };
    Ok((page, conditions))
}

/// The states asked for, each once; all there are, if none is said.
fn statuses(asked: &[i32]) -> Result<Vec<v1::OrderStatus>, Refused> {
    const ALL: [v1::OrderStatus; 6] = [
        v1::OrderStatus::Draft,
        v1::OrderStatus::Placed,
        v1::OrderStatus::Paid,
        v1::OrderStatus::Shipped,
        v1::OrderStatus::Delivered,
        v1::OrderStatus::Cancelled,
    ];
    if let Some(at) = asked.iter().position(|number| ALL.iter().all(|status| i32::from(*status) != *number)) {
        return Err(Refused::invalid(format!("statuses[{at}]"), format!("statuses[{at}] is no state of an order")));
    }
    let wanted = |status: &v1::OrderStatus| asked.is_empty() || asked.contains(&i32::from(*status));
    Ok(ALL.into_iter().filter(wanted).collect())
}

/// The state's name in the read model: the domain's.
fn name(status: v1::OrderStatus) -> &'static str {
    status.as_str_name().trim_start_matches("ORDER_STATUS_")
}

/// The first millisecond that is not before `at`: orders are dated by whole ones.
fn bound(field: &str, at: Option<&Timestamp>) -> Result<Option<i64>, Refused> {
    let Some(at) = at else { return Ok(None) };
    let refused = || Refused::invalid(field, format!("{field} is not a valid timestamp"));
    let ms = time::to_unix_ms(at).ok_or_else(refused)?;
    let finer = i64::from(at.nanos % 1_000_000 != 0);
    ms.checked_add(finer).ok_or_else(refused).map(Some)
}

/// A position in the form that tokens hold.
fn place(position: Position) -> Vec<u8> {
    [&position.created_at_ms.to_be_bytes()[..], position.order_id.as_bytes()].concat()
}

fn position(bytes: &[u8]) -> Result<Position, Refused> {
    let read = |bytes: &[u8]| {
        let (ms, id) = bytes.split_first_chunk::<8>()?;
        Some(Position { created_at_ms: i64::from_be_bytes(*ms), order_id: Uuid::from_slice(id).ok()? })
    };
    read(bytes).ok_or_else(|| Refused::invalid("page_token", "page_token holds no position"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_state_can_be_queried_by_its_read_model_name() {
        let names: Vec<_> = statuses(&[]).unwrap().into_iter().map(name).collect();
        assert_eq!(names, ["DRAFT", "PLACED", "PAID", "SHIPPED", "DELIVERED", "CANCELLED"]);
        let twice = [i32::from(v1::OrderStatus::Draft); 2];
        assert_eq!(statuses(&twice).unwrap(), [v1::OrderStatus::Draft]);
    }

    #[test]
    fn bound_within_a_millisecond_omits_what_happened_before_it() {
        let at = |nanos| bound("created_from", Some(&Timestamp { seconds: 1, nanos })).unwrap();
        assert_eq!((at(0), at(1), at(1_000_000)), (Some(1_000), Some(1_001), Some(1_001)));
        let refused = bound("created_from", Some(&Timestamp { seconds: i64::MAX, nanos: 0 })).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("created_from"));
    }

    #[test]
    fn a_position_survives_its_token() {
        for place_of in [START, Position { created_at_ms: -1, order_id: Uuid::nil() }] {
            assert_eq!(position(&place(place_of)), Ok(place_of));
        }
        assert!(position(b"short").is_err());
    }
}
