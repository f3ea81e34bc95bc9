-- What is to do in the background, for the workers: rows are the truth, the queue only delivers.
-- depends: 0002.verification

-- state: waiting, dead. tries: failures in a row. due_at: not before. enqueued_at: when the queue last got it.
-- place, memo: how far the work is. reason, message: of the last failure.
CREATE TABLE job (
    kind        VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    subject     BINARY(16) NOT NULL,
    state       VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    tries       INT UNSIGNED NOT NULL DEFAULT 0,
    due_at      DATETIME(6) NOT NULL,
    enqueued_at DATETIME(6) NULL,
    lease_owner BINARY(16) NULL,
    lease_until DATETIME(6) NULL,
    place       INT UNSIGNED NOT NULL DEFAULT 0,
    memo        VARBINARY(255) NULL,
    reason      VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    message     VARCHAR(255) NULL,
    created_at  DATETIME(6) NOT NULL,
    updated_at  DATETIME(6) NOT NULL,
    PRIMARY KEY (subject, kind),
    KEY job_due (state, kind, due_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO job (kind, subject, state, due_at, place, created_at, updated_at)
SELECT 'verify', blob_id, 'waiting', created_at, parts_done, created_at, created_at FROM verification;

DROP TABLE verification;
