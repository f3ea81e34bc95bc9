-- Copies of blobs from one storage to another: what is to be copied, and how far it is.
-- depends: 0002.verification

-- A one-off migration, or one of SLUICE_TRANSFER_POLICIES ("move:local>main"), which has no end.
-- state: running, paused, done, cancelled. planned_*: the last replica of the source that was looked at.
-- The counters change in the transactions that change items, so that asking for progress counts no rows.
CREATE TABLE transfer (
    id            BINARY(16) NOT NULL PRIMARY KEY,
    source        VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    destination   VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    policy        VARCHAR(80) CHARACTER SET ascii COLLATE ascii_bin NULL,
    delete_source TINYINT(1) NOT NULL,
    keep_for      INT UNSIGNED NOT NULL,
    delay         INT UNSIGNED NOT NULL,
    state         VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    planned       TINYINT(1) NOT NULL DEFAULT 0,
    planned_at    DATETIME(6) NOT NULL,
    planned_blob  BINARY(16) NOT NULL,
    items         INT NOT NULL DEFAULT 0,
    bytes         BIGINT NOT NULL DEFAULT 0,
    done_items    INT NOT NULL DEFAULT 0,
    done_bytes    BIGINT NOT NULL DEFAULT 0,
    skipped_items INT NOT NULL DEFAULT 0,
    skipped_bytes BIGINT NOT NULL DEFAULT 0,
    failed_items  INT NOT NULL DEFAULT 0,
    failed_bytes  BIGINT NOT NULL DEFAULT 0,
    live_bytes    BIGINT NOT NULL DEFAULT 0,
    moved_bytes   BIGINT NOT NULL DEFAULT 0,
    window_at     DATETIME(6) NOT NULL,
    window_bytes  BIGINT NOT NULL DEFAULT 0,
    rate          BIGINT NOT NULL DEFAULT 0,
    created_at    DATETIME(6) NOT NULL,
    updated_at    DATETIME(6) NOT NULL,
    ended_at      DATETIME(6) NULL,
    UNIQUE KEY transfer_policy (policy),
    KEY transfer_state (state)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One blob of a transfer; the row goes when the blob is there, and stays where it failed.
-- state: waiting, queued (a job is about it), failed. phase: copy, delete (of the source's replica).
-- object_key, which ends with upload_id, is committed here before anything is stored under it.
-- No foreign key to the blob: its deletion waits for nobody, and the item finds it gone.
CREATE TABLE transfer_item (
    id           BINARY(16) NOT NULL PRIMARY KEY,
    transfer_id  BINARY(16) NOT NULL,
    blob_id      BINARY(16) NOT NULL,
    size         BIGINT UNSIGNED NOT NULL,
    state        VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    phase        VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    storage      VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object_key   VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    upload_id    BINARY(16) NOT NULL,
    multipart_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    begun        TINYINT(1) NOT NULL DEFAULT 0,
    binds_hash   TINYINT(1) NOT NULL DEFAULT 0,
    copied       BIGINT UNSIGNED NOT NULL DEFAULT 0,
    reason       VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    message      VARCHAR(255) NULL,
    due_at       DATETIME(6) NOT NULL,
    created_at   DATETIME(6) NOT NULL,
    UNIQUE KEY transfer_item_blob (transfer_id, blob_id),
    UNIQUE KEY transfer_item_object (storage, object_key),
    UNIQUE KEY transfer_item_upload (upload_id),
    KEY transfer_item_due (transfer_id, state, due_at, id),
    CONSTRAINT transfer_item_transfer_fk FOREIGN KEY (transfer_id) REFERENCES transfer (id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- By this a planner goes on where it stopped.
CREATE INDEX replica_newest ON replica (storage, created_at, blob_id);

-- Edges may be serving a moved object for a while yet: not before then is it deleted.
ALTER TABLE doomed ADD COLUMN keep_until DATETIME(6) NULL;
