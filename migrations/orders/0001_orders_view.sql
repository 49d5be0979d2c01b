-- The read model that ListOrders pages through. Written by the transaction that changes the order, and only when a column here changes:
-- when the order is created, and when its status changes.

create table orders_view (
    order_id      uuid   primary key,
    customer_id   uuid   not null,
    status        text   collate "C" not null,
    created_at_ms bigint not null                  -- since the Unix epoch
) with (fillfactor = 80);

-- Newest first, within a status, and within a customer's status. A page over several states merges one range per status, so each page is
-- read from where it begins to where it ends, and there is no third index to write. (The status in both costs nothing more: a change of it
-- is no HOT update as soon as one index holds it.)
create index orders_view_customer on orders_view (customer_id, status, created_at_ms, order_id);
create index orders_view_status on orders_view (status, created_at_ms, order_id);
