-- What the store keeps, but for the tables of periods, which it makes itself: see the package comment.

-- The tables of periods that exist.
CREATE TABLE eventflow.periods (
    kind   text   NOT NULL,
    bucket bigint NOT NULL,
    PRIMARY KEY (kind, bucket)
);

-- Deliveries on their way. One that was never attempted, and is due when its event was accepted, has history = false.
CREATE TABLE eventflow.pending (
    sub       bytea    NOT NULL,
    due       bigint   NOT NULL,
    event     bytea    NOT NULL,
    tenant    bigint   NOT NULL,
    since     bigint   NOT NULL,
    attempts  integer  NOT NULL,
    before    integer  NOT NULL,
    ord       bigint   NOT NULL,
    size      integer  NOT NULL,
    history   boolean  NOT NULL,
    log       bytea,
    replay_of bytea,
    PRIMARY KEY (sub, due, event)
) WITH (
    -- A queue: what is dead must go soon, whatever the table's size is.
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 5000
);
CREATE INDEX pending_history ON eventflow.pending (sub, event) WHERE history;
CREATE INDEX pending_order ON eventflow.pending (sub, ord, event) WHERE ord <> 0;

-- What became of each subscription's deliveries over its life.
CREATE TABLE eventflow.counts (
    sub             bytea   PRIMARY KEY,
    delivered       bigint  NOT NULL,
    retrying        bigint  NOT NULL,
    failed          bigint  NOT NULL,
    cancelled       bigint  NOT NULL,
    last_delivered  bigint  NOT NULL,
    failed_at       bigint  NOT NULL,
    last_failure    bytea,
    failures_in_row integer NOT NULL,
    gone            bigint  NOT NULL
) WITH (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0
);

-- The names that subscriptions had.
CREATE TABLE eventflow.subscriptions (
    sub       bytea NOT NULL,
    namespace text  NOT NULL,
    name      text  NOT NULL,
    PRIMARY KEY (sub, namespace)
);
CREATE INDEX subscriptions_name ON eventflow.subscriptions (namespace, name);

-- The newest acceptance of each that accepts: none is given a time at or before another's.
CREATE TABLE eventflow.acceptors (
    id   text   PRIMARY KEY,
    last bigint NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Held by appends around midnight, when ids are looked up in one table and stored in the next.
CREATE TABLE eventflow.midnight (id integer PRIMARY KEY);
INSERT INTO eventflow.midnight (id) VALUES (1);

-- The processes that work, and until when each counts as alive.
CREATE TABLE eventflow.members (
    id       text   PRIMARY KEY,
    expires  bigint NOT NULL,
    revision bigint NOT NULL -- of the routing table that it works by
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Who works on each shard. The epoch grows each time one takes it.
CREATE TABLE eventflow.leases (
    shard integer PRIMARY KEY,
    owner text,
    epoch bigint  NOT NULL
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
INSERT INTO eventflow.leases (shard, epoch) SELECT shard, 0 FROM generate_series(0, 63) AS shard;

-- What a shard's owner has to be told of deliveries that were stored elsewhere.
CREATE TABLE eventflow.notices (
    shard integer NOT NULL,
    sub   bytea   NOT NULL,
    due   bigint  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX notices_shard ON eventflow.notices (shard);
