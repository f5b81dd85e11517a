-- Of a delivery that a schedule planned: its time, the hash of its key, and whether an attempt of it may be in flight. The
-- rows of others have NULL. A planned delivery has history = false, and since = due = planned, until it is attempted or
-- sent before its time.
ALTER TABLE eventflow.pending ADD COLUMN planned bigint, ADD COLUMN plan_key bytea, ADD COLUMN started boolean;
CREATE INDEX pending_planned ON eventflow.pending (sub, event) INCLUDE (planned, history) WHERE planned IS NOT NULL;
CREATE INDEX pending_key ON eventflow.pending (sub, plan_key) WHERE plan_key IS NOT NULL;

-- What is known of each key of a subscription beside its pending deliveries: the timestamp of the latest event that
-- planned, replaced or cancelled, and until when the row is needed at least. Whoever decides on a key holds its row.
CREATE TABLE eventflow.plan_keys (
    sub   bytea  NOT NULL,
    key   bytea  NOT NULL,
    stamp bigint,
    event bytea, -- of the newest delivery: only that may be replaced
    kept  bigint NOT NULL,
    PRIMARY KEY (sub, key)
) WITH (
    fillfactor = 60, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
