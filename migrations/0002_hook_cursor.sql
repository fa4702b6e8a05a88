-- How far each hook of the monitor has been told the history. A hook is known by the hash of what was written for
-- it, since that may carry a secret; one that is not configured any more leaves its row behind.

CREATE TABLE hook_cursor (
    formation text   NOT NULL,
    hook_hash bytea  NOT NULL,
    -- The newest event that it has taken, or had no use for.
    event_id  bigint NOT NULL,
    PRIMARY KEY (formation, hook_hash)
);
