-- What the sweep remembers from one time to the next: where it is, what it saw, and what makes it doubt.
-- depends: 0002.verification

-- The sweep's way through a storage's objects: one row a storage. cursor_key: the last key that was looked at, NULL
-- between two passes. trusted: seconds that have certainly gone by since the pass before began, whatever a clock says.
CREATE TABLE listing (
    storage      VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    pass         INT UNSIGNED NOT NULL,
    cursor_key   VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NULL,
    begun        VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    begun_at     DATETIME(6) NOT NULL,
    ended_at     DATETIME(6) NULL,
    trusted      BIGINT UNSIGNED NOT NULL DEFAULT 0,
    objects      BIGINT UNSIGNED NOT NULL DEFAULT 0,
    missing      BIGINT UNSIGNED NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Objects and multipart uploads (kind: object, upload) that no row knew when they were listed.
-- made_at: what the key itself says. seconds: for how long it has certainly been unknown, over so many passes.
-- accepted: a person has said that it may go.
CREATE TABLE sighting (
    storage       VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    kind          VARCHAR(8) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    object_key    VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    made_at       DATETIME(6) NULL,
    first_seen_at DATETIME(6) NOT NULL,
    last_seen_at  DATETIME(6) NOT NULL,
    seconds       BIGINT UNSIGNED NOT NULL DEFAULT 0,
    times         INT UNSIGNED NOT NULL DEFAULT 1,
    pass          INT UNSIGNED NOT NULL,
    accepted      TINYINT(1) NOT NULL DEFAULT 0,
    PRIMARY KEY (storage, kind, object_key),
    KEY sighting_pass (storage, pass),
    KEY sighting_made (storage, accepted, made_at),
    KEY sighting_seconds (storage, kind, seconds)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Why nothing that cannot be undone is done. kind: gap, clock, rows, share, missing; storage is empty where it is about
-- all of them. A gap settles itself when every storage has been listed since; the others a person settles.
CREATE TABLE doubt (
    kind     VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    storage  VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    message  VARCHAR(255) NOT NULL,
    from_at  DATETIME(6) NULL,
    until_at DATETIME(6) NULL,
    noted_at DATETIME(6) NOT NULL,
    PRIMARY KEY (kind, storage)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Blobs that may have lost their last file: who purges a file notes its blob, so that nobody looks through all blobs.
CREATE TABLE blob_candidate (
    blob_id  BINARY(16) NOT NULL PRIMARY KEY,
    noted_at DATETIME(6) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- missing_at: the storage says that there is no such object. checked_at: when its bytes were last compared.
ALTER TABLE replica
    ADD COLUMN missing_at DATETIME(6) NULL,
    ADD COLUMN checked_at DATETIME(6) NULL,
    ADD KEY replica_missing (missing_at),
    ADD KEY replica_checked (storage, checked_at);
