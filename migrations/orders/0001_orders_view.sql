-- The read model that ListOrders pages through. Written by the transaction that changes the order, and only when a column here changes:
-- when the order is created, and when its status changes.

create table orders_view (
    order_id      uuid   primary key,
    customer_id   uuid   not null,
    status        text   collate "C" not null,
    created_at_ms bigint not null                  -- since the Unix epoch
) with (fillfactor = 80);

-- Newest first, within a customer or within a status. A page over all customers and states merges one range per status, so there is no
-- third index to write.
create index orders_view_customer on orders_view (customer_id, created_at_ms, order_id);
create index orders_view_status on orders_view (status, created_at_ms, order_id);
