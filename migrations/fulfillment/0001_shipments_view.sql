-- The read model that ListPickable pages through. A row is written when a shipment can be picked for the first time, by the transaction that
-- makes it so, and afterwards when its status changes. It holds no personal data.

create table shipments_view (
    order_id    uuid   primary key,
    status      text   collate "C" not null,
    ready_at_ms bigint not null                  -- when both its request and its stock's confirmation had come, since the Unix epoch
) with (fillfactor = 80);

-- Only what can be picked: the index is as long as the warehouse is behind, however many shipments there were.
create index shipments_view_pickable on shipments_view (ready_at_ms, order_id) where status = 'PENDING';
