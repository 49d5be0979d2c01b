-- The payments that are stopped because their provider contradicted what was asked of it: what `holdfast doctor` names. A row is written by the
-- transaction that stops the payment, and stays. Other payments have none, so the table is as short as the list of what a person has to look at.

create table contradictions (
    order_id uuid   primary key,
    source   text   not null,                    -- the call that was answered, or `report`
    subject  text   collate "C" not null,        -- ORDER, CHARGE, REFUND or AMOUNT
    asked    text   not null,
    answered text   not null,
    at_ms    bigint not null                     -- when the payment was stopped, by the owning node's clock, since the Unix epoch
);

create index contradictions_latest on contradictions (at_ms desc, order_id);
