-- The monitor's durable state. Everything here lies in the schema `pgtandem` (the connection's
-- search_path); the record is one JSON document per group, since it is read and written as one.

CREATE TABLE group_record (
    formation text    NOT NULL,
    group_id  integer NOT NULL,
    -- Compared at each write: a decision made on another revision is refused.
    revision  bigint  NOT NULL,
    record    jsonb   NOT NULL,
    PRIMARY KEY (formation, group_id)
);

-- The history. Ids are given with the decision, from 1 without gaps per formation.
CREATE TABLE event (
    formation  text        NOT NULL,
    id         bigint      NOT NULL,
    at         timestamptz NOT NULL,
    group_id   integer     NOT NULL,
    node       text,
    node_id    bigint,
    epoch      bigint      NOT NULL,
    kind       text        NOT NULL,
    rule       text        NOT NULL,
    from_state text,
    to_state   text,
    timeline   bigint,
    lsn        text,
    reason     text        NOT NULL,
    evidence   jsonb       NOT NULL,
    PRIMARY KEY (formation, id)
);

-- Join tokens: only their hashes are kept. A formation without tokens lets every keeper join.
CREATE TABLE join_token (
    formation  text        NOT NULL,
    id         text        NOT NULL,
    token_hash bytea       NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (formation, id)
);

-- The passwords of the roles that pgtandem uses in the managed Postgres.
CREATE TABLE formation_secret (
    formation  text PRIMARY KEY,
    replicator text NOT NULL,
    monitor    text NOT NULL,
    keeper     text NOT NULL
);

-- What was answered to requests that carried an Idempotency-Key.
CREATE TABLE idempotency (
    formation text        NOT NULL,
    key       text        NOT NULL,
    request   jsonb       NOT NULL,
    result    jsonb       NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (formation, key)
);

CREATE INDEX idempotency_at ON idempotency (at);

-- For people.
CREATE VIEW formation AS
SELECT r.formation,
       r.group_id,
       r.revision,
       r.record #>> '{phase,phase}'           AS phase,
       (r.record ->> 'epoch')::numeric        AS epoch,
       (r.record ->> 'ticket')::numeric       AS ticket,
       (r.record ->> 'primary')::bigint       AS primary_id,
       r.record -> 'nodes' -> (r.record ->> 'primary') ->> 'name' AS primary_name
FROM group_record AS r;

CREATE VIEW node AS
SELECT r.formation,
       r.group_id,
       n.key::bigint                                  AS node_id,
       n.value ->> 'name'                             AS node_name,
       n.value ->> 'host'                             AS host,
       (n.value ->> 'port')::integer                  AS port,
       n.value ->> 'rest'                             AS rest,
       n.value ->> 'zone'                             AS zone,
       (n.value ->> 'candidate_priority')::integer    AS candidate_priority,
       (n.value ->> 'replication_quorum')::boolean    AS replication_quorum,
       n.value ->> 'reported_state'                   AS reported_state,
       (n.value ->> 'state_changed_at')::timestamptz  AS state_changed_at,
       (n.value ->> 'maintenance')::boolean           AS maintenance,
       (n.value ->> 'dropping')::boolean              AS dropping,
       n.key = r.record ->> 'primary'                 AS is_primary
FROM group_record AS r
CROSS JOIN LATERAL jsonb_each(r.record -> 'nodes') AS n;
