//! What the pages look like.
//!
//! Invariant: everything that comes from outside is escaped (maud escapes whatever is not `PreEscaped`, and
//! nothing here is). Deliberately absent: looks, which are in `assets/style.css`.

use holdfast_proto::Timestamp;
use maud::{DOCTYPE, Markup, html};

use crate::{
    model::{CancellationCause, Order, OrderStatus, Orders},
    problem::Problem,
};

/// The way of an order that nothing comes between.
const WAY: [OrderStatus; 5] =
    [OrderStatus::Draft, OrderStatus::Placed, OrderStatus::Paid, OrderStatus::Shipped, OrderStatus::Delivered];

/// States, in the order in which a person looks for them.
const STATUSES: [OrderStatus; 6] = [WAY[0], WAY[1], WAY[2], WAY[3], WAY[4], OrderStatus::Cancelled];

fn frame(title: &str, head: Markup, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Holdfast" }
                link rel="stylesheet" href="/assets/style.css";
                (head)
            }
            body { (body) }
        }
    }
}

fn with_header(title: &str, head: Markup, main: Markup) -> Markup {
    let body = html! {
        header {
            nav {
                a class="brand" href="/orders" { "Holdfast" }
                a href="/orders" { "Orders" }
                a href="/docs/" { "API" }
                form method="post" action="/sign-out" { button type="submit" class="quiet" { "Sign out" } }
            }
        }
        main { (main) }
    };
    frame(title, head, body)
}

const fn word(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Draft => "Draft",
        OrderStatus::Placed => "Placed",
        OrderStatus::Paid => "Paid",
        OrderStatus::Shipped => "Shipped",
        OrderStatus::Delivered => "Delivered",
        OrderStatus::Cancelled => "Cancelled",
        OrderStatus::Unknown => "Unknown",
    }
}

/// As the interface writes it.
fn value(status: OrderStatus) -> String {
    word(status).to_uppercase()
}

const fn cause(cause: CancellationCause) -> &'static str {
    match cause {
        CancellationCause::Requested => "as you asked",
        CancellationCause::OutOfStock => "there was not enough in stock",
        CancellationCause::ReservationExpired => "it was not paid in time",
        CancellationCause::PaymentDeclined => "the payment was declined",
        CancellationCause::Undeliverable => "there was no address to send it to",
        CancellationCause::Warehouse => "the warehouse could not send it",
        CancellationCause::Unknown => "for another reason",
    }
}

fn badge(status: OrderStatus) -> Markup {
    html! { span class={ "badge " (word(status).to_lowercase()) } { (word(status)) } }
}

/// `2026-11-26 09:30:12 UTC`, for programs as RFC 3339.
fn time(at: Option<&Timestamp>) -> Markup {
    let Some(at) = at.and_then(|at| serde_json::to_value(at).ok()?.as_str().map(str::to_owned)) else {
        return html! { "–" };
    };
    let seconds = at.get(..19).unwrap_or(&at).replace('T', " ");
    html! { time datetime=(at) { (seconds) " UTC" } }
}

fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(12)..).unwrap_or(id)
}

/// A page of orders.
pub(super) fn orders(found: &Orders, wanted: Option<OrderStatus>) -> Markup {
    let chosen = wanted.map(value).unwrap_or_default();
    let main = html! {
        h1 { "Orders" }
        form method="get" action="/orders" class="filter" {
            label for="status" { "Status" }
            select name="status" id="status" {
                option value="" { "any" }
                @for status in STATUSES {
                    option value=(value(status)) selected[wanted == Some(status)] { (word(status)) }
                }
            }
            button type="submit" { "Show" }
        }
        @if found.orders.is_empty() {
            p class="empty" { @if wanted.is_some() { "There are no such orders." } @else { "There are no orders yet." } }
        } @else {
            table {
                thead { tr {
                    th scope="col" { "Order" } th scope="col" { "Status" } th scope="col" class="number" { "Items" }
                    th scope="col" class="number" { "Total" } th scope="col" { "Created" }
                } }
                tbody {
                    @for order in &found.orders {
                        tr {
                            td { a href={ "/orders/" (order.order_id) } { "…" (short(&order.order_id)) } }
                            td { (badge(order.status)) }
                            td class="number" { (order.lines.iter().map(|line| line.quantity).fold(0_i64, i64::saturating_add)) }
                            td class="number" { (order.total) }
                            td { (time(order.created_at.as_ref())) }
                        }
                    }
                }
            }
        }
        @if let Some(token) = &found.next_page_token {
            p { a class="next" href={ "/orders?status=" (chosen) "&page_token=" (token) } { "Older orders" } }
        }
    };
    with_header("Orders", html! {}, main)
}

/// One order. Its changing part is kept up to date by `assets/live.js`, or, without scripts, by loading it
/// again.
pub(super) fn order(order: &Order) -> Markup {
    let head = html! {
        @if !order.status.is_final() {
            noscript { meta http-equiv="refresh" content="5"; }
            script src="/assets/live.js" defer {}
        }
    };
    let main = html! {
        h1 { "Order " span class="id" { (order.order_id) } }
        @let live = format!("/orders/{}/live", order.order_id);
        div id="state" data-live=[(!order.status.is_final()).then_some(live)] { (state(order)) }
    };
    with_header("Order", head, main)
}

/// What changes of an order.
pub(super) fn state(order: &Order) -> Markup {
    html! {
        p class="status" role="status" { (badge(order.status)) " " (explained(order)) }
        @if order.status != OrderStatus::Cancelled { (way(order.status)) }
        table {
            thead { tr {
                th scope="col" { "Item" } th scope="col" class="number" { "Quantity" }
                th scope="col" class="number" { "Price" } th scope="col" class="number" { "Subtotal" }
            } }
            tbody {
                @for line in &order.lines {
                    tr {
                        td { (line.sku) }
                        td class="number" { (line.quantity) }
                        td class="number" { (line.unit_price) }
                        td class="number" { (line.subtotal) }
                    }
                }
            }
            tfoot { tr { th scope="row" colspan="3" { "Total" } td class="number" { (order.total) } } }
        }
        dl {
            @if let Some(paid) = &order.paid { dt { "Paid" } dd { (paid) } }
            @if let Some(parcel) = &order.parcel { dt { "Parcel" } dd { (parcel.carrier) ", " (parcel.tracking_number) } }
            @if let Some(until) = &order.reserved_until { dt { "Reserved until" } dd { (time(Some(until))) } }
            dt { "Created" } dd { (time(order.created_at.as_ref())) }
            dt { "Last change" } dd { (time(order.updated_at.as_ref())) }
        }
    }
}

fn way(now: OrderStatus) -> Markup {
    let reached = WAY.iter().position(|status| *status == now);
    html! {
        ol class="way" {
            @for (n, status) in WAY.iter().enumerate() {
                li class=(if reached.is_some_and(|reached| n <= reached) { "done" } else { "to-come" })
                    aria-current=[(reached == Some(n)).then_some("step")] { (word(*status)) }
            }
        }
    }
}

/// Where it is, in a sentence.
fn explained(order: &Order) -> Markup {
    if order.cancellation_requested.is_some() {
        return html! { "You asked to cancel it; the warehouse is being stopped if it still can be." };
    }
    match (order.status, &order.cancellation) {
        (OrderStatus::Draft, _) => html! { "It is being put together." },
        (OrderStatus::Placed, _) if order.reserved_until.is_some() => {
            html! { "Everything is set aside; the payment is being made." }
        }
        (OrderStatus::Placed, _) => html! { "We are looking whether everything is there." },
        (OrderStatus::Paid, _) => html! { "It is paid, and being packed." },
        (OrderStatus::Shipped, _) => html! { "It is on its way." },
        (OrderStatus::Delivered, _) => html! { "It has arrived." },
        (OrderStatus::Cancelled, Some(cancellation)) => html! {
            "It was cancelled: " (cause(cancellation.cause)) "."
            @if cancellation.cause == CancellationCause::Requested && !cancellation.reason.is_empty() {
                " “" (cancellation.reason) "”"
            }
            @if order.paid.is_some() { " What was paid is given back." }
        },
        _ => html! {},
    }
}

/// The page on which a person enters a token.
pub(super) fn sign_in(next: &str, wrong: Option<&str>) -> Markup {
    let body = html! {
        main class="narrow" {
            h1 { "Sign in" }
            @if let Some(wrong) = wrong { p class="wrong" role="alert" { "That did not work: " (wrong) "." } }
            form method="post" action="/sign-in" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                textarea name="token" id="token" rows="6" required autocomplete="off" spellcheck="false" {}
                p class="hint" { "A JSON Web Token of the shop's issuer. It stays in this browser until it is closed." }
                button type="submit" { "Sign in" }
            }
        }
    };
    frame("Sign in", html! {}, body)
}

/// A problem, in words.
pub(super) fn problem(problem: &Problem) -> Markup {
    let status = problem.status();
    let title = status.canonical_reason().unwrap_or("Problem");
    let main = html! {
        h1 { (title) }
        p class="wrong" { (problem.detail()) }
        p { a href="/orders" { "Back to the orders" } }
    };
    with_header(title, html! {}, main)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::orders::v1 as wire;

    use super::*;

    #[test]
    fn what_comes_from_outside_is_text() {
        let evil = "<script>alert(1)</script>";
        let order = Order::from(wire::Order {
            order_id: evil.into(),
            status: wire::OrderStatus::Cancelled.into(),
            lines: vec![wire::OrderLine { sku: evil.into(), ..wire::OrderLine::default() }],
            cancellation: Some(wire::Cancellation {
                cause: wire::CancellationCause::Requested.into(),
                reason: evil.into(),
            }),
            ..wire::Order::default()
        });
        let text = super::order(&order).into_string() + &sign_in(evil, Some(evil)).into_string();
        assert!(!text.contains(evil) && text.contains("&lt;script&gt;"));
    }

    #[test]
    fn changing_page_names_its_live_url_and_works_without_scripts() {
        let of = |status: wire::OrderStatus| {
            let order = wire::Order { order_id: "o".into(), status: status.into(), ..wire::Order::default() };
            super::order(&Order::from(order)).into_string()
        };
        let changing = of(wire::OrderStatus::Paid);
        assert!(changing.contains(r#"data-live="/orders/o/live""#) && changing.contains("http-equiv=\"refresh\""));
        let done = of(wire::OrderStatus::Delivered);
        assert!(!done.contains("data-live") && !done.contains("refresh"));
    }
}
